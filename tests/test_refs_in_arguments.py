"""Object refs in a graph stand for their values, wherever in the arguments they are."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import dask
import pytest
from dask._task_spec import DataNode, Task, TaskRef

import eagleray
from eagleray.dask import ray_dask_get, ray_dask_get_sync

pytestmark = pytest.mark.usefixtures("shared")


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    value: Any
    derived: int = dataclasses.field(init=False, default=7)


@dataclasses.dataclass
class Empty:
    pass


def same(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@pytest.fixture(params=[ray_dask_get, ray_dask_get_sync], ids=["pool", "sync"])
def get(request: pytest.FixtureRequest) -> Any:
    return request.param


PLACES: list[Callable[[Any], Any]] = [
    lambda x: x,
    lambda x: [x, 1],
    lambda x: (x, [x]),
    lambda x: {x},
    lambda x: frozenset([x, 1]),
    lambda x: {"k": x, "l": [{"m": (x,)}]},
    lambda x: Point(x, [x]),
    lambda x: Settings("name", x),
    lambda x: [Settings("name", {"inner": Settings("inner", x)})],
    lambda x: Point(Settings("a", 1), Empty()),
]


@pytest.mark.parametrize("place", PLACES)
def test_arguments_and_keywords(get: Any, place: Callable[[Any], Any]) -> None:
    argument, expected = place(eagleray.put(5)), place(5)
    task = Task("a", same, argument, TaskRef("b"), k=argument)
    assert get({"a": task, "b": Task("b", same)}, "a") == ((expected, ((), {})), {"k": expected})
    assert dask.delayed(same)(argument, k=argument).compute(scheduler=get) == ((expected,), {"k": expected})


@pytest.mark.parametrize("place", PLACES)
def test_legacy_tasks(get: Any, place: Callable[[Any], Any]) -> None:
    assert get({"a": (same, place(eagleray.put(5)))}, "a") == ((place(5),), {})


@pytest.mark.parametrize("place", PLACES)
def test_values_of_the_graph(get: Any, place: Callable[[Any], Any]) -> None:
    value = place(eagleray.put(5))
    graph = {"a": DataNode("a", value), "b": value, "c": Task("c", same, TaskRef("a"), TaskRef("b"))}
    assert list(get(graph, ["a", "b", "c"])) == [place(5), place(5), ((place(5), place(5)), {})]


def test_refs_that_tasks_return_stay_refs(get: Any) -> None:
    ref = eagleray.put(5)
    assert get({"a": (same, [[]]), "b": (eagleray.put, 5)}, "a") == (([[]],), {})
    returned = get({"b": (eagleray.put, 5)}, "b")
    assert isinstance(returned, eagleray.ObjectRef)
    assert eagleray.get([ref, returned]) == [5, 5]
