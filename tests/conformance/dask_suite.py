"""A pytest plugin: runs Dask's own tests on another scheduler and compares with the list of what remains.

What Dask's repository has in its `conftest.py`, which the wheel lacks, is here too: the tests marked slow or for
`array-expr` do not run unless asked for.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schedulers

_LIST = Path(__file__).with_name("remains.toml")
_LISTED = "listed: "
"""Begins the reason of a failure that the list expects."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Tests that are known not to pass, and why."""

    reason: str
    tests: tuple[str, ...]
    run: bool
    """Not run: it would never end, or it tests what has been replaced."""
    strict: bool
    """Whether a pass is a failure. Not for a test whose result is a matter of time or of chance."""
    peer_passes: bool
    """Whether it passes with a pool of `dask.multiprocessing`."""


def entries() -> list[Entry]:
    """The list of what remains.

    Raises:
        ValueError: An entry has no reason, or names a test twice.
    """
    found = []
    named: set[str] = set()
    for row in tomllib.loads(_LIST.read_text())["remains"]:
        unknown = set(row) - {"reason", "tests", "run", "strict", "peer"}
        if unknown or not row.get("reason") or not row.get("tests") or row.get("peer", "passes") != "passes":
            raise ValueError(
                f"{_LIST.name}: an entry has `reason` and `tests`, perhaps `run`, `strict`, and `peer = 'passes'`: {row}"
            )
        for test in row["tests"]:
            if test in named:
                raise ValueError(f"{_LIST.name}: {test} is listed twice.")
            named.add(test)
        run, strict = row.get("run", True), row.get("strict", True)
        found.append(Entry(row["reason"], tuple(row["tests"]), run, strict, "peer" in row))
    return found


def covers(test: str, nodeid: str) -> bool:
    """Whether a line of the list means a test: its id, or that of its function, class, module or directory."""
    return nodeid == test or (nodeid.startswith(test) and nodeid[len(test)] in "[:/")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption(
        "--scheduler",
        choices=["eagleray", "processes", "dask"],
        default="eagleray",
        help="where computations go: ray_dask_get, a warm pool of dask.multiprocessing, or where Dask sends them",
    )
    group.addoption("--workers", type=int, default=2, help="worker processes of each pytest process")
    group.addoption("--no-list", action="store_true", help="take no notice of the list")
    group.addoption("--listed", action="store_true", help="run what is on the list only")
    group.addoption("--outcomes", type=Path, help="write each test's outcome and seconds to this file, as JSON")
    group.addoption("--runslow", action="store_true", help="run slow tests")
    group.addoption("--runarrayexpr", action="store_true", help="run array-expr tests only")


_target: pytest.StashKey[schedulers.Target | None] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    # Before Dask's `conftest.py`: it imports the collections, which copy the schedulers.
    options = early_config.known_args_namespace
    target: schedulers.Target | None = None
    if options.scheduler != "dask":
        target = (schedulers.Eagleray if options.scheduler == "eagleray" else schedulers.Processes)(options.workers)
        schedulers.replace(target)
    early_config.stash[_target] = target
    pytest.register_assert_rewrite("dask.array.utils", "dask.dataframe.utils", "dask.bag.utils")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Suite(config, config.stash[_target]), "conformance")


class Suite:
    """One run of the suite."""

    def __init__(self, config: pytest.Config, target: schedulers.Target | None) -> None:
        self._config = config
        self._target = target
        self._entries = [] if config.getoption("--no-list") else entries()
        self._outcomes: dict[str, str] = {}
        self._seconds: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept, left = [], []
        eagleray = config.getoption("--scheduler") == "eagleray"
        for item in items:
            entry = self._entry(item.nodeid)
            (left if config.getoption("--listed") and entry is None else kept).append(item)
            if entry is not None and (eagleray or not entry.peer_passes):
                mark = pytest.mark.xfail(reason=_LISTED + entry.reason, run=entry.run, strict=entry.strict)
                item.add_marker(mark, append=False)
        items[:] = kept
        if left:
            config.hook.pytest_deselected(items=left)

    def _entry(self, nodeid: str) -> Entry | None:
        return next((e for e in self._entries if any(covers(test, nodeid) for test in e.tests)), None)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        array_expr = item.config.getoption("--runarrayexpr")
        if "slow" in item.keywords and not item.config.getoption("--runslow"):
            pytest.skip("need --runslow option to run")
        if "array_expr" in item.keywords and not array_expr:
            pytest.skip("need --runarrayexpr option to run")
        if array_expr and not {"array_expr", "normal_and_array_expr"} & set(item.keywords):
            pytest.skip("only array-expr tests are being run")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Iterator[None]:
        report = yield
        timed_out = call.excinfo is not None and str(call.excinfo.value).startswith("Timeout (>")
        if timed_out and self._target is not None:
            self._target.restart()
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        if report.when != "call" and report.outcome == "passed":
            return
        outcome: str = report.outcome
        reason = getattr(report, "wasxfail", None)
        if reason is not None:
            outcome = "listed" if reason.removeprefix("[NOTRUN] ").startswith(_LISTED) else "xfailed"
        elif outcome == "failed" and report.when != "call":
            outcome = "error"
        if self._outcomes.get(report.nodeid) != "failed":
            self._outcomes[report.nodeid] = outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._target is not None:
            self._target.stop()
            self._sent.update(computes=self._target.computes, tasks=self._target.tasks() or 0)
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["conformance"] = dict(self._sent)
        path = session.config.getoption("--outcomes")
        if path is not None and not hasattr(session.config, "workerinput"):
            rows = {test: (outcome, round(self._seconds[test], 3)) for test, outcome in sorted(self._outcomes.items())}
            path.write_text(json.dumps(rows, indent=0))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._sent.update(getattr(node, "workeroutput", {}).get("conformance", {}))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        counts = Counter(self._outcomes.values())
        terminalreporter.section("conformance")
        terminalreporter.write_line(
            f"{len(self._outcomes)} tests: {counts['passed']} passed, {counts['skipped']} skipped and "
            f"{counts['xfailed']} expected to fail by Dask itself, {counts['listed']} listed, "
            f"{counts['failed'] + counts['error']} unexpected"
        )
        scheduler = self._config.getoption("--scheduler")
        if scheduler != "dask":
            tasks = f", {self._sent['tasks']} tasks" if scheduler == "eagleray" else ""
            terminalreporter.write_line(f"sent to {scheduler}: {self._sent['computes']} computations{tasks}")
