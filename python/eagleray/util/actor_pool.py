"""Hands values to whichever of some actors is free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from eagleray import _engine
from eagleray._engine import ObjectRef
from eagleray._handles import ActorHandle
from eagleray.exceptions import ActorDiedError, GetTimeoutError, TaskError

Refs = ObjectRef | list[ObjectRef]
"""Of a call; a list if it has several values."""

Call = Callable[[ActorHandle, Any], Refs]
"""Calls an actor with a value: `lambda actor, value: actor.method.remote(value)`."""


class ActorPool:
    """Some actors, each of which is given one value at a time.

    >>> pool = ActorPool([Doubler.remote() for _ in range(2)])  # doctest: +SKIP
    >>> list(pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3]))  # doctest: +SKIP
    [2, 4, 6]
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        """Takes the actors, which must not be used otherwise meanwhile."""
        self._idle = list(actors)
        self._waiting: deque[tuple[Call, Any]] = deque()
        """Calls for which no actor was free."""
        self._busy: dict[ObjectRef, tuple[ActorHandle, Refs]] = {}
        """By the first refs of the calls that nobody has got the results of, in the order of submission."""

    def submit(self, fn: Call, value: Any) -> None:
        """Has an actor called, as soon as one is free. What it returns is had by `get_next` or `get_next_unordered`.

        Args:
            fn: Is called with an actor and the value, and returns the ref of a call of the actor, or the list of its refs.
            value: The value.
        """
        if self._idle:
            self._begin(self._idle.pop(), fn, value)
        else:
            self._waiting.append((fn, value))

    def _begin(self, actor: ActorHandle, fn: Call, value: Any) -> None:
        refs = fn(actor, value)
        # All values of a call are there at once.
        first = refs[0] if isinstance(refs, list) and refs else refs
        if not isinstance(first, ObjectRef):
            self._idle.append(actor)
            raise TypeError(f"The function of a pool must return the ObjectRef of a call, not {type(refs).__name__}.")
        self._busy[first] = actor, refs

    def map(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """The results for many values, in their order. Results that nobody has got before are dropped.

        Args:
            fn: As of `submit`.
            values: The values. All are submitted at once.
        """
        return self._map(fn, values, self.get_next)

    def map_unordered(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """The same in the order in which the results are there."""
        return self._map(fn, values, self.get_next_unordered)

    def _map(self, fn: Call, values: Iterable[Any], following: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            (ref, *_), _ = _engine.wait(list(self._busy))
            actor, _ = self._busy.pop(ref)
            self._return(actor)
        for value in values:
            self.submit(fn, value)

        def results() -> Iterator[Any]:
            while self.has_next():
                yield following()

        return results()

    def has_next(self) -> bool:
        """Whether there is a result that nobody has got."""
        return bool(self._busy)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Of the results that nobody has got, that which was submitted first. Waits for it.

        Args:
            timeout: Seconds to wait at most. None waits as long as it takes.
            ignore_if_timedout: Leave out a result that is not there in time, and give its actor other work.

        Raises:
            StopIteration: There is none.
            GetTimeoutError: It is not there in time.
            Exception: What the call raised.
        """
        if not self.has_next():
            raise StopIteration("There are no more results in the pool.")
        ref = next(iter(self._busy))
        ready, _ = _engine.wait([ref], timeout=timeout)
        if not ready and not ignore_if_timedout:
            raise GetTimeoutError(f"The next result was not there after {timeout} seconds.")
        return self._result(ref, ready, timeout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result that is there. Waits for one.

        Args:
            timeout: Seconds to wait at most. None waits as long as it takes.
            ignore_if_timedout: If none is there in time, leave one out, and give its actor other work.

        Raises:
            StopIteration: There is none.
            GetTimeoutError: None is there in time.
            Exception: What the call raised.
        """
        if not self.has_next():
            raise StopIteration("There are no more results in the pool.")
        ready, rest = _engine.wait(list(self._busy), timeout=timeout)
        if not ready and not ignore_if_timedout:
            raise GetTimeoutError(f"No result was there after {timeout} seconds.")
        return self._result((ready or rest)[0], ready, timeout)

    def _result(self, ref: ObjectRef, ready: list[ObjectRef], timeout: float | None) -> Any:
        actor, refs = self._busy.pop(ref)
        if not ready:
            self._return(actor)
            raise GetTimeoutError(f"A result was not there after {timeout} seconds. It is left out.")
        try:
            value = _engine.get(refs)
        except BaseException as error:
            # One that is dead is not given further work. That another one is dead, its method may have raised.
            if not isinstance(error, ActorDiedError) or isinstance(error, TaskError):
                self._return(actor)
            raise
        self._return(actor)
        return value

    def _return(self, actor: ActorHandle) -> None:
        if self._waiting:
            self._begin(actor, *self._waiting.popleft())
        else:
            self._idle.append(actor)

    def has_free(self) -> bool:
        """Whether an actor is free."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle | None:
        """Takes a free actor out of the pool; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Adds an actor.

        Raises:
            ValueError: It is in the pool already.
        """
        if actor in self._idle or any(actor == busy for busy, _ in self._busy.values()):
            raise ValueError(f"{actor!r} is in the pool already.")
        self._return(actor)
