"""Tasks that return several values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class MultipleReturnFunc:
    """A function whose result is a list of `num_returns` values.

    A task that calls it has one object, the list: consumers get the list, its key when asked for is the list, and
    `ray_postsubmit` gets the one ref of the list. (Dask-on-Ray has a ref for each value. Values are small steps of one
    graph here, which a worker passes on without a copy, so a ref for each would only cost.)

    Args:
        func: Returns a sequence, or a mapping from 0, 1, 2... to the values.
        num_returns: How many values it returns.

    Raises:
        TypeError, ValueError: An argument is not what it should be; or, when called, `func` returned something else.
    """

    def __init__(self, func: Callable[..., Any], num_returns: int) -> None:
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}.")
        if isinstance(num_returns, bool) or not isinstance(num_returns, int):
            raise TypeError(f"num_returns must be a whole number, not {type(num_returns).__name__}.")
        if num_returns < 1:
            raise ValueError(f"num_returns must be at least 1, not {num_returns}.")
        self.func = func
        self.num_returns = num_returns

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        returned = self.func(*args, **kwargs)
        name = getattr(self.func, "__qualname__", repr(self.func))
        if isinstance(returned, Mapping):
            if returned.keys() != set(range(len(returned))):
                raise ValueError(
                    f"{name} returned a mapping with the keys {list(returned)}; of several values they must be 0, 1, 2..."
                )
            returned = [returned[place] for place in range(len(returned))]
        elif not isinstance(returned, list):
            try:
                returned = list(returned)
            except TypeError:
                raise TypeError(
                    f"{name} returned {type(returned).__name__}, not {self.num_returns} values in a sequence or mapping."
                ) from None
        if len(returned) != self.num_returns:
            raise ValueError(f"{name} returned {len(returned)} values, not the {self.num_returns} that were announced.")
        return returned

    def __repr__(self) -> str:
        return f"MultipleReturnFunc({self.func!r}, {self.num_returns})"


def multiple_return_get(multiple_returns: Any, idx: int) -> Any:
    """One of the values that a task returned."""
    return multiple_returns[idx]
