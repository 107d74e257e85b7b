"""What `dask.order` makes of many graphs: the oracle of `test_order.py`.

Run as a script it prints, as JSON, the graphs and the peak of live results of each in Dask's order. `PYTHONHASHSEED` is the
caller's: Dask breaks some ties by the iteration order of sets of keys, which are strings here.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

Deps = list[list[int]]
"""Row i: the tasks that task i depends on."""


def peak(deps: Deps, priority: list[int]) -> int:
    """How many results are alive at once, at most, when tasks run one by one in this order.

    A result is alive from the moment it is computed until its last dependent has been computed, so a task's inputs and
    its result are alive together. What nothing depends on is dropped at once.
    """
    waiting = [0] * len(deps)
    for row in deps:
        for dep in row:
            waiting[dep] += 1
    alive = most = 0
    for task in sorted(range(len(deps)), key=priority.__getitem__):
        alive += 1
        most = max(most, alive)
        alive -= not waiting[task]
        for dep in deps[task]:
            waiting[dep] -= 1
            alive -= not waiting[dep]
    return most


# Random graphs: shapes that occur in practice, with random sizes and some noise. All have from 5 to 200 tasks.


def _layered(r: random.Random) -> Deps:
    deps: Deps = []
    previous: list[int] = []
    for _ in range(r.randint(2, 9)):
        layer = []
        for _ in range(r.randint(1, 24)):
            deps.append(r.sample(previous, min(len(previous), r.randint(1, 3))))
            layer.append(len(deps) - 1)
        previous = layer
    return deps


def _tree(r: random.Random) -> Deps:
    """Reductions of one or several groups of roots, with a chain in front of each."""
    deps: Deps = []
    fan_in, chain = r.randint(2, 5), r.randint(0, 2)
    for _ in range(r.randint(1, 3)):
        level = []
        for _ in range(r.randint(2, 24)):
            deps.append([])
            for _ in range(chain):
                deps.append([len(deps) - 1])
            level.append(len(deps) - 1)
        while len(level) > 1:
            groups = [level[i : i + fan_in] for i in range(0, len(level), fan_in)]
            level = []
            for group in groups:
                deps.append(group)
                level.append(len(deps) - 1)
    return deps


def _any(r: random.Random) -> Deps:
    reach = r.choice([5, 20, 200])
    most = r.randint(1, 4)
    return [r.sample(range(max(0, i - reach), i), min(i, reach, r.randint(0, most))) for i in range(r.randint(5, 200))]


def _map_reduce(r: random.Random) -> Deps:
    """Maps, each split for every reduction, as in a shuffle; sometimes something more after it."""
    maps, reductions = r.randint(2, 12), r.randint(2, 12)
    splits = r.random() < 0.6
    deps: Deps = [[] for _ in range(maps)]
    made = []
    for _ in range(reductions):
        sources = list(range(maps))
        if splits:
            for source in range(maps):
                deps.append([source])
                sources[source] = len(deps) - 1
        deps.append(sources)
        made.append(len(deps) - 1)
    if r.random() < 0.5:
        for i in made:
            deps.append([i])
    if r.random() < 0.3:
        deps.append(made)
    return deps


def _stencil(r: random.Random) -> Deps:
    width, steps = r.randint(2, 16), r.randint(1, 11)
    reach = r.randint(1, 2)
    deps: Deps = [[] for _ in range(width)]
    for step in range(steps):
        first = step * width
        for i in range(width):
            deps.append([first + j for j in range(max(0, i - reach), min(width, i + reach + 1))])
    if r.random() < 0.4:
        deps.append(list(range(steps * width, (steps + 1) * width)))
    return deps


def _shared_chains(r: random.Random) -> Deps:
    """Chains that start from a few shared roots and end apart or together."""
    roots = r.randint(1, 4)
    deps: Deps = [[] for _ in range(roots)]
    ends = []
    for _ in range(r.randint(3, 20)):
        deps.append(r.sample(range(roots), r.randint(1, min(2, roots))))
        for _ in range(r.randint(0, 6)):
            deps.append([len(deps) - 1])
            if r.random() < 0.1:
                deps[-1].append(r.randrange(roots))
        ends.append(len(deps) - 1)
    while len(ends) > 1 and r.random() < 0.7:
        group = [ends.pop() for _ in range(min(len(ends), r.randint(2, 4)))]
        deps.append(group)
        ends.append(len(deps) - 1)
    return deps


def _blocks(r: random.Random) -> Deps:
    """Products of blocks: task (i, j) from row i and column j, summed along some axis, sometimes minus the mean."""
    rows, columns = r.randint(2, 9), r.randint(2, 9)
    deps: Deps = [[] for _ in range(rows + columns)]
    grid = []
    for i in range(rows):
        for j in range(columns):
            deps.append([i, rows + j])
            grid.append(len(deps) - 1)
    sums = []
    for j in range(columns):
        deps.append(grid[j::columns])
        sums.append(len(deps) - 1)
    kind = r.randrange(3)
    if kind == 1:
        deps.append(sums)
    elif kind == 2:
        for place, block in enumerate(grid):
            deps.append([block, sums[place % columns]])
    return deps


def _scans(r: random.Random) -> Deps:
    """Cumulative sums: each result needs the one before."""
    deps: Deps = []
    for _ in range(r.randint(1, 3)):
        last = None
        for _ in range(r.randint(2, 20)):
            deps.append([])
            block = len(deps) - 1
            deps.append([block])
            if last is not None:
                deps.append([last, len(deps) - 1])
            last = len(deps) - 1
            if r.random() < 0.5:
                deps.append([block, last])
    return deps


def _windows(r: random.Random) -> Deps:
    """Each output needs a few neighbouring roots, through slices of them."""
    deps: Deps = [[] for _ in range(r.randint(4, 32))]
    roots, width = len(deps), r.randint(2, 4)
    for i in range(0, roots - width + 1, r.randint(1, width)):
        slices = []
        for j in range(i, i + width):
            deps.append([j])
            slices.append(len(deps) - 1)
        deps.append(slices)
    return deps


def _several(r: random.Random) -> Deps:
    """Two graphs of other shapes, and some tasks that need something of both."""
    deps = r.choice(_SHAPES[:-1])(r)
    first = len(deps)
    deps += [[first + j for j in row] for row in r.choice(_SHAPES[:-1])(r)]
    for _ in range(r.randint(0, 6)):
        deps.append([r.randrange(first), r.randrange(first, len(deps))])
    return deps


_SHAPES: list[Callable[[random.Random], Deps]] = [
    _layered,
    _tree,
    _any,
    _map_reduce,
    _stencil,
    _shared_chains,
    _blocks,
    _scans,
    _windows,
    _several,
]


def random_graph(seed: int) -> Deps:
    """Graph `seed`: shapes take turns. In one of three the ids say nothing about the order."""
    r = random.Random(seed)
    while True:
        deps = _SHAPES[seed % len(_SHAPES)](r)
        if 5 <= len(deps) <= 200:
            break
    deps = [sorted(set(row)) for row in deps]
    if (seed // len(_SHAPES)) % 3 == 2:
        name = r.sample(range(len(deps)), len(deps))
        shuffled: Deps = [[] for _ in deps]
        for i, row in enumerate(deps):
            shuffled[name[i]] = [name[j] for j in row]
        deps = shuffled
    return deps


# Real graphs, as Dask's collections make and optimise them.


def _real_collections() -> dict[str, Any]:
    import dask.array as da
    import dask.bag as db
    import dask.dataframe as dd
    import numpy as np
    import pandas as pd

    x = da.ones((400, 400), chunks=(40, 40))
    y = da.ones((400, 400), chunks=(50, 50))
    tall = da.ones((2000, 20), chunks=(100, 20))
    cube = da.ones((120, 40, 40), chunks=(10, 20, 20))
    groups = cube.reshape((12, 10, 40, 40))
    clim = groups.mean(axis=0)
    bag = db.from_sequence(range(400), npartitions=20)
    frame = pd.DataFrame({"a": np.arange(1000) % 17, "b": np.arange(1000.0), "c": np.arange(1000) % 5})
    df = dd.from_pandas(frame, npartitions=12)
    other = dd.from_pandas(frame[["a", "c"]], npartitions=7)
    return {
        "array sum": x.sum(),
        "array mean axis 0": x.mean(axis=0),
        "array matmul": x @ x,
        "array chain of matmul": x @ x.T @ x,
        "array rechunk": x.rechunk((100, 10)),
        "array rechunk and sum": (x.rechunk((400, 40)) + 1).sum(axis=0),
        "array overlap": y.map_overlap(lambda b: b, depth=1, boundary="none"),
        "array overlap twice, mean": y.map_overlap(lambda b: b, depth=1, boundary="reflect")
        .map_overlap(lambda b: b, depth=1, boundary="reflect")
        .mean(),
        "array svd": list(da.linalg.svd(tall)),
        "array qr": list(da.linalg.qr(tall)),
        "array svd compressed": list(da.linalg.svd_compressed(x, 5, n_power_iter=1, seed=1)),
        "array cumsum": x.cumsum(axis=0),
        "array cumsum blelloch": x.cumsum(axis=1, method="blelloch"),
        "array x + x.T": x + x.T,
        "array x + x.T sum": (x + x.T).sum(axis=1),
        "array anomaly": cube - cube.mean(axis=0),
        "array anomaly by group": groups - clim,
        "array anomaly squared, mean": ((cube - cube.mean(axis=0)) ** 2).mean(axis=0),
        "array standardised": (x - x.mean()) / x.std(),
        "array several outputs": [x.sum(), x.mean(axis=0), x.max(axis=1)],
        "array dot and mean": [(x * y.rechunk(x.chunks)).mean(axis=0), (x + 1).mean(axis=0)],
        "bag fold": bag.map(lambda i: i + 1).fold(lambda a, b: a + b),
        "bag groupby": bag.groupby(lambda i: i % 7, shuffle="tasks"),
        "bag frequencies": bag.map(lambda i: i % 3).frequencies(),
        "dataframe groupby": df.groupby("a").b.mean(),
        "dataframe groupby split": df.groupby("a").agg({"b": ["mean", "sum"]}, split_out=3),
        "dataframe merge": df.merge(other, on="a", shuffle_method="tasks"),
        "dataframe shuffle": df.shuffle("a", shuffle_method="tasks"),
        "dataframe shuffle in stages": df.shuffle("a", shuffle_method="tasks", max_branch=4),
        "dataframe set_index": df.set_index("b", shuffle_method="tasks"),
        "dataframe rolling": df.b.rolling(3).mean(),
    }


def _real_graphs() -> dict[str, tuple[Deps, list[int]]]:
    """The graphs as `eagleray` sees them, and Dask's order of their tasks.

    Data is no task and an alias is what it stands for, so neither makes a result; Dask orders the graph with them.
    """
    import dask
    from dask._task_spec import Alias, DataNode, convert_legacy_graph
    from dask.order import order

    graphs = {}
    for name, made in _real_collections().items():
        collections = made if isinstance(made, list) else [made]
        for kind in ("optimised", "as written"):
            fuse = kind == "optimised"
            expr = dask.base.collections_to_expr(collections, optimize_graph=fuse).optimize(fuse=fuse)
            dsk = convert_legacy_graph(dict(expr.__dask_graph__()))
            priority = order(dsk)
            graphs[f"{name}, {kind}"] = _reduced(dsk, priority, Alias, DataNode)
    return graphs


def _reduced(dsk: Mapping[Any, Any], priority: Mapping[Any, int], alias: type, data: type) -> tuple[Deps, list[int]]:
    def behind(key: Any) -> Any:
        while isinstance(dsk[key], alias):
            (key,) = dsk[key].dependencies
        return key

    needed = {behind(key) for key, node in dsk.items()} if dsk else set()
    tasks = [key for key, node in dsk.items() if key in needed and not isinstance(node, (alias, data))]
    number = {key: i for i, key in enumerate(tasks)}
    deps = [sorted({number[d] for d in map(behind, dsk[key].dependencies) if d in number}) for key in tasks]
    return deps, [priority[key] for key in tasks]


def oracle(graphs: int) -> dict[str, Any]:
    """Dask's peaks on random graphs `0..graphs` and on the real ones. The real ones come along."""
    from dask._task_spec import Task, TaskRef
    from dask.order import order

    def run(*_: Any) -> None: ...

    peaks = []
    for seed in range(graphs):
        deps = random_graph(seed)
        # Keys of both kinds that collections have.
        keys: list[Any] = [f"task-{i:03}" if seed // len(_SHAPES) % 2 else ("task", i) for i in range(len(deps))]
        dsk = {key: Task(key, run, *(TaskRef(keys[d]) for d in row)) for key, row in zip(keys, deps, strict=True)}
        priority = order(dsk)
        peaks.append(peak(deps, [priority[key] for key in keys]))
    real = {name: {"deps": deps, "peak": peak(deps, priority)} for name, (deps, priority) in _real_graphs().items()}
    return {"random": peaks, "real": real}


if __name__ == "__main__":
    json.dump(oracle(int(sys.argv[1])), sys.stdout)
