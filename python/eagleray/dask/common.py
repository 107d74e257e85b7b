"""Object refs inside containers."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eagleray import _engine
from eagleray._engine import ObjectRef

__all__ = ["ray_get_unpack", "unpack_object_refs"]

Rebuild = Callable[[Sequence[Any]], Any]
"""Makes an argument again, from the values of all refs."""


def unpack_object_refs(*args: Any) -> tuple[list[ObjectRef], Callable[[Sequence[Any]], tuple[Any, ...]]]:
    """Finds the refs in arguments.

    Looks into lists, tuples, sets, dicts, dataclasses and iterators (which become lists).

    Returns:
        The refs, each once, and a function that takes their values and returns the arguments with the values in place.
    """
    refs: dict[ObjectRef, int] = {}

    def find(value: Any) -> Rebuild:
        if isinstance(value, ObjectRef):
            place = refs.setdefault(value, len(refs))
            return lambda values: values[place]
        if isinstance(value, Iterator):
            value = list(value)
        kind = type(value)
        if kind in (list, tuple, set):
            parts = [find(item) for item in value]
            return lambda values: kind(part(values) for part in parts)
        if kind in (dict, OrderedDict):
            pairs = [(find(key), find(item)) for key, item in value.items()]
            return lambda values: kind((key(values), item(values)) for key, item in pairs)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: find(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
            return lambda values: dataclasses.replace(value, **{name: part(values) for name, part in fields.items()})
        return lambda _: value

    rebuilds = [find(arg) for arg in args]

    def repack(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(rebuild(values) for rebuild in rebuilds)

    return list(refs), repack


def ray_get_unpack(object_refs: Any) -> Any:
    """The same value with each ref in it replaced by what it stands for. Waits once, for all of them.

    Looks where `unpack_object_refs` does. As in Dask-on-Ray the outermost container becomes a list if all its items are
    refs, else a tuple.
    """
    if not isinstance(object_refs, list | tuple):
        refs, repack = unpack_object_refs(object_refs)
        (value,) = repack(_engine.get(refs, copy=True))
        return value
    if all(isinstance(item, ObjectRef) for item in object_refs):
        return _engine.get(list(object_refs), copy=True)
    refs, repack = unpack_object_refs(*object_refs)
    return repack(_engine.get(refs, copy=True))
