"""Statistics of all tasks of a program, gathered by an actor and shown as a table.

The hooks run in the workers and call the actor without waiting for an answer. Whoever holds the actor's handle, or knows its
name, can ask it at any time: here the driver, when the computes are over.
"""

# ruff: noqa: ARG002  (hooks take what hooks are given)

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable
from time import perf_counter
from typing import Any

import dask.array as da
from dask.utils import key_split

import eagleray
from eagleray.dask import RayDaskCallback, ray_dask_get


@eagleray.remote
class Statistics:
    """Seconds of the tasks, by the name that their keys begin with."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.workers: dict[str, set[int]] = defaultdict(set)

    def add(self, name: str, worker: int, seconds: float) -> None:
        self.seconds[name].append(seconds)
        self.workers[name].add(worker)

    def rows(self) -> list[tuple[str, int, int, float, float]]:
        """Name, tasks, workers, seconds in all and of the longest task; what took longest first."""
        rows = [
            (name, len(seconds), len(self.workers[name]), sum(seconds), max(seconds))
            for name, seconds in self.seconds.items()
        ]
        return sorted(rows, key=lambda row: row[3], reverse=True)


class Gather(RayDaskCallback):
    """Tells an actor how long each task took."""

    def __init__(self, statistics: Any) -> None:
        self.statistics = statistics

    def _ray_pretask(self, key: Hashable, object_refs: tuple[Any, ...]) -> float:
        return perf_counter()

    def _ray_posttask(self, key: Hashable, result: Any, pre_state: float) -> None:
        self.statistics.add.remote(key_split(key), os.getpid(), perf_counter() - pre_state)


def main() -> None:
    statistics = Statistics.options(name="statistics").remote()
    x = da.random.default_rng(0).random((2_000, 2_000), chunks=(500, 500))

    with Gather(statistics):
        x.mean().compute(scheduler=ray_dask_get)
        (x @ x.T).sum().compute(scheduler=ray_dask_get)

    # What a task has sent before it ended is with the actor before what is asked after the compute.
    rows = eagleray.get(eagleray.get_actor("statistics").rows.remote())
    print(f"{'task':<32} {'count':>6} {'workers':>8} {'in all':>10} {'longest':>10}")
    for name, count, workers, seconds, longest in rows:
        print(f"{name:<32} {count:>6} {workers:>8} {seconds * 1e3:>7.1f} ms {longest * 1e3:>7.1f} ms")
    assert sum(count for _, count, _, _, _ in rows) > 30
    assert any(name.startswith("random") for name, *_ in rows)


if __name__ == "__main__":
    main()
