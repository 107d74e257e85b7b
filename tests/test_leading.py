"""A thread that waits for results runs the session's loop meanwhile. Nobody else notices."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import eagleray
from eagleray import _engine
from eagleray.exceptions import GetTimeoutError, TaskCancelledError
from tests.conftest import until


@eagleray.remote
def add(a: int, b: int) -> int:
    return a + b


@eagleray.remote
def process() -> tuple[int, set[int]]:
    return os.getpid(), os.sched_getaffinity(0)


@eagleray.remote(max_retries=-1)
def until_there(path: str) -> str:
    Path(path + ".begun").touch()
    until(lambda: os.path.exists(path))
    return path


def template() -> int:
    """The process that has forked the first of the workers."""
    pid = next(worker["pid"] for worker in _engine.native.workers() if worker["state"] != "ended")
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def alarms() -> list[str]:
    """How often each of the alarms was rung with which other threads are woken."""
    files = Path("/proc/self/fdinfo").iterdir()
    return [
        line for file in files if file.exists() for line in file.read_text().splitlines() if "eventfd-count" in line
    ]


def watched_in_vain() -> list[str]:
    """What this process sleeps for in `epoll` and has closed."""
    found = []
    for poller in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # what this loop has itself
            if os.readlink(poller) != "anon_inode:[eventpoll]":
                continue
            for line in Path("/proc/self/fdinfo", poller.name).read_text().splitlines():
                if line.startswith("tfd:"):
                    fd, inode = line.split()[1], int(line.partition("ino:")[2].split()[0], 16)
                    with contextlib.suppress(OSError):
                        if os.stat(f"/proc/self/fd/{fd}").st_ino == inode:
                            continue
                    found.append(line)
    return found


@pytest.mark.usefixtures("session")
class TestThreads:
    def test_many_submit_wait_and_give_up_while_workers_die(self) -> None:
        over = threading.Event()
        rounds = [0] * 8

        def work(number: int) -> None:
            while not over.is_set():
                a = add.remote(number, rounds[number])
                b = add.remote(a, 1)
                assert eagleray.wait([a, b], num_returns=2, timeout=0)[1] is not None
                if rounds[number] % 3 == 0:
                    eagleray.cancel(b)
                with contextlib.suppress(GetTimeoutError, TaskCancelledError):
                    assert eagleray.get(b, timeout=None if number % 2 else 0.001) == number + rounds[number] + 1
                assert eagleray.get(a) == number + rounds[number]
                rounds[number] += 1

        with ThreadPoolExecutor(len(rounds)) as pool:
            works = [pool.submit(work, number) for number in range(len(rounds))]
            try:
                for _ in range(8):
                    for worker in _engine.native.workers():
                        if worker["state"] == "idle":
                            os.kill(worker["pid"], signal.SIGKILL)
                    for number, (seen, done) in enumerate(zip(list(rounds), works, strict=True)):
                        while rounds[number] == seen and not done.done():
                            time.sleep(0.005)
            finally:
                over.set()
            for done in works:
                done.result()
        assert eagleray.get([add.remote(i, 1) for i in range(100)]) == list(range(1, 101))

    def test_workers_have_nothing_of_the_thread_that_waits(self, tmp_path: Path) -> None:
        """A template is started while it leads: it is not bound to the processors of that thread, and outlives it."""
        processors = os.sched_getaffinity(0)
        path, found = str(tmp_path / "file"), []

        def wait() -> None:
            os.sched_setaffinity(0, {min(processors)})  # of this thread
            found.append(eagleray.get(until_there.remote(path)))

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: os.path.exists(path + ".begun"))
        os.unlink(path + ".begun")
        old = template()
        os.kill(old, signal.SIGKILL)
        until(lambda: os.path.exists(path + ".begun"))
        assert template() != old
        Path(path).touch()
        thread.join()
        assert found == [path]
        until(lambda: not Path(f"/proc/{os.getpid()}/task/{thread.native_id}").exists())
        seen = [eagleray.get(process.remote()) for _ in range(20)]
        assert {pid for pid, _ in seen} <= {
            worker["pid"] for worker in _engine.native.workers() if worker["state"] != "ended"
        }
        assert all(its == processors for _, its in seen)

    def test_a_process_is_forked_while_a_thread_waits(self, tmp_path: Path) -> None:
        path = str(tmp_path / "file")
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(eagleray.get, until_there.remote(path))
            until(lambda: os.path.exists(path + ".begun"))
            child = os.fork()
            if child == 0:
                os._exit(7 if not eagleray.is_initialized() else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            Path(path).touch()
            assert waits.result() == path
        assert eagleray.get(add.remote(1, 1)) == 2

    def test_a_forked_process_drops_arrays_without_a_word(self) -> None:
        """It finds locks as they were in the moment of the fork, and nobody there who would ever let go of them."""
        refs = [eagleray.put(np.ones(20_000)) for _ in range(4)]
        for _ in range(20):
            arrays = eagleray.get(refs)
            time.sleep(0.01)  # so that the session's thread sleeps, and would have to be woken
            child = os.fork()
            if child == 0:
                before = alarms()
                arrays.clear()
                os._exit(0 if alarms() == before else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            del arrays

    def test_workers_end_that_a_forked_process_has_sockets_of(self, tmp_path: Path) -> None:
        """What the kernel still watches for its sake must not keep the leader busy for ever."""
        read, write = os.pipe()
        children = []
        try:
            # Which of them is seen to end first, they or their template, is chance.
            for number in range(8):
                ref = until_there.remote(path := str(tmp_path / f"file{number}"))
                until(lambda path=path: os.path.exists(path + ".begun"))
                os.unlink(path + ".begun")
                children.append(os.fork())
                if children[-1] == 0:
                    os.close(write)
                    os.read(read, 1)
                    os._exit(0)
                os.kill(template(), signal.SIGKILL)
                until(lambda path=path: os.path.exists(path + ".begun"))
                Path(path).touch()
                assert eagleray.get(ref) == path
            until(lambda: not watched_in_vain())
        finally:
            os.close(write)
            os.close(read)
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)

    def test_the_session_ends_while_threads_wait(self, tmp_path: Path) -> None:
        path = str(tmp_path / "file")
        ref = until_there.remote(path)
        with ThreadPoolExecutor(3) as pool:
            waits = [pool.submit(eagleray.get, ref) for _ in range(3)]
            until(lambda: os.path.exists(path + ".begun"))
            eagleray.shutdown()
            for wait in waits:
                assert isinstance(wait.exception(), eagleray.exceptions.EaglerayError | RuntimeError)


def test_ctrl_c_reaches_the_thread_that_leads(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    program = f"""
        import signal, eagleray
        from tests.test_leading import until_there, add
        signal.signal(signal.SIGINT, signal.default_int_handler)
        eagleray.init(num_cpus=1)
        try:
            eagleray.get(until_there.remote({path!r}))
        except KeyboardInterrupt:
            open({path!r}, "w").close()
            print(eagleray.get(add.remote(1, 1)))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent) as driver:
        until(lambda: os.path.exists(path + ".begun") or driver.poll() is not None)
        driver.send_signal(signal.SIGINT)
        assert driver.communicate()[0] == "2\n"
    assert driver.returncode == 0
