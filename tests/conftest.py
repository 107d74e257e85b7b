"""Sessions for tests, and the check that they leave nothing behind."""

import contextlib
import glob
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import eagleray
from eagleray import _engine


def children() -> set[int]:
    """The processes that this one started, zombies included."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found.update(map(int, (task / "children").read_text().split()))
    return found


def session_dirs() -> set[str]:
    return set(glob.glob(os.path.join(tempfile.gettempdir(), f"eagleray-{os.getpid()}-*")))


def until(condition: Callable[[], bool]) -> None:
    """Waits for what must come. That it never comes is for the test's own time limit to notice."""
    while not condition():
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def fresh() -> Iterator[None]:
    """No session before the test, none after it, and nothing left of the test's."""
    eagleray.shutdown()
    before, dirs = children(), session_dirs()
    yield
    eagleray.shutdown()
    assert children() <= before
    assert session_dirs() <= dirs


@pytest.fixture
def session(fresh: None) -> None:
    """Two workers, of this test alone."""
    eagleray.init(num_cpus=2)


@pytest.fixture(scope="module")
def shared() -> Iterator[None]:
    """Two workers for all tests of a module."""
    eagleray.shutdown()
    eagleray.init(num_cpus=2)
    yield
    eagleray.shutdown()


def counted(work: Callable[[], object]) -> dict[str, int]:
    """How much the session's counters rise meanwhile."""
    before = _engine.native.counters()
    work()
    after = _engine.native.counters()
    return {name: after[name] - before.get(name, 0) for name in after}
