"""`eagleray.util`: pools of actors, queues, serializers."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray.dask import ray_dask_get
from eagleray.exceptions import ActorDiedError
from eagleray.util import ActorPool, inspect_serializability, register_serializer
from eagleray.util.queue import Empty, Full, Queue
from tests.core.remotes import Counter, echo, wait_for

pytestmark = pytest.mark.usefixtures("shared")


@eagleray.remote
class Doubler:
    def double(self, x: Any) -> Any:
        return 2 * x

    def wait(self, path: str) -> str:
        wait_for(path)
        return path


def double(actor: Any, x: Any) -> Any:
    return actor.double.remote(x)


class TestActorPool:
    @pytest.fixture
    def pool(self) -> ActorPool:
        return ActorPool([Doubler.remote(), Doubler.remote()])

    def test_map(self, pool: ActorPool) -> None:
        assert list(pool.map(double, range(10))) == [2 * i for i in range(10)]
        assert sorted(pool.map_unordered(double, range(10))) == [2 * i for i in range(10)]
        assert list(pool.map(double, [])) == []

    def test_submit(self, pool: ActorPool) -> None:
        assert not pool.has_next()
        for i in range(5):
            pool.submit(double, i)
        results = []
        while pool.has_next():
            results.append(pool.get_next())
        assert results == [0, 2, 4, 6, 8]
        with pytest.raises(StopIteration):
            pool.get_next()

    def test_unordered_does_not_wait_for_the_first(self, pool: ActorPool, tmp_path: Path) -> None:
        go = tmp_path / "go"
        pool.submit(lambda actor, path: actor.wait.remote(path), str(go))
        pool.submit(double, 4)
        assert pool.get_next_unordered() == 8
        go.touch()
        assert pool.get_next_unordered() == str(go)

    def test_timeout(self, pool: ActorPool, tmp_path: Path) -> None:
        pool.submit(lambda actor, path: actor.wait.remote(path), str(tmp_path / "go"))
        with pytest.raises(TimeoutError):
            pool.get_next(timeout=0.05)
        (tmp_path / "go").touch()
        assert pool.get_next() == str(tmp_path / "go")

    def test_idle_actors(self, pool: ActorPool) -> None:
        one, two = pool.pop_idle(), pool.pop_idle()
        assert pool.pop_idle() is None
        assert not pool.has_free()
        pool.push(one)
        assert pool.has_free()
        with pytest.raises(ValueError, match="already"):
            pool.push(one)
        pool.push(two)
        assert list(pool.map(double, [1])) == [2]

    def test_failed_call(self, pool: ActorPool) -> None:
        pool.submit(double, None)
        with pytest.raises(TypeError):
            pool.get_next()
        assert list(pool.map(double, [3])) == [6]

    def test_dead_actors_are_given_no_further_work(self) -> None:
        pool = ActorPool([Counter.remote(), Counter.remote()])
        pool.submit(lambda actor, _: actor.die.remote(), None)
        with pytest.raises(ActorDiedError):
            pool.get_next()
        assert list(pool.map(lambda actor, _: actor.add.remote(), range(3))) == [1, 2, 3]

    def test_calls_with_several_values(self) -> None:
        pool = ActorPool([Counter.remote(4)])
        pool.submit(lambda actor, _: actor.call.options(num_returns=2).remote(lambda: (1, 2)), None)
        assert pool.get_next() == [1, 2]
        assert pool.has_free()


@contextlib.contextmanager
def interrupted() -> Iterator[None]:
    """Interrupts the block, as Ctrl-C does."""
    main = threading.get_ident()
    # Ignored where the tests run in the background of a shell.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


class TestQueue:
    def test_first_in_first_out(self) -> None:
        queue = Queue()
        for i in range(10):
            queue.put(i)
        assert (queue.size(), queue.qsize(), queue.empty(), queue.full()) == (10, 10, False, False)
        assert [queue.get() for _ in range(10)] == list(range(10))
        assert queue.empty()

    def test_between_tasks_and_actors(self) -> None:
        queue = Queue()

        @eagleray.remote
        def produce(queue: Queue, n: int) -> None:
            for i in range(n):
                queue.put(i)

        @eagleray.remote
        def consume(queue: Queue, n: int) -> list[int]:
            return [queue.get() for _ in range(n)]

        consumed = consume.remote(queue, 20)
        eagleray.get([produce.remote(queue, 10) for _ in range(2)])
        assert sorted(eagleray.get(consumed)) == sorted([*range(10)] * 2)

    def test_bounded(self) -> None:
        queue = Queue(maxsize=2)
        queue.put(1)
        queue.put_nowait(2)
        assert queue.full()
        with pytest.raises(Full):
            queue.put_nowait(3)
        with pytest.raises(Full):
            queue.put(3, timeout=0.05)
        with pytest.raises(Full):
            queue.put(3, block=False)
        assert queue.get() == 1
        queue.put(3)
        assert [queue.get(), queue.get()] == [2, 3]

    def test_nothing_there(self) -> None:
        queue = Queue()
        with pytest.raises(Empty):
            queue.get_nowait()
        with pytest.raises(Empty):
            queue.get(timeout=0.05)
        with pytest.raises(Empty):
            queue.get(block=False)

    def test_get_waits(self) -> None:
        queue, seen = Queue(), []
        thread = threading.Thread(target=lambda: seen.append(queue.get()))
        thread.start()
        queue.put("late")
        thread.join()
        assert seen == ["late"]

    def test_who_gives_up_takes_nothing(self) -> None:
        queue = Queue()

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(queue.get_async(), 0.05)

        asyncio.run(give_up())
        queue.put("item")
        assert queue.get(timeout=60) == "item"

    def test_who_is_interrupted_takes_and_adds_nothing(self) -> None:
        queue = Queue(maxsize=1)
        with interrupted():
            queue.get()
        queue.put("item")
        with interrupted():
            queue.put("another")
        assert queue.get(timeout=60) == "item"
        assert queue.empty()

    def test_batches(self) -> None:
        queue = Queue(maxsize=5)
        queue.put_nowait_batch([1, 2, 3])
        with pytest.raises(Full):
            queue.put_nowait_batch([4, 5, 6])
        assert queue.get_nowait_batch(2) == [1, 2]
        with pytest.raises(Empty):
            queue.get_nowait_batch(2)

    def test_refs_go_through(self) -> None:
        queue = Queue()
        queue.put([echo.remote(5), Counter.remote(7)])
        ref, counter = queue.get()
        assert eagleray.get([ref, counter.read.remote()]) == [5, 7]
        queue.put(ref)
        assert queue.get() == 5
        queue.put_nowait_batch([ref])
        queue.put(ref, block=False)
        assert queue.get_nowait_batch(2) == [ref, 5]

    def test_in_a_coroutine(self) -> None:
        async def main() -> list[int]:
            queue = Queue()
            reading = asyncio.ensure_future(queue.get_async())
            await queue.put_async(1)
            await queue.put_async(2)
            return [await reading, await queue.get_async()]

        assert asyncio.run(main()) == [1, 2]

    @pytest.mark.parametrize("what", ["get", "put"])
    def test_negative_timeout(self, what: str) -> None:
        queue = Queue()
        with pytest.raises(ValueError, match="timeout"):
            queue.get(timeout=-1) if what == "get" else queue.put(1, timeout=-1)

    def test_shutdown(self) -> None:
        queue = Queue(actor_options={"num_cpus": 0})
        queue.put(1)
        queue.shutdown()


class Opened:
    """Cannot be pickled by itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()


class Forgetful:
    def __init__(self, name: str) -> None:
        self.name = name

    def __getstate__(self) -> dict[str, Any]:
        return {"name": "forgotten"}


class TestSerialization:
    def test_registered(self) -> None:
        register_serializer(Opened, serializer=lambda value: value.name, deserializer=Opened)
        assert eagleray.get(eagleray.put(Opened("it"))).name == "it"
        assert eagleray.get(eagleray.remote(lambda opened: opened.name).remote(Opened("it"))) == "it"
        eagleray.util.deregister_serializer(Opened)
        with pytest.raises(TypeError, match="lock"):
            eagleray.put(Opened("it"))

    def test_each_task_has_its_own(self) -> None:
        """Workers cannot pickle what they are given here, nor can they copy it."""

        def rename(items: list[Any]) -> str:
            items[0].name += "!"
            return str(items[0].name)

        register_serializer(Opened, serializer=lambda value: value.name, deserializer=Opened)
        try:
            renamed = eagleray.remote(rename)
            assert eagleray.get([renamed.remote([Opened("it")]) for _ in range(3)]) == ["it!"] * 3
            graph = {("x", i): (rename, (list, [Opened("it")])) for i in range(3)}
            assert ray_dask_get(graph, list(graph)) == ["it!"] * 3
        finally:
            eagleray.util.deregister_serializer(Opened)

    def test_what_pickling_would_lose(self) -> None:
        """What a class loses when it is pickled without the serializer is not lost on the way to a task."""
        register_serializer(Forgetful, serializer=lambda value: value.name, deserializer=Forgetful)
        try:
            assert eagleray.get(eagleray.remote(lambda value: value.name).remote(Forgetful("it"))) == "it"
        finally:
            eagleray.util.deregister_serializer(Forgetful)

    def test_inspect(self, capsys: pytest.CaptureFixture[str]) -> None:
        fine, _ = inspect_serializability([1], name="list")
        assert fine
        lock = threading.Lock()
        fine, failures = inspect_serializability(lambda: lock, name="closure")
        assert not fine
        assert failures
        assert "lock" in capsys.readouterr().out


def test_a_pool_in_a_task() -> None:
    @eagleray.remote
    def pooled() -> list[int]:
        return list(ActorPool([Doubler.remote()]).map(double, range(3)))

    assert eagleray.get(pooled.remote()) == [0, 2, 4]
