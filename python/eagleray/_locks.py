"""Makes `dask.utils.SerializableLock` lock in all processes of a session, by its token.

Dask's own lock only holds within one process, so two workers would write one HDF5 file at once. What is locked here beyond
that is a byte of one file in the session directory, by an open file description lock: it ends with the process that
holds it, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from types import ModuleType
from typing import Any

_MODULE = "dask.utils"
_FILE = "locks"

_FLOCK = struct.Struct("hhqqi4x")
"""The kernel's `struct flock`: kind, whence, start, length, process."""

_SHORTEST_NAP, _LONGEST_NAP = 0.001, 0.05
"""Seconds between two attempts of an acquisition with a timeout, which the kernel does not offer."""


def _nowhere() -> str | None:
    return None


_directory: Callable[[], str | None] = _nowhere
"""The session directory of this process, if it has a session."""


class _File:
    """An open file description of our own: what is locked through it, this process holds."""

    fd = -1

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.fd = os.open(os.path.join(directory, _FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def lock(self, byte: int, *, wait: bool) -> bool:
        """Locks a byte; false if another process has it and `wait` is not wanted. A signal handler may raise."""
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(self.fd, command, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(self, byte: int) -> None:
        if self.fd >= 0:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))

    def is_locked(self, byte: int) -> bool:
        """Whether another process has locked the byte."""
        answer = fcntl.fcntl(self.fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        kind: int = _FLOCK.unpack(answer)[0]
        return kind != fcntl.F_UNLCK


_guard = threading.RLock()
"""Can be taken again: what the collector finds meanwhile may take a lock in its `__del__`, as files of xarray do."""
_file: _File | None = None
_locks: weakref.WeakValueDictionary[Hashable, SessionLock] = weakref.WeakValueDictionary()
"""By token."""


def _session_file() -> _File | None:
    """The lock file of the present session, opened once."""
    global _file
    directory = _directory()
    if directory is None:
        return None
    with _guard:
        if _file is None or _file.directory != directory or _file.fd < 0:
            # An older one is closed when the last lock held through it is released.
            try:
                _file = _File(directory)
            except FileNotFoundError:  # the session has ended
                return None
        return _file


class SessionLock:
    """A lock of the session: a lock of this process, and with it a byte of the session's lock file.

    Has the methods of `threading.Lock`, with their meaning. Without a session it locks within the process.
    """

    def __init__(self, token: Hashable, inner: Any) -> None:
        digest = hashlib.blake2b(repr(token).encode("utf-8", "backslashreplace"), digest_size=8).digest()
        self._byte = int.from_bytes(digest, "little") >> 2  # two tokens of one byte would only wait needlessly
        self.inner = inner
        self._held: _File | None = None
        self._owner = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `threading.Lock.acquire`."""
        deadline = time.monotonic() + timeout if timeout > 0 else None
        if not self.inner.acquire(blocking, timeout):
            return False
        try:
            locked = self._lock_file(blocking and timeout < 0, deadline)
        except BaseException:
            self.inner.release()
            raise
        if locked:
            self._owner = threading.get_ident()
        else:
            self.inner.release()
        return locked

    def _lock_file(self, wait: bool, deadline: float | None) -> bool:
        file = _session_file()
        if file is None:
            return True
        nap = _SHORTEST_NAP
        while not file.lock(self._byte, wait=wait):
            left = deadline - time.monotonic() if deadline is not None else 0
            if left <= 0:
                return False
            time.sleep(min(nap, left))
            nap = min(2 * nap, _LONGEST_NAP)
        self._held = file
        return True

    def release(self) -> None:
        """As `threading.Lock.release`."""
        held, self._held = self._held, None
        if held is not None:
            held.unlock(self._byte)
        self.inner.release()

    def locked(self) -> bool:
        """Whether anybody in the session has it."""
        if self.inner.locked():
            return True
        file = _session_file()
        return file is not None and file.is_locked(self._byte)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def in_child(self) -> None:
        """In a forked child, which holds nothing of what its parent does.

        What the forking thread held can be released here, as with any lock; what another thread held, nobody will.
        """
        self._held = None
        if self.inner.locked() and self._owner != threading.get_ident():
            self.inner._at_fork_reinit()


def _after_fork() -> None:
    global _guard, _file
    _guard = threading.RLock()
    if _file is not None:
        # It is the parent's open file description, too.
        _file.close()
        _file = None
    for lock in _locks.values():
        lock.in_child()


def _session_lock(token: Hashable, inner: Any) -> SessionLock:
    with _guard:
        return _locks.setdefault(token, SessionLock(token, inner))


class _Lock:
    """`SerializableLock.lock`: the session lock around the one that Dask put there, also in locks made earlier."""

    def __get__(self, owner: Any, _: type | None = None) -> Any:
        if owner is None:
            return self
        try:
            lock = owner.__dict__["lock"]
        except KeyError:
            raise AttributeError(f"{type(owner).__name__!r} object has no attribute 'lock'") from None
        if not isinstance(lock, SessionLock):
            lock = owner.__dict__["lock"] = _session_lock(owner.token, lock)
        return lock

    def __set__(self, owner: Any, lock: Any) -> None:
        owner.__dict__["lock"] = lock


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for `dask.utils` to be imported."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _equip(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _equip(utils: Any) -> None:
    utils.SerializableLock.lock = _Lock()


def in_session(directory: Callable[[], str | None]) -> None:
    """From now on `directory` tells this process and its children in which session their locks lock."""
    global _directory
    _directory = directory


def install(directory: Callable[[], str | None]) -> None:
    """Has Dask's locks lock in the session whose directory `directory` names, now or once Dask is imported."""
    in_session(directory)
    os.register_at_fork(after_in_child=_after_fork)
    if _MODULE in sys.modules:
        _equip(sys.modules[_MODULE])
    else:
        sys.meta_path.insert(0, _Finder())
