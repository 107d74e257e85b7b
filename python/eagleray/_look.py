"""What can be seen of a session: rows of its tasks, actors, objects, workers and nodes, with Ray's words for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from eagleray import _engine, _runtime_context
from eagleray._engine import native
from eagleray._identity import Identity

TASK_TYPES = {
    "computation": "NORMAL_TASK",
    "independent": "NORMAL_TASK",
    "actor": "ACTOR_CREATION_TASK",
    "call": "ACTOR_TASK",
}

STATES = {
    "waits": "PENDING_ARGS_AVAIL",
    "ready": "PENDING_NODE_ASSIGNMENT",
    "assigned": "SUBMITTED_TO_WORKER",
    "running": "RUNNING",
    "blocked": "RUNNING_IN_RAY_GET",
    "done": "FINISHED",
    "failed": "FAILED",
}
"""What the state of a task is called, by its phase."""

_ERRORS = {
    "raised": "TASK_EXECUTION_EXCEPTION",
    "worker_died": "WORKER_DIED",
    "cancelled": "TASK_CANCELLED",
    "lost": "OBJECT_LOST",
    "no_workers": "LOCAL_RAYLET_DIED",
    "too_deep": "TASK_UNSCHEDULABLE_ERROR",
    "infeasible": "TASK_UNSCHEDULABLE_ERROR",
    "actor_died": "ACTOR_DIED",
}

_MOST_MESSAGE = 2000
"""Characters of an error that are given."""


class Row:
    """One line of a listing. A field is an attribute, and an item, too."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.columns():
            raise KeyError(name)
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """A field, or `default` if there is none of this name."""
        return getattr(self, name) if name in self.columns() else default

    @classmethod
    def columns(cls) -> frozenset[str]:
        """The names of the fields."""
        return frozenset(each.name for each in fields(cls))  # type: ignore[arg-type]  # all that are derived are dataclasses

    def asdict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # the same


@dataclass(frozen=True, slots=True)
class TaskState(Row):
    """A task: of a Dask graph, a call of a remote function, the making of an actor, or a call of one."""

    task_id: str
    """The id of the object that it makes."""
    attempt_number: int
    """How often it was begun before: 0 in the first attempt."""
    name: str
    """Its key, if this process submitted the graph and knows it still; else as `func_or_class_name`."""
    state: str
    """PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT, SUBMITTED_TO_WORKER, RUNNING, RUNNING_IN_RAY_GET, FINISHED or FAILED."""
    job_id: str
    actor_id: str | None
    """The actor that it makes or calls."""
    type: str
    """NORMAL_TASK, ACTOR_CREATION_TASK or ACTOR_TASK."""
    func_or_class_name: str
    """What is called; of a task of a Dask graph, the prefix of its key."""
    node_id: str | None
    worker_id: str | None
    """Of a task that a worker has."""
    worker_pid: int | None
    submitter_id: str
    """The process that submitted it."""
    error_type: str | None
    error_message: str | None
    """Only of the task that failed, not of others that fail with it."""
    failed_because_of: str | None
    """The id of the task that failed, if it is another."""
    required_resources: dict[str, float]
    start_time_ms: float | None
    """When it began, in ms since 1970, if it runs."""


class TaskCount(NamedTuple):
    """How many tasks there are of a name and a type in a state."""

    name: str
    type: str
    state: str
    tasks: int


@dataclass(frozen=True, slots=True)
class ActorState(Row):
    """An actor, or what was one."""

    actor_id: str
    class_name: str
    state: str
    """DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING or DEAD."""
    job_id: str
    name: str | None
    node_id: str | None
    pid: int | None
    ray_namespace: str | None
    worker_id: str | None
    required_resources: dict[str, float]
    death_cause: str | None
    is_detached: bool
    num_restarts: int


@dataclass(frozen=True, slots=True)
class ObjectState(Row):
    """An object that is made, or that somebody holds."""

    object_id: str
    object_size: int | None
    """Bytes; None while nobody has them: it is not made, or in one worker only."""
    task_status: str | None
    """The state of the task that makes it; None of what was put."""
    reference_type: str
    """PUT, LITERAL (a large constant of a graph, or argument of a call) or RESULT."""
    name: str
    """The key or the name of the task that makes it."""
    store: str | None
    """INLINE (in the session's memory), SEALED (in shared memory or its files) or WORKER (a Python object in one worker)."""
    worker_id: str | None
    """The worker that has it as a Python object."""
    owner_id: str
    """The process that submitted its task, or put it."""
    holders: dict[str, int]
    """How many references there are, by who has them: processes (`driver`, `pid 123`), and `others` for values, graphs and
    actors. Of another process than this one it is only known that it has some: those count as one."""
    readers: int
    """Tasks of its graph that have yet to read it."""


@dataclass(frozen=True, slots=True)
class WorkerState(Row):
    """A process of the session."""

    worker_id: str
    is_alive: bool
    worker_type: str
    """WORKER or DRIVER."""
    exit_type: str | None
    """INTENDED_USER_EXIT, SYSTEM_ERROR or None while it is alive."""
    exit_detail: str | None
    node_id: str
    pid: int
    state: str
    """starting, idle, busy, blocked (its task waits for others) or ended."""
    task: str | None
    """The key, name or id of the task that it runs."""
    actor_id: str | None
    tasks: int
    """How many tasks it has ended."""
    runs: int
    """In how many runs."""


@dataclass(frozen=True, slots=True)
class NodeState(Row):
    """A node: this machine is the only one."""

    node_id: str
    node_ip: str
    is_head_node: bool
    state: str
    node_name: str
    resources_total: dict[str, float]
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows, and how many there are beside them."""

    rows: list[Any]
    total: int
    """Among which these were looked for."""
    forgotten: int = 0
    """Those that have ended and of which nothing is known any more."""


class Seen:
    """How things stand at one moment."""

    def __init__(self, **what: Any) -> None:
        """Takes what `_native.state` takes."""
        self.session: Identity = _engine.session()
        self.raw: dict[str, Any] = native.state(**{**what, "workers": True})
        self.driver = int(os.path.basename(self.session.session).split("-")[1])
        self._ids: dict[int | None, str] = {}
        self._pids = {worker["id"]: worker["pid"] for worker in self.raw["workers"]}
        self._began = time.time() - time.monotonic()

    def process(self, worker: int | None) -> str:
        """The id of a worker, or of the driver."""
        known = self._ids.get(worker)
        if known is None:
            known = Identity(self.session.session, self.session.namespace, worker).process
            self._ids[worker] = known
        return known

    def pid(self, worker: int | None) -> int | None:
        """The process of a worker, or of the driver."""
        return self.driver if worker is None else self._pids.get(worker) or None

    def known_as(self, worker: int | None) -> str:
        """A process, as people know it."""
        return "driver" if worker is None else f"pid {self.pid(worker)}"

    def epoch_ms(self, monotonic_ns: int | None) -> float | None:
        """A time of the monotonic clock, in ms since 1970."""
        return None if monotonic_ns is None else (self._began + monotonic_ns / 1e9) * 1e3

    def tasks(self) -> Listing:
        raw = self.raw
        return Listing([self._task(task) for task in raw["tasks"]], raw["tasks_total"], raw["tasks_forgotten"])

    def _task(self, task: Mapping[str, Any]) -> TaskState:
        failure, worker, error = task["failure"], task["worker"], task["error"]
        if task["phase"] == "done":
            # It has made an actor, and why that is gone is the actor's affair.
            failure = error = None
        return TaskState(
            task_id=task["id"],
            attempt_number=max(0, task["attempts"] - 1),
            name=task["name"] if task["key"] is None else text(task["key"]),
            state=STATES[task["phase"]],
            job_id=self.session.program,
            actor_id=task["actor"],
            type=TASK_TYPES[task["kind"]],
            func_or_class_name=task["name"],
            node_id=None if worker is None else self.session.node,
            worker_id=None if worker is None else self.process(worker),
            worker_pid=None if worker is None else self.pid(worker),
            submitter_id=self.process(task["submitter"]),
            error_type=None if failure is None else _ERRORS[failure],
            error_message=None if error is None else str(error)[:_MOST_MESSAGE],
            failed_because_of=task["origin"] if task["origin"] != task["id"] else None,
            required_resources=task["demand"],
            start_time_ms=self.epoch_ms(task["since_ns"]),
        )

    def task_counts(self) -> list[TaskCount]:
        """How many tasks there are of each name and kind in each state."""
        return [
            TaskCount(name, TASK_TYPES[kind], STATES[phase], count) for name, kind, phase, count in self.raw["counts"]
        ]

    def actors(self) -> Listing:
        raw = self.raw
        known = {actor["id"]: actor for actor in raw["actors"]}
        rows = [self._actor(maker, known.get(maker["id"])) for maker in raw["makers"]]
        return Listing(rows, raw["makers_total"], raw["makers_forgotten"])

    def _actor(self, maker: Mapping[str, Any], actor: Mapping[str, Any] | None) -> ActorState:
        worker = None if actor is None else actor["worker"]
        namespace, name = maker["actor_name"] or (None, None)
        if actor is None:
            state = "DEAD"
        elif actor["alive"]:
            state = "ALIVE"
        elif actor["restarts"]:
            state = "RESTARTING"
        else:
            state = "DEPENDENCIES_UNREADY" if maker["phase"] == "waits" else "PENDING_CREATION"
        return ActorState(
            actor_id=maker["id"],
            class_name=maker["name"],
            state=state,
            job_id=self.session.program,
            name=name,
            node_id=None if worker is None else self.session.node,
            pid=None if worker is None else self.pid(worker),
            ray_namespace=namespace,
            worker_id=None if worker is None else self.process(worker),
            required_resources=maker["demand"],
            death_cause=None if maker["error"] is None else str(maker["error"])[:_MOST_MESSAGE],
            is_detached=maker["detached"],
            num_restarts=maker["restarts"] if actor is None else actor["restarts"],
        )

    def objects(self) -> Listing:
        return Listing([self._object(each) for each in self.raw["objects"]], self.raw["objects_total"])

    def _object(self, each: Mapping[str, Any]) -> ObjectState:
        store = {"inline": "INLINE", "sealed": "SEALED", None: None}[each["place"]]
        if store is None and each["resident"] is not None:
            store = "WORKER"
        return ObjectState(
            object_id=each["id"],
            object_size=each["size"],
            task_status=None if each["phase"] is None else STATES[each["phase"]],
            reference_type=each["kind"].upper(),
            name=each["name"] if each["key"] is None else text(each["key"]),
            store=store,
            worker_id=None if each["resident"] is None else self.process(each["resident"]),
            owner_id=self.process(each["owner"]),
            holders=self._holders(each),
            readers=each["readers"],
        )

    def _holders(self, each: Mapping[str, Any]) -> dict[str, int]:
        here = self.raw["here"]
        holders = {self.known_as(peer): each["uses"] if peer == here else 1 for peer in each["peers"]}
        others = each["holders"] - len(each["peers"])
        return holders | ({"others": others} if others > 0 else {})

    def workers(self) -> Listing:
        driver = WorkerState(
            worker_id=self.process(None),
            is_alive=True,
            worker_type="DRIVER",
            exit_type=None,
            exit_detail=None,
            node_id=self.session.node,
            pid=self.driver,
            state="busy",
            task=None,
            actor_id=None,
            tasks=0,
            runs=0,
        )
        rows = [driver, *(self._worker(worker) for worker in self.raw["workers"])]
        return Listing(rows, len(rows))

    def _worker(self, worker: Mapping[str, Any]) -> WorkerState:
        death = worker["death"]
        if not worker["alive"]:
            state = "ended"
        elif not worker["up"]:
            state = "starting"
        elif worker["blocked"]:
            state = "blocked"
        else:
            state = "busy" if worker["busy"] else "idle"
        key = worker["task_key"]
        return WorkerState(
            worker_id=self.process(worker["id"]),
            is_alive=worker["alive"],
            worker_type="WORKER",
            exit_type=None
            if death is None
            else "INTENDED_USER_EXIT"
            if death.get("exit_code") == 0
            else "SYSTEM_ERROR",
            exit_detail=None if death is None else _end_of(death),
            node_id=self.session.node,
            pid=worker["pid"],
            state=state,
            task=worker["task"] if key is None else text(key),
            actor_id=worker["actor"],
            tasks=worker["tasks"],
            runs=worker["runs"],
        )

    def nodes(self) -> Listing:
        rows = [
            NodeState(
                node_id=node["NodeID"],
                node_ip=node["NodeManagerAddress"],
                is_head_node=True,
                state="ALIVE",
                node_name=node["NodeName"],
                resources_total=self.raw["offered"],
            )
            for node in _runtime_context.nodes()
        ]
        return Listing(rows, len(rows))


def _end_of(death: Mapping[str, Any]) -> str:
    if "signal" in death:
        return f"It was ended by signal {death['signal']}."
    if "exit_code" in death:
        return f"It exited with code {death['exit_code']}."
    return str(death["reason"])


def text(key: object) -> str:
    """A key or a name as it is shown."""
    return key if isinstance(key, str) else repr(key)


def counted(values: Iterable[str]) -> dict[str, int]:
    """How often each occurs."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def grouped(rows: Iterable[Any], by: Callable[[Any], str]) -> dict[str, list[Any]]:
    """Rows by what `by` gives, in the order of their first."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(by(row), []).append(row)
    return groups
