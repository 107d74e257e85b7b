"""The native module. Everything else reaches it through `eagleray._engine`."""

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from types import GenericAlias, TracebackType
from typing import Any, Literal, NoReturn, TypeVar, final

from eagleray._identity import Id

__all__ = [
    "Deferred",
    "GcGuard",
    "Graph",
    "ObjectRef",
    "RemoteCode",
    "RemoteOptions",
    "_rebuild_ref",
    "after_run",
    "call",
    "call_actor",
    "cancel",
    "counters",
    "create_actor",
    "current_task",
    "defer",
    "find_actor",
    "flush_uses",
    "gc_after_fork",
    "get",
    "get_known",
    "in_worker",
    "kill_actor",
    "name_actor",
    "name_by_value",
    "next_part",
    "note_foreign",
    "order",
    "put",
    "renew_workers",
    "resources",
    "retire",
    "run_local",
    "set_cancel_deferred",
    "start",
    "started",
    "state",
    "stop",
    "submit",
    "task_key",
    "timeline",
    "until_taken",
    "wait",
    "wait_for_parts",
    "worker_main",
    "workers",
    "yield_part",
]

_Waitable = TypeVar("_Waitable", bound=ObjectRef | tuple[ObjectRef, int])

@final
class ObjectRef:
    """Names an object of this session and keeps it alive. Pickles; equal refs hash alike."""

    def hex(self) -> str: ...
    def binary(self) -> bytes:
        """The same as bytes."""

    def task_id(self) -> Id:
        """The id of the task that makes the object."""

    def future(self) -> Future[Any]:
        """Has the value, or the error, when it is there."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Waits for the value in an asyncio loop."""

    @classmethod
    def __class_getitem__(cls, of: Any, /) -> GenericAlias:
        """`ObjectRef[int]`, for annotations."""

    def __copy__(self) -> ObjectRef: ...
    def __deepcopy__(self, _memo: Any, /) -> ObjectRef: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __array__(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Raises TypeError."""

    def __dask_tokenize__(self) -> tuple[str, str, str]: ...

def _rebuild_ref(session: str, graph: int, index: int, whole: tuple[int, int] | None = None) -> ObjectRef:
    """A ref from its pickle; `whole` is what the object is a part of. Raises RuntimeError in another session."""

@final
class Graph:
    """A submitted graph. Its tasks are numbered from 0; literals and aliases are no tasks."""

    @property
    def keys(self) -> list[Any]:
        """The key of each task."""

    @property
    def stats(self) -> dict[str, int]:
        """Counts of what ran where."""

    def __len__(self) -> int: ...
    def dependencies(self, index: int, /) -> list[int]:
        """The tasks whose results task `index` reads."""

    def node(self, index: int, /) -> object:
        """The task as it stood in the submitted mapping."""

    def steps(self) -> int:
        """How many positions the order has."""

    def at(self, position: int, /) -> int:
        """The task at a position of the order."""

    def admit(self, upto: int, /) -> None:
        """All tasks at positions below `upto` may run."""

    def supply(self, index: int, value: object, /) -> None:
        """The task will not run: this is its result. Called before the task is admitted."""

    def ref(self, index: int, /) -> ObjectRef:
        """Holds the result of a task from now on."""

    def refs(self) -> Any:
        """`ObjectRef`s nested as the requested keys; a literal stands for itself."""

    def result(self, timeout: float | None = None) -> Any:
        """Values nested as the requested keys. Raises what a task raised."""

    def cancel(self) -> None:
        """What has not started will not start. Returns at once; harmless when the graph has ended."""

@final
class GcGuard:
    """Suspends cyclic garbage collection. Counted; never enables what was disabled before."""

    def __new__(cls) -> GcGuard: ...
    def __enter__(self) -> GcGuard: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...

def gc_after_fork() -> None:
    """In a forked child: takes back what `GcGuard`s of its parent's threads have suspended."""

@final
class RemoteCode:
    """What workers call: pickled once, loaded once in each worker that calls it. Keeps the refs in it alive."""

    def __new__(cls, target: object, shown: object = None, /) -> RemoteCode:
        """Raises TypeError that names the target, or what is to be `shown` for it, if it cannot be pickled."""

@final
class RemoteOptions:
    """How a call is made. Frozen."""

    def __new__(
        cls,
        name: str,
        *,
        num_returns: int = 1,
        max_retries: int = 3,
        retries: int = 0,
        retry_exceptions: tuple[type[BaseException], ...] | None = None,
        resources: dict[str, float] | None = None,
        priority: int = 0,
        alone: bool = False,
    ) -> RemoteOptions:
        """`name` is what is called, in messages and output. `max_retries` counts deaths of the worker, `retries` what was
        raised, of `retry_exceptions` only if they are given; -1 is for ever. `resources` are what the call occupies, by
        name, and one CPU if it is None. If it is `alone`, its worker has nothing else to do while it runs."""

@final
class Deferred:
    """In a worker: the end of a task that goes on when its function has returned."""

    @property
    def hex(self) -> str:
        """The id of the task's object."""

    def complete(self, value: object, /) -> None:
        """The task has this result. From any thread."""

    def fail(self, error: BaseException, /) -> None:
        """The task has raised this. From any thread."""

def call(
    code: RemoteCode, args: tuple[Any, ...], kwargs: dict[str, Any], options: RemoteOptions, surroundings: bytes | None
) -> list[ObjectRef]:
    """Has a worker call something. As many refs as `options` say."""

def create_actor(
    code: RemoteCode,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: RemoteOptions,
    surroundings: bytes | None,
    *,
    name: tuple[str, str] | None,
    detached: bool,
    max_restarts: int,
    running_cpu: float,
    meta: bytes,
) -> ObjectRef:
    """Has a worker call something that makes it an actor. The ref is to the actor, which lives as long as refs to it.

    `name` is namespace and name. `options` say what there must be to place it; of that it keeps all but CPU, of which it
    keeps `running_cpu`. `meta` is what `find_actor` gives to those who ask by name.
    """

def call_actor(
    actor: ObjectRef, code: RemoteCode, args: tuple[Any, ...], kwargs: dict[str, Any], options: RemoteOptions
) -> list[ObjectRef]:
    """Has an actor's worker call something, after all that this process has had it call before."""

def find_actor(namespace: str, name: str) -> tuple[ObjectRef, bytes] | None:
    """The actor of this name, and its `meta`."""

def name_actor(actor: ObjectRef, class_name: str, max_restarts: int) -> None:
    """Says what messages tell of an actor, if that is not known: what it is called, and how often it is made again."""

def kill_actor(actor: ObjectRef, restart: bool) -> None:
    """Ends an actor's process. It is restarted if it may be and `restart` says so. What it has returned is kept."""

def cancel(ref: ObjectRef, force: bool, recursive: bool) -> None:
    """Cancels the task that makes an object. One that runs gets a KeyboardInterrupt, with `force` its worker is ended."""

def defer() -> Deferred:
    """In a task: it ends when the returned object says so, and its function must return this object itself."""

def flush_uses() -> None:
    """In a worker: tells what was let go since the last message, if it is another thread than that which runs tasks."""

def set_cancel_deferred(function: Callable[[str], None], /) -> None:
    """In a worker: what to call, on its main thread, with the `hex` of a deferred task that is to be cancelled."""

def resources() -> tuple[dict[str, float], dict[str, float]]:
    """What the node offers, and what of that is free, by name: "CPU", "GPU", "memory" and others."""

def start(
    slots: int,
    max_workers: int,
    store_bytes: int,
    session_dir: str,
    template: list[str],
    zero_worker: bool,
    results: Literal["auto", "resident", "sealed"],
    resources: dict[str, float],
    remembered_tasks: int,
    timeline: bool,
) -> None:
    """Starts the session, which never has more than `max_workers` beside those of actors. `template` is the command of the template process, whose standard input will be its control
    socket. `resources` are what tasks can demand beside a slot: "GPU" (whole numbers), "memory" (bytes) and others.

    So many tasks that have ended are remembered, and with `timeline` when as many ran."""

def stop() -> None:
    """Ends workers and template and waits until they are gone. Harmless when nothing runs."""

def started() -> bool:
    """Whether this process has a session: it started one, or it is a worker."""

def renew_workers() -> None:
    """Replaces workers before what is submitted from now on: those that are idle at once, others when they are."""

def name_by_value(name: bytes) -> None:
    """Pickles that refer to this module are made by value from now on."""

def in_worker() -> bool: ...
def submit(
    dsk: Mapping[Any, Any],
    keys: Any,
    *,
    worker_hooks: bytes | None = None,
    surroundings: bytes | None = None,
    stepwise: bool = False,
    annotations: tuple[list[dict[str, Any]], dict[Any, int]] | None = None,
) -> Graph:
    """Submits a graph. `keys` is a key or a list of keys and such lists. `worker_hooks` is the pickle of a list of pairs
    `(pretask | None, posttask | None)`, called around each task in this order. `surroundings` is what
    `_surroundings.capture` gave. Nothing of a `stepwise` graph runs before `Graph.admit`.

    `annotations` is a list of specs, of which the first is the default, and a dict that says of keys which spec is theirs.
    It may name keys that the graph does not have. A spec has any of these:

    - `retries`: how often a task is run again when it raised; 0 if absent, -1 is for ever.
    - `max_retries`: the same when its worker died; 3 if absent.
    - `retry_exceptions`: the pickle of a tuple of exception classes. Only after these `retries` counts.
    - `priority`: a whole number; higher is sooner.
    - `resources`: what a task occupies while it runs, by name. "CPU" is 1.0 if absent. What the node cannot offer fails
      the graph with `InfeasibleResourceError`.
    """

def run_local(dsk: Mapping[Any, Any], keys: Any) -> Any:
    """Runs a graph in this process and thread, one task at a time. Returns values nested as `keys`."""

def put(value: object) -> ObjectRef: ...
def get(refs: list[ObjectRef], timeout: float | None, copy: bool) -> list[Any]: ...
def get_known(refs: list[ObjectRef], copy: bool) -> list[Any] | None:
    """The values, if all of them are known here: small ones that were put here, or have been here before."""

def wait(refs: list[ObjectRef], num_returns: int, timeout: float | None) -> tuple[list[ObjectRef], list[ObjectRef]]:
    """Raises TypeError for what is no ref, ValueError for duplicates."""

def wait_for_parts(
    items: list[_Waitable], num_returns: int, timeout: float | None
) -> tuple[list[_Waitable], list[_Waitable]]:
    """The same for refs and parts without duplicates. A part is given by the ref of the call that makes it, and how many parts
    come before: it is ready as well if there will be no such part."""

def yield_part(task: tuple[int, int], index: int, value: object) -> None:
    """In a worker: the next part of what a task that runs here makes bit by bit, `index` after the first. Those who wait for
    it have it at once."""

def until_taken(task: tuple[int, int], count: int) -> None:
    """In a worker: waits until so many parts were taken, or nobody can take one any more."""

def next_part(call: ObjectRef, index: int, timeout: float | None, *, take: bool) -> ObjectRef | None:
    """A part of what a call makes bit by bit, None if it has ended without. Parts before it are let go of. It counts as taken
    if that is said. Raises GetTimeoutError if it is not there in time."""

def counters() -> dict[str, int]: ...
def workers() -> list[dict[str, Any]]:
    """Of each worker: id, pid, tasks, runs, state."""

def state(
    *,
    tasks: int = 0,
    phases: Sequence[str] | None = None,
    counts: bool = False,
    makers: int = 0,
    objects: int = 0,
    workers: bool = False,
) -> dict[str, Any]:
    """How things stand. At most so many `tasks` (in these phases only, if any are named), `makers` (tasks that make actors) and
    `objects`; `counts` and `workers` if asked for. Phases are waits, ready, assigned, running, blocked, done and failed.

    What is in it: `offered`, `free`, `actors`, `tasks`, `makers`, `objects`, `workers`; `counts`, as (name, kind, phase, how
    many) of all tasks; for tasks, makers and objects how many
    there are (`tasks_total`), and for tasks and makers of how many nothing is known any more (`tasks_forgotten`);
    `store_bytes`, `counters`; `here`, the worker that this process is, if it is one. Workers are numbers, None is the driver;
    tasks and objects are hexadecimal digits.
    """

def timeline() -> dict[str, Any] | None:
    """What ran when, in ns of the monotonic clock; None if that is not recorded. Raises RuntimeError in a worker.

    - `tasks`: (id, key or None, name or None, worker, pid, begin, end, ids of what it read)
    - `runs`: (worker, pid, number, assigned, ended, tasks)
    - `transfers`: (id, key or None, name or None, time, worker or None for the driver, whether it was sent there, where its bytes
      are: "inline", "memory" or "file"; how many)
    - `completed`: (id, time) of tasks that went on when their function had returned
    - `forgotten`: of how many tasks that ran nothing is known any more
    """

def order(dependencies: Sequence[Sequence[int]], keys: Sequence[Any] | None = None, /) -> list[int]:
    """The position of each task. Raises RuntimeError for a cycle, which is named by `keys` if they are given."""

def task_key(graph: int, index: int, /) -> Any:
    """The key of a task by its graph's number, as long as this process has its `Graph` or refs of its results; else
    None."""

def current_task() -> tuple[int, int] | None:
    """In a worker: the number of the graph and the index of the task that runs, or ran last in the present run."""

def after_run(function: Callable[[], object], /) -> None:
    """In a worker: calls a function once, when the present run is over or what is done of it is reported, before that.

    What it raises is dropped."""

def retire() -> None:
    """In a worker: it ends when the present run is reported, and another takes its place."""

def note_foreign() -> None:
    """Something of what is being unpickled cannot be pickled in this process as it was where it comes from."""

def worker_main(socket: int, page: int, worker: int) -> None:
    """The life of a worker process. Returns when its socket is closed."""
