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
from types import FunctionType, ModuleType
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

    To be called once, before other modules than Dask's own have copied a scheduler.
    """

    def instead_of(scheduler: Get) -> Get:
        # Has the name of what it replaces, so it is pickled as that: in a worker nothing is replaced.
        @functools.wraps(scheduler)
        def get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
            return target.get(dsk, keys, **kwargs)

        return get

    replaced = {get: instead_of(get) for get in (dask.local.get_sync, dask.threaded.get, dask.multiprocessing.get)}

    def replacement(value: Any) -> Any:
        if isinstance(value, staticmethod):
            new = replacement(value.__func__)
            return new and staticmethod(new)
        return replaced.get(value) if isinstance(value, FunctionType) else None

    def search(owner: Any) -> None:
        for name, value in list(vars(owner).items()):
            new = replacement(value)
            if new is not None:
                setattr(owner, name, new)
            elif isinstance(value, type) and isinstance(owner, ModuleType) and value.__module__ == owner.__name__:
                search(value)

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "dask" and isinstance(module, ModuleType):
            search(module)
    for name, scheduler in dask.base.named_schedulers.items():
        dask.base.named_schedulers[name] = replaced[scheduler]

    @functools.wraps(dask.local.get_async)
    def get_async(submit: Any, num_workers: int, dsk: Any, result: Any, cache: Any = None, **kwargs: Any) -> Any:
        return target.get(dsk, result, cache=cache, **kwargs)

    # Only where it is looked for to make a scheduler of an executor: `dask.multiprocessing` works with its own copy.
    dask.local.get_async = get_async
    # So that a traceback is as short as it would be.
    shorten = dask.config.get("admin.traceback.shorten")
    dask.config.set({"admin.traceback.shorten": [*shorten, r"conformance[\\\/]schedulers\.py"]})
