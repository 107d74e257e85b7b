"""Messages of eagleray itself: quiet by default, more of them where `EAGLERAY_LOG` asks for it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
import eagleray
from eagleray.dask import ray_dask_get
from tests import tasks
eagleray.init(num_cpus=1)
assert ray_dask_get({"a": (tasks.inc, 1)}, "a") == 2
"""


def messages(directives: str | None, program: str = PROGRAM) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "EAGLERAY_LOG"}
    if directives is not None:
        environment["EAGLERAY_LOG"] = directives
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == ""
    return ended.stderr.splitlines()


@pytest.mark.parametrize("directives", [None, "", "info,eagleray_runtime=warn", "off"])
def test_nothing_is_said(directives: str | None) -> None:
    assert messages(directives) == []


def test_info_is_about_the_session() -> None:
    first, last = messages("info")
    assert "INFO eagleray_runtime::session: the session starts slots=1 store_bytes=" in first
    assert "the session stops" in last


def test_debug_is_about_workers_and_graphs() -> None:
    said = messages("debug")
    for what in ("a template process starts", "a worker is up", "a graph is submitted peer=0 graph=1 tasks=1"):
        assert any(what in line for line in said), what
    assert not any("TRACE" in line for line in said)
    assert not any("\x1b" in line for line in said), "colours are for terminals"


def test_trace_is_about_runs_and_comes_from_workers_too() -> None:
    said = messages("warn,eagleray_native=trace")
    assert any(line.startswith("(pid=") and "TRACE eagleray_native::worker: a run begins" in line for line in said)
    assert not any("eagleray_runtime" in line for line in said)


@pytest.mark.parametrize("directives", ["loud", "debugg", "eagleray_runtime=loud", "requests=debug"])
def test_what_is_not_understood_is_said_once_and_harmless(directives: str) -> None:
    (line,) = messages(directives)
    assert f'WARN eagleray_native::logging: EAGLERAY_LOG="{directives}" is not understood' in line
    assert "Write a level" in line


def test_end_of_a_worker_says_how() -> None:
    said = messages(
        "debug",
        """
        import eagleray
        from eagleray.dask import ray_dask_get
        from tests import tasks
        eagleray.init(num_cpus=1)
        try:
            ray_dask_get({"a": (tasks.die, 9)}, "a")
        except eagleray.exceptions.WorkerCrashedError:
            pass
        """,
    )
    assert any("a worker has ended worker=0" in line and "Signalled(9)" in line for line in said)


def test_messages_that_cannot_be_written_are_no_reason_to_fail() -> None:
    assert messages("trace", "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 2)\n" + PROGRAM) == []
