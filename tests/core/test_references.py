"""References: thousands of refs go around at random, and what is held is there while what is not is gone.

The model is what the holders (the driver, tasks, actors) should have: for each ref in their hands the value that it names.
Workers are killed meanwhile. `EAGLERAY_REFERENCES` is the number of steps, `EAGLERAY_SEED` the seed.
"""

import contextlib
import gc
import os
import random
import signal
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray import ObjectRef, _engine
from tests.conftest import alive, until
from tests.core.remotes import Counter, Shelf, echo

STEPS = int(os.environ.get("EAGLERAY_REFERENCES", "4000"))
SEED = int(os.environ.get("EAGLERAY_SEED", "4"))

LARGE = 30_000
"""Elements of an array that is in shared memory."""


def value(number: int) -> Any:
    """Of three sizes: in a message, in shared memory, in a container of both."""
    match number % 3:
        case 0:
            return number
        case 1:
            return np.full(LARGE, number)
    return {"small": number, "large": np.full(LARGE, number)}


def is_value(thing: Any, number: int) -> bool:
    match number % 3:
        case 0:
            return bool(thing == number)
        case 1:
            return thing.shape == (LARGE,) and bool((thing == number).all())
    return bool(thing["small"] == number) and bool((thing["large"] == number).all())


@eagleray.remote(max_retries=-1)
def make(number: int) -> Any:
    return value(number)


@eagleray.remote(max_retries=-1)
def make_inside(number: int) -> Any:
    """A ref in a container, whose only holder is the result."""
    return [eagleray.put(value(number))]


@eagleray.remote(max_retries=-1)
def make_far_inside(number: int) -> Any:
    return {"inner": make_inside.remote(number)}


@eagleray.remote(max_retries=-1)
def check_all(refs: list[ObjectRef], numbers: list[int]) -> list[bool]:
    return [is_value(eagleray.get(ref), number) for ref, number in zip(refs, numbers, strict=True)]


@eagleray.remote(max_retries=-1)
def check_values(numbers: list[int], *values: Any) -> list[bool]:
    return [is_value(thing, number) for thing, number in zip(values, numbers, strict=True)]


class Model:
    """Who holds what. Each step moves, copies or drops refs, or looks at what they name."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.driver: dict[int, Any] = {}
        """By number, the ref, or a container that holds it as deep as `depth` says."""
        self.depth: dict[int, int] = {}
        self.shelves = [Shelf.options(num_cpus=0).remote() for _ in range(3)]
        self.shelved: list[set[int]] = [set() for _ in self.shelves]
        self.next = 0
        self.kills = 0
        self.looks = 0

    def fresh(self) -> int:
        self.next += 1
        return self.next

    def some(self, most: int = 5) -> list[int]:
        known = [number for number in self.driver if self.depth[number] == 0]
        return self.random.sample(known, min(len(known), self.random.randint(1, most)))

    def put(self) -> None:
        number = self.fresh()
        self.driver[number], self.depth[number] = eagleray.put(value(number)), 0

    def submit(self) -> None:
        number = self.fresh()
        self.driver[number], self.depth[number] = make.remote(number), 0

    def submit_inside(self) -> None:
        number = self.fresh()
        self.driver[number], self.depth[number] = make_inside.remote(number), 1

    def submit_far_inside(self) -> None:
        number = self.fresh()
        self.driver[number], self.depth[number] = make_far_inside.remote(number), 2

    def unpack(self) -> None:
        """A result that holds a ref is replaced by what it holds."""
        packed = [number for number in self.driver if self.depth[number]]
        if packed:
            number = self.random.choice(packed)
            held = eagleray.get(self.driver[number])
            self.driver[number] = held["inner"] if self.depth[number] == 2 else held[0]
            self.depth[number] -= 1

    def through_a_task(self) -> None:
        """Refs go in a container through a task; the ones that come back replace those that went."""
        numbers = self.some()
        went = [self.driver.pop(number) for number in numbers]
        ref = echo.options(max_retries=-1).remote(went)
        del went
        for number, back in zip(numbers, eagleray.get(ref), strict=True):
            self.driver[number] = back

    def to_a_shelf(self) -> None:
        """The driver's ref moves to an actor, which is its only holder from then on."""
        which = self.random.randrange(len(self.shelves))
        for number in self.some(3):
            self.shelves[which].put.remote(str(number), [self.driver.pop(number)])
            del self.depth[number]
            self.shelved[which].add(number)

    def from_a_shelf(self) -> None:
        which = self.random.randrange(len(self.shelves))
        if self.shelved[which]:
            number = self.random.choice(sorted(self.shelved[which]))
            self.shelved[which].discard(number)
            (self.driver[number],) = eagleray.get(self.shelves[which].take.remote(str(number)))
            self.depth[number] = 0

    def between_shelves(self) -> None:
        """From actor to actor; the driver has the call's ref only."""
        here, there = self.random.sample(range(len(self.shelves)), 2)
        if self.shelved[here]:
            number = self.random.choice(sorted(self.shelved[here]))
            self.shelved[here].discard(number)
            taken = self.shelves[here].take.remote(str(number))
            self.shelves[there].put.remote(str(number), taken)
            self.shelved[there].add(number)

    def look(self) -> None:
        self.looks += 1
        for number in self.some():
            assert is_value(eagleray.get(self.driver[number]), number), number

    def look_in_a_task(self) -> None:
        self.looks += 1
        numbers = self.some()
        refs = [self.driver[number] for number in numbers]
        ways = [check_all.remote(refs, numbers), check_values.remote(numbers, *refs)]
        assert eagleray.get(ways) == [[True] * len(numbers)] * 2

    def drop(self) -> None:
        for number in self.random.sample(sorted(self.driver), min(len(self.driver), 4)):
            del self.driver[number], self.depth[number]

    def drop_in_a_shelf(self) -> None:
        which = self.random.randrange(len(self.shelves))
        for number in self.random.sample(sorted(self.shelved[which]), min(len(self.shelved[which]), 3)):
            self.shelved[which].discard(number)
            self.shelves[which].take.options(num_returns=0).remote(str(number))

    def kill_a_worker(self) -> None:
        """One that runs tasks: it is replaced, and what it was at is done again."""
        actors = {eagleray.get(shelf.pid.remote()) for shelf in self.shelves}
        pids = [worker["pid"] for worker in _engine.native.workers() if worker["pid"] not in actors]
        if pids:
            victim = self.random.choice(pids)
            with contextlib.suppress(ProcessLookupError):  # that was one that had ended just now
                os.kill(victim, signal.SIGKILL)
                self.kills += 1

    def kill_a_shelf(self) -> None:
        """Its refs go with it: the driver takes copies of some of them before."""
        which = self.random.randrange(len(self.shelves))
        rescued = sorted(self.shelved[which])[:3]
        for number in rescued:
            (self.driver[number],) = eagleray.get(self.shelves[which].look.remote(str(number)))
            self.depth[number] = 0
        eagleray.kill(self.shelves[which])
        self.shelves[which] = Shelf.options(num_cpus=0).remote()
        self.shelved[which] = set()
        self.kills += 1

    def check(self) -> None:
        """All that should be there is there."""
        while any(self.depth.values()):
            self.unpack()
        numbers = sorted(self.driver)
        for number, thing in zip(numbers, eagleray.get([self.driver[number] for number in numbers]), strict=True):
            assert is_value(thing, number), number
        for shelf, numbers_there in zip(self.shelves, self.shelved, strict=True):
            assert eagleray.get(shelf.names.remote()) == sorted(map(str, numbers_there))
            for number in numbers_there:
                (ref,) = eagleray.get(shelf.look.remote(str(number)))
                assert is_value(eagleray.get(ref), number), number

    def close(self) -> None:
        self.driver.clear()
        self.depth.clear()
        self.shelves.clear()


STEPS_BY_WEIGHT = {
    "put": 8,
    "submit": 8,
    "submit_inside": 5,
    "submit_far_inside": 4,
    "unpack": 8,
    "through_a_task": 6,
    "to_a_shelf": 8,
    "from_a_shelf": 5,
    "between_shelves": 5,
    "look": 8,
    "look_in_a_task": 6,
    "drop": 7,
    "drop_in_a_shelf": 4,
}


def objects() -> int:
    """How many objects the session keeps."""
    return int(_engine.native.counters()["objects"])


@pytest.mark.timeout(900)
def test_against_a_model(fresh: None) -> None:
    eagleray.init(num_cpus=2)
    model = Model(SEED)
    names, weights = list(STEPS_BY_WEIGHT), list(STEPS_BY_WEIGHT.values())
    for step in range(STEPS):
        getattr(model, model.random.choices(names, weights)[0])()
        if step % 100 == 50:
            model.kill_a_worker()
        if step % 500 == 200:
            model.kill_a_shelf()
    model.check()
    assert model.looks
    assert model.kills
    model.close()
    del model
    gc.collect()
    until(lambda: objects() == 0)


class TestNothingStays:
    """Each way in which a ref can be dropped, alone."""

    @pytest.fixture(autouse=True)
    def balance(self, session: None) -> Any:
        yield
        gc.collect()
        until(lambda: objects() == 0)

    def test_put(self) -> None:
        eagleray.put(value(1))

    def test_result(self) -> None:
        eagleray.get(make.remote(1))

    def test_result_that_nobody_asked_for(self) -> None:
        make.remote(1)

    def test_result_that_failed(self) -> None:
        ref = make.remote("no number")
        with pytest.raises(TypeError):
            eagleray.get(ref)

    def test_nested(self) -> None:
        (ref,) = eagleray.get(eagleray.get(make_far_inside.remote(1))["inner"])
        assert is_value(eagleray.get(ref), 1)

    def test_nested_that_nobody_looked_into(self) -> None:
        eagleray.wait([make_far_inside.remote(1)])

    def test_argument(self) -> None:
        assert eagleray.get(check_values.remote([1], eagleray.put(value(1)))) == [True]
        assert eagleray.get(check_all.remote([eagleray.put(value(1))], [1])) == [True]

    def test_large_literal(self) -> None:
        assert eagleray.get(check_values.remote([1], value(1))) == [True]

    def test_several_results(self) -> None:
        first, *_ = echo.options(num_returns=3).remote([value(1), value(4), value(7)])
        assert is_value(eagleray.get(first), 1)

    def test_closure(self) -> None:
        ref = eagleray.put(value(1))
        assert eagleray.get(eagleray.remote(lambda: is_value(eagleray.get(ref), 1)).remote())

    def test_generator(self) -> None:
        def yields() -> Any:
            for number in (1, 4, 7):
                yield value(number)

        stream = eagleray.remote(yields).remote()
        assert is_value(eagleray.get(next(stream)), 1)

    def test_cancelled(self) -> None:
        ref = make.remote(1)
        eagleray.cancel(ref)
        eagleray.wait([ref])

    def test_actor_with_refs(self) -> None:
        shelf = Shelf.remote(here=[eagleray.put(value(1))])
        process = eagleray.get(shelf.pid.remote())
        assert is_value(eagleray.get(eagleray.get(shelf.look.remote("here"))[0]), 1)
        del shelf
        until(lambda: not alive(process))

    def test_actor_that_is_killed(self) -> None:
        shelf = Shelf.remote(here=[eagleray.put(value(1))])
        eagleray.get(shelf.names.remote())
        eagleray.kill(shelf)

    def test_handles(self) -> None:
        shelf = Shelf.remote()
        shelf.put.remote("other", Shelf.remote(here=value(1)))
        assert eagleray.get(shelf.call.remote("other", "names")) == ["here"]

    def test_worker_that_dies_with_refs(self) -> None:
        @eagleray.remote(max_retries=0)
        def dies(refs: list[ObjectRef]) -> None:
            own = [eagleray.put(value(i)) for i in range(5)]
            eagleray.get([*refs, *own])
            os._exit(1)

        eagleray.wait([dies.remote([eagleray.put(value(1))])])

    def test_future(self) -> None:
        assert is_value(make.remote(1).future().result(), 1)

    def test_call_that_names_the_result_of_the_call_before(self) -> None:
        """The session takes calls together: those that name each other's results must not hold them for ever."""
        for _ in range(50):
            first = make.remote(1)
            eagleray.get(echo.remote([first]))

    def test_what_one_call_names_is_not_held_for_the_result_of_another(self) -> None:
        shelf = Shelf.remote()
        process = eagleray.get(shelf.pid.remote())
        named, other = echo.remote([shelf]), echo.remote(1)
        eagleray.wait([named, other], num_returns=2)
        del shelf, named
        until(lambda: not alive(process))
        assert eagleray.get(other) == 1

    def test_what_a_call_named_is_not_held_for_its_result(self) -> None:
        """A call that has ended needs nothing any more of what its arguments name."""
        count = eagleray.remote(len)
        submit = eagleray.remote(lambda named: [count.remote(named)])
        shelf, actor = Shelf.remote(), Counter.remote()
        process = eagleray.get(shelf.pid.remote())
        results = [count.remote([shelf]), *eagleray.get(submit.remote([shelf])), actor.echo.remote([shelf])]
        eagleray.wait(results, num_returns=3)
        del results[2:], shelf
        until(lambda: not alive(process))
        assert eagleray.get(results) == [1, 1]
