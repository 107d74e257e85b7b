"""The names of Dask-on-Ray: all there, and doing what they say."""

import concurrent.futures
import importlib
from collections import OrderedDict
from multiprocessing.pool import ThreadPool
from typing import Any

import dask
import pytest
from dask._task_spec import Task, TaskRef

import eagleray
import eagleray.dask
from eagleray import ObjectRef, _dask_versions
from eagleray.dask import (
    RayDaskCallback,
    dataframe_optimize,
    disable_dask_on_ray,
    enable_dask_on_ray,
    ray_dask_get,
    ray_dask_get_sync,
)
from eagleray.dask.scheduler import (
    TOP_LEVEL_RESOURCES_ERR_MSG,
    MultipleReturnFunc,
    dask_task_wrapper,
    multiple_return_get,
    ray_get_unpack,
)
from tests.tasks import add, inc, total

legacy = pytest.mark.skipif(not _dask_versions.LEGACY_DATAFRAMES, reason="dataframes of this Dask are expressions only")


@pytest.fixture(params=[ray_dask_get, ray_dask_get_sync], ids=["pool", "sync"])
def get(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "eagleray.dask",
            "ray_dask_get ray_dask_get_sync enable_dask_on_ray disable_dask_on_ray RayDaskCallback local_ray_callbacks "
            "unpack_ray_callbacks dataframe_optimize",
        ),
        (
            "eagleray.dask.callbacks",
            "RayDaskCallback RayCallback RayCallbacks add_ray_callbacks normalize_ray_callback CBS CB_FIELDS "
            "CBS_DONT_DROP local_ray_callbacks unpack_ray_callbacks",
        ),
        (
            "eagleray.dask.scheduler",
            "MultipleReturnFunc multiple_return_get dask_task_wrapper ray_get_unpack TOP_LEVEL_RESOURCES_ERR_MSG "
            "_build_key_scoped_ray_remote_args ray_dask_get ray_dask_get_sync enable_dask_on_ray disable_dask_on_ray",
        ),
        ("eagleray.dask.common", "unpack_object_refs"),
        ("eagleray.dask.optimizations", "dataframe_optimize"),
    ],
)
def test_where_names_are(module: str, names: str) -> None:
    found = importlib.import_module(module)
    assert not [name for name in names.split() if not hasattr(found, name)]


def split(x: int, parts: int) -> dict[int, int]:
    return {part: x + part for part in range(parts)}


def pair(x: int) -> tuple[int, int]:
    return x, x + 1


@pytest.mark.usefixtures("shared")
class TestMultipleReturns:
    GRAPH = {  # noqa: RUF012
        "parts": (MultipleReturnFunc(split, 3), 10, 3),
        "first": (multiple_return_get, "parts", 0),
        "last": (multiple_return_get, "parts", 2),
        "sum": (total, "parts"),
        "pair": Task("pair", MultipleReturnFunc(pair, 2), TaskRef("first")),
    }

    def test_consumers_and_keys_get_the_list(self, get: Any) -> None:
        assert get(self.GRAPH, ["first", "last", "sum", "parts", "pair"]) == [10, 12, 33, [10, 11, 12], [10, 11]]

    def test_postsubmit_gets_the_ref_of_the_list(self, get: Any) -> None:
        refs = {}
        with RayDaskCallback(ray_postsubmit=lambda task, key, deps, ref: refs.update({key: ref})):
            assert get(self.GRAPH, "last") == 12
        assert isinstance(refs["parts"], ObjectRef)
        assert eagleray.get(refs["parts"]) == [10, 11, 12]

    @pytest.mark.parametrize(
        ("graph", "error", "message"),
        [
            ((MultipleReturnFunc(pair, 3), 1), ValueError, "pair returned 2 values, not the 3"),
            ((MultipleReturnFunc(inc, 2), 1), TypeError, "inc returned int, not 2 values"),
            ((MultipleReturnFunc(dict, 1), [["a", 1]]), ValueError, r"dict returned a mapping with the keys \['a'\]"),
        ],
    )
    def test_another_number(self, get: Any, graph: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            get({"key": graph}, "key")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((3, 1), TypeError), ((pair, 0), ValueError), ((pair, "2"), TypeError), ((pair, True), TypeError)],
)
def test_multiple_returns_of_what_is_not(arguments: tuple[Any, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"func|num_returns"):
        MultipleReturnFunc(*arguments)


@pytest.mark.usefixtures("shared")
def test_ray_get_unpack() -> None:
    one, two = eagleray.put(1), eagleray.put(2)
    assert ray_get_unpack(one) == 1
    assert ray_get_unpack(3) == 3
    assert ray_get_unpack([one, two]) == [1, 2]
    assert ray_get_unpack((one, two)) == [1, 2]
    assert ray_get_unpack((one, [two, 3], {"k": one})) == (1, [2, 3], {"k": 1})
    assert ray_get_unpack(OrderedDict(a=[one])) == OrderedDict(a=[1])
    assert ray_get_unpack([]) == []


def test_dask_task_wrapper() -> None:
    calls: list[Any] = []

    def pretask(key: Any, values: tuple[Any, ...]) -> str:
        calls.append((key, values))
        return "state"

    task = Task("z", add, TaskRef("x"), TaskRef("y"))
    arguments = (task, lambda values: ({"x": values[0], "y": 5},), "z")
    posttasks = [lambda *given: calls.append(given), None]
    assert dask_task_wrapper(*arguments, [pretask, None], posttasks, 2) == 7
    assert calls == [("z", (2,)), ("z", 7, "state")]
    assert dask_task_wrapper(*arguments, None, None, 3) == 8
    assert dask_task_wrapper(*arguments, None, posttasks, 3) == 8
    assert calls[2:] == [("z", 8, None)]


class TestOptions:
    pytestmark = pytest.mark.usefixtures("shared")

    def test_resources(self, get: Any) -> None:
        with pytest.raises(ValueError, match="ray_remote_args") as caught:
            get({"a": (inc, 1)}, "a", resources={"a": 1})
        assert str(caught.value) == TOP_LEVEL_RESOURCES_ERR_MSG
        with pytest.raises(ValueError, match="ray_remote_args"):
            dask.delayed(inc)(1).compute(scheduler=get, resources={"a": 1})

    def test_pools(self, get: Any) -> None:
        with ThreadPool(1) as threads, concurrent.futures.ThreadPoolExecutor(1) as executor:
            for pool in (threads, executor, None):
                assert get({"a": (inc, 1)}, "a", pool=pool) == 2

    @pytest.mark.parametrize("pool", [3, "threads", object()])
    def test_what_is_no_pool(self, get: Any, pool: Any) -> None:
        with pytest.raises(TypeError, match=r"pool must be a thread pool or an executor, not \w+"):
            get({"a": (inc, 1)}, "a", pool=pool)

    @pytest.mark.parametrize("name", ["rerun_exceptions_locally"])
    def test_flags(self, get: Any, name: str) -> None:
        with pytest.raises(TypeError, match=f"{name} must be True, False or None, not str"):
            get({"a": (inc, 1)}, "a", **{name: "no"})

    def test_no_option_is_passed_over(self, get: Any) -> None:
        with pytest.raises(TypeError, match=r"'ray_callback'.*ray_callbacks"):
            dask.delayed(inc)(1).compute(scheduler=get, ray_callback=[])


class TestEnabled:
    @staticmethod
    def settings() -> dict[str, Any]:
        return {
            name: dask.config.get(name, "nothing")
            for name in ("scheduler", "dataframe.shuffle.method", "dataframe_optimize")
        }

    def test_block_gives_back_what_was_there(self) -> None:
        before = self.settings()
        with dask.config.set({"scheduler": "sync", "dataframe.shuffle.method": "disk"}):
            outside = self.settings()
            with enable_dask_on_ray():
                assert dask.config.get("scheduler") is ray_dask_get
                assert dask.config.get("dataframe.shuffle.method") == "tasks"
            assert self.settings() == outside
        assert self.settings() == before

    def test_call_holds_until_it_is_disabled(self) -> None:
        before = self.settings()
        enable_dask_on_ray(shuffle="disk")
        assert dask.config.get("dataframe.shuffle.method") == "disk"
        enable_dask_on_ray()
        assert dask.config.get("dataframe.shuffle.method") == "tasks"
        disable_dask_on_ray()
        assert self.settings() == before
        disable_dask_on_ray()
        assert self.settings() == before

    def test_disabled_for_a_block(self) -> None:
        before = self.settings()
        enable_dask_on_ray()
        enabled = self.settings()
        with disable_dask_on_ray():
            assert self.settings() == before
        assert self.settings() == enabled
        disable_dask_on_ray()
        assert self.settings() == before

    def test_disabled_inside_a_block(self) -> None:
        before = self.settings()
        with enable_dask_on_ray():
            enable_dask_on_ray()
            disable_dask_on_ray()
            assert self.settings() == before
        assert self.settings() == before

    def test_block_ends_what_was_enabled_in_it(self) -> None:
        before = self.settings()
        with enable_dask_on_ray():
            enable_dask_on_ray()
        assert self.settings() == before
        disable_dask_on_ray()
        assert self.settings() == before

    @pytest.mark.parametrize("shuffle", ["task", "p2p", True, 3])
    def test_wrong_shuffle(self, shuffle: Any) -> None:
        before = self.settings()
        with pytest.raises(ValueError, match=f"shuffle must be 'tasks', 'disk' or None, not {shuffle!r}"):
            enable_dask_on_ray(shuffle=shuffle)
        assert self.settings() == before

    def test_shuffle_is_of_tasks(self) -> None:
        pd = pytest.importorskip("pandas")
        import dask.dataframe as dd

        frame = dd.from_pandas(pd.DataFrame({"a": range(20)}), npartitions=4)
        with enable_dask_on_ray():
            graph = dict(frame.shuffle("a").optimize(fuse=False).__dask_graph__())
        assert not any("disk" in str(key) or "zpartd" in str(key) for key in graph)
        assert any("split" in str(key) for key in graph)


@pytest.mark.skipif(_dask_versions.LEGACY_DATAFRAMES, reason="this Dask has what is optimized")
def test_dataframe_optimize_is_of_the_past() -> None:
    graph = {"a": (inc, 1)}
    with pytest.warns(UserWarning, match=f"before 2025.1 only. This is Dask {dask.__version__}"):
        assert dataframe_optimize(graph, ["a"]) is graph


@legacy
@pytest.mark.usefixtures("shared")
class TestSimpleShuffle:
    @pytest.fixture
    def shuffled(self) -> Any:
        """A shuffle of a dataframe that is no expression."""
        import pandas as pd
        from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
        from dask.layers import SimpleShuffleLayer

        frames = {
            ("in", i): (pd.DataFrame, {"a": [0, 1, 2, 3], "from": [i] * 4, "_partitions": [0, 1, 2, 0]})
            for i in range(2)
        }
        meta = pd.DataFrame({"a": [0], "from": [0], "_partitions": [0]}).iloc[:0]
        layer = SimpleShuffleLayer("out", "_partitions", 3, 2, False, "in", meta)
        return HighLevelGraph({"in": MaterializedLayer(frames), "out": layer}, {"in": set(), "out": {"in"}})

    def test_layer_is_rewritten(self, shuffled: Any) -> None:
        from eagleray.dask.optimizations import MultipleReturnSimpleShuffleLayer, rewrite_simple_shuffle_layer

        keys = [("out", i) for i in range(3)]
        rewritten = rewrite_simple_shuffle_layer(shuffled, keys)
        assert type(rewritten.layers["out"]) is MultipleReturnSimpleShuffleLayer
        split = rewritten.layers["out"]["group-out", 0][0]
        assert (type(split), split.num_returns) == (MultipleReturnFunc, 3)
        for ours, theirs in zip(ray_dask_get(rewritten, keys), dask.get(shuffled, keys), strict=True):
            assert ours.equals(theirs)

    def test_part_of_it(self, shuffled: Any) -> None:
        optimized = dataframe_optimize(shuffled, [("out", 1)])
        (ours,) = ray_dask_get(optimized, [("out", 1)])
        (theirs,) = dask.get(shuffled, [("out", 1)])
        assert ours.equals(theirs)

    def test_what_is_put_in_its_place_is_used(self, shuffled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """As Ray's own tests of it do."""
        from eagleray.dask import optimizations

        rewritten = []

        def rewrite(dsk: Any, keys: Any) -> Any:
            rewritten.append(keys)
            return dsk

        monkeypatch.setattr(optimizations, "rewrite_simple_shuffle_layer", rewrite)
        dataframe_optimize(shuffled, [("out", 1)])
        assert rewritten == [[("out", 1)]]

    def test_is_used_while_enabled(self) -> None:
        with enable_dask_on_ray():
            assert dask.config.get("dataframe_optimize") is dataframe_optimize
        with enable_dask_on_ray(use_shuffle_optimization=False):
            assert dask.config.get("dataframe_optimize", None) is None


class TestVersionOfDask:
    def test_too_old(self) -> None:
        with pytest.raises(ImportError, match=r"needs Dask 2024.12.0 or newer, and this is Dask 2024.11.2"):
            _dask_versions.check("2024.11.2")

    @pytest.mark.parametrize("version", ["2024.12.0", "2026.8.0", "2026.8.0+3.gabcdef"])
    def test_new_enough(self, version: str) -> None:
        _dask_versions.check(version)
