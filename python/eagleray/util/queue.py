"""A queue that tasks, actors and the driver share."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Iterable, Mapping
from typing import Any

from eagleray import _actors, _engine
from eagleray._actors import ActorClass
from eagleray._engine import ObjectRef
from eagleray._handles import ActorHandle
from eagleray.exceptions import EaglerayError

__all__ = ["Empty", "Full", "Queue"]


class Empty(queue.Empty):
    """There is no item in the queue."""


class Full(queue.Full):
    """There is no room in the queue."""


_GRACE = 5.0
"""Seconds that a queue has to end by itself."""


class _Items:
    """The actor. It says by its results what did not work, so that errors are raised where the queue is used."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    def qsize(self) -> int:
        return self._items.qsize()

    async def put(self, item: Any, timeout: float | None) -> bool:
        try:
            await asyncio.wait_for(self._items.put(item), timeout)
        except TimeoutError:
            return False
        return True

    async def get(self, timeout: float | None) -> list[Any]:
        try:
            return [await asyncio.wait_for(self._items.get(), timeout)]
        except TimeoutError:
            return []

    def put_all(self, *items: Any) -> int | None:
        """None, or how many there are if there is no room for all."""
        if self._maxsize > 0 and self._items.qsize() + len(items) > self._maxsize:
            return self._items.qsize()
        for item in items:
            self._items.put_nowait(item)
        return None

    def put_batch(self, items: list[Any]) -> int | None:
        """The same for a list, in which refs stay refs."""
        return self.put_all(*items)

    def get_all(self, number: int) -> list[Any] | int:
        """The items, or how many there are if these are fewer."""
        if self._items.qsize() < number:
            return self._items.qsize()
        return [self._items.get_nowait() for _ in range(number)]


def _seconds(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must be 0 or more seconds, not {timeout}.")
    return timeout


def _answer(call: ObjectRef) -> Any:
    """What a call returns that may wait for long. If somebody interrupts it, it must not take an item later, nor add one."""
    try:
        return _engine.get(call)
    except BaseException:
        with contextlib.suppress(EaglerayError):  # the session may have ended
            _engine.cancel(call)
        raise


async def _answer_async(call: ObjectRef) -> Any:
    """The same in an asyncio loop."""
    try:
        return await call
    except BaseException:
        with contextlib.suppress(EaglerayError):  # the session may have ended
            _engine.cancel(call)
        raise


class Queue:
    """A queue in an actor, first in, first out. It can be handed to tasks and actors.

    The actor lives as long as somebody has the queue.
    """

    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None) -> None:
        """Makes the actor.

        Args:
            maxsize: How many items there may be; 0 is any number.
            actor_options: Options of the actor, as of `remote`.
        """
        self.maxsize = maxsize
        self._actor: ActorHandle | None = ActorClass(_Items, actor_options or {}).remote(maxsize)

    @property
    def actor(self) -> ActorHandle | None:
        """The actor; None if the queue was shut down."""
        return self._actor

    @property
    def _there(self) -> ActorHandle:
        if self._actor is None:
            raise RuntimeError("The queue was shut down.")
        return self._actor

    def __len__(self) -> int:
        return self.qsize()

    def size(self) -> int:
        """How many items there are."""
        return self.qsize()

    def qsize(self) -> int:
        """How many items there are."""
        number: int = _engine.get(self._there.qsize.remote())
        return number

    def empty(self) -> bool:
        """Whether there is none."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether there is no room."""
        return 0 < self.maxsize <= self.qsize()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Adds an item.

        Args:
            item: The item.
            block: Wait for room if there is none.
            timeout: Seconds to wait at most. None waits as long as it takes.

        Raises:
            Full: There is no room, or there was none in time.
        """
        if not block:
            self._check_room(_engine.get(self._there.put_all.remote(item)), 1)
        elif not _answer(self._there.put.remote(item, _seconds(timeout))):
            raise Full(f"There was no room for the item after {timeout} seconds.")

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """The same, in an asyncio loop."""
        if not block:
            self._check_room(await self._there.put_all.remote(item), 1)
        elif not await _answer_async(self._there.put.remote(item, _seconds(timeout))):
            raise Full(f"There was no room for the item after {timeout} seconds.")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes an item out.

        Args:
            block: Wait for one if there is none.
            timeout: Seconds to wait at most. None waits as long as it takes.

        Raises:
            Empty: There is none, or there was none in time.
        """
        if not block:
            return self.get_nowait_batch(1)[0]
        return self._only(_answer(self._there.get.remote(_seconds(timeout))), timeout)

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """The same, in an asyncio loop."""
        if not block:
            return self._check_items(await self._there.get_all.remote(1), 1)[0]
        return self._only(await _answer_async(self._there.get.remote(_seconds(timeout))), timeout)

    def put_nowait(self, item: Any) -> None:
        """`put(item, block=False)`."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """`get(block=False)`."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Adds several items, or none. Refs among them stay refs, while `put` adds the value of one.

        Raises:
            TypeError: They are not iterable.
            Full: There is no room for all.
        """
        if not isinstance(items, Iterable):
            raise TypeError(f"items must be iterable, and {type(items).__name__} is not.")
        items = list(items)
        self._check_room(_engine.get(self._there.put_batch.remote(items)), len(items))

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Takes several items out, or none.

        Raises:
            TypeError, ValueError: `num_items` is no whole number, or negative.
            Empty: There are not so many.
        """
        if isinstance(num_items, bool) or not isinstance(num_items, int):
            raise TypeError(f"num_items must be a whole number, not {type(num_items).__name__}.")
        if num_items < 0:
            raise ValueError(f"num_items must be 0 or more, not {num_items}.")
        return self._check_items(_engine.get(self._there.get_all.remote(num_items)), num_items)

    def _check_room(self, present: int | None, number: int) -> None:
        if present is not None:
            raise Full(f"There is no room for {number} more: the queue has {present} of at most {self.maxsize} items.")

    @staticmethod
    def _check_items(found: list[Any] | int, number: int) -> list[Any]:
        if isinstance(found, int):
            raise Empty(f"{number} cannot be taken out: the queue has {found} items.")
        return found

    @staticmethod
    def _only(found: list[Any], timeout: float | None) -> Any:
        if not found:
            raise Empty(f"There was no item after {timeout} seconds.")
        return found[0]

    def shutdown(self, force: bool = False, grace_period_s: float = _GRACE) -> None:
        """Ends the actor, and with it the items.

        Args:
            force: At once. Else calls of it that have come before end first.
            grace_period_s: Seconds after which it is ended in any case.
        """
        actor, self._actor = self._actor, None
        if actor is None:
            return
        if not force:
            ended, _ = _engine.wait([actor.__ray_terminate__.remote()], timeout=grace_period_s)
            if ended:
                return
        _actors.kill(actor)
