"""Refs to what a generator yields."""

from __future__ import annotations

from typing import Any, Self

from eagleray import _engine, _futures
from eagleray._engine import ObjectRef


class ObjectRefGenerator:
    """Iterates over the refs of what a generator in a worker yields, also in an asyncio loop.

    If the generator raises, the ref of its call comes instead, and `get` of that raises.
    """

    def __init__(self, call: ObjectRef | None, refs: list[ObjectRef] | None = None) -> None:
        """Takes the ref of the call that runs the generator, or the refs if it has ended."""
        self._call = call
        self._refs = refs
        self._next = 0

    def completed(self) -> ObjectRef:
        """The ref of the call, which is there when the generator has ended.

        Raises:
            ValueError: It is not known any more: this is what `get` gave for it.
        """
        if self._call is None:
            raise ValueError("The generator has ended.")
        return self._call

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ObjectRef:
        if self._refs is None:
            try:
                self._refs = _engine.get(self.completed())._refs
            except Exception:
                self._refs = [self.completed()]
        return self._following(StopIteration)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ObjectRef:
        if self._refs is None:
            import asyncio

            try:
                self._refs = (await asyncio.wrap_future(_futures.future(self.completed())))._refs
            except Exception:
                self._refs = [self.completed()]
        return self._following(StopAsyncIteration)

    def _following(self, end: type[Exception]) -> ObjectRef:
        assert self._refs is not None
        if self._next == len(self._refs):
            raise end
        self._next += 1
        return self._refs[self._next - 1]


def collected(values: Any) -> ObjectRefGenerator:
    """In a worker: puts what a generator yields."""
    return ObjectRefGenerator(None, [_engine.put(value) for value in values])
