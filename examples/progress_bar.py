"""Watch the tasks run: a progress bar with a summary, and Dask's own diagnostics.

The bar of eagleray needs tqdm: ``pip install "eagleray[progress]"``. All of them show execution, not submission.
"""

from __future__ import annotations

from time import sleep

import dask
from dask.diagnostics import Profiler, ProgressBar

from eagleray.dask import ProgressBarCallback, ray_dask_get


def nap(seconds: float) -> float:
    sleep(seconds)
    return seconds


def main() -> None:
    naps = [dask.delayed(nap)(0.02, dask_key_name=f"nap-{i}") for i in range(20)]
    total = dask.delayed(sum)(naps, dask_key_name="total")

    # The option alone is enough; entering the callback is how Dask-on-Ray spells it.
    with ProgressBarCallback():
        result = total.compute(scheduler=ray_dask_get, _ray_enable_progress_bar=True)
    assert abs(result - 0.4) < 1e-9

    with ProgressBar(), Profiler() as profiler:
        total.compute(scheduler=ray_dask_get)
    assert len(profiler.results) == 21
    slowest = max(profiler.results, key=lambda task: task.end_time - task.start_time)
    print(f"slowest: {slowest.key} took {slowest.end_time - slowest.start_time:.3f} s in process {slowest.worker_id}")


if __name__ == "__main__":
    main()
