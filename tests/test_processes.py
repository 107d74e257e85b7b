"""Processes: workers that die, Ctrl-C, and what is left when a session ends in whichever way."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import eagleray
from eagleray import _engine
from eagleray.dask import ray_dask_get
from tests import tasks
from tests.conftest import alive, children, until
from tests.tasks import inc, pid, pid_after


@pytest.mark.usefixtures("session")
def close_descriptors(_after: int) -> None:
    os.closerange(3, 256)


class TestWorkers:
    def test_tasks_run_in_other_processes_and_in_several(self) -> None:
        graph = {("pid", i): (pid_after, 0.02, i) for i in range(40)}
        pids = set(ray_dask_get(graph, list(graph)))
        assert os.getpid() not in pids
        assert len(pids) == 2

    def test_worker_killed_in_a_task_is_replaced(self, tmp_path: Path) -> None:
        path = str(tmp_path / "died")
        graph = {"x": (inc, 1), "a": (tasks.die_once, path), "b": (lambda a, x: (a, x), "a", "x")}
        assert ray_dask_get(graph, "b") == ("survived", 2)

    def test_a_task_that_takes_its_worker_with_it_at_the_end(self) -> None:
        """Its own result is never reported: the death is its, or it would be run again for ever."""
        with pytest.raises(eagleray.exceptions.WorkerCrashedError) as caught:
            ray_dask_get({"a": (inc, 1), "x": (close_descriptors, "a"), "b": (list, ["a", "x"])}, "b")
        assert "'x'" in str(caught.value) or "'b'" in str(caught.value)

    def test_worker_killed_from_outside(self, tmp_path: Path) -> None:
        path = tmp_path / "runs"
        graph = {("slow", i): (tasks.touch_and_sleep, str(path), 0.05) for i in range(40)}
        refs = ray_dask_get(graph, list(graph), ray_persist=True)
        until(lambda: path.exists() and len(path.read_text().split()) >= 4)
        victim = int(path.read_text().split()[-1])
        os.kill(victim, signal.SIGKILL)
        assert len(eagleray.get(list(refs))) == 40
        pids = [int(line) for line in path.read_text().split()]
        assert len(pids) >= 40
        assert len(set(pids)) >= 3

    def test_idle_workers_killed(self) -> None:
        ray_dask_get({"a": (pid,)}, "a")
        for worker in _engine.native.workers():
            if worker["pid"] and worker["state"] != "ended":
                os.kill(worker["pid"], signal.SIGKILL)
        assert ray_dask_get({"a": (inc, 1)}, "a") == 2

    def test_results_of_a_killed_worker_are_made_again(self) -> None:
        graph = {("a", i): (pid_after, 0.01, i) for i in range(20)}
        refs = ray_dask_get(graph, list(graph), ray_persist=True)
        pids = set(eagleray.get(list(refs)))
        for one in pids:
            os.kill(one, signal.SIGKILL)
        assert set(eagleray.get(list(refs))) == pids, "what is held was published, and outlives its worker"

    def test_children_of_a_task_may_be_forked(self) -> None:
        assert ray_dask_get({"a": (_fork,)}, "a") == 7


def test_the_collector_runs_in_a_child_forked_while_another_thread_has_suspended_it() -> None:
    inside, forked = threading.Event(), threading.Event()

    def suspend() -> None:
        with _engine.native.GcGuard():
            inside.set()
            forked.wait()

    thread = threading.Thread(target=suspend)
    thread.start()
    inside.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: there are threads
        child = os.fork()
    if child == 0:
        os._exit(0 if gc.isenabled() else 1)
    forked.set()
    thread.join()
    assert gc.isenabled()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _fork() -> int:
    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


DRIVER = """
import os, signal, sys, threading, time
import eagleray
from eagleray import _engine
from eagleray.dask import ray_dask_get
from tests import tasks
from tests.conftest import children

def say(*words):
    print(*words, flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
eagleray.init(num_cpus=2)
ray_dask_get({"a": (tasks.inc, 1)}, "a")
# The bare template, and the one with the driver's modules, each with a session of its own.
while len(templates := [pid for pid in children() if os.getsid(pid) == pid]) < 2:
    time.sleep(0.01)
workers = [worker["pid"] for worker in _engine.native.workers() if worker["state"] != "ended"]
say(_engine._session_dir, *templates, "|", *workers)
"""


class Driver:
    """A process with a session of its own."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER + textwrap.dedent(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        assert self.process.stdout is not None
        self.directory, *words = self.process.stdout.readline().split()
        at = words.index("|")
        self.templates = [int(word) for word in words[:at]]
        self.workers = [int(word) for word in words[at + 1 :]]
        assert self.workers

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def assert_nothing_left(self) -> None:
        until(lambda: not any(map(alive, [*self.templates, *self.workers])))
        until(lambda: not os.path.exists(self.directory))

    def close(self) -> None:
        self.process.kill()
        _, said = self.process.communicate()
        sys.stderr.write(said)  # for whom a test fails


def _children_of(process: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


@pytest.fixture
def drivers() -> Iterator[list[Driver]]:
    started: list[Driver] = []
    yield started
    for driver in started:
        driver.close()


class TestNothingIsLeft:
    @pytest.mark.parametrize(
        "ending",
        [
            "eagleray.shutdown()",
            "",
            "raise RuntimeError",
            "sys.exit(3)",
            "os._exit(3)",
            "os.kill(os.getpid(), signal.SIGKILL)",
            "os.kill(os.getpid(), signal.SIGTERM)",
            "refs = ray_dask_get({'a': (tasks.sleep, 600)}, ['a'], ray_persist=True)",
            "ref = eagleray.put(b'x' * 1_000_000); view = eagleray.get(ref)",
        ],
    )
    def test_after(self, drivers: list[Driver], ending: str) -> None:
        driver = Driver(ending)
        drivers.append(driver)
        driver.process.wait()
        driver.assert_nothing_left()

    def test_after_kill_in_the_middle_of_a_compute(self, drivers: list[Driver], tmp_path: Path) -> None:
        path = tmp_path / "started"
        driver = Driver(f"ray_dask_get({{'a': (tasks.touch_and_sleep, {str(path)!r}, 600)}}, 'a')")
        drivers.append(driver)
        until(path.exists)
        driver.process.kill()
        driver.process.wait()
        driver.assert_nothing_left()

    def test_session_survives_its_template(self, drivers: list[Driver]) -> None:
        driver = Driver(
            """
            sys.stdin.readline()
            say(ray_dask_get({("a", i): (tasks.inc, i) for i in range(100)}, [("a", 99)]))
            """
        )
        drivers.append(driver)
        for template in driver.templates:
            os.kill(template, signal.SIGKILL)
        assert driver.process.stdin is not None
        driver.process.stdin.write("go\n")
        driver.process.stdin.flush()
        assert driver.line() == "[100]"
        driver.process.wait()
        driver.assert_nothing_left()


class TestInterrupt:
    def test_ctrl_c_returns_and_the_session_goes_on(self, drivers: list[Driver], tmp_path: Path) -> None:
        path = tmp_path / "started"
        driver = Driver(
            f"""
            graph = {{("a", i): (tasks.touch_and_sleep, {str(path)!r}, 0.3) for i in range(100)}}
            try:
                ray_dask_get(graph, list(graph))
            except KeyboardInterrupt:
                say("interrupted")
            say(ray_dask_get({{"b": (tasks.inc, 1)}}, "b"))
            """
        )
        drivers.append(driver)
        until(path.exists)
        driver.process.send_signal(signal.SIGINT)
        assert driver.line() == "interrupted"
        assert driver.line() == "2"
        driver.process.wait()
        assert driver.process.returncode == 0
        assert len(path.read_text().split()) < 50, "the rest was cancelled"
        driver.assert_nothing_left()

    def test_ctrl_c_of_a_terminal_does_not_reach_workers(self, drivers: list[Driver]) -> None:
        driver = Driver("sys.stdin.readline()")
        drivers.append(driver)
        for process in (*driver.templates, *driver.workers):
            assert os.getsid(process) in driver.templates

    def test_ctrl_c_while_hooks_are_called(self) -> None:
        before = children()
        from eagleray.dask import RayDaskCallback

        def hook(*args: object) -> None:
            raise KeyboardInterrupt

        with RayDaskCallback(ray_postsubmit=hook):
            with pytest.raises(KeyboardInterrupt):
                ray_dask_get({"a": (inc, 1)}, "a", num_workers=1)
        assert ray_dask_get({"a": (inc, 1)}, "a") == 2
        eagleray.shutdown()
        assert children() <= before
