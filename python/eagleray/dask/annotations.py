"""What tasks need and how they fail: `dask.annotate` and `ray_remote_args`, read, checked and brought to keys.

| annotation | what it says |
|---|---|
| `retries` | how often a task runs again after it raised |
| `priority` | tasks with a higher one run first |
| `resources` | what a task takes of each resource while it runs: `CPU`, `GPU`, `memory` (bytes), names of your own |
| `ray_remote_args` | the same and more in Ray's words; see `remote_args` |
| `workers`, `allow_other_workers` | ignored, with a warning |

A layer's annotations go before those around `compute`, and these before `ray_remote_args` given to `compute`, name by
name; of `ray_remote_args` option by option. `retries` and `resources` go before the same in `ray_remote_args`. As in
Dask, a value may be a function of the key.

Dask forgets annotations when it fuses tasks. With Dask 2025.4 or newer a fused task gets those of all tasks in it: the
largest of each number. An older Dask fuses before it calls a scheduler, so there only annotations around `compute` can
be seen, and those of what is not fused.
"""

from __future__ import annotations

import numbers
import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from typing import Any

import dask
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, Layer
from dask.utils import ensure_dict

from eagleray import _dask_versions, _options, _task_spec
from eagleray.dask import graphs
from eagleray.dask.graphs import Key
from eagleray.dask.remote_args import Spec, priority, remote_args

__all__ = ["Annotations", "key_scoped_remote_args", "specs_of"]

Annotations = tuple[list[Spec], dict[Key, int]]
"""What tasks need, each combination once; and which of them each key has. Keys that are not there have the first."""

Values = Mapping[str, Any]
"""Annotations by name."""

Layered = tuple[HighLevelGraph, Callable[[], Any]]
"""A graph, and what gives the keys that are wanted of it."""

_IGNORED = ("workers", "allow_other_workers")


def specs_of(dsk: Any, mapping: Mapping[Key, Any], given: Values | None) -> Annotations | None:
    """What the tasks of a graph need, or None if nobody said anything.

    Args:
        dsk: The graph as it was given to the scheduler.
        mapping: The same as a mapping.
        given: The `ray_remote_args` of the compute.

    Raises:
        TypeError, ValueError: Something is not what it should be; the message says what and of which key.
    """
    around: Values = dask.get_annotations()
    layered = _layered(dsk)
    if not (layered or around or given):
        return None
    specs = _Specs(given or {}, around)
    if any(layer.annotations != around for graph, _ in layered for layer in _annotated(graph).values()):
        values = _of_graph(dsk) if isinstance(dsk, HighLevelGraph) else _of_expression(dsk)
        if not isinstance(dsk, HighLevelGraph):
            values.update(_recovered(layered, mapping))
        for key, own in values.items():
            if key in mapping:
                specs.take(key, own)
    specs.warn()
    return specs.result()


def key_scoped_remote_args(dsk: Any, annotations: Values, ray_remote_args: Values) -> dict[Key, dict[str, Any]]:
    """The `ray_remote_args` of each key of a graph.

    Those in the annotations of its layer, else those in `annotations`, over those given. Of two layers that have a key,
    the earlier one counts. A helper that Dask-on-Ray has; `specs_of` sees more.
    """
    if not isinstance(dsk, HighLevelGraph):
        dsk = HighLevelGraph.from_collections(str(id(dsk)), ensure_dict(dsk), dependencies=())
    scoped: dict[Key, dict[str, Any]] = {}
    for name in dsk._toposort_layers():
        layer = dsk.layers[name]
        own = {**annotations, **(layer.annotations or {})}
        for key in layer.get_output_keys():
            scoped.setdefault(key, {**ray_remote_args, **own.get("ray_remote_args", {})})
    return scoped


class _Specs:
    """Collects the combinations of options, each once."""

    def __init__(self, given: Values, around: Values) -> None:
        self._around = around
        self._ignored: set[str] = set()
        self._specs: list[Spec] = []
        self._number: dict[object, int] = {}
        self._by_key: dict[Key, int] = {}
        self._known: dict[tuple[tuple[str, int], ...], tuple[int, Values]] = {}
        self._args = self._checked(given, "ray_remote_args")
        self._args = {**self._args, **self._args_of(around, "around compute")}
        self._intern(self._spec(around, self._args, "around compute"))

    def take(self, key: Key, values: Values) -> None:
        """Notes the annotations of a key."""
        values = _at(values, key)
        # Many keys share one value. It is kept, so that no other gets its address.
        identity = tuple((name, id(value)) for name, value in values.items())
        known = self._known.get(identity)
        if known is None:
            where = f"of {key!r}"
            args = {**self._args, **self._args_of(values, where)}
            number = self._intern(self._spec({**self._around, **values}, args, where))
            known = self._known[identity] = (number, values)
        if known[0]:
            self._by_key[key] = known[0]

    def warn(self) -> None:
        """Names what has no effect."""
        if self._ignored:
            warnings.warn(
                f"These options and annotations have no effect in eagleray: {', '.join(sorted(self._ignored))}. "
                "A task runs on any worker, once there is enough of the resources that it needs.",
                stacklevel=_outside(),
            )

    def result(self) -> Annotations | None:
        return (self._specs, self._by_key) if self._by_key or self._specs[0] else None

    def _checked(self, options: object, what: str) -> Values:
        remote_args(options, what, self._ignored)
        return options  # type: ignore[return-value]  # or it would have raised

    def _args_of(self, values: Values, where: str) -> Values:
        options = values.get("ray_remote_args")
        return {} if options is None else self._checked(options, f"ray_remote_args {where}")

    def _spec(self, values: Values, args: Values, where: str) -> Spec:
        """What annotations and options say together."""
        self._ignored.update(name for name in _IGNORED if values.get(name) is not None)
        spec = remote_args(args, f"ray_remote_args {where}", self._ignored)
        if values.get("resources") is not None:
            spec["resources"] = {
                **spec.get("resources", {}),
                **_options.amounts(values["resources"], f"resources {where}"),
            }
        if values.get("retries") is not None:
            spec["retries"] = _options.count(values["retries"], f"retries {where}")
        if values.get("priority") is not None:
            spec["priority"] = priority(values["priority"], f"priority {where}")
        return spec

    def _intern(self, spec: Spec) -> int:
        frozen = tuple(
            (name, tuple(sorted(value.items())) if isinstance(value, dict) else value)
            for name, value in sorted(spec.items())
        )
        number = self._number.setdefault(frozen, len(self._specs))
        if number == len(self._specs):
            self._specs.append(spec)
        return number


def _annotated(graph: HighLevelGraph) -> dict[str, Layer]:
    return {name: layer for name, layer in graph.layers.items() if layer.annotations}


def _keys(layer: Layer) -> Collection[Key]:
    """The keys of a layer, without making its tasks for them."""
    keys: Collection[Key] = layer if layer.is_materialized() else layer.get_output_keys()
    return keys


def _layered(dsk: Any) -> list[Layered]:
    """The graphs that have annotated layers, as they were before optimization."""
    if isinstance(dsk, dict):
        return []
    found = [(dsk, list)] if isinstance(dsk, HighLevelGraph) else _dask_versions.layered_graphs(dsk)
    return [pair for pair in found if any(layer.annotations for layer in pair[0].layers.values())]


def _of_graph(graph: HighLevelGraph) -> dict[Key, Values]:
    found: dict[Key, Values] = {}
    for layer in _annotated(graph).values():
        for key in _keys(layer):
            found.setdefault(key, layer.annotations)  # of two layers that have a key, the earlier one counts
    return found


def _of_expression(expr: Any) -> dict[Key, Values]:
    """What an expression says of the keys that it has after optimization."""
    found: dict[Key, dict[str, Any]] = {}
    for name, by_key in expr.__dask_annotations__().items():
        for key, value in by_key.items():
            if _dask_versions.is_annotation(value):
                found.setdefault(key, {})[name] = value
    return dict(found)


def _recovered(layered: list[Layered], mapping: Mapping[Key, Any]) -> dict[Key, Values]:
    """The annotations of the tasks that each task was made of."""
    layer_of: dict[Key, str] = {}
    annotations_of: dict[str, Values] = {}
    for graph, _ in layered:
        for name, layer in _annotated(graph).items():
            annotations_of[name] = layer.annotations
            layer_of.update(dict.fromkeys((name, *_keys(layer)), name))
    found: dict[Key, Values] = {}
    together: dict[tuple[str, ...], Values] = {}
    seen: set[str] = set()
    for key, node in mapping.items():
        parts = {layer_of[part]: part for part in (*_task_spec.names_inside(node), key) if part in layer_of}
        if not parts:
            continue
        names = tuple(parts)
        seen.update(names)
        values = together.get(names)
        if values is None:
            each = [_at(annotations_of[name], part) for name, part in parts.items()]
            values = _all_of(each)
            if all(one is annotations_of[name] for one, name in zip(each, names, strict=True)):
                together[names] = values
        found[key] = values
    if lost := _needed(layered, layer_of, annotations_of.keys() - seen):
        warnings.warn(
            f"Dask's optimization left no trace of the layers {', '.join(map(repr, lost))}, so their annotations are "
            "ignored. compute(optimize_graph=False) keeps them.",
            stacklevel=_outside(),
        )
    return found


def _needed(layered: list[Layered], layer_of: Mapping[Key, str], layers: Collection[str]) -> list[str]:
    """Those of the layers that have tasks which the wanted keys need."""
    needed = set()
    for graph, keys in layered if layers else ():
        nodes = graphs.to_nodes(ensure_dict(graph.cull(set(flatten(keys())))))
        needed |= {layer_of[key] for key in nodes if key in layer_of and not graphs.is_literal(nodes, key)}
    return sorted(needed & set(layers))


def _at(values: Values, key: Key) -> Values:
    """Annotations at a key: what is a function of the key, called."""
    if not any(map(callable, values.values())):
        return values
    return {name: value(key) if callable(value) else value for name, value in values.items()}


def _all_of(each: Sequence[Values]) -> Values:
    """The annotations of a task that several were fused into."""
    if len(each) == 1:
        return each[0]
    both: Values = reduce(_both, each)
    return both


def _both(a: Any, b: Any) -> Any:
    """What satisfies two annotations. As Dask does where it keeps them: the larger number, name by name."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return {name: _both(a[name], b[name]) if name in a and name in b else {**a, **b}[name] for name in {**a, **b}}
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return [*a, *b]
    if isinstance(a, numbers.Real) and isinstance(b, numbers.Real):
        return max(a, b)
    return b if a in (None, False) else a


def _outside() -> int:
    """The `stacklevel` of the first caller that belongs neither to eagleray nor to Dask."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("eagleray", "dask"):
        level, frame = level + 1, frame.f_back
    return level
