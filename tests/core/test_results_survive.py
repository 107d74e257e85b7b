"""What a task or an actor has returned is nobody's any more: the end of its process loses nothing."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray.exceptions import ActorDiedError, WorkerCrashedError
from tests.conftest import alive, until
from tests.core.remotes import Counter, Shelf, add, echo, note, noted

pytestmark = pytest.mark.usefixtures("session")

SMALL, LARGE = 10, 500_000
"""Elements of an array that is inline in a message, and of one that is in shared memory."""


def full(size: int, value: int) -> Any:
    return np.full(size, value)


def holds(array: Any, size: int, value: int) -> bool:
    return array.shape == (size,) and bool((array == value).all())


def end(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    until(lambda: not alive(process))


sizes = pytest.mark.parametrize("size", [SMALL, LARGE])


@sizes
class TestOfActors:
    def results(self, size: int) -> tuple[Any, list[Any]]:
        counter = Counter.remote()
        refs = [counter.call.remote(full, size, i) for i in range(5)]
        eagleray.wait(refs, num_returns=5)
        return counter, refs

    def test_killed(self, size: int) -> None:
        counter, refs = self.results(size)
        eagleray.kill(counter)
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.read.remote())
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))

    def test_by_a_signal(self, size: int) -> None:
        counter, refs = self.results(size)
        end(eagleray.get(counter.pid.remote()))
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))

    def test_out_of_scope(self, size: int) -> None:
        counter, refs = self.results(size)
        process = eagleray.get(counter.pid.remote())
        del counter
        until(lambda: not alive(process))
        assert all(holds(array, size, i) for i, array in enumerate(eagleray.get(refs)))

    def test_in_the_next_call(self, size: int) -> None:
        """The call before the one that ends the process, both submitted at once."""
        counter = Counter.remote()
        refs = [counter.call.remote(full, size, i) for i in range(5)]
        last = counter.die.remote()
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))
        with pytest.raises(ActorDiedError):
            eagleray.get(last)

    def test_that_restart(self, size: int, tmp_path: Path) -> None:
        """Those that were done are not done again."""
        path = str(tmp_path / "runs")
        counter = Counter.options(max_restarts=1, max_task_retries=-1).remote()

        def make(i: int) -> Any:
            note(path)
            return full(size, i)

        refs = [counter.call.remote(make, i) for i in range(5)]
        again = counter.die_once.remote(str(tmp_path / "died"))
        assert eagleray.get(again) == "survived"
        assert noted(path) == 5
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))

    def test_several_of_one_call(self, size: int) -> None:
        counter = Counter.remote()
        refs = counter.call.options(num_returns=3).remote(lambda: [full(size, i) for i in range(3)])
        eagleray.wait(refs, num_returns=3)
        end(eagleray.get(counter.pid.remote()))
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))

    def test_of_threads(self, size: int) -> None:
        counter = Counter.options(max_concurrency=4).remote()
        refs = [counter.call.remote(full, size, i) for i in range(8)]
        eagleray.wait(refs, num_returns=8)
        end(eagleray.get(counter.pid.remote()))
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))

    def test_of_coroutines(self, size: int) -> None:
        @eagleray.remote
        class Source:
            async def make(self, size: int, i: int) -> Any:
                return full(size, i)

            async def pid(self) -> int:
                return os.getpid()

        source = Source.remote()
        refs = [source.make.remote(size, i) for i in range(8)]
        eagleray.wait(refs, num_returns=8)
        end(eagleray.get(source.pid.remote()))
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))

    def test_of_generators(self, size: int) -> None:
        @eagleray.remote
        class Source:
            def make(self, size: int) -> Any:
                for i in range(3):
                    yield full(size, i)

            def pid(self) -> int:
                return os.getpid()

        source = Source.remote()
        refs = list(source.make.remote(size))
        end(eagleray.get(source.pid.remote()))
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))

    def test_what_it_put(self, size: int) -> None:
        counter = Counter.remote()
        refs = eagleray.get(counter.call.remote(lambda: [eagleray.put(full(size, i)) for i in range(3)]))
        end(eagleray.get(counter.pid.remote()))
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))

    def test_what_it_submitted(self, size: int) -> None:
        counter = Counter.remote()
        (ref,) = eagleray.get(counter.call.remote(lambda: [eagleray.remote(full).remote(size, 3)]))
        end(eagleray.get(counter.pid.remote()))
        assert holds(eagleray.get(ref), size, 3)

    def test_what_it_held_for_others(self, size: int) -> None:
        """The ref travelled through the actor; its end takes its own hold away, not that of others."""
        shelf = Shelf.remote()
        ref = eagleray.put(full(size, 4))
        eagleray.get(shelf.put.remote("ref", [ref]))
        (again,) = eagleray.get(shelf.look.remote("ref"))
        del ref
        eagleray.kill(shelf)
        with pytest.raises(ActorDiedError):
            eagleray.get(shelf.names.remote())
        assert holds(eagleray.get(again), size, 4)

    def test_in_its_arguments(self, size: int) -> None:
        """An argument that was made for a call is there for others too."""
        data = eagleray.put(full(size, 5))
        counter = Counter.remote(data)
        eagleray.get(counter.read.remote())
        end(eagleray.get(counter.pid.remote()))
        assert holds(eagleray.get(data), size, 5)


@sizes
class TestOfTasks:
    @pytest.fixture
    def make(self) -> Any:
        @eagleray.remote
        def make(size: int, i: int) -> Any:
            return os.getpid(), full(size, i)

        return make

    def test_by_a_signal(self, size: int, make: Any) -> None:
        two = make.options(num_returns=2)
        pairs = [two.remote(size, i) for i in range(6)]
        for process in set(eagleray.get([process for process, _ in pairs])):
            end(process)
        assert all(holds(eagleray.get(ref), size, i) for i, (_, ref) in enumerate(pairs))

    def test_and_not_run_again(self, size: int, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")

        @eagleray.remote(num_returns=2)
        def make(i: int) -> Any:
            note(path)
            return os.getpid(), full(size, i)

        pairs = [make.remote(i) for i in range(4)]
        for process in set(eagleray.get([process for process, _ in pairs])):
            end(process)
        assert all(holds(eagleray.get(ref), size, i) for i, (_, ref) in enumerate(pairs))
        assert noted(path) == 4

    def test_as_an_argument(self, size: int, make: Any) -> None:
        process, array = make.options(num_returns=2).remote(size, 2)
        end(eagleray.get(process))
        assert holds(eagleray.get(add.remote(array, 1)), size, 3)

    def test_in_the_driver_already(self, size: int, make: Any) -> None:
        process, array = eagleray.get(make.remote(size, 2))
        end(process)
        assert holds(array, size, 2)

    def test_what_it_put(self, size: int) -> None:
        @eagleray.remote
        def put() -> Any:
            return os.getpid(), eagleray.put(full(size, 6))

        process, ref = eagleray.get(put.remote())
        end(process)
        assert holds(eagleray.get(ref), size, 6)

    def test_generator(self, size: int) -> None:
        @eagleray.remote
        def make() -> Any:
            yield os.getpid()
            for i in range(3):
                yield full(size, i)

        process, *refs = list(make.remote())
        end(eagleray.get(process))
        assert all(holds(eagleray.get(ref), size, i) for i, ref in enumerate(refs))


class EndsOnce:
    """A value whose first pickling ends the process, after waiting for a ref."""

    def __init__(self, attempt: int, path: str, waits_for: Any = None) -> None:
        self.attempt, self.path, self.waits_for = attempt, path, waits_for

    def __reduce__(self) -> Any:
        if self.waits_for is not None:
            eagleray.get(self.waits_for.remote(self.attempt))
        if noted(self.path) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return int, (self.attempt,)


class TestOfSeveralValues:
    """They are there together, or none of them is."""

    @pytest.fixture(params=[None, echo], ids=["", "waits"])
    def make(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        path, waits_for = str(tmp_path / "attempts"), request.param

        @eagleray.remote(num_returns=3)
        def make() -> Any:
            note(path)
            attempt = noted(path)
            return full(LARGE, attempt), EndsOnce(attempt, path, waits_for), attempt

        return make

    @pytest.mark.parametrize("options", [{}, {"num_cpus": 2}, {"num_cpus": 0}])
    def test_are_of_one_attempt(self, make: Any, options: dict[str, Any]) -> None:
        large, *small = make.options(**options).remote()
        assert holds(eagleray.get(large), LARGE, 2)
        assert eagleray.get(small) == [2, 2]

    def test_without_another_attempt(self, make: Any) -> None:
        for ref in make.options(max_retries=0).remote():
            with pytest.raises(WorkerCrashedError):
                eagleray.get(ref)

    def test_that_take_long(self) -> None:
        """What is known to take long makes runs short."""

        @eagleray.remote(num_returns=3)
        def slow() -> Any:
            time.sleep(0.02)
            attempt = time.monotonic_ns()
            return os.getpid(), attempt, full(LARGE, attempt)

        eagleray.get([ref for _ in range(4) for ref in slow.remote()])
        for process, attempt, array in [slow.remote() for _ in range(8)]:
            there = eagleray.get(process)
            if alive(there):
                end(there)
            assert holds(eagleray.get(array), LARGE, eagleray.get(attempt))


@sizes
def test_of_a_task_that_submitted_and_ended(size: int) -> None:
    """A child outlives its parent and the parent's process."""

    @eagleray.remote
    def parent() -> Any:
        return os.getpid(), [echo.remote(full(size, 8))]

    process, (child,) = eagleray.get(parent.remote())
    end(process)
    assert holds(eagleray.get(child), size, 8)


def test_many_results_and_many_deaths() -> None:
    counters = [Counter.options(num_cpus=0).remote() for _ in range(4)]
    refs = [counter.call.remote(full, size, i) for i, size in enumerate([SMALL, LARGE] * 5) for counter in counters]
    eagleray.wait(refs, num_returns=len(refs))
    for counter in counters:
        eagleray.kill(counter)
    expected = [(size, i) for i, size in enumerate([SMALL, LARGE] * 5) for _ in counters]
    assert all(holds(array, *what) for array, what in zip(eagleray.get(refs), expected, strict=True))
