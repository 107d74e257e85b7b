"""Actors with names, in namespaces, and detached ones."""

import pytest

import eagleray
from eagleray import exceptions
from eagleray.exceptions import ActorDiedError
from eagleray.util import list_named_actors
from tests.conftest import alive, until
from tests.core.remotes import Counter, echo

pytestmark = pytest.mark.usefixtures("session")


class TestNames:
    def test_get_actor(self) -> None:
        counter = Counter.options(name="the counter").remote(3)
        same = eagleray.get_actor("the counter")
        assert same == counter
        assert eagleray.get(same.add.remote()) == 4
        find = eagleray.remote(lambda: eagleray.get(eagleray.get_actor("the counter").add.remote()))
        assert eagleray.get(find.remote()) == 5

    def test_at_once(self) -> None:
        """The name is known when `remote` has returned."""
        for i in range(10):
            kept = Counter.options(name=f"at-once-{i}", num_cpus=0).remote()
            assert eagleray.get_actor(f"at-once-{i}") == kept

    def test_found_handle_has_the_methods(self) -> None:
        @eagleray.remote
        class Pair:
            @eagleray.method(num_returns=2)
            def two(self) -> tuple[int, int]:
                return 1, 2

        kept = Pair.options(name="pair").remote()
        assert eagleray.get(eagleray.get_actor("pair").two.remote()) == [1, 2]
        with pytest.raises(AttributeError, match="three"):
            eagleray.get_actor("pair").three  # noqa: B018
        del kept

    def test_is_free_again(self) -> None:
        counter = Counter.options(name="again").remote(1)
        eagleray.get(counter.read.remote())
        del counter

        def gone() -> bool:
            try:
                eagleray.get_actor("again")
            except ValueError:
                return True
            return False

        until(gone)
        other = Counter.options(name="again").remote(2)
        assert eagleray.get_actor("again") == other
        assert eagleray.get(eagleray.get_actor("again").read.remote()) == 2

    def test_is_free_after_kill(self) -> None:
        counter = Counter.options(name="killed").remote()
        eagleray.get(counter.read.remote())
        eagleray.kill(counter)
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.read.remote())
        other = Counter.options(name="killed").remote(5)
        assert eagleray.get(eagleray.get_actor("killed").read.remote()) == 5
        assert other != counter

    def test_taken(self) -> None:
        counter = Counter.options(name="taken").remote(1)
        with pytest.raises(ValueError, match="taken") as caught:
            Counter.options(name="taken").remote(2)
        assert isinstance(caught.value, exceptions.ActorAlreadyExistsError)
        assert eagleray.get(counter.read.remote()) == 1

    def test_get_if_exists(self) -> None:
        first = Counter.options(name="one", get_if_exists=True).remote(1)
        second = Counter.options(name="one", get_if_exists=True).remote(2)
        assert first == second
        assert eagleray.get(second.read.remote()) == 1

    def test_get_if_exists_of_many_at_once(self) -> None:
        @eagleray.remote
        def join(name: str) -> int:
            counter = Counter.options(name=name, get_if_exists=True, lifetime="detached").remote()
            return eagleray.get(counter.add.remote())

        assert sorted(eagleray.get([join.remote("crowd") for _ in range(8)])) == list(range(1, 9))
        eagleray.kill(eagleray.get_actor("crowd"))

    def test_namespaces(self) -> None:
        here = Counter.options(name="n").remote(1)
        there = Counter.options(name="n", namespace="other").remote(2)
        assert eagleray.get(eagleray.get_actor("n").read.remote()) == 1
        assert eagleray.get(eagleray.get_actor("n", namespace="other").read.remote()) == 2
        assert here != there
        with pytest.raises(ValueError, match="n"):
            eagleray.get_actor("n", namespace="third")

    def test_list(self) -> None:
        assert list_named_actors() == []
        kept = [Counter.options(name=name, num_cpus=0).remote() for name in ("b", "a")]
        kept.append(Counter.options(name="c", namespace="other", num_cpus=0).remote())
        kept.append(Counter.options(num_cpus=0).remote())
        here = eagleray.get_runtime_context().namespace
        assert list_named_actors() == ["a", "b"]
        everywhere = [{"name": "a", "namespace": here}, {"name": "b", "namespace": here}]
        other = {"name": "c", "namespace": "other"}
        assert sorted(list_named_actors(all_namespaces=True), key=lambda row: row["name"]) == [*everywhere, other]
        assert eagleray.get(eagleray.remote(list_named_actors).remote()) == ["a", "b"]
        eagleray.kill(kept[0])
        until(lambda: list_named_actors() == ["a"])
        with pytest.raises(TypeError, match="all_namespaces must be True or False, not str"):
            list_named_actors("other")  # type: ignore[call-overload]

    def test_tasks_have_the_drivers_namespace(self) -> None:
        namespace = eagleray.remote(lambda: eagleray.get_runtime_context().namespace)
        assert eagleray.get(namespace.remote()) == eagleray.get_runtime_context().namespace

    def test_detached_outlives_its_handles(self) -> None:
        counter = Counter.options(name="detached", lifetime="detached").remote(1)
        process = eagleray.get(counter.pid.remote())
        del counter
        for _ in range(20):
            eagleray.get(echo.remote(1))
        counter = eagleray.get_actor("detached")
        assert eagleray.get(counter.add.remote()) == 2
        assert eagleray.get(counter.pid.remote()) == process
        eagleray.kill(counter)
        until(lambda: not alive(process))
        with pytest.raises(ValueError, match="detached"):
            eagleray.get_actor("detached")

    def test_detached_outlives_the_actor_that_made_it(self) -> None:
        def make() -> None:
            Counter.options(name="orphan", lifetime="detached").remote(5)

        maker = Counter.remote()
        eagleray.get(maker.call.remote(make))
        process = eagleray.get(maker.pid.remote())
        eagleray.kill(maker)
        until(lambda: not alive(process))
        assert eagleray.get(eagleray.get_actor("orphan").read.remote()) == 5


def test_namespace_of_the_session() -> None:
    eagleray.shutdown()
    eagleray.init(num_cpus=2, namespace="ours")
    assert eagleray.get_runtime_context().namespace == "ours"
    kept = Counter.options(name="n").remote(1)
    assert eagleray.get_actor("n", namespace="ours") == kept
    find = eagleray.remote(lambda: eagleray.get(eagleray.get_actor("n").read.remote()))
    assert eagleray.get(find.remote()) == 1
