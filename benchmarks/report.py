"""The tables, and whether a figure meets its target."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import calls
from peers import PEERS, WORKERS, Round
from workloads import Workload

COUNTERS = ("frames", "wakeups", "pickles", "inline", "sealed", "runs", "recalls", "moved")


@dataclass
class Rounds:
    """All rounds of one peer over one workload, or why there are none."""

    rounds: list[Round] = field(default_factory=list)
    failure: str | None = None

    @property
    def tasks(self) -> int:
        return self.rounds[0].tasks

    def us_per_task(self) -> float:
        """The median over the rounds."""
        return statistics.median(r.seconds for r in self.rounds) / self.tasks * 1e6

    def counters_per_task(self) -> dict[str, float]:
        """The mean over the rounds."""
        total = sum(r.tasks for r in self.rounds)
        return {name: sum(r.counters[name] for r in self.rounds) / total for name in self.rounds[0].counters}


Results = dict[str, Rounds]
"""By peer, for one workload."""


@dataclass(frozen=True)
class Target:
    """A limit on a ratio, a time or a count."""

    what: str
    limit: float

    def verdict(self, figure: float) -> str:
        return f"{self.what}: {'met' if figure <= self.limit else 'NOT MET'}"


THIRD_OF_SYNC = Target("≤ 1/3 sync", 1 / 3)
EIGHTH_OF_THREADS = Target("≤ 1/8 threads", 1 / 8)
TO_SYNC = {"increments": THIRD_OF_SYNC, "tuples": THIRD_OF_SYNC, "chain": Target("≤ 1/2 sync", 1 / 2)}
TO_THREADS = {"increments": EIGHTH_OF_THREADS, "tuples": EIGHTH_OF_THREADS}
ABOVE_FUNCTIONS = {"array": Target("≤ 15 µs above", 15)}
ZERO_WORKER = dict.fromkeys(("increments", "chain"), Target("≤ 1 µs", 1))
FRAMES_AND_WAKEUPS = {"frames": Target("≤ 0.05", 0.05), "wakeups": Target("≤ 0.02", 0.02)}
PER_TASK = {"increments": FRAMES_AND_WAKEUPS, "chain": {**FRAMES_AND_WAKEUPS, "sealed": Target("= 0", 0)}}
REACTIONS_MS = {"death": Target("≤ 100 ms", 100), "interrupt": Target("≤ 100 ms", 100)}
FIRST_RESULT_MS = Target("≤ 300 ms", 300)
ORDER_US = Target("≤ 0.6 µs", 0.6)


def heading(text: str) -> str:
    return f"\n== {text} ".ljust(112, "=")


def _measured(results: Results, name: str) -> float | None:
    peer = results.get(name)
    return peer.us_per_task() if peer is not None and peer.rounds else None


def above_functions(results: Results, name: str) -> float | None:
    """µs of all cores a task costs beyond its functions: cores x time - functions.

    Two workers share the functions between two cores; without the factor they would seem to cost less than nothing.
    """
    functions, figure = _measured(results, "functions"), _measured(results, name)
    if functions is None or figure is None:
        return None
    cores = 1 if name in ("sync", "eagleray-sync", "eagleray-1") else WORKERS
    return cores * figure - functions


def _verdicts(workload: str, name: str, results: Results) -> list[str]:
    figure = _measured(results, name)
    if figure is None:
        return []
    if name == "zero-worker":
        return [ZERO_WORKER[workload].verdict(figure)] if workload in ZERO_WORKER else []
    above = above_functions(results, name)
    if name == "eagleray-1" and workload in ABOVE_FUNCTIONS and above is not None:
        # With one worker nothing runs beside it but the driver: the plain difference.
        return [ABOVE_FUNCTIONS[workload].verdict(above)]
    if name != "eagleray":
        return []
    verdicts = []
    for targets, peer in ((TO_SYNC, "sync"), (TO_THREADS, "threads")):
        base = _measured(results, peer)
        if workload in targets and base is not None:
            verdicts.append(targets[workload].verdict(figure / base))
    return verdicts


def times_table(workload: Workload, results: Results) -> str:
    tasks = next((r.tasks for r in results.values() if r.rounds), 0)
    lines = [
        heading(f"{workload.name}: {workload.title}, {tasks:,} tasks"),
        f"{'':<29}{'µs/task':>10}{'fastest':>10}{'slowest':>10}{'rounds':>8}"
        f"{'/ sync':>9}{'/ threads':>11}{'above':>9}   target",
    ]
    bases = [_measured(results, base) for base in ("sync", "threads")]
    for name, peer in results.items():
        title = f"{PEERS[name].title:<29}"
        figure = _measured(results, name)
        if figure is None:
            if peer.failure:
                lines.append(f"{title}{'-':>10}   {peer.failure}")
            continue
        per_task = [r.seconds / r.tasks * 1e6 for r in peer.rounds]
        row = f"{title}{figure:>10.2f}{min(per_task):>10.2f}{max(per_task):>10.2f}{len(per_task):>8}"
        if name == "functions":
            lines.append(row)
            continue
        row += f"{_ratio(figure, bases[0]):>9}{_ratio(figure, bases[1]):>11}"
        above = above_functions(results, name) if PEERS[name].gives_results else None
        row += f"{'' if above is None else format(above, '.1f'):>9}"
        lines.append(f"{row}   {'; '.join(_verdicts(workload.name, name, results))}".rstrip())
    return "\n".join(lines)


def _ratio(figure: float, base: float | None) -> str:
    if not base:
        return ""
    return f"{figure / base:.3f}" if figure < base else f"{figure / base:.1f}"


def counters_table(results: dict[str, Results]) -> str:
    lines = [
        heading("eagleray's counters, per task"),
        f"{'':<13}" + "".join(f"{name:>10}" for name in COUNTERS) + "   target",
    ]
    for workload, peers in results.items():
        peer = peers.get("eagleray")
        if peer is None or not peer.rounds:
            continue
        per_task = peer.counters_per_task()
        row = "".join(f"{_count(per_task.get(name)):>10}" for name in COUNTERS)
        verdicts = [
            f"{name} {target.verdict(per_task[name])}"
            for name, target in PER_TASK.get(workload, {}).items()
            if name in per_task
        ]
        lines.append(f"{workload:<13}{row}   {'; '.join(verdicts)}".rstrip())
    return "\n".join(lines) if len(lines) > 2 else f"{lines[0]}\nno counters: eagleray did not take part"


def _count(value: float | None) -> str:
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.4f}"


def startup_table(times: dict[str, float | str]) -> str:
    lines = [heading("init to the first result, after imports, in a fresh process"), f"{'':<29}{'ms':>10}"]
    for name, figure in times.items():
        title = f"{PEERS[name].title:<29}"
        if isinstance(figure, str):
            lines.append(f"{title}{'-':>10}   {figure}")
            continue
        verdict = FIRST_RESULT_MS.verdict(figure) if name == "eagleray" else ""
        lines.append(f"{title}{figure:>10.1f}   {verdict}".rstrip())
    return "\n".join(lines)


def reactions_table(death: float, interrupt: float) -> str:
    rows = (
        ("a worker is killed, and the session knows", "death", death),
        ("Ctrl-C, and get has returned", "interrupt", interrupt),
    )
    lines = [heading("reactions, the slowest of some tries"), f"{'':<42}{'ms':>10}"]
    lines += [f"{title:<42}{figure:>10.1f}   {REACTIONS_MS[name].verdict(figure)}" for title, name, figure in rows]
    return "\n".join(lines)


def order_table(ours: float, theirs: float) -> str:
    return "\n".join(
        (
            heading("the order of the increments graph, dependencies given"),
            f"{'':<29}{'µs/task':>10}",
            f"{'dask.order':<29}{theirs:>10.2f}",
            f"{'eagleray':<29}{ours:>10.2f}   {ORDER_US.verdict(ours)}",
        )
    )


def calls_table(ours: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    lines = [
        heading("tasks, actors and objects beside the graph, µs"),
        f"{'':<48}{'eagleray':>10}{'Ray':>10}{'/ Ray':>9}   target",
    ]
    for name, (title, times) in calls.OPERATIONS.items():
        line = f"{title:<48}{ours[name]:>10.1f}"
        if theirs is not None:
            ratio = ours[name] / theirs[name]
            line += f"{theirs[name]:>10.1f}{ratio:>9.4f}   {Target(f'≤ 1/{times}', 1 / times).verdict(ratio)}"
        lines.append(line)
    for name, (title, most) in calls.ALONE.items():
        verdict = Target(f"≤ {most / 1000:.0f} ms", most).verdict(ours[name])
        lines.append(f"{title:<48}{ours[name]:>10.1f}{'':>19}   {verdict}")
    for title, name in (("task", "counts"), ("actor call", "counts of calls")):
        counted = ", ".join(f"{count:.2f} {what}" for what, count in ours[name].items())
        lines.append(f"a round trip of a {title}: {counted}")
    return "\n".join(lines)
