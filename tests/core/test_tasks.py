"""Remote functions: how they are made and called, what their arguments are and what they return."""

import itertools
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray import ObjectRef
from eagleray.exceptions import TaskError, WorkerCrashedError
from tests.conftest import until
from tests.core.remotes import Counter, add, die, echo, fail, kind_of, note, noted, pid, until_exists

pytestmark = pytest.mark.usefixtures("shared")


class TestMaking:
    def test_of_a_module(self) -> None:
        assert eagleray.get(add.remote(1, 2)) == 3
        assert eagleray.get(pid.remote()) != os.getpid()

    def test_local_and_nested(self) -> None:
        base = 10

        @eagleray.remote
        def outer(n: int) -> int:
            @eagleray.remote
            def inner(k: int) -> int:
                return base + k

            return sum(eagleray.get([inner.remote(i) for i in range(n)]))

        assert eagleray.get(outer.remote(3)) == 33

    def test_that_calls_itself(self) -> None:
        @eagleray.remote
        def factorial(n: int) -> int:
            return 1 if n == 0 else n * eagleray.get(factorial.remote(n - 1))

        assert eagleray.get(factorial.remote(6)) == 720

    def test_a_closure_is_taken_at_the_first_call(self) -> None:
        values = [1]
        seen = eagleray.remote(lambda: list(values))
        assert eagleray.get(seen.remote()) == [1]

    @pytest.mark.parametrize("make", [lambda f: f, lambda f: f.options(name="named")], ids=["plain", "options"])
    def test_without_a_decorator(self, make: Any) -> None:
        assert eagleray.get(make(eagleray.remote(lambda x: x * 2)).remote(4)) == 8

    def test_with_options_in_the_decorator(self) -> None:
        @eagleray.remote(num_returns=2, max_retries=0)
        def two() -> tuple[int, int]:
            return 1, 2

        assert eagleray.get(list(two.remote())) == [1, 2]
        assert eagleray.get(two.options(num_returns=1).remote()) == (1, 2)
        assert len(two.remote()) == 2

    def test_keeps_name_and_docstring(self) -> None:
        @eagleray.remote
        def documented(x: int) -> int:
            """What it does."""
            return x

        assert documented.__name__ == "documented"
        assert documented.__doc__ == "What it does."
        assert "documented" in repr(documented)

    def test_travels_as_an_argument(self) -> None:
        @eagleray.remote
        def apply(function: Any, *args: Any) -> Any:
            return eagleray.get(function.remote(*args))

        assert eagleray.get(apply.remote(add, 3, 4)) == 7
        assert eagleray.get(apply.remote(add.options(name="sum"), 3, 4)) == 7

    def test_a_thread_of_the_driver_submits(self) -> None:
        results: list[int] = []
        threads = [
            threading.Thread(target=lambda i=i: results.append(eagleray.get(add.remote(i, i)))) for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [0, 2, 4, 6]


class TestArguments:
    def test_refs_are_values_at_the_top(self) -> None:
        two, large = eagleray.put(2), eagleray.put(np.ones(100_000))
        assert eagleray.get(add.remote(two, y=add.remote(1, 1))) == 4
        positional, named = eagleray.get(kind_of.remote(two, large, n=two, a=large))
        assert positional == ["int", "ndarray"]
        assert named == {"n": "int", "a": "ndarray"}

    def test_nested_refs_stay_refs(self) -> None:
        ref = eagleray.put(5)

        @eagleray.remote
        def look(items: list[Any], table: dict[str, Any], *, pair: tuple[Any, ...]) -> Any:
            refs = [items[0], table["x"], pair[1]]
            return [type(item) is ObjectRef for item in refs], eagleray.get(refs)

        assert eagleray.get(look.remote([ref], {"x": ref}, pair=(0, ref))) == ([True] * 3, [5] * 3)

    def test_nested_refs_are_not_waited_for(self, tmp_path: Path) -> None:
        go = tmp_path / "go"
        pending = until_exists.remote(str(go))
        assert eagleray.get(echo.remote([pending]))[0] == pending
        go.touch()
        assert eagleray.get(pending) == str(go)

    def test_chain(self) -> None:
        ref = eagleray.put(0)
        for _ in range(200):
            ref = add.remote(ref, 1)
        assert eagleray.get(ref) == 200

    def test_same_ref_twice(self) -> None:
        ref = echo.remote(21)
        assert eagleray.get(add.remote(ref, ref)) == 42

    def test_large_ones(self) -> None:
        data = np.arange(1_000_000)
        total = eagleray.remote(lambda *arrays, more: sum(int(a.sum()) for a in arrays) + int(more.sum()))
        assert eagleray.get(total.remote(data, data, more=data)) == 3 * data.sum()

    def test_are_what_they_were_at_the_call(self) -> None:
        items, array = [1, 2], np.ones(1_000_000)
        refs = [echo.remote(items), eagleray.remote(lambda array: int(array.sum())).remote(array)]
        items.append(3)
        array[:] = 2
        assert eagleray.get(refs) == [[1, 2], 1_000_000]

    def test_arrays_are_read_only(self) -> None:
        writable = eagleray.remote(lambda array: array.flags.writeable)
        for size in (10, 1_000_000):
            assert eagleray.get(writable.remote(eagleray.put(np.ones(size)))) is False

    def test_many(self) -> None:
        refs = [echo.remote(i) for i in range(500)]
        assert eagleray.get(eagleray.remote(lambda *items: sum(items)).remote(*refs)) == sum(range(500))

    def test_odd_ones(self) -> None:
        for value in (None, False, "", b"", (), float("inf"), "a" * 200_000, {"k": [1, (2,)]}, Ellipsis):
            assert eagleray.get(echo.remote(value)) == value
            assert eagleray.get(echo.remote(value=value)) == value

    def test_defaults_and_keywords(self) -> None:
        @eagleray.remote
        def f(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> Any:
            return a, b, rest, c, d, more

        assert eagleray.get(f.remote(1, c=3)) == (1, 2, (), 3, 4, {})
        assert eagleray.get(f.remote(1, 5, 6, 7, c=3, e=9)) == (1, 5, (6, 7), 3, 4, {"e": 9})

    @pytest.mark.parametrize("name", ["self", "args", "kwargs", "options", "name", "function", "target"])
    def test_no_name_is_taken(self, name: str) -> None:
        assert eagleray.get(eagleray.remote(lambda **named: named).remote(**{name: 1})) == {name: 1}


@eagleray.remote
def called(function: Any) -> Any:
    return function()


class TestReturns:
    def test_none(self) -> None:
        assert echo.options(num_returns=0).remote(None) is None

    def test_that_nobody_waits_for(self, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")
        eagleray.remote(note).options(num_returns=0).remote(path)
        until(lambda: noted(path) == 1)

    def test_whose_ref_is_dropped(self, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")
        eagleray.remote(note).remote(path)
        until(lambda: noted(path) == 1)

    @pytest.mark.parametrize(
        "make",
        [tuple, list, np.array, dict.fromkeys, iter, lambda values: (value for value in values)],
        ids=["tuple", "list", "array", "dict", "iterator", "generator"],
    )
    def test_several(self, make: Any) -> None:
        refs = eagleray.remote(lambda: make([1, 2, 3])).options(num_returns=3).remote()
        assert isinstance(refs, list)
        assert eagleray.get(refs) == [1, 2, 3]
        assert eagleray.get(add.remote(refs[0], refs[2])) == 4
        counter = Counter.remote()
        assert eagleray.get(counter.call.options(num_returns=3).remote(make, [1, 2, 3])) == [1, 2, 3]

    def test_several_of_what_is_iterated_over_once(self) -> None:
        """What it gives may not be the same each time, and large arrays would be a list for each of their values."""

        class Differing:
            times = 0

            def __iter__(self) -> Any:
                self.times += 1
                return iter([self.times] * 3)

        assert eagleray.get(called.options(num_returns=3).remote(Differing)) == [1, 1, 1]

    def test_several_of_what_has_no_end(self) -> None:
        counter = Counter.options(max_concurrency=2).remote()
        for ref in [
            *called.options(num_returns=2).remote(itertools.count),
            *counter.call.options(num_returns=2).remote(itertools.count),
        ]:
            with pytest.raises(ValueError, match="must return 2 values, but it returned more"):
                eagleray.get(ref)

    def test_several_large_ones(self) -> None:
        refs = eagleray.remote(lambda: [np.full(200_000, i) for i in range(3)]).options(num_returns=3).remote()
        middle = refs[1]
        del refs
        assert eagleray.get(middle)[0] == 1

    @pytest.mark.parametrize("count", [2, 4])
    def test_another_number_than_said(self, count: int) -> None:
        refs = eagleray.remote(lambda: (1, 2, 3)).options(num_returns=count).remote()
        assert len(refs) == count
        for ref in refs:
            with pytest.raises(ValueError, match=rf"(?s){count}.*3|3.*{count}"):
                eagleray.get(ref)

    def test_something_that_has_no_parts(self) -> None:
        for ref in echo.options(num_returns=2).remote(5):
            with pytest.raises((TypeError, ValueError), match="num_returns"):
                eagleray.get(ref)

    def test_several_of_a_task_that_fails(self) -> None:
        for ref in fail.options(num_returns=2).remote(KeyError, "k"):
            with pytest.raises(KeyError):
                eagleray.get(ref)

    def test_a_ref_stays_a_ref(self) -> None:
        @eagleray.remote
        def inner() -> Any:
            return echo.remote(5)

        ref = eagleray.get(inner.remote())
        assert isinstance(ref, ObjectRef)
        assert eagleray.get(ref) == 5
        assert eagleray.get(kind_of.remote(inner.remote()))[0] == ["ObjectRef"]


class TestFailures:
    def test_only_who_reads_it_fails(self) -> None:
        bad, good = fail.remote(ValueError, "bad"), echo.remote(1)
        assert eagleray.get(add.remote(good, 1)) == 2
        with pytest.raises(ValueError, match="bad"):
            eagleray.get(add.remote(add.remote(bad, 1), 1))
        assert eagleray.get(good) == 1

    def test_later_tasks_run(self) -> None:
        refs = [fail.remote(ValueError, i) if i % 3 == 0 else echo.remote(i) for i in range(30)]
        assert len(eagleray.wait(refs, num_returns=30)[0]) == 30
        assert [eagleray.get(ref) for i, ref in enumerate(refs) if i % 3] == [i for i in range(30) if i % 3]

    def test_a_worker_that_dies_takes_nothing_along(self) -> None:
        refs = [echo.remote(i) for i in range(20)]
        crash = die.options(max_retries=0).remote()
        refs += [echo.remote(i) for i in range(20, 40)]
        assert eagleray.get(refs) == list(range(40))
        with pytest.raises(WorkerCrashedError):
            eagleray.get(crash)


class TestNames:
    def test_name_is_in_the_error(self) -> None:
        with pytest.raises(TaskError, match="my-task"):
            eagleray.get(fail.options(name="my-task").remote(ValueError, "x"))

    def test_default_is_the_functions(self) -> None:
        with pytest.raises(TaskError, match="fail"):
            eagleray.get(fail.remote(ValueError, "x"))


class TestSurroundings:
    def test_env_vars(self) -> None:
        variable = eagleray.remote(lambda: os.environ.get("EAGLERAY_TEST_VARIABLE"))
        there = variable.options(runtime_env={"env_vars": {"EAGLERAY_TEST_VARIABLE": "there"}})
        assert eagleray.get(there.remote()) == "there"
        assert eagleray.get(variable.remote()) is None

    def test_working_dir(self, tmp_path: Path) -> None:
        (tmp_path / "found_there.txt").write_text("text")
        read = eagleray.remote(lambda: Path("found_there.txt").read_text())
        assert eagleray.get(read.options(runtime_env={"working_dir": str(tmp_path)}).remote()) == "text"


def test_the_function_is_sent_once() -> None:
    big = bytes(2_000_000)
    size = eagleray.remote(lambda: len(big))
    assert eagleray.get([size.remote() for _ in range(20)]) == [len(big)] * 20
