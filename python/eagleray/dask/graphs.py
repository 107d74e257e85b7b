"""Dask's graphs as the schedulers need them: whichever form they come in, which keys are literals, how results nest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dask.utils import ensure_dict

from eagleray import _task_spec
from eagleray._engine import ObjectRef, native

_spec: Any = _task_spec

Key = Any
Nodes = dict[Key, Any]
"""A graph in which every value is an `Alias`, a `DataNode` or a `Task`."""


def to_mapping(dsk: Any) -> Mapping[Key, Any]:
    """The mapping of a mapping, a HighLevelGraph or an expression. Legacy tuples may remain in it.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(dsk, dict):
        return dsk
    with native.GcGuard():
        if not isinstance(dsk, Mapping):
            materialise = getattr(dsk, "__dask_graph__", None)
            if materialise is None:
                raise TypeError(
                    f"A graph must be a mapping, a HighLevelGraph or a Dask expression, not {type(dsk).__name__}."
                )
            dsk = materialise()
        mapping: Mapping[Key, Any] = ensure_dict(dsk)
        return mapping


def to_nodes(dsk: Mapping[Key, Any]) -> Nodes:
    """The graph without legacy tuples."""
    with native.GcGuard():
        nodes: Nodes = _spec.spec.convert_legacy_graph(dsk)
        return nodes


def literal(key: Key, value: Any) -> Any:
    """A node with a value."""
    return _spec.DataNode(key, value)


def is_alias(node: Any) -> bool:
    return isinstance(node, _spec.Alias)


def target(alias: Any) -> Key:
    """The key that an alias stands for."""
    return _spec.target(alias)


def is_literal(dsk: Mapping[Key, Any], key: Key) -> bool:
    """Whether a key names a value, not the result of a task. Looks at what the key needs, not at the whole graph."""
    seen: set[Key] = set()
    while key not in seen:
        seen.add(key)
        node = dsk.get(key)
        if not isinstance(node, _spec.GraphNode):
            try:
                node = _spec.spec.convert_legacy_graph({key: node}, all_keys=dsk).get(key)
            except TypeError:
                return True
        if isinstance(node, _spec.DataNode):
            return True
        if not isinstance(node, _spec.Alias):
            return False
        key = target(node)
    return False


def resolve(nodes: Nodes, key: Key) -> Key:
    """The key that a chain of aliases leads to."""
    while is_alias(nodes.get(key)):
        key = nodes[key].target
    return key


def same(value: Any) -> Any:
    """What an alias computes."""
    return value


def aliases_as_tasks(nodes: Nodes) -> tuple[Nodes, list[Key]]:
    """The graph with a task for each alias, so that each has a place in the order; and their keys.

    To a worker's hooks they are no tasks.
    """
    aliases = {key: target(node) for key, node in nodes.items() if is_alias(node)}
    tasks = {key: _spec.Task(key, same, _spec.TaskRef(target)) for key, target in aliases.items()}
    return {**nodes, **tasks}, list(aliases)


def nest(keys: Any, value: Callable[[Key], Any]) -> Any:
    """The values of keys, in tuples nested as the keys are in lists."""
    return tuple(nest(item, value) for item in keys) if isinstance(keys, list) else value(keys)


def shape(keys: Any, values: Any, literal: Callable[[Key], bool]) -> Any:
    """Values nested as the keys, in the containers that `ray_dask_get` returns.

    A list where all keys are results of tasks; a tuple as soon as there is a literal or a nested list.
    """
    if not isinstance(keys, list):
        return values
    if any(isinstance(key, list) or literal(key) for key in keys):
        return tuples(keys, values)
    return list(values)


def tuples(keys: Any, values: Any) -> Any:
    """The same values, in tuples nested as the keys are in lists."""
    if not isinstance(keys, list):
        return values
    return tuple(tuples(key, value) for key, value in zip(keys, values, strict=True))


def flat(keys: Any) -> Iterator[Key]:
    """The keys, out of their lists."""
    if isinstance(keys, list):
        for item in keys:
            yield from flat(item)
    else:
        yield keys


def holds_ref(node: Any) -> bool:
    """Whether a literal or a task of a graph holds an `ObjectRef`: as its value, or inlined among its arguments."""
    if isinstance(node, ObjectRef):
        return True
    if isinstance(node, _spec.DataNode):
        return isinstance(node.value, ObjectRef)
    if isinstance(node, _spec.Task):
        return any(map(holds_ref, node.args)) or any(map(holds_ref, node.kwargs.values()))
    if type(node) is dict:  # the inner graph of a fused task
        return any(map(holds_ref, node.values()))
    return False
