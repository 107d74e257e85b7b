"""Actors: state, classes, arguments, the order of calls, handles."""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray.exceptions import ActorDiedError
from tests.conftest import alive, until
from tests.core.remotes import Counter, Shelf, Sum, add, echo, pid, until_exists

pytestmark = pytest.mark.usefixtures("shared")


class TestState:
    def test_stays(self) -> None:
        counter = Counter.remote(10)
        assert eagleray.get([counter.add.remote() for _ in range(5)]) == [11, 12, 13, 14, 15]
        assert eagleray.get(counter.read.remote()) == 15

    def test_of_two_is_two(self) -> None:
        one, two = Counter.remote(), Counter.remote(total=100)
        assert eagleray.get([one.add.remote(), two.add.remote(), one.add.remote(x=5)]) == [1, 101, 6]
        pids = eagleray.get([one.pid.remote(), two.pid.remote()])
        assert len({*pids, os.getpid()}) == 3

    def test_own_process_and_its_main_thread(self) -> None:
        counter = Counter.remote()
        pids = set(eagleray.get([counter.pid.remote() for _ in range(10)]))
        assert len(pids) == 1
        assert eagleray.get(counter.thread.remote())
        assert pids.isdisjoint(eagleray.get([pid.remote() for _ in range(20)]))

    def test_survives_a_failed_call(self) -> None:
        counter = Counter.remote()
        bad = counter.fail.remote(ValueError, "of a call")
        assert eagleray.get(counter.add.remote()) == 1
        with pytest.raises(ValueError, match="of a call"):
            eagleray.get(bad)

    def test_large_state_and_results(self) -> None:
        counter = Counter.remote(np.zeros(500_000))
        for i in range(1, 4):
            assert eagleray.get(counter.add.remote(np.ones(500_000)))[-1] == i

    def test_mutable_result_is_a_copy(self) -> None:
        @eagleray.remote
        class Log:
            def __init__(self) -> None:
                self.lines: list[str] = []

            def write(self, line: str) -> list[str]:
                self.lines.append(line)
                return self.lines

        log = Log.remote()
        first, second = log.write.remote("a"), log.write.remote("b")
        assert eagleray.get([first, second]) == [["a"], ["a", "b"]]


class TestClasses:
    def test_local_with_bases(self) -> None:
        factor = 3

        @eagleray.remote
        class Scaled(Sum):
            unit = "m"

            def read(self) -> Any:
                return super().read() * factor, self.unit

            @property
            def twice(self) -> Any:
                return self.total * 2

            @staticmethod
            def half(x: float) -> float:
                return x / 2

            @classmethod
            def name(cls) -> str:
                return cls.__name__

        scaled = Scaled.remote(2)
        assert eagleray.get(scaled.read.remote()) == (6, "m")
        assert eagleray.get(scaled.half.remote(5)) == 2.5
        assert eagleray.get(scaled.name.remote()) == "Scaled"
        assert eagleray.get(scaled.add.remote(1)) == 3

    def test_its_methods_name_it(self) -> None:
        @eagleray.remote
        class Named(Sum):
            unit = "m"

            @classmethod
            def doubled(cls) -> str:
                return cls.unit * 2

            def read(self) -> Any:
                return Named.unit, Named.doubled()

        assert eagleray.get(Named.remote().read.remote()) == ("m", "mm")

    def test_without_a_constructor(self) -> None:
        @eagleray.remote
        class Plain:
            def hello(self) -> str:
                return "hello"

        assert eagleray.get(Plain.remote().hello.remote()) == "hello"

    def test_options(self) -> None:
        @eagleray.remote(num_cpus=0, max_restarts=1)
        class Plain:
            def assigned(self) -> Any:
                return eagleray.get_runtime_context().get_assigned_resources()

        assert eagleray.get(Plain.remote().assigned.remote()).get("CPU", 0) == 0
        assert eagleray.get(Plain.options(num_cpus=1).remote().assigned.remote())["CPU"] == 1

    def test_method_options(self) -> None:
        @eagleray.remote
        class Pair:
            @eagleray.method(num_returns=2)
            def two(self) -> tuple[int, int]:
                return 1, 2

            def three(self) -> list[int]:
                return [1, 2, 3]

        pair = Pair.remote()
        assert eagleray.get(pair.two.remote()) == [1, 2]
        assert eagleray.get(pair.two.options(num_returns=1).remote()) == (1, 2)
        assert eagleray.get(pair.three.options(num_returns=3).remote()) == [1, 2, 3]
        assert pair.three.options(num_returns=0).remote() is None
        for ref in pair.three.options(num_returns=2).remote():
            with pytest.raises(ValueError, match=r"3.*2|2.*3"):
                eagleray.get(ref)
        again = eagleray.get(echo.remote([pair]))[0]
        assert eagleray.get(again.two.remote()) == [1, 2]

    def test_the_same_class_in_the_driver(self) -> None:
        assert Sum(3).add() == 4


class TestArguments:
    def test_refs(self) -> None:
        counter = Counter.remote(echo.remote(100))
        assert eagleray.get(counter.add.remote(eagleray.put(1))) == 101
        assert eagleray.get(counter.add.remote(x=add.remote(1, 1))) == 103
        ref = eagleray.put(5)
        assert eagleray.get(counter.echo.remote([ref])) == [ref]
        assert eagleray.get(add.remote(counter.add.remote(), counter.add.remote())) == 104 + 105

    def test_of_the_constructor_that_fail(self) -> None:
        counter = Counter.remote(eagleray.remote(lambda: 1 / 0).remote())
        with pytest.raises((ActorDiedError, ZeroDivisionError), match="division"):
            eagleray.get(counter.read.remote())

    def test_a_failed_argument_fails_the_call_only(self) -> None:
        counter = Counter.remote()
        bad = counter.add.remote(eagleray.remote(lambda: 1 / 0).remote())
        assert eagleray.get(counter.add.remote()) == 1
        with pytest.raises(ZeroDivisionError):
            eagleray.get(bad)

    def test_large(self) -> None:
        data = np.arange(1_000_000)
        counter = Counter.remote(data)
        assert eagleray.get(counter.add.remote(data)).sum() == 2 * data.sum()


class TestOrder:
    def test_of_one_caller(self) -> None:
        shelf = Counter.remote([])
        refs = [shelf.add.remote([i]) for i in range(300)]
        assert eagleray.get(refs[-1]) == list(range(300))

    def test_waits_for_a_late_argument(self, tmp_path: Path) -> None:
        """A call whose argument is not there yet keeps those after it waiting."""
        log = Counter.remote("")
        late = until_exists.remote(str(tmp_path / "go"))
        first = log.add.remote(eagleray.remote(lambda _: "a").remote(late))
        second = log.add.remote("b")
        assert eagleray.wait([second], timeout=0.1) == ([], [second])
        (tmp_path / "go").touch()
        assert eagleray.get([first, second]) == ["a", "ab"]

    def test_what_a_task_called_is_before_what_is_called_with_its_result(self) -> None:
        log = Counter.remote([])

        @eagleray.remote
        def write(log: Any, name: int) -> None:
            log.add.remote([name])

        for name in range(20):
            eagleray.get(write.remote(log, name))
            assert eagleray.get(log.read.remote())[-1] == name

    def test_of_each_of_several_callers(self) -> None:
        log = Counter.remote([])

        @eagleray.remote
        def write(log: Any, name: str) -> None:
            eagleray.get([log.add.remote([(name, i)]) for i in range(50)])

        eagleray.get([write.remote(log, name) for name in "abc"])
        lines = eagleray.get(log.read.remote())
        assert len(lines) == 150
        for name in "abc":
            assert [i for who, i in lines if who == name] == list(range(50))

    def test_calls_of_threads_are_those_of_one_caller(self) -> None:
        log = Counter.remote([])

        def write(name: int) -> None:
            for i in range(50):
                log.add.remote([(name, i)])

        threads = [threading.Thread(target=write, args=[name]) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = eagleray.get(log.read.remote())
        for name in range(4):
            assert [i for who, i in lines if who == name] == list(range(50))


class TestHandles:
    def test_in_an_argument(self) -> None:
        counter = Counter.remote()
        call = eagleray.remote(lambda handle: eagleray.get(handle.add.remote(5)))
        assert eagleray.get(call.remote(counter)) == 5
        assert eagleray.get(counter.read.remote()) == 5

    def test_in_a_closure(self) -> None:
        counter = Counter.remote()
        eagleray.get([eagleray.remote(lambda: eagleray.get(counter.add.remote())).remote() for _ in range(4)])
        assert eagleray.get(counter.read.remote()) == 4

    def test_in_a_result(self) -> None:
        @eagleray.remote
        def make() -> Any:
            return {"actor": Counter.remote(7)}

        counter = eagleray.get(make.remote())["actor"]
        assert eagleray.get(counter.add.remote()) == 8

    def test_in_an_object_and_a_container(self) -> None:
        counter = Counter.remote()
        ref = eagleray.put({"handles": [counter]})
        call = eagleray.remote(lambda table: eagleray.get(table["handles"][0].add.remote()))
        assert eagleray.get(call.remote(ref)) == 1

    def test_in_the_state_of_an_actor(self) -> None:
        shelf = Shelf.remote(counter=Counter.remote(1))
        assert eagleray.get(shelf.call.remote("counter", "add", 4)) == 5
        counter = eagleray.get(shelf.take.remote("counter"))
        assert eagleray.get(counter.read.remote()) == 5

    def test_of_itself(self) -> None:
        @eagleray.remote
        class Known:
            def handle(self) -> Any:
                return eagleray.get_runtime_context().current_actor

            def answer(self) -> int:
                return 42

        known = Known.remote()
        same = eagleray.get(known.handle.remote())
        del known
        assert eagleray.get(same.answer.remote()) == 42

    def test_of_each_other(self) -> None:
        one, two = Shelf.remote(), Shelf.remote()
        eagleray.get([one.put.remote("peer", two), two.put.remote("peer", one)])
        assert eagleray.get(one.call.remote("peer", "names")) == ["peer"]
        eagleray.get([one.take.remote("peer"), two.take.remote("peer")])

    def test_pickled_by_the_user(self) -> None:
        counter = Counter.remote()
        again = pickle.loads(pickle.dumps(counter))
        assert eagleray.get([counter.add.remote(), again.add.remote()]) == [1, 2]

    def test_equality_and_text(self) -> None:
        counter, other = Counter.remote(), Counter.remote()
        (same,) = eagleray.get(echo.remote([counter]))
        assert same == counter
        assert hash(same) == hash(counter)
        assert counter != other
        assert "Sum" in repr(counter)
        assert counter._actor_id.hex() in repr(counter)

    def test_of_a_method(self) -> None:
        counter = Counter.remote()
        method = counter.add
        assert eagleray.get([method.remote(), method.remote(2)]) == [1, 3]


def test_many_actors() -> None:
    actors = [Counter.options(num_cpus=0).remote(i) for i in range(20)]
    assert eagleray.get([actor.add.remote() for actor in actors]) == list(range(1, 21))
    pids = eagleray.get([actor.pid.remote() for actor in actors])
    assert len(set(pids)) == 20
    del actors
    until(lambda: not any(map(alive, pids)))


def test_more_than_the_soft_limit_on_open_files_lets_be() -> None:
    code = """
import resource
import eagleray
from tests.core.remotes import Counter

resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
eagleray.init(num_cpus=2)
counters = [Counter.remote(i) for i in range(30)]
print(sum(eagleray.get([counter.read.remote() for counter in counters])))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("435\n", "")
