"""Results in the order in which they are there, a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from eagleray import _engine, _init_arguments
from eagleray._engine import ObjectRef
from eagleray._remote import RemoteFunction

__all__ = ["as_completed", "map_unordered"]

_CHUNK = 10
_BACKPRESSURE = 100


def as_completed(
    refs: Iterable[ObjectRef],
    *,
    chunk_size: int = _CHUNK,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]:
    """Yields the values of refs as they come. Which is the first is not said: those of a chunk have the order of `refs`.

    Args:
        refs: The refs, each once.
        chunk_size: How many are waited for at a time.
        yield_obj_refs: Yield the refs instead of their values.
        timeout: Seconds to wait for a chunk at most, before what is there of it is yielded.
        fetch_local: As of `eagleray.wait`.

    Raises:
        TypeError, ValueError: An argument is not what it should be, or a ref occurs twice.
        Exception: What a task raised.
    """
    most = _init_arguments.whole("chunk_size", chunk_size, 1, "refs")
    rest = list(refs)

    def results() -> Iterator[Any]:
        nonlocal rest
        while rest:
            ready, rest = _engine.wait(rest, min(most, len(rest)), timeout, fetch_local)
            yield from ready if yield_obj_refs else _engine.get(ready)

    return results()


def map_unordered(
    fn: RemoteFunction,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = _BACKPRESSURE,
    chunk_size: int = _CHUNK,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]:
    """Calls a remote function with each item, and yields the results as they come.

    Args:
        fn: The remote function.
        items: Its arguments.
        backpressure_size: How many calls there may be at a time whose results were not yielded; None for any number.
        chunk_size: As of `as_completed`.
        yield_obj_refs: As of `as_completed`.
        timeout: As of `as_completed`.
        fetch_local: As of `as_completed`.

    Raises:
        TypeError, ValueError: An argument is not what it should be.
        Exception: What a call raised.
    """
    if not isinstance(fn, RemoteFunction):
        raise TypeError(f"map_unordered() takes a remote function, not {type(fn).__name__}.")
    most = _init_arguments.whole("chunk_size", chunk_size, 1, "refs")
    ahead = (
        None if backpressure_size is None else _init_arguments.whole("backpressure_size", backpressure_size, 1, "calls")
    )

    def results() -> Iterator[Any]:
        pending: list[ObjectRef] = []
        for item in items:
            if ahead is not None and len(pending) >= ahead:
                ready, pending = _engine.wait(pending, min(most, len(pending)), timeout, fetch_local)
                yield from ready if yield_obj_refs else _engine.get(ready)
            pending.append(fn.remote(item))
        yield from as_completed(
            pending, chunk_size=most, yield_obj_refs=yield_obj_refs, timeout=timeout, fetch_local=fetch_local
        )

    return results()
