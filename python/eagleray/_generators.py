"""Generators in workers: the refs of what they yield, and how a worker hands these out."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from enum import Enum, auto
from itertools import islice
from types import GenericAlias
from typing import Any, NamedTuple, NoReturn, Self

from eagleray import _engine, _futures
from eagleray._engine import ObjectRef, native
from eagleray._running import Task
from eagleray._summary import type_name
from eagleray.exceptions import GetTimeoutError


class _Next(Enum):
    """What the next step of an `ObjectRefGenerator` finds."""

    OPEN = auto()
    """Nothing yet."""
    PART = auto()
    ERROR = auto()
    """That the generator has failed."""
    END = auto()


class ObjectRefGenerator:
    """Iterates over the refs of what a generator in a worker yields, while it runs; also in an asyncio loop. Threads may
    share one.

    If the generator fails, after what it has yielded comes the ref of its call, and `get` of that raises. What was yielded
    and not taken is freed with this object; the generator runs to its end nevertheless, unless it is cancelled.
    """

    def __init__(self, call: ObjectRef) -> None:
        """Takes the ref of the call that runs the generator."""
        self._call = call
        self._index = 0
        self._failed = False
        """Whether the ref of the call was given."""
        self._lock = threading.Lock()

    def __class_getitem__(cls, _of: object) -> GenericAlias:
        """`ObjectRefGenerator[int]`, for annotations."""
        return GenericAlias(cls, _of)

    def completed(self) -> ObjectRef:
        """The ref of the call, which is there when the generator has ended."""
        return self._call

    def is_finished(self) -> bool:
        """Whether all refs were taken and no more will come. Returns at once."""
        return self._look() is _Next.END

    def next_ready(self) -> bool:
        """Whether `next` returns a ref at once. To wait until it does, use `eagleray.wait([generator])`."""
        return self._look() in (_Next.PART, _Next.ERROR)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ObjectRef:
        """The next ref, waiting for it."""
        with self._lock:
            ref = self._take(None)
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ObjectRef:
        """The same in a coroutine."""
        import asyncio

        while True:
            try:
                with self._lock:
                    ref = self._take(0.0)
            except GetTimeoutError:
                await asyncio.wrap_future(_futures.ready(self._waits_for()))
                continue
            if ref is None:
                raise StopAsyncIteration
            return ref

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._call.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "An ObjectRefGenerator cannot be pickled, so it can be neither passed to tasks and actors nor returned nor put: "
            "only the process that has called the generator takes what that yields. Pass the refs, one by one or as "
            "list(generator)."
        )

    def _waits_for(self) -> tuple[ObjectRef, int]:
        """What `native.wait` takes to wait for the next."""
        return self._call, self._index

    def _take(self, timeout: float | None) -> ObjectRef | None:
        """The next ref, None at the end. Raises GetTimeoutError if it does not come in time."""
        _engine.check_session()
        part = native.next_part(self._call, self._index, timeout)
        if part is not None:
            self._index += 1
            return part
        if self._failed or not self._has_failed():
            return None
        self._failed = True
        return self._call

    def _look(self) -> _Next:
        _engine.check_session()
        try:
            part = native.next_part(self._call, self._index, 0.0)
        except GetTimeoutError:
            return _Next.OPEN
        if part is not None:
            return _Next.PART
        return _Next.END if self._failed or not self._has_failed() else _Next.ERROR

    def _has_failed(self) -> bool:
        """Whether the call has, which has ended."""
        try:
            native.get([self._call], None, False)
        except Exception:
            return True
        return False


def waited_for(refs: Iterable[Any]) -> dict[ObjectRef | tuple[ObjectRef, int], Any] | None:
    """What `native.wait_for_parts` takes for refs and generators, and which of these each stands for. None if there are others.

    Raises:
        ValueError: One occurs twice.
    """
    items: dict[ObjectRef | tuple[ObjectRef, int], Any] = {}
    for ref in refs:
        if not isinstance(ref, ObjectRef | ObjectRefGenerator):
            return None
        item = ref if isinstance(ref, ObjectRef) else ref._waits_for()
        if item in items:
            raise ValueError("wait() takes each ObjectRef once; the list has duplicates.")
        items[item] = ref
    return items


class DynamicObjectRefGenerator:
    """The value of a call with `num_returns="dynamic"`: iterates over the refs of all that the generator has yielded. It
    gives each only once."""

    def __init__(self, refs: Iterable[ObjectRef]) -> None:
        self._refs = deque(refs)

    def __iter__(self) -> Iterator[ObjectRef]:
        while self._refs:
            yield self._refs.popleft()

    def __len__(self) -> int:
        return len(self._refs)


# In workers.


class Way(NamedTuple):
    """How what an iterator gives is handed out."""

    returns: int | str
    """What `num_returns` says: "streaming" while it runs, else when it has ended."""
    ahead: int
    """How many that nobody has taken there may be before it goes on; 0 if any number."""


def hand_out(way: Way, values: Any, task: Task) -> Any:
    """Hands out what a call has yielded. Gives the result of the call.

    Args:
        way: How it is handed out.
        values: What the function has returned.
        task: Which task the call is.

    Raises:
        TypeError: The function has not returned an iterator.
        ValueError: It has not yielded as many values as it should.
    """
    if inspect.isasyncgen(values):
        import asyncio

        return asyncio.run(hand_out_async(way, values, task))
    if _is_there(way, values):
        return values
    try:
        if way.returns == "dynamic":
            return _gathered(_checked(values))
        if way.returns != "streaming":
            return _returned(list(islice(_checked(values), _enough(way.returns))), way.returns)
        for index, value in enumerate(_checked(values)):
            native.yield_part(task, index, value)
            # It is not kept while the next one is made.
            del value
            wanted = index + 2 - way.ahead
            if way.ahead and wanted > 0:
                native.until_taken(task, wanted)
    finally:
        # What it has to do in the end, it does before the call ends.
        if inspect.isgenerator(values):
            values.close()
    return None


async def hand_out_async(way: Way, values: Any, task: Task) -> Any:
    """The same where coroutines run. Other coroutines go on between two values.

    Raises:
        TypeError: The function has not returned an iterator.
        ValueError: It has not yielded as many values as it should. Or it is not to be ahead: to wait for that would stop
            other coroutines.
    """
    if _is_there(way, values):
        return values
    values = values if inspect.isasyncgen(values) else _slowly(_checked(values))
    try:
        if way.returns == "dynamic":
            return await _gathered_async(values)
        if way.returns != "streaming":
            return _returned(await _first(values, _enough(way.returns)), way.returns)
        if way.ahead:
            raise ValueError("_generator_backpressure_num_objects is not for generators that run as coroutines.")
        index = 0
        async for value in values:
            native.yield_part(task, index, value)
            del value
            index += 1
    finally:
        await values.aclose()
    return None


def _is_there(way: Way, values: Any) -> bool:
    """Whether the values are there, to be taken one by one. Whatever else can be iterated over would be, for each of them."""
    return isinstance(way.returns, int) and (
        isinstance(values, tuple | list) or not isinstance(values, Iterable | AsyncIterable)
    )


def _enough(returns: int | str) -> int | None:
    """As many values as show that there are too many; None if all are to be made. There may be no end of them."""
    return 1 + returns if isinstance(returns, int) and returns > 1 else None


def _checked(values: Any) -> Iterable[Any]:
    if not isinstance(values, Iterable):
        raise TypeError(
            f'A function that is called with num_returns="streaming" or "dynamic" must be a generator, but it has returned '
            f"{type_name(type(values))}."
        )
    return values


async def _slowly(values: Iterable[Any]) -> AsyncIterator[Any]:
    import asyncio

    for value in values:
        yield value
        await asyncio.sleep(0)


async def _first(values: AsyncIterator[Any], most: int | None) -> list[Any]:
    first: list[Any] = []
    async for value in values:
        first.append(value)
        if len(first) == most:
            break
    return first


def _returned(values: list[Any], returns: int | str) -> Any:
    """What a generator returns whose call gives so many refs. That there are enough is checked with the parts."""
    if isinstance(returns, int) and 1 < returns < len(values):
        raise ValueError(f"A call with num_returns={returns} must return {returns} values, but it returned more.")
    if returns == 1 and len(values) != 1:
        raise ValueError(f"A generator with num_returns=1 must yield 1 value, but it has yielded {len(values)}.")
    return values[0] if returns == 1 else values if returns else None


def _gathered(values: Iterable[Any]) -> DynamicObjectRefGenerator:
    """Refs of all values. If there is an error, the last one is a ref to that."""
    refs: list[ObjectRef] = []
    try:
        refs.extend(_engine.put(value) for value in values)  # as far as it gets
    except Exception as error:
        refs.append(_failed(error))
    return DynamicObjectRefGenerator(refs)


async def _gathered_async(values: AsyncIterator[Any]) -> DynamicObjectRefGenerator:
    refs: list[ObjectRef] = []
    try:
        async for value in values:
            refs.append(_engine.put(value))  # noqa: PERF401  # what there is before an error stays
    except Exception as error:
        refs.append(_failed(error))
    return DynamicObjectRefGenerator(refs)


def _failed(error: Exception) -> ObjectRef:
    from eagleray._remote import remote

    ref: ObjectRef = remote(_raise).remote(error)
    return ref


def _raise(error: Exception) -> NoReturn:
    raise error
