"""What remote functions and methods of actors have in common: how many refs a call gives, and what that takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eagleray import _modules, _options
from eagleray._engine import ObjectRef, native
from eagleray._options import Checked


def parts(value: object, number: int, name: str) -> list[Any]:
    """The values that a call with `num_returns` above 1 has returned.

    Raises:
        TypeError: It is nothing that has parts.
        ValueError: There are more or fewer than the caller was told.
    """
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} returned {type(value).__name__}, not {number} values, as num_returns={number} says.")
    found = list(value)
    if len(found) != number:
        raise ValueError(f"{name} returned {len(found)} values, not {number}, as num_returns={number} says.")
    return found


def code(target: object) -> native.RemoteCode:
    """What workers call, pickled.

    Raises:
        TypeError: It cannot be pickled; the message says what of it.
    """
    if not native.in_worker():
        _modules.refresh()
    return native.RemoteCode(target)


def given(refs: list[ObjectRef], number: int) -> Any:
    """What `.remote()` gives for the refs of a call: a ref, a list of them, or None."""
    if number == 1:
        return refs[0]
    return refs or None


def retries(options: Checked, most: int) -> dict[str, Any]:
    """How often a call is made again, and after what, as `RemoteOptions` takes it.

    Args:
        options: The options, of which `retry_exceptions` counts.
        most: How often it is made again when its worker has died.
    """
    after = options.get("retry_exceptions", False)
    return {
        "max_retries": most,
        "retries": most if after else 0,
        "retry_exceptions": after if isinstance(after, tuple) and after else None,
    }


def merged(options: Checked, more: Mapping[str, Any], table: Mapping[str, _options.Option], what: str) -> Checked:
    """Options with others over them.

    Raises:
        TypeError, ValueError: As of `_options.checked`.
    """
    said = _options.checked(more, table, what)
    # None takes back what was said before.
    kept = {name: value for name, value in options.items() if name not in more or name in said}
    return {**kept, **said}
