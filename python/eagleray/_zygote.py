"""The template process: forks workers, reaps them, and ends them with the driver.

Started as `python … <control socket> <driver pid> <session directory> <processors of a worker> <namespace>`. It stays
single-threaded: a child forked from a process with threads inherits locks that nobody will ever release.

The control socket carries one message a packet, numbers little-endian:

| from the driver | means |
|---|---|
| `F`, worker `u32`; two descriptors: its socket, its control page | fork a worker |
| `P`, module names, one a line | import these, so that later workers have them |
| `K`, worker `u32`, signal `u32` | send a signal to a worker, if it is still ours |
| `Q` | end all workers and exit |

| to the driver | means |
|---|---|
| `R` | ready: at the beginning, and after each `P` |
| `U`, worker `u32`, pid `u32` | the worker is up |
| `X`, worker `u32`, pid `u32`, wait status `i32`, peak memory in bytes `u64` | the worker has been reaped; once for each |
| `E`, text | something failed |

A fork that fails is an `E` and an `X` with pid 0 and exit code 1.
"""

from __future__ import annotations

import os

# Before NumPy and Arrow are imported: each worker has one slot, and their threads would end with the first fork.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")

import array
import contextlib
import gc
import importlib
import pickle  # noqa: F401  (loaded here so that no worker has to)
import random
import select
import shutil
import signal
import socket
import struct
import sys
import traceback
from dataclasses import dataclass
from typing import NoReturn

import cloudpickle  # noqa: F401  (as above)

from eagleray import _actor_process, _descriptors, _engine, _identity, _locks, _surroundings, _worker_output
from eagleray._engine import native
from eagleray._identity import Identity

_PRELOAD = frozenset({"numpy", "pandas", "pyarrow", "dask"})
_PACKET = 1 << 16
_TEXT = 4000
"""Bytes of an error's text: the driver reads packets of 4096."""
_WORKER = struct.Struct("<I")
_SIGNAL = struct.Struct("<II")
_UP = struct.Struct("<II")
_EXIT = struct.Struct("<IIiQ")


class _DriverGoneError(Exception):
    """The driver has closed the control socket or is dead."""


@dataclass(frozen=True, slots=True)
class _Child:
    worker: int
    pid: int
    pidfd: int


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _freeze() -> None:
    """Keeps the collector of every child away from what it shares with the template, so that the pages stay shared."""
    gc.collect()
    gc.freeze()


class Zygote:
    """The template's state and its loop."""

    def __init__(self, control: socket.socket, driver_pidfd: int, session_dir: str, namespace: str) -> None:
        self._control = control
        self._session_dir = session_dir
        self._namespace = namespace
        self._driver_pidfd = driver_pidfd
        self._children: dict[int, _Child] = {}
        """By pidfd."""
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(driver_pidfd, select.POLLIN)

    def run(self) -> None:
        """Serves until the driver says so. All workers are gone when it returns or raises.

        Raises:
            _DriverGoneError: The driver has ended without saying so.
        """
        try:
            self._send(b"R")
            while self._turn():
                pass
        finally:
            self._end_all()

    def _turn(self) -> bool:
        ready = [fd for fd, _ in self._poll.poll()]
        for fd in ready:
            if fd in self._children:
                self._reap(self._children[fd])
        if self._driver_pidfd in ready:
            raise _DriverGoneError
        return self._control.fileno() not in ready or self._request()

    def _send(self, message: bytes) -> None:
        try:
            self._control.send(message)
        except OSError as error:
            raise _DriverGoneError from error

    def _complain(self, text: str) -> None:
        self._send(b"E" + text.encode()[:_TEXT])

    def _refuse(self, worker: int, why: str) -> None:
        self._complain(f"worker {worker}: {why}")
        self._send(b"X" + _EXIT.pack(worker, 0, 1 << 8, 0))

    def _request(self) -> bool:
        """Serves one request; False if it was the last."""
        try:
            message, ancillary, _, _ = self._control.recvmsg(_PACKET, socket.CMSG_SPACE(2 * array.array("i").itemsize))
        except ConnectionError as error:
            raise _DriverGoneError from error
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data)
        if not message:
            raise _DriverGoneError
        kind_byte, body = message[:1], message[1:]
        if kind_byte == b"F" and len(body) == _WORKER.size and len(fds) == 2:
            self._fork(_WORKER.unpack(body)[0], fds[0], fds[1])
            return True
        for fd in fds:
            os.close(fd)
        if kind_byte == b"Q":
            return False
        if kind_byte == b"P":
            self._preload(body.decode("utf-8", "replace").splitlines())
        elif kind_byte == b"K" and len(body) == _SIGNAL.size:
            self._signal(*_SIGNAL.unpack(body))
        else:
            self._complain(f"a request that makes no sense: {message[:16]!r} with {len(fds)} descriptors")
        return True

    def _fork(self, worker: int, fd: int, page_fd: int) -> None:
        try:
            if _threads() != 1:
                self._refuse(worker, "the template has threads and must not fork")
                return
            sys.stdout.flush()
            sys.stderr.flush()
            try:
                pid = os.fork()
            except OSError as error:
                self._refuse(worker, f"fork failed: {error}")
                return
            if pid == 0:
                self._become_worker(worker, fd, page_fd)
        finally:
            os.close(fd)
            os.close(page_fd)
        with contextlib.suppress(OSError):  # the child does it too: whoever is first
            os.setpgid(pid, pid)
        child = _Child(worker, pid, os.pidfd_open(pid))
        self._children[child.pidfd] = child
        self._poll.register(child.pidfd, select.POLLIN)
        self._send(b"U" + _UP.pack(worker, pid))

    def _become_worker(self, worker: int, fd: int, page_fd: int) -> NoReturn:
        """Never returns, and never unwinds into the template's frames: those would end the other workers."""
        code = 1
        try:
            # A group of its own, so that what its tasks start can be ended with it.
            os.setpgid(0, 0)
            self._control.close()
            os.close(self._driver_pidfd)
            for child in self._children:
                os.close(child)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _worker_output.attach(self._session_dir, native.current_task, native.after_run)
            _surroundings.begin()
            _identity.take_on(Identity(self._session_dir, self._namespace, worker))
            random.seed()
            if "numpy" in sys.modules:
                sys.modules["numpy"].random.seed()
            native.worker_main(fd, page_fd, worker)
            _actor_process.end()
            code = 0
        except SystemExit as error:  # a task's
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _preload(self, names: list[str]) -> None:
        for name in names:
            if name.partition(".")[0] in _PRELOAD:
                # A worker that needs it will show the error where the user sees it.
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        if _threads() != 1:
            self._complain(f"importing {', '.join(names)} started threads in the template: it must not fork any more")
        _freeze()
        self._send(b"R")

    def _signal(self, worker: int, number: int) -> None:
        for child in self._children.values():
            if child.worker == worker:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(child.pidfd, number)

    def _collect(self, child: _Child) -> tuple[int, int]:
        """Waits for a child's end, ends what is left of its group, and returns wait status and peak memory in bytes."""
        # While it is a zombie its number cannot belong to another group.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        _, status, usage = os.wait4(child.pid, 0)
        self._poll.unregister(child.pidfd)
        del self._children[child.pidfd]
        os.close(child.pidfd)
        return status, usage.ru_maxrss << 10

    def _reap(self, child: _Child) -> None:
        self._send(b"X" + _EXIT.pack(child.worker, child.pid, *self._collect(child)))

    def _end_all(self) -> None:
        children = list(self._children.values())
        for child in children:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        for child in children:
            self._collect(child)


def _settle() -> None:
    """Leaves the driver's terminal: its Ctrl-C and its input are not for workers."""
    with contextlib.suppress(PermissionError):  # leads a session already
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        # What a task prints is seen when it prints it, also where the driver's output is a pipe. The driver may have none.
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _remove(session_dir: str) -> None:
    if os.path.basename(session_dir).startswith("eagleray-"):
        shutil.rmtree(session_dir, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """Runs the template: control socket's number, driver's pid, session directory, processors of a worker, namespace."""
    _descriptors.open_missing()
    control_fd, driver_pid, session_dir, processors, namespace = int(arguments[0]), int(arguments[1]), *arguments[2:]
    # How many threads Dask's own schedulers take inside a task.
    os.environ.setdefault("DASK_NUM_WORKERS", processors)
    # A copy, because the socket may well be the standard input, which tasks must not read.
    with socket.socket(fileno=os.dup(control_fd)) as control:
        if control_fd > 2:
            os.close(control_fd)
        _settle()
        # A process that a task forks still belongs to the session, as long as it has none of its own.
        _locks.in_session(lambda: _engine._session_dir or session_dir)
        if _threads() != 1:
            control.send(b"Ethe template has threads before it has forked anything")
            sys.exit(1)
        _freeze()
        try:
            Zygote(control, os.pidfd_open(driver_pid), session_dir, namespace).run()
        except (_DriverGoneError, ProcessLookupError):
            _remove(session_dir)


if __name__ == "__main__":
    main(sys.argv[1:])
