"""The order of tasks against Dask's: `eagleray._native.order` lets at most about as many results live at once.

The measure is the peak of live results (see `order_oracle.peak`). Dask's own order depends on the hash seed of the process,
so it is asked under five seeds, each in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import pytest

from eagleray import _engine
from tests.order_oracle import Deps, peak, random_graph

GRAPHS = int(os.environ.get("EAGLERAY_ORDER_GRAPHS", "500"))
"""How many random graphs are compared; 5,000 take about two minutes."""

HASH_SEEDS = range(5)

order = _engine.native.order


@pytest.fixture(scope="module")
def oracles() -> list[dict[str, Any]]:
    """What `order_oracle.py` prints under each hash seed."""
    if not hasattr(dask.base, "collections_to_expr"):
        pytest.skip("the order is held against that of a newer Dask")
    script = Path(__file__).with_name("order_oracle.py")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), str(GRAPHS)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
        )
        for seed in HASH_SEEDS
    ]
    texts = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0 for _ in HASH_SEEDS]
    return [json.loads(text) for text in texts]


def checked_peak(deps: Deps) -> int:
    """The peak of our order, which must be a valid one and always the same."""
    priority = order(deps)
    assert sorted(priority) == list(range(len(deps)))
    assert all(priority[dep] < priority[task] for task, row in enumerate(deps) for dep in row)
    assert order(deps) == priority
    return peak(deps, priority)


def compare(ours: dict[str, int], dask: dict[str, list[int]]) -> None:
    """At most Dask's worst + 2 % on each graph, and at most its median on average."""
    worse = {name: (most, dask[name]) for name, most in ours.items() if most > 1.02 * max(dask[name])}
    assert not worse
    ratio = statistics.fmean(most / statistics.median(dask[name]) for name, most in ours.items())
    print(f"{len(ours)} graphs: our peak is {ratio:.4f} of Dask's median on average")
    assert ratio <= 1


def test_random_graphs(oracles: list[dict[str, Any]]) -> None:
    dask = {f"random {seed}": [oracle["random"][seed] for oracle in oracles] for seed in range(GRAPHS)}
    compare({f"random {seed}": checked_peak(random_graph(seed)) for seed in range(GRAPHS)}, dask)


def test_real_graphs(oracles: list[dict[str, Any]]) -> None:
    real = oracles[0]["real"]
    dask = {name: [oracle["real"][name]["peak"] for oracle in oracles] for name in real}
    compare({name: checked_peak(graph["deps"]) for name, graph in real.items()}, dask)


def test_a_cycle_is_an_error() -> None:
    with pytest.raises(Exception, match=r"(?i)cycle"):
        order([[1], [0]])
