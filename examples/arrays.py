"""Arrays: reductions, rechunking, a least-squares fit, and writing to disk from the workers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import dask.array as da
import numpy as np

from eagleray.dask import enable_dask_on_ray


def main() -> None:
    with enable_dask_on_ray():
        x = da.random.default_rng(7).normal(10, 2, size=(4_000, 2_000), chunks=(500, 500))
        mean, deviation = da.compute(x.mean(), x.std())
        assert abs(mean - 10) < 0.01
        assert abs(deviation - 2) < 0.01

        # Other chunks, transposed, and multiplied with itself.
        gram = (x[:, :50].rechunk((4_000, 25)).T @ x[:, :50]).compute()
        assert gram.shape == (50, 50)
        np.testing.assert_allclose(gram, gram.T)

        # y = 3 a + 2 b + noise
        ab = da.random.default_rng(8).random((100_000, 2), chunks=(10_000, 2))
        y = ab @ np.array([3.0, 2.0]) + da.random.default_rng(9).normal(0, 0.1, size=100_000, chunks=10_000)
        fit = np.linalg.solve(*da.compute(ab.T @ ab, ab.T @ y))
        np.testing.assert_allclose(fit, [3, 2], atol=0.02)

        # Each worker writes its own blocks.
        with tempfile.TemporaryDirectory() as folder:
            da.to_npy_stack(folder, x[:, :500], axis=0)
            files = sorted(path.name for path in Path(folder).glob("*.npy"))
            again = da.from_npy_stack(folder, mmap_mode=None)
            assert bool((again == x[:, :500]).all().compute())

    print(f"mean {mean:.3f}, deviation {deviation:.3f}, fit {fit.round(2)}, {len(files)} files written and read again")


if __name__ == "__main__":
    main()
