"""Results that cannot be pickled: tasks of the same worker may read them, others may not."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eagleray.dask import ray_dask_get
from tests.conftest import until

pytestmark = pytest.mark.usefixtures("session")


def pause_and_generate(n: int) -> Iterator[int]:
    time.sleep(0.002)  # so long that a run would end here
    return (i for i in range(n))


def generate_beside(mine: Path, other: Path) -> Iterator[int]:
    """Returns when its counterpart runs too, so in another worker."""
    mine.touch()
    until(other.exists)
    return (i for i in range(3))


def test_the_next_task_of_a_chain_reads_a_generator() -> None:
    graph: dict[object, object] = {}
    for i in range(4):
        graph["made", i] = (pause_and_generate, i)
        graph["sum", i] = (sum, ("made", i))
    for _ in range(10):
        assert ray_dask_get(graph, [("sum", i) for i in range(4)]) == [0, 0, 1, 3]


def test_two_generators_of_different_workers_fail_or_are_made_again_in_one(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    graph = {"a": (generate_beside, one, other), "b": (generate_beside, other, one), "c": (zip, "a", "b")}
    graph["d"] = (list, "c")
    try:
        result = ray_dask_get(graph, "d")
    except TypeError as error:
        if "generator" not in str(error):
            raise
    else:
        assert result == [(0, 0), (1, 1), (2, 2)]


def test_a_generator_is_not_a_result() -> None:
    for _ in range(3):
        with pytest.raises(TypeError, match="generator"):
            ray_dask_get({"a": (pause_and_generate, 1), "b": (sum, "a")}, ["a", "b"])
