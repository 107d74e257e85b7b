"""Annotations: what tasks need, how often they are tried again, and which come first.

``dask.annotate`` around the construction of tasks says it for these, around ``compute`` for all that say nothing themselves.
``ray_remote_args`` of a compute is the default below both.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import dask

import eagleray
from eagleray.dask import ray_dask_get
from eagleray.exceptions import InfeasibleResourceError


def flaky(marks: str) -> str:
    """Fails twice."""
    attempt = len(list(Path(marks).iterdir())) + 1
    Path(marks, str(attempt)).touch()
    if attempt < 3:
        raise ConnectionError(f"attempt {attempt}")
    return f"attempt {attempt}"


def query(seconds: float) -> tuple[float, float]:
    """Uses a database that bears one query at a time. Returns when it began and when it ended."""
    begin = time.monotonic()
    time.sleep(seconds)
    return begin, time.monotonic()


def when(*_: object) -> float:
    return time.monotonic()


def main() -> None:
    eagleray.init(num_cpus=2, resources={"database": 1})

    # A task that raises is tried again; with retry_exceptions only after exceptions of these classes.
    with tempfile.TemporaryDirectory() as marks:
        with dask.annotate(retries=2):
            result = dask.delayed(flaky)(marks)
        attempts = result.compute(scheduler=ray_dask_get)
        assert attempts == "attempt 3"

    # Never two queries at once, though two processors are free.
    with dask.annotate(resources={"database": 1}):
        queries = [dask.delayed(query)(0.05) for _ in range(6)]
    times = sorted(dask.compute(*queries, scheduler=ray_dask_get))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))

    # The higher priority first.
    low = [dask.delayed(when)(number, dask_key_name=f"low-{number}") for number in range(20)]
    with dask.annotate(priority=10):
        high = dask.delayed(when)(dask_key_name="high")
    first, *others = dask.compute(high, *low, scheduler=ray_dask_get, ray_remote_args={"num_cpus": 2})
    assert first < min(others)

    # What can never be had is an error at once.
    try:
        dask.delayed(when)().compute(scheduler=ray_dask_get, ray_remote_args={"num_gpus": 64})
    except InfeasibleResourceError as error:
        print(error)
    else:
        raise AssertionError("64 GPUs were found")
    print(f"{attempts}; {len(times)} queries, one at a time; the urgent task first")


if __name__ == "__main__":
    main()
