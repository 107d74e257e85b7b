"""Threads beside a task, and many threads in the driver."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray.dask import ray_dask_get
from tests.conftest import until
from tests.tasks import add, inc, touch_and_sleep

pytestmark = pytest.mark.usefixtures("session")


def graph(number: int) -> dict[Any, Any]:
    return {"a": (inc, number), "b": (inc, "a"), "c": (add, "a", "b")}


def compute(number: int) -> int:
    value: int = ray_dask_get(graph(number), "c")
    return value


def test_many_threads_of_the_driver_compute_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(compute, range(200))) == [2 * number + 3 for number in range(200)]


def test_a_shutdown_is_what_another_thread_hears_of(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(ray_dask_get, {"a": (touch_and_sleep, str(started), 60)}, "a")
        until(started.exists)
        eagleray.shutdown()
        with pytest.raises(RuntimeError, match=r"^The session has ended, by eagleray\.shutdown\(\) or"):
            waits.result()


def _in_threads(count: int) -> list[int]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(compute, range(count)))


def test_threads_of_a_task_compute() -> None:
    for _ in range(10):
        assert ray_dask_get({"t": (_in_threads, 8)}, "t") == [2 * number + 3 for number in range(8)]


_left: list[threading.Thread] = []


def _leave_a_thread(rounds: int) -> int:
    def work() -> None:
        for number in range(rounds):
            assert compute(number) == 2 * number + 3
            time.sleep(0.001)

    _left.append(threading.Thread(target=work, daemon=True))
    _left[-1].start()
    return rounds


def _join() -> int:
    """How many threads the tasks of this worker have left, all of them at their end."""
    for thread in _left:
        thread.join()
    return len(_left)


def test_a_thread_that_outlives_its_task_computes_while_others_run() -> None:
    ray_dask_get({"leave": (_leave_a_thread, 30)}, "leave")
    for number in range(100):
        assert compute(number) == 2 * number + 3
    counts = ray_dask_get({("join", i): (_join,) for i in range(8)}, [("join", i) for i in range(8)])
    assert max(counts) == 1


class _Computes:
    """Computes when it is dropped, which may be in the middle of the worker's own work."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        compute(self.number)


def _number_of(computes: _Computes) -> int:
    return computes.number


def test_an_input_that_computes_when_it_is_dropped() -> None:
    made = {("made", i): (_Computes, i) for i in range(5)}
    read = {("read", i): (_number_of, ("made", i)) for i in range(5)}
    assert ray_dask_get({**made, **read}, list(read)) == list(range(5))
    assert eagleray._engine.native.counters()["reruns"] == 0
