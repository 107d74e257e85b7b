"""What remote functions and methods of actors have in common."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from eagleray import _modules, _options
from eagleray._engine import ObjectRef, native
from eagleray._generators import ObjectRefGenerator, Way
from eagleray._options import Checked


def code(target: object, shown: object = None) -> native.RemoteCode:
    """What workers call, pickled; `shown` is what messages speak of, if that is something else.

    Raises:
        TypeError: It cannot be pickled; the message says what of it.
    """
    if not native.in_worker():
        _modules.refresh()
    return native.RemoteCode(target, shown)


def name_of(target: object) -> str:
    """What a function or a class is called. Not where it was made, as in Ray: listings are filtered by `f` and `A.f`."""
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return str(name).rpartition("<locals>.")[2]


Returns = int | str
"""What `num_returns` says."""


def number(returns: Returns) -> int:
    """How many refs the session gives for a call."""
    return 1 if isinstance(returns, str) else returns


def way(returns: Returns, options: Checked, generator: bool, most: int) -> Way | None:
    """How what the call yields is handed out, if it is a generator's, or may be an iterator of which each value is wanted.

    Args:
        returns: What `num_returns` says.
        options: The options.
        generator: Whether the function is a generator.
        most: How often the call is made again when its worker has died.
    """
    if not generator and returns in (0, 1):
        return None
    again = options.get("retry_exceptions", False) if returns == "dynamic" and most else False
    return Way(returns, max(options.get("_generator_backpressure_num_objects", 0), 0), again)


def check_streams(options: Checked, generator: bool, what: str) -> None:
    """Raises ValueError for "streaming" where there is no generator."""
    if options.get("num_returns") == "streaming" and not generator:
        raise ValueError(
            f'{what[:1].upper() + what[1:]} cannot have num_returns="streaming": it is no generator, that is, no function '
            "that uses yield."
        )


def is_generator(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def given(refs: list[ObjectRef], returns: Returns) -> Any:
    """What `.remote()` gives for the refs of a call."""
    if returns == "streaming":
        return ObjectRefGenerator(refs[0])
    return refs[0] if number(returns) == 1 else refs or None


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
