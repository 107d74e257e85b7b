"""What a value is, in a few words, for an error message: type, shape, dtype, size.

Nothing here may fail, take long or run code of the user's: no `repr` of his, no property of his classes. Attributes are
read through the class of a known package that defines them.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

_KNOWN = frozenset({"cupy", "numpy", "pandas", "polars", "pyarrow", "scipy", "sparse", "torch", "xarray"})
"""Packages whose `shape`, `dtype` and `nbytes` are cheap to ask for."""

_CONTAINERS: tuple[type, ...] = (list, tuple, dict, set, frozenset, deque)
_MOST_TEXT = 60
"""Characters of a value or a dtype that are shown."""


def clip(text: str, most: int = _MOST_TEXT) -> str:
    """The text, cut to `most` characters."""
    return text if len(text) <= most else f"{text[:most]}..."


def size(count: float) -> str:
    """Bytes as people read them: `7.6 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def type_name(cls: type) -> str:
    """A class as a user would import it."""
    name = type.__getattribute__(cls, "__qualname__")
    module = type.__getattribute__(cls, "__module__")
    if module == "builtins":
        return str(name)
    package = module.partition(".")[0]
    exported = vars(sys.modules[package]).get(name) if package in sys.modules else None
    return f"{package if exported is cls else module}.{name}"


def summary(value: object) -> str:
    """Type, shape, dtype and size of a value, as far as they can be had safely; of a small plain value, the value."""
    cls = type(value)
    try:
        name = type_name(cls)
    except Exception:
        return "an object"
    try:
        details = _plain(value) or _container(value) or _array(value)
    except Exception:
        details = None
    return f"{name}{details}" if details else name


def _plain(value: Any) -> str | None:
    cls = type(value)
    if value is None:
        return None
    if cls in (bool, float, complex) or (cls is int and value.bit_length() < 200):
        return f", {value!r}"
    if cls is str or cls is bytes:
        return f", {value!r}" if len(value) <= _MOST_TEXT else f", length {len(value)}"
    return None


def _container(value: Any) -> str | None:
    base = next((base for base in _CONTAINERS if issubclass(type(value), base)), None)
    if base is None:
        return None
    length: int = base.__len__(value)  # type: ignore[attr-defined]
    text = f", {length} item{'' if length == 1 else 's'}"
    if length and base in (list, tuple):
        first = base.__getitem__(value, 0)
        if not issubclass(type(first), _CONTAINERS):
            text += f", the first: {summary(first)}"
    return text


def _array(value: Any) -> str | None:
    known = next((base for base in type(value).__mro__ if base.__module__.partition(".")[0] in _KNOWN), None)
    if known is None:
        return None

    def read(name: str) -> Any:
        attribute: Any = getattr(known, name, None)
        return attribute.__get__(value, type(value)) if hasattr(attribute, "__get__") else None

    shape, dtype, nbytes = read("shape"), read("dtype"), read("nbytes")
    if shape == () and known.__module__ == "numpy" and hasattr(known, "is_integer"):  # a scalar
        return f", {clip(str(read('item')()))}"
    if nbytes is None and hasattr(known, "memory_usage"):  # a data frame
        nbytes = int(read("memory_usage")().sum())
    parts = [
        f"shape {clip(str(tuple(shape)))}" if shape is not None else None,
        clip(str(dtype)) if dtype is not None else None,
        size(nbytes) if isinstance(nbytes, int) else None,
    ]
    return "".join(f", {part}" for part in parts if part)
