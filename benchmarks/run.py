"""Time per task of eagleray beside Dask's own schedulers, distributed and Dask-on-Ray, in one run.

    python benchmarks/run.py [--quick] [--only WORKLOAD]... [--peer PEER]... [--rounds N]

Rounds are interleaved: each round takes all peers in turn, the next one in the opposite order, so that what else the
machine does falls on all of them. Figures are medians. Every round's result is compared with the others'; a difference
ends the run with an error. A target that is missed is printed, and is no error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys

import calls
import dask
import pandas as pd
from peers import PEERS, WORKERS, PeerError, PeerProcess, Round
from reactions import death_ms, interrupt_ms
from report import (
    Results,
    Rounds,
    calls_table,
    counters_table,
    order_table,
    reactions_table,
    startup_table,
    times_table,
)
from startup import measure, order_us_per_task
from workloads import WORKLOADS

EXTRAS = ("startup", "reactions", "order", "calls")
STARTUP_PEERS = ("threads", "eagleray", "processes", "distributed", "ray")


class ResultsDifferError(Exception):
    """Two peers computed different results for one workload."""


class Reference:
    """The first result seen; all others have to be equal to it (floats of a table, to rounding)."""

    def __init__(self) -> None:
        self._first: tuple[str, object] | None = None

    def check(self, peer: str, result: object) -> None:
        result = _plain(result)
        if self._first is None:
            self._first = (peer, result)
        elif not _equal(self._first[1], result):
            raise ResultsDifferError(f"{self._first[0]} gives {self._first[1]!r}\n{peer} gives {result!r}")


def _plain(result: object) -> object:
    """Schedulers differ in whether several keys give a list or a tuple."""
    return [_plain(item) for item in result] if isinstance(result, list | tuple) else result


def _equal(a: object, b: object) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, pd.DataFrame):
        # Schedulers add floats up in orders of their own, and so does dask.threaded from run to run.
        try:
            pd.testing.assert_frame_equal(a.sort_index(), b.sort_index(), rtol=1e-12)  # type: ignore[attr-defined]
        except AssertionError:
            return False
        return True
    return bool(a == b)


def start_peers(names: list[str], results: Results, closing: contextlib.ExitStack) -> list[PeerProcess]:
    processes = []
    for name in names:
        if reason := PEERS[name].missing():
            results[name].failure = reason
            continue
        print(f"starting {PEERS[name].title} ...", file=sys.stderr)
        try:
            process = PeerProcess(PEERS[name])
        except PeerError as error:
            results[name].failure = f"did not start: {error}"
            continue
        closing.callback(process.close)
        processes.append(process)
    return processes


def time_workload(name: str, processes: list[PeerProcess], results: Results, options: argparse.Namespace) -> None:
    """All rounds of all peers over one workload; what they took goes into `results`."""
    reference = Reference()
    for number in range(options.rounds):
        for process in processes if number % 2 == 0 else reversed(processes):
            peer, entry = process.peer, results[process.peer.name]
            if entry.failure or (peer.slow and number >= options.slow_rounds):
                continue
            try:
                done: Round | None = process.round(name, options.quick)
            except PeerError as error:
                entry.failure = str(error)
                continue
            if done is None:
                continue
            if peer.gives_results:
                reference.check(peer.title, done.result)
            entry.rounds.append(done)
        print(f"{name}: round {number + 1} of {options.rounds}", file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time per task of eagleray beside other Dask schedulers.")
    parser.add_argument("--quick", action="store_true", help="graphs of a tenth of the size, 3 rounds")
    parser.add_argument(
        "--only", action="append", choices=(*WORKLOADS, *EXTRAS), metavar="WORKLOAD",
        help=f"one of {', '.join((*WORKLOADS, *EXTRAS))}; may be given more than once",
    )  # fmt: skip
    parser.add_argument(
        "--peer", action="append", choices=tuple(PEERS), metavar="PEER",
        help=f"one of {', '.join(PEERS)}; may be given more than once",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="rounds of each peer (default 7; 3 with --quick)")
    parser.add_argument(
        "--slow-rounds", type=int, default=1, help="rounds of processes, distributed and ray (default 1)"
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.only = options.only or [*WORKLOADS, *EXTRAS]
    options.peer = options.peer or list(PEERS)
    return options


def main() -> None:
    options = parse()
    print(
        f"Python {platform.python_version()}, dask {dask.__version__}, {os.cpu_count()} cores, {WORKERS} workers; "
        f"load {os.getloadavg()[0]:.1f} at the start. µs of wall time a task, medians.\n"
        "above: cores x time - functions alone, in µs a task (one core for sync, else as many as workers)."
    )
    all_results: dict[str, Results] = {}
    unavailable: Results = {name: Rounds() for name in options.peer}
    workloads = [name for name in WORKLOADS if name in options.only]
    with contextlib.ExitStack() as closing:
        processes = start_peers(options.peer, unavailable, closing) if workloads else []
        for name in workloads:
            results = {peer: Rounds(failure=unavailable[peer].failure) for peer in options.peer}
            time_workload(name, processes, results, options)
            all_results[name] = results
            print(times_table(WORKLOADS[name], results), flush=True)
    if all_results:
        print(counters_table(all_results), flush=True)
    if "startup" in options.only:
        names = [name for name in STARTUP_PEERS if name in options.peer]
        reasons = {name: PEERS[name].missing() for name in names}
        times = measure([name for name in names if not reasons[name]], min(options.rounds, 5))
        print(startup_table({name: reasons[name] or times[name] for name in names}), flush=True)
    if "reactions" in options.only and "eagleray" in options.peer and not PEERS["eagleray"].missing():
        print(reactions_table(death_ms(), interrupt_ms()), flush=True)
    if "order" in options.only and "eagleray" in options.peer and not PEERS["eagleray"].missing():
        print(order_table(*order_us_per_task(options.quick, options.rounds)))
    if "calls" in options.only and "eagleray" in options.peer:
        ray = "ray" in options.peer and not calls.missing("ray")
        theirs = calls.measure("ray", quick=options.quick) if ray else None
        print(calls_table(calls.measure("eagleray", quick=options.quick), theirs), flush=True)


if __name__ == "__main__":
    try:
        main()
    except ResultsDifferError as difference:
        sys.exit(f"results differ: {difference}")
