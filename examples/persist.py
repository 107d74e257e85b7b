"""Keep results in the pool's memory, and compute with them more than once.

``persist`` returns at once with a collection of the same kind. In the place of results it holds object refs; tasks that
need them wait for them, errors are raised by whoever computes. When the collection goes, so do the results.
"""

from __future__ import annotations

import dask
import dask.array as da

from eagleray import ObjectRef
from eagleray.dask import enable_dask_on_ray, ray_dask_get, ray_dask_persist


def main() -> None:
    x = da.random.default_rng(0).random((2_000, 2_000), chunks=(500, 500))

    # One collection. The random numbers are made once, whatever is computed with them.
    kept = x.persist(scheduler=ray_dask_get)
    assert isinstance(next(iter(kept.dask.values())), ObjectRef)
    mean = kept.mean().compute(scheduler=ray_dask_get)
    deviation = (kept - mean).std().compute(scheduler=ray_dask_get)
    print(f"mean {mean:.3f}, standard deviation {deviation:.3f}")
    assert abs(mean - 0.5) < 0.01
    assert abs(deviation - 12**-0.5) < 0.01

    # Several at once: what they have in common is computed once.
    rows, columns = ray_dask_persist(kept.sum(axis=0), kept.sum(axis=1))
    total, same = dask.compute(rows.sum(), columns.sum(), scheduler=ray_dask_get)
    assert abs(total - same) < 1e-6 * total

    # Another scheduler cannot compute with the refs, and says so.
    try:
        kept.sum().compute(scheduler="threads")
    except TypeError as error:
        print(f"with threads: {error}")
    else:
        raise AssertionError("threads computed with refs")

    # With eagleray as the default nobody has to name it.
    with enable_dask_on_ray():
        assert abs(kept.persist().sum().compute() - total) < 1e-6 * total


if __name__ == "__main__":
    main()
