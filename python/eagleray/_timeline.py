"""When what ran, as a trace for Perfetto and Chrome.

Workers note beginning and duration of each task in a few bytes, which travel with their reports; what stands here reads
them. The format is Chrome's: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_USUAL, _MANY = 100_000, 1_000_000
"""Tasks that are remembered if nobody says, and if they shall be."""

_VARIABLE = "EAGLERAY_TIMELINE"

_TASKS, _RUNS, _VALUES = 0, 1, 2
"""The rows of a process."""


def remembered(timeline: bool | None) -> tuple[int, bool]:
    """How many tasks are remembered, and whether it is recorded when they run, as `init(timeline=...)` or the environment says.

    Raises:
        ValueError: The environment says neither 1 nor 0.
    """
    if timeline is None:
        said = os.environ.get(_VARIABLE, "")
        if said not in ("", "0", "1"):
            raise ValueError(f"The environment variable {_VARIABLE} must be 0 or 1, not {said!r}.")
        timeline = {"": None, "0": False, "1": True}[said]
    return (_MANY if timeline else _USUAL), timeline is not False


def timeline(
    path: str | os.PathLike[str] | None = None, *, filename: str | os.PathLike[str] | None = None
) -> list[dict[str, Any]] | None:
    """What ran when: a trace for https://ui.perfetto.dev or chrome://tracing, of the tasks that are remembered.

    There is a process for the driver and for each worker. Its rows are tasks; runs, which are what a worker is given at a time;
    and values, as they are stored or given to it. Arrows go from a task to those that read its result.

    Args:
        path: The file to write. None: the events are returned instead.
        filename: The same, under Ray's name.

    Raises:
        TypeError: Both are given.
        RuntimeError: The session was started with `timeline=False`, or there is none, or this is a task.
        OSError: The file cannot be written.
    """
    if filename is not None:
        if path is not None:
            raise TypeError("timeline() takes a path or a filename, not both.")
        path = filename
    if path is None:
        return list(_events())
    write(path)
    return None


def write(path: str | os.PathLike[str]) -> int:
    """Writes the trace. Gives the number of its events."""
    events = _events()
    first = next(events)  # what cannot be had leaves no file
    directory, name = os.path.split(os.path.abspath(path))
    count = 1
    made, partial = tempfile.mkstemp(prefix=f".{name}-", dir=directory)
    try:
        with open(made, "w", encoding="utf-8") as file:
            file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
            file.write(json.dumps(first))
            for event in events:
                file.write(",\n")
                file.write(json.dumps(event))
                count += 1
            file.write("\n]}\n")
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
    return count


def _umask() -> int:
    # Asking for it changes it, for all threads; the system tells it, too.
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))


def _events() -> Iterator[dict[str, Any]]:
    from eagleray import _engine

    if not _engine.is_initialized():
        raise RuntimeError("There is no timeline: eagleray is not initialized, so nothing has run.")
    native = _engine.native
    if native.in_worker():
        raise RuntimeError("A task cannot ask for the timeline: the driver has it.")
    seen = native.timeline()
    if seen is None:
        raise RuntimeError(
            "There is no timeline: the session was started with init(timeline=False) or with "
            f"{_VARIABLE}=0. Start it with neither, or with init(timeline=True) to remember more tasks."
        )
    yield from _processes(seen)
    yield from _runs(seen)
    yield from _tasks(seen)
    yield from _transfers(seen)


def _text(key: object, name: str | None, identity: str) -> str:
    if key is not None:
        return key if isinstance(key, str) else repr(key)
    return name or identity


def _us(ns: int) -> float:
    return ns / 1000


def _processes(seen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    driver = os.getpid()
    pids = {worker: pid for worker, pid, *_ in seen["runs"]}
    processes = {driver: "driver"} | {pid: f"worker {worker}" for worker, pid in pids.items()}
    for place, (pid, name) in enumerate(processes.items()):
        yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": f"{name} (pid {pid})"}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": place}}
        for row, text in ((_TASKS, "tasks"), (_RUNS, "runs"), (_VALUES, "values")):
            yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": row, "args": {"name": text}}
            yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": row, "args": {"sort_index": row}}
    if seen["forgotten"]:
        text = f"{seen['forgotten']:,} tasks that ran earlier are forgotten"
        yield {"ph": "M", "name": "process_labels", "pid": driver, "args": {"labels": text}}


def _runs(seen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Several are on their way to a worker at a time, so they overlap: each is an asynchronous slice."""
    for worker, pid, number, assigned, ended, tasks in seen["runs"]:
        event = {"cat": "run", "name": f"run {number}", "id": f"{worker}.{number}", "pid": pid, "tid": _RUNS}
        yield event | {"ph": "b", "ts": _us(assigned), "args": {"tasks": tasks}}
        yield event | {"ph": "e", "ts": _us(ended)}


def _tasks(seen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    completed = dict(seen["completed"])
    where: dict[str, tuple[int, int]] = {}
    """Of each task: the process, and its end. Of one that ran again, the last time."""
    for identity, _, _, _, pid, _, end, _ in seen["tasks"]:
        where[identity] = (pid, end)
    arrows = 0
    for identity, key, name, _, pid, begin, end, reads in seen["tasks"]:
        text = _text(key, name, identity)
        event = {"cat": "task", "name": text, "pid": pid, "tid": _TASKS, "ts": _us(begin)}
        yield event | {"ph": "X", "dur": _us(end - begin), "args": {"id": identity, "func_or_class_name": name}}
        if identity in completed:
            went_on = {"cat": "goes on", "name": text, "id": identity, "pid": pid, "tid": _TASKS}
            yield went_on | {"ph": "b", "ts": _us(end)}
            yield went_on | {"ph": "e", "ts": _us(completed[identity])}
        for read in reads:
            maker = where.get(read)
            if maker is not None and maker[1] <= begin:
                arrows += 1
                arrow = {"cat": "data", "name": "data", "id": arrows, "tid": _TASKS}
                # It begins within the slice that it is to be bound to.
                yield arrow | {"ph": "s", "pid": maker[0], "ts": _us(maker[1] - 1)}
                yield arrow | {"ph": "f", "bp": "e", "pid": pid, "ts": _us(begin)}


_STORED = {"inline": "stored", "memory": "sealed", "file": "spilled"}
"""What happened to a value, by where its bytes are then."""


def _transfers(seen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pids = {worker: pid for worker, pid, *_ in seen["runs"]}
    for identity, key, name, at, worker, sent, store, size in seen["transfers"]:
        pid = os.getpid() if worker is None else pids.get(worker)
        if pid is None:  # all that it ran is forgotten, and it with that
            continue
        what = "sent" if sent else _STORED[store]
        yield {
            "ph": "i",
            "s": "t",
            "cat": "value",
            "name": f"{what}: {_text(key, name, identity)}",
            "pid": pid,
            "tid": _VALUES,
            "ts": _us(at),
            "args": {"object": identity, "bytes": size, "store": store},
        }
