"""Replaces what Dask computes with, so that a suite written for Dask's own schedulers runs on another one.

Each of Dask's schedulers keeps a function of its own with its name: which of them is in force is still for Dask to say,
and its tests may compare them. Only where the graph goes is changed.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from typing import Any, Protocol

import dask
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded

Get = Callable[..., Any]

# What Dask's schedulers take beside graph and keys, and what makes sense for theirs only.
_THEIRS = frozenset(
    ("dumps", "func_dumps", "func_loads", "get_id", "initializer", "loads", "pack_exception", "raise_exception")
)


class Target(Protocol):
    """Where computations go."""

    computes: int

    def get(self, dsk: Any, keys: Any, **kwargs: Any) -> Any: ...
    def tasks(self) -> int | None:
        """How many tasks its workers have run; None if it does not count."""

    def restart(self) -> None:
        """New workers, after a test that did not end."""

    def stop(self) -> None: ...


class Eagleray:
    """Sends computations to `ray_dask_get`."""

    def __init__(self, workers: int) -> None:
        self.computes = 0
        self._workers = workers
        self._tasks = 0

    def get(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        import eagleray
        from eagleray.dask import ray_dask_get

        self.computes += 1
        if not eagleray.is_initialized():
            eagleray.init(num_cpus=self._workers)
        return ray_dask_get(dsk, keys, **{name: value for name, value in kwargs.items() if name not in _THEIRS})

    def tasks(self) -> int:
        import eagleray
        from eagleray import _engine

        return self._tasks + (_engine.native.counters()["tasks"] if eagleray.is_initialized() else 0)

    def restart(self) -> None:
        self.stop()

    def stop(self) -> None:
        import eagleray

        self._tasks = self.tasks()
        eagleray.shutdown()


class Processes:
    """Sends computations to `dask.multiprocessing`, with a pool that lives as long as the run."""

    def __init__(self, workers: int) -> None:
        self.computes = 0
        self._workers = workers
        self._get = dask.multiprocessing.get
        self._pool: ProcessPoolExecutor | None = None
        # What Dask does for the pools that it makes itself: all workers hash strings alike.
        os.environ.setdefault("PYTHONHASHSEED", "6640")

    def get(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        self.computes += 1
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=dask.multiprocessing.get_context(),
                initializer=dask.multiprocessing.initialize_worker_process,
            )
        kwargs = {name: value for name, value in kwargs.items() if name not in ("initializer", "num_workers", "pool")}
        try:
            return self._get(dsk, keys, pool=self._pool, **kwargs)
        except BrokenProcessPool:
            self.restart()
            raise

    def tasks(self) -> None:
        return None

    def restart(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in list(pool._processes.values()):
                process.kill()
            pool.shutdown(cancel_futures=True)

    def stop(self) -> None:
        self.restart()


def replace(target: Target) -> None:
    """Lets Dask compute with `target` whatever scheduler a collection, a call or the configuration names.

    Raises:
        RuntimeError: A module of Dask that copies schedulers has been imported already.
    """
    copies = [name for name in ("dask.array", "dask.bag", "dask.dataframe") if name in sys.modules]
    if copies:
        raise RuntimeError(f"Dask's schedulers must be replaced before {', '.join(copies)} is imported.")

    def instead_of(scheduler: Get) -> Get:
        # Has the name of what it replaces, so it is pickled as that: in a worker nothing is replaced.
        @functools.wraps(scheduler)
        def get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
            return target.get(dsk, keys, **kwargs)

        return get

    sync = instead_of(dask.local.get_sync)
    threads = instead_of(dask.threaded.get)
    processes = instead_of(dask.multiprocessing.get)

    @functools.wraps(dask.local.get_async)
    def get_async(submit: Any, num_workers: int, dsk: Any, result: Any, cache: Any = None, **kwargs: Any) -> Any:
        return target.get(dsk, result, cache=cache, **kwargs)

    by_original = {
        dask.local.get_sync: sync,
        dask.threaded.get: threads,
        dask.multiprocessing.get: processes,
    }
    for name, scheduler in dask.base.named_schedulers.items():
        dask.base.named_schedulers[name] = by_original.get(scheduler, scheduler)
    dask.get = dask.local.get_sync = sync
    dask.threaded.get = threads
    dask.multiprocessing.get = processes
    dask.local.get_async = get_async
