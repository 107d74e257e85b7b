"""Refs: wherever they travel they keep what they name, and what a ref itself can do."""

import asyncio
import copy
import pickle
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray import ObjectRef
from tests.core.remotes import (
    Counter,
    Shelf,
    add,
    echo,
    fail,
    ready,
    until_exists,
)

pytestmark = pytest.mark.usefixtures("shared")


@pytest.fixture
def pending(tmp_path: Path) -> Any:
    """The ref of a task that ends with the test."""
    ref = until_exists.remote(str(tmp_path / "go"))
    yield ref
    (tmp_path / "go").touch()
    eagleray.get(ref)


class TestWhereRefsTravel:
    def test_containers(self) -> None:
        ref = eagleray.put(np.arange(200_000))
        array = np.empty(1, dtype=object)
        array[0] = ref
        nest = {"list": [ref, (ref,)], "array": array, "set": {ref}}
        back = eagleray.get(echo.remote(nest))
        for found in (back["list"][0], back["list"][1][0], back["array"][0], *back["set"]):
            assert found == ref
            assert eagleray.get(found)[-1] == 199_999

    def test_put_of_a_container(self) -> None:
        outer = eagleray.put([eagleray.put("inner")])
        (inner,) = eagleray.get(outer)
        assert eagleray.get(inner) == "inner"

    def test_attributes_of_an_instance(self) -> None:
        class Holder:
            def __init__(self, ref: ObjectRef) -> None:
                self.ref = ref

        holder = eagleray.get(echo.remote(Holder(eagleray.put(3))))
        assert eagleray.get(holder.ref) == 3

    def test_closure(self) -> None:
        ref = eagleray.put(np.ones(200_000))
        use = eagleray.remote(lambda: (type(ref) is ObjectRef, float(eagleray.get(ref).sum())))
        del_me = use.remote()
        assert eagleray.get(del_me) == (True, 200_000.0)

    def test_closure_is_the_only_holder(self) -> None:
        def make() -> Any:
            ref = eagleray.put(np.ones(200_000))
            return eagleray.remote(lambda: float(eagleray.get(ref).sum()))

        use = make()
        for _ in range(3):
            assert eagleray.get(use.remote()) == 200_000.0

    def test_default_argument_and_class_attribute(self) -> None:
        ref = eagleray.put(5)

        @eagleray.remote
        class Holder:
            kept = ref

            def read(self, default: ObjectRef = ref) -> Any:
                return eagleray.get([self.kept, default])

        assert eagleray.get(Holder.remote().read.remote()) == [5, 5]

    def test_result_is_the_only_holder(self) -> None:
        @eagleray.remote
        def make() -> Any:
            return {"ref": eagleray.put(np.full(200_000, 9)), "task": echo.remote("from inside")}

        made = eagleray.get(make.remote())
        assert eagleray.get(made["ref"])[0] == 9
        assert eagleray.get(made["task"]) == "from inside"

    def test_result_in_a_result_in_a_result(self) -> None:
        @eagleray.remote
        def nest(depth: int) -> Any:
            return [eagleray.put(depth) if depth == 0 else nest.remote(depth - 1)]

        ref = nest.remote(4)
        for _ in range(5):
            (ref,) = eagleray.get(ref)
        assert eagleray.get(ref) == 0

    def test_state_of_an_actor(self) -> None:
        shelf = Shelf.remote()
        ref = eagleray.put(np.full(200_000, 4))
        eagleray.get(shelf.put.remote("array", [ref]))
        del ref
        for _ in range(5):
            eagleray.put(np.zeros(200_000))
        (ref,) = eagleray.get(shelf.take.remote("array"))
        assert eagleray.get(ref)[0] == 4

    def test_argument_is_dropped_at_once(self) -> None:
        sums = [
            eagleray.remote(lambda refs: float(eagleray.get(refs[0]).sum())).remote([eagleray.put(np.ones(200_000))])
            for _ in range(10)
        ]
        assert eagleray.get(sums) == [200_000.0] * 10

    def test_pickled_by_the_user(self) -> None:
        ref = eagleray.put("kept")
        text = pickle.dumps([ref])
        again = pickle.loads(text)[0]
        assert again == ref
        assert eagleray.get(again) == "kept"
        there = eagleray.remote(lambda data: eagleray.get(pickle.loads(data)[0]))
        assert eagleray.get(there.remote(text)) == "kept"


class TestRef:
    def test_hash_equality_and_text(self) -> None:
        one, two = eagleray.put(1), eagleray.put(1)
        assert one != two
        assert one != "text"
        assert len({one, two, copy.copy(one), copy.deepcopy(two)}) == 2
        assert one.hex() in repr(one)
        assert one.hex() != two.hex()
        assert bytes.fromhex(one.hex())

    def test_is_the_same_after_a_journey(self) -> None:
        ref = eagleray.put(1)
        (back,) = eagleray.get(echo.remote([ref]))
        assert back == ref
        assert hash(back) == hash(ref)
        assert back.hex() == ref.hex()
        assert eagleray.get(eagleray.remote(lambda refs: refs[0].hex()).remote([ref])) == ref.hex()

    def test_future(self, tmp_path: Path) -> None:
        pending = until_exists.remote(str(tmp_path / "go"))
        future = pending.future()
        assert isinstance(future, Future)
        assert not future.done()
        (tmp_path / "go").touch()
        assert future.result() == str(tmp_path / "go")
        assert eagleray.put(4).future().result() == 4
        assert isinstance(fail.remote(KeyError, "k").future().exception(), KeyError)

    def test_future_in_the_next_session(self, fresh: None) -> None:
        for number in range(2):
            eagleray.init(num_cpus=1)
            assert eagleray.put(number).future().result() == number
            eagleray.shutdown()

    def test_future_calls_back(self) -> None:
        called: list[int] = []
        done = threading.Event()
        future = add.remote(1, 2).future()
        future.add_done_callback(lambda future: (called.append(future.result()), done.set()))
        done.wait()
        assert called == [3]

    def test_await(self) -> None:
        async def main() -> Any:
            first = await add.remote(1, 2)
            rest = await asyncio.gather(*[add.remote(i, i) for i in range(20)])
            try:
                await fail.remote(ValueError, "bad")
            except ValueError as error:
                return first, sum(rest), "bad" in str(error)

        assert asyncio.run(main()) == (3, 380, True)

    def test_await_leaves_the_loop_free(self, tmp_path: Path) -> None:
        async def main() -> str:
            pending = until_exists.remote(str(tmp_path / "go"))
            waiting = asyncio.ensure_future(asyncio.wrap_future(pending.future()))
            await asyncio.sleep(0)
            (tmp_path / "go").touch()
            return str(await waiting)

        assert asyncio.run(main()) == str(tmp_path / "go")

    def test_asyncio_wait_for(self, pending: ObjectRef) -> None:
        async def main() -> None:
            await asyncio.wait_for(asyncio.wrap_future(pending.future()), 0.05)

        with pytest.raises(TimeoutError):
            asyncio.run(main())

    def test_no_truth_about_the_value(self) -> None:
        assert eagleray.put(0)
        with pytest.raises(TypeError):
            iter(eagleray.put([1]))  # type: ignore[call-overload]


def test_ten_thousand_refs_as_arguments() -> None:
    refs = [eagleray.put(i) for i in range(10_000)]
    assert eagleray.get(eagleray.remote(lambda *items: sum(items)).remote(*refs)) == sum(range(10_000))


def test_a_counter_is_not_the_ref_of_its_results() -> None:
    counter = Counter.remote()
    first, second = counter.add.remote(), counter.add.remote()
    assert first != second
    assert eagleray.get([second, first]) == [2, 1]
    assert ready(first)
