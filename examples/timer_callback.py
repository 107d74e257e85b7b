"""Time every task where it runs: hooks around the task, in the worker process.

``_ray_pretask`` runs just before a task and ``_ray_posttask`` just after it; what the first returns is given to
the second as ``pre_state``. The callback is pickled to the workers, so what they note has to go somewhere the driver
can read: here one line a task, appended to a file.
"""

# ruff: noqa: ARG002  (hooks take what hooks are given)

from __future__ import annotations

import os
import tempfile
from collections.abc import Hashable
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import dask

from eagleray.dask import RayDaskCallback, ray_dask_get


class TimerCallback(RayDaskCallback):
    """Appends ``key <tab> worker <tab> seconds`` for each task to `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _ray_pretask(self, key: Hashable, object_refs: tuple[Any, ...]) -> float:
        return perf_counter()

    def _ray_posttask(self, key: Hashable, result: Any, pre_state: float) -> None:
        seconds = perf_counter() - pre_state
        # One short write to a file opened for appending is not torn by another worker's.
        with self.path.open("a") as log:
            log.write(f"{key}\t{os.getpid()}\t{seconds}\n")


def nap(seconds: float) -> float:
    sleep(seconds)
    return seconds


def main() -> None:
    naps = [dask.delayed(nap)(s, dask_key_name=f"nap-{i}") for i, s in enumerate((0.01, 0.02, 0.03))]
    total = dask.delayed(sum)(naps, dask_key_name="total")

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "times"
        with TimerCallback(log):
            result = total.compute(scheduler=ray_dask_get)
        rows = [line.split("\t") for line in log.read_text().splitlines()]

    seconds = {key: float(taken) for key, _, taken in rows}
    for key, worker, taken in rows:
        print(f"{key:<8} worker {worker:<8} {float(taken) * 1e3:8.3f} ms")

    assert abs(result - 0.06) < 1e-9
    assert {"nap-0", "nap-1", "nap-2", "total"} <= seconds.keys()
    assert seconds["nap-2"] >= 0.03
    assert all(int(worker) != os.getpid() for _, worker, _ in rows)


if __name__ == "__main__":
    main()
