"""Environment, working directory, `sys.path` and `dask.config` of tasks are those of the submission."""

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pytest

import eagleray
from eagleray import _surroundings
from eagleray.dask import enable_dask_on_ray, ray_dask_get
from tests.conftest import session_dirs
from tests.tasks import Configured


def run(function: Callable[..., Any], *args: Any) -> Any:
    return ray_dask_get({("a", 0): (function, *args)}, ("a", 0))


def everywhere(function: Callable[..., Any], *args: Any) -> Any:
    """What a function gives, the same in both workers."""
    graph = {("a", i): (_slowly, function, *args) for i in range(8)}
    results = ray_dask_get(graph, list(graph))
    assert all(result == results[0] for result in results)
    return results[0]


def _slowly(function: Callable[..., Any], *args: Any) -> Any:
    time.sleep(0.01)
    return function(*args)


def _config(name: str, default: object = None) -> Any:
    return dask.config.get(name, default)


def _path() -> list[str]:
    return list(sys.path)


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the driver's own surroundings back after a test."""
    monkeypatch.chdir(os.getcwd())
    monkeypatch.syspath_prepend("/nonexistent")
    monkeypatch.undo()
    for name in ("EAGLERAY_TEST_A", "EAGLERAY_TEST_B"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("shared")
class TestEnvironment:
    def test_set_changed_deleted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert everywhere(os.environ.get, "EAGLERAY_TEST_A") is None
        for value in ("one", "two", "žluť \udcff"):
            monkeypatch.setenv("EAGLERAY_TEST_A", value)
            assert everywhere(os.getenv, "EAGLERAY_TEST_A") == value
        monkeypatch.delenv("EAGLERAY_TEST_A")
        assert everywhere(os.getenv, "EAGLERAY_TEST_A") is None
        home = os.environ["HOME"]
        monkeypatch.delenv("HOME")
        assert everywhere(os.getenv, "HOME") is None
        monkeypatch.setenv("HOME", home)
        assert everywhere(os.getenv, "HOME") == home

    def test_child_processes_have_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EAGLERAY_TEST_A", "for children")
        assert run(_ask_child, "EAGLERAY_TEST_A") == "for children"

    def test_the_workers_own_stay_unless_the_driver_changes_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EAGLERAY_TEST_A", "other")
        assert everywhere(os.getenv, "OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        assert everywhere(os.getenv, "OMP_NUM_THREADS") == "7"

    def test_time_zone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = time.tzname
        monkeypatch.setenv("TZ", "XYZ-3")
        assert everywhere(_time_zone) == "XYZ"
        monkeypatch.undo()
        assert everywhere(_time_zone) == before[0]

    def test_each_graph_has_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refs = []
        for value in ("one", "two", "three"):
            monkeypatch.setenv("EAGLERAY_TEST_A", value)
            graph = {("a", i): (_slowly, os.getenv, "EAGLERAY_TEST_A") for i in range(10)}
            refs.append((value, ray_dask_get(graph, list(graph), ray_persist=True)))
        for value, of_graph in refs:
            assert eagleray.get(list(of_graph)) == [value] * 10


def _ask_child(name: str) -> str:
    import subprocess

    return subprocess.run(["printenv", name], capture_output=True, text=True, check=True).stdout.strip()


def _time_zone() -> str:
    return time.tzname[0]


@pytest.mark.usefixtures("shared")
class TestPlaces:
    def test_working_directory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        home = os.getcwd()
        assert everywhere(os.getcwd) == home
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            assert everywhere(os.getcwd) == str(tmp_path / name)
        monkeypatch.chdir(home)
        assert everywhere(os.getcwd) == home

    def test_working_directory_that_is_gone_when_the_task_runs(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        data = _surroundings.capture()
        gone.rmdir()
        monkeypatch.setattr(_surroundings, "capture", lambda: data)
        with pytest.raises(eagleray.exceptions.EaglerayError, match=rf"cannot enter .*'{gone}': No such file") as found:
            run(_other_directory)
        assert "Change to a directory that exists" in str(found.value)
        monkeypatch.undo()
        assert everywhere(os.getcwd) == os.getcwd()

    def test_driver_in_a_directory_that_is_gone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        home = os.getcwd()
        gone = tmp_path / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        try:
            assert everywhere(_other_directory) == home
        finally:
            os.chdir(home)

    def test_modules_are_found_where_the_driver_finds_them(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        before = everywhere(_path)
        (tmp_path / "eagleray_test_module.py").write_text("def answer():\n    return 42\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        import eagleray_test_module  # type: ignore[import-not-found]

        assert everywhere(eagleray_test_module.answer) == 42
        monkeypatch.undo()
        del sys.modules["eagleray_test_module"]
        assert everywhere(_path) == before


def _other_directory() -> str:
    return os.getcwd()


@pytest.mark.usefixtures("shared")
class TestConfig:
    def test_what_is_set_and_what_is_unset_again(self) -> None:
        assert everywhere(_config, "eagleray-test.a") is None
        with dask.config.set({"eagleray-test.a": {"b": [1, 2]}, "optimization.fuse.active": False}):
            assert everywhere(_config, "eagleray-test.a.b") == [1, 2]
            assert everywhere(_config, "optimization.fuse.active") is False
            with dask.config.set({"eagleray-test.a.b": _config}):
                assert everywhere(_config, "eagleray-test.a.b") is _config
        assert everywhere(_config, "eagleray-test") is None
        assert everywhere(_config, "optimization.fuse.active") == dask.config.get("optimization.fuse.active", None)

    def test_values_that_only_cloudpickle_takes(self) -> None:
        with dask.config.set({"eagleray-test.f": lambda: 3}):
            assert everywhere(_call_config, "eagleray-test.f") == 3

    def test_what_unpickling_makes_of_it(self) -> None:
        for value in (1, 2, 1):
            with dask.config.set({"eagleray-test": value}):
                assert run(Configured()) == value

    def test_what_is_taken_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = next(name for name in dask.config.config if name not in ("scheduler", "num_workers"))
        monkeypatch.delitem(dask.config.config, name)
        assert everywhere(_has_config, name) is False
        monkeypatch.undo()
        assert everywhere(_has_config, name) is True

    def test_where_and_with_how_many_to_compute_does_not_travel(self) -> None:
        own = everywhere(_config, "num_workers")
        with dask.config.set(scheduler="sync", num_workers=17, pool=None):
            assert everywhere(_config, "scheduler") is None
            assert everywhere(_config, "num_workers") == own

    def test_what_cannot_be_pickled_is_said_and_left_out(self) -> None:
        with dask.config.set({"eagleray-test.lock": threading.Lock(), "eagleray-test.b": 1}):
            with pytest.warns(UserWarning, match=r"dask.config 'eagleray-test.lock' is not set in workers"):
                data = _surroundings.capture()
            assert data is not None
            assert run(_config, "eagleray-test.b") == 1
            assert run(_config, "eagleray-test.lock") is None

    def test_what_cannot_be_unpickled_fails_the_tasks(self) -> None:
        with dask.config.set({"eagleray-test.bad": _Unloadable()}):
            with pytest.raises(
                eagleray.exceptions.EaglerayError, match=r"'eagleray-test.bad' cannot be set in a worker"
            ):
                run(_config, "x")
        assert run(_config, "eagleray-test") is None

    def test_arrays_in_it_are_compared_by_nobody(self) -> None:
        numpy = pytest.importorskip("numpy")
        with dask.config.set({"eagleray-test.array": numpy.arange(3)}):
            for _ in range(2):
                assert list(run(_config, "eagleray-test.array")) == [0, 1, 2]

    def test_enabling_goes_with_it(self) -> None:
        with enable_dask_on_ray():
            assert everywhere(_config, "dataframe.shuffle.method") == "tasks"


def _call_config(name: str) -> Any:
    return dask.config.get(name)()


def _has_config(name: str) -> bool:
    return name in dask.config.config


def _fail_to_load() -> None:
    raise RuntimeError("cannot be loaded")


class _Unloadable:
    def __reduce__(self) -> Any:
        return _fail_to_load, ()


@pytest.mark.usefixtures("session")
class TestNesting:
    def test_a_graph_of_a_task_has_what_the_task_has(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("EAGLERAY_TEST_A", "from the driver")
        monkeypatch.chdir(tmp_path)
        with dask.config.set({"eagleray-test.a": 5}):
            assert run(_inner) == ("from the driver", "from the task", str(tmp_path), 5)
        monkeypatch.undo()
        assert everywhere(os.getenv, "EAGLERAY_TEST_A") is None

    def test_worker_that_is_started_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its template may be started later, too; yet it begins as the session did."""
        monkeypatch.setenv("EAGLERAY_TEST_A", "x")
        pid = run(os.getpid)
        monkeypatch.delenv("EAGLERAY_TEST_A")
        from tests.conftest import children

        for template in [pid for pid in children() if os.getsid(pid) == pid]:
            os.kill(template, 9)
        assert everywhere(os.getenv, "EAGLERAY_TEST_A") is None
        assert run(os.getpid) != pid


def _inner() -> tuple[Any, ...]:
    os.environ["EAGLERAY_TEST_B"] = "from the task"
    try:
        inner: tuple[Any, ...] = ray_dask_get({"x": (_look,)}, "x")
        return inner
    finally:
        del os.environ["EAGLERAY_TEST_B"]


def _look() -> tuple[Any, ...]:
    return os.getenv("EAGLERAY_TEST_A"), os.getenv("EAGLERAY_TEST_B"), os.getcwd(), dask.config.get("eagleray-test.a")


class TestCapture:
    def test_nothing_travels_if_nothing_has_changed(self, fresh: None) -> None:
        _surroundings.begin()
        assert _surroundings.capture() is None
        with dask.config.set(scheduler="sync", num_workers=17):
            assert _surroundings.capture() is None
        with dask.config.set({"eagleray-test.a": 1}):
            data = _surroundings.capture()
            assert data is not None
            assert _surroundings.capture() is data
        assert _surroundings.capture() is None

    def test_what_was_set_before_the_session_is_the_beginning(
        self, fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("EAGLERAY_TEST_A", "early")
        monkeypatch.chdir(tmp_path)
        with dask.config.set({"eagleray-test.a": 1}):
            eagleray.init(num_cpus=1)
            assert run(_look_early) == ("early", str(tmp_path), 1)
            data = _surroundings.capture()
        assert data is not None
        change = pickle.loads(data)
        assert list(change.config) == [("eagleray-test", "a")], "what a new process does not read anywhere"
        assert change.cwd is None
        assert b"EAGLERAY_TEST_A" not in change.environment


def _look_early() -> tuple[Any, ...]:
    return os.getenv("EAGLERAY_TEST_A"), os.getcwd(), dask.config.get("eagleray-test.a")


class TestShareOfProcessors:
    @pytest.mark.parametrize(("cpus", "slots", "share"), [(8, 2, 4), (2, 2, 1), (2, 3, 1), (7, 2, 3)])
    def test_threads_in_a_task(
        self, fresh: None, monkeypatch: pytest.MonkeyPatch, cpus: int, slots: int, share: int
    ) -> None:
        monkeypatch.delenv("DASK_NUM_WORKERS", raising=False)
        monkeypatch.setattr("eagleray._machine.cpus", lambda: cpus)
        eagleray.init(num_cpus=slots)
        assert run(_config, "num_workers") == share

    def test_what_the_user_says_counts(self, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DASK_NUM_WORKERS", "3")
        eagleray.init(num_cpus=2)
        assert run(_config, "num_workers") == 3


def test_session_directories_are_gone() -> None:
    eagleray.shutdown()
    assert not session_dirs()
