"""What remote functions, actors and objects cost, with eagleray and with Ray, whose names are the same.

    python calls.py eagleray|ray

runs as a process of its own and prints what it measured as JSON: microseconds by operation.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path
from typing import Any

MANY = 10_000
"""Calls, or refs, at once."""

WAITED = 1_000
"""Refs that are waited for one after the other."""

OPERATIONS = {
    "task": ("task, submit + get", 20),
    "tasks": (f"{MANY:,} tasks, submit all, get all, each", 60),
    "call": ("actor call + get", 12),
    "calls": (f"{MANY:,} actor calls, each", 25),
    "put": ("put of a small object", 60),
    "get": ("get of a small object", 10),
    "wait": (f"wait on {WAITED:,}, submit included, each", 40),
}
"""What is measured beside Ray, and how many times faster it is to be."""

ALONE = {
    "arguments": (f"one task with {MANY:,} refs as arguments", 50_000),
    "list": (f"get of a list of {MANY:,} refs", 50_000),
}
"""What Ray takes many seconds for, and how many microseconds it may take."""


class MeasuringError(Exception):
    """The process that measures has failed."""


def measure(module: str, *, quick: bool = False) -> dict[str, Any]:
    """Microseconds by operation, in a process of its own. `counts` has frames and wake-ups of a round trip, where known.

    Raises:
        MeasuringError: It failed; with the end of what it printed.
    """
    command = [sys.executable, str(Path(__file__)), module, "quick" if quick else "whole"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    if done.returncode != 0:
        raise MeasuringError(done.stderr[-2000:])
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def missing(module: str) -> bool:
    return util.find_spec(module) is None


def _median(rounds: int, count: int, run: Callable[[], object]) -> float:
    """The median over rounds of the microseconds that one of `count` takes."""
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        took.append((time.perf_counter() - start) / count * 1e6)
    return statistics.median(took)


def _run(module: str, quick: bool) -> dict[str, Any]:
    core = import_module(module)
    ours = module == "eagleray"
    core.init(num_cpus=2)
    rounds = 3 if quick or not ours else 7
    trips = 50 if quick else 200

    @core.remote
    def nothing(*_args: object) -> None:
        return None

    @core.remote
    class Actor:
        def nothing(self) -> None:
            return None

    actor = Actor.remote()
    core.get([nothing.remote() for _ in range(100)])
    core.get(actor.nothing.remote())

    def waits() -> None:
        waiting = [nothing.remote() for _ in range(WAITED)]
        while waiting:
            _, waiting = core.wait(waiting)

    found: dict[str, Any] = {}
    before = _counters(core) if ours else {}
    found["task"] = _median(rounds, trips, lambda: [core.get(nothing.remote()) for _ in range(trips)])
    if ours:
        found["counts"] = {name: (value - before[name]) / rounds / trips for name, value in _counters(core).items()}
    found["tasks"] = _median(rounds, MANY, lambda: core.get([nothing.remote() for _ in range(MANY)]))
    before = _counters(core) if ours else {}
    found["call"] = _median(rounds, trips, lambda: [core.get(actor.nothing.remote()) for _ in range(trips)])
    if ours:
        counted = {name: (value - before[name]) / rounds / trips for name, value in _counters(core).items()}
        found["counts of calls"] = counted
    found["calls"] = _median(rounds, MANY, lambda: core.get([actor.nothing.remote() for _ in range(MANY)]))
    found["put"] = _median(rounds, WAITED, lambda: [core.put(number) for number in range(WAITED)])
    refs = [core.put(number) for number in range(WAITED)]
    found["get"] = _median(rounds, WAITED, lambda: [core.get(ref) for ref in refs])
    found["wait"] = _median(rounds, WAITED, waits)
    if ours:
        refs = [core.put(number) for number in range(MANY)]
        found["arguments"] = _median(rounds, 1, lambda: core.get(nothing.remote(*refs)))
        found["list"] = _median(rounds, 1, lambda: core.get(refs))
    core.shutdown()
    return found


def _counters(core: Any) -> dict[str, int]:
    counters = core._engine.native.counters()
    return {name: counters[name] for name in ("frames", "wakeups")}


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], sys.argv[2:] == ["quick"])))
