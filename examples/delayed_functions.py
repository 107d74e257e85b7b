"""Delayed functions on a pool of worker processes.

Run it with ``python examples/delayed_functions.py``. No set-up is needed: the first compute starts a local cluster,
and it ends with the program.
"""

from __future__ import annotations

import os

import dask

from eagleray.dask import ray_dask_get


@dask.delayed  # type: ignore[untyped-decorator]
def increment(x: int) -> int:
    return x + 1


@dask.delayed  # type: ignore[untyped-decorator]
def add(x: int, y: int) -> int:
    return x + y


@dask.delayed  # type: ignore[untyped-decorator]
def whoami() -> int:
    return os.getpid()


def main() -> None:
    total = add(increment(1), increment(2))
    assert total.compute(scheduler=ray_dask_get) == 5

    # Several results of one graph come together; what they share is computed once.
    doubled = add(total, total)
    assert dask.compute(total, doubled, scheduler=ray_dask_get) == (5, 10)

    # The functions run in another process than this one.
    worker = whoami().compute(scheduler=ray_dask_get)
    assert worker != os.getpid()

    # The scheduler can be set for a block (or for good, without the with).
    with dask.config.set(scheduler=ray_dask_get):
        assert dask.delayed(sum)([increment(i) for i in range(10)]).compute() == 55

    print(f"computed in worker {worker}, driven from {os.getpid()}: total 5, doubled 10")


if __name__ == "__main__":
    main()
