"""Objects in shared memory, as a user sees them: right, freed, and warned about when they do not fit."""

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import eagleray
from eagleray import _engine
from eagleray.dask import ray_dask_get
from tests.conftest import until
from tests.tasks import inc


@pytest.mark.usefixtures("session")
class TestValues:
    @pytest.mark.parametrize(
        "value",
        [
            np.array(3.0),
            np.zeros((0, 3)),
            np.ma.masked_array([1, 2], mask=[0, 1]),
            np.array(["2020-01-01"], "datetime64[D]"),
            np.arange(24.0).reshape(4, 6).T[::2],
            np.asfortranarray(np.arange(100_000.0).reshape(100, 1000)),
            b"x" * 100_000,
        ],
        ids=["no dimensions", "empty", "masked", "datetime", "strided", "fortran", "bytes"],
    )
    def test_round_trip(self, value: object) -> None:
        for back in (eagleray.get(eagleray.put(value)), ray_dask_get({"a": (_same, value)}, "a")):
            assert type(back) is type(value)
            np.testing.assert_array_equal(back, value)

    def test_results_are_writable_and_gotten_views_are_not(self) -> None:
        array = ray_dask_get({"a": (np.zeros, 100_000)}, "a")
        array[0] = 1
        ref = eagleray.put(array)
        view = eagleray.get(ref)
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 2
        copy = eagleray.get(ref, copy=True)
        copy[0] = 2
        assert eagleray.get(ref)[0] == 1

    def test_a_task_that_writes_to_its_input_writes_to_a_copy(self) -> None:
        graph = {"a": (np.zeros, 10), "w": (_fill, "a"), "r": (_sum_after, "a", "w")}
        assert ray_dask_get(graph, ["w", "r"]) == [50.0, 0.0]


def _same(value: object) -> object:
    return value


def _fill(array: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    array[:] = 5
    return float(array.sum())


def _sum_after(array: "np.ndarray[tuple[int], np.dtype[np.float64]]", _: object) -> float:
    return float(array.sum())


@pytest.mark.usefixtures("session")
class TestMemory:
    def test_what_is_dropped_is_freed(self) -> None:
        ref = eagleray.put(np.ones(1_000_000))
        view = eagleray.get(ref)
        del ref
        assert _engine.native.counters()["sealed_bytes"] >= 8_000_000
        assert view.sum() == 1_000_000
        del view
        until(lambda: _engine.native.counters()["sealed_bytes"] == 0)

    def test_a_graph_that_cannot_be_sent_leaves_nothing(self) -> None:
        lock = threading.Lock()
        for _ in range(3):
            with pytest.raises(TypeError, match="lock"):
                ray_dask_get({"a": (len, np.ones(1_000_000)), "b": (id, lock)}, ["a", "b"])
        until(lambda: _engine.native.counters()["objects"] == 0)
        assert ray_dask_get({"a": (inc, 1)}, "a") == 2

    def test_large_arguments_travel_once_and_go(self) -> None:
        array = np.ones(1_000_000)
        before = _engine.native.counters()["objects"]
        assert ray_dask_get({("a", i): (_sum_after, array, i) for i in range(20)}, [("a", 3)]) == [1_000_000.0]
        until(lambda: _engine.native.counters()["objects"] == before)


@pytest.mark.usefixtures("fresh")
def test_ref_of_a_session_that_has_ended() -> None:
    eagleray.init(num_cpus=1)
    ref = eagleray.put(1)
    eagleray.shutdown()
    with pytest.raises(eagleray.exceptions.ObjectLostError, match="has ended"):
        eagleray.get(ref)
    with pytest.raises(eagleray.exceptions.ObjectLostError, match="has ended"):
        eagleray.wait([ref])
    assert not eagleray.is_initialized()
    eagleray.init(num_cpus=1)
    with pytest.raises(eagleray.exceptions.ObjectLostError, match="has ended"):
        eagleray.get(ref)


def test_full_store_gives_right_answers_and_one_warning() -> None:
    program = """
    import dask.array as da, eagleray, os
    from eagleray import _engine
    from eagleray.dask import ray_dask_get
    eagleray.init(num_cpus=2, object_store_memory=16 << 20)
    x = da.ones((4000, 4000), chunks=(500, 4000)).rechunk((4000, 500))
    print(int((x + x.T).sum().compute(scheduler=ray_dask_get)))
    refs = [eagleray.put(bytes(4 << 20)) for _ in range(8)]
    print(sum(map(len, eagleray.get(refs))), set(os.listdir(_engine._session_dir)) - {'output', 'inquiries'})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.splitlines() == ["32000000", f"{8 * (4 << 20)} set()"]
    assert done.stderr.count("object store is full") == 1
