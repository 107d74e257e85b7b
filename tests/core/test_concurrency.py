"""Actors that do several calls at once: threads, and coroutines on a loop."""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray.exceptions import ActorDiedError, TaskCancelledError
from tests.conftest import alive, until
from tests.core.remotes import Counter, add, echo, fail, noted, until_exists

pytestmark = pytest.mark.usefixtures("shared")


@eagleray.remote
class Meeting:
    """Calls of it end when as many as told have come together."""

    def __init__(self) -> None:
        self.here = 0
        self.most = 0
        self.lock = threading.Lock()
        self.all_here = threading.Event()

    def meet(self, count: int) -> str:
        with self.lock:
            self.here += 1
            self.most = max(self.most, self.here)
            if self.here == count:
                self.all_here.set()
        self.all_here.wait()
        with self.lock:
            self.here -= 1
        return threading.current_thread().name

    def nap(self) -> None:
        with self.lock:
            self.here += 1
            self.most = max(self.most, self.here)
        time.sleep(0.01)
        with self.lock:
            self.here -= 1

    def seen(self) -> int:
        return self.most

    def fail(self, text: str) -> None:
        raise KeyError(text)

    def ask(self, refs: list[Any]) -> Any:
        return eagleray.get(refs)

    def pid(self) -> int:
        return os.getpid()

    def die(self) -> None:
        os._exit(7)


class TestThreads:
    def test_run_together(self) -> None:
        meeting = Meeting.options(max_concurrency=4).remote()
        names = eagleray.get([meeting.meet.remote(4) for _ in range(4)])
        assert len(set(names)) == 4

    def test_no_more_than_said(self) -> None:
        meeting = Meeting.options(max_concurrency=3).remote()
        eagleray.get([meeting.nap.remote() for _ in range(30)])
        assert 1 <= eagleray.get(meeting.seen.remote()) <= 3

    def test_one_is_one(self) -> None:
        meeting = Meeting.remote()
        eagleray.get([meeting.nap.remote() for _ in range(10)])
        assert eagleray.get(meeting.seen.remote()) == 1

    def test_errors_are_those_of_their_call(self) -> None:
        meeting = Meeting.options(max_concurrency=2).remote()
        refs = [meeting.fail.remote(f"k{i}") for i in range(6)]
        for i, ref in enumerate(refs):
            with pytest.raises(KeyError, match=f"k{i}"):
                eagleray.get(ref)

    def test_get_in_a_thread(self, tmp_path: Path) -> None:
        """One call waits for a task, another goes on meanwhile."""
        meeting = Meeting.options(max_concurrency=2).remote()
        go = tmp_path / "go"
        waiting = meeting.ask.remote([until_exists.remote(str(go))])
        assert eagleray.get(meeting.ask.remote([echo.remote(1)])) == [1]
        go.touch()
        assert eagleray.get(waiting) == [str(go)]

    def test_calls_of_itself(self) -> None:
        @eagleray.remote(max_concurrency=2)
        class Recursive:
            def outer(self, handles: list[Any]) -> int:
                return eagleray.get(handles[0].inner.remote()) + 1

            def inner(self) -> int:
                return 1

        actor = Recursive.remote()
        assert eagleray.get(actor.outer.remote([actor])) == 2

    def test_death_ends_all_calls(self) -> None:
        meeting = Meeting.options(max_concurrency=4).remote()
        refs = [meeting.meet.remote(9) for _ in range(3)]
        process = eagleray.get(meeting.pid.remote())
        with pytest.raises(ActorDiedError):
            eagleray.get(meeting.die.remote())
        for ref in refs:
            with pytest.raises(ActorDiedError):
                eagleray.get(ref)
        assert not alive(process)

    def test_large_results(self) -> None:
        @eagleray.remote(max_concurrency=4)
        class Source:
            def block(self, i: int) -> Any:
                return np.full(200_000, i)

        source = Source.remote()
        blocks = eagleray.get([source.block.remote(i) for i in range(12)])
        assert [int(block[-1]) for block in blocks] == list(range(12))

    def test_several_results(self) -> None:
        @eagleray.remote(max_concurrency=2)
        class Pair:
            @eagleray.method(num_returns=2)
            def two(self, x: int) -> tuple[int, int]:
                return x, -x

        pair = Pair.remote()
        assert eagleray.get([ref for i in range(5) for ref in pair.two.remote(i)]) == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]


@eagleray.remote
class Async:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.running = 0
        self.most = 0
        self.cancelled = 0

    async def wait(self) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.event.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return "opened"

    async def open(self) -> None:
        self.event.set()

    async def state(self) -> tuple[int, int, int]:
        return self.running, self.most, self.cancelled

    async def fail(self, kind: type[BaseException], *args: Any) -> None:
        await asyncio.sleep(0)
        raise kind(*args)

    async def value(self, refs: list[Any]) -> Any:
        return await refs[0]

    async def all(self, refs: list[Any]) -> Any:
        return await asyncio.gather(*refs)

    async def call(self, handle: Any) -> Any:
        return await handle.add.remote(5)

    async def submit(self, x: int) -> Any:
        return await add.remote(x, await add.remote(x, 1))

    async def echo(self, x: Any) -> Any:
        return x

    async def count(self, n: int) -> Any:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    async def pid(self) -> int:
        return os.getpid()

    def plain(self) -> bool:
        """A method that is no coroutine runs on the loop's thread, so nothing of the others runs meanwhile."""
        return asyncio.get_event_loop().is_running()


class TestAsync:
    def test_calls_run_together(self) -> None:
        actor = Async.remote()
        refs = [actor.wait.remote() for _ in range(50)]
        until(lambda: eagleray.get(actor.state.remote())[0] == 50)
        eagleray.get(actor.open.remote())
        assert eagleray.get(refs) == ["opened"] * 50

    def test_no_more_than_said(self) -> None:
        actor = Async.options(max_concurrency=2).remote()
        refs = [actor.wait.remote()]
        until(lambda: eagleray.get(actor.state.remote())[0] == 1)
        eagleray.get(actor.open.remote())
        refs += [actor.wait.remote() for _ in range(10)]
        eagleray.get(refs)
        assert eagleray.get(actor.state.remote())[1] <= 2

    def test_begin_in_order(self) -> None:
        @eagleray.remote
        class Log:
            def __init__(self) -> None:
                self.lines: list[int] = []

            async def write(self, i: int) -> None:
                self.lines.append(i)
                await asyncio.sleep(0)

            async def read(self) -> list[int]:
                return self.lines

        log = Log.remote()
        eagleray.get([log.write.remote(i) for i in range(100)])
        assert eagleray.get(log.read.remote()) == list(range(100))

    def test_refs(self) -> None:
        actor = Async.remote()
        assert eagleray.get(actor.value.remote([add.remote(1, 2)])) == 3
        assert eagleray.get(actor.all.remote([echo.remote(i) for i in range(20)])) == list(range(20))
        assert eagleray.get(actor.echo.remote(add.remote(1, 1))) == 2
        assert eagleray.get(actor.submit.remote(10)) == 21
        assert eagleray.get(actor.call.remote(Counter.remote(1))) == 6

    def test_awaited_errors(self) -> None:
        actor = Async.remote()
        with pytest.raises(KeyError, match="why"):
            eagleray.get(actor.value.remote([fail.remote(KeyError, "why")]))
        with pytest.raises(ValueError, match="own"):
            eagleray.get(actor.fail.remote(ValueError, "own"))
        assert eagleray.get(actor.echo.remote(1)) == 1

    def test_a_waiting_call_leaves_the_loop_free(self, tmp_path: Path) -> None:
        actor = Async.remote()
        go = tmp_path / "go"
        waiting = actor.value.remote([until_exists.remote(str(go))])
        assert eagleray.get(actor.echo.remote("free")) == "free"
        go.touch()
        assert eagleray.get(waiting) == str(go)

    def test_of_each_other(self) -> None:
        @eagleray.remote
        class Peer:
            async def ask(self, handles: list[Any], depth: int) -> int:
                return depth if depth == 0 else 1 + await handles[0].ask.remote(handles[::-1], depth - 1)

        peers = [Peer.remote(), Peer.remote()]
        assert eagleray.get(peers[0].ask.remote(peers[::-1], 10)) == 10

    def test_generator(self) -> None:
        stream = Async.remote().count.remote(4)
        assert [eagleray.get(ref) for ref in stream] == [0, 1, 2, 3]

    def test_plain_method(self) -> None:
        assert eagleray.get(Async.remote().plain.remote())

    def test_large_results(self) -> None:
        actor = Async.remote()
        blocks = eagleray.get([actor.echo.remote(np.full(200_000, i)) for i in range(8)])
        assert [int(block[0]) for block in blocks] == list(range(8))

    def test_gone_with_its_handle_after_its_calls(self) -> None:
        actor = Async.remote()
        process = eagleray.get(actor.pid.remote())
        refs = [actor.wait.remote() for _ in range(3)]
        opened = actor.open.remote()
        del actor
        assert eagleray.get([*refs, opened]) == ["opened"] * 3 + [None]
        until(lambda: not alive(process))

    def test_kill(self) -> None:
        actor = Async.remote()
        refs = [actor.wait.remote() for _ in range(3)]
        until(lambda: eagleray.get(actor.state.remote())[0] == 3)
        eagleray.kill(actor)
        for ref in refs:
            with pytest.raises(ActorDiedError):
                eagleray.get(ref)


class TestCancel:
    def test_coroutine(self) -> None:
        actor = Async.remote()
        refs = [actor.wait.remote() for _ in range(3)]
        until(lambda: eagleray.get(actor.state.remote())[0] == 3)
        eagleray.cancel(refs[1])
        with pytest.raises(TaskCancelledError):
            eagleray.get(refs[1])
        until(lambda: eagleray.get(actor.state.remote()) == (2, 3, 1))
        eagleray.get(actor.open.remote())
        assert eagleray.get([refs[0], refs[2]]) == ["opened"] * 2

    def test_coroutine_that_awaits_a_ref(self, tmp_path: Path) -> None:
        actor = Async.remote()
        go = tmp_path / "go"
        pending = until_exists.remote(str(go))
        waiting = actor.value.remote([pending])
        assert eagleray.get(actor.echo.remote(1)) == 1
        eagleray.cancel(waiting, recursive=False)
        with pytest.raises(TaskCancelledError):
            eagleray.get(waiting)
        go.touch()
        assert eagleray.get(pending) == str(go)

    def test_that_has_not_begun(self, tmp_path: Path) -> None:
        actor = Async.options(max_concurrency=1).remote()
        first = actor.wait.remote()
        second = actor.echo.remote("never")
        eagleray.cancel(second)
        with pytest.raises(TaskCancelledError):
            eagleray.get(second)
        eagleray.cancel(first)
        with pytest.raises(TaskCancelledError):
            eagleray.get(first)

    def test_before_the_first_step(self, tmp_path: Path) -> None:
        """A coroutine that is cancelled before it has begun never runs, and so cannot say that it was."""

        @eagleray.remote
        class Blocks:
            async def until(self, path: str) -> None:
                Path(path + ".begun").touch()
                while not os.path.exists(path):
                    time.sleep(0.005)

            async def echo(self, value: int) -> int:
                return value

        actor, go = Blocks.remote(), tmp_path / "go"
        blocking = actor.until.remote(str(go))
        until(Path(str(go) + ".begun").exists)  # else the loop may have the steps of all three in hand
        ref, after = actor.echo.remote(1), actor.echo.remote(2)
        assert eagleray.wait([ref], timeout=0.3) == ([], [ref])  # it is deferred meanwhile
        eagleray.cancel(ref)
        eagleray.wait([ref], timeout=0.3)  # for the request to get there: the loop must not be faster
        go.touch()
        assert eagleray.get([blocking, after]) == [None, 2]
        with pytest.raises(TaskCancelledError):
            eagleray.get(ref)

    def test_of_an_ended_one_does_nothing(self) -> None:
        actor = Async.remote()
        ref = actor.echo.remote(1)
        assert eagleray.get(ref) == 1
        eagleray.cancel(ref)
        assert eagleray.get(ref) == 1


def test_tasks_of_its_own_on_the_loop(tmp_path: Path) -> None:
    @eagleray.remote
    class Ticker:
        def __init__(self, path: str) -> None:
            self.path = path
            self.task: Any = None

        async def start(self) -> None:
            self.task = asyncio.get_running_loop().create_task(self.tick())

        async def tick(self) -> None:
            while True:
                with open(self.path, "a") as file:
                    file.write("tick\n")
                await asyncio.sleep(0.005)

    path = tmp_path / "ticks"
    ticker = Ticker.remote(str(path))
    eagleray.get(ticker.start.remote())
    until(lambda: noted(path) >= 3)
    eagleray.kill(ticker)
