"""Generators: refs of what a function yields, one by one."""

import asyncio
import copy
import os
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray import _engine
from eagleray.exceptions import ActorDiedError, TaskCancelledError, TaskError, WorkerCrashedError
from tests.conftest import alive, until
from tests.core.remotes import (
    die,
    echo,
    note,
    noted,
    numbers,
    until_exists,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("shared")


class TestGenerators:
    def test_refs_come_one_by_one(self, tmp_path: Path) -> None:
        def two(path: str) -> Any:
            yield 1
            wait_for(path)
            yield 2

        go = tmp_path / "go"
        stream = eagleray.remote(two).remote(str(go))
        assert isinstance(stream, eagleray.ObjectRefGenerator)
        assert eagleray.get(next(stream)) == 1  # while the function waits
        go.touch()
        assert [eagleray.get(ref) for ref in stream] == [2]
        with pytest.raises(StopIteration):
            next(stream)

    def test_error_is_the_last_one(self) -> None:
        refs = list(eagleray.remote(numbers).remote(5, fail_at=2))
        assert eagleray.get(refs[:2]) == [0, 1]
        assert len(refs) == 3
        with pytest.raises(ValueError, match="at 2"):
            eagleray.get(refs[2])

    def test_several_at_once(self) -> None:
        """Told how many there will be, the refs are there at the call."""
        assert eagleray.get(eagleray.remote(numbers).options(num_returns=3).remote(3)) == [0, 1, 2]

    def test_none_at_all(self) -> None:
        assert list(eagleray.remote(numbers).remote(0)) == []

    def test_of_an_actor(self) -> None:
        @eagleray.remote
        class Source:
            def stream(self, n: int) -> Any:
                yield from range(n)

        source = Source.remote()
        stream = source.stream.remote(4)
        assert [eagleray.get(ref) for ref in stream] == [0, 1, 2, 3]

    def test_large_items_as_arguments(self) -> None:
        def blocks() -> Any:
            for i in range(4):
                yield np.full(200_000, i)

        total = eagleray.remote(lambda block: int(block.sum()))
        sums = [total.remote(ref) for ref in eagleray.remote(blocks).remote()]
        assert eagleray.get(sums) == [0, 200_000, 400_000, 600_000]

    def test_that_is_dropped(self, tmp_path: Path) -> None:
        go = tmp_path / "go"
        stream = eagleray.remote(numbers).remote(3)
        next(stream)
        del stream
        go.touch()
        assert eagleray.get(until_exists.remote(str(go))) == str(go)

    async def read(self, n: int) -> list[int]:
        return [await ref async for ref in eagleray.remote(numbers).remote(n)]

    def test_in_a_coroutine(self) -> None:

        assert asyncio.run(self.read(3)) == [0, 1, 2]


def objects() -> int:
    return int(_engine.native.counters()["objects"])


def waiting(path: Path | str, begun: Path | str | None = None) -> Iterator[int]:
    """Yields 1, and 2 when the file is there."""
    if begun is not None:
        note(str(begun))
    yield 1
    wait_for(path)
    yield 2


class TestSteps:
    def test_many_in_order(self) -> None:
        for place, ref in enumerate(eagleray.remote(numbers).remote(2000)):
            assert eagleray.get(ref) == place

    def test_what_is_finished_and_what_is_ready(self, tmp_path: Path) -> None:
        go = tmp_path / "go"
        stream = eagleray.remote(waiting).remote(str(go))
        until(stream.next_ready)
        assert not stream.is_finished()
        assert eagleray.get(next(stream)) == 1
        assert not stream.next_ready()
        assert not stream.is_finished()
        go.touch()
        assert eagleray.get(stream.completed()) is None
        assert stream.next_ready()
        assert not stream.is_finished()
        assert eagleray.get(next(stream)) == 2
        assert stream.is_finished()
        assert not stream.next_ready()
        assert list(stream) == []

    def test_error_is_ready_until_it_is_taken(self) -> None:
        stream = eagleray.remote(numbers).remote(2, fail_at=0)
        until(stream.next_ready)
        assert not stream.is_finished()
        with pytest.raises(ValueError, match="at 0"):
            eagleray.get(next(stream))
        assert stream.is_finished()
        with pytest.raises(ValueError, match="at 0"):
            eagleray.get(stream.completed())

    def test_next_is_interrupted_and_goes_on(self, tmp_path: Path) -> None:
        go = tmp_path / "go"
        stream = eagleray.remote(waiting).remote(str(go))
        next(stream)
        # Where the tests run in the background of a shell it is ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                next(stream)
        finally:
            signal.signal(signal.SIGINT, before)
        go.touch()
        assert eagleray.get(list(stream)) == [2]

    def test_threads_share_one(self) -> None:
        stream = eagleray.remote(numbers).remote(200)
        taken: list[int] = []
        threads = [threading.Thread(target=lambda: taken.extend(eagleray.get(list(stream)))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == list(range(200))

    def test_none_and_refs_are_values(self) -> None:
        def yields(refs: list[Any]) -> Iterator[Any]:
            yield None
            yield refs[0]
            yield [eagleray.put("made there")]

        nothing, ref, refs = eagleray.get(list(eagleray.remote(yields).remote([eagleray.put("made here")])))
        assert nothing is None
        assert eagleray.get([ref, *refs]) == ["made here", "made there"]

    def test_what_cannot_be_pickled_is_an_error(self, tmp_path: Path) -> None:
        def locks(path: str) -> Iterator[Any]:
            try:
                yield 1
                yield threading.Lock()
            finally:
                note(path)

        closed = tmp_path / "closed"
        first, error = eagleray.remote(locks).remote(str(closed))
        assert eagleray.get(first) == 1
        with pytest.raises(TypeError, match="cannot be pickled"):
            eagleray.get(error)
        assert noted(closed) == 1


class TestWaiting:
    def test_for_generators_and_refs(self, tmp_path: Path) -> None:
        go, later = tmp_path / "go", tmp_path / "later"
        stream = eagleray.remote(waiting).remote(str(go))
        ref = until_exists.remote(str(later))
        assert eagleray.wait([ref, stream]) == ([stream], [ref])
        next(stream)
        assert eagleray.wait([ref, stream], timeout=0.01) == ([], [ref, stream])
        later.touch()
        assert eagleray.wait([stream, ref]) == ([ref], [stream])
        go.touch()
        assert eagleray.wait([stream, ref], num_returns=2) == ([stream, ref], [])
        assert eagleray.get(list(stream)) == [2]
        assert eagleray.wait([stream], timeout=0) == ([stream], []), "an ended one does not keep anybody waiting"

    def test_for_several(self) -> None:
        streams = [eagleray.remote(numbers).remote(n) for n in range(4)]
        values: list[int] = []
        while streams:
            ready, streams = eagleray.wait(streams)
            for stream in ready:
                ref = next(stream, None)
                if ref is not None:
                    values.append(eagleray.get(ref))
                    streams.append(stream)
        assert sorted(values) == [0, 0, 0, 1, 1, 2]

    def test_twice_the_same(self) -> None:
        stream = eagleray.remote(numbers).remote(1)
        with pytest.raises(ValueError, match="duplicates"):
            eagleray.wait([stream, stream])


class TestWhereItEnds:
    def test_worker_dies_and_parts_stay(self, tmp_path: Path) -> None:
        def dies(runs: str, go: str) -> Iterator[Any]:
            for i in range(4):
                yield i, os.getpid()
                if i == 1 and noted(runs) == 0:
                    wait_for(go)
                    note(runs)
                    os._exit(7)

        runs, go = tmp_path / "runs", tmp_path / "go"
        stream = eagleray.remote(dies).remote(str(runs), str(go))
        first = eagleray.get(next(stream))
        go.touch()
        rest = eagleray.get(list(stream))
        assert [i for i, _ in [first, *rest]] == [0, 1, 2, 3]
        assert first[1] == rest[0][1] != rest[1][1] == rest[2][1]

    def test_worker_dies_for_good(self) -> None:
        def dies() -> Iterator[int]:
            yield 1
            os._exit(7)

        first, error = eagleray.remote(dies).options(max_retries=0).remote()
        assert eagleray.get(first) == 1
        with pytest.raises(WorkerCrashedError, match="code 7"):
            eagleray.get(error)

    def test_it_is_made_again_after_an_error(self, tmp_path: Path) -> None:
        def fails_once(runs: str) -> Iterator[int]:
            yield 0
            if note(runs) == 1:
                raise ValueError("the first time")
            yield 1

        options = {"retry_exceptions": [ValueError], "max_retries": 1}
        stream = eagleray.remote(fails_once).options(**options).remote(str(tmp_path / "runs"))
        assert eagleray.get(list(stream)) == [0, 1]

    def test_cancelled(self, tmp_path: Path) -> None:
        stream = eagleray.remote(waiting).remote(str(tmp_path / "never"))
        next(stream)
        eagleray.cancel(stream)
        with pytest.raises(TaskCancelledError):
            eagleray.get(next(stream))
        assert list(stream) == []

    def test_an_argument_that_fails(self) -> None:
        error = next(eagleray.remote(numbers).remote(die.options(max_retries=0).remote()))
        with pytest.raises(WorkerCrashedError):
            eagleray.get(error)

    def test_actor_dies(self) -> None:
        @eagleray.remote
        class Dies:
            def stream(self) -> Iterator[int]:
                yield 1
                os._exit(7)

        actor = Dies.remote()
        first, error = actor.stream.remote()
        assert eagleray.get(first) == 1
        with pytest.raises(ActorDiedError, match="code 7"):
            eagleray.get(error)

    def test_refs_outlive_the_generator_and_its_actor(self) -> None:
        @eagleray.remote
        class Source:
            def stream(self) -> Iterator[Any]:
                yield "small"
                yield np.arange(300_000)

            def pid(self) -> int:
                return os.getpid()

        source = Source.remote()
        process = eagleray.get(source.pid.remote())
        small, large = source.stream.remote()
        del source
        until(lambda: not alive(process))
        assert eagleray.get(small) == "small"
        assert eagleray.get(large).sum() == 300_000 * 299_999 // 2


class TestWhatStays:
    def test_nothing(self) -> None:
        until(lambda: objects() == 0)
        stream = eagleray.remote(numbers).remote(50)
        refs = [next(stream) for _ in range(20)]
        eagleray.get(stream.completed())
        del refs[:15]
        until(lambda: objects() == 5 + 30 + 1)
        del stream
        until(lambda: objects() == 5)
        refs.clear()
        until(lambda: objects() == 0)

    def test_parts_go_as_they_are_taken(self, tmp_path: Path) -> None:
        def blocks(go: str) -> Iterator[Any]:
            for i in range(6):
                yield np.full(300_000, i)
            wait_for(go)

        go = tmp_path / "go"
        stream = eagleray.remote(blocks).remote(str(go))
        for i in range(6):
            assert eagleray.get(next(stream))[0] == i
        until(lambda: objects() == 1)  # the generator runs: this is the last part
        go.touch()
        assert list(stream) == []

    def test_who_drops_it_lets_it_run(self, tmp_path: Path) -> None:
        def notes(go: str, path: str) -> Iterator[Any]:
            yield 1
            wait_for(go)
            yield np.zeros(300_000)
            note(path)

        go, path = tmp_path / "go", tmp_path / "ended"
        stream = eagleray.remote(notes).remote(str(go), str(path))
        next(stream)
        del stream
        go.touch()
        until(lambda: noted(path) == 1)
        until(lambda: objects() == 0)


class TestAhead:
    def test_it_waits_until_parts_are_taken(self, tmp_path: Path) -> None:
        def notes(path: str) -> Iterator[int]:
            for i in range(5):
                note(path)
                yield i

        path = str(tmp_path / "made")
        stream = eagleray.remote(notes).options(_generator_backpressure_num_objects=2).remote(path)
        for i in range(5):
            made = min(i + 2, 5)
            until(lambda made=made: noted(path) == made)  # type: ignore[misc]
            assert eagleray.get(echo.remote(i)) == i  # time in which it could go on, did it not wait
            assert noted(path) == made
            assert eagleray.get(next(stream)) == i
        assert list(stream) == []

    def test_who_drops_it_lets_it_run(self, tmp_path: Path) -> None:
        def notes(path: str) -> Iterator[int]:
            yield from range(10)
            note(path)

        path = tmp_path / "ended"
        stream = eagleray.remote(notes).options(_generator_backpressure_num_objects=1).remote(str(path))
        next(stream)
        del stream
        until(lambda: noted(path) == 1)

    def test_cancelled(self) -> None:
        stream = eagleray.remote(numbers).options(_generator_backpressure_num_objects=1).remote(10)
        next(stream)
        eagleray.cancel(stream)
        refs = list(stream)
        with pytest.raises(TaskCancelledError):
            eagleray.get(refs[-1])

    def test_of_an_actor(self) -> None:
        @eagleray.remote
        class Source:
            @eagleray.method(_generator_backpressure_num_objects=1)
            def stream(self) -> Iterator[int]:
                yield from range(3)

            async def coroutines(self) -> None: ...

        @eagleray.remote
        class Plain:
            @eagleray.method(_generator_backpressure_num_objects=1)
            def stream(self) -> Iterator[int]:
                yield from range(3)

        plain, source = Plain.remote(), Source.remote()
        assert eagleray.get(list(plain.stream.remote())) == [0, 1, 2]
        with pytest.raises(ValueError, match="not for generators that run as coroutines"):
            eagleray.get(list(source.stream.remote()))


@eagleray.remote
class Source:
    """With coroutines."""

    async def stream(self, n: int, fail_at: int | None = None) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            if i == fail_at:
                raise ValueError(f"at {i}")
            yield i

    def plain(self, n: int) -> Iterator[int]:
        yield from range(n)

    async def until(self, path: str, ended: str) -> AsyncIterator[int]:
        try:
            yield 1
            while not os.path.exists(path):
                await asyncio.sleep(0.005)
            yield 2
        finally:
            note(ended)


class TestCoroutines:
    def test_of_an_actor(self) -> None:
        source = Source.remote()
        streams = [source.stream.remote(n) for n in range(5)]
        assert [eagleray.get(list(stream)) for stream in streams] == [list(range(n)) for n in range(5)]
        assert eagleray.get(list(source.plain.remote(3))) == [0, 1, 2]
        assert eagleray.get(source.stream.options(num_returns=2).remote(2)) == [0, 1]

    def test_error(self) -> None:
        source = Source.remote()
        first, error = source.stream.remote(3, fail_at=1)
        assert eagleray.get(first) == 0
        with pytest.raises(ValueError, match="at 1"):
            eagleray.get(error)

    def test_parts_come_while_it_runs(self, tmp_path: Path) -> None:
        go, ended = tmp_path / "go", tmp_path / "ended"
        source = Source.remote()
        one, other = (source.until.remote(str(go), str(ended)) for _ in range(2))
        assert eagleray.get([next(one), next(other)]) == [1, 1]
        go.touch()
        assert eagleray.get([*one, *other]) == [2, 2]
        assert noted(ended) == 2

    def test_cancelled(self, tmp_path: Path) -> None:
        ended = tmp_path / "ended"
        source = Source.remote()
        stream = source.until.remote(str(tmp_path / "never"), str(ended))
        next(stream)
        eagleray.cancel(stream)
        with pytest.raises(TaskCancelledError):
            eagleray.get(next(stream))
        until(lambda: noted(ended) == 1)

    def test_in_threads(self, tmp_path: Path) -> None:
        @eagleray.remote(max_concurrency=2)
        class Threads:
            def stream(self, path: str) -> Iterator[int]:
                yield from waiting(path)

        go = tmp_path / "go"
        threads = Threads.remote()
        one, other = threads.stream.remote(str(go)), threads.stream.remote(str(go))
        assert eagleray.get([next(one), next(other)]) == [1, 1]
        go.touch()
        assert eagleray.get([*one, *other]) == [2, 2]

    def test_of_a_task(self) -> None:
        async def counts(n: int) -> AsyncIterator[int]:
            for i in range(n):
                await asyncio.sleep(0)
                yield i

        assert eagleray.get(list(eagleray.remote(counts).remote(3))) == [0, 1, 2]

    def test_who_awaits_can_give_up(self, tmp_path: Path) -> None:
        go = tmp_path / "go"

        async def read() -> list[int]:
            stream = eagleray.remote(waiting).remote(str(go))
            first = await anext(stream)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.05)
            go.touch()
            return [await first] + [await ref async for ref in stream]

        assert asyncio.run(read()) == [1, 2]

    def test_several_are_read_at_once(self, tmp_path: Path) -> None:
        go = tmp_path / "go"

        async def read(stream: Any) -> list[int]:
            return [await ref async for ref in stream]

        async def read_all() -> list[list[int]]:
            late = asyncio.create_task(read(eagleray.remote(waiting).remote(str(go))))
            others = [read(eagleray.remote(numbers).remote(n)) for n in range(3)]
            found = await asyncio.gather(*others)
            go.touch()
            return [await late, *found]

        assert asyncio.run(read_all()) == [[1, 2], [], [0], [0, 1]]


class TestOtherReturns:
    def test_dynamic(self) -> None:
        refs = eagleray.get(eagleray.remote(numbers).options(num_returns="dynamic").remote(3))
        assert len(refs) == 3
        assert eagleray.get(list(refs)) == [0, 1, 2]
        assert len(refs) == 0

    def test_dynamic_ends_with_the_error(self) -> None:
        first, error = eagleray.get(eagleray.remote(numbers).options(num_returns="dynamic").remote(3, fail_at=1))
        assert eagleray.get(first) == 0
        with pytest.raises(ValueError, match="at 1"):
            eagleray.get(error)

    def test_dynamic_of_coroutines_is_passed_on(self) -> None:
        source = Source.remote()
        ref = source.stream.options(num_returns="dynamic").remote(3)
        assert eagleray.get(eagleray.remote(lambda refs: eagleray.get(list(refs))).remote(ref)) == [0, 1, 2]
        first, error = eagleray.get(source.stream.options(num_returns="dynamic").remote(3, fail_at=1))
        assert eagleray.get(first) == 0
        with pytest.raises(ValueError, match="at 1"):
            eagleray.get(error)

    def test_numbers(self) -> None:
        one = eagleray.remote(numbers).options(num_returns=1)
        assert eagleray.get(one.remote(1)) == 0
        with pytest.raises(ValueError, match="must yield 1 value, but it has yielded 2"):
            eagleray.get(one.remote(2))
        assert eagleray.remote(numbers).options(num_returns=0).remote(2) is None
        with pytest.raises(ValueError, match="must return 3 values, but it returned 2"):
            eagleray.get(eagleray.remote(numbers).options(num_returns=3).remote(2))
        for endless in (eagleray.remote(numbers), Source.remote().stream):
            with pytest.raises(ValueError, match="must return 3 values, but it returned more"):
                eagleray.get(endless.options(num_returns=3).remote(10**15))


class TestMistakes:
    def test_it_is_passed_to_nobody(self) -> None:
        stream = eagleray.remote(numbers).remote(1)
        with pytest.raises(TypeError, match="Pass the refs"):
            echo.remote(stream)
        with pytest.raises(TypeError, match="Pass the refs"):
            echo.remote([stream])
        with pytest.raises(TypeError, match="Pass the refs"):
            eagleray.put(stream)
        for refused in (pickle.dumps, copy.copy):
            with pytest.raises(TypeError, match="Pass the refs"):
                refused(stream)
        with pytest.raises(ValueError, match="not ObjectRefGenerator"):
            eagleray.get(stream)  # type: ignore[call-overload]
        with pytest.raises(TaskError, match="Pass the refs"):
            eagleray.get(eagleray.remote(lambda: eagleray.remote(numbers).remote(1)).remote())

    def test_what_is_no_generator_does_not_stream(self) -> None:
        def returns() -> list[int]:
            return [1]

        with pytest.raises(ValueError, match="returns' cannot have num_returns"):
            eagleray.remote(num_returns="streaming")(returns)
        with pytest.raises(ValueError, match="cannot have num_returns"):
            eagleray.remote(returns).options(num_returns="streaming")

        @eagleray.remote
        class Lists:
            def list(self) -> list[int]:
                return [1]

        lists = Lists.remote()
        with pytest.raises(ValueError, match=r"Lists.list' cannot have num_returns"):
            lists.list.options(num_returns="streaming")
        with pytest.raises(TypeError, match="must be a generator, but it has returned int"):
            eagleray.get(eagleray.remote(lambda: 5).options(num_returns="dynamic").remote())
