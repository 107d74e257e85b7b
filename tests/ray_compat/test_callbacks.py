"""What Ray's tests of its Dask callbacks exercise: each hook, told to an actor, alone and with others."""

from collections.abc import Hashable
from typing import Any

import dask
import pytest

import eagleray
from eagleray.dask import RayDaskCallback, ray_dask_get


@dask.delayed
def plus(x: int, y: int) -> int:
    return x + y


@eagleray.remote
class Witness:
    """Counts what it is told, and keeps the last of it."""

    def __init__(self) -> None:
        self.count = 0
        self.last: Any = None

    def tell(self, *what: Any) -> None:
        self.count += 1
        self.last = what

    def told(self) -> tuple[int, Any]:
        return self.count, self.last


def compute() -> Any:
    return plus(2, 3).compute(scheduler=ray_dask_get)


def test_active_inside_its_block_only() -> None:
    assert not RayDaskCallback.ray_active
    with RayDaskCallback():
        assert RayDaskCallback.ray_active
    assert not RayDaskCallback.ray_active


@pytest.mark.usefixtures("two_cpus")
class TestHooks:
    def test_presubmit_answers(self) -> None:
        class Answers(RayDaskCallback):
            def _ray_presubmit(self, task: Any, key: Hashable, deps: Any) -> int:
                return 0

            def _ray_postsubmit(self, task: Any, key: Hashable, deps: Any, object_ref: Any) -> None:
                pytest.fail("a task that presubmit answers for is not submitted")

        with Answers():
            assert compute() == 0

    def test_pretask_gives_posttask_its_state(self) -> None:
        class Keys(RayDaskCallback):
            def _ray_pretask(self, key: Hashable, object_refs: Any) -> Hashable:
                return key

            def _ray_posttask(self, key: Hashable, result: Any, pre_state: Hashable) -> None:
                assert pre_state == key

        with Keys():
            assert compute() == 5

    def test_postsubmit_tells_an_actor(self) -> None:
        class Tells(RayDaskCallback):
            def __init__(self, witness: Any) -> None:
                self.witness = witness

            def _ray_postsubmit(self, task: Any, key: Hashable, deps: Any, object_ref: Any) -> None:
                self.witness.tell.remote(task, key, deps, object_ref)

        witness = Witness.remote()
        with Tells(witness):
            assert compute() == 5
        count, (_, key, deps, value) = eagleray.get(witness.told.remote())
        assert count == 1
        assert isinstance(key, str)
        assert deps == {}
        assert value == 5  # a ref at the top of the arguments, so the actor had its value

    def test_postsubmit_all_tells_an_actor(self) -> None:
        class Tells(RayDaskCallback):
            def __init__(self, witness: Any) -> None:
                self.witness = witness

            def _ray_postsubmit_all(self, object_refs: Any, dsk: Any) -> None:
                self.witness.tell.remote(object_refs, dsk)

        witness = Witness.remote()
        with Tells(witness):
            assert compute() == 5
        count, (_, dsk) = eagleray.get(witness.told.remote())
        assert count == 1
        assert len(dsk) == 1

    def test_finish_tells_an_actor(self) -> None:
        class Tells(RayDaskCallback):
            def __init__(self, witness: Any) -> None:
                self.witness = witness

            def _ray_finish(self, result: Any) -> None:
                self.witness.tell.remote(result)

        witness = Witness.remote()
        with Tells(witness):
            assert compute() == 5
        count, (result,) = eagleray.get(witness.told.remote())
        assert count == 1
        # As nested as the keys that Dask asks for, which depends on its version.
        while isinstance(result, list | tuple):
            (result,) = result
        assert result == 5

    def test_worker_hooks_tell_an_actor(self) -> None:
        class Tells(RayDaskCallback):
            def __init__(self, witness: Any) -> None:
                self.witness = witness

            def _ray_posttask(self, key: Hashable, result: Any, pre_state: Any) -> None:
                self.witness.tell.remote(key, result)

        witness = Witness.remote()
        with Tells(witness):
            assert compute() == 5
        count, (_, result) = eagleray.get(witness.told.remote())
        assert (count, result) == (1, 5)

    def test_several_that_tell_one_actor(self) -> None:
        class Tells(RayDaskCallback):
            def __init__(self, witness: Any) -> None:
                self.witness = witness

            def _ray_postsubmit(self, task: Any, key: Hashable, deps: Any, object_ref: Any) -> None:
                self.witness.tell.remote(key)

        witness = Witness.remote()
        with Tells(witness), Tells(witness), Tells(witness):
            assert compute() == 5
        assert eagleray.get(witness.told.remote())[0] == 3

    def test_several_have_a_state_each(self) -> None:
        class Both(RayDaskCallback):
            def __init__(self, ending: str) -> None:
                self.ending = ending

            def _ray_pretask(self, key: Any, object_refs: Any) -> str:
                return str(key) + self.ending

            def _ray_posttask(self, key: Any, result: Any, pre_state: str) -> None:
                assert pre_state == str(key) + self.ending

        class OnlyBefore(RayDaskCallback):
            def _ray_pretask(self, key: Any, object_refs: Any) -> str:
                return "for nobody"

        class OnlyAfter(RayDaskCallback):
            def _ray_posttask(self, key: Any, result: Any, pre_state: None) -> None:
                assert pre_state is None

        with Both(" and one"), OnlyBefore(), OnlyAfter(), Both(" and two"):
            assert compute() == 5

    def test_a_hook_that_asserts_in_a_worker_fails_the_compute(self) -> None:
        """Without this the other tests of worker hooks would hold whatever the hooks saw."""

        class Fails(RayDaskCallback):
            def _ray_posttask(self, key: Any, result: Any, pre_state: None) -> None:
                assert result == 6, "it is not six"

        with Fails(), pytest.raises(AssertionError, match="not six"):
            compute()
