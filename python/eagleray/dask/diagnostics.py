"""Dask's own diagnostics, told of execution.

Dask's callbacks fire at submission, as Dask-on-Ray documents. `ProgressBar`, `Profiler`, `CacheProfiler` and
`ResourceProfiler` of `dask.diagnostics`, and tqdm's bar for Dask, exist to show how tasks run: when only they are in
force, a graph is submitted whole, and their hooks are called when tasks have run, with the times of the workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eagleray import _pickling
from eagleray.dask import graphs
from eagleray.dask.execution import Measure, Ran
from eagleray.dask.graphs import Key, Nodes

Callback = tuple[Any, ...]
"""A callback as Dask keeps it: start, start_state, pretask, posttask, finish."""

_BAR = ("dask.diagnostics.progress", "ProgressBar")
_TASKS = ("dask.diagnostics.profile", "Profiler")
_CACHE = ("dask.diagnostics.profile", "CacheProfiler")
_RESOURCES = ("dask.diagnostics.profile", "ResourceProfiler")
_TQDM = ("tqdm.dask", "TqdmCallback")
_ALL = {_BAR, _TASKS, _CACHE, _RESOURCES, _TQDM}


def _owner(callback: Callback) -> Any:
    """The object that a callback's hooks are methods of."""
    return next((owner for hook in callback if (owner := getattr(hook, "__self__", None)) is not None), None)


def _is(owner: Any, *names: tuple[str, str]) -> bool:
    """Whether it is an instance of a class, which need not have been imported."""
    return any((cls.__module__, cls.__qualname__) in names for cls in type(owner).__mro__)


def is_diagnostic(callback: Callback) -> bool:
    """Whether a callback shows execution."""
    return _is(_owner(callback), *_ALL)


def _measure(profiler: Any) -> Measure:
    """The metric of a `CacheProfiler`, which workers call: results do not come to the driver."""
    metric: Measure = profiler._metric
    try:
        _pickling.dump(metric)
    except Exception as error:
        raise TypeError(
            f"The metric of a CacheProfiler, {profiler._metric_name}, measures results in the workers and must be "
            f"picklable: {error}"
        ) from error
    return metric


class Diagnostics:
    """Diagnostics of one compute. An `execution.Observer`."""

    def __init__(self, callbacks: Iterable[Callback], requested: Iterable[Key]) -> None:
        self._callbacks = list(callbacks)
        self._requested = list(requested)
        owners = [_owner(callback) for callback in self._callbacks]
        self._profilers = [owner for owner in owners if _is(owner, _TASKS)]
        self._resources = [owner for owner in owners if _is(owner, _RESOURCES)]
        self._caches = [owner for owner in owners if _is(owner, _CACHE)]
        self.measures: Sequence[Measure] = [_measure(cache) for cache in self._caches]
        self._begun: list[Callback] = []
        self._nodes: Nodes = {}
        self._ran: list[Ran] = []
        self._state: dict[str, Any] = {}
        """What diagnostics look at of Dask's state."""

    def begin(self, nodes: Nodes) -> None:
        self._nodes = nodes
        if self._resources:  # before they start: Dask's own trackers would be started first
            from eagleray.dask.resources import include_workers

            for profiler in self._resources:
                include_workers(profiler)
        for callback in self._callbacks:
            self._begun.append(callback)
            if start := callback[0]:
                start(nodes)

    def submitted(self, keys: list[Key]) -> None:
        empty: list[str] = ["cache", "dependencies", "dependents", "waiting_data"]
        self._state.update({name: {} for name in empty})
        self._state.update({name: set() for name in ("finished", "running", "released")})
        self._state.update(ready=[], waiting=dict.fromkeys(keys, ()))
        for _, start_state, *_ in self._callbacks:
            if start_state:
                start_state(self._nodes, self._state)

    def ran(self, task: Ran) -> None:
        self._ran.append(task)
        key, nodes, state = task.key, self._nodes, self._state
        state["waiting"].pop(key, None)
        state["running"].add(key)
        for _, _, pretask, _, _ in self._callbacks:
            if pretask:
                pretask(key, nodes, state)
        state["running"].discard(key)
        state["finished"].add(key)
        for callback in self._callbacks:
            posttask = callback[3]
            if posttask and _owner(callback) not in self._caches:
                posttask(key, None, nodes, state, task.worker)

    def end(self, error: BaseException | None) -> None:
        self._ran.sort(key=lambda task: task.start)
        for profiler in self._profilers:
            # It noted when it was told.
            profiler._results = {
                task.key: (task.key, self._nodes[task.key], task.start, task.end, task.worker) for task in self._ran
            }
        for place, cache in enumerate(self._caches):
            cache.results += self._lifetimes(place)
        failure: BaseException | None = None
        for callback in self._begun:
            try:
                if finish := callback[4]:
                    finish(self._nodes, self._state, error is not None)
            except Exception as raised:  # a bar that is not told keeps its thread
                failure = failure or raised
        if failure is not None:
            raise failure

    def _lifetimes(self, place: int) -> list[Any]:
        """From when to when each result was needed: from its task's end to the end of the last that reads it."""
        from dask.diagnostics.profile import CacheData

        over = max((task.end for task in self._ran), default=0.0)
        ends = {task.key: task.end for task in self._ran}
        needed: dict[Key, float] = {}
        # What a task reads that did not run, and what is asked for, is needed to the end.
        reads = [
            (key, dep) for key in (*ends, *self._state.get("waiting", ())) for dep in self._nodes[key].dependencies
        ]
        for reader, dep in [*reads, *((None, key) for key in self._requested)]:
            key = graphs.resolve(self._nodes, dep)
            needed[key] = max(needed.get(key, 0.0), ends.get(reader, over))
        return [
            CacheData(
                task.key,
                self._nodes[task.key],
                task.measured[place],
                task.end,
                max(needed.get(task.key, over), task.end),
            )
            for task in self._ran
        ]
