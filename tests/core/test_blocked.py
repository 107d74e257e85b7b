"""Tasks that wait, for actors and for each other, and the CPUs they give back meanwhile."""

import asyncio

import pytest

import eagleray
from eagleray import _engine, _machine
from eagleray.util.queue import Queue
from tests.core.remotes import Counter


@eagleray.remote
def ask(counter: Counter) -> int:
    return eagleray.get(counter.pid.remote())


@eagleray.remote
def down(levels: int) -> int:
    return levels and 1 + eagleray.get(down.remote(levels - 1))


@eagleray.remote
class Asker:
    def all(self, counter: Counter, tasks: int) -> int:
        return len(set(eagleray.get([ask.remote(counter) for _ in range(tasks)])))


@eagleray.remote
class Coordinator:
    async def run(self, me: "Coordinator", tasks: int) -> int:
        return sum(await asyncio.gather(*[report.remote(me) for _ in range(tasks)]))

    async def report(self) -> int:
        return 1


@eagleray.remote
def report(coordinator: Coordinator) -> int:
    return eagleray.get(coordinator.report.remote())


@eagleray.remote
def take(queue: Queue) -> int:
    return queue.get()


@eagleray.remote
def give(queue: Queue, item: int) -> None:
    queue.put(item)


@pytest.fixture(autouse=True)
def one_cpu(fresh: None) -> None:
    eagleray.init(num_cpus=1)


def workers() -> int:
    return len(_engine.native.workers())


def test_an_actor_waits_for_hundreds_of_tasks_that_wait_for_another() -> None:
    counter = Counter.remote()
    assert eagleray.get(Asker.remote().all.remote(counter, 300)) == 1
    assert workers() <= 8


def test_tasks_call_the_actor_that_waits_for_them() -> None:
    coordinator = Coordinator.remote()
    assert eagleray.get(coordinator.run.remote(coordinator, 300)) == 300
    assert workers() <= 30


def test_tasks_wait_for_a_later_one() -> None:
    queue = Queue()
    taken = [take.remote(queue) for _ in range(5)]
    given = [give.remote(queue, item) for item in range(5)]
    assert sorted(eagleray.get(taken)) == list(range(5))
    eagleray.get(given)


def test_tasks_wait_for_tasks_deep_down() -> None:
    assert eagleray.get(down.remote(50)) == 50
    eagleray.shutdown()
    eagleray.init(num_cpus=16)
    assert eagleray.get(down.remote(30)) == 30


def test_tasks_wait_for_tasks_as_deep_down_as_there_is_memory_for() -> None:
    levels = min(300, _machine.workers(1) - 1)
    assert eagleray.get(down.remote(levels)) == levels
