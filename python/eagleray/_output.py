"""What workers print, and the events they emit, in the driver. The workers' side, and the format, is `_worker_output`.

One thread reads everything that arrives and writes it to whatever `sys.stdout` and `sys.stderr` are at that moment, so
that notebooks and test runners see it. `drain` does the same in the thread that calls it: what a task printed before it
ended stands there before `compute` returns. Of lines that several workers write alike only the first does: see `_repeats`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import select
import socket
import struct
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TextIO

from eagleray import _repeats
from eagleray._worker_output import EVENT, EVENTS, SOCKET, STREAMS

KeyOf = Callable[[int, int], object]
Answer = Callable[[socket.socket], object]

_LAST_LINES = 20
_MOST_DEAD = 64
"""Of how many workers that have ended the last lines are kept."""
_MOST_LINE = 1 << 16
"""Bytes of a line that are shown."""
_MOST_KEY = 200
"""Characters of a key that are shown."""
_READ = 1 << 16
"""Bytes read at a time: what a pipe holds."""
_ROUNDS = 3
"""A new worker connects in the first, says what it is in the second, and what it wrote is read in the third."""
_READS = 16
"""Reads of one source at a time, so that `drain` ends while others go on writing: all that was there fits."""

_PATIENCE = 5.0
"""Seconds that others wait for the thread that writes."""

_MOST_INQUIRERS = 8
"""So many are answered at a time."""

INQUIRIES = "inquiries"
"""The socket in a session's directory for who wants to know something of the session."""

_TAG = re.compile(rb"\x1e(\d{1,20})\.(\d{1,10})\x1f")
_NAME = re.compile(rb"\x1e=([^\x1e\x1f]{1,800})\x1f$")
_PEER = struct.Struct("3i")


class _Worker:
    """What is known of a process that has connected."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self.streams: list[_Stream] = []
        self.name = ""
        """What it is called: an actor says so."""


class _Stream:
    """The output of a worker that is read from one pipe."""

    def __init__(self, worker: _Worker, fd: int, name: str) -> None:
        self.worker = worker
        self.fd = fd
        self.name = name
        self._rest = b""
        self._cut = False
        """Whether the rest of the present line is dropped."""

    def feed(self, data: bytes) -> list[bytes]:
        """Takes in what was read and returns the lines that are complete, without their ends."""
        lines = (self._rest + data).split(b"\n")
        if self._cut:
            if len(lines) == 1:
                return []
            del lines[0]
            self._cut = False
        self._rest = lines.pop()
        if len(self._rest) > _MOST_LINE:
            # What a terminal would show of a progress bar: what stands after the last return.
            self._rest = self._rest[self._rest.rstrip(b"\r").rfind(b"\r") + 1 :]
        if len(self._rest) > _MOST_LINE:
            lines.append(self._rest)
            self._rest, self._cut = b"", True
        return lines

    def rest(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest


class _Events:
    """The events of a process."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Takes in what was read and returns the records that are complete: token and pickle."""
        self._buffer += data
        records = []
        at = 0
        while len(self._buffer) >= at + EVENT.size:
            token, length = EVENT.unpack_from(self._buffer, at)
            begin, end = at + EVENT.size, at + EVENT.size + length
            if len(self._buffer) < end:
                break
            records.append((token, bytes(self._buffer[begin:end])))
            at = end
        del self._buffer[:at]
        return records


def _pieces(line: bytes) -> list[tuple[tuple[int, int] | None, bytes]]:
    """A line, divided where a tag stands in it: before that something wrote that knows no tags and left its line open."""
    pieces: list[tuple[tuple[int, int] | None, bytes]] = []
    task, at = None, 0
    for tag in _TAG.finditer(line):
        if tag.start() > at:
            pieces.append((task, line[at : tag.start()]))
        task, at = (int(tag[1]), int(tag[2])), tag.end()
    if at < len(line) or task is not None or not pieces:
        pieces.append((task, line[at:]))
    return pieces


def _text(line: bytes) -> str:
    line = line.rstrip(b"\r")
    line = line[line.rfind(b"\r") + 1 :]
    if len(line) > _MOST_LINE:
        return f"{line[:_MOST_LINE].decode(errors='replace')} [the rest of the line is left out]"
    return line.decode(errors="replace")


class Output:
    """Listens in a session directory, and reads in a thread of its own, until it is closed.

    Raises OSError if it cannot listen there.
    """

    def __init__(self, session_dir: str, key_of: KeyOf, shown: bool, answer: Answer | None = None) -> None:
        self._key_of = key_of
        self._answer = answer
        self._shown = shown
        self._repeats = _repeats.Repeats(_write) if shown and _repeats.wanted() else None
        self._lock = threading.RLock()
        """Held by the thread that reads and writes."""
        self._busy = False
        """Set while one reads: what it writes to, or calls, may come back here."""
        self._workers: dict[int, _Worker] = {}
        """By pid, in the order of their beginning."""
        self._sources: dict[int, _Stream | _Events] = {}
        """By descriptor."""
        self._strangers: dict[int, socket.socket] = {}
        """Connections that have not said yet what they are."""
        self._subscribers: dict[int, Callable[[object], object]] = {}
        self._prefix: tuple[object, str] = (None, "")
        """The prefix made last, after what it was made from: neighbours mostly have the same."""
        self._path = os.path.join(session_dir, SOCKET)
        self._inquiries_path = os.path.join(session_dir, INQUIRIES)
        self._closed = False
        self._listener = _listening(self._path, 4096)
        try:
            self._inquiries = _listening(self._inquiries_path, 8)
        except OSError:
            self._listener.close()
            raise
        self._inquirers: dict[threading.Thread, socket.socket] = {}
        """Who is being answered, and by which thread."""
        self._wake = os.eventfd(0)
        self._epoll = select.epoll()
        for fd in (self._listener.fileno(), self._inquiries.fileno(), self._wake):
            self._epoll.register(fd, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="eagleray-output", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            due = None if self._repeats is None else self._repeats.due
            ready = self._epoll.poll(None if due is None else max(0.0, due - time.monotonic()))
            if any(fd == self._wake for fd, _ in ready):
                # Only here, and before `_closed` is looked at: no call of `_end` is missed.
                os.eventfd_read(self._wake)
            self.drain()
        with self._lock:
            self.abandon()

    def drain(self) -> None:
        """Writes and delivers all that has arrived."""
        # Not for ever: the stream that the other thread writes to may wait for this one.
        if self._lock.acquire(timeout=_PATIENCE):
            try:
                if not self._busy:
                    self._drain()
            finally:
                self._lock.release()

    def _drain(self) -> None:
        self._busy = True
        due = None if self._repeats is None else self._repeats.due
        try:
            for _ in range(_ROUNDS):
                ready = [] if self._closed else self._epoll.poll(0)
                if not ready:
                    break
                for fd, _ in ready:
                    self._read(fd)
            if self._repeats is not None and not self._closed:
                self._keep_time(self._repeats, due)
        except OSError as error:
            # A worker must not wait for somebody who reads no more.
            self._end()
            if self._repeats is not None:
                self._repeats.show_all()
            _write("stderr", f"eagleray cannot read the output of workers any more: {error}\n")
        finally:
            self._busy = False

    def _keep_time(self, repeats: _repeats.Repeats, before: float | None) -> None:
        """Shows what is due. If something is due earlier than it was `before`, the thread is to know."""
        if repeats.due is not None and time.monotonic() >= repeats.due:
            repeats.show_due(time.monotonic())
        due = repeats.due
        if due is not None and (before is None or due < before) and threading.current_thread() is not self._thread:
            os.eventfd_write(self._wake, 1)

    def _read(self, fd: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        elif fd == self._inquiries.fileno():
            self._accept_inquirer()
        elif fd in self._strangers:
            self._meet(fd)
        elif fd in self._sources:
            source = self._sources[fd]
            for _ in range(_READS):
                more = self._read_stream(source) if isinstance(source, _Stream) else self._read_events(source)
                if not more:
                    break

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._strangers[connection.fileno()] = connection
                self._epoll.register(connection, select.EPOLLIN)

    def _accept_inquirer(self) -> None:
        """Has a thread of its own answer who wants to know something of the session: this one has workers to read."""
        # No descriptor or no thread left for it: nobody else should suffer.
        with contextlib.suppress(OSError, RuntimeError):
            connection, _ = self._inquiries.accept()
            self._inquirers = {thread: asked for thread, asked in self._inquirers.items() if thread.is_alive()}
            if (
                self._answer is None
                or _peer_of(connection)[1] != os.geteuid()
                or len(self._inquirers) >= _MOST_INQUIRERS
            ):
                connection.close()
                return
            thread = threading.Thread(target=self._answer, args=(connection,), name="eagleray-inquiry", daemon=True)
            thread.start()
            self._inquirers[thread] = connection

    def _meet(self, fd: int) -> None:
        """Learns what a new connection is. The directory keeps others out; this makes sure before anything is unpickled."""
        connection = self._strangers.pop(fd)
        pid, uid = _peer_of(connection)
        try:
            kind, pipes, _, _ = socket.recv_fds(connection, 1, 2, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            kind, pipes = b"", []
        if uid != os.geteuid() or kind not in (STREAMS, EVENTS) or len(pipes) != (2 if kind == STREAMS else 0):
            self._epoll.unregister(fd)
            connection.close()
            for pipe in pipes:
                os.close(pipe)
            return
        self._sources[fd] = _Events(connection)
        if kind == STREAMS:
            self._add_worker(pid, pipes)

    def _add_worker(self, pid: int, pipes: list[int]) -> None:
        worker = _Worker(pid)
        self._workers.pop(pid, None)
        self._workers[pid] = worker
        for fd, name in zip(pipes, ("stdout", "stderr"), strict=True):
            os.set_blocking(fd, False)
            stream = _Stream(worker, fd, name)
            worker.streams.append(stream)
            self._sources[fd] = stream
            self._epoll.register(fd, select.EPOLLIN)
        ended = [pid for pid, worker in self._workers.items() if not worker.streams]
        for pid in ended[:-_MOST_DEAD]:
            del self._workers[pid]

    def _read_stream(self, stream: _Stream) -> bool:
        """Reads once; False if there is nothing more for now."""
        try:
            data = os.read(stream.fd, _READ)
        except BlockingIOError:
            return False
        if data:
            self._show(stream, stream.feed(data))
            return True
        self._epoll.unregister(stream.fd)
        del self._sources[stream.fd]
        os.close(stream.fd)
        stream.worker.streams.remove(stream)
        if rest := stream.rest():
            self._show(stream, [rest], whole=False)
        return False

    def _show(self, stream: _Stream, lines: list[bytes], whole: bool = True) -> None:
        """Shows lines. If they are not `whole`, each stands for itself."""
        worker = stream.worker
        repeats = self._repeats if whole else None
        now = time.monotonic()
        shown = []
        for line in lines:
            named = _NAME.search(line) if line.endswith(b"\x1f") else None
            if named:
                worker.name = named[1].decode(errors="replace")
            rest = line[: named.start()] if named else line
            if named and not rest:
                continue
            pieces = _pieces(rest)
            for task, piece in pieces:
                text = _text(piece)
                worker.last.append(text)
                prefix = self._prefix_of(worker, task)
                # The states of a progress bar, and what was left open, are no whole lines.
                mergeable = repeats is not None and len(pieces) == 1 and b"\r" not in piece.rstrip(b"\r")
                if repeats and mergeable and repeats.withholds(stream.name, text, prefix, worker.pid, now):
                    continue
                shown.append(f"{prefix}{text}\n")
        if shown and self._shown:
            _write(stream.name, "".join(shown))

    def _prefix_of(self, worker: _Worker, task: tuple[int, int] | None) -> str:
        pid = worker.pid
        source = (pid, task, worker.name)
        if self._prefix[0] != source:
            key = worker.name or (None if task is None else self._key_of(*task))
            name = "" if key is None else key if isinstance(key, str) else repr(key)
            if len(name) > _MOST_KEY:
                name = f"{name[:_MOST_KEY]}..."
            self._prefix = (source, f"({name}, pid={pid}) " if name else f"(pid={pid}) ")
        return self._prefix[1]

    def _read_events(self, events: _Events) -> bool:
        """Reads once; False if there is nothing more for now."""
        try:
            data = events.connection.recv(_READ)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            fd = events.connection.fileno()
            self._epoll.unregister(fd)
            del self._sources[fd]
            events.connection.close()
            return False
        for token, payload in events.feed(data):
            if subscriber := self._subscribers.get(token):
                try:
                    subscriber(pickle.loads(payload))
                except Exception:
                    traceback.print_exc()
        return True

    def subscribe(self, token: int, callback: Callable[[object], object]) -> None:
        self._subscribers[token] = callback

    def unsubscribe(self, token: int) -> None:
        self._subscribers.pop(token, None)

    def last_lines(self, pid: int) -> list[str]:
        self.drain()
        worker = self._workers.get(pid)
        if worker is None:
            return []
        return list(worker.last)

    def close(self) -> None:
        """Writes what is left, ends the thread and stops listening."""
        self.drain()
        if self._lock.acquire(timeout=_PATIENCE):
            try:
                for source in self._sources.values():
                    # What a worker started may have outlived it, and have its output.
                    if isinstance(source, _Stream) and (rest := source.rest()):
                        self._show(source, [rest], whole=False)
                if self._repeats is not None:
                    self._repeats.show_all()
            finally:
                self._lock.release()
        # Also if the thread waits for whom it writes to: it ends when it has written.
        self._end()
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE)
        for thread, connection in self._inquirers.items():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(_PATIENCE)
        for path in (self._path, self._inquiries_path):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _end(self) -> None:
        """Has the thread close everything and end."""
        if not self._closed:
            self._closed = True
            os.eventfd_write(self._wake, 1)

    def before_fork(self) -> None:
        """Has nobody fork amid a write: the child would find the stream's lock taken."""
        self._held = self._lock.acquire(timeout=_PATIENCE)

    def after_in_parent(self) -> None:
        if self._held:
            self._lock.release()

    def abandon(self) -> None:
        """Closes all descriptors, and nothing else: in a forked child they are copies of the parent's."""
        for source in self._sources.values():
            if isinstance(source, _Stream):
                os.close(source.fd)
            else:
                source.connection.close()
        for connection in self._strangers.values():
            connection.close()
        self._sources.clear()
        self._strangers.clear()
        self._listener.close()
        self._inquiries.close()
        self._epoll.close()
        wake, self._wake = self._wake, -1
        if wake >= 0:  # this may come twice: in a child, of one that has ended
            os.close(wake)


def _listening(path: str, backlog: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.setblocking(False)
        listener.bind(path)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _peer_of(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, as the system says."""
    pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, uid


def _write(name: str, text: str) -> None:
    """Writes to one of the driver's streams, if it takes it. There is nobody to tell that it does not."""
    stream: TextIO | None = getattr(sys, name)
    if stream is None:
        return
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError as error:
            stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        stream.flush()
    except Exception:  # closed, full, or not even a stream
        pass


_output: Output | None = None
"""That of this process's session, if it listens."""


def start(session_dir: str, key_of: KeyOf, shown: bool = True, answer: Answer | None = None) -> None:
    """Listens for the workers of a session that begins. If that fails they write where the driver does.

    Args:
        session_dir: The session's directory.
        key_of: Gives the key of a task by its graph's number and its index there, or None.
        shown: Whether what they write is written here. Errors have their last lines in any case.
        answer: Called in a thread of its own with a connection of somebody of the same user who asks about the session, on
            the socket `INQUIRIES` in the directory. It closes the connection.
    """
    global _output
    with contextlib.suppress(OSError):
        _output = Output(session_dir, key_of, shown, answer)


def stop() -> None:
    """Writes what is left and ends the thread. To be called when the workers have ended."""
    global _output
    output, _output = _output, None
    if output is not None:
        output.close()


def drain() -> None:
    """Writes and delivers all that workers have written and emitted so far."""
    if _output is not None:
        _output.drain()


def last_lines(pid: int) -> list[str]:
    """The last lines that a worker has written, at most 20; also of one that has ended, for a while."""
    return [] if _output is None else _output.last_lines(pid)


def subscribe(token: int, callback: Callable[[object], object]) -> None:
    """Has a function called with each record that a worker emits for a token, in the order of each worker.

    The function is called in a thread of eagleray's, or in one that waits for results.
    """
    if _output is not None:
        _output.subscribe(token, callback)


def unsubscribe(token: int) -> None:
    """Takes back `subscribe`. What comes later is dropped."""
    if _output is not None:
        _output.unsubscribe(token)


def _before_fork() -> None:
    if _output is not None:
        _output.before_fork()


def _after_in_parent() -> None:
    if _output is not None:
        _output.after_in_parent()


def _after_in_child() -> None:
    """The session is the parent's."""
    global _output
    output, _output = _output, None
    if output is not None:
        output.abandon()


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
