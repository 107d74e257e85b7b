"""What remote functions and methods of actors have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eagleray import _modules, _options
from eagleray._engine import ObjectRef, native
from eagleray._generators import ObjectRefGenerator
from eagleray._options import Checked


def code(target: object, shown: object = None) -> native.RemoteCode:
    """What workers call, pickled; `shown` is what messages speak of, if that is something else.

    Raises:
        TypeError: It cannot be pickled; the message says what of it.
    """
    if not native.in_worker():
        _modules.refresh()
    return native.RemoteCode(target, shown)


Returns = int | str
"""What `num_returns` says."""


def number(returns: Returns) -> int:
    """How many refs the session gives for a call."""
    return 1 if isinstance(returns, str) else returns


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
