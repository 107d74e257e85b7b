"""Objects: `get`, `put` and `wait`."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import eagleray
from eagleray import ObjectRef
from eagleray.exceptions import GetTimeoutError
from tests.core.remotes import add, echo, fail, until_exists

pytestmark = pytest.mark.usefixtures("shared")


@pytest.fixture
def pending(tmp_path: Path) -> Any:
    """The ref of a task that ends with the test."""
    ref = until_exists.remote(str(tmp_path / "go"))
    yield ref
    (tmp_path / "go").touch()
    eagleray.get(ref)


class TestGet:
    def test_one_and_many(self) -> None:
        refs = [echo.remote(i) for i in range(50)]
        assert eagleray.get(refs[7]) == 7
        assert eagleray.get(refs) == list(range(50))
        assert eagleray.get([]) == []

    def test_duplicates(self) -> None:
        one, two = eagleray.put("one"), echo.remote("two")
        assert eagleray.get([one, two, one, one, two]) == ["one", "two", "one", "one", "two"]

    def test_again(self) -> None:
        ref = echo.remote([1])
        assert eagleray.get(ref) == eagleray.get(ref) == [1]

    def test_order_of_the_list(self, tmp_path: Path) -> None:
        late = until_exists.remote(str(tmp_path / "go"))
        early = echo.remote("early")
        assert eagleray.get(early) == "early"
        (tmp_path / "go").touch()
        assert eagleray.get([late, early]) == [str(tmp_path / "go"), "early"]

    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_timeout(self, timeout: float, pending: ObjectRef) -> None:
        with pytest.raises(TimeoutError) as caught:
            eagleray.get(pending, timeout=timeout)
        assert isinstance(caught.value, GetTimeoutError)
        with pytest.raises(GetTimeoutError):
            eagleray.get([eagleray.put(1), pending], timeout=timeout)

    def test_timeout_of_what_is_there(self) -> None:
        ref = echo.remote(1)
        eagleray.wait([ref])
        assert eagleray.get(ref, timeout=0) == 1
        assert eagleray.get(ref, timeout=None) == 1
        assert eagleray.get(eagleray.put(2), timeout=10) == 2

    def test_first_error_of_a_list(self) -> None:
        bad, good = fail.remote(ValueError, "bad"), echo.remote(1)
        with pytest.raises(ValueError, match="bad"):
            eagleray.get([good, bad, good])

    def test_an_error_comes_again(self) -> None:
        bad = fail.remote(KeyError, "k")
        for _ in range(2):
            with pytest.raises(KeyError):
                eagleray.get(bad)

    def test_in_several_threads(self) -> None:
        ref = add.remote(1, 2)
        seen: list[int] = []
        threads = [threading.Thread(target=lambda: seen.append(eagleray.get(ref))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [3] * 8


class TestPut:
    @pytest.mark.parametrize(
        "value",
        [None, 0, "text", b"bytes" * 100_000, [1, (2, {"k": {3}})], float("-inf"), range(3), int, ValueError],
        ids=lambda value: type(value).__name__,
    )
    def test_comes_back(self, value: Any) -> None:
        assert eagleray.get(eagleray.put(value)) == value
        assert eagleray.get(echo.remote(eagleray.put(value))) == value

    def test_is_a_copy(self) -> None:
        items = [1]
        ref = eagleray.put(items)
        items.append(2)
        assert eagleray.get(ref) == [1]

    @pytest.mark.parametrize("size", [10, 1_000_000])
    def test_arrays_are_read_only_views(self, size: int) -> None:
        array = eagleray.get(eagleray.put(np.arange(size)))
        np.testing.assert_array_equal(array, np.arange(size))
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1

    def test_arrays_outlive_their_ref(self) -> None:
        array = eagleray.get(eagleray.put(np.full(1_000_000, 7)))
        again = eagleray.get(echo.remote(np.full(1_000_000, 8)))
        for _ in range(20):
            eagleray.put(np.zeros(1_000_000))
        assert array.sum() == 7_000_000
        assert again.sum() == 8_000_000

    def test_results_are_read_only(self) -> None:
        assert not eagleray.get(echo.remote(np.ones(10))).flags.writeable
        assert not eagleray.get(echo.remote(np.ones(1_000_000))).flags.writeable

    def test_dataframe(self) -> None:
        frame = pd.DataFrame({"x": np.arange(10_000), "s": ["text"] * 10_000})
        pd.testing.assert_frame_equal(eagleray.get(echo.remote(eagleray.put(frame))), frame)

    def test_in_a_task(self) -> None:
        @eagleray.remote
        def make(n: int) -> list[ObjectRef]:
            return [eagleray.put(np.full(200_000, i)) for i in range(n)]

        refs = eagleray.get(make.remote(3))
        assert [int(array[0]) for array in eagleray.get(refs)] == [0, 1, 2]

    def test_an_error_is_a_value(self) -> None:
        """What is put, or returned, is not raised."""
        error = eagleray.get(eagleray.put(ValueError("kept")))
        assert isinstance(error, ValueError)
        assert isinstance(eagleray.get(echo.remote(KeyError("k"))), KeyError)


class TestWait:
    def test_splits_in_the_order_of_the_list(self, pending: ObjectRef) -> None:
        first, second = echo.remote(1), echo.remote(2)
        eagleray.get([first, second])
        assert eagleray.wait([first, pending, second], num_returns=2) == ([first, second], [pending])
        assert eagleray.wait([second, pending, first], num_returns=2) == ([second, first], [pending])

    def test_no_more_than_asked(self, pending: ObjectRef) -> None:
        refs = [eagleray.put(i) for i in range(5)]
        done, rest = eagleray.wait([*refs, pending])
        assert len(done) == 1
        assert done + rest == [*refs, pending]
        assert eagleray.wait(refs, num_returns=3) == (refs[:3], refs[3:])

    def test_timeout(self, pending: ObjectRef) -> None:
        done = eagleray.put(1)
        for timeout in (0, 0.05):
            assert eagleray.wait([pending], timeout=timeout) == ([], [pending])
            assert eagleray.wait([pending, done], num_returns=2, timeout=timeout) == ([done], [pending])

    def test_nothing(self) -> None:
        assert eagleray.wait([]) == ([], [])

    def test_a_failed_task_is_done(self) -> None:
        bad = fail.remote(ValueError, "bad")
        assert eagleray.wait([bad]) == ([bad], [])

    def test_returns_as_soon_as_one_is_there(self, tmp_path: Path, pending: ObjectRef) -> None:
        soon = until_exists.remote(str(tmp_path / "soon"))
        timer = threading.Timer(0.05, (tmp_path / "soon").touch)
        timer.start()
        assert eagleray.wait([pending, soon]) == ([soon], [pending])
        timer.join()

    def test_in_a_task(self) -> None:
        @eagleray.remote
        def first_of(refs: list[ObjectRef]) -> Any:
            done, rest = eagleray.wait(refs, num_returns=1)
            return eagleray.get(done), len(rest)

        assert eagleray.get(first_of.remote([echo.remote(5)])) == ([5], 0)

    def test_loop_until_all_are_done(self) -> None:
        pending, seen = [echo.remote(i) for i in range(100)], []
        while pending:
            done, pending = eagleray.wait(pending, num_returns=min(7, len(pending)), fetch_local=False)
            seen += eagleray.get(done)
        assert sorted(seen) == list(range(100))


def test_many_small_ones() -> None:
    refs = [eagleray.put(i) for i in range(2000)]
    assert eagleray.get(refs) == list(range(2000))
    done, rest = eagleray.wait(refs, num_returns=2000)
    assert (len(done), rest) == (2000, [])
