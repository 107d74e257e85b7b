"""All workers hash strings alike, those of a later template too."""

import os

import pytest

import eagleray
from eagleray.dask import ray_dask_get


def seen_by_a_worker() -> tuple[str | None, int]:
    """The seed in a worker's environment, and a hash made with it. Ends the session."""
    eagleray.init(num_cpus=1)
    graph = {"seed": (os.environ.get, "PYTHONHASHSEED"), "hash": (hash, "some text")}
    seed, number = ray_dask_get(graph, ["seed", "hash"])
    eagleray.shutdown()
    return seed, number


@pytest.mark.parametrize("driver", [None, "random"])
def test_workers_of_different_templates_hash_alike(
    fresh: None, monkeypatch: pytest.MonkeyPatch, driver: str | None
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    if driver is not None:
        monkeypatch.setenv("PYTHONHASHSEED", driver)
    assert seen_by_a_worker() == seen_by_a_worker()


def test_the_seed_of_the_user_counts(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert seen_by_a_worker()[0] == "7"
