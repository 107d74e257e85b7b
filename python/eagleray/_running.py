"""What runs in this worker: the task, the actor, and what they occupy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from eagleray._engine import native

Task = tuple[int, int]
"""The number of a graph, and that of a task in it."""


@dataclass(frozen=True, slots=True)
class Here:
    """The actor of this process."""

    task: Task
    """That which has made it."""
    name: str | None
    namespace: str
    resources: dict[str, float]
    """What it occupies."""
    meta: bytes
    """What handles are made of."""


actor: Here | None = None
"""None where there is none."""

_task: ContextVar[Task | None] = ContextVar("task", default=None)
"""Of a call that does not run on the main thread: the task."""
_assigned: ContextVar[dict[str, float] | None] = ContextVar("assigned", default=None)


def hexadecimal(task: Task) -> str:
    """The id of a task, as its `ObjectRef` has it."""
    return f"{task[0]:016x}{task[1]:08x}"


def task() -> Task | None:
    """The task that runs here."""
    if not native.in_worker():
        return None
    return _task.get() or native.current_task()


def here(task: Task | None) -> None:
    """Says for the present context which task it is."""
    _task.set(task)


@contextmanager
def assigned(resources: dict[str, float]) -> Iterator[None]:
    """What the task in the block occupies; nothing given means one CPU."""
    token = _assigned.set(resources or None)
    try:
        yield
    finally:
        _assigned.reset(token)


def resources() -> dict[str, float]:
    """What the present task or actor occupies."""
    if actor is not None:
        return dict(actor.resources)
    if not native.in_worker():
        return {}
    return dict(_assigned.get() or {"CPU": 1.0})
