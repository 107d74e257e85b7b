"""What tasks do besides computing: processes, threads, event loops, other schedulers. And where computes come from."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import Any

import dask
import dask.array as da
import pytest

import eagleray
from eagleray.dask import ray_dask_get
from tests.tasks import inc

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def tracker() -> None:
    """multiprocessing's own helper, which stays once it is there."""
    resource_tracker.ensure_running()


def square(x: int) -> int:
    return x * x


class Related:
    """One of several objects that all know each other."""

    def __init__(self, others: "list[Related]") -> None:
        self.__dict__.update({f"other_{i}": other for i, other in enumerate(others)})
        for i, other in enumerate(others):
            other.__dict__[f"later_{len(others)}_{i}"] = self


def relate(count: int) -> Related:
    objects: list[Related] = []
    for _ in range(count):
        objects.append(Related(objects))
    return objects[0]


def compute(n: int) -> list[int]:
    graph = {("k", i): (inc, i) for i in range(n)}
    result: list[int] = ray_dask_get(graph, list(graph), num_workers=1)
    return result


def in_pool(method: str) -> list[int]:
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(square, range(5))


def in_executor(method: str) -> list[int]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        return list(pool.map(square, range(5)))


def in_process(method: str) -> int:
    process = multiprocessing.get_context(method).Process(target=square, args=(3,))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def in_threads() -> list[int]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(square, range(5)))


async def _gather(n: int) -> list[int]:
    async def one(x: int) -> int:
        await asyncio.sleep(0)
        return await asyncio.to_thread(square, x)

    return list(await asyncio.gather(*map(one, range(n))))


def in_event_loop() -> list[int]:
    return asyncio.run(_gather(5))


def with_scheduler(name: str) -> int:
    return int(da.arange(100, chunks=10).sum().compute(scheduler=name))


def with_subprocess() -> str:
    done = subprocess.run([sys.executable, "-c", "print(1 + 1)"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def through_shell() -> int:
    return os.system("exit 3") >> 8


def computes_in_event_loop(n: int) -> list[list[int]]:
    async def both() -> list[list[int]]:
        return list(await asyncio.gather(asyncio.to_thread(compute, n), asyncio.to_thread(compute, n)))

    return asyncio.run(both())


def twice(function: Any, *args: Any) -> Any:
    """In two tasks, which mostly run at the same time, and again in the same workers."""
    graph = {("k", i): (function, *args) for i in range(2)}
    first, second = ray_dask_get(graph, list(graph))
    assert first == second == ray_dask_get({"again": (function, *args)}, "again")
    return first


SQUARES = [0, 1, 4, 9, 16]


@pytest.mark.usefixtures("shared")
class TestInTasks:
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_pool(self, method: str) -> None:
        assert twice(in_pool, method) == SQUARES

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_executor(self, method: str) -> None:
        assert twice(in_executor, method) == SQUARES

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_process(self, method: str) -> None:
        assert twice(in_process, method) == 0

    def test_threads(self) -> None:
        assert twice(in_threads) == SQUARES

    def test_asyncio(self) -> None:
        assert twice(in_event_loop) == SQUARES

    @pytest.mark.parametrize("name", ["sync", "threads", "processes"])
    def test_other_schedulers(self, name: str) -> None:
        assert twice(with_scheduler, name) == 4950

    def test_subprocess(self) -> None:
        assert twice(with_subprocess) == "2"

    def test_shell(self) -> None:
        assert twice(through_shell) == 3

    def test_computes_in_an_event_loop(self) -> None:
        assert twice(computes_in_event_loop, 5) == [[1, 2, 3, 4, 5]] * 2

    def test_a_forked_child_computes(self) -> None:
        """It has a session of its own, and takes that with it."""
        assert ray_dask_get({"k": (_child_computes,)}, "k") == 0
        assert compute(3) == [1, 2, 3]


def _child_computes() -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if compute(3) == [1, 2, 3]:
                code = 0
            eagleray.shutdown()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _compute_in_child(pipe: Any, n: int) -> None:
    pipe.send((eagleray.is_initialized(), compute(n)))
    pipe.close()
    eagleray.shutdown()


class TestWhereComputesComeFrom:
    def test_coroutines(self, session: None) -> None:
        async def cell() -> Any:
            direct = compute(3)
            others = await asyncio.gather(*(asyncio.to_thread(compute, n) for n in range(1, 6)))
            return direct, others

        direct, others = asyncio.run(cell())
        assert direct == [1, 2, 3]
        assert others == [list(range(1, n + 1)) for n in range(1, 6)]

    def test_callbacks_of_a_running_loop(self, session: None) -> None:
        async def wait() -> list[int]:
            done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(lambda: done.set_result(compute(2)))
            return await done

        assert asyncio.run(wait()) == [1, 2]

    def test_a_cancelled_waiter_leaves_the_session_usable(self, session: None) -> None:
        async def cell() -> None:
            task = asyncio.create_task(asyncio.to_thread(compute, 200))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cell())
        assert compute(3) == [1, 2, 3]

    def test_many_threads_with_dask_collections(self, session: None) -> None:
        def total(n: int) -> int:
            return int(da.arange(n, chunks=7).sum().compute(scheduler=ray_dask_get))

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(total, range(10, 60))) == [n * (n - 1) // 2 for n in range(10, 60)]

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_children_of_the_driver(self, session: None, method: str) -> None:
        assert compute(3) == [1, 2, 3]
        ref = eagleray.put([1, 2])
        context: Any = multiprocessing.get_context(method)
        ends = [context.Pipe() for _ in range(2)]
        children = [context.Process(target=_compute_in_child, args=(theirs, 4)) for _, theirs in ends]
        for child in children:
            child.start()
        assert compute(5) == [1, 2, 3, 4, 5]
        for (ours, _), child in zip(ends, children, strict=True):
            assert ours.poll(60)
            assert ours.recv() == (False, [1, 2, 3, 4])
            child.join()
            assert child.exitcode == 0
        for pipe in (end for pair in ends for end in pair):
            pipe.close()
        assert eagleray.get(ref) == [1, 2]
        assert compute(3) == [1, 2, 3]

    def test_a_pool_of_the_driver(self, session: None) -> None:
        """Its children are forked while the session's thread runs, and end without a word to it."""
        assert compute(3) == [1, 2, 3]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(square, range(5)) == SQUARES
        with dask.config.set(scheduler="processes"):
            assert int(da.arange(10, chunks=5).sum().compute()) == 45
        assert compute(3) == [1, 2, 3]


def test_a_result_with_many_objects_that_know_each_other(session: None) -> None:
    """A worker looks for finalizers among them, at each once."""
    assert len(vars(ray_dask_get({"k": (relate, 25)}, "k"))) == 24
