"""How instances of a class are pickled, and why something cannot be."""

from __future__ import annotations

import copyreg
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

from eagleray import _pickling
from eagleray._engine import native
from eagleray._summary import type_name

_MOST = 50
"""So many parts of an object are looked at."""


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Has instances of a class pickled in another way, in this process.

    Args:
        cls: The class. Classes derived from it are pickled as before.
        serializer: Takes an instance, and returns what is pickled instead.
        deserializer: Takes that, and returns an instance. It travels with each pickle.

    Raises:
        TypeError: They are no class and no functions.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer() takes a class, not {type(cls).__name__}.")
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, not {type(function).__name__}.")

    def reduce(instance: Any) -> tuple[Any, ...]:
        return _deserialized, (deserializer, serializer(instance))

    copyreg.pickle(cls, reduce)


def _deserialized(deserializer: Callable[[Any], Any], data: Any) -> Any:
    """Makes an instance where it is unpickled. There it need not be possible to pickle it."""
    native.note_foreign()
    return deserializer(data)


def deregister_serializer(cls: type) -> None:
    """Has instances of a class pickled as if `register_serializer` had not been called for it."""
    copyreg.dispatch_table.pop(cls, None)


class FailureTuple(NamedTuple):
    """Something that cannot be pickled."""

    obj: Any
    name: str
    parent: Any
    """What has it."""


def _cannot(value: Any) -> Exception | None:
    """What pickling raises."""
    try:
        _pickling.dump(value)
    except Exception as error:
        return error
    return None


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object consists of, with what that is called."""
    if inspect.isfunction(value):
        used = inspect.getclosurevars(value)
        for kind, names in (("global", used.globals), ("variable of the enclosing function", used.nonlocals)):
            for name, found in names.items():
                yield f"{kind} {name!r}", found
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"key {key!r}", key
            yield f"item {key!r}", item
    elif isinstance(value, list | tuple | set | frozenset):
        for place, item in enumerate(value):
            yield f"item {place}", item
    else:
        slots = [
            name for base in type(value).__mro__ for name in getattr(base, "__slots__", ()) if hasattr(value, name)
        ]
        members = dict(vars(value)) if hasattr(value, "__dict__") else {}
        for name, item in {**members, **{name: getattr(value, name) for name in slots}}.items():
            if not name.startswith("__"):
                yield f"attribute {name!r}", item


class _Inspection:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._seen: set[int] = set()
        self._found: dict[int, FailureTuple] = {}

    def look(self, value: Any, name: str, parent: Any, depth: int, indent: int) -> bool:
        """Whether it can be pickled. If not, finds what in it cannot."""
        error = _cannot(value)
        if error is None:
            return True
        print(f"{'  ' * indent}{name} (type {type_name(type(value))}): {type(error).__name__}: {error}", file=self._out)
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        inner = False
        if depth > 0:
            for count, (part, item) in enumerate(_inside(value)):
                if count == _MOST:
                    break
                inner |= not self.look(item, part, value, depth - 1, indent + 1)
        if not inner:
            self._found[id(value)] = FailureTuple(value, name, parent)
        return False

    def found(self) -> list[FailureTuple]:
        return list(self._found.values())


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, list[FailureTuple]]:
    """Looks for what in an object cannot be pickled, and prints the way to it.

    Args:
        base_obj: The object: of functions, what they refer to is looked at; of others, items and attributes.
        name: What it is called in what is printed.
        depth: How far to look.
        print_file: Where to print to; standard output, if None.

    Returns:
        Whether it can be pickled, and what cannot.

    Raises:
        ValueError: `depth` is negative.
    """
    if depth < 0:
        raise ValueError(f"depth must be 0 or more, not {depth}.")
    inspection = _Inspection(print_file or sys.stdout)
    name = name or getattr(base_obj, "__qualname__", None) or type_name(type(base_obj))
    fine = inspection.look(base_obj, name, None, depth, 0)
    return fine, inspection.found()
