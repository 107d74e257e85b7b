"""The session of this process, and the core API over it. The only module that imports the native one."""

from __future__ import annotations

import atexit
import inspect
import json
import logging
import numbers
import os
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from eagleray import (
    _descriptors,
    _identity,
    _init_arguments,
    _inquiries,
    _locks,
    _machine,
    _output,
    _runtime_env,
    _surroundings,
    _timeline,
)
from eagleray import _native as native
from eagleray._identity import Identity
from eagleray._native import ObjectRef
from eagleray._runtime_env import RuntimeEnv
from eagleray.exceptions import ObjectLostError

if TYPE_CHECKING:
    from eagleray._generators import ObjectRefGenerator

_Waitable = TypeVar("_Waitable", bound="ObjectRef | ObjectRefGenerator")

__all__ = [
    "ObjectRef",
    "cancel",
    "ensure_started",
    "get",
    "init",
    "is_initialized",
    "native",
    "put",
    "session",
    "shutdown",
    "start",
    "wait",
]

_STORE_SHARE = 0.3
"""Of the memory, for the object store, if nothing is said."""

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from eagleray import _zygote; _zygote.main(sys.argv[1:])"
)
"""Starts the template with the driver's `sys.path`, so that workers find the modules that the driver finds."""

_lock = threading.RLock()
_session_dir: str | None = None
"""The directory of the session that this process started."""


def _forget() -> None:
    """In a forked child: the session is the parent's."""
    global _lock, _session_dir
    _lock = threading.RLock()
    _session_dir = None
    native.gc_after_fork()


os.register_at_fork(after_in_child=_forget)
_locks.install(lambda: _session_dir)


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    object_store_memory: float | None = None,
    ignore_reinit_error: bool = False,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    namespace: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    log_to_driver: bool = True,
    logging_level: int | str | None = None,
    include_dashboard: bool | None = None,
    timeline: bool | None = None,
    **of_ray: object,
) -> SessionContext:
    """Starts the worker pool. Optional: the first use starts one with these defaults.

    Args:
        address: None, "local" or "auto": all start a session of this program on this machine.
        num_cpus: How many tasks run at a time, a whole number. All processors that this process may use, if None.
        object_store_memory: Bytes of shared memory for objects. 30 % of the memory, if None.
        ignore_reinit_error: Do nothing, instead of raising RuntimeError, if a pool runs already.
        num_gpus: How many GPUs tasks can ask for. A task that does finds its own in CUDA_VISIBLE_DEVICES. If None, those
            that are visible to this process.
        resources: What else tasks can ask for: names of your own, and how much there is of each.
        namespace: Where named actors are known, if they or who looks for them say nothing else. If None, one of its own.
        runtime_env: `env_vars`, `working_dir` and `py_modules` for all tasks and actors.
        log_to_driver: Show what workers print.
        logging_level: Of the logger "eagleray".
        include_dashboard: There is none, so True gives a warning.
        timeline: Remember for `eagleray.timeline` when tasks ran: True the last million, None the last 100,000, False none.
            If None, the environment variable EAGLERAY_TIMELINE may say 1 or 0.
        **of_ray: Other arguments of Ray's, which change no result: accepted, without effect.

    Returns:
        What is to be known of the session. In a `with` statement it ends the session.

    Raises:
        RuntimeError: A pool runs already.
        TypeError, ValueError: An argument is not what it should be.
    """

    def whole(name: str, value: object, least: int, unit: str) -> int | None:
        return (
            None if value is None else _init_arguments.whole(name, _init_arguments.without_fraction(value), least, unit)
        )

    slots = whole("num_cpus", num_cpus, 1, "processors")
    store = whole("object_store_memory", object_store_memory, _init_arguments.STORE_LEAST, "bytes")
    _init_arguments.flag("ignore_reinit_error", ignore_reinit_error)
    gpus = whole("num_gpus", num_gpus, 0, "GPUs")
    custom = _init_arguments.offered(resources)
    env = None if runtime_env is None else _runtime_env.checked(runtime_env, "runtime_env")
    _init_arguments.text("namespace", namespace)
    _init_arguments.check_address(address)
    _init_arguments.flag("log_to_driver", log_to_driver)
    _init_arguments.check_of_ray(of_ray, (name for name in inspect.signature(init).parameters if name != "of_ray"))
    if timeline is not None:
        _init_arguments.flag("timeline", timeline)
    if include_dashboard is not None and _init_arguments.flag("include_dashboard", include_dashboard):
        warnings.warn("eagleray has no dashboard: include_dashboard=True has no effect.", stacklevel=2)
    if logging_level is not None:
        level = logging_level.upper() if isinstance(logging_level, str) else logging_level
        logging.getLogger("eagleray").setLevel(level)
    with _lock:
        if is_initialized():
            if ignore_reinit_error:
                return SessionContext(session())
            raise RuntimeError(
                "eagleray is initialized already. Call eagleray.shutdown() first, or init(ignore_reinit_error=True)."
            )
        start(
            slots,
            store,
            gpus=gpus,
            resources=custom,
            namespace=namespace,
            runtime_env=env,
            log_to_driver=log_to_driver,
            timeline=timeline,
        )
        return SessionContext(session())


class SessionContext(Mapping[str, str]):
    """What `init` returns: the facts of the session, by name. In a `with` statement it ends the session."""

    dashboard_url = ""
    """There is no dashboard."""

    def __init__(self, identity: Identity) -> None:
        """Takes the session."""
        self.address_info = {
            "node_id": identity.node,
            "node_ip_address": _identity.NODE_ADDRESS,
            "session_dir": identity.session,
            "namespace": identity.namespace,
        }
        """The facts as a dict."""

    def __getitem__(self, name: str) -> str:
        return self.address_info[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __enter__(self) -> SessionContext:
        return self

    def __exit__(self, *_: object) -> None:
        shutdown()

    def disconnect(self) -> None:
        """Ends the session."""
        shutdown()

    def __repr__(self) -> str:
        return f"SessionContext({self.address_info})"


_NODE = {f"node:{_identity.NODE_ADDRESS}": 1.0, "node:__internal_head__": 1.0}
"""By a share of these, programs for Ray say on which node something is to run."""


def start(
    slots: int | None = None,
    store_bytes: int | None = None,
    *,
    zero_worker: bool = False,
    results: Literal["auto", "resident", "sealed"] = "auto",
    gpus: int | None = None,
    resources: Mapping[str, float] | None = None,
    namespace: str | None = None,
    runtime_env: RuntimeEnv | None = None,
    log_to_driver: bool = True,
    timeline: bool | None = None,
) -> None:
    """Starts the session of this process, which has none.

    `zero_worker` finishes tasks without running them, to measure everything else. `results` forces where results are
    kept, for tests.
    """
    global _session_dir
    import tempfile

    if not sys.executable:
        raise RuntimeError("eagleray cannot start workers: sys.executable does not name this Python interpreter.")
    with _lock:
        _descriptors.open_missing()
        _descriptors.allow_many()
        session_dir = tempfile.mkdtemp(prefix=f"eagleray-{os.getpid()}-")
        namespace = namespace or str(uuid.uuid4())
        _surroundings.begin(runtime_env)
        path = json.dumps([str(entry) for entry in sys.path])
        cpus = _machine.cpus()
        slots = slots or cpus
        share = max(1, cpus // slots)
        template = [sys.executable, "-P", "-c", _BOOT, path, "0", str(os.getpid()), session_dir, str(share)]
        template.append(namespace)
        _output.start(session_dir, native.task_key, log_to_driver, _inquiries.answer)
        try:
            native.start(
                slots,
                _machine.workers(slots),
                store_bytes or max(int(_machine.memory() * _STORE_SHARE), _init_arguments.STORE_LEAST),
                session_dir,
                template,
                zero_worker,
                results,
                {
                    "GPU": float(_machine.gpus() if gpus is None else gpus),
                    "memory": float(_machine.memory()),
                    **_NODE,
                    **(resources or {}),
                },
                *_timeline.remembered(timeline),
            )
        except BaseException:
            _output.stop()
            _remove(session_dir)
            raise
        _session_dir = session_dir
        _identity.take_on(Identity(session_dir, namespace))
        atexit.register(_at_exit, os.getpid())


def _remove(session_dir: str) -> None:
    import shutil

    shutil.rmtree(session_dir, ignore_errors=True)


def _at_exit(owner: int) -> None:
    if os.getpid() == owner:
        shutdown()


def shutdown() -> None:
    """Ends the worker pool, and with it all objects. Does nothing if there is none.

    Raises:
        RuntimeError: Called from inside a task.
    """
    global _session_dir
    if native.in_worker():
        raise RuntimeError("A task cannot shut down the session that runs it.")
    with _lock:
        if _session_dir is None:
            return
        session_dir, _session_dir = _session_dir, None
        _identity.take_on(None)
        try:
            native.stop()
        finally:
            _output.stop()
            _remove(session_dir)
            atexit.unregister(_at_exit)


def is_initialized() -> bool:
    """Whether this process has a worker pool, or is a worker of one."""
    return _session_dir is not None or native.in_worker()


def ensure_started(num_workers: int | None = None) -> None:
    """Starts a session if there is none."""
    if not is_initialized():
        with _lock:
            if not is_initialized():
                start(num_workers)


def session() -> Identity:
    """This process's part in its session. Starts one if there is none."""
    ensure_started()
    identity = _identity.current
    assert identity is not None  # a driver has it from `start`, a worker from its template
    return identity


def put(value: object) -> ObjectRef:
    """Stores a value and returns a ref to it.

    Raises:
        TypeError: The value is itself an `ObjectRef`.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("put() takes a value, not an ObjectRef: the object it names is in the store already.")
    ensure_started()
    return native.put(value)


def _seconds(timeout: object) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, numbers.Real):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}.")
    seconds = float(timeout)
    if not seconds >= 0:
        raise ValueError(f"timeout must be 0 or more seconds, not {seconds}.")
    return seconds if seconds != float("inf") else None


@overload
def get(object_refs: ObjectRef, timeout: float | None = None, *, copy: bool = False) -> Any: ...
@overload
def get(object_refs: list[ObjectRef], timeout: float | None = None, *, copy: bool = False) -> list[Any]: ...
def get(object_refs: ObjectRef | list[ObjectRef], timeout: float | None = None, *, copy: bool = False) -> Any:
    """Waits for the value of a ref, or the values of a list of refs.

    Args:
        object_refs: A ref, or a list of refs; a ref may occur more than once.
        timeout: Seconds to wait at most. None waits as long as it takes.
        copy: Give private, writable data. Otherwise arrays are read-only views into shared memory.

    Raises:
        GetTimeoutError: The values were not there in time.
        ObjectLostError: The session of a ref has ended, or its value is lost and cannot be made again.
        Exception: What the task raised that should have made the value.
    """
    single = isinstance(object_refs, ObjectRef)
    if not single and not isinstance(object_refs, list):
        raise ValueError(f"get() takes an ObjectRef or a list of ObjectRefs, not {type(object_refs).__name__}.")
    wanted: list[ObjectRef] = [object_refs] if isinstance(object_refs, ObjectRef) else object_refs
    _check_refs("get", wanted)
    seconds = _seconds(timeout)
    if not wanted:
        return []
    check_session()
    values = native.get_known(wanted, bool(copy))
    if values is None:
        try:
            values = native.get(wanted, seconds, bool(copy))
        finally:
            _output.drain()
    return values[0] if single else values


def check_session() -> None:
    """There is a ref, so there was a session; if it has ended, a new one would not know the object."""
    if not is_initialized():
        raise ObjectLostError(
            "The session that the ObjectRef belongs to has ended, and its objects with it; or this process was forked from "
            "the one that has the session, and only that one can use it."
        )


def _check_refs(what: str, refs: Sequence[object]) -> None:
    for place, ref in enumerate(refs):
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"{what}() takes ObjectRefs; item {place} of the list is {type(ref).__name__}.")


def wait(
    ray_waitables: list[_Waitable],
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[_Waitable], list[_Waitable]]:
    """Waits until `num_returns` of the refs have a value or an error, or the time is over.

    Args:
        ray_waitables: The refs, each once. An `ObjectRefGenerator` among them is ready when `next` would not wait.
        num_returns: How many of them must be ready.
        timeout: Seconds to wait at most. None waits as long as it takes.
        fetch_local: Whether values are to be on this machine. They are anyway.

    Returns:
        The refs that are ready, at most `num_returns`, and the rest; each in the order of `ray_waitables`.

    Raises:
        TypeError: `ray_waitables` is not a list of refs.
        ValueError: A ref occurs twice, or `num_returns` is not between 1 and the number of refs.
    """
    refs = ray_waitables
    if not isinstance(refs, list):
        raise TypeError(f"wait() takes a list of ObjectRefs, not {type(refs).__name__}.")
    count = _init_arguments.whole("num_returns", num_returns, 1, "refs")
    seconds = _seconds(timeout)
    _init_arguments.flag("fetch_local", fetch_local)
    if not refs:
        return [], []
    if count > len(refs):
        raise ValueError(f"num_returns must be at most the number of refs, {len(refs)}, not {count}.")
    check_session()
    try:
        return cast("tuple[list[_Waitable], list[_Waitable]]", native.wait(cast("list[Any]", refs), count, seconds))
    except TypeError:
        # One that is no ref: to look for generators first would take time where there are none.
        from eagleray._generators import waited_for

        items = waited_for(refs)
        if items is None:
            raise
    ready, rest = native.wait_for_parts(list(items), count, seconds)
    return [items[item] for item in ready], [items[item] for item in rest]


def cancel(ray_waitable: ObjectRef | ObjectRefGenerator, *, force: bool = False, recursive: bool = True) -> None:
    """Cancels the task that makes an object. Returns at once. Harmless if it has ended.

    One that has not begun does not begin. One that runs gets a KeyboardInterrupt; a coroutine of an actor is cancelled. Who
    asks for the result gets a `TaskCancelledError`, unless the task ended otherwise before.

    Args:
        ray_waitable: A ref to its result, or the generator that it gives.
        force: End the worker of a task that runs. Not for calls of actors: `kill` ends those.
        recursive: Cancel what the task has submitted, too.

    Raises:
        TypeError: An argument is not of its type.
        ValueError: The ref is of a call of an actor, and `force` is True.
        ObjectLostError: The ref's session has ended.
    """
    from eagleray._generators import ObjectRefGenerator

    ref = ray_waitable
    if isinstance(ref, ObjectRefGenerator):
        ref = ref.completed()
    if not isinstance(ref, ObjectRef):
        from eagleray._handles import ActorHandle

        instead = " To end an actor use eagleray.kill()." if isinstance(ref, ActorHandle) else ""
        raise TypeError(f"cancel() takes an ObjectRef, not {type(ref).__name__}.{instead}")
    _init_arguments.flag("force", force)
    _init_arguments.flag("recursive", recursive)
    check_session()
    native.cancel(ref, force, recursive)
