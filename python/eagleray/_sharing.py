"""What of the driver's objects the tasks of a worker may share, and what is said when a task writes to one."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import functools
import inspect
import operator
import pathlib
import pickle
import re
import sys
import types
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from eagleray._summary import type_name
from eagleray.exceptions import ReadOnlyInputError

WHOLE, PARTIAL, METHOD, ARRAY, SHALLOW, APART = range(6)
"""How tasks share the instances of a class: as they are; by what they consist of (two kinds); frozen; each with a copy
that shares the data; each with one that is unpickled for it."""

_UNCHANGING = (
    int,
    float,
    complex,
    str,
    bytes,
    range,
    slice,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ModuleType,
    types.NotImplementedType,
    types.EllipsisType,
    types.GenericAlias,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
    enum.Enum,
    re.Pattern,
    operator.attrgetter,
    operator.itemgetter,
    operator.methodcaller,
)

_UNCHANGING_OF = {
    "numpy": ("generic", "dtype", "ufunc"),
    "pandas": ("Index", "Interval", "Period", "DateOffset", "CategoricalDtype", "api.extensions.ExtensionDtype"),
    "pyarrow": ("DataType", "Field", "Schema", "Scalar", "Array", "ChunkedArray", "RecordBatch", "Table", "Buffer"),
}
"""Classes of modules that need not be there."""

_OURS = frozenset({"dask", "eagleray", "toolz", "tlz", "cytoolz"})
"""Packages whose objects in a graph do not change: what is called, and what describes collections."""


def _of_module(name: str) -> Iterator[type]:
    module = sys.modules.get(name)
    for path in _UNCHANGING_OF[name] if module else ():
        try:
            yield operator.attrgetter(path)(module)
        except AttributeError:
            continue


def _copies_lazily(cls: type) -> bool:
    """Whether a shallow copy of an instance keeps what is written to it to itself: of pandas 3 and later."""
    if cls.__module__.partition(".")[0] != "pandas" or cls.__name__ not in ("DataFrame", "Series"):
        return False
    return int(sys.modules["pandas"].__version__.partition(".")[0]) >= 3


def kind(cls: type) -> int:
    """How tasks of a worker share the instances of a class, which is none of the built-in containers."""
    if issubclass(cls, _UNCHANGING) or any(issubclass(cls, tuple(_of_module(name))) for name in _UNCHANGING_OF):
        return WHOLE
    if cls is functools.partial:
        return PARTIAL
    if cls is types.MethodType:
        return METHOD
    if (numpy := sys.modules.get("numpy")) and issubclass(cls, numpy.ndarray):
        return ARRAY
    if _copies_lazily(cls):
        return SHALLOW
    return WHOLE if cls.__module__.partition(".")[0] in _OURS else APART


def freeze(array: Any) -> None:
    """Makes an array of a class derived from `numpy.ndarray` read-only, with its mask if it has one."""
    array.setflags(write=False)
    mask = getattr(array, "_mask", None)
    if isinstance(mask, sys.modules["numpy"].ndarray) and mask.ndim:
        mask.setflags(write=False)


def snapshot(value: object) -> tuple[bytes, list[memoryview] | None]:
    """A pickle of an object, and the memory of its arrays, if it has any, from which read-only arrays will be made."""
    buffers: list[memoryview] = []

    def take(buffer: pickle.PickleBuffer) -> None:
        buffers.append(buffer.raw().toreadonly())

    try:
        return pickle.dumps(value, 5, buffer_callback=take), buffers or None
    except Exception:
        import cloudpickle

        buffers.clear()
        return cloudpickle.dumps(value, 5, buffer_callback=take), buffers or None


def _arrays(value: object, depth: int = 3) -> Iterator[Any]:
    """The arrays in an object."""
    numpy = sys.modules.get("numpy")
    if numpy and isinstance(value, numpy.ndarray):
        yield value
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _arrays(item, depth - 1)
    elif depth:
        parts = value if isinstance(value, dict) else getattr(value, "__dict__", {})
        for item in list(parts.values()):
            yield from _arrays(item, depth - 1)


def _may_be_written(value: object, drivers: set[int], made: set[int]) -> bool:
    """Whether what the task wrote to may be this argument of a call: of the driver, and read-only."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if id(value) in made:
        return False
    if numpy and isinstance(value, numpy.ndarray):
        return id(value) in drivers and not value.flags.writeable
    if pandas and isinstance(value, pandas.DataFrame | pandas.Series):
        return True
    return any(not array.flags.writeable for array in _arrays(value))


def _describe(value: object) -> str:
    facts = [type_name(type(value))]
    for fact in ("shape", "dtype"):
        found = getattr(value, fact, None)
        if isinstance(found, tuple) or (found is not None and fact == "dtype"):
            facts.append(f"{fact} {found}")
    return ", ".join(facts)


def _named(function: Any, positional: Sequence[object], named: dict[str, object]) -> list[tuple[str, object]]:
    """The arguments of a call, with what they are called."""
    arguments = [(f"argument {place}", value) for place, value in enumerate(positional, 1)]
    try:
        parameters = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        parameters = []
    for place, name in enumerate(parameters[: len(arguments)]):
        arguments[place] = (f"argument {name!r}", positional[place])
    return arguments + [(f"argument {name!r}", value) for name, value in named.items()]


_STORES = frozenset({"load_store_chunk", "store_chunk"})


def is_store(function: Any) -> bool:
    """Whether a function is one of those that write a chunk to the target of `dask.array.store`."""
    name = getattr(function, "__name__", None)
    return name in _STORES and getattr(function, "__module__", None) in ("dask.array.core", __name__)


def read_only(
    error: ValueError,
    function: Any,
    positional: list[object],
    named: dict[str, object],
    drivers: list[object],
    made: list[object],
) -> BaseException:
    """What to raise for a call that failed because something it wrote to is read-only.

    Args:
        error: What the call raised.
        function: What was called.
        positional: Its positional arguments.
        named: Its keyword arguments.
        drivers: Objects of the driver that the task reads.
        made: Objects that other tasks made for it: those were writable copies.

    Returns:
        A `ReadOnlyInputError` if that may be something of the driver's, else `error`.
    """
    ids, others = set(map(id, drivers)), set(map(id, made))
    found = [pair for pair in _named(function, positional, named) if _may_be_written(pair[1], ids, others)]
    if is_store(function):
        # It writes to its second argument, whatever else is read-only.
        found = [pair for pair in found if pair[1] is positional[1]] if len(positional) > 1 else found
    if not found:
        return error
    what = " or ".join(f"{name} ({_describe(value)})" for name, value in found)
    explained = ReadOnlyInputError(what, is_store(function))
    explained.__cause__ = error
    return explained


def _lost(target: object) -> bool:
    """Whether what is stored in a target, of which the task has a copy, can only get lost."""
    pandas = sys.modules.get("pandas")
    in_memory = (list, dict, bytearray, memoryview)
    return isinstance(target, in_memory) or bool(pandas and isinstance(target, pandas.DataFrame | pandas.Series))


def _state(target: object) -> bytes | None:
    numpy = sys.modules.get("numpy")
    if numpy and isinstance(target, numpy.ndarray):
        return None
    try:
        return pickle.dumps(target, 5)
    except Exception:
        return None


def _stored(function: Any, out: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if _lost(out):
        raise ReadOnlyInputError(f"argument 'out' ({_describe(out)})", True)
    before = _state(out)
    result = function(*args, **kwargs)
    if before is not None and _state(out) != before:
        import warnings

        warnings.warn(
            f"dask.array.store() has changed a copy of its target ({_describe(out)}) in a worker process. What it keeps in "
            "memory does not reach the target in the driver; what it writes to a file does.",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def load_store_chunk(x: Any, out: Any, *args: Any, **kwargs: Any) -> Any:
    """`dask.array.core.load_store_chunk`, which does not lose what it stores in silence.

    Raises:
        ReadOnlyInputError: The target is an object in memory, a copy of the driver's.
    """
    from dask.array.core import load_store_chunk

    return _stored(load_store_chunk, out, (x, out, *args), kwargs)


def store_chunk(x: Any, out: Any, *args: Any, **kwargs: Any) -> Any:
    """`dask.array.core.store_chunk`, as `load_store_chunk`."""
    from dask.array.core import store_chunk

    return _stored(store_chunk, out, (x, out, *args), kwargs)


def sent(function: object) -> object:
    """What is sent for a function of a graph: itself, but for Dask's own that may lose what they write."""
    core = sys.modules.get("dask.array.core")
    if core is None or not isinstance(function, types.FunctionType):
        return function
    if function is core.load_store_chunk:
        return load_store_chunk
    return store_chunk if function is getattr(core, "store_chunk", None) else function
