"""Whether arguments fit a function that is called elsewhere: seen where it is called, in Python's own words."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable
from functools import lru_cache
from typing import Any


def parameters(function: Callable[..., Any], *, bound: bool = False) -> str | None:
    """The parameters of a function, in brackets, without annotations and with None for each default.

    Args:
        function: The function.
        bound: Leave the first one out: it is the instance.

    Returns:
        None if they are not known, as of some built-in functions.
    """
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if (
        bound
        and found
        and found[0].kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ):
        del found[0]
    if not all(one.name.isidentifier() and not keyword.iskeyword(one.name) for one in found):
        return None
    plain = [
        one.replace(annotation=one.empty, default=one.empty if one.default is one.empty else None) for one in found
    ]
    return str(inspect.Signature(plain))


def _anything(*_args: object, **_kwargs: object) -> None:
    return None


@lru_cache(maxsize=4096)
def check(name: str, parameters: str | None) -> Callable[..., None]:
    """A function that takes what one with these parameters takes, and does nothing.

    A call of it costs a tenth of what `inspect.Signature.bind` does, and a TypeError says what Python says.

    Args:
        name: What the function is called in errors.
        parameters: What the function of that name gave.
    """
    if parameters is None:
        return _anything
    made: dict[str, Callable[..., None]] = {}
    exec(f"def check{parameters}: pass", made)
    function = made["check"]
    function.__qualname__ = name
    return function
