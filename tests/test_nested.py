"""Graphs computed inside tasks."""

from pathlib import Path

import pytest

from eagleray import _engine
from eagleray.dask import ray_dask_get
from tests.tasks import begin_and_look, deeper, nested, total


@pytest.mark.usefixtures("session")
def test_thousand_tasks_that_each_compute_a_graph() -> None:
    graph = {("outer", i): (nested, i) for i in range(1000)}
    assert ray_dask_get(graph, list(graph)) == [10 + i for i in range(1000)]
    # Slots times depth: two levels run on two processors, one more may be starting.
    assert len([worker for worker in _engine.native.workers() if worker["state"] != "ended"]) <= 6


@pytest.mark.usefixtures("session")
def test_chain_deeper_than_the_processors() -> None:
    assert ray_dask_get({"a": (deeper, 5)}, "a") == 5


@pytest.mark.usefixtures("session")
def test_blocked_tasks_beside_others() -> None:
    graph = {("outer", i): (nested, i) for i in range(20)}
    graph["sum"] = (total, list(graph))  # type: ignore[assignment]
    assert ray_dask_get(graph, "sum") == sum(10 + i for i in range(20))


@pytest.mark.usefixtures("session")
def test_what_a_task_submits_begins_before_it_asks_or_ends(tmp_path: Path) -> None:
    assert ray_dask_get({"a": (begin_and_look, str(tmp_path / "begun"))}, "a") is True
