"""The runtime context: where a task runs and what it is."""

from typing import Any

import pytest

import eagleray
from eagleray.dask import ray_dask_get
from eagleray.util.state import list_actors, list_tasks
from tests.core.remotes import Counter

pytestmark = pytest.mark.usefixtures("shared")


class TestContext:
    def test_ids(self) -> None:
        @eagleray.remote
        def ids() -> tuple[Any, ...]:
            context = eagleray.get_runtime_context()
            return context.get_node_id(), context.get_task_id(), context.get_actor_id(), context.get_job_id()

        first, second = eagleray.get([ids.remote(), ids.remote()])
        here = eagleray.get_runtime_context()
        assert first[0] == second[0] == here.get_node_id() == here.node_id.hex()
        assert first[1] != second[1]
        assert first[2] is None
        assert first[3] == here.get_job_id()
        assert here.get_task_id() is None

    def test_name_of_the_task(self) -> None:
        def named() -> Any:
            return eagleray.get_runtime_context().get_task_name()

        task = eagleray.remote(named)
        assert eagleray.get(task.options(name="mine").remote()) == "mine"
        assert eagleray.get(task.remote()) == "named"
        assert eagleray.get(Counter.remote().call.remote(named)) == "Sum.call"
        assert eagleray.get(Counter.options(max_concurrency=2).remote().call.remote(named)) == "Sum.call"
        assert ray_dask_get({("x-123", 0): (named,)}, ("x-123", 0)) == "x"
        assert named() is None

    def test_name_of_what_is_made_in_a_function(self) -> None:
        """Programs for Ray filter listings by it."""

        @eagleray.remote
        class Local:
            def named(self) -> Any:
                return eagleray.get_runtime_context().get_task_name()

        actor = Local.remote()
        ref = actor.named.remote()
        assert eagleray.get(ref) == "Local.named"
        assert [row.task_id for row in list_tasks(filters=[("name", "=", "Local.named")])] == [ref.hex()]
        assert [row.class_name for row in list_actors(filters=[("actor_id", "=", actor._actor_id.hex())])] == ["Local"]

    def test_of_an_actor(self) -> None:
        actor = Counter.remote()
        ids = [
            actor.call.remote(lambda: eagleray.get_runtime_context().get_actor_id()),
            actor.call.remote(lambda: eagleray.get_runtime_context().get_actor_id()),
        ]
        first, second = eagleray.get(ids)
        assert first == second
        assert isinstance(first, str)

    def test_name_of_an_actor(self) -> None:
        def named() -> Any:
            return eagleray.get_runtime_context().get_actor_name()

        assert eagleray.get(Counter.options(name="mine").remote().call.remote(named)) == "mine"
        assert eagleray.get(Counter.remote().call.remote(named)) == ""
        assert eagleray.get(eagleray.remote(named).remote()) is None
        assert named() is None

    def test_the_id_of_a_handle(self) -> None:
        """It is how programs for Ray find an actor in the listings."""
        actor = Counter.remote()
        own = actor.call.remote(lambda: eagleray.get_runtime_context().get_actor_id())
        assert actor._actor_id.hex() == eagleray.get(own)

    def test_current_actor(self) -> None:
        @eagleray.remote
        class Self:
            def handle(self) -> Any:
                return eagleray.get_runtime_context().current_actor

            def answer(self) -> int:
                return 42

        actor = Self.remote()
        assert eagleray.get(eagleray.get(actor.handle.remote()).answer.remote()) == 42
