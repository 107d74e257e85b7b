"""Dask's `ResourceProfiler`, counting the workers.

Its own tracker, a process forked from the driver, looks once at the driver's children. Workers are grandchildren, and
come and go.
"""

from __future__ import annotations

import contextlib
import os
import threading
from itertools import starmap
from timeit import default_timer
from typing import Any, Self

from dask.diagnostics.profile import ResourceData
from dask.utils import import_required

Sample = tuple[float, float, float]
"""Time, memory in MB, percent of one processor."""

_PATIENCE = 0.05
"""Seconds after which it is seen whether the process that is waited for lives."""


def include_workers(profiler: Any) -> None:
    """Has a `ResourceProfiler` count this process and all that descend from it, when it counts from now on.

    What it has counted so far stays.
    """
    if isinstance(profiler._tracker, _Tracker):
        return
    running = profiler._is_running()
    if running:
        profiler.results.extend(starmap(ResourceData, _counted(profiler._tracker)))
        profiler.close()
    profiler._tracker = _Tracker(profiler._dt)
    if running:
        profiler._start_collect()


def _counted(tracker: Any) -> list[Sample]:
    """What Dask's tracker has counted.

    Nothing if it has ended: it does so when a process ends that it has just listed. The driver has both ends of the pipe,
    so that reading never finds its end.
    """
    tracker.parent_conn.send("send_data")
    while not tracker.parent_conn.poll(_PATIENCE):
        if not tracker.is_alive() and not tracker.parent_conn.poll():
            return []
    samples: list[Sample] = tracker.parent_conn.recv()
    return samples


class _Tracker:
    """Has the methods of `dask.diagnostics.profile._Tracker` that a `ResourceProfiler` uses. Samples in a thread."""

    def __init__(self, dt: float) -> None:
        self._dt = dt
        self._psutil = import_required("psutil", "Tracking resource usage requires `psutil` to be installed")
        self._processes: dict[int, Any] = {}
        """By pid. Of the same object, the use of processors is that since the last sample."""
        self._samples: list[Sample] = []
        self._collecting = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="eagleray-resources", daemon=True)
        self._thread.start()

    @property
    def parent_conn(self) -> Self:
        """What takes the profiler's messages."""
        return self

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def send(self, message: str) -> None:
        if message == "collect" and not self._collecting.is_set():
            self._sample()
            self._collecting.set()
        elif message == "send_data" and self._collecting.is_set():
            self._collecting.clear()
            self._sample()

    def recv(self) -> list[Sample]:
        with self._lock:
            samples, self._samples = self._samples, []
        return samples

    def shutdown(self) -> None:
        self._over.set()
        self._collecting.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while self._collecting.wait() and not self._over.wait(self._dt):
            if self._collecting.is_set():
                self._sample()

    def _sample(self) -> None:
        with self._lock:
            now = default_timer()
            driver = self._psutil.Process(os.getpid())
            running = {process.pid: process for process in [driver, *driver.children(recursive=True)]}
            # A pid that was used again is another process.
            known = {pid: process for pid, process in self._processes.items() if running.get(pid) == process}
            self._processes = {**running, **known}
            memory = processors = 0.0
            for process in self._processes.values():
                with contextlib.suppress(self._psutil.Error):  # it has just ended
                    used, busy = process.memory_info().rss, process.cpu_percent()
                    memory += used
                    processors += busy
            self._samples.append((now, memory / 1e6, processors))
