"""Futures of objects, and waiting for objects and for what generators yield in an asyncio loop.

One thread of a process waits for all objects whose future somebody has. To have it look at another one while it waits, it
waits for an object besides that can be made at once: that of a task that does not run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

from eagleray import _engine, _identity
from eagleray._engine import ObjectRef, native
from eagleray.exceptions import ObjectLostError


class _Bell:
    """An object that is there when it was rung."""

    def __init__(self) -> None:
        self._graph = native.submit({"bell": (bool,)}, "bell", stepwise=True)
        self.ref = self._graph.ref(0)
        self.used = False
        """Whether somebody has it to ring it."""

    def is_of_session(self) -> bool:
        """Whether its session is the one that this process has."""
        session = _identity.current
        return session is not None and self.ref.__dask_tokenize__()[1] == session.session

    def ring(self) -> None:
        self._graph.supply(0, None)
        self._graph.admit(1)


Part = tuple[ObjectRef, int]
"""What a generator yields: the ref of its call, and how many come before."""

_Pending = dict[ObjectRef | Part, list[Future[Any]]]
_Result = tuple[Any, BaseException | None]


class _Waiter:
    """The thread, and the futures that it has to complete."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._new: list[tuple[ObjectRef | Part, Future[Any]]] = []
        self._bell: _Bell | None = None
        """Set while the thread waits for objects."""
        threading.Thread(target=self._run, name="eagleray-futures", daemon=True).start()

    def add(self, ref: ObjectRef | Part, future: Future[Any]) -> None:
        with self._changed:
            self._new.append((ref, future))
            bell, self._bell = self._bell, None
            if bell is not None:
                bell.used = True
            self._changed.notify()
        if bell is not None:
            bell.ring()

    def _run(self) -> None:
        pending: _Pending = {}
        bell: _Bell | None = None
        while True:
            with self._changed:
                while not self._new and not pending:
                    self._changed.wait()
            try:
                if bell is None or bell.used or not bell.is_of_session():
                    bell = _Bell()
                self._wait(pending, bell)
            except BaseException as error:  # the session has ended: nothing that is waited for will come
                bell = None
                self._take(pending, None)
                for futures in pending.values():
                    _complete(futures, None, error)
                pending.clear()

    def _take(self, pending: _Pending, bell: _Bell | None) -> None:
        """Takes the new ones; from now on the bell is rung for others."""
        with self._changed:
            new, self._new = self._new, []
            self._bell = bell
        for ref, future in new:
            pending.setdefault(ref, []).append(future)

    def _wait(self, pending: _Pending, bell: _Bell) -> None:
        """Waits until some are there or there are new ones, and completes those that are there."""
        self._take(pending, bell)
        for ref in [ref for ref, futures in pending.items() if all(future.cancelled() for future in futures)]:
            del pending[ref]
        first, _ = _ready([bell.ref, *pending], 1, None) if pending else ([], None)
        with self._changed:
            self._bell = None
        if not first or first[0] == bell.ref:
            return
        ready, _ = _ready(list(pending), len(pending), 0.0)
        for ref, (value, error) in zip(ready, _results(ready), strict=True):
            _complete(pending.pop(ref), value, error)


def _ready(
    refs: list[ObjectRef | Part], count: int, timeout: float | None
) -> tuple[list[ObjectRef | Part], list[ObjectRef | Part]]:
    wait: Any = native.wait if all(isinstance(ref, ObjectRef) for ref in refs) else native.wait_for_parts
    ready, rest = wait(refs, count, timeout)
    return ready, rest


def _results(refs: list[ObjectRef | Part]) -> list[_Result]:
    """Of each, the value or what was raised. Of parts only that they are there is wanted."""
    try:
        values = iter(native.get([ref for ref in refs if isinstance(ref, ObjectRef)], None, False))
        return [(next(values) if isinstance(ref, ObjectRef) else None, None) for ref in refs]
    except BaseException as error:
        if len(refs) == 1:
            return [(None, error)]
    return [result for ref in refs for result in _results([ref])]


def _complete(futures: list[Future[Any]], value: Any, error: BaseException | None) -> None:
    for future in futures:
        if not future.set_running_or_notify_cancel():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


_guard = threading.Lock()
_waiter: _Waiter | None = None


def _forget() -> None:
    """In a forked child: the thread is the parent's."""
    global _guard, _waiter
    _guard = threading.Lock()
    _waiter = None


os.register_at_fork(after_in_child=_forget)


def future(ref: ObjectRef) -> Future[Any]:
    """A future that has the value of a ref when it is there, or what `get` raises. To cancel it cancels no task.

    Raises:
        ObjectLostError: The session of the ref has ended.
    """
    return _future(ref, ref)


def ready(part: Part) -> Future[Any]:
    """A future that has None when a part is there, or will not come. To cancel it cancels no task.

    Raises:
        ObjectLostError: The session of the ref has ended.
    """
    return _future(part[0], part)


def _future(ref: ObjectRef, what: ObjectRef | Part) -> Future[Any]:
    global _waiter
    _engine.check_session()
    session = _engine.session().session
    if ref.__dask_tokenize__()[1] != session:
        # The thread waits for all objects at once, so one of another session would spoil it for the others.
        raise ObjectLostError(f"{ref!r} is of a session that has ended, and its objects with it.")
    made: Future[Any] = Future()
    with _guard:
        if _waiter is None:
            _waiter = _Waiter()
    _waiter.add(what, made)
    return made


def awaited(ref: ObjectRef) -> Generator[Any, None, Any]:
    """What `await ref` runs."""
    import asyncio

    return asyncio.wrap_future(future(ref)).__await__()
