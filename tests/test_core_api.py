"""`init`, `shutdown`, `put`, `get`, `wait`: results, and what is said to wrong arguments."""

import copy
import logging
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray import ObjectRef, _engine, _machine
from eagleray.dask import ray_dask_get
from eagleray.dask.common import unpack_object_refs
from eagleray.exceptions import GetTimeoutError
from tests.tasks import inc, sleep


def test_importing_it_imports_little() -> None:
    code = "import eagleray, sys; print([name for name in ('asyncio', 'dask', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.usefixtures("fresh")
class TestInit:
    def test_starts_and_ends(self) -> None:
        assert not eagleray.is_initialized()
        eagleray.init(num_cpus=1)
        assert eagleray.is_initialized()
        eagleray.shutdown()
        assert not eagleray.is_initialized()
        eagleray.shutdown()

    def test_again_after_shutdown(self) -> None:
        for _ in range(3):
            eagleray.init(num_cpus=1)
            assert ray_dask_get({"a": (inc, 1)}, "a") == 2
            eagleray.shutdown()

    def test_twice(self) -> None:
        eagleray.init(num_cpus=1)
        with pytest.raises(RuntimeError, match="initialized already"):
            eagleray.init()
        eagleray.init(ignore_reinit_error=True)

    def test_starts_by_itself(self) -> None:
        assert ray_dask_get({"a": (inc, 1)}, "a", num_workers=1) == 2
        assert eagleray.is_initialized()

    def test_put_starts_too(self) -> None:
        assert eagleray.get(eagleray.put(3)) == 3

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"num_cpus": 0}, ValueError),
            ({"num_cpus": -1}, ValueError),
            ({"num_cpus": "2"}, TypeError),
            ({"num_cpus": 1.5}, TypeError),
            ({"num_cpus": True}, TypeError),
            ({"object_store_memory": 1000}, ValueError),
            ({"object_store_memory": "1 GB"}, TypeError),
            ({"ignore_reinit_error": 1}, TypeError),
            ({"no_such": 1}, TypeError),
        ],
    )
    def test_wrong_arguments(self, arguments: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error, match=next(iter(arguments))):
            eagleray.init(**arguments)
        assert not eagleray.is_initialized()

    def test_whole_numbers_with_a_point(self) -> None:
        eagleray.init(num_cpus=2.0, object_store_memory=1e8, num_gpus=1.0)
        assert eagleray.cluster_resources()["CPU"] == 2

    def test_arguments_of_rays_have_no_effect(self) -> None:
        level = logging.getLogger("eagleray").level
        try:
            eagleray.init(num_cpus=1, logging_level="error", enable_resource_isolation=False, system_reserved_cpu=0.5)
            assert logging.getLogger("eagleray").level == logging.ERROR
        finally:
            logging.getLogger("eagleray").setLevel(level)

    def test_from_many_threads_at_once(self) -> None:
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda: results.append(ray_dask_get({"a": (inc, 1)}, "a", num_workers=1)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [2] * 8

    def test_private_directory(self) -> None:
        eagleray.init(num_cpus=1)
        directory = _engine._session_dir
        assert directory is not None
        assert os.stat(directory).st_mode & 0o777 == 0o700
        eagleray.shutdown()
        assert not os.path.exists(directory)

    def test_forked_child_has_no_session(self) -> None:
        eagleray.init(num_cpus=1)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = int(eagleray.is_initialized())
                eagleray.shutdown()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert ray_dask_get({"a": (inc, 1)}, "a") == 2

    def test_refs_of_an_ended_session(self) -> None:
        ref = eagleray.put(1)
        eagleray.shutdown()
        with pytest.raises((eagleray.exceptions.EaglerayError, RuntimeError)):
            eagleray.get(ref)


@pytest.mark.usefixtures("shared")
class TestObjects:
    @pytest.mark.parametrize("value", [None, 0, "text", [1, {"k": (2,)}], b"x" * 300_000], ids=lambda v: repr(v)[:20])
    def test_round_trip(self, value: Any) -> None:
        assert eagleray.get(eagleray.put(value)) == value

    def test_arrays(self) -> None:
        array = np.arange(100_000).reshape(100, 1000)
        ref = eagleray.put(array)
        view = eagleray.get(ref)
        np.testing.assert_array_equal(view, array)
        assert not view.flags.writeable
        private = eagleray.get(ref, copy=True)
        private[0, 0] = 7
        assert eagleray.get(ref)[0, 0] == 0

    def test_view_outlives_its_ref(self) -> None:
        view = eagleray.get(eagleray.put(np.arange(100_000)))
        others = [eagleray.put(np.zeros(100_000)) for _ in range(20)]
        assert view[-1] == 99_999
        del others

    def test_lists(self) -> None:
        refs = [eagleray.put(i) for i in range(10)]
        assert eagleray.get(refs) == list(range(10))
        assert eagleray.get([refs[0], refs[0]]) == [0, 0]
        assert eagleray.get([]) == []

    def test_ref(self) -> None:
        one, two = eagleray.put(1), eagleray.put(1)
        assert isinstance(one, ObjectRef)
        assert one != two
        assert one == copy.deepcopy(one)
        assert one == pickle.loads(pickle.dumps(one))
        assert len({one, two, pickle.loads(pickle.dumps(one))}) == 2
        assert int(one.hex(), 16) >= 0
        assert one.hex() in repr(one)
        assert one != 1

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda ref: eagleray.get((ref,)), ValueError),
            (lambda ref: eagleray.get(3), ValueError),
            (lambda ref: eagleray.get([ref, 3]), TypeError),
            (lambda ref: eagleray.get(ref, timeout="1"), TypeError),
            (lambda ref: eagleray.get(ref, timeout=-1), ValueError),
            (eagleray.put, TypeError),
            (eagleray.wait, TypeError),
            (lambda ref: eagleray.wait([ref, 1]), TypeError),
            (lambda ref: eagleray.wait([ref, ref]), ValueError),
            (lambda ref: eagleray.wait([ref], num_returns=2), ValueError),
            (lambda ref: eagleray.wait([ref], num_returns=0), ValueError),
            (lambda ref: eagleray.wait([ref], timeout=-1), ValueError),
        ],
    )
    def test_wrong_arguments(self, call: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            call(eagleray.put(1))

    def test_timeout(self) -> None:
        ref = ray_dask_get({"a": (sleep, 0.5)}, "a", ray_persist=True)
        with pytest.raises(GetTimeoutError):
            eagleray.get(ref, timeout=0)
        with pytest.raises(TimeoutError):
            eagleray.get([ref], timeout=0.01)
        assert eagleray.get(ref, timeout=60) == 0.5

    def test_wait(self) -> None:
        slow, fast = ray_dask_get({"a": (sleep, 0.3), "b": (sleep, 0.0)}, ["a", "b"], ray_persist=True)
        assert eagleray.wait([slow, fast]) == ([fast], [slow])
        assert eagleray.wait([slow, fast], num_returns=2) == ([slow, fast], [])
        assert eagleray.wait([slow, fast], num_returns=1) == ([slow], [fast])
        assert eagleray.wait([]) == ([], [])

    def test_wait_gives_up(self) -> None:
        ref = ray_dask_get({"a": (sleep, 0.3)}, "a", ray_persist=True)
        assert eagleray.wait([ref], timeout=0) == ([], [ref])

    def test_ref_as_a_value_of_a_graph(self) -> None:
        ref = eagleray.put(41)
        assert ray_dask_get({"a": ref, "b": (inc, "a")}, "b") == 42
        assert ray_dask_get({"b": (inc, ref)}, "b") == 42

    def test_shutdown_inside_a_task(self) -> None:
        with pytest.raises(RuntimeError, match="task cannot"):
            ray_dask_get({"a": (eagleray.shutdown,)}, "a")

    def test_core_api_inside_a_task(self) -> None:
        assert ray_dask_get({"a": (_in_task,)}, "a") == (True, [1, 2])


def _in_task() -> tuple[bool, list[int]]:
    refs = [eagleray.put(1), eagleray.put(2)]
    ready, _ = eagleray.wait(refs, num_returns=2)
    return eagleray.is_initialized(), eagleray.get(ready)


def test_unpack_object_refs() -> None:
    ref = eagleray.put("v")
    refs, repack = unpack_object_refs([ref, 1], {"k": (ref, {2})}, iter([ref]), 3)
    assert refs == [ref]
    assert repack(["v"]) == (["v", 1], {"k": ("v", {2})}, ["v"], 3)
    eagleray.shutdown()


def test_machine() -> None:
    assert 1 <= _machine.cpus() <= len(os.sched_getaffinity(0))
    assert _machine.memory() > 1 << 20


@pytest.mark.parametrize(
    ("gigabytes", "slots", "workers"), [(1, 2, 256), (4, 2, 256), (8, 2, 512), (100, 2, 1024), (100, 300, 1200)]
)
def test_most_workers(monkeypatch: pytest.MonkeyPatch, gigabytes: int, slots: int, workers: int) -> None:
    monkeypatch.setattr(_machine, "memory", lambda: gigabytes << 30)
    assert _machine.workers(slots) == workers


def test_elsewhere_the_import_says_so() -> None:
    program = "import sys; sys.platform = 'darwin'; import eagleray"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: eagleray runs on Linux only, not on darwin" in done.stderr
