"""Values: what `ray_dask_get` returns, for every form in which a graph comes."""

import os
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from dask._task_spec import Alias, DataNode, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph

import eagleray
from eagleray.dask import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get, ray_dask_get_sync
from tests.tasks import add, inc, total, touch_and_fail

pytestmark = pytest.mark.usefixtures("shared")

GRAPH: dict[str, Any] = {"x": 1, "y": (inc, "x"), "al": "y", "z": (add, "y", (inc, "x"))}


@pytest.fixture(params=[ray_dask_get, ray_dask_get_sync], ids=["pool", "sync"])
def get(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("z", 4),
        ("x", 1),
        ("al", 2),
        (["z"], [4]),
        (["y", "z"], [2, 4]),
        (["al", "z"], [2, 4]),
        (["z", "z"], [4, 4]),
        (["x", "y"], (1, 2)),
        (["x"], (1,)),
        ([["z", "y"], "x"], ((4, 2), 1)),
        ([["z"], ["y"]], ((4,), (2,))),
        ([[]], ((),)),
        ([], []),
    ],
)
def test_shapes(get: Any, keys: Any, expected: Any) -> None:
    result = get(GRAPH, keys)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("key", [b"\xff\x00-1", (b"\xff", 1), ((b"\xff", "x"), 2), b"x-1"])
def test_keys_of_bytes_need_not_be_text(get: Any, key: Any) -> None:
    assert get({key: (inc, 1)}, key) == 2 == dask.get({key: (inc, 1)}, key)


def test_task_spec_graph(get: Any) -> None:
    graph = {
        "x": DataNode("x", 1),
        "y": Task("y", inc, TaskRef("x")),
        "z": Task("z", add, TaskRef("y"), y=Task(None, inc, TaskRef("x"))),
        "al": Alias("al", "z"),
    }
    assert get(graph, ["z", "al", "x"]) == (4, 4, 1)


def test_containers_of_keys(get: Any) -> None:
    graph = {"a": (inc, 1), "b": (inc, 2), "list": ["a", "b"], "sum": (total, ["a", "b", 10]), "dict": {"k": 1}}
    assert get(graph, ["list", "sum", "dict"]) == ([2, 3], 15, {"k": 1})


def test_high_level_graph(get: Any) -> None:
    graph = HighLevelGraph.from_collections("layer", {"a": (inc, 1)}, dependencies=[])
    assert get(graph, ["a"]) == [2]


def test_falsy_and_odd_results(get: Any) -> None:
    values = [None, False, 0, "", b"", [], (), {}, float("inf"), "a" * 200_000, b"b" * 200_000]
    graph = {("k", i): (list, [value]) for i, value in enumerate(values)}
    assert get(graph, list(graph)) == [[value] for value in values]


@pytest.mark.parametrize("key", ["nope", ("x", 0), ["x", "nope"], 3])
def test_missing_key(get: Any, key: Any) -> None:
    with pytest.raises(KeyError):
        get(GRAPH, key)


@pytest.mark.parametrize("graph", [3, None, [1], "graph"])
def test_what_is_no_graph(get: Any, graph: Any) -> None:
    with pytest.raises(TypeError, match="mapping"):
        get(graph, "x")


def test_unknown_option_names_the_known(get: Any) -> None:
    with pytest.raises(TypeError, match=r"num_wokers.*ray_callbacks.*num_workers"):
        get(GRAPH, "z", num_wokers=2)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("num_workers", 0, ValueError),
        ("num_workers", "2", TypeError),
        ("num_workers", True, TypeError),
        ("ray_persist", 1, TypeError),
        ("ray_callbacks", 3, TypeError),
        ("ray_callbacks", ["cb"], TypeError),
        ("cache", [1], TypeError),
        ("callbacks", ["cb"], TypeError),
    ],
)
def test_bad_options(get: Any, option: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="(?i)callback" if "callbacks" in option else option):
        get(GRAPH, "z", **{option: value})


def test_accepted_options(get: Any) -> None:
    assert get(GRAPH, "z", num_workers=1, pool=None, optimize_graph=False, chunksize=4) == 4


def test_options_of_dasks_optimizations_are_accepted() -> None:
    """`compute` passes what it is given on to the optimization and to the scheduler."""
    frame = dd.from_pandas(pd.DataFrame({"x": [1, 2]}), npartitions=2)
    assert list(frame.x.compute(scheduler=ray_dask_get, fuse=False)) == [1, 2]
    assert da.ones(4, chunks=2).sum().compute(scheduler=ray_dask_get, rename_fused_keys=False) == 4


def test_cache_stands_for_results(get: Any) -> None:
    assert get(GRAPH, ["z", "y"], cache={"y": 10, "other": 0}) == (12, 10)
    assert get({"b": (inc, "a")}, "b", cache={"a": 1}) == 2


def test_persist_returns_refs() -> None:
    result = ray_dask_get(GRAPH, [["z", "y"], "x"], ray_persist=True)
    assert isinstance(result, tuple)
    (z, y), x = result
    assert isinstance(z, eagleray.ObjectRef)
    assert eagleray.get([z, y]) == [4, 2]
    assert x == 1


def test_large_graph_in_one_go() -> None:
    leaves = {("leaf", i): (inc, i) for i in range(5000)}
    graph = {**leaves, "sum": (total, list(leaves))}
    assert ray_dask_get(graph, "sum") == sum(range(1, 5001))


def test_array() -> None:
    x = da.arange(10_000, chunks=1000) ** 2
    np.testing.assert_array_equal(x.compute(scheduler=ray_dask_get), np.arange(10_000) ** 2)
    assert (x + x.T).sum().compute(scheduler=ray_dask_get) == 2 * (np.arange(10_000) ** 2).sum()


def test_array_result_is_writable() -> None:
    x = da.ones(100_000, chunks=50_000).compute(scheduler=ray_dask_get)
    x[0] = 2
    assert x[0] == 2
    (y,) = dask.compute(da.zeros(1000, chunks=-1), scheduler=ray_dask_get)
    y += 1
    assert y.sum() == 1000


def test_dataframe() -> None:
    frame = pd.DataFrame({"k": np.arange(1000) % 7, "v": np.arange(1000.0), "s": [f"row {i}" for i in range(1000)]})
    lazy = dd.from_pandas(frame, npartitions=8)
    with enable_dask_on_ray():
        pd.testing.assert_series_equal(lazy.groupby("k").v.mean().compute(), frame.groupby("k").v.mean())
        merged = lazy.merge(lazy, on="v").compute()
        assert len(merged) == 1000
        by_v = lazy.sort_values("v", ascending=False).compute()
        assert by_v.v.tolist() == sorted(frame.v, reverse=True)
        assert lazy.s.str.len().sum().compute() == frame.s.str.len().sum()


def test_bag() -> None:
    bag = db.from_sequence(range(100), npartitions=7)
    assert bag.map(inc).filter(lambda x: x % 2).sum().compute(scheduler=ray_dask_get) == sum(range(1, 101, 2))
    words = db.from_sequence(["b a", "a", "c a b"]).str.split().flatten().frequencies()
    assert dict(words.compute(scheduler=ray_dask_get)) == {"a": 3, "b": 2, "c": 1}


def test_delayed() -> None:
    one = delayed(inc)(0)
    many = delayed(total)([delayed(add)(one, i) for i in range(10)])
    assert many.compute(scheduler=ray_dask_get) == 55
    assert dask.compute(one, [one, {"k": many}], scheduler="eagleray") == (1, [1, {"k": 55}])


def test_enable_and_disable() -> None:
    with dask.config.set({}):
        with enable_dask_on_ray():
            assert dask.config.get("scheduler") is ray_dask_get
            assert dask.config.get("dataframe.shuffle.method") == "tasks"
        assert dask.config.get("scheduler", None) is None
        enable_dask_on_ray()
        disable_dask_on_ray()
        assert dask.config.get("scheduler", None) is None
        assert dask.config.get("dataframe.shuffle.method", None) is None


def test_rerun_locally_raises_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with pytest.raises(ValueError, match="on purpose"):
        ray_dask_get({"a": (touch_and_fail, str(path))}, "a", rerun_exceptions_locally=True)
    first, second = map(int, path.read_text().split())
    assert first != second == os.getpid()
