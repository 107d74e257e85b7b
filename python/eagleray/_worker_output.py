"""A worker's standard streams and events on their way to the driver, which reads them in `eagleray._output`.

The driver listens on a Unix socket in the session directory. A worker connects once, after the fork, and sends one byte
with two descriptors: the ends for reading of the pipes that are its descriptors 1 and 2 from then on. They are pipes and
no sockets so that `/dev/stdout` can be opened, and so that short lines of several processes do not mix. The connection
itself carries events: `EVENT` (token, length), then so many bytes of a pickle.

A line that Python writes begins with the task that writes it, `TAG` (graph's number, task's index). What C code or a
child process writes has no tag. An actor says once what it is called, `NAME`, which ends a line.
"""

from __future__ import annotations

import array
import contextlib
import faulthandler
import io
import os
import pickle
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SOCKET = "output"
"""The listening socket's name in the session directory."""
STREAMS = b"S"
"""First byte of a connection that brings the two pipes."""
EVENTS = b"E"
"""First byte of one that carries events only: a process forked from a worker has its own."""
EVENT = struct.Struct("<QI")
TAG = b"\x1e%d.%d\x1f"
NAME = b"\x1e=%b\x1f\n"

_MOST_NAME = 200
"""Characters of an actor's name."""

_MOST_HELD = 1 << 16
"""Bytes of an unfinished line that are held back."""

CurrentTask = Callable[[], tuple[int, int] | None]
AfterRun = Callable[[Callable[[], None]], None]


class _Lines(io.BufferedIOBase):
    """Writes whole lines to a descriptor, each with the tag of the task that writes it.

    An unfinished line is held back until somebody says `flush`. It ends before its task is reported, or when another task
    writes.
    """

    def __init__(self, fd: int, tags: _Tags, after_run: AfterRun) -> None:
        self._fd = fd
        self._tags = tags
        self._after_run = after_run
        self._lock = threading.RLock()
        self._tag = b""
        """Of the present line."""
        self._held = bytearray()
        """What was written of it and not sent."""
        self._amid = False
        """Whether something of it was sent."""
        self._asked = False
        """Whether the end of the run will end the line."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    @property
    def name(self) -> str:
        return "<stdout>" if self._fd == 1 else "<stderr>"

    def write(self, data: ReadableBuffer, /) -> int:
        text = bytes(data)
        with self._lock:
            tag = self._tags.now()
            if tag != self._tag:
                self._end_line()
                self._tag = tag
            end = text.rfind(b"\n") + 1
            if end:
                held, self._held = self._held, bytearray()
                self._send(held + text[:end])
            self._held += text[end:]
            if len(self._held) > _MOST_HELD:
                self.flush()
            if (self._held or self._amid) and not self._asked:
                self._asked = True
                self._after_run(self._run_over)
        return len(text)

    def flush(self) -> None:
        with self._lock:
            held, self._held = self._held, bytearray()
            if held:
                self._send(held)

    def _end_line(self) -> None:
        if self._held or self._amid:
            held, self._held = self._held, bytearray()
            self._send(held + b"\n")

    def _run_over(self) -> None:
        with self._lock:
            self._asked = False
            self._end_line()

    def _send(self, data: bytearray) -> None:
        ends = data.endswith(b"\n")
        if ends:
            del data[-1:]
        text = data.replace(b"\n", b"\n" + self._tag)
        if not self._amid:
            text[:0] = self._tag
        if ends:
            text += b"\n"
        self._amid = not ends
        self._write(text)

    def say(self, record: bytes) -> None:
        """Writes something that is for the driver itself."""
        with self._lock:
            self._end_line()
            self._write(record)

    def _write(self, data: ReadableBuffer) -> None:
        view = memoryview(data)
        # The driver may be gone; then this process will be, too.
        with contextlib.suppress(BrokenPipeError):
            while view:
                try:
                    view = view[os.write(self._fd, view) :]
                except BlockingIOError:  # a child process that shares the pipe has made it so
                    select.select([], [self._fd], [])

    def forked(self) -> None:
        """In a child: what is held back is the parent's to write, and no run ends here."""
        self._lock = threading.RLock()
        self._held = bytearray()
        self._asked = True


class _Tags:
    """Says which task writes."""

    def __init__(self, current_task: CurrentTask) -> None:
        self._current_task = current_task
        self._inherited: bytes | None = None
        """In a process that a task has forked: the tag of that task."""

    def now(self) -> bytes:
        if self._inherited is not None:
            return self._inherited
        task = self._current_task()
        return b"" if task is None else TAG % task

    def before_fork(self) -> None:
        self._at_fork = self.now()

    def forked(self) -> None:
        self._inherited = self._at_fork


class _Channel:
    """The connection to the driver."""

    def __init__(self, path: str, connection: socket.socket) -> None:
        self._path = path
        self._connection: socket.socket | None = connection
        self._lock = threading.Lock()

    def emit(self, token: int, payload: bytes) -> None:
        # The driver may be gone; then this process will be, too.
        with contextlib.suppress(OSError), self._lock:
            connection, self._connection = self._connection or self._connect(), None
            try:
                connection.sendall(EVENT.pack(token, len(payload)) + payload)
            except BaseException:  # a signal's handler may have raised amid a record
                connection.close()
                raise
            self._connection = connection

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        connection.sendall(EVENTS)
        return connection

    def forked(self) -> None:
        """In a child: records of two processes in one stream would mix."""
        connection, self._connection = self._connection, None
        self._lock = threading.Lock()
        if connection is not None:
            connection.close()


_channel: _Channel | None = None
_streams: list[_Lines] = []
"""Standard output and standard error, if the driver listens."""


def attach(session_dir: str, current_task: CurrentTask, after_run: AfterRun) -> None:
    """Sends this worker's output to the driver from now on. If the driver does not listen, nothing changes.

    Args:
        session_dir: The session's directory.
        current_task: Tells the number of the graph and the index of the task that runs in this process, if one does.
        after_run: Has a function called, once, when the present run of tasks is over, or before what is done of it is reported.
    """
    global _channel
    path = os.path.join(session_dir, SOCKET)
    pipes: list[int] = []
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        pipes += [*os.pipe(), *os.pipe()]
        rights = array.array("i", pipes[::2])
        connection.sendmsg([STREAMS], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os.dup2(pipes[1], 1)
        os.dup2(pipes[3], 2)
    except OSError:
        connection.close()
        return
    finally:
        for fd in pipes:
            os.close(fd)
    _channel = _Channel(path, connection)
    tags = _Tags(current_task)
    out, err = (_Lines(fd, tags, after_run) for fd in (1, 2))
    _streams[:] = out, err
    for name, lines in (("stdout", out), ("stderr", err)):
        stream = io.TextIOWrapper(lines, encoding="utf-8", errors="backslashreplace", write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.register_at_fork(before=tags.before_fork)
    for forked in (tags.forked, out.forked, err.forked, _channel.forked):
        os.register_at_fork(after_in_child=forked)
    faulthandler.enable(file=2)


def emit(token: int, record: object) -> None:
    """Sends an event to the driver, in order. Without effect where there is no way to it.

    Args:
        token: Who is to receive it: what `eagleray._output.subscribe` was called with.
        record: Anything that plain pickle takes.
    """
    if _channel is not None:
        _channel.emit(token, pickle.dumps(record, 5))


def call_it(name: str) -> None:
    """Says what the driver calls this process from now on, where it shows what that writes."""
    shown = "".join(letter if letter.isprintable() else " " for letter in name[:_MOST_NAME])
    for stream in _streams:
        stream.say(NAME % shown.encode(errors="replace"))
