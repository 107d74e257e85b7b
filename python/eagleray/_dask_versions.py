"""What differs between the versions of Dask that eagleray runs with, beside `_task_spec`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

import dask
from dask.highlevelgraph import HighLevelGraph
from dask.local import start_state_from_dask
from packaging.version import Version

OLDEST = "2024.12.0"
"""The first with the task specification that eagleray compiles."""


def check(version: str) -> None:
    """Refuses a version of Dask that is too old.

    Raises:
        ImportError: It is.
    """
    if Version(version) < Version(OLDEST):
        raise ImportError(
            f"eagleray.dask needs Dask {OLDEST} or newer, and this is Dask {version}. "
            f'Update it: pip install "dask>={OLDEST}".'
        )


check(dask.__version__)

LEGACY_DATAFRAMES = Version(dask.__version__) < Version("2025.1.0")
"""Dataframes may still be HighLevelGraphs, optimized by what the configuration calls `dataframe_optimize`."""


def _expressions(*names: str) -> tuple[Any, ...]:
    """Those of the classes of expressions that this Dask has. Before 2025.4 it gives schedulers graphs."""
    try:
        module = import_module("dask._expr")
    except ImportError:
        return ()
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


_HLG_EXPR = _expressions("HLGExpr")
_SEQUENCES = _expressions("_HLGExprSequence", "_ExprSequence")
_TOMBSTONE = _expressions("_AnnotationsTombstone")

_start_state: Callable[..., dict[str, Any]] = start_state_from_dask
_state_takes_keys = "keys" in signature(start_state_from_dask).parameters


def start_state(nodes: Mapping[Any, Any], keys: Iterable[Any], sortkey: Callable[[Any], int]) -> dict[str, Any]:
    """The state that Dask's hooks are shown, of the part of a graph that `keys` need."""
    if _state_takes_keys:
        return _start_state(nodes, cache={}, sortkey=sortkey, keys=keys)
    needed: dict[Any, Any] = {}
    stack = list(keys)
    while stack:
        key = stack.pop()
        if key not in needed:
            needed[key] = nodes[key]
            stack.extend(needed[key].dependencies)
    return _start_state(needed, cache={}, sortkey=sortkey)


def layered_graphs(expr: Any) -> Iterator[tuple[HighLevelGraph, Callable[[], Any]]]:
    """The HighLevelGraphs that an expression given to a scheduler was made of, as they were before optimization, and
    what gives the keys that are wanted of each."""
    if isinstance(expr, _HLG_EXPR):
        graph = expr.operand("dsk")
        if isinstance(graph, _HLG_EXPR):  # what finalizes it; its `hlg` would make a layer for that
            yield from layered_graphs(graph)
        else:
            yield graph, expr.__dask_keys__
    elif isinstance(expr, _SEQUENCES):
        for operand in expr.operands:
            yield from layered_graphs(operand)


def is_annotation(value: object) -> bool:
    """Whether a value is one, and does not stand in the place of one."""
    return not isinstance(value, _TOMBSTONE)
