"""The template process, driven as the driver drives it. The native module is replaced: nothing here runs a task."""

import array
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# A worker that says what it is, then obeys one byte at a time.
PROGRAM = """
import os, random, signal, subprocess, sys, types
native = types.ModuleType("eagleray._native")
native.ObjectRef = object

def worker_main(fd, page_fd, worker):
    import socket
    link = socket.socket(fileno=fd)
    link.send(repr({
        "worker": worker, "pid": os.getpid(), "random": random.random(), "page": os.pread(page_fd, 4, 0),
        "threads": len(os.listdir("/proc/self/task")), "numpy": "numpy" in sys.modules, "sid": os.getsid(0),
        "sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN, "stdin": os.readlink("/proc/self/fd/0"),
        "fds": sorted(int(name) for name in os.listdir("/proc/self/fd")), "mine": [fd, page_fd],
    }).encode())
    while order := link.recv(1):
        if order == b"r":
            raise RuntimeError("on purpose")
        if order == b"c":
            child = subprocess.Popen(["sleep", "600"])
            link.send(str(child.pid).encode())

native.worker_main = worker_main
native.current_task = native.after_run = native.task_key = lambda *_: None
sys.modules["eagleray._native"] = native
from eagleray import _zygote
_zygote.main(sys.argv[1:])
"""


class Template:
    """The driver's end."""

    def __init__(self, driver: int | None = None) -> None:
        self.directory = tempfile.mkdtemp(prefix="eagleray-")
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(60)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, "0", str(driver or os.getpid()), self.directory, "1", "here"],
                stdin=theirs,
                stderr=subprocess.PIPE,
            )

    def fork(self, worker: int) -> tuple[socket.socket, int, dict[str, object]]:
        """The driver's end of the worker's socket, its pid, and what it says of itself."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(60)
        page = os.memfd_create("page")
        os.write(page, b"page")
        fds = array.array("i", [theirs.fileno(), page])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
        self.control.sendmsg([b"F" + struct.pack("<I", worker)], rights)
        theirs.close()
        os.close(page)
        up = self.control.recv(4096)
        assert up[:1] == b"U"
        said, pid = struct.unpack("<II", up[1:])
        assert said == worker
        return ours, pid, eval(ours.recv(4096))

    def exited(self) -> tuple[int, int, int]:
        """Worker, pid and wait status of the next that was reaped."""
        message = self.control.recv(4096)
        assert message[:1] == b"X"
        worker, pid, status, peak = struct.unpack("<IIiQ", message[1:])
        assert peak > 1 << 20 or not pid
        return worker, pid, status

    def close(self) -> None:
        self.control.close()
        self.process.wait(60)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def template() -> Iterator[Template]:
    it = Template()
    assert it.control.recv(4096) == b"R"
    yield it
    it.close()
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(it.directory)


def until(condition: Callable[[], bool]) -> None:
    """Waits for what must come; pytest's own limit ends a wait for what does not."""
    while not condition():
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_forked_worker_has_what_it_needs_and_nothing_else(template: Template) -> None:
    first, _, _ = template.fork(1)
    second, pid, said = template.fork(2)
    with first, second:
        assert said["pid"] == pid
        assert said["worker"] == 2
        assert said["page"] == b"page"
        assert said["threads"] == 1
        assert said["sid"] == template.process.pid, "a session of its own, away from the terminal"
        assert said["sigint"] is True
        assert said["stdin"] == os.devnull
        fds = said["fds"]
        assert isinstance(fds, list)
        assert isinstance(said["mine"], list)
        others = set(fds) - {0, 1, 2, *said["mine"]}
        assert len(others) == 1, "the one that listed them"


def test_workers_differ_in_random_numbers(template: Template) -> None:
    first, _, one = template.fork(1)
    second, _, two = template.fork(2)
    with first, second:
        assert one["random"] != two["random"]


def test_each_end_is_reported_once(template: Template) -> None:
    links = [template.fork(worker) for worker in range(3)]
    links[0][0].close()  # leaves its loop
    assert template.exited() == (0, links[0][1], 0)
    links[1][0].send(b"r")  # raises
    worker, pid, status = template.exited()
    assert (worker, pid, os.waitstatus_to_exitcode(status)) == (1, links[1][1], 1)
    template.control.send(b"K" + struct.pack("<II", 2, signal.SIGKILL))
    worker, pid, status = template.exited()
    assert (worker, pid, os.waitstatus_to_exitcode(status)) == (2, links[2][1], -signal.SIGKILL)
    template.control.send(b"K" + struct.pack("<II", 2, signal.SIGKILL))  # no longer ours: nothing happens
    last, _, _ = template.fork(3)
    with last:
        assert not select.select([template.control], [], [], 0)[0]
    template.exited()
    for link, _, _ in links:
        link.close()


def test_what_a_worker_started_ends_with_it(template: Template) -> None:
    link, pid, _ = template.fork(1)
    link.send(b"c")
    child = int(link.recv(64))
    os.kill(pid, signal.SIGKILL)
    template.exited()
    until(lambda: gone(child))
    link.close()


def test_preloaded_modules_are_in_later_workers_and_start_no_thread(template: Template) -> None:
    before, _, said = template.fork(1)
    assert said["numpy"] is False
    template.control.send(
        b"P" + b"\n".join([b"numpy", b"pandas", b"pyarrow", b"dask.array", b"antigravity", b"numpy.nope"])
    )
    assert template.control.recv(4096) == b"R"
    after, _, said = template.fork(2)
    assert said["numpy"] is True
    assert said["threads"] == 1
    before.close()
    after.close()
    assert {template.exited()[0], template.exited()[0]} == {1, 2}


def test_nonsense_is_answered_not_obeyed(template: Template) -> None:
    for packet in (b"?", b"F", b"F\1\0\0\0", b"K\1", b"\0" * 100):
        template.control.send(packet)
        assert template.control.recv(4096)[:1] == b"E"
    link, _, _ = template.fork(1)
    link.close()
    template.exited()


def test_quit_ends_all(template: Template) -> None:
    links = [template.fork(worker) for worker in range(2)]
    template.control.send(b"Q")
    assert template.process.wait(60) == 0
    for link, pid, _ in links:
        assert gone(pid)
        link.close()
    assert os.path.isdir(template.directory), "who says quit removes it"


def test_closed_control_socket_means_the_driver_is_gone(template: Template) -> None:
    link, pid, _ = template.fork(1)
    template.control.close()
    template.process.wait(60)
    assert gone(pid)
    assert not os.path.exists(template.directory)
    link.close()


def test_driver_killed_while_others_hold_the_socket() -> None:
    """End-of-file alone would not do: a process forked from the driver may keep the socket open."""
    driver = subprocess.Popen(["sleep", "600"])
    template = Template(driver.pid)
    assert template.control.recv(4096) == b"R"
    link, pid, _ = template.fork(1)
    driver.kill()
    driver.wait()
    template.process.wait(60)
    assert gone(pid)
    assert not os.path.exists(template.directory)
    link.close()
    template.close()


def test_template_with_threads_refuses() -> None:
    program = textwrap.dedent(
        """
        import threading
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        """
    )
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with control, theirs:
        command = [sys.executable, "-c", program + PROGRAM, "0", str(os.getpid()), "/nonexistent", "1", "here"]
        assert subprocess.run(command, stdin=theirs, timeout=60, check=False).returncode == 1
        assert control.recv(4096)[:1] == b"E"
