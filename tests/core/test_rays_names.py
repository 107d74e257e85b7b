"""What programs for Ray import, annotate with, and pass by name."""

import subprocess
import sys
from types import GenericAlias
from typing import Any

import pytest

import eagleray
import eagleray.cloudpickle
from eagleray.actor import ActorHandle
from eagleray.runtime_env import RuntimeEnv
from eagleray.util import as_completed, map_unordered
from eagleray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.core.remotes import Counter, add, echo, fail


@pytest.mark.usefixtures("fresh")
class TestInit:
    def test_gives_what_is_known_of_the_session(self) -> None:
        context = eagleray.init(num_cpus=1, namespace="mine")
        assert context.address_info["node_id"] == eagleray.get_runtime_context().get_node_id()
        assert context["namespace"] == "mine"
        assert dict(context) == context.address_info
        assert context.dashboard_url == ""
        assert "mine" in repr(context)
        assert eagleray.init(ignore_reinit_error=True) == context

    def test_ends_with_a_block(self) -> None:
        with eagleray.init(num_cpus=1) as context:
            assert eagleray.get(echo.remote(1)) == 1
            assert context["node_ip_address"] == "127.0.0.1"
        assert not eagleray.is_initialized()

    def test_ends_by_disconnect(self) -> None:
        eagleray.init(num_cpus=1).disconnect()
        assert not eagleray.is_initialized()

    @pytest.mark.parametrize("address", ["auto", "local"])
    def test_takes_an_address_first(self, address: str) -> None:
        assert eagleray.init(address, num_cpus=1)["node_id"]

    def test_what_comes_first_is_no_number(self) -> None:
        with pytest.raises(TypeError, match="address must be a str or None, not int"):
            eagleray.init(2)  # type: ignore[arg-type]

    def test_kill_after_the_end(self) -> None:
        eagleray.init(num_cpus=1)
        actor = Counter.remote()
        eagleray.shutdown()
        with pytest.raises(eagleray.exceptions.ObjectLostError, match="has ended"):
            eagleray.kill(actor)


@pytest.mark.usefixtures("shared")
class TestNames:
    def test_of_arguments(self) -> None:
        ref = echo.remote(3)
        assert eagleray.get(object_refs=ref) == 3
        assert eagleray.wait(ray_waitables=[ref]) == ([ref], [])
        eagleray.cancel(ray_waitable=ref)

    @pytest.mark.parametrize("kind", [eagleray.ObjectRef, eagleray.ObjectRefGenerator, ActorHandle])
    def test_of_a_kind(self, kind: Any) -> None:
        alias = kind[int]
        assert isinstance(alias, GenericAlias)
        assert alias.__origin__ is kind

    def test_remote_with_annotations(self) -> None:
        @eagleray.remote
        def annotated(x: "eagleray.ObjectRef", y: eagleray.ObjectRef[int] | int = 2) -> list[eagleray.ObjectRef[int]]:  # type: ignore[type-arg]
            return [x, y]  # type: ignore[list-item]

        assert eagleray.get(annotated.remote(1)) == [1, 2]

    def test_cloudpickle(self) -> None:
        ref = eagleray.put([1])
        assert eagleray.get(eagleray.cloudpickle.loads(eagleray.cloudpickle.dumps(ref))) == [1]
        assert eagleray.cloudpickle.loads(eagleray.cloudpickle.dumps(lambda: 5))() == 5

    def test_cloudpickle_is_an_attribute(self) -> None:
        code = "import eagleray, sys; print('cloudpickle' in sys.modules, eagleray.cloudpickle.loads(b'K\\x05.'))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "False 5\n"

    def test_no_other_attribute(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'no_such'"):
            eagleray.no_such  # noqa: B018

    def test_a_dynamic_generator(self) -> None:
        @eagleray.remote(num_returns="dynamic")
        def two() -> Any:
            yield 1
            yield 2

        found = eagleray.get(two.remote())
        assert isinstance(found, eagleray.DynamicObjectRefGenerator)
        assert eagleray.get(list(found)) == [1, 2]

    def test_a_runtime_env(self) -> None:
        @eagleray.remote(runtime_env=RuntimeEnv(env_vars={"EAGLERAY_TEST": "there"}, working_dir=None))
        def variable() -> str | None:
            import os

            return os.environ.get("EAGLERAY_TEST")

        assert eagleray.get(variable.remote()) == "there"
        with pytest.raises(ValueError, match="cannot have 'pip'"):
            RuntimeEnv(pip=["requests"])

    def test_a_node_by_the_id_of_the_context(self) -> None:
        strategy = NodeAffinitySchedulingStrategy(eagleray.get_runtime_context().node_id, soft=False)
        assert strategy.node_id == eagleray.get_runtime_context().get_node_id()
        assert eagleray.get(echo.options(scheduling_strategy=strategy).remote(1)) == 1

    @pytest.mark.parametrize(
        "name",
        ["NodeDiedError", "LocalRayletDiedError", "ObjectFetchTimedOutError", "ReferenceCountingAssertionError"],
    )
    def test_of_errors(self, name: str) -> None:
        assert issubclass(getattr(eagleray.exceptions, name), eagleray.exceptions.RayError)

    def test_options_without_effect(self) -> None:
        with pytest.warns(UserWarning, match="have no effect in eagleray: enable_task_events"):

            @eagleray.remote
            class Quiet:
                @eagleray.method(enable_task_events=False)
                def answer(self) -> int:
                    return 42

        assert eagleray.get(Quiet.remote().answer.remote()) == 42
        with pytest.warns(UserWarning, match="allow_out_of_order_execution"):
            counter = Counter.options(allow_out_of_order_execution=True).remote()
        assert eagleray.get(counter.add.remote()) == 1


@pytest.mark.usefixtures("shared")
class TestCompletion:
    def test_values(self) -> None:
        refs = [add.remote(i, 1) for i in range(25)]
        assert sorted(as_completed(refs)) == list(range(1, 26))
        assert sorted(as_completed(refs, chunk_size=4)) == list(range(1, 26))
        assert set(as_completed(refs, yield_obj_refs=True)) == set(refs)
        assert list(as_completed([])) == []

    def test_map(self) -> None:
        assert sorted(map_unordered(echo, range(30))) == list(range(30))
        assert sorted(map_unordered(echo, iter(range(30)), backpressure_size=3, chunk_size=2)) == list(range(30))
        assert sorted(map_unordered(echo, range(5), backpressure_size=None)) == list(range(5))

    def test_map_is_not_far_ahead(self) -> None:
        taken: list[int] = []
        results = map_unordered(echo, (taken.append(i) or i for i in range(100)), backpressure_size=5, chunk_size=1)  # type: ignore[func-returns-value]
        next(results)
        assert len(taken) <= 6

    def test_errors(self) -> None:
        with pytest.raises(LookupError):
            list(as_completed([echo.remote(1), fail.remote(LookupError)]))
        with pytest.raises(ValueError, match="chunk_size must be at least 1"):
            as_completed([], chunk_size=0)
        with pytest.raises(ValueError, match="backpressure_size must be at least 1"):
            map_unordered(echo, [], backpressure_size=0)
        with pytest.raises(TypeError, match="takes a remote function, not builtin_function_or_method"):
            map_unordered(len, [])  # type: ignore[arg-type]


@pytest.mark.usefixtures("shared")
class TestSpecialMethods:
    def test_of_containers(self) -> None:
        @eagleray.remote
        class Table:
            def __init__(self) -> None:
                self.rows = {1: "one"}

            def __len__(self) -> int:
                return len(self.rows)

            def __getitem__(self, key: int) -> str:
                return self.rows[key]

            def __setitem__(self, key: int, value: str) -> None:
                self.rows[key] = value

            def __enter__(self) -> str:
                return "entered"

        actor = Table.remote()
        actor.__setitem__.remote(2, "two")
        calls = [actor.__len__.remote(), actor.__getitem__.remote(2), actor.__enter__.remote()]
        assert eagleray.get(calls) == [2, "two", "entered"]
        with pytest.raises(KeyError):
            eagleray.get(actor.__getitem__.remote(3))

    def test_a_handle_stays_what_it_is(self) -> None:
        import copy

        @eagleray.remote
        class Odd:
            def __deepcopy__(self, memo: object) -> None:
                """Of the instance."""

            def __reduce__(self) -> str:
                return "Odd"

            def __hash__(self) -> int:
                return 0

            def __eq__(self, other: object) -> bool:
                return False

        actor = Odd.remote()
        assert copy.deepcopy(actor) == actor
        assert eagleray.get(echo.remote([actor])) == [actor]
