"""The progress bar of Dask-on-Ray: of execution, with a short summary at the end."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any, Protocol

from dask.utils import format_time

from eagleray import _engine, _task_spec
from eagleray._engine import ObjectRef
from eagleray.dask.execution import Measure, Ran
from eagleray.dask.graphs import Key, Nodes

__all__ = ["Progress", "render_progress_bar"]

_MOST_PREFIXES = 5
"""Key prefixes in the summary."""

_MOST_WIDTH = 40
"""Characters of a prefix."""

_INTERVAL = 0.1
"""Seconds between two drawings of a bar."""


def _tqdm() -> Any:
    """The class of the bars: in a notebook a widget, else text on standard error."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError(
            'The progress bar needs tqdm: pip install "eagleray[progress]", or pip install tqdm.'
        ) from error
    return tqdm


class Progress:
    """The bar of one compute. An `execution.Observer`.

    Inside a task the bar stands still until the end: events of execution go to the driver.

    Raises:
        ImportError: tqdm is not installed.
    """

    measures: Sequence[Measure] = ()

    def __init__(self) -> None:
        self._tqdm = _tqdm()
        self._bar: Any = None
        self._ran: list[Ran] = []
        self._total = 0
        self._begin = 0.0
        self._over = threading.Event()
        self._painter = threading.Thread(target=self._paint, name="eagleray-progress", daemon=True)

    def begin(self, nodes: Nodes) -> None:
        self._begin = perf_counter()

    def submitted(self, keys: list[Key]) -> None:
        self._total = len(keys)
        self._bar = self._tqdm(total=self._total, unit="task", dynamic_ncols=True, mininterval=0, miniters=0)
        if not _engine.native.in_worker():
            self._painter.start()

    def ran(self, task: Ran) -> None:
        self._ran.append(task)

    def _paint(self) -> None:
        """Draws, until it is over. tqdm itself leaves out what comes soon after something else, and draws it much later."""
        while not self._over.wait(_INTERVAL):
            if more := len(self._ran) - self._bar.n:
                self._bar.update(more)

    def end(self, error: BaseException | None) -> None:
        if self._bar is None:
            return
        self._over.set()
        if self._painter.is_alive():
            self._painter.join()
        # What a presubmit hook answered does not run, and inside a task nothing is heard of what runs.
        done = self._total if error is None else len(self._ran)
        if error is not None:
            self._bar.set_description("failed", refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.close()
        if error is None:
            print(summary(self._total, perf_counter() - self._begin, self._ran), file=sys.stderr)


def summary(total: int, seconds: float, ran: Sequence[Ran]) -> str:
    """What a compute of `total` tasks did in so many seconds, and where the time went."""
    if not ran:
        return f"{_count(total, 'task')} in {format_time(seconds).strip()}"
    of_worker: dict[int, list[Ran]] = defaultdict(list)
    of_prefix: dict[str, list[float]] = defaultdict(list)
    for task in ran:
        of_worker[task.worker].append(task)
        of_prefix[_task_spec.key_prefix(task.key)].append(task.end - task.start)
    work = sum(map(sum, of_prefix.values()))
    lines = [
        f"{_count(total, 'task')} in {format_time(seconds).strip()}, on {_count(len(of_worker), 'worker')}: "
        f"{format_time(work).strip()} of execution, {format_time(sum(_between(of_worker))).strip()} of scheduling and "
        "waiting between tasks"
    ]
    slowest = sorted(of_prefix.items(), key=lambda item: -sum(item[1]))[:_MOST_PREFIXES]
    width = min(max(len(prefix) for prefix, _ in slowest), _MOST_WIDTH)
    for prefix, times in slowest:
        name = prefix if len(prefix) <= width else f"{prefix[: width - 3]}..."
        spent = sum(times)
        share = spent / work if work else 0.0
        lines.append(f"  {name:<{width}} {len(times):>8} x {format_time(spent).strip():>10} {share:>6.1%}")
    if len(of_prefix) > len(slowest):
        lines.append(f"  and {_count(len(of_prefix) - len(slowest), 'faster prefix', 'faster prefixes')}")
    return "\n".join(lines)


def _between(of_worker: dict[int, list[Ran]]) -> Iterator[float]:
    """How long each worker was without a task between two."""
    for tasks in of_worker.values():
        tasks.sort(key=lambda task: task.start)
        for before, after in pairwise(tasks):
            yield max(after.start - before.end, 0.0)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


class Tracker(Protocol):
    """Counts tasks."""

    def result(self) -> tuple[int, int]:
        """How many tasks were submitted, and how many have ended."""


def render_progress_bar(tracker: Tracker | None, object_refs: Any) -> None:
    """Shows a bar until refs have their values, or errors. `ray_dask_get` does not need it.

    Args:
        tracker: What the bar counts. None counts the refs.
        object_refs: A ref, or a list or tuple of refs and literals and such lists: what a compute with `ray_persist`
            returns.

    Raises:
        ImportError: tqdm is not installed.
    """
    refs = list(dict.fromkeys(_refs(object_refs)))
    total, _ = tracker.result() if tracker else (len(refs), 0)
    shown = 0
    with _tqdm()(total=total, unit="task", dynamic_ncols=True) as bar:
        while refs:
            ready, refs = _engine.wait(refs, num_returns=len(refs), timeout=_INTERVAL)
            _, finished = tracker.result() if tracker else (0, shown + len(ready))
            bar.update(finished - shown)
            shown = finished
        bar.update(total - shown)


def _refs(nested: Any) -> Iterator[ObjectRef]:
    if isinstance(nested, ObjectRef):
        yield nested
    elif isinstance(nested, list | tuple):
        for item in nested:
            yield from _refs(item)
