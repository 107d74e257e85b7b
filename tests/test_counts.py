"""What a task costs, as counts: they do not depend on how fast the machine is."""

from typing import Any, Literal

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import eagleray
from eagleray import _engine
from eagleray.dask import ray_dask_get
from tests.conftest import children, counted
from tests.tasks import add, inc, sleep

pytestmark = pytest.mark.usefixtures("fresh")


def tree(leaves: int) -> tuple[dict[Any, Any], Any]:
    """Increments, and their sum by eights."""
    graph: dict[Any, Any] = {("inc", i): (inc, i) for i in range(leaves)}
    level, keys = 0, list(graph)
    while len(keys) > 1:
        level += 1
        parents = []
        for number, start in enumerate(range(0, len(keys), 8)):
            key = (f"sum-{level}", number)
            graph[key] = (sum, keys[start : start + 8])
            parents.append(key)
        keys = parents
    return graph, keys[0]


def chain(length: int) -> tuple[dict[Any, Any], Any]:
    return {("chain", i): (inc, ("chain", i - 1) if i else 0) for i in range(length)}, ("chain", length - 1)


def test_increments_and_tree() -> None:
    graph, key = tree(20_000)
    eagleray.init(num_cpus=2)
    ray_dask_get({"warm": (inc, 1)}, "warm")
    rise = counted(lambda: ray_dask_get(graph, key))
    assert rise["tasks"] == len(graph)
    assert rise["frames"] <= 0.05 * len(graph)
    assert rise["wakeups"] <= 0.02 * len(graph)


def test_chain() -> None:
    graph, key = chain(5_000)
    eagleray.init(num_cpus=2)
    ray_dask_get({"warm": (inc, 1)}, "warm")
    values: list[int] = []
    rise = counted(lambda: values.append(ray_dask_get(graph, key)))
    assert values == [5_000]
    assert rise["sealed"] == 0
    assert rise["frames"] <= 0.05 * len(graph)
    assert rise["wakeups"] <= 0.02 * len(graph)


def test_imbalance_is_recalled() -> None:
    """Tasks that look alike, of which some take long: what waits behind them goes to whoever is idle."""
    eagleray.init(num_cpus=2)
    ray_dask_get({("sleep", i): (sleep, 0.0) for i in range(2000)}, [("sleep", i) for i in range(2000)])
    first = _engine.native.order([[] for _ in range(300)]).index(0)
    # The other worker runs dry long before the first task ends, however short the runs are behind it.
    graph = {("sleep", i): (sleep, 1.5 if i == first else 0.002) for i in range(300)}
    rise = counted(lambda: ray_dask_get(graph, list(graph)))
    assert rise["recalls"] >= 1
    assert rise["moved"] >= 1
    assert rise["tasks"] == len(graph)


@pytest.fixture(params=["auto", "resident", "sealed"])
def results(request: pytest.FixtureRequest) -> str:
    kind: Literal["auto", "resident", "sealed"] = request.param
    _engine.start(2, results=kind)
    return kind


def test_same_answers_wherever_results_are(results: str) -> None:
    def mixed() -> None:
        x = da.arange(40_000, chunks=4_000).reshape(200, 200).rechunk((50, 50))
        y = (x + x.T).rechunk((100, 50)).sum(axis=0)
        np.testing.assert_array_equal(
            y.compute(scheduler=ray_dask_get), y.compute(scheduler="sync"),
        )  # fmt: skip
        frame = pd.DataFrame({"k": np.arange(500) % 5, "v": np.arange(500.0)})
        lazy = dd.from_pandas(frame, npartitions=5).groupby("k").v.agg(["mean", "sum"])
        pd.testing.assert_frame_equal(lazy.compute(scheduler=ray_dask_get), lazy.compute(scheduler="sync"))
        graph, key = tree(500)
        assert ray_dask_get(graph, key) == dask.get(graph, key)
        graph, key = chain(200)
        assert ray_dask_get(graph, key) == 200
        diamond = {"a": (inc, 1), "b": (inc, "a"), "c": (inc, "a"), "d": (add, "b", "c")}
        assert ray_dask_get(diamond, ["d", "a"]) == [6, 2]

    rise = counted(mixed)
    if results == "sealed":
        assert rise["sealed"] + rise["inline"] >= rise["tasks"]


def test_zero_worker_ends_graphs_without_processes() -> None:
    _engine.start(2, zero_worker=True)
    before = children()
    graph, key = tree(1_000)
    for _ in range(3):
        ray_dask_get(graph, key)
    assert _engine.native.workers() == []
    assert children() <= before
