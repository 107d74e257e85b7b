"""What Ray's tests of its Dask scheduler exercise: graphs in tasks on one CPU, persist, sorting with a progress bar."""

from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import eagleray
from eagleray import ObjectRef
from eagleray.dask import ProgressBarCallback, disable_dask_on_ray, enable_dask_on_ray, ray_dask_get


@pytest.fixture
def sentence() -> Any:
    """A delayed sum that asks, in its task, an object for a number and a remote function for a sentence."""

    @eagleray.remote
    def say(number: int) -> str:
        return f"It makes {number}."

    nothing = eagleray.put(0)

    def plus(x: int, y: int) -> str:
        return str(eagleray.get(say.remote(eagleray.get(nothing) + x + y)))

    return dask.delayed(plus)(30, 12)


@pytest.mark.usefixtures("one_cpu")
class TestNested:
    """A remote function in a task of a graph, on one CPU: whoever waits must give the CPU to what it waits for."""

    def test_scheduler_as_an_argument(self, sentence: Any) -> None:
        assert sentence.compute(scheduler=ray_dask_get) == "It makes 42."

    def test_scheduler_of_the_configuration(self, sentence: Any) -> None:
        enable_dask_on_ray()
        try:
            assert sentence.compute() == "It makes 42."
        finally:
            disable_dask_on_ray()
        with enable_dask_on_ray():
            assert sentence.compute() == "It makes 42."

    @pytest.mark.parametrize("bar", [False, True])
    def test_in_a_remote_function(self, sentence: Any, bar: bool) -> None:
        if bar:
            pytest.importorskip("tqdm")

        @eagleray.remote
        def outer() -> Any:
            with ProgressBarCallback():
                return sentence.compute(scheduler=ray_dask_get, _ray_enable_progress_bar=bar)

        assert eagleray.get(outer.remote()) == "It makes 42."

    def test_in_an_actor_beside_an_actor(self, sentence: Any) -> None:
        @eagleray.remote
        class Beside:
            def __init__(self) -> None:
                self.said: list[str] = []

            def note(self, text: str) -> int:
                self.said.append(text)
                return len(self.said)

        @eagleray.remote
        class Computes:
            def run(self) -> int:
                beside = eagleray.get_actor("beside")
                return int(eagleray.get(beside.note.remote(sentence.compute(scheduler=ray_dask_get))))

        beside = Beside.options(name="beside").remote()
        actor = Computes.remote()
        assert eagleray.get([actor.run.remote() for _ in range(3)]) == [1, 2, 3]
        assert eagleray.get(beside.note.remote("last")) == 4


@pytest.mark.usefixtures("one_cpu")
class TestPersist:
    def test_graph_holds_refs(self) -> None:
        kept = (da.ones(5) + 2).persist(scheduler=ray_dask_get)
        assert isinstance(next(iter(kept.dask.values())), ObjectRef)
        assert kept.sum().compute(scheduler=ray_dask_get) == 15

    def test_with_the_scheduler_enabled(self, enabled: None) -> None:
        (kept,) = dask.persist(da.arange(20, chunks=5) * 2)
        assert isinstance(next(iter(kept.dask.values())), ObjectRef)
        assert kept[-1].compute() == 38

    def test_of_what_uses_remote_functions(self, sentence: Any) -> None:
        (kept,) = dask.persist(sentence, scheduler=ray_dask_get)
        assert kept.compute(scheduler=ray_dask_get) == "It makes 42."


def people() -> dd.DataFrame:
    ages = np.random.default_rng(0).integers(0, 100, size=(100, 2))
    return dd.from_pandas(pd.DataFrame(ages, columns=["age", "grade"]), npartitions=10)


@pytest.mark.usefixtures("one_cpu")
def test_sort() -> None:
    """A shuffle in one stage, ten partitions to ten: row by row the same with and without the bar, twice."""
    pytest.importorskip("tqdm")
    by_age = people().set_index(["age"], shuffle_method="tasks", max_branch=10)
    with ProgressBarCallback():
        with_bar = by_age.compute(scheduler=ray_dask_get, _ray_enable_progress_bar=True)
    without = by_age.compute(scheduler=ray_dask_get)
    assert with_bar.equals(without)
    assert with_bar.index.is_monotonic_increasing
    expected = people().compute(scheduler="threads")
    assert sorted(zip(with_bar.index, with_bar.grade, strict=True)) == sorted(
        zip(expected.age, expected.grade, strict=True)
    )
