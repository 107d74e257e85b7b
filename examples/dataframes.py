"""Dataframes: groupby, a join, a new index by shuffle, and Parquet files written and read by the workers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd

from eagleray.dask import enable_dask_on_ray


def sales(rows: int = 200_000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "shop": rng.integers(0, 50, rows),
            "day": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 365, rows), unit="D"),
            "amount": rng.gamma(2.0, 10.0, rows).round(2),
        }
    )


def main() -> None:
    frame = sales()
    shops = pd.DataFrame({"shop": range(50), "city": [f"city {number % 7}" for number in range(50)]})

    with enable_dask_on_ray():
        ddf = dd.from_pandas(frame, npartitions=8)

        by_shop = ddf.groupby("shop").amount.agg(["count", "mean"]).compute()
        pd.testing.assert_series_equal(
            by_shop["count"].sort_index(), frame.groupby("shop").amount.count(), check_names=False
        )

        by_city = ddf.merge(dd.from_pandas(shops, npartitions=1), on="shop").groupby("city").amount.sum().compute()
        assert len(by_city) == 7
        assert abs(by_city.sum() - frame.amount.sum()) < 0.01

        # A new index moves rows between partitions: while enabled, by tasks, not through files on disk.
        by_day = ddf.set_index("day")
        january = by_day.loc["2025-01"].amount.sum().compute()
        assert abs(january - frame[frame.day.dt.month == 1].amount.sum()) < 0.01

        with tempfile.TemporaryDirectory() as folder:
            by_day.to_parquet(folder)
            files = len(list(Path(folder).glob("*.parquet")))
            assert len(dd.read_parquet(folder)) == len(frame)

    print(
        f"{len(frame)} rows, {len(by_shop)} shops in {len(by_city)} cities; January {january:.2f}; {files} Parquet files"
    )


if __name__ == "__main__":
    main()
