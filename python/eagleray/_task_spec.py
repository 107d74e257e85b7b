"""What `eagleray` has to know of Dask's task specification.

No other module touches `dask._task_spec`. It is private to Dask and has changed between 2024.12 and 2026.8, so whatever
this module does not find is replaced by something that no graph contains, and tasks of that kind are then called as
they are instead of being compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from dask import _task_spec as spec
from dask.utils import key_split


def _absent() -> None:
    """Stand for a function that this Dask does not have."""


def _node(name: str) -> Any:
    """The class called `name`, or one without instances."""
    return getattr(spec, name, None) or type(name, (), {})


GraphNode = _node("GraphNode")
Alias = _node("Alias")
DataNode = _node("DataNode")
Task = _node("Task")
TaskRef = _node("TaskRef")
List = _node("List")
Tuple = _node("Tuple")
Set = _node("Set")
Dict = _node("Dict")

#: `execute_subgraph(inner_dsk, outkey, inkeys, *dependencies)`; before 2025.1 `(inner_dsk, outkey, inkeys, more_inkeys)`
#: with dicts of the dependencies.
execute_subgraph: Callable[..., Any] = getattr(spec, "_execute_subgraph", _absent)
#: `identity_cast(*items, typ)` is `typ(items)`.
identity_cast: Callable[..., Any] = getattr(spec, "_identity_cast", _absent)
#: `to_container(*items, constructor)` is `constructor(items)`.
to_container: Callable[..., Any] = getattr(List, "to_container", _absent)
#: The `constructor` of a `Dict`, whose items are keys and values in turn.
dict_constructor: Callable[..., Any] = getattr(Dict, "constructor", _absent)


def _dict_has_pairs() -> bool:
    """Whether the arguments of a `Dict` are `Tuple`s of key and value, as they were before 2025.1."""
    try:
        return len(Dict({"key": "value"}).args) == 1
    except Exception:  # an unknown `Dict` is no reason not to start
        return False


dict_has_pairs: bool = _dict_has_pairs()


def target(alias: Any) -> Any:
    """The key that an `Alias` stands for. Before 2024.12.1 Dask wraps it in a `TaskRef`."""
    return alias.target.key if isinstance(alias.target, TaskRef) else alias.target


def names_inside(node: Any) -> Iterator[Any]:
    """The keys of the nodes in a task, itself included: those that Dask fused into it or that its arguments nest.

    In what blockwise fusion made, names of layers stand for their keys, with `_.` and indices behind them where a layer
    occurs more than once.
    """
    stack = [(getattr(node, "key", None), node)]
    while stack:
        key, node = stack.pop()
        yield key.partition("_.")[0] if isinstance(key, str) else key
        if isinstance(node, Task):
            if node.func is execute_subgraph and isinstance(node.args[0], dict):
                stack += node.args[0].items()
            # An alias among the arguments has the key of what is outside.
            nested = [part for part in (*node.args, *node.kwargs.values()) if isinstance(part, Task)]
            stack += [(part.key, part) for part in nested]


def fused_functions() -> tuple[Callable[..., Any], ...]:
    """`execute(tasks, dependencies, outkey)` of the dataframe packages loaded so far."""
    found = []
    for name in ("dask.dataframe.dask_expr._expr", "dask_expr._expr"):
        fused = getattr(sys.modules.get(name), "Fused", None)
        function = getattr(fused, "_execute_internal_graph", None)
        if function is not None:
            found.append(function)
    return tuple(found)


def call_node(node: Any, keys: Iterable[Any], *values: Any) -> Any:
    """Evaluate a node of a kind that is not compiled, given the values of its dependencies."""
    return node(dict(zip(keys, values, strict=True)))


def key_prefix(key: Any) -> str:
    """The part of a key that tasks of the same layer have in common."""
    try:
        return str(key_split(key))
    except UnicodeDecodeError:  # Dask's schedulers take such a key, though this function of Dask's does not
        while isinstance(key, tuple):
            key = key[0]
        return str(key_split(key.decode(errors="backslashreplace")))


def describe(function: Any) -> str | None:
    """Name a callable the same in every graph, together with the callables in it; `None` if it is not callable."""
    if not callable(function):
        return None
    inner: tuple[Any, ...] = ()
    if isinstance(function, partial):
        inner = (function.func, *function.args, *function.keywords.values())
    elif hasattr(function, "first") and hasattr(function, "funcs"):  # Compose, of toolz
        inner = (function.first, *function.funcs)
    named = function if hasattr(function, "__qualname__") else type(function)
    names = [f"{getattr(named, '__module__', None)}.{named.__qualname__}"]
    names.extend(name for name in map(describe, inner) if name)
    return "/".join(names)
