"""Graphs, tasks and actors at once."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from dask import delayed

import eagleray
from eagleray import ObjectRef
from eagleray.dask import RayDaskCallback, enable_dask_on_ray, ray_dask_get
from tests.conftest import until
from tests.core.remotes import Counter, Shelf, add, echo, fail, until_exists
from tests.tasks import add as plain_add
from tests.tasks import inc, total


@pytest.fixture(params=[1, 2], ids=["one CPU", "two CPUs"])
def cpus(request: pytest.FixtureRequest, fresh: None) -> int:
    eagleray.init(num_cpus=request.param)
    return int(request.param)


GRAPH: dict[str, Any] = {
    **{f"leaf-{i}": (inc, i) for i in range(6)},
    "sum": (total, [f"leaf-{i}" for i in range(6)]),
}
SUM = 21


class Tell(RayDaskCallback):
    """Tells an actor of every call of its hooks."""

    def __init__(self, log: Any) -> None:
        self.log = log

    def _ray_presubmit(self, task: Any, key: Any, deps: Any) -> None:
        self.log.add.remote([("presubmit", key)])

    def _ray_postsubmit(self, task: Any, key: Any, deps: Any, object_ref: Any) -> None:
        self.log.add.remote([("postsubmit", key)])

    def _ray_pretask(self, key: Any, object_refs: Any) -> int:
        return len(eagleray.get(self.log.add.remote([("pretask", key)])))

    def _ray_posttask(self, key: Any, result: Any, pre_state: int) -> None:
        assert pre_state > 0
        self.log.add.remote([("posttask", key, result)])

    def _ray_postsubmit_all(self, object_refs: Any, dsk: Any) -> None:
        self.log.add.remote([("postsubmit_all", len(dsk))])

    def _ray_finish(self, result: Any) -> None:
        self.log.add.remote([("finish", result)])


class TestHooks:
    def test_call_actors(self, cpus: int) -> None:
        log = Counter.remote([])
        with Tell(log):
            assert ray_dask_get(GRAPH, ["sum"]) == [SUM]
        lines = eagleray.get(log.read.remote())
        for hook in ("presubmit", "postsubmit", "pretask", "posttask"):
            assert sorted(line[1] for line in lines if line[0] == hook) == sorted(GRAPH)
        assert ("posttask", "leaf-3", 4) in lines
        assert [line for line in lines if line[0] == "postsubmit_all"] == [("postsubmit_all", 7)]
        assert [line for line in lines if line[0] == "finish"] == [("finish", [SUM])]

    def test_calls_of_a_hook_are_not_lost(self, cpus: int) -> None:
        """Those that nobody waits for are there when the compute is over and the actor is asked."""
        log = Counter.remote([])

        def tell(key: Any, result: Any, pre_state: Any) -> None:
            log.add.remote([key])

        ray_dask_get(GRAPH, "sum", ray_callbacks=[RayDaskCallback(ray_posttask=tell)])
        until(lambda: sorted(eagleray.get(log.read.remote())) == sorted(GRAPH))

    def test_refs_and_graphs_as_arguments_of_calls(self, cpus: int) -> None:
        shelf = Shelf.remote()

        def kept(task: Any, key: Any, deps: Any, object_ref: ObjectRef) -> None:
            shelf.put.remote(key, [task, key, dict(deps), object_ref])

        with RayDaskCallback(ray_postsubmit=kept):
            assert ray_dask_get(GRAPH, "sum") == SUM
        _, key, deps, ref = eagleray.get(shelf.take.remote("sum"))
        assert key == "sum"
        assert eagleray.get(ref) == SUM
        assert sum(eagleray.get(list(deps.values()))) == SUM

    def test_an_actor_answers_for_tasks(self, cpus: int, tmp_path: Path) -> None:
        cache = Shelf.remote(**{"leaf-0": 100})

        def answer(task: Any, key: Any, deps: Any) -> Any:
            try:
                return eagleray.get(cache.look.remote(str(key)))
            except KeyError:
                return None

        with RayDaskCallback(ray_presubmit=answer):
            assert ray_dask_get(GRAPH, "sum") == SUM + 99

    def test_error_of_an_actor_in_a_hook(self, cpus: int) -> None:
        log = Counter.remote()

        def ask(key: Any, object_refs: Any) -> None:
            eagleray.get(log.fail.remote(LookupError, "of the actor"))

        with RayDaskCallback(ray_pretask=ask), pytest.raises(LookupError, match="of the actor"):
            ray_dask_get(GRAPH, "sum")


class TestRefsInGraphs:
    def test_of_tasks_and_actors(self, cpus: int) -> None:
        counter = Counter.remote(10)
        graph = {"x": (inc, add.remote(1, 1)), "y": (plain_add, "x", counter.add.remote()), "z": eagleray.put(5)}
        assert ray_dask_get(graph, ["y", "z"]) == (14, 5)

    def test_delayed(self, cpus: int) -> None:
        ref = echo.remote(np.ones((100, 100)))
        array = da.from_delayed(delayed(ref), (100, 100), dtype=float)
        assert array.sum().compute(scheduler=ray_dask_get) == 10_000
        assert delayed(inc)(add.remote(1, 2)).compute(scheduler=ray_dask_get) == 4

    def test_results_of_a_graph_as_arguments(self, cpus: int) -> None:
        refs = ray_dask_get(GRAPH, ["sum", "leaf-5"], ray_persist=True)
        assert eagleray.get(add.remote(*refs)) == SUM + 6
        counter = Counter.remote(refs[0])
        assert eagleray.get(counter.add.remote(refs[1])) == SUM + 6

    def test_that_are_not_there_yet(self, cpus: int, tmp_path: Path) -> None:
        go = tmp_path / "go"
        pending = until_exists.remote(str(go))
        kept = ray_dask_get({"x": (len, pending)}, "x", ray_persist=True)
        assert eagleray.wait([kept], timeout=0.05) == ([], [kept])
        go.touch()
        assert eagleray.get(kept) == len(str(go))

    def test_that_fail(self, cpus: int) -> None:
        with pytest.raises(KeyError, match="k"):
            ray_dask_get({"x": (inc, fail.remote(KeyError, "k"))}, "x")

    def test_persisted_collection_in_a_task(self, cpus: int) -> None:
        kept = da.ones(100, chunks=10).persist(scheduler=ray_dask_get)

        @eagleray.remote
        def sum_of(collection: Any) -> float:
            return float(collection.sum().compute(scheduler=ray_dask_get))

        assert eagleray.get(sum_of.remote(kept)) == 100.0


def through(handle: Any, x: int) -> int:
    return int(eagleray.get(handle.add.remote(x)))


class TestHandlesInGraphs:
    def test_as_arguments(self, cpus: int) -> None:
        counter = Counter.remote()
        graph = {**{("call", i): (through, counter, 1) for i in range(8)}, "handle": counter}
        assert sorted(ray_dask_get(graph, [("call", i) for i in range(8)])) == list(range(1, 9))
        assert delayed(through)(counter, 2).compute(scheduler=ray_dask_get) == 10
        assert delayed(lambda table: through(table["h"], 1))({"h": counter}).compute(scheduler=ray_dask_get) == 11

    def test_in_a_closure(self, cpus: int) -> None:
        counter = Counter.remote()
        array = da.ones(40, chunks=10).map_blocks(lambda block: block * 0 + through(counter, len(block)), dtype=float)
        assert array.compute(scheduler=ray_dask_get).max() == 40

    def test_made_by_a_task_of_a_graph(self, cpus: int) -> None:
        handle = ray_dask_get({"x": (lambda: Counter.remote(5),)}, "x")
        assert eagleray.get(handle.add.remote()) == 6


def compute_sum(n: int = 6) -> int:
    graph: dict[str, Any] = {f"leaf-{i}": (inc, i) for i in range(n)}
    graph["sum"] = (total, list(graph))
    return int(ray_dask_get(graph, "sum"))


class TestComputeInside:
    def test_a_task(self, cpus: int) -> None:
        assert eagleray.get([eagleray.remote(compute_sum).remote() for _ in range(4)]) == [SUM] * 4

    def test_an_actor(self, cpus: int) -> None:
        counters = [Counter.remote() for _ in range(3)]
        assert eagleray.get([c.call.remote(compute_sum) for c in counters for _ in range(2)]) == [SUM] * 6

    def test_a_thread_of_an_actor(self, cpus: int) -> None:
        counter = Counter.options(max_concurrency=3).remote()
        assert eagleray.get([counter.call.remote(compute_sum) for _ in range(6)]) == [SUM] * 6

    def test_the_constructor_of_an_actor(self, cpus: int) -> None:
        @eagleray.remote
        class Ready:
            def __init__(self) -> None:
                self.total = compute_sum()

            def read(self) -> int:
                return self.total

        assert eagleray.get(Ready.remote().read.remote()) == SUM

    def test_a_graph_in_a_task_in_a_graph(self, cpus: int) -> None:
        def middle(i: int) -> int:
            return int(eagleray.get(eagleray.remote(compute_sum).remote(i)))

        assert ray_dask_get({"x": (middle, 3), "y": (middle, 4), "z": (plain_add, "x", "y")}, "z") == 6 + 10

    def test_enabled_in_a_task(self, cpus: int) -> None:
        @eagleray.remote
        def mean() -> float:
            with enable_dask_on_ray():
                return float(da.ones((100, 100), chunks=20).mean().compute())

        assert eagleray.get(mean.remote()) == 1.0

    def test_large_results(self, cpus: int) -> None:
        @eagleray.remote
        def make() -> Any:
            return (da.ones(1_000_000, chunks=250_000) * 2).compute(scheduler=ray_dask_get)

        assert eagleray.get(make.remote()).sum() == 2_000_000


def deeper(depth: int) -> int:
    return 0 if depth == 0 else 1 + int(eagleray.get(eagleray.remote(deeper).remote(depth - 1)))


class TestBlocking:
    """A `get` in a task gives its slot back."""

    def test_chain_of_tasks(self, cpus: int) -> None:
        assert eagleray.get(eagleray.remote(deeper).remote(12)) == 12

    def test_chain_of_waits(self, cpus: int) -> None:
        def waits(depth: int) -> int:
            if depth == 0:
                return 0
            ref = eagleray.remote(waits).remote(depth - 1)
            eagleray.wait([ref])
            return 1 + int(eagleray.get(ref))

        assert eagleray.get(eagleray.remote(waits).remote(6)) == 6

    def test_chain_of_actors(self, cpus: int) -> None:
        @eagleray.remote
        class Link:
            def __init__(self, depth: int) -> None:
                self.next = Link.remote(depth - 1) if depth else None

            def depth(self) -> int:
                return 0 if self.next is None else 1 + int(eagleray.get(self.next.depth.remote()))

        assert eagleray.get(Link.remote(6).depth.remote()) == 6

    def test_chain_of_tasks_graphs_and_actors(self, cpus: int) -> None:
        def task(depth: int) -> int:
            return 0 if depth == 0 else 1 + int(ray_dask_get({"x": (graph, depth - 1)}, "x"))

        def graph(depth: int) -> int:
            if depth == 0:
                return 0
            counter = Counter.remote()
            return 1 + int(eagleray.get(counter.call.remote(actor, depth - 1)))

        def actor(depth: int) -> int:
            return 0 if depth == 0 else 1 + int(eagleray.get(eagleray.remote(task).remote(depth - 1)))

        assert eagleray.get(eagleray.remote(task).remote(7)) == 7

    def test_tree(self, cpus: int) -> None:
        def tree(depth: int) -> int:
            if depth == 0:
                return 1
            return sum(eagleray.get([eagleray.remote(tree).remote(depth - 1) for _ in range(2)]))

        assert eagleray.get(eagleray.remote(tree).remote(4)) == 16

    def test_two_actors_that_ask_tasks(self, cpus: int) -> None:
        actors = [Counter.remote() for _ in range(2)]

        def ask(i: int) -> int:
            return int(eagleray.get(add.remote(i, 1)))

        refs = [actor.call.remote(ask, i) for i in range(5) for actor in actors]
        assert eagleray.get(refs) == [i + 1 for i in range(5) for _ in range(2)]


class Progress(RayDaskCallback):
    """A progress display in an actor: what Dask-on-Ray's own progress bar is made of."""

    def __init__(self, display: Any) -> None:
        self.display = display

    def _ray_postsubmit(self, task: Any, key: Any, deps: Any, object_ref: Any) -> None:
        self.display.submitted.remote(key)

    def _ray_pretask(self, key: Any, object_refs: Any) -> None:
        self.display.begun.remote(key)

    def _ray_posttask(self, key: Any, result: Any, pre_state: None) -> None:
        self.display.ended.remote(key)

    def _ray_finish(self, result: Any) -> None:
        self.display.over.remote()


@eagleray.remote
class Display:
    def __init__(self) -> None:
        self.known: dict[Any, str] = {}
        self.done = False

    def submitted(self, key: Any) -> None:
        self.known.setdefault(key, "submitted")

    def begun(self, key: Any) -> None:
        self.known[key] = "begun"

    def ended(self, key: Any) -> None:
        assert self.known[key] == "begun"
        self.known[key] = "ended"

    def over(self) -> None:
        self.done = True

    def counts(self) -> dict[str, int]:
        states = list(self.known.values())
        return {state: states.count(state) for state in set(states)}

    def finished(self) -> bool:
        return self.done


class TestProgress:
    def run(self, compute: Callable[[], Any], display: Any) -> Any:
        """Computes in a thread while this one reads the display, as a progress bar does."""
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(compute()))
        thread.start()
        while not eagleray.get(display.finished.remote()):
            assert sum(eagleray.get(display.counts.remote()).values()) <= len(GRAPH)
        thread.join()
        return results[0]

    def test_actor(self, cpus: int) -> None:
        display = Display.options(name="display").remote()

        def compute() -> Any:
            return ray_dask_get(GRAPH, "sum", ray_callbacks=[Progress(display)])

        assert self.run(compute, display) == SUM
        until(lambda: eagleray.get(display.counts.remote()) == {"ended": len(GRAPH)})

    def test_in_a_task(self, cpus: int) -> None:
        display = Display.remote()

        @eagleray.remote
        def compute(display: Any) -> Any:
            with Progress(display):
                return ray_dask_get(GRAPH, "sum")

        ref = compute.remote(display)
        while not eagleray.get(display.finished.remote()):
            pass
        assert eagleray.get(ref) == SUM


def test_everything_at_once(session: None) -> None:
    """Graphs in threads, tasks and actors that call each other: all give what they give alone."""
    counter = Counter.remote()

    def graphs() -> None:
        for _ in range(5):
            results.append(ray_dask_get(GRAPH, "sum") == SUM)
            results.append(dask.compute(delayed(through)(counter, 0), scheduler=ray_dask_get)[0] >= 0)

    def tasks() -> None:
        for i in range(5):
            results.append(eagleray.get([add.remote(i, k) for k in range(10)]) == [i + k for k in range(10)])
            eagleray.get([counter.add.remote() for _ in range(10)])

    results: list[bool] = []
    threads = [threading.Thread(target=target) for target in (graphs, tasks, graphs, tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 30
    assert eagleray.get(counter.read.remote()) == 100
