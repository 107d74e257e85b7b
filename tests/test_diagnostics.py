"""Dask's diagnostics: they show when tasks run, not when they are submitted."""

import io
import os
import re
import signal
import threading
import time
from pathlib import Path
from timeit import default_timer
from typing import Any

import dask.array as da
import pytest
from dask.callbacks import Callback
from dask.diagnostics import CacheProfiler, Profiler, ProgressBar, ResourceProfiler

from eagleray import _engine
from eagleray.dask import RayDaskCallback, ray_dask_get, ray_dask_get_sync
from tests import tasks
from tests.conftest import until

pytestmark = pytest.mark.usefixtures("shared")


def chain(work: Any = tasks.inc) -> dict[Any, Any]:
    return {"a": 1, "b": (work, "a"), "c": (work, "b"), "d": "c", "e": (tasks.add, "c", "d")}


def workers() -> set[int]:
    return {worker["pid"] for worker in _engine.native.workers()}


def gated(path: Path, value: Any) -> Any:
    until(path.exists)
    return value


def percents(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"(\d+)% Completed", text)]


def test_profiler() -> None:
    graph = {**chain(), "s": (tasks.sleep, 0.05)}
    before = default_timer()
    with Profiler() as profiler:
        assert ray_dask_get(graph, ["e", "s"]) == [6, 0.05]
    after = default_timer()
    found = {data.key: data for data in profiler.results}
    assert set(found) == {"b", "c", "e", "s"}
    assert [data.start_time for data in profiler.results] == sorted(data.start_time for data in profiler.results)
    assert all(before <= data.start_time <= data.end_time <= after for data in profiler.results)
    assert found["s"].end_time - found["s"].start_time >= 0.05
    assert found["b"].end_time <= found["c"].start_time
    assert {data.worker_id for data in profiler.results} <= workers()
    assert found["b"].task.key == "b"


def test_profiler_of_several_computes_until_it_is_cleared() -> None:
    profiler = Profiler()
    profiler.register()
    try:
        for _ in range(2):
            ray_dask_get(chain(), "e")
    finally:
        profiler.unregister()
    assert [data.key for data in profiler.results] == ["b", "c", "e"] * 2
    profiler.clear()
    ray_dask_get(chain(), "e")
    assert profiler.results == []


def test_only_with_other_callbacks_a_graph_goes_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    stepwise = []
    submit = _engine.native.submit

    def noting(*args: Any, **kwargs: Any) -> Any:
        stepwise.append(kwargs.get("stepwise", False))
        return submit(*args, **kwargs)

    monkeypatch.setattr(_engine.native, "submit", noting)
    seen: list[Any] = []
    with Profiler() as profiler:
        ray_dask_get(chain(), "e")
        with Callback(pretask=lambda key, dsk, state: seen.append(key)):
            ray_dask_get(chain(), "e")
    assert stepwise == [False, True]
    assert sorted(seen) == ["b", "c", "d", "e"]  # Dask's hooks see aliases
    assert [data.key for data in profiler.results] == ["b", "c", "e"] * 2


def test_progress_bar_shows_what_has_run(tmp_path: Path) -> None:
    out = io.StringIO()
    gate = tmp_path / "gate"
    graph = {("n", i): (tasks.inc, i) for i in range(3)} | {"last": (gated, gate, 1)}
    keys = [*graph]
    bar = ProgressBar(dt=0.01, out=out)
    with bar:
        thread = threading.Thread(target=lambda: until(lambda: 75 in percents(out.getvalue())) or gate.touch())
        thread.start()
        assert ray_dask_get(graph, keys) == [1, 2, 3, 1]
        thread.join()
    shown = percents(out.getvalue())
    assert shown[0] == 0
    assert shown == sorted(shown)
    assert shown[-1] == 100
    assert bar.last_duration > 0


def test_progress_bar_of_what_fails() -> None:
    out = io.StringIO()
    threads = threading.active_count()
    with ProgressBar(dt=0.01, out=out):
        with pytest.raises(ValueError, match="on purpose"):
            ray_dask_get({"x": (tasks.fail, ValueError, "on purpose")}, "x")
        with pytest.raises(KeyError):
            ray_dask_get({"x": 1}, "y")
    assert threading.active_count() == threads
    assert 100 not in percents(out.getvalue())


def test_registered_progress_bar() -> None:
    out = io.StringIO()
    bar = ProgressBar(out=out)
    bar.register()
    try:
        da.ones(10, chunks=5).sum().compute(scheduler=ray_dask_get)
    finally:
        bar.unregister()
    assert percents(out.getvalue())[-1] == 100
    assert not Callback.active


def test_subclasses_and_callbacks_of_one_compute() -> None:
    class Mine(Profiler):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.finished: list[bool] = []

        def _finish(self, dsk: Any, state: Any, failed: bool) -> None:
            super()._finish(dsk, state, failed)
            self.finished.append(failed)

    mine = Mine()
    ray_dask_get(chain(), "e", callbacks=[mine])
    assert [data.key for data in mine.results] == ["b", "c", "e"]
    assert mine.finished == [False]


def test_what_a_diagnostic_raises_is_raised() -> None:
    class Broken(Profiler):  # type: ignore[misc]
        def _posttask(self, *args: Any) -> None:
            raise ZeroDivisionError("mine")

    with Broken() as broken, ProgressBar(out=io.StringIO()):
        with pytest.raises(ZeroDivisionError, match="mine"):
            ray_dask_get(chain(), "e")
    del broken
    assert ray_dask_get(chain(), "e") == 6


def test_cache_profiler() -> None:
    graph = {"a": (tasks.inc, 1), "b": (tasks.inc, "a"), "alias": "a", "s": (tasks.pid_after, 0.05, "alias")}
    with CacheProfiler() as profiler:
        ray_dask_get(graph, ["b", "s"])
    found = {data.key: data for data in profiler.results}
    assert set(found) == {"a", "b", "s"}
    assert {data.metric for data in profiler.results} == {1}
    assert found["a"].free_time >= found["s"].cache_time  # through the alias
    assert found["b"].free_time >= found["s"].cache_time  # asked for: it stays to the end


def test_cache_profiler_measures_in_the_worker() -> None:
    def metric(value: Any) -> tuple[int, int]:
        return int(value), os.getpid()

    with CacheProfiler(metric=metric) as one, CacheProfiler(metric=abs) as two:
        ray_dask_get(chain(), "e")
    assert {data.key: data.metric[0] for data in one.results} == {"b": 2, "c": 3, "e": 6}
    assert {data.metric[1] for data in one.results} <= workers()
    assert {data.key: data.metric for data in two.results} == {"b": 2, "c": 3, "e": 6}


def test_a_metric_that_cannot_travel() -> None:
    lock = threading.Lock()

    def guarded(value: Any) -> int:
        with lock:
            return 1

    with CacheProfiler(metric=guarded), pytest.raises(TypeError, match="metric of a CacheProfiler, guarded"):
        ray_dask_get(chain(), "e")


def test_a_metric_that_fails() -> None:
    with CacheProfiler(metric=len), pytest.raises(TypeError, match="has no len"):
        ray_dask_get(chain(), "e")


def block(megabytes: int, made: Path, gate: Path) -> int:
    data = bytearray(os.urandom(1 << 20)) * megabytes
    made.touch()
    until(gate.exists)
    return len(data)


def test_resource_profiler_counts_workers(tmp_path: Path) -> None:
    made, gate = tmp_path / "made", tmp_path / "gate"

    def open_when_sampled() -> None:
        until(made.exists)
        time.sleep(0.3)
        gate.touch()

    with ResourceProfiler(dt=0.02) as profiler:
        until(profiler._is_running)
        thread = threading.Thread(target=open_when_sampled)
        thread.start()
        ray_dask_get({"x": (block, 300, made, gate)}, "x")
        thread.join()
    memory = [data.mem for data in profiler.results]
    assert max(memory) - min(memory) > 250
    assert max(data.cpu for data in profiler.results) > 0
    assert [data.time for data in profiler.results] == sorted(data.time for data in profiler.results)
    assert profiler.start_time <= profiler.results[0].time <= profiler.results[-1].time <= profiler.end_time
    assert not profiler._is_running()


def test_registered_resource_profiler() -> None:
    profiler = ResourceProfiler(dt=0.01)
    profiler.register()
    try:
        for _ in range(2):
            ray_dask_get({"x": (tasks.sleep, 0.05)}, "x")
        count = len(profiler.results)
        time.sleep(0.05)
        assert len(profiler.results) == count >= 4
    finally:
        profiler.unregister()
        profiler.close()
    assert not profiler._is_running()


def test_a_tracker_of_dask_that_ends_when_it_is_asked() -> None:
    with ResourceProfiler(dt=0.01) as profiler:
        tracker = profiler._tracker
        os.kill(tracker.pid, signal.SIGSTOP)  # lives, and will not answer
        ends = threading.Timer(0.2, tracker.kill)
        ends.start()
        assert ray_dask_get(chain(), "e") == 6
        ends.join()
    assert len(profiler.results) >= 2


def test_in_this_process() -> None:
    with Profiler() as profiler, CacheProfiler() as cache:
        assert ray_dask_get_sync(chain(), "e") == 6
    assert {"b", "c", "e"} <= {data.key for data in profiler.results}
    assert {"b", "c", "e"} <= {data.key for data in cache.results}


def test_persist_is_not_watched() -> None:
    out = io.StringIO()
    with ProgressBar(out=out), Profiler() as profiler:
        p = (da.ones(10, chunks=5) + 1).persist(scheduler=ray_dask_get)
        assert out.getvalue() == ""
        assert p.sum().compute(scheduler=ray_dask_get) == 20
    assert profiler.results
    assert percents(out.getvalue())[-1] == 100
    profiler.clear()  # it holds the graph, and Dask's callbacks hold themselves


def test_inside_a_task_they_hear_of_nothing_and_do_no_harm() -> None:
    def inside() -> tuple[int, int]:
        with Profiler() as profiler, ProgressBar(out=io.StringIO()):
            return ray_dask_get(chain(), "e"), len(profiler.results)

    assert ray_dask_get({"x": (inside,)}, "x") == (6, 0)


def test_a_task_that_ran_twice_is_shown_once(tmp_path: Path) -> None:
    """Its worker dies in the task after it, with the report of both."""
    graph = {"a": (tasks.inc, 1), "b": (die_after, str(tmp_path / "died"), "a")}
    with Profiler() as profiler:
        assert ray_dask_get(graph, "b") == "survived"
    assert sorted(data.key for data in profiler.results) == ["a", "b"]


def die_after(path: str, value: Any) -> str:
    return tasks.die_once(path)


def test_with_hooks_of_eagleray() -> None:
    seen: list[Any] = []
    with RayDaskCallback(ray_presubmit=lambda task, key, deps: 10 if key == "b" else None, ray_finish=seen.append):
        with Profiler() as profiler, ProgressBar(out=io.StringIO()):
            assert ray_dask_get(chain(), "e") == 22
    assert [data.key for data in profiler.results] == ["c", "e"]
    assert seen == [22]
