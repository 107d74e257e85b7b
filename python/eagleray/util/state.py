"""Lists and counts what there is in a session: tasks, actors, objects, workers and nodes. Names and fields are Ray's
(`ray.util.state`), as far as they are true here.

All functions work in the driver and in tasks. A process knows the keys of the tasks that it has submitted itself; of others
it sees what is called.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from eagleray._look import (
    STATES,
    ActorState,
    Listing,
    NodeState,
    ObjectState,
    Row,
    Seen,
    TaskState,
    WorkerState,
    counted,
    grouped,
)
from eagleray._memory import memory_summary

__all__ = [
    "ActorState",
    "NodeState",
    "ObjectState",
    "TaskState",
    "WorkerState",
    "get_actor",
    "get_node",
    "get_objects",
    "get_task",
    "get_worker",
    "list_actors",
    "list_nodes",
    "list_objects",
    "list_tasks",
    "list_workers",
    "memory_summary",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]

Filter = tuple[str, str, object]
"""The name of a field, "=" or "!=", and a value."""

DEFAULT_LIMIT = 100
"""Rows that are given if nobody says how many."""

_MOST = 100_000
"""So many are looked through for those that fit a filter."""

_OVER = ("FINISHED", "FAILED", "DEAD")


def list_tasks(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[TaskState]:
    """The tasks that have not ended, and the last 100,000 or so of those that have.

    Args:
        address: None or "auto": the session of this process is the only one it knows.
        filters: Only what fits all of these: `("state", "=", "RUNNING")`. The name of a field, "=" or "!=", and a value;
            text counts as equal whatever its case.
        limit: At most so many. A warning says so if there are more.
        timeout: Accepted for Ray's sake: the session answers at once.
        detail: Accepted for Ray's sake: all fields are always given.
        raise_on_missing_output: Accepted for Ray's sake.

    Raises:
        TypeError, ValueError: An argument is not what it should be.
    """
    return _listed("list_tasks", TaskState, Seen.tasks, "tasks", address, filters, limit)


def list_actors(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[ActorState]:
    """The actors there are, and the last of those there were. Arguments are those of `list_tasks`."""
    return _listed("list_actors", ActorState, Seen.actors, "makers", address, filters, limit)


def list_objects(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[ObjectState]:
    """The objects that are made, or that somebody holds. Arguments are those of `list_tasks`."""
    return _listed("list_objects", ObjectState, Seen.objects, "objects", address, filters, limit)


def list_workers(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[WorkerState]:
    """The driver, the workers, and the last 64 of those that have ended. Arguments are those of `list_tasks`."""
    return _listed("list_workers", WorkerState, Seen.workers, None, address, filters, limit)


def list_nodes(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[NodeState]:
    """The nodes: one, this machine. Arguments are those of `list_tasks`."""
    return _listed("list_nodes", NodeState, Seen.nodes, None, address, filters, limit)


def get_task(id: str | Any, address: str | None = None, timeout: float = 30) -> TaskState | None:
    """The task of this id, which may be a ref to its result; None if nothing is known of it."""
    found: TaskState | None = _found("task_id", Seen.tasks, "tasks", id, address)
    return found


def get_actor(id: str, address: str | None = None, timeout: float = 30) -> ActorState | None:
    """The actor of this id; None if nothing is known of it."""
    found: ActorState | None = _found("actor_id", Seen.actors, "makers", id, address)
    return found


def get_objects(id: str | Any, address: str | None = None, timeout: float = 30) -> list[ObjectState]:
    """The object of this id, which may be a ref to it, in a list; an empty one if there is none."""
    found = _found("object_id", Seen.objects, "objects", id, address)
    return [] if found is None else [found]


def get_worker(id: str, address: str | None = None, timeout: float = 30) -> WorkerState | None:
    """The worker of this id; None if nothing is known of it."""
    found: WorkerState | None = _found("worker_id", Seen.workers, None, id, address)
    return found


def get_node(id: str, address: str | None = None, timeout: float = 30) -> NodeState | None:
    """The node of this id; None if there is none."""
    found: NodeState | None = _found("node_id", Seen.nodes, None, id, address)
    return found


def summarize_tasks(address: str | None = None, timeout: float = 30) -> dict[str, Any]:
    """How many tasks there are in each state, by what they call. The form is Ray's."""
    _check_address(address)
    seen = Seen(counts=True)
    summary: dict[str, Any] = {}
    types: dict[str, int] = {}
    for name, kind, state, count in seen.task_counts():
        entry = summary.setdefault(name, {"func_or_class_name": name, "type": kind, "state_counts": {}})
        entry["state_counts"][state] = entry["state_counts"].get(state, 0) + count
        types[kind] = types.get(kind, 0) + count
    if seen.raw["tasks_forgotten"]:
        _warn(_not_counted("summarize_tasks", seen.raw["tasks_forgotten"]), 3)
    return {
        "cluster": {
            "summary": summary,
            "total_tasks": types.get("NORMAL_TASK", 0),
            "total_actor_tasks": types.get("ACTOR_TASK", 0),
            "total_actor_scheduled": types.get("ACTOR_CREATION_TASK", 0),
            "summary_by": "func_name",
        }
    }


def summarize_actors(address: str | None = None, timeout: float = 30) -> dict[str, Any]:
    """How many actors there are in each state, by class. The form is Ray's."""
    rows = _all("summarize_actors", Seen.actors, "makers", address)
    summary = {
        name: {"class_name": name, "state_counts": counted(row.state for row in group)}
        for name, group in grouped(rows, lambda row: row.class_name).items()
    }
    return {"cluster": {"summary": summary, "total_actors": len(rows), "summary_by": "class"}}


def summarize_objects(address: str | None = None, timeout: float = 30) -> dict[str, Any]:
    """How many objects there are and how large, by kind: what was put, literals, and results. The form is Ray's, where the
    groups are call sites."""
    rows = _all("summarize_objects", Seen.objects, "objects", address)
    summary = {
        kind: {
            "total_objects": len(group),
            "total_size_mb": _megabytes(group),
            "total_num_workers": len({row.owner_id for row in group}),
            "total_num_nodes": 1,
            "task_state_counts": counted(row.task_status or "NIL" for row in group),
            "ref_type_counts": {kind: len(group)},
        }
        for kind, group in grouped(rows, lambda row: row.reference_type).items()
    }
    return {
        "cluster": {
            "summary": summary,
            "total_objects": len(rows),
            "total_size_mb": _megabytes(rows),
            "callsite_enabled": False,
            "summary_by": "kind",
        }
    }


def _megabytes(rows: Sequence[ObjectState]) -> float:
    return sum(row.object_size or 0 for row in rows) / 1024**2


def _check_address(address: object) -> None:
    if address not in (None, "auto", "local"):
        raise ValueError(
            f"address must be None or 'auto', not {address!r}: a process sees the session that it belongs to. For others on "
            "this machine there is the command `eagleray status`."
        )


def _checked(filters: Sequence[Filter] | None, kind: type[Row]) -> list[Filter]:
    if filters is None:
        return []
    if isinstance(filters, str) or not isinstance(filters, Sequence):
        raise TypeError(
            f'filters must be a list of filters like ("state", "=", "ALIVE"), not {type(filters).__name__}.'
        )
    for each in filters:
        if isinstance(each, str) or not isinstance(each, Sequence) or len(each) != 3:
            raise ValueError(
                f'A filter is a field, "=" or "!=", and a value, like ("state", "=", "ALIVE"), not {each!r}.'
            )
        name, predicate, _ = each
        if name not in kind.columns():
            close = get_close_matches(str(name), kind.columns(), 1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            known = ", ".join(sorted(kind.columns()))
            raise ValueError(f"There is no field {name!r} to filter by.{meant} There are {known}.")
        if predicate not in ("=", "!="):
            raise ValueError(f'A filter compares with "=" or "!=", not with {predicate!r}.')
    return list(filters)


def _same(value: object, wanted: object) -> bool:
    if isinstance(wanted, str) and not isinstance(value, str):
        # As from a command line.
        return str(value).lower() == wanted.lower()
    if isinstance(wanted, str) and isinstance(value, str):
        return value.lower() == wanted.lower()
    return bool(value == wanted)


def _fits(row: Row, filters: Sequence[Filter]) -> bool:
    return all(_same(row[name], value) == (predicate == "=") for name, predicate, value in filters)


def _checked_limit(limit: object) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be a whole number, not {type(limit).__name__}.")
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}.")
    return limit


def _look(
    listing: Callable[[Seen], Listing], asked: str | None, most: int, phases: Sequence[str] | None = None
) -> Listing:
    return listing(Seen(**({} if asked is None else {asked: most}), phases=phases))


def _phases(filters: Sequence[Filter]) -> list[str] | None:
    """The phases that tasks must be in to fit: those of others need not be looked at. None for all."""
    states = [each for each in filters if each[0] == "state"]
    if not states:
        return None
    return [
        phase
        for phase, state in STATES.items()
        if all(_same(state, value) == (predicate == "=") for _, predicate, value in states)
    ]


def _listed(
    function: str,
    kind: type[Any],
    listing: Callable[[Seen], Listing],
    asked: str | None,
    address: str | None,
    filters: Sequence[Filter] | None,
    limit: int,
) -> list[Any]:
    _check_address(address)
    wanted, most = _checked(filters, kind), _checked_limit(limit)
    phases = _phases(wanted) if kind is TaskState else None
    if phases == []:
        return []
    found = _look(listing, asked, max(most, _MOST) if wanted else most, phases)
    rows = [row for row in found.rows if _fits(row, wanted)] if wanted else found.rows
    looked_through, known = len(found.rows), found.total
    if looked_through < known and wanted:
        _warn(
            f"{function} has looked through {looked_through:,} of {known:,} and gives {min(most, len(rows)):,} that fit the "
            "filters. There may be more: a greater limit looks through more."
        )
    elif len(rows) > most or (looked_through < known and not wanted):
        count = len(rows) if wanted else known
        _warn(f"{function} gives {most:,} of {count:,}{' that fit the filters' if wanted else ''}: see its limit.")
    only_present = any(name == "state" and sign == "=" and value not in _OVER for name, sign, value in wanted)
    if found.forgotten and len(rows) <= most and looked_through == known and not only_present:
        _warn(f"{function} knows nothing any more of {found.forgotten:,} that ended earlier.")
    return rows[:most]


def _found(
    column: str,
    listing: Callable[[Seen], Listing],
    asked: str | None,
    wanted: object,
    address: str | None,
) -> Any:
    _check_address(address)
    digits = wanted if isinstance(wanted, str) else getattr(wanted, "hex", None)
    digits = digits() if callable(digits) else digits
    if not isinstance(digits, str):
        raise TypeError(
            f"An id is a str of hexadecimal digits, or something that has one, not {type(wanted).__name__}."
        )
    rows = _look(listing, asked, (1 << 32) - 1).rows
    return next((row for row in rows if row[column] == digits), None)


def _all(function: str, listing: Callable[[Seen], Listing], asked: str, address: str | None) -> list[Any]:
    _check_address(address)
    found = _look(listing, asked, _MOST)
    if len(found.rows) < found.total:
        _warn(f"{function} counts {len(found.rows):,} of {found.total:,}.")
    elif found.forgotten:
        _warn(_not_counted(function, found.forgotten))
    return found.rows


def _not_counted(function: str, count: int) -> str:
    return f"{function} does not count {count:,} that ended earlier: nothing is known of them any more."


def _warn(text: str, level: int = 4) -> None:
    warnings.warn(text, stacklevel=level)
