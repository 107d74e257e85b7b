"""Locks that hold across workers and the driver."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from dask.utils import SerializableLock

import eagleray
from eagleray import _locks
from eagleray.dask import ray_dask_get
from tests.conftest import until


def guarded(lock: Any, path: str, seconds: float = 0.02) -> int:
    """Fails if another one is inside at the same time."""
    with lock:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL)
        time.sleep(seconds)
        os.close(descriptor)
        os.unlink(path)
    return os.getpid()


def guarded_by_name(token: str, path: str) -> int:
    return guarded(SerializableLock(token), path)


def holds(lock: Any, path: str, until_gone: str) -> int:
    """Has the lock from when `path` is there until `until_gone` is not."""
    with lock:
        Path(path).touch()
        until(lambda: not os.path.exists(until_gone))
    return os.getpid()


def dies_with(lock: Any, path: str) -> int:
    """The first time its process ends while it has the lock."""
    lock.acquire()
    if not os.path.exists(path):
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    lock.release()
    return os.getpid()


class Nested:
    def __init__(self) -> None:
        self.locks = {"one": [SerializableLock()]}


def in_nested(nested: Nested, path: str) -> int:
    return guarded(nested.locks["one"][0], path)


class Busy:
    """A task that has the lock."""

    def __init__(self, lock: Any, directory: Path) -> None:
        self.marker = directory / "go"
        self.marker.touch()
        started = directory / "started"
        (self._ref,) = ray_dask_get({"a": (holds, lock, str(started), str(self.marker))}, ["a"], ray_persist=True)
        until(started.exists)

    def end_soon(self) -> None:
        threading.Timer(0.1, self.marker.unlink).start()


@pytest.mark.usefixtures("session")
class TestWorkers:
    @pytest.mark.parametrize("token", [None, "name", ("a", 1)])
    def test_one_at_a_time(self, tmp_path: Path, token: Any) -> None:
        lock = SerializableLock(token)
        graph = {("a", i): (guarded, lock, str(tmp_path / "inside")) for i in range(20)}
        assert len(set(ray_dask_get(graph, list(graph)))) == 2

    def test_in_an_object(self, tmp_path: Path) -> None:
        nested = Nested()
        graph = {("a", i): (in_nested, nested, str(tmp_path / "inside")) for i in range(20)}
        assert len(set(ray_dask_get(graph, list(graph)))) == 2

    def test_in_a_closure(self, tmp_path: Path) -> None:
        lock, path = SerializableLock(), str(tmp_path / "inside")
        graph = {("a", i): (lambda _: guarded(lock, path), i) for i in range(20)}
        assert len(set(ray_dask_get(graph, list(graph)))) == 2

    def test_made_by_name_in_tasks(self, tmp_path: Path) -> None:
        graph = {("a", i): (guarded_by_name, "the-file", str(tmp_path / "inside")) for i in range(20)}
        assert len(set(ray_dask_get(graph, list(graph)))) == 2

    def test_the_driver_takes_part(self, tmp_path: Path) -> None:
        lock, other = SerializableLock("shared"), SerializableLock("other")
        busy = Busy(lock, tmp_path)
        assert lock.locked()
        assert SerializableLock("shared").locked()
        assert not other.locked()
        assert not lock.acquire(False)
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.05)
        assert not lock.acquire(True, 0)
        assert other.acquire(False)
        with pytest.raises(ValueError, match="timeout"):
            lock.acquire(False, 1)
        busy.end_soon()
        assert lock.acquire(timeout=60)
        lock.release()
        with pytest.raises(RuntimeError):
            lock.release()
        other.release()

    def test_the_driver_waits(self, tmp_path: Path) -> None:
        lock = SerializableLock()
        busy = Busy(lock, tmp_path)
        busy.end_soon()
        with lock:
            assert not busy.marker.exists()

    def test_workers_wait_for_the_driver(self, tmp_path: Path) -> None:
        lock, path = SerializableLock(), tmp_path / "inside"
        with lock:
            (ref,) = ray_dask_get({"a": (guarded, lock, str(path), 0.0)}, ["a"], ray_persist=True)
            ready, _ = eagleray.wait([ref], timeout=0.2)
            assert not ready
        eagleray.get(ref)

    def test_released_when_its_process_dies(self, tmp_path: Path) -> None:
        lock = SerializableLock()
        assert ray_dask_get({"a": (dies_with, lock, str(tmp_path / "died"))}, "a") != os.getpid()
        assert lock.acquire(timeout=60)
        lock.release()

    def test_in_processes_that_tasks_fork(self, tmp_path: Path) -> None:
        lock = SerializableLock()
        graph = {("a", i): (_fork_and_guard, lock, str(tmp_path / "inside")) for i in range(4)}
        assert ray_dask_get(graph, list(graph)) == [0] * 4

    def test_a_child_of_the_holder_does_not_hold(self) -> None:
        assert ray_dask_get({"a": (_fork_in_lock, SerializableLock())}, "a") == 0

    def test_a_plain_lock_is_refused(self) -> None:
        with pytest.raises(TypeError, match="SerializableLock"):
            ray_dask_get({"a": (guarded, threading.Lock(), "never")}, "a")


def _in_child(work: Any) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _fork_and_guard(lock: Any, path: str) -> int:
    guarded(lock, path)
    return sum(_in_child(lambda: guarded(lock, path)) for _ in range(3))


def _fork_in_lock(lock: Any) -> int:
    """The child leaves the block it was forked in, and then has to wait as everybody has."""

    def child() -> None:
        lock.release()
        assert not lock.acquire(False)

    with lock:
        code = _in_child(child)
        assert lock.locked()
    return code


def test_across_sessions(fresh: None, tmp_path: Path) -> None:
    """A lock made before there is a session, used in two of them, and after both."""
    lock = SerializableLock()
    lock.acquire()
    eagleray.init(num_cpus=2)
    lock.release()
    for _ in range(2):
        graph = {("a", i): (guarded, lock, str(tmp_path / "inside")) for i in range(10)}
        assert len(set(ray_dask_get(graph, list(graph), num_workers=2))) == 2
        lock.acquire()
        eagleray.shutdown()
        lock.release()
    with lock:
        assert lock.locked()
    assert not lock.locked()


class Owner:
    """Takes a lock when it goes, as files that xarray has open do."""

    def __init__(self, taken: list[bool]) -> None:
        self.taken = taken
        self.itself = self

    def __del__(self) -> None:
        lock = SerializableLock()
        self.taken.append(lock.acquire(False))
        lock.release()


def test_a_lock_is_taken_by_what_the_collector_finds(session: None) -> None:
    taken: list[bool] = []
    Owner(taken)
    with _locks._guard:
        gc.collect()
    assert taken == [True]


def test_a_lock_without_its_lock() -> None:
    assert not hasattr(SerializableLock.__new__(SerializableLock), "lock")


def test_a_session_that_ends_meanwhile(session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_locks, "_directory", lambda: str(tmp_path / "gone"))
    with SerializableLock() as taken:
        assert taken is not False


def test_locks_made_before_eagleray_is_imported() -> None:
    program = """
import sys
from dask.utils import SerializableLock
lock = SerializableLock("old")
lock.acquire()
assert "eagleray" not in sys.modules
import eagleray
assert not SerializableLock("old").acquire(False)
lock.release()
from eagleray.dask import ray_dask_get
eagleray.init(num_cpus=1)
with lock:
    assert ray_dask_get({"a": (SerializableLock.locked, SerializableLock("old"))}, "a")
assert not ray_dask_get({"a": (SerializableLock.locked, lock)}, "a")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


class HDF5Target:
    """Part of a file that each process opens for itself, as HDF5 wants it. Not safe without a lock."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __setitem__(self, index: Any, value: Any) -> None:
        h5py = pytest.importorskip("h5py")
        with h5py.File(self.path, "r+") as file:
            file["x"][index] = value


@pytest.mark.usefixtures("session")
class TestHDF5:
    @pytest.mark.parametrize("lock", [True, SerializableLock("file")])
    def test_store(self, tmp_path: Path, lock: Any) -> None:
        h5py = pytest.importorskip("h5py")
        path = str(tmp_path / "x.h5")
        with h5py.File(path, "w") as file:
            file.create_dataset("x", shape=(200, 50), dtype=float)
        x = da.arange(10_000, chunks=250, dtype=float).reshape(200, 50)
        with dask.config.set(scheduler=ray_dask_get):
            da.store(x, HDF5Target(path), lock=lock)
        with h5py.File(path, "r") as file:
            np.testing.assert_array_equal(file["x"][:], np.arange(10_000.0).reshape(200, 50))

    def test_a_file_that_was_open_when_workers_were_started(self, tmp_path: Path) -> None:
        """HDF5 lets children inherit its descriptor, and its lock with it."""
        h5py = pytest.importorskip("h5py")
        eagleray.shutdown()
        path = str(tmp_path / "x.h5")
        with h5py.File(path, "w") as file:
            file.create_dataset("x", shape=(10,), dtype=float)
            eagleray.init(num_cpus=1)
            ray_dask_get({"a": (int,)}, "a")
        with dask.config.set(scheduler=ray_dask_get):
            da.store(da.ones(10, chunks=5), HDF5Target(path), lock=True)
        with h5py.File(path, "r") as file:
            assert list(file["x"]) == [1.0] * 10

    def test_an_open_dataset_is_refused(self, tmp_path: Path) -> None:
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "x.h5", "w") as file, dask.config.set(scheduler=ray_dask_get):
            target = file.create_dataset("x", shape=(10,), dtype=float)
            with pytest.raises(TypeError, match="h5py"):
                da.store(da.ones(10, chunks=5), target)

    def test_to_hdf_into_one_file(self, tmp_path: Path) -> None:
        pytest.importorskip("tables")
        import dask.dataframe as dd

        frame = pd.DataFrame({"a": np.arange(400), "b": np.arange(400) / 2})
        path = str(tmp_path / "x.h5")
        with dask.config.set(scheduler=ray_dask_get):
            dd.from_pandas(frame, npartitions=20).to_hdf(path, "/x")
            dd.from_pandas(frame, npartitions=8).to_hdf(path, "/y-*")
        pd.testing.assert_frame_equal(pd.read_hdf(path, "/x").sort_index(), frame)
        parts = [pd.read_hdf(path, f"/y-{number}") for number in range(8)]
        pd.testing.assert_frame_equal(pd.concat(parts), frame)
