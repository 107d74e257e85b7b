"""The session of this process, and the core API over it. The only module that imports the native one."""

from __future__ import annotations

import atexit
import json
import numbers
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from eagleray import _descriptors, _locks, _machine, _output, _surroundings
from eagleray import _native as native
from eagleray._native import ObjectRef
from eagleray.exceptions import ObjectLostError

__all__ = [
    "ObjectRef",
    "ensure_started",
    "get",
    "init",
    "is_initialized",
    "native",
    "put",
    "shutdown",
    "start",
    "wait",
]

_STORE_SHARE = 0.3
"""Of the memory, for the object store, if nothing is said."""

_STORE_LEAST = 16 << 20
"""Bytes: what the segments of a few workers need at the very least."""

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


def _whole(name: str, value: object, least: int, unit: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number of {unit} or None, not {type(value).__name__}.")
    number = int(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least} {unit}, not {number}.")
    return number


_OWN_ARGUMENT = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": None}
"""Resources that are not offered by `resources`, and the argument that offers them."""


def _checked_resources(resources: object) -> dict[str, float]:
    if resources is None:
        return {}
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources must be a dict of names and amounts or None, not {type(resources).__name__}.")
    checked: dict[str, float] = {}
    for name, amount in resources.items():
        if not isinstance(name, str):
            raise TypeError(f"A name in resources must be a str, not {type(name).__name__}: {name!r}.")
        if not name:
            raise ValueError("A name in resources is empty.")
        if name in _OWN_ARGUMENT:
            argument = _OWN_ARGUMENT[name]
            instead = f"say it with {argument}" if argument else "it is what this machine has"
            raise ValueError(f"resources cannot contain {name!r}: {instead}.")
        if isinstance(amount, bool) or not isinstance(amount, numbers.Real):
            raise TypeError(f"The amount of resource {name!r} must be a number, not {type(amount).__name__}.")
        if not 0 <= float(amount) < float("inf"):
            raise ValueError(f"The amount of resource {name!r} must be 0 or more, not {amount}.")
        checked[name] = float(amount)
    return checked


def init(
    num_cpus: int | None = None,
    object_store_memory: int | None = None,
    ignore_reinit_error: bool = False,
    *,
    num_gpus: int | None = None,
    resources: Mapping[str, float] | None = None,
) -> None:
    """Starts the worker pool. Optional: the first use starts one with these defaults.

    Args:
        num_cpus: How many tasks run at a time. All processors that this process may use, if None.
        object_store_memory: Bytes of shared memory for objects. 30 % of the memory, if None.
        ignore_reinit_error: Do nothing, instead of raising RuntimeError, if a pool runs already.
        num_gpus: How many GPUs tasks can ask for. A task that does finds its own in CUDA_VISIBLE_DEVICES. If None, those
            that are visible to this process.
        resources: What else tasks can ask for: names of your own, and how much there is of each.

    Raises:
        RuntimeError: A pool runs already.
        TypeError, ValueError: An argument is not what it should be.
    """
    slots = None if num_cpus is None else _whole("num_cpus", num_cpus, 1, "processors")
    store = (
        None
        if object_store_memory is None
        else _whole("object_store_memory", object_store_memory, _STORE_LEAST, "bytes")
    )
    if not isinstance(ignore_reinit_error, bool):
        raise TypeError(f"ignore_reinit_error must be True or False, not {type(ignore_reinit_error).__name__}.")
    gpus = None if num_gpus is None else _whole("num_gpus", num_gpus, 0, "GPUs")
    custom = _checked_resources(resources)
    with _lock:
        if is_initialized():
            if ignore_reinit_error:
                return
            raise RuntimeError(
                "eagleray is initialized already. Call eagleray.shutdown() first, or init(ignore_reinit_error=True)."
            )
        start(slots, store, gpus=gpus, resources=custom)


def start(
    slots: int | None = None,
    store_bytes: int | None = None,
    *,
    zero_worker: bool = False,
    results: Literal["auto", "resident", "sealed"] = "auto",
    gpus: int | None = None,
    resources: Mapping[str, float] | None = None,
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
        session_dir = tempfile.mkdtemp(prefix=f"eagleray-{os.getpid()}-")
        _surroundings.begin()
        path = json.dumps([str(entry) for entry in sys.path])
        cpus = _machine.cpus()
        slots = slots or cpus
        share = max(1, cpus // slots)
        template = [sys.executable, "-P", "-c", _BOOT, path, "0", str(os.getpid()), session_dir, str(share)]
        _output.start(session_dir, native.task_key)
        try:
            native.start(
                slots,
                store_bytes or max(int(_machine.memory() * _STORE_SHARE), _STORE_LEAST),
                session_dir,
                template,
                zero_worker,
                results,
                {
                    "GPU": float(_machine.gpus() if gpus is None else gpus),
                    "memory": float(_machine.memory()),
                    **(resources or {}),
                },
            )
        except BaseException:
            _output.stop()
            _remove(session_dir)
            raise
        _session_dir = session_dir
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
def get(refs: ObjectRef, timeout: float | None = None, *, copy: bool = False) -> Any: ...
@overload
def get(refs: list[ObjectRef], timeout: float | None = None, *, copy: bool = False) -> list[Any]: ...
def get(refs: ObjectRef | list[ObjectRef], timeout: float | None = None, *, copy: bool = False) -> Any:
    """Waits for the value of a ref, or the values of a list of refs.

    Args:
        refs: A ref, or a list of refs; a ref may occur more than once.
        timeout: Seconds to wait at most. None waits as long as it takes.
        copy: Give private, writable data. Otherwise arrays are read-only views into shared memory.

    Raises:
        GetTimeoutError: The values were not there in time.
        ObjectLostError: The session of a ref has ended, or its value is lost and cannot be made again.
        Exception: What the task raised that should have made the value.
    """
    single = isinstance(refs, ObjectRef)
    if not single and not isinstance(refs, list):
        raise ValueError(f"get() takes an ObjectRef or a list of ObjectRefs, not {type(refs).__name__}.")
    wanted: list[ObjectRef] = [refs] if isinstance(refs, ObjectRef) else refs
    _check_refs("get", wanted)
    seconds = _seconds(timeout)
    if not wanted:
        return []
    _check_session()
    try:
        values = native.get(wanted, seconds, bool(copy))
    finally:
        _output.drain()
    return values[0] if single else values


def _check_session() -> None:
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
    refs: list[ObjectRef], num_returns: int = 1, timeout: float | None = None
) -> tuple[list[ObjectRef], list[ObjectRef]]:
    """Waits until `num_returns` of the refs have a value or an error, or the time is over.

    Returns:
        The refs that are ready, at most `num_returns`, and the rest; each in the order of `refs`.

    Raises:
        TypeError: `refs` is not a list of refs.
        ValueError: A ref occurs twice, or `num_returns` is not between 1 and the number of refs.
    """
    if not isinstance(refs, list):
        raise TypeError(f"wait() takes a list of ObjectRefs, not {type(refs).__name__}.")
    _check_refs("wait", refs)
    count = _whole("num_returns", num_returns, 1, "refs")
    seconds = _seconds(timeout)
    if not refs:
        return [], []
    if len(set(refs)) < len(refs):
        raise ValueError("wait() takes each ObjectRef once; the list has duplicates.")
    if count > len(refs):
        raise ValueError(f"num_returns must be at most the number of refs, {len(refs)}, not {count}.")
    _check_session()
    return native.wait(refs, count, seconds)
