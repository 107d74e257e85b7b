"""What `dask.annotate` and `ray_remote_args` say of tasks, and where it is heard."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from packaging.version import Version

from eagleray.dask import RayDaskCallback, graphs, ray_dask_get, ray_dask_get_sync
from eagleray.dask.annotations import key_scoped_remote_args, specs_of
from eagleray.dask.remote_args import UNLIMITED
from eagleray.exceptions import InfeasibleResourceError
from tests.annotation_tasks import attempts, fail_until
from tests.tasks import add, inc

EXPRESSIONS = Version(dask.__version__) >= Version("2025.4.0")
"""Whether a scheduler is given what was before optimization."""

fused = pytest.mark.skipif(not EXPRESSIONS, reason="this Dask fuses before it calls a scheduler")


def specs(dsk: Any, given: Any = None) -> Any:
    return specs_of(dsk, graphs.to_mapping(dsk), given)


class Seen:
    """A scheduler that notes what the tasks of a compute would be submitted with."""

    def __init__(self, **given: Any) -> None:
        self.given = given or None
        self.of: dict[Any, dict[str, Any]] = {}

    def __call__(self, dsk: Any, keys: Any, **_: Any) -> Any:
        mapping = graphs.to_mapping(dsk)
        pair = specs_of(dsk, mapping, self.given)
        every, by_key = pair or ([{}], {})
        self.none = pair is None
        self.of = {
            key: every[by_key.get(key, 0)] for key, node in mapping.items() if not graphs.is_literal(mapping, key)
        }
        assert by_key.keys() <= mapping.keys()
        return dask.get(mapping, keys)

    def layer(self, prefix: str) -> list[dict[str, Any]]:
        return [spec for key, spec in self.of.items() if dask.utils.key_split(key) == prefix]


def forgetful(dsk: Any, keys: Any, **_: Any) -> Any:
    """An optimization that leaves nothing of the graph."""
    return {"other": (inc, 1)} | dict.fromkeys(dask.core.flatten(keys), "other")


class TestWhereItIsHeard:
    def test_nothing_said(self) -> None:
        x = da.ones(4, chunks=2).sum()
        seen = Seen()
        x.compute(scheduler=seen)
        assert seen.none
        assert specs({"a": (inc, 1)}) is None
        assert specs({"a": (inc, 1)}, {}) is None

    def test_options_of_the_compute(self) -> None:
        assert specs({"a": (inc, 1)}, {"num_cpus": 2}) == ([{"resources": {"CPU": 2.0}}], {})

    @pytest.mark.parametrize("make", [lambda: da.ones(4, chunks=2).sum(), lambda: dask.delayed(inc)(1)])
    def test_around_compute(self, make: Callable[[], Any]) -> None:
        collection, seen = make(), Seen()
        with dask.annotate(retries=2, resources={"GPU": 1}):
            collection.compute(scheduler=seen)
        assert seen.of
        assert all(spec == {"retries": 2, "resources": {"GPU": 1.0}} for spec in seen.of.values())

    def test_layers_of_delayed(self) -> None:
        with dask.annotate(ray_remote_args={"num_cpus": 2}):
            one = dask.delayed(inc)(1)
        with dask.annotate(priority=3):
            two = dask.delayed(add)(one, one)
        seen = Seen()
        two.compute(scheduler=seen)
        assert seen.layer("inc") == [{"resources": {"CPU": 2.0}}]
        assert seen.layer("add") == [{"priority": 3}]

    def test_array_that_is_not_optimized(self) -> None:
        with dask.annotate(retries=1):
            x = da.ones(4, chunks=2) + 1
        seen = Seen()
        (x * 2).sum().compute(scheduler=seen, optimize_graph=False)
        assert seen.layer("add") == [{"retries": 1}] * 2
        assert seen.layer("mul") == [{}] * 2

    @fused
    @pytest.mark.parametrize("values", [{"retries": 2}, {"ray_remote_args": {"num_cpus": 2}}])
    def test_fused_array(self, values: dict[str, Any]) -> None:
        expected = {"retries": 2} if "retries" in values else {"resources": {"CPU": 2.0}}
        with dask.annotate(**values):
            x = da.ones(4, chunks=2) + 1
        seen = Seen()
        (x * 2).sum().compute(scheduler=seen)
        heard = [spec for spec in seen.of.values() if spec]
        assert heard == [expected] * 2, "one for each block, and not for the sum of both"

    @fused
    def test_fused_bag(self) -> None:
        with dask.annotate(retries=2):
            bag = db.from_sequence(range(4), npartitions=2).map(inc)
        seen = Seen()
        assert bag.map(inc).sum().compute(scheduler=seen) == 14
        assert [spec for spec in seen.of.values() if spec] == [{"retries": 2}] * 2

    @fused
    def test_fused_task_has_what_all_its_parts_need(self) -> None:
        with dask.annotate(ray_remote_args={"num_cpus": 2, "resources": {"a": 1}, "max_retries": 5}, retries=1):
            x = da.ones(2, chunks=2) + 1
        with dask.annotate(ray_remote_args={"num_cpus": 1, "memory": 10, "resources": {"a": 2}}, retries=4):
            x = x * 3
        seen = Seen()
        x.compute(scheduler=seen)
        needs = {"resources": {"CPU": 2.0, "memory": 10.0, "a": 2.0}, "max_retries": 5, "retries": 4}
        assert needs in seen.of.values()

    @fused
    def test_several_collections(self) -> None:
        with dask.annotate(retries=7):
            one = dask.delayed(inc)(1)
        x = da.ones(4, chunks=2)
        seen = Seen()
        dask.compute(one, x.sum(), scheduler=seen)
        assert [key for key, spec in seen.of.items() if spec] == [one.key]
        assert seen.of[one.key] == {"retries": 7}

    @fused
    def test_what_optimization_drops_is_warned_about(self) -> None:
        with dask.annotate(retries=7):
            x = da.ones(4, chunks=2) + 1

        with dask.config.set(array_optimize=forgetful), pytest.warns(UserWarning, match=r"no trace.*'add-.*"):
            x.compute(scheduler=Seen())

    @fused
    def test_what_is_culled_is_not_warned_about(self) -> None:
        with dask.annotate(retries=7):
            x = da.ones(4, chunks=2)
        y = da.zeros(4, chunks=2)
        seen = Seen()
        with dask.config.set(array_optimize=forgetful):
            da.concatenate([x, y])[5:].compute(scheduler=seen)
        assert seen.none

    def test_high_level_graph(self) -> None:
        layers = {
            "low": MaterializedLayer({"a": (inc, 1)}, annotations={"retries": 1}),
            "high": MaterializedLayer({"b": (inc, "a"), "c": (inc, "a")}, annotations={"priority": ord}),
        }
        graph = HighLevelGraph(layers, {"low": set(), "high": {"low"}})
        assert specs(graph) == ([{}, {"retries": 1}, {"priority": 98}, {"priority": 99}], {"a": 1, "b": 2, "c": 3})

    def test_keys_with_equal_needs_share_them(self) -> None:
        layers = {
            f"layer {i}": MaterializedLayer({(i, j): (inc, 1) for j in range(100)}, annotations={"retries": i % 2 + 1})
            for i in range(4)
        }
        every, by_key = specs(HighLevelGraph(layers, {name: set() for name in layers}))
        assert every == [{}, {"retries": 1}, {"retries": 2}]
        assert by_key == {(i, j): i % 2 + 1 for i in range(4) for j in range(100)}


class TestPrecedence:
    def layered(self, **values: Any) -> HighLevelGraph:
        return HighLevelGraph({"l": MaterializedLayer({"a": (inc, 1)}, annotations=values)}, {"l": set()})

    def test_option_by_option(self) -> None:
        graph = self.layered(ray_remote_args={"num_cpus": 4})
        with dask.annotate(ray_remote_args={"num_cpus": 3, "num_gpus": 1}):
            every, by_key = specs(graph, {"num_cpus": 2, "num_gpus": 2, "max_retries": 1})
        assert every[0] == {"resources": {"CPU": 3.0, "GPU": 1.0}, "max_retries": 1}
        assert every[by_key["a"]] == {"resources": {"CPU": 4.0, "GPU": 1.0}, "max_retries": 1}

    def test_resources_as_a_whole(self) -> None:
        graph = self.layered(ray_remote_args={"resources": {"a": 1}})
        every, by_key = specs(graph, {"resources": {"a": 5, "b": 5}})
        assert every[by_key["a"]] == {"resources": {"a": 1.0}}

    def test_names_of_dask_go_first(self) -> None:
        graph = self.layered(
            retries=1, resources={"GPU": 2}, ray_remote_args={"num_gpus": 1, "num_cpus": 1, "retry_exceptions": True}
        )
        every, by_key = specs(graph)
        assert every[by_key["a"]] == {"retries": 1, "resources": {"GPU": 2.0, "CPU": 1.0}}

    def test_layer_before_compute(self) -> None:
        with dask.annotate(retries=5, priority=1):
            every, by_key = specs(self.layered(retries=0))
        assert every == [{"retries": 5, "priority": 1}, {"retries": 0, "priority": 1}]
        assert by_key == {"a": 1}

    def test_key_scoped_remote_args(self) -> None:
        layers = {
            "l": MaterializedLayer({"a": (inc, 1)}, annotations={"ray_remote_args": {"num_cpus": 4}}),
            "m": MaterializedLayer({"b": (inc, 1)}),
        }
        graph = HighLevelGraph(layers, {"l": set(), "m": set()})
        given = {"num_cpus": 1, "num_gpus": 1}
        scoped = key_scoped_remote_args(graph, {"ray_remote_args": {"num_cpus": 2}}, given)
        assert scoped == {"a": {"num_cpus": 4, "num_gpus": 1}, "b": {"num_cpus": 2, "num_gpus": 1}}
        assert key_scoped_remote_args({"c": (inc, 1)}, {}, given) == {"c": given}


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "spec"),
        [
            ({"num_cpus": 0.5, "num_gpus": 1, "memory": 100}, {"resources": {"CPU": 0.5, "GPU": 1.0, "memory": 100.0}}),
            ({"num_cpus": 0, "resources": {"disk": 1}}, {"resources": {"CPU": 0.0, "disk": 1.0}}),
            ({"max_retries": 0}, {"max_retries": 0}),
            ({"max_retries": -1}, {"max_retries": UNLIMITED}),
            ({"retry_exceptions": True}, {"retries": 3}),
            ({"retry_exceptions": True, "max_retries": 5}, {"retries": 5, "max_retries": 5}),
            ({"retry_exceptions": False, "max_retries": 5}, {"max_retries": 5}),
            ({"num_cpus": None, "runtime_env": None, "runtime_env ": None}, ValueError),
            ({"num_cpus": None, "max_calls": None, "runtime_env": {}}, {}),
        ],
    )
    def test_meaning(self, options: dict[str, Any], spec: Any) -> None:
        if isinstance(spec, type):
            with pytest.raises(spec):
                specs({"a": (inc, 1)}, options)
        else:
            assert specs({"a": (inc, 1)}, options) == (([spec], {}) if spec else None)

    def test_listed_exceptions(self) -> None:
        ((spec,), _) = specs({"a": (inc, 1)}, {"retry_exceptions": [ValueError, OSError], "max_retries": 2})
        assert pickle.loads(spec.pop("retry_exceptions")) == (ValueError, OSError)
        assert spec == {"retries": 2, "max_retries": 2}

    @pytest.fixture(params=[ray_dask_get, ray_dask_get_sync, None], ids=["pool", "sync", "annotated"])
    def say(self, request: pytest.FixtureRequest) -> Callable[[Any], Any]:
        """Gives options to a scheduler, or annotates a layer with them."""
        if request.param:
            return lambda options: request.param({"a": (inc, 1)}, "a", ray_remote_args=options)

        def annotated(options: Any) -> Any:
            layer = MaterializedLayer({"a": (inc, 1)}, annotations={"ray_remote_args": options})
            return specs(HighLevelGraph({"l": layer}, {"l": set()}))

        return annotated

    @pytest.mark.usefixtures("shared")
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"num_cpu": 1}, ValueError, r"unknown option 'num_cpu'.*num_cpus"),
            ({"num_returns": 2}, TypeError, "multiple values for the option 'num_returns'"),
            ({"name": "x"}, TypeError, "multiple values for the option 'name'"),
            ({"runtime_env": {"pip": ["x"]}}, ValueError, "'runtime_env'.*this process"),
            ({"num_cpus": "2"}, TypeError, r"ray_remote_args.*\['num_cpus'\] must be a number, not str"),
            ({"num_cpus": True}, TypeError, "not bool"),
            ({"num_gpus": -1}, ValueError, "0 or more"),
            ({"num_gpus": 1.5}, ValueError, "1.5 GPUs"),
            ({"memory": float("nan")}, ValueError, "0 or more"),
            ({"memory": float("inf")}, ValueError, "0 or more"),
            ({"resources": 3}, TypeError, r"\['resources'\] must be a mapping of names to amounts, not int"),
            ({"resources": {1: 1}}, TypeError, "must be strings, not int"),
            ({"resources": {"a": "1"}}, TypeError, r"\['a'\] must be a number"),
            ({"resources": {"CPU": 1}}, ValueError, "'num_cpus' instead"),
            ({"max_retries": 1.5}, TypeError, "whole number, not float"),
            ({"max_retries": -2}, ValueError, "0 or more, not -2"),
            ({"retry_exceptions": "all"}, TypeError, "list of exception classes, not str"),
            ({"retry_exceptions": [ValueError("x")]}, TypeError, "exception classes"),
            ([("num_cpus", 1)], TypeError, "ray_remote_args.*mapping.*not list"),
        ],
    )
    def test_mistakes(self, say: Callable[[Any], Any], options: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            say(options)

    @pytest.mark.parametrize(
        ("values", "error", "message"),
        [
            ({"retries": "2"}, TypeError, r"retries of \('x', 0\) must be a whole number, not str"),
            ({"retries": -1}, ValueError, r"retries of \('x', 0\)"),
            ({"priority": 1.5}, TypeError, r"priority of \('x', 0\)"),
            ({"resources": ["GPU"]}, TypeError, r"resources of \('x', 0\)"),
            ({"ray_remote_args": {"num_cpus": ""}}, TypeError, r"ray_remote_args of \('x', 0\)\['num_cpus'\]"),
        ],
    )
    def test_mistakes_name_the_key(self, values: Any, error: type[Exception], message: str) -> None:
        layer = MaterializedLayer({("x", 0): (inc, 1)}, annotations=values)
        with pytest.raises(error, match=message):
            specs(HighLevelGraph({"l": layer}, {"l": set()}))

    @pytest.mark.parametrize(
        ("values", "error"),
        [
            ({"retries": -1}, ValueError),
            ({"priority": 1.5}, TypeError),
            ({"ray_remote_args": {"num_cpus": ""}}, TypeError),
        ],
    )
    def test_mistakes_around_compute(self, values: Any, error: type[Exception]) -> None:
        with dask.annotate(**values), pytest.raises(error, match="around compute"):
            specs({"a": (inc, 1)})

    def test_one_warning_of_what_has_no_effect(self) -> None:
        graph = TestPrecedence().layered(workers=["a"], ray_remote_args={"scheduling_strategy": "SPREAD"})
        with (
            dask.annotate(allow_other_workers=True),
            pytest.warns(UserWarning, match="allow_other_workers, max_calls, scheduling_strategy, workers") as caught,
        ):
            assert specs(graph, {"max_calls": 1}) is None
        assert len(caught) == 1
        assert caught[0].filename == __file__

    def test_annotations_of_others_are_left_alone(self) -> None:
        with dask.annotate(mine=object()):
            assert specs({"a": (inc, 1)}) is None


@pytest.mark.usefixtures("shared")
class TestWhatItDoes:
    """End to end, once for each annotation; `test_annotations_core.py` has the corners."""

    def test_retries_around_compute(self, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")
        flaky = dask.delayed(fail_until)(path, 3)
        with pytest.raises(ValueError, match="attempt 1"):
            flaky.compute(scheduler=ray_dask_get)
        with dask.annotate(retries=1):
            assert flaky.compute(scheduler=ray_dask_get) == 3

    def test_retries_of_a_layer(self, tmp_path: Path) -> None:
        with dask.annotate(retries=2):
            flaky = dask.delayed(fail_until)(str(tmp_path / "runs"), 3)
        assert dask.delayed(inc)(flaky).compute(scheduler=ray_dask_get) == 4

    @fused
    def test_retries_of_a_fused_array(self, tmp_path: Path) -> None:
        def block(x: Any) -> Any:
            return x + fail_until(str(tmp_path / "runs"), 2)

        with dask.annotate(retries=1):
            x = da.ones(2, chunks=2).map_blocks(block, dtype=float, meta=np.ones(0))
        assert (x + 1).sum().compute(scheduler=ray_dask_get) == 8

    @pytest.mark.parametrize("wanted", [True, [OSError, ValueError]])
    def test_retry_exceptions(self, tmp_path: Path, wanted: Any) -> None:
        flaky = dask.delayed(fail_until)(str(tmp_path / "runs"), 3)
        options = {"max_retries": 2, "retry_exceptions": wanted}
        assert flaky.compute(scheduler=ray_dask_get, ray_remote_args=options) == 3

    def test_other_exceptions_are_not_retried(self, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")
        flaky = dask.delayed(fail_until)(path, 3)
        with pytest.raises(ValueError, match="attempt 1"):
            flaky.compute(scheduler=ray_dask_get, ray_remote_args={"retry_exceptions": [OSError]})
        assert attempts(path) == 1

    def test_step_by_step(self, tmp_path: Path) -> None:
        with dask.annotate(retries=2):
            flaky = dask.delayed(fail_until)(str(tmp_path / "runs"), 3)
        with RayDaskCallback(ray_presubmit=lambda task, key, deps: None):
            assert flaky.compute(scheduler=ray_dask_get) == 3

    def test_what_can_never_be_had(self) -> None:
        with dask.annotate(resources={"unobtainium": 1}):
            one = dask.delayed(inc)(1)
        with pytest.raises(InfeasibleResourceError, match="unobtainium"):
            one.compute(scheduler=ray_dask_get)

    def test_persist(self, tmp_path: Path) -> None:
        with dask.annotate(retries=2):
            flaky = dask.delayed(fail_until)(str(tmp_path / "runs"), 3)
        assert flaky.persist(scheduler=ray_dask_get).compute(scheduler=ray_dask_get) == 3


@pytest.fixture(autouse=True)
def no_annotations_are_left() -> Iterator[None]:
    yield
    assert not dask.get_annotations()
