"""From `init` to the first result, in a fresh process, the imports done before. And what an order costs.

As a script with a peer's name it measures in its own process and prints milliseconds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from time import perf_counter

from functions import increment
from peers import PEERS
from workloads import WORKLOADS

LIMIT_S = 120


def first_result_ms(name: str) -> float:
    """Starts the peer in this process and computes one task."""
    peer = PEERS[name]
    if reason := peer.missing():  # also imports what the peer needs
        raise SystemExit(reason)
    start = perf_counter()
    with peer.open() as get:
        result = get({"first": (increment, 1)}, "first")
        taken = perf_counter() - start
    if result != 2:
        raise SystemExit(f"{name} says that 1 + 1 is {result!r}")
    return taken * 1e3


def measure(names: Sequence[str], rounds: int) -> dict[str, float | str]:
    """The median of `rounds` fresh processes for each peer, interleaved; or the last line of what went wrong."""
    times: dict[str, list[float]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for name in names:
            if name in failed:
                continue
            try:
                done = subprocess.run(
                    [sys.executable, __file__, name], capture_output=True, text=True, timeout=LIMIT_S, check=False
                )
            except subprocess.TimeoutExpired:
                failed[name] = f"no result within {LIMIT_S} s"
                continue
            if done.returncode == 0:
                times[name].append(float(done.stdout.split()[-1]))
            else:
                failed[name] = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return {name: failed[name] if name in failed else statistics.median(times[name]) for name in names}


def order_us_per_task(quick: bool, rounds: int) -> tuple[float, float]:
    """µs a task for eagleray's order and for `dask.order`, over the increments graph; the dependencies are given."""
    from dask.order import order as dask_order

    from eagleray._engine import native

    graph = WORKLOADS["increments"].build(quick).graph
    number = {key: i for i, key in enumerate(graph)}
    dependencies = [[number[dep] for dep in task.dependencies] for task in graph.values()]
    ours, theirs = [], []
    for _ in range(rounds):
        start = perf_counter()
        native.order(dependencies)
        middle = perf_counter()
        dask_order(graph)
        ours.append(middle - start)
        theirs.append(perf_counter() - middle)
    return statistics.median(ours) / len(graph) * 1e6, statistics.median(theirs) / len(graph) * 1e6


if __name__ == "__main__":
    print(first_result_ms(sys.argv[1]))
