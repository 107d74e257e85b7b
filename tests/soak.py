"""A soak: mixed graphs, one after the other, while workers are killed at random. All results are right, and nothing grows.

    python -m tests.soak [computes] [seed]

prints the figures at the beginning, on the way and at the end, and fails if something is wrong.
"""

import concurrent.futures
import gc
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask import delayed

import eagleray
from eagleray import _engine
from eagleray.dask import RayDaskCallback, ray_dask_get
from tests.conftest import until
from tests.core import remotes
from tests.tasks import add, fail, inc, nested, sleep, total

KILL_EVERY = 20
"""Computes from one killed worker to the next."""

FIGURES = (
    "rss MiB",
    "fds",
    "threads",
    "maps",
    "shared MiB",
    "files",
    "objects",
    "sealed KiB",
    "processes",
    "worker MiB",
)

SLACK = {"rss MiB": 60, "fds": 6, "threads": 2, "maps": 40, "shared MiB": 600, "processes": 0, "worker MiB": 250}
"""By how much a figure may differ from what it was when a tenth was done. What is not named may not differ at all."""


def _memory(pid: int | str, names: tuple[str, ...]) -> int:
    """Bytes that a process has of some kinds of memory. 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in names) << 10


def processes(pid: int) -> set[int]:
    """A process's descendants."""
    found: set[int] = set()
    open_ = [pid]
    while open_:
        try:
            tasks = list(Path(f"/proc/{open_.pop()}/task").iterdir())
            children = {int(child) for task in tasks for child in (task / "children").read_text().split()}
        except (FileNotFoundError, ProcessLookupError):
            continue
        open_.extend(children - found)
        found |= children
    return found


def shared() -> int:
    """Bytes of this process's segments that take memory, each counted once however many descriptors there are."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "memfd:eagleray" in os.readlink(f"/proc/self/fd/{fd}"):
                stat = os.fstat(int(fd))
                found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
        except OSError:
            continue
    return sum(found.values())


def figures() -> dict[str, int]:
    """What might grow, when nothing is under way."""
    gc.collect()
    counters = _engine.native.counters()
    workers = [worker for worker in _engine.native.workers() if worker["state"] != "ended"]
    session_dir = _engine._session_dir
    assert session_dir is not None
    values = (
        _memory("self", ("RssAnon",)) >> 20,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        len(Path("/proc/self/maps").read_text().splitlines()),
        shared() >> 20,
        sum(len(files) for *_, files in os.walk(session_dir)),
        counters["objects"],
        counters["sealed_bytes"] >> 10,
        len(processes(os.getpid())),
        max((_memory(worker["pid"], ("RssAnon",)) >> 20 for worker in workers), default=0),
    )
    return dict(zip(FIGURES, values, strict=True))


def _array(rng: random.Random) -> None:
    n = rng.choice([100, 1_000, 400_000])
    array = da.arange(n, chunks=max(1, n // rng.randint(1, 6)), dtype="f8")
    found = ((array + 1) * 2).sum().compute()
    assert found == n * (n + 1.0), found
    kept = (array % 7).compute()
    assert kept.flags.writeable
    np.testing.assert_array_equal(kept, np.arange(n, dtype="f8") % 7)


def _dataframe(rng: random.Random) -> None:
    n = rng.randint(10, 5_000)
    frame = pd.DataFrame({"k": np.arange(n) % 5, "v": np.arange(n, dtype="f8")})
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        found = dd.from_pandas(frame, npartitions=rng.randint(1, 5)).groupby("k").v.sum().compute().sort_index()
    pd.testing.assert_series_equal(found, frame.groupby("k").v.sum())


def _bag(rng: random.Random) -> None:
    n = rng.randint(1, 300)
    assert db.from_sequence(range(n), npartitions=rng.randint(1, 7)).map(inc).filter(bool).sum().compute() == sum(
        range(1, n + 1)
    )


def _delayed(rng: random.Random) -> None:
    n = rng.randint(1, 40)
    parts = [delayed(inc)(place) for place in range(n)]
    assert delayed(total)(parts).compute() == sum(range(1, n + 1))


def _raw(rng: random.Random) -> None:
    n = rng.randint(1, 400)
    graph: dict[Any, Any] = {("leaf", 0): 0}
    graph |= {("leaf", place): (inc, ("leaf", rng.randrange(place))) for place in range(1, n)}
    graph["sum"] = (total, [("leaf", place) for place in range(n)])
    assert ray_dask_get(graph, ["sum"]) == list(dask.get(graph, ["sum"]))


def _nested(rng: random.Random) -> None:
    n = rng.randint(1, 3)
    graph = {("x", place): (nested, place) for place in range(n)}
    assert ray_dask_get(graph, list(graph)) == [10 + place for place in range(n)]


def _failing(rng: random.Random) -> None:
    graph = {"a": (inc, 1), "b": (fail, ValueError, "on purpose"), "c": (add, "a", "b"), "d": (sleep, 0.001, "a")}
    try:
        ray_dask_get(graph, ["c", "d"])
    except ValueError as error:
        assert "on purpose" in str(error)  # noqa: PT017
    else:
        raise AssertionError("it did not fail")


def _cancelled(rng: random.Random) -> None:
    graph = {("s", place): (sleep, 0.02, place) for place in range(30)}
    refs = ray_dask_get(graph, list(graph), ray_persist=True)
    ready, rest = eagleray.wait(list(refs), num_returns=1, timeout=60)
    assert len(ready) == 1
    del refs, ready, rest  # the last uses: what has not begun is cancelled


def _refs(rng: random.Random) -> None:
    ref = eagleray.put(np.full(rng.choice([10, 100_000]), 3.0))
    found = ray_dask_get({"a": (np.sum, ref), "b": (list, [ref, 1])}, ["a", "b"])
    assert found[0] == found[1][0].sum()
    view = eagleray.get(ref)
    del ref
    assert view.sum() == found[0]


def _persisted(rng: random.Random) -> None:
    array = (da.ones((300, 300), chunks=100) + 1).persist(scheduler=ray_dask_get)
    assert array.sum().compute() == 180_000
    assert array.mean().compute() == 2


def _hooks(rng: random.Random) -> None:
    seen: list[Any] = []

    class Callback(RayDaskCallback):
        def _ray_pretask(self, key: Any, object_refs: Any) -> Any:
            return key

        def _ray_posttask(self, key: Any, result: Any, pre_state: Any) -> None:
            assert pre_state == key

        def _ray_postsubmit_all(self, object_refs: Any, dsk: Any) -> None:
            seen.append(object_refs)

    with Callback():
        assert ray_dask_get({"a": (inc, 1), "b": (inc, "a")}, "b") == 3
    assert len(seen) == 1


def _calls(rng: random.Random) -> None:
    n = rng.randint(1, 200)
    refs = [remotes.add.remote(place, remotes.echo.remote(1)) for place in range(n)]
    large = np.full(rng.choice([10, 100_000]), 2.0)
    one, two = remotes.echo.options(num_returns=2).remote((large, n))
    assert eagleray.get(refs) == list(range(1, n + 1))
    assert eagleray.get(remotes.add.remote(one, two))[0] == 2 + n


def _actors(rng: random.Random) -> None:
    """What it says does not depend on what it did before: it may be killed."""
    counter = remotes.Counter.options(max_restarts=-1, max_task_retries=-1).remote(rng.randrange(10))
    large = np.full(rng.choice([10, 100_000]), 2.0)
    refs = [counter.echo.remote(large + place) for place in range(rng.randint(1, 20))]
    asked = {("asked", place): (_ask, counter, place) for place in range(rng.randint(1, 5))}
    assert ray_dask_get(asked, list(asked)) == list(range(len(asked)))
    assert [found[0] for found in eagleray.get(refs)] == [2.0 + place for place in range(len(refs))]


def _ask(counter: Any, place: int) -> Any:
    return eagleray.get(counter.echo.remote(place))


def _streams(rng: random.Random) -> None:
    sizes = [rng.choice([10, 100_000]) for _ in range(rng.randint(0, 5))]
    assert [len(eagleray.get(ref)) for ref in _arrays.remote(sizes)] == sizes


@eagleray.remote
def _arrays(sizes: list[int]) -> Any:
    for size in sizes:
        yield np.zeros(size)


KINDS: list[Callable[[random.Random], None]] = [
    _array,
    _dataframe,
    _bag,
    _delayed,
    _raw,
    _nested,
    _failing,
    _cancelled,
    _refs,
    _persisted,
    _hooks,
    _calls,
    _actors,
    _streams,
]


def _kill(rng: random.Random) -> None:
    workers = [worker["pid"] for worker in _engine.native.workers() if worker["state"] in ("idle", "busy")]
    if workers:
        try:
            os.kill(rng.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            return


def _rest(workers: int) -> None:
    """Waits until all that was to end has ended, and there are as many workers as at first."""

    def rests() -> bool:
        gc.collect()
        counters = _engine.native.counters()
        alive = [worker["state"] for worker in _engine.native.workers() if worker["state"] != "ended"]
        up = alive == ["idle"] * workers
        return up and counters["objects"] == 0 and counters["sealed_bytes"] == 0

    until(rests)


def soak(computes: int, seed: int, tell: Callable[[str], None] = print) -> None:
    """Runs so many computes on two workers.

    Raises:
        AssertionError: A result is wrong, or a figure has grown.
    """
    rng = random.Random(seed)
    eagleray.shutdown()
    before = processes(os.getpid())
    eagleray.init(num_cpus=2, object_store_memory=512 << 20)
    # As many again as are killed: the reference has had deaths too.
    settled: dict[str, int] | None = None
    begun = time.monotonic()
    warm = max(computes // 10, 2 * KILL_EVERY)
    tell("computes  " + "  ".join(FIGURES))
    tell(f"{0:8}  " + "  ".join(f"{value:>{len(name)}}" for name, value in figures().items()))
    with dask.config.set(scheduler=ray_dask_get), concurrent.futures.ThreadPoolExecutor(1) as killer:
        killed: concurrent.futures.Future[None] | None = None
        for count in range(1, computes + 1):
            kind = rng.choice(KINDS)
            if count % KILL_EVERY == 0:
                pause = rng.random() * 0.01

                def kill(pause: float = pause, seed: int = rng.randrange(1 << 30)) -> None:
                    time.sleep(pause)
                    _kill(random.Random(seed))

                killed = killer.submit(kill)
            try:
                kind(rng)
            except BaseException as error:
                error.add_note(f"compute {count}, {kind.__name__}, seed {seed}")
                raise
            if killed is not None:
                killed.result()
                killed = None
            if count in (warm, computes) or count % 200 == 0:
                _rest(2)
                now = figures()
                tell(f"{count:8}  " + "  ".join(f"{value:>{len(name)}}" for name, value in now.items()))
                if settled is None and count >= warm:
                    settled = now
                elif settled is not None:
                    grown = {n: (settled[n], now[n]) for n in FIGURES if now[n] - settled[n] > SLACK.get(n, 0)}
                    assert not grown, f"grown since compute {warm}: {grown} (seed {seed})"
    tell(
        f"{computes} computes in {time.monotonic() - begun:.0f} s, {_engine.native.counters()['reruns']} tasks run again"
    )
    session_dir = _engine._session_dir
    eagleray.shutdown()
    until(lambda: processes(os.getpid()) <= before)
    assert session_dir is not None
    assert not os.path.exists(session_dir)


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    with tempfile.TemporaryDirectory() as directory:
        os.environ["TMPDIR"] = directory
        tempfile.tempdir = None
        soak(
            int(sys.argv[1]) if len(sys.argv) > 1 else 2_000,
            int(sys.argv[2]) if len(sys.argv) > 2 else 20,
            lambda line: print(line, flush=True),
        )
