"""What the driver gives to tasks: arrays are read-only, everything else is each task's own."""

import functools
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from dask._task_spec import DataNode, Task
from dask.utils import SerializableLock

import eagleray
from eagleray import _sharing
from eagleray._dask_versions import LEGACY_DATAFRAMES
from eagleray.dask import ray_dask_get, ray_dask_get_sync
from eagleray.exceptions import ReadOnlyInputError

SMALL, LARGE = 10, 100_000


@pytest.fixture(autouse=True)
def workers(shared: None) -> None:
    pass


def write(a: Any) -> Any:
    a[0] = 7
    return a


def write_second(a: Any, b: Any) -> Any:
    b[0] = 7
    return a, b


def write_named(a: Any, *, into: Any) -> Any:
    into[0] = a
    return into


def write_in(items: Any) -> Any:
    (items["x"] if isinstance(items, dict) else items[0])[0] = 7
    return items


def write_column(frame: Any, value: Any) -> Any:
    frame["new"] = value
    return frame


def ones(n: int) -> Any:
    return np.ones(n)


def message(graph: Any, key: Any = "k") -> str:
    with pytest.raises(ReadOnlyInputError) as caught:
        ray_dask_get(graph, key)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, eagleray.exceptions.EaglerayError)
    return str(caught.value)


@pytest.mark.parametrize("size", [SMALL, LARGE])
class TestArrays:
    def test_literal_in_a_task(self, size: int) -> None:
        array = np.zeros(size)
        text = message({"k": (write, array)})
        assert text.startswith(f"Task 'k' wrote to argument 'a' (numpy.ndarray, shape ({size},), dtype float64)")
        assert "copy" in text
        assert array[0] == 0
        assert array.flags.writeable

    def test_literal_of_its_own_key(self, size: int) -> None:
        assert "argument 'a'" in message({"array": np.zeros(size), "k": (write, "array")})

    def test_put(self, size: int) -> None:
        assert "argument 'a'" in message({"k": (write, eagleray.put(np.zeros(size)))})

    @pytest.mark.parametrize("wrap", [lambda a: [a], lambda a: {"x": a}, lambda a: (a,), lambda a: [a, 1]])
    def test_in_a_container(self, size: int, wrap: Any) -> None:
        assert "argument 'items'" in message({"k": (write_in, wrap(np.zeros(size)))})

    def test_in_an_object(self, size: int) -> None:
        assert "argument 'a' (tests.test_read_only.Wrapper" in message({"k": (write, Wrapper(np.zeros(size)))})

    def test_the_argument_is_the_one(self, size: int) -> None:
        text = message({"made": (ones, size), "k": (write_second, "made", np.zeros(size))})
        assert "argument 'b'" in text
        assert "argument 'a'" not in text

    def test_keyword_argument(self, size: int) -> None:
        result = delayed(write_named)(3, into=np.zeros(size), dask_key_name="k")
        with pytest.raises(ReadOnlyInputError, match=r"'k' wrote to argument '(into|kwargs)'"):
            result.compute(scheduler=ray_dask_get)

    def test_what_tasks_made_may_be_written_to(self, size: int) -> None:
        graph = {"made": (ones, size), "k": (write, "made"), "sum": (np.sum, "made"), "both": (np.add, "sum", "k")}
        assert ray_dask_get(graph, "both")[0] == size + 7
        (ref,) = ray_dask_get({"made": (ones, size)}, ["made"], ray_persist=True)
        assert ray_dask_get({"k": (write, ref)}, "k")[0] == 7
        assert eagleray.get(ref)[0] == 1

    def test_in_a_second_attempt_what_the_driver_gave_is_read_only_still(self, size: int) -> None:
        def both(made: Any, given: Any) -> None:
            made[0] = given[0] = 1

        assert "argument 'given'" in message({"made": (ones, size), "k": (both, "made", np.zeros(size))})

    @pytest.mark.parametrize(
        "make",
        [
            lambda n: np.zeros(n, dtype="M8[s]"),
            lambda n: np.zeros(n, dtype=[("a", float), ("b", int)]),
            lambda n: np.zeros(n, dtype=object),
            lambda n: np.zeros(2 * n)[::2],
            lambda n: np.ma.masked_array(np.zeros(n), mask=[False] * n),
            lambda n: np.zeros((n, 2)).view(np.matrix),
            lambda n: np.asfortranarray(np.zeros((n, 2))),
        ],
    )
    @pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
    def test_kinds_of_arrays(self, size: int, make: Any) -> None:
        array = make(size)
        assert "argument 'a'" in message({"k": (write_zero, array)})

    def test_mask_of_an_array(self, size: int) -> None:
        array = np.ma.masked_array(np.zeros(size), mask=[False] * size)
        with pytest.raises(ValueError, match="read-only"):
            ray_dask_get({"k": (mask_first, array)}, "k")


def write_zero(a: Any) -> Any:
    a[0] = a[1]
    return a


def mask_first(a: Any) -> Any:
    a[0] = np.ma.masked
    return a


class Wrapper:
    def __init__(self, array: Any) -> None:
        self.array = array

    def __setitem__(self, index: Any, value: Any) -> None:
        self.array[index] = value


def test_no_dimensions() -> None:
    def fill(a: Any) -> Any:
        a[...] = 7

    assert "argument 'a'" in message({"k": (fill, np.array(3.0))})


def test_a_read_only_error_of_the_task_itself_stays_what_it_is() -> None:
    def own(a: Any) -> Any:
        b = np.broadcast_to(1.0, 3)
        b[0] = 7

    with pytest.raises(ValueError, match="read-only") as caught:
        ray_dask_get({"k": (own, 1)}, "k")
    assert not isinstance(caught.value, ReadOnlyInputError)


def sort(items: list[int]) -> list[int]:
    items.sort()
    items.append(len(items))
    return items


class Estimator:
    """Changes and returns itself, as some do."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def fit(self, x: Any) -> "Estimator":
        self.seen.append(x)
        return self

    def __call__(self, x: Any) -> list[Any]:
        return self.fit(x).seen


def fit(estimator: Estimator, x: Any) -> Estimator:
    return estimator.fit(x)


def draw(rng: Any, count: int) -> list[float]:
    return [float(x) for x in rng.random(count)]


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _containers(item)
    if not isinstance(value, tuple | int):
        yield value


def extend_all(nested: Any, number: int) -> list[int]:
    """Changes everything in `nested`, and says what others have done to it."""
    found = []
    for container in {id(container): container for container in _containers(nested)}.values():
        match container:
            case list():
                found += [mark[0] for mark in container if isinstance(mark, Mark)]
                container.append(Mark([number]))
            case set():
                found += [mark for mark in container if mark >= 100]
                container.add(100 + number)
            case bytearray():
                found += [mark for mark in container if mark >= 100]
                container.append(100 + number)
            case dict():
                found += container.get("mark", [])
                container["mark"] = [number]
            case pd.DataFrame():
                found += list(container.get("mark", []))
                container["mark"] = number
    return [*found, number]


def classes_called(name: str) -> int:
    gc.collect()
    return sum(isinstance(item, type) and item.__name__ == name for item in gc.get_objects())


class Mark(list[int]):
    """What a task has left."""


def is_one(nested: Any) -> bool:
    first, second = nested.values() if isinstance(nested, dict) else nested
    return first is (second if first == second else second[0])


class TestEachTasksOwn:
    """Some twenty tasks, so that several run in one worker."""

    @pytest.mark.parametrize("items", [[3, 1, 2], list(range(20_000, 0, -1))])
    def test_lists(self, items: list[int]) -> None:
        before = list(items)
        graph = {("k", i): (sort, items) for i in range(20)}
        for _ in range(2):
            assert ray_dask_get(graph, list(graph)) == [[*sorted(before), len(before)]] * 20
        assert items == before

    def test_put_lists(self) -> None:
        ref = eagleray.put([3, 1, 2])
        graph = {("k", i): (sort, ref) for i in range(20)}
        assert ray_dask_get(graph, list(graph)) == [[1, 2, 3, 3]] * 20
        assert eagleray.get(ref) == [3, 1, 2]

    @pytest.mark.parametrize("frame", [pd.DataFrame({"a": range(3)}), pd.DataFrame({"a": range(30_000)})])
    def test_tables(self, frame: pd.DataFrame) -> None:
        graph = {("k", i): (write_column, frame, i) for i in range(20)}
        for i, result in enumerate(ray_dask_get(graph, list(graph))):
            assert list(result.columns) == ["a", "new"]
            assert set(result["new"]) == {i}
        assert list(frame.columns) == ["a"]

    @pytest.mark.parametrize("nest", [lambda e: e, lambda e: [e], lambda e: {"e": e}])
    def test_objects(self, nest: Any) -> None:
        def fit_nested(nested: Any, x: Any) -> list[Any]:
            inner = nested[0] if isinstance(nested, list) else nested["e"] if isinstance(nested, dict) else nested
            return fit(inner, x).seen

        nested = nest(Estimator())
        graph = {("k", i): (fit_nested, nested, i) for i in range(20)}
        assert ray_dask_get(graph, list(graph)) == [[i] for i in range(20)]

    @pytest.mark.parametrize("method", [lambda e: e, lambda e: e.__call__, functools.partial])
    def test_objects_that_are_called(self, method: Any) -> None:
        function = method(Estimator())
        graph = {("k", i): (function, i) for i in range(20)}
        for _ in range(2):
            assert ray_dask_get(graph, list(graph)) == [[i] for i in range(20)]

    def test_results_that_are_an_argument(self) -> None:
        estimator = Estimator()
        made = {("made", i): (fit, estimator, i) for i in range(20)}
        seen = {("seen", i): (lambda e: e.seen, ("made", i)) for i in range(20)}
        assert ray_dask_get({**made, **seen}, list(seen)) == [[i] for i in range(20)]

    def test_a_worker_does_not_keep_the_classes_of_all_objects(self) -> None:
        for _ in range(4):
            graph = {("k", i): (id, type("Passing", (), {})()) for i in range(1500)}
            ray_dask_get(graph, list(graph))
        counts: set[int] = set()
        for _ in range(8):
            counts.update(ray_dask_get({("k", i): (classes_called, "Passing") for i in range(4)}, [("k", 0), ("k", 3)]))
        assert max(counts) <= 2500  # of 6000; those of the last graph may still be there

    def test_random_generators(self) -> None:
        rng = np.random.default_rng(5)
        expected = draw(np.random.default_rng(5), 3)
        graph = {("k", i): (draw, rng, 3) for i in range(20)}
        assert ray_dask_get(graph, list(graph)) == [expected] * 20
        assert draw(rng, 3) == expected

    @pytest.mark.parametrize("put", [False, True])
    @pytest.mark.parametrize(
        "nested",
        [
            [[1], {2}, bytearray(b"3")],
            ([1], {"b": {2}}),
            {"a": [1], ("b", 2): (0, {"c": bytearray(b"3")})},
            (pd.DataFrame({"a": [1]}), [1]),
            [([],)] * 3,
            [[i] for i in range(200)],
        ],
    )
    def test_nested_containers(self, nested: Any, put: bool) -> None:
        value = eagleray.put(nested) if put else DataNode(None, nested)
        graph = {("k", i): Task(("k", i), extend_all, value, i) for i in range(20)}
        assert ray_dask_get(graph, list(graph)) == [[i] for i in range(20)]

    def test_a_list_in_two_places_is_one(self) -> None:
        items = [1]
        for nested in ([items, items], {"a": items, "b": (items,)}, (items, [items])):
            assert ray_dask_get({"k": (is_one, eagleray.put(nested))}, "k")

    def test_a_list_in_itself(self) -> None:
        items: list[Any] = [1]
        items.append([items])
        assert ray_dask_get({"k": (lambda a: a[1][0] is a, eagleray.put(items))}, "k")

    def test_a_rerun_after_its_worker_died(self, tmp_path: Path) -> None:
        def change_and_die(items: list[int], path: str) -> list[int]:
            items.append(4)
            if not os.path.exists(path):
                Path(path).touch()
                os._exit(1)
            return items

        assert ray_dask_get({"k": (change_and_die, [3], str(tmp_path / "died"))}, "k") == [3, 4]

    def test_literals_changed_between_computes(self) -> None:
        items, array = [1], np.array([1])
        for n in range(3):
            items[0] = array[0] = n
            assert ray_dask_get({"k": (lambda a, b: (a[0], int(b[0])), items, array)}, "k") == (n, n)


class Dictionary:
    """Keeps what it is given in memory, as nothing that is shared."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}

    def __setitem__(self, index: Any, value: Any) -> None:
        self.parts[str(index)] = value


class Files:
    """Keeps it in files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __setitem__(self, index: Any, value: Any) -> None:
        np.save(self.path / f"{index[0].start}.npy", value)


class TestStore:
    @pytest.fixture(autouse=True)
    def scheduler(self, workers: None) -> Any:
        if LEGACY_DATAFRAMES:
            pytest.skip("da.store of this Dask makes a lock of threading, which cannot be sent")
        with dask.config.set(scheduler=ray_dask_get):
            yield

    @pytest.mark.parametrize("lock", [True, False, SerializableLock()])
    @pytest.mark.parametrize("size", [SMALL, LARGE])
    def test_into_an_array(self, size: int, lock: Any) -> None:
        target = np.zeros(size)
        with pytest.raises(ReadOnlyInputError, match=r"target\[...\] = x.compute\(\).*zarr.*HDF5") as caught:
            da.store(da.ones(size, chunks=size // 2), target, lock=lock)
        assert "argument 'out' (numpy.ndarray" in str(caught.value)
        assert "store" in str(caught.value)
        assert not target.any()

    @pytest.mark.parametrize("size", [SMALL, LARGE])
    def test_later(self, size: int) -> None:
        stored = da.store(da.ones(size, chunks=size // 2), np.zeros(size), compute=False)
        with pytest.raises(ReadOnlyInputError, match="target"):
            dask.compute(stored)

    @pytest.mark.parametrize("size", [SMALL, LARGE])
    @pytest.mark.parametrize("compute", [True, False])
    def test_and_return_it(self, size: int, compute: bool) -> None:
        with pytest.raises(ReadOnlyInputError, match="target"):
            dask.compute(da.store(da.ones(size, chunks=size // 2), np.zeros(size), return_stored=True, compute=compute))

    @pytest.mark.parametrize("size", [SMALL, LARGE])
    def test_into_a_memmap(self, size: int, tmp_path: Path) -> None:
        target = np.memmap(tmp_path / "x", dtype=float, mode="w+", shape=(size,))
        with pytest.raises(ReadOnlyInputError, match=r"argument 'out' \(numpy.*memmap"):
            da.store(da.ones(size, chunks=size // 2), target)

    def test_into_several(self) -> None:
        targets = [np.zeros(4), np.zeros(4)]
        with pytest.raises(ReadOnlyInputError, match="target"):
            da.store([da.ones(4, chunks=2), da.zeros(4, chunks=2)], targets)

    @pytest.mark.parametrize("target", [[0] * 4, bytearray(4)])
    def test_into_a_list(self, target: Any) -> None:
        with pytest.raises(ReadOnlyInputError, match="target"):
            da.store(da.ones(4, chunks=2, dtype="u1"), target)

    def test_into_an_object_with_an_array(self) -> None:
        with pytest.raises(ReadOnlyInputError, match="Wrapper"):
            da.store(da.ones(4, chunks=2), Wrapper(np.zeros(4)))

    def test_into_an_object_with_memory_of_its_own(self) -> None:
        """It may be that nothing is lost, so that is a warning."""
        da.store(da.ones(4, chunks=2), Dictionary())
        with pytest.warns(RuntimeWarning, match="Dictionary.*does not reach the target"):
            _sharing.load_store_chunk(np.ones(2), Dictionary(), (slice(2),), None, False, False, False)

    def test_into_files(self, tmp_path: Path) -> None:
        da.store(da.ones(4, chunks=2), Files(tmp_path))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0.npy", "2.npy"]
        _sharing.load_store_chunk(np.ones(2), Files(tmp_path), (slice(5, 7),), None, False, False, False)

    def test_into_zarr(self, tmp_path: Path) -> None:
        zarr = pytest.importorskip("zarr")
        target = zarr.open(str(tmp_path / "x.zarr"), mode="w", shape=(4,), chunks=(2,), dtype="f8")
        da.store(da.ones(4, chunks=2), target)
        assert target[:].tolist() == [1.0] * 4
        _sharing.load_store_chunk(np.zeros(2), target, (slice(2),), None, False, False, False)
        assert target[:].tolist() == [0.0, 0.0, 1.0, 1.0]

    def test_to_npy_stack(self, tmp_path: Path) -> None:
        da.to_npy_stack(str(tmp_path), da.ones(4, chunks=2))
        assert da.from_npy_stack(str(tmp_path)).sum().compute() == 4


class TestInThisProcess:
    def test_writes_go_to_the_drivers_own(self) -> None:
        target = np.zeros(4)
        with dask.config.set(scheduler=ray_dask_get_sync):
            da.store(da.ones(4, chunks=2), target)
        assert target.tolist() == [1.0] * 4

    @pytest.mark.parametrize("size", [SMALL, LARGE])
    def test_results_are_the_objects_themselves(self, size: int) -> None:
        array = np.zeros(size)
        result = ray_dask_get_sync({"k": (write, array)}, "k")
        assert result is array
        assert array[0] == 7
        assert array.flags.writeable

    def test_what_cannot_be_pickled(self) -> None:
        lock = threading.Lock()
        assert ray_dask_get_sync({"k": (lambda held: held is lock, lock)}, "k")
