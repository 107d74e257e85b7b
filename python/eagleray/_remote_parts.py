"""What a worker does for calls that return several values: each of them is an object of its own."""

from __future__ import annotations

from typing import Any

from eagleray._summary import type_name


def part(result: object, count: int, place: int) -> Any:
    """One of the values that a call with `num_returns` above 1 has returned.

    Args:
        result: What it returned; of what can be iterated over, `_generators.hand_out` has made a list.
        count: How many values that should be.
        place: Which one is wanted, counted from 0.

    Raises:
        TypeError: It is nothing that has parts.
        ValueError: It has more or fewer.
    """
    if not isinstance(result, tuple | list):
        raise TypeError(f"A call with num_returns={count} must return {count} values, not a {type_name(type(result))}.")
    if len(result) != count:
        raise ValueError(f"A call with num_returns={count} must return {count} values, but it returned {len(result)}.")
    return result[place]
