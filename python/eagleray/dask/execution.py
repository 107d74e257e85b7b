"""Tells observers in the driver of each task that ran: when, how long, and in which process.

A pair of worker hooks notes the times and emits one record a task, after it ran. Submission knows nothing of this: with
nobody to tell, no hook is there.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from eagleray import _output, _worker_output
from eagleray.dask import graphs
from eagleray.dask.callbacks import Pair
from eagleray.dask.graphs import Key, Nodes

Measure = Callable[[Any], Any]
"""Measures a result, in the worker that made it."""


class Ran(NamedTuple):
    """A task that ran."""

    key: Key
    start: float
    end: float
    """Of `time.perf_counter`, which all processes of a machine share."""
    worker: int
    """The process."""
    measured: tuple[Any, ...] = ()
    """What the observers' measures gave."""


class Steps(Protocol):
    """What is read of a submitted graph."""

    @property
    def keys(self) -> list[Key]: ...


class Observer(Protocol):
    """Wants to know of the tasks of one compute. Its methods are not called at the same time."""

    measures: Sequence[Measure]

    def begin(self, nodes: Nodes) -> None:
        """The graph is about to be submitted."""

    def submitted(self, keys: list[Key]) -> None:
        """These tasks were submitted; some may have run."""

    def ran(self, task: Ran) -> None:
        """A task ran, for the first time. Tasks that fail do not end here."""

    def end(self, error: BaseException | None) -> None:
        """Nothing runs any more."""


_tokens = itertools.count(1)


class _Reporter:
    """The worker hooks. Pickled with what the observers measure."""

    def __init__(self, token: int, measures: Sequence[Measure]) -> None:
        self.token = token
        self.measures = measures

    def before(self, key: Key, inputs: tuple[Any, ...]) -> float:
        return perf_counter()

    def after(self, key: Key, result: Any, start: float) -> None:
        end = perf_counter()
        measured = tuple(measure(result) for measure in self.measures)
        self.report(Ran(key, start, end, os.getpid(), measured))

    def report(self, task: Ran) -> None:
        _worker_output.emit(self.token, tuple(task))


class _Here(_Reporter):
    """The same for tasks that run in this process."""

    def __init__(self, measures: Sequence[Measure], deliver: Callable[[Any], None]) -> None:
        super().__init__(0, measures)
        self._deliver = deliver

    def report(self, task: Ran) -> None:
        self._deliver(task)


class Execution:
    """The tasks of one compute and those who watch them, in a `with` block around submission and wait."""

    def __init__(self, observers: Iterable[Observer], nodes: Callable[[], Nodes], *, here: bool = False) -> None:
        self._observers = list(observers)
        self._make_nodes = nodes
        self._nodes: Nodes = {}
        self._begun: list[Observer] = []
        self._seen: set[Key] = set()
        self._early: list[Ran] | None = []
        """Tasks that ran before the submission had returned."""
        self._failure: BaseException | None = None
        """What an observer raised in a thread that nobody waits for."""
        self._token = next(_tokens)
        self._lock = threading.RLock()
        measures = [measure for observer in self._observers for measure in observer.measures]
        self._reporter = _Here(measures, self._deliver) if here else _Reporter(self._token, measures)

    def hooks(self) -> list[Pair]:
        """The worker hooks that are needed. They come before all others."""
        return [(self._reporter.before, self._reporter.after)] if self._observers else []

    def __enter__(self) -> Self:
        if self._observers:
            self._nodes = self._make_nodes()
            _output.subscribe(self._token, self._deliver)
            try:
                for observer in self._observers:
                    self._begun.append(observer)
                    observer.begin(self._nodes)
            except BaseException as error:
                self._end(error)
                raise
        return self

    def submitted(self, graph: Steps) -> None:
        """The graph was submitted."""
        if not self._observers:
            return
        keys = [key for key in graph.keys if not graphs.is_alias(self._nodes[key])]
        with self._lock:
            for observer in self._observers:
                observer.submitted(keys)
            early, self._early = self._early or [], None
            for task in early:
                self._tell(task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._observers:
            self._end(error)
            if error is None and self._failure is not None:
                raise self._failure

    def _end(self, error: BaseException | None) -> None:
        _output.drain()
        _output.unsubscribe(self._token)
        failure = self._failure
        for observer in self._begun:
            try:
                observer.end(error or failure)
            except BaseException as raised:  # the others want to end, too
                self._failure = self._failure or raised

    def _deliver(self, record: Any) -> None:
        task = Ran(*record)
        with self._lock:
            if task.key in self._seen:  # it ran again after a worker had died
                return
            self._seen.add(task.key)
            if self._early is not None:
                self._early.append(task)
            else:
                self._tell(task)

    def _tell(self, task: Ran) -> None:
        measured = iter(task.measured)
        for observer in self._observers:
            own = tuple(itertools.islice(measured, len(observer.measures)))
            try:
                observer.ran(task._replace(measured=own))
            except BaseException as error:
                self._failure = self._failure or error
