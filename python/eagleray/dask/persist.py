"""Persist: collections with `ObjectRef`s in the place of results that are still being made.

From 2026.1 Dask calls the `persist` of a scheduler that has one. In an older Dask `dask.persist` and the `persist` of
collections are replaced when this is imported; to them only `ray_dask_get` is special.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import dask
import dask.base
from dask.base import get_scheduler, unpack_collections
from packaging.version import Version

from eagleray.dask import guard
from eagleray.dask.scheduler import ray_dask_get

__all__ = ["ray_dask_persist"]

_dask_persist: Callable[..., Any] = dask.base.persist
"""Dask's own."""

_DASK_ASKS = Version(dask.__version__) >= Version("2026.1")
"""Whether Dask looks for a `persist` of the scheduler."""


def _submit(dsk: Any, keys: Any, **options: Any) -> Any:
    """Submits a graph for `dask.persist`, which builds collections of the refs. Has no `persist` of its own."""
    refs = ray_dask_get(dsk, keys, **{"ray_persist": True, **options})
    guard.watch(refs)
    return refs


def _persist(collections: Sequence[Any], *, optimize_graph: bool = True, **options: Any) -> Any:
    """What Dask calls: takes collections and returns as many of the same kinds, which hold refs."""
    return _dask_persist(*collections, traverse=False, optimize_graph=optimize_graph, scheduler=_submit, **options)


def ray_dask_persist(*args: Any, **kwargs: Any) -> Any:
    """Starts the computation of collections on the worker pool and returns at once.

    Args:
        *args: Collections, also inside lists, tuples, dicts and dataclasses. What is none is returned as it is.
        **kwargs: `traverse`, `optimize_graph` and `scheduler` of `dask.persist`, and the options of `ray_dask_get`.

    Returns:
        A tuple of the same arguments, with collections that hold an `ObjectRef` for each of their results and keep it
        in memory. Computing with them raises what a task raised; what was not made by then is not made any more.
    """
    kwargs.setdefault("scheduler", ray_dask_get)
    return dask.persist(*args, **kwargs)


def _replace() -> None:
    """Teaches an older Dask to ask `ray_dask_get` for refs."""

    @wraps(_dask_persist)
    def persist(
        *args: Any, traverse: bool = True, optimize_graph: bool = True, scheduler: Any = None, **kwargs: Any
    ) -> Any:
        collections, repack = unpack_collections(*args, traverse=traverse)
        if collections and get_scheduler(scheduler=scheduler, collections=collections) is ray_dask_get:
            return repack(_persist(collections, optimize_graph=optimize_graph, **kwargs))
        return _dask_persist(*args, traverse=traverse, optimize_graph=optimize_graph, scheduler=scheduler, **kwargs)

    # The methods of collections look the name up in `dask.base`.
    dask.persist = dask.base.persist = persist


if _DASK_ASKS:
    ray_dask_get.persist = _persist  # type: ignore[attr-defined]
else:
    _replace()
