"""Where in a task an object stands: for messages that have to name an argument."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from eagleray._failures import named
from eagleray._pickling import dump
from eagleray._summary import clip, type_name

_DEEPEST = 50


def _call(node: Any) -> tuple[Any, Sequence[Any], dict[str, Any]] | None:
    """Function and arguments, if the node is a call: a `Task` of Dask's, or a tuple of a legacy graph."""
    if type(node) is tuple:
        return (node[0], node[1:], {}) if node and callable(node[0]) else None
    func, args = getattr(node, "func", None), getattr(node, "args", None)
    if callable(func) and isinstance(args, tuple):
        kwargs = getattr(node, "kwargs", None) or getattr(node, "keywords", None)
        return func, args, kwargs if isinstance(kwargs, dict) else {}
    return None


def _inside(holder: Any) -> Iterator[Any]:
    """What a container or a node that is no call holds."""
    if isinstance(holder, dict):
        yield from holder
        yield from holder.values()
    elif isinstance(holder, list | tuple | set | frozenset):
        yield from holder
    elif type(holder).__name__ == "DataNode":
        yield holder.value


def _function_name(function: Any) -> str:
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type_name(type(function))


def _find(holder: Any, value: Any, depth: int = 0) -> str | None:
    """Where in `holder` that very object is; `""` if it is somewhere below, but no argument of a call there."""
    if holder is value:
        return ""
    if depth == _DEEPEST:
        return None
    call = _call(holder)
    if call is None:
        return next((found for item in _inside(holder) if (found := _find(item, value, depth + 1)) is not None), None)
    function, args, kwargs = call
    if function is value:
        return "the function"
    if isinstance(function, partial) and (found := _find(function, value, depth + 1)) is not None:
        return found or "the function"
    names = [str(place) for place in range(1, len(args) + 1)] + [repr(name) for name in kwargs]
    for name, argument in zip(names, [*args, *kwargs.values()], strict=True):
        found = _find(argument, value, depth + 1)
        if found is not None:
            inner = found or f"argument {name}"
            return inner if depth == 0 or " of " in inner else f"{inner} of the call of {_function_name(function)}"
    return None


def place(node: Any, value: Any) -> str | None:
    """Where in the task `node` that very object is: `argument 2`, `argument 'axis'`. None if it is not there."""
    try:
        found = _find(node, value)
    except Exception:  # a class of the user's that only looks like a task
        return None
    return (found or "the value") if found is not None else None


def _culprit(value: Any, depth: int = 0) -> Any:
    """What in a container cannot be pickled; the value itself if it is none."""
    for item in _inside(value) if depth < _DEEPEST else ():
        try:
            dump(item)
        except Exception:
            return _culprit(item, depth + 1)
    return value


def not_picklable(value: Any, cause: BaseException, keys: Sequence[Any], nodes: Sequence[Any]) -> TypeError:
    """The error for a function or an argument that cannot be sent to the workers.

    Args:
        value: What cannot be pickled.
        cause: What the pickler raised.
        keys: The keys of the graph's tasks.
        nodes: The tasks.
    """
    culprit = _culprit(value)
    kind = f"(type {type_name(type(culprit))}{'' if culprit is value else f', in a {type_name(type(value))}'})"
    where = f"An object {kind} of the graph"
    for key, node in zip(keys, nodes, strict=True):
        found = place(node, value)
        if found is not None:
            if found == "the function":
                found = f"the {'class' if isinstance(value, type) else 'function'} {_function_name(value)}"
            what, _, call = found.partition(" of ")
            where = f"{what[0].upper()}{what[1:]} {kind} of {call and f'{call} in '}task {named(key)}"
            break
    return _refusal(f"{where} cannot be sent to a worker", cause)


def not_picklable_value(value: Any, cause: BaseException) -> TypeError:
    """The error for a value that cannot be put into the store."""
    return _refusal(f"A value of type {type_name(type(_culprit(value)))} cannot be put into the object store", cause)


def not_picklable_result(value: Any, cause: BaseException) -> TypeError:
    """The error of a task whose result cannot leave its worker."""
    return _refusal(
        f"The result of the task (type {type_name(type(_culprit(value)))}) cannot be sent to those who need it", cause
    )


_FOR_LOCKS = (
    "A lock of threading holds in one process only: use dask.utils.SerializableLock, which here holds in all of them, "
    "or lock=True where Dask has such an argument."
)

_ADVICE = {
    "'_thread.lock'": _FOR_LOCKS,
    "'_thread.RLock'": _FOR_LOCKS,
    "h5py": (
        "An open HDF5 file belongs to its process: have the task open it by its path, under a "
        "dask.utils.SerializableLock if tasks write to it, or use zarr."
    ),
}
"""By words of the pickler's error."""


def _advice(cause: BaseException) -> str:
    text = str(cause)
    known = (advice for words, advice in _ADVICE.items() if words in text)
    return next(known, "Make it where it is used, or pass what it can be made from.")


def _refusal(what: str, cause: BaseException) -> TypeError:
    error = TypeError(
        f"{what}, because it cannot be pickled ({type(cause).__name__}: {clip(str(cause), 1000)}). {_advice(cause)}"
    )
    error.__cause__ = cause
    return error
