"""The schedulers that are compared, each in a process of its own that keeps it warm.

A process each, so that none is timed with another's threads beside it. The benchmark asks one after the other for a
round; the others wait meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

from workloads import WORKLOADS

WORKERS = 2
ROUND_LIMIT_S = 600
"""A peer that takes longer over one round is given up."""

Get = Callable[..., Any]


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    open: Callable[[], contextlib.AbstractContextManager[Get]]
    """Starts the scheduler, gives its `get`, and ends it."""
    needs: tuple[str, ...] = ()
    """Modules that have to be importable."""
    slow: bool = False
    """Takes part in the first rounds only."""
    gives_results: bool = True

    def missing(self) -> str | None:
        """Why this peer cannot take part, or None if it can."""
        for name in self.needs:
            try:
                importlib.import_module(name)
            except ImportError as error:
                # A package that is there and cannot be imported is worth a word more.
                return "not installed" if error.name == name.partition(".")[0] else f"import failed: {error}"
        return None


@contextlib.contextmanager
def _sync() -> Iterator[Get]:
    import dask

    yield dask.get


@contextlib.contextmanager
def _threads() -> Iterator[Get]:
    import dask.threaded

    yield lambda graph, keys: dask.threaded.get(graph, keys, num_workers=WORKERS)


@contextlib.contextmanager
def _processes() -> Iterator[Get]:
    import dask.multiprocessing

    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda graph, keys: dask.multiprocessing.get(graph, keys, num_workers=WORKERS, pool=pool)


@contextlib.contextmanager
def _distributed() -> Iterator[Get]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client.get


@contextlib.contextmanager
def _ray() -> Iterator[Get]:
    import ray
    from ray.util.dask import ray_dask_get

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        yield ray_dask_get
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _eagleray(workers: int = WORKERS, zero_worker: bool = False) -> Iterator[Get]:
    import eagleray
    from eagleray._engine import start
    from eagleray.dask import ray_dask_get

    start(workers, zero_worker=zero_worker)
    try:
        yield ray_dask_get
    finally:
        eagleray.shutdown()


@contextlib.contextmanager
def _eagleray_sync() -> Iterator[Get]:
    from eagleray.dask import ray_dask_get_sync

    yield ray_dask_get_sync


@contextlib.contextmanager
def _eagleray_zero_worker() -> Iterator[Get]:
    with _eagleray(zero_worker=True) as get:
        yield get


@contextlib.contextmanager
def _eagleray_one() -> Iterator[Get]:
    with _eagleray(workers=1) as get:
        yield get


@contextlib.contextmanager
def _functions() -> Iterator[Get]:
    yield lambda *_: None  # never called: `run_round` calls the functions themselves


PEERS = {
    peer.name: peer
    for peer in (
        Peer("functions", "functions alone, 1 core", _functions, gives_results=False),
        Peer("sync", "dask.get (sync)", _sync),
        Peer("threads", "dask.threaded", _threads),
        Peer("eagleray", "eagleray", _eagleray, ("eagleray.dask",)),
        Peer("eagleray-1", "eagleray, 1 worker", _eagleray_one, ("eagleray.dask",)),
        Peer("eagleray-sync", "eagleray, ray_dask_get_sync", _eagleray_sync, ("eagleray.dask",)),
        Peer("zero-worker", "eagleray, zero-worker", _eagleray_zero_worker, ("eagleray.dask",), gives_results=False),
        Peer("processes", "dask.multiprocessing", _processes, slow=True),
        Peer("distributed", "distributed, LocalCluster", _distributed, ("distributed",), slow=True),
        Peer("ray", "Dask-on-Ray", _ray, ("ray", "ray.util.dask"), slow=True),
    )
}


@dataclass(frozen=True)
class Round:
    seconds: float
    tasks: int
    result: Any
    counters: dict[str, int] = field(default_factory=dict)
    """By how much each of eagleray's counters rose."""


def warm(name: str, get: Get) -> None:
    """Brings up whatever the peer brings up on first use."""
    if name != "functions":
        case = WORKLOADS["increments"].build(True)
        get(case.graph, case.keys)


def run_round(name: str, get: Get, workload: str, quick: bool) -> Round | None:
    """One timed round in this process; None if the workload has nothing to time for the peer."""
    case = WORKLOADS[workload].build(quick)
    counters = _counters(name)
    gc.collect()
    if name == "functions":
        if case.functions is None:
            return None
        start = perf_counter()
        case.functions()
        return Round(perf_counter() - start, case.tasks, None)
    before = counters()
    start = perf_counter()
    result = get(case.graph, case.keys)
    seconds = perf_counter() - start
    after = counters()
    return Round(seconds, case.tasks, result, {key: after[key] - before.get(key, 0) for key in after})


def _counters(name: str) -> Callable[[], dict[str, int]]:
    if name != "eagleray":
        return dict
    from eagleray._engine import native

    return native.counters


def serve(connection: Connection, name: str) -> None:
    """The process of one peer: answers each (workload, quick) with a `Round`, None or the text of an error."""
    try:
        with PEERS[name].open() as get:
            warm(name, get)
            connection.send("ready")
            while (request := connection.recv()) is not None:
                try:
                    answer: Round | str | None = run_round(name, get, *request)
                except Exception as error:  # shown in the table: one peer's failure is not the end of the others
                    answer = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                connection.send(answer)
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


class PeerError(Exception):
    """A peer did not start, ended, raised or took too long. The text is for the table."""


class PeerProcess:
    """A peer in its process, as the benchmark sees it."""

    def __init__(self, peer: Peer) -> None:
        """Starts the peer; raises `PeerError` if it does not come up."""
        context = multiprocessing.get_context("spawn")
        self.peer = peer
        self._connection, theirs = context.Pipe()
        # Not a daemon, as it has to start processes of its own.
        self._process = context.Process(target=serve, args=(theirs, peer.name), name=f"peer-{peer.name}")
        self._process.start()
        theirs.close()
        if (answer := self._receive()) != "ready":
            self.close()
            raise PeerError(str(answer))

    def round(self, workload: str, quick: bool) -> Round | None:
        self._connection.send((workload, quick))
        answer = self._receive()
        if isinstance(answer, str):
            raise PeerError(answer)
        assert answer is None or isinstance(answer, Round)
        return answer

    def _receive(self) -> object:
        if not self._connection.poll(ROUND_LIMIT_S):
            self._process.kill()
            raise PeerError(f"no answer within {ROUND_LIMIT_S} s")
        try:
            answer: object = self._connection.recv()
        except EOFError:
            self._process.join(10)
            raise PeerError(f"its process ended, exit code {self._process.exitcode}") from None
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it may have ended already
            self._connection.send(None)
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()
