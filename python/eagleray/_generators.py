"""Refs to what a generator yields."""

from __future__ import annotations

from typing import Any, Self

from eagleray import _engine
from eagleray._engine import ObjectRef


class ObjectRefGenerator:
    """Iterates over the refs of what a generator in a worker has yielded."""

    def __init__(self, refs: list[ObjectRef]) -> None:
        self._refs = refs
        self._next = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ObjectRef:
        if self._next == len(self._refs):
            raise StopIteration
        self._next += 1
        return self._refs[self._next - 1]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ObjectRef:
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    def __len__(self) -> int:
        return len(self._refs)


def collected(values: Any) -> ObjectRefGenerator:
    """In a worker: puts what a generator yields."""
    return ObjectRefGenerator([_engine.put(value) for value in values])
