"""The graphs that are timed. Each is built anew for each round, outside of the timed part."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask._task_spec import Task, TaskRef, convert_legacy_graph
from dask.core import flatten, toposort
from functions import add_all, increment

FAN_IN = 8
"""How many results one task of a tree sum adds up."""

BLOCK = 16
"""Elements in a block of the array workload: too few to take time."""

Graph = dict[Hashable, Any]


@dataclass(frozen=True)
class Case:
    """A graph as a scheduler's `get` is given it."""

    graph: Graph
    keys: Any
    functions: Callable[[], object] | None = None
    """Calls what the tasks call, one after the other, and nothing else: what is left when scheduling costs nothing."""

    @property
    def tasks(self) -> int:
        return len(self.graph)


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    build: Callable[[bool], Case]
    """Called with True for a graph about a tenth of the size."""


def add_blocks(*blocks: Any) -> float:
    # `float(block.sum())` of a block, or the sum another task of the tree has made already.
    return sum(block if isinstance(block, float) else float(block[0]) for block in blocks)


def _tree(graph: Graph, leaves: list[Hashable], add: Callable[..., Any]) -> Hashable:
    """Adds the tasks of a tree sum over `leaves` to the graph, and says which of them is its root."""
    depth = 0
    while len(leaves) > 1:
        parents: list[Hashable] = []
        for at in range(0, len(leaves), FAN_IN):
            key = ("sum", depth, at // FAN_IN)
            graph[key] = Task(key, add, *(TaskRef(leaf) for leaf in leaves[at : at + FAN_IN]))
            parents.append(key)
        leaves = parents
        depth += 1
    return leaves[0]


def increments(quick: bool) -> Case:
    count = 2_000 if quick else 20_000
    leaves: list[Hashable] = [("increment", i) for i in range(count)]
    graph: Graph = {key: Task(key, increment, i) for i, key in enumerate(leaves)}
    return Case(graph, _tree(graph, leaves, add_all))


def increments_as_tuples(quick: bool) -> Case:
    """The same in the form of old: `(function, argument, …)`, which each scheduler converts first."""
    count = 2_000 if quick else 20_000
    graph: Graph = {("increment", i): (increment, i) for i in range(count)}
    leaves: list[Hashable] = list(graph)
    depth = 0
    while len(leaves) > 1:
        groups = [leaves[at : at + FAN_IN] for at in range(0, len(leaves), FAN_IN)]
        parents: list[Hashable] = [("sum", depth, i) for i in range(len(groups))]
        graph.update((key, (add_all, *group)) for key, group in zip(parents, groups, strict=True))
        leaves = parents
        depth += 1
    return Case(graph, leaves[0])


def chain(quick: bool) -> Case:
    length = 500 if quick else 5_000
    graph: Graph = {("chain", 0): Task(("chain", 0), increment, 0)}
    for i in range(1, length):
        graph["chain", i] = Task(("chain", i), increment, TaskRef(("chain", i - 1)))
    return Case(graph, ("chain", length - 1))


def array(quick: bool) -> Case:
    """Tasks of two fused nodes, `ones` and `+ 1`, on chunks too small to matter, and a tree sum over them."""
    chunks = 1_000 if quick else 10_000
    (blocks,) = dask.optimize(da.ones(chunks * BLOCK, chunks=BLOCK) + 1)
    graph: Graph = dict(blocks.__dask_graph__())
    leaves: list[Hashable] = list(flatten(blocks.__dask_keys__()))
    # A fused task has its nodes in its first argument.
    nodes = graph[leaves[0]].args[0].values()
    add, make = (next(node.func for node in nodes if str(node.key).startswith(name)) for name in ("add", "ones"))
    root = _tree(graph, leaves, add_blocks)

    def functions() -> float:
        values: list[Any] = [add(make((BLOCK,)), 1) for _ in range(chunks)]
        while len(values) > 1:
            values = [add_blocks(*values[at : at + FAN_IN]) for at in range(0, len(values), FAN_IN)]
        return float(values[0])

    return Case(graph, root, functions)


def make_frame(seed: int) -> pd.DataFrame:
    values = np.random.default_rng(seed)
    return pd.DataFrame({"group": values.integers(0, 50, 1_000), "value": values.random(1_000)})


def dataframe(quick: bool) -> Case:
    frame = dd.from_map(make_frame, range(20 if quick else 200), meta=make_frame(0))
    return _case_of(frame.groupby("group").value.agg(["mean", "count"]))


def words_of(path: str) -> list[str]:
    return Path(path).read_text(errors="replace").split()


def count_then_name(item: tuple[str, int]) -> tuple[int, str]:
    return item[1], item[0]


def bag(quick: bool) -> Case:
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(str(path) for path in library.glob("*.py"))
    parts = db.from_sequence(sources, npartitions=16 if quick else 100)
    return _case_of(parts.map(words_of).flatten().frequencies(split_every=8).topk(10, key=count_then_name))


def _case_of(collection: Any) -> Case:
    """The graph of a collection. Its functions are long, so calling them through Dask's tasks is near enough."""
    graph, keys = materialised(collection)
    nodes = convert_legacy_graph(graph)
    order = toposort(nodes, dependencies={key: node.dependencies for key, node in nodes.items()})

    def functions() -> None:
        values: dict[Hashable, Any] = {}
        for key in order:
            values[key] = nodes[key]({dep: values[dep] for dep in nodes[key].dependencies})

    return Case(graph, keys, functions)


def materialised(collection: Any) -> tuple[Graph, list[Hashable]]:
    """The graph and keys that `collection.compute` would hand to its scheduler."""
    seen: list[tuple[Graph, list[Hashable]]] = []

    def look(expr: Any, keys: Any, **_: Any) -> list[None]:
        flat = list(flatten(keys))
        seen.append((dict(expr.__dask_graph__()), flat))
        return [None] * len(flat)

    dask.compute(collection, scheduler=look)
    return seen[0]


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("increments", "increments and a tree sum", increments),
        Workload("tuples", "the same as legacy tuples", increments_as_tuples),
        Workload("chain", "chain of increments", chain),
        Workload("array", "fused two-node array tasks and a tree sum", array),
        Workload("dataframe", "dataframe groupby: mean and count", dataframe),
        Workload("bag", "bag word count", bag),
    )
}
