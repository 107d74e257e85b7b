"""Random graphs: the pool, with whatever hooks and wherever results are kept, gives what Dask's own scheduler gives."""

import os
from collections.abc import Iterator
from typing import Any

import dask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eagleray
from eagleray import _engine
from eagleray.dask import RayDaskCallback, ray_dask_get, ray_dask_get_sync
from tests.conftest import until
from tests.random_graphs import Drawn, exact, graphs, shaped

EXAMPLES = int(os.environ.get("EAGLERAY_EXAMPLES", "40"))
"""Per test. Above the default they are new ones at each run."""

checked = settings(
    max_examples=EXAMPLES,
    derandomize="EAGLERAY_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(
    scope="module",
    params=[(1, "auto"), (2, "auto"), (3, "auto"), (2, "resident"), (2, "sealed")],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def pool(request: pytest.FixtureRequest) -> Iterator[None]:
    """Some workers, and where they keep results."""
    eagleray.shutdown()
    slots, results = request.param
    _engine.start(slots, results=results)
    yield
    eagleray.shutdown()


def wanted(drawn: Drawn) -> Any:
    """The answer, in Dask-on-Ray's containers."""
    values = dask.get(drawn.oracle, drawn.request)
    return shaped(values, drawn.request, lambda key: key in drawn.computed)


def agree(found: Any, expected: Any) -> None:
    assert exact(found) == exact(expected)


class Watched(RayDaskCallback):
    """Hooks in workers: what one returns the other must get."""

    def _ray_pretask(self, key: Any, object_refs: Any) -> Any:
        return ("before", key, len(object_refs))

    def _ray_posttask(self, key: Any, result: Any, pre_state: Any) -> None:
        assert pre_state[:2] == ("before", key)


@given(graphs(eagleray.put))
@checked
def test_values(pool: None, drawn: Drawn) -> None:
    agree(ray_dask_get(drawn.graph, drawn.request), wanted(drawn))


@given(graphs(eagleray.put))
@checked
def test_with_hooks_in_workers(pool: None, drawn: Drawn) -> None:
    with Watched():
        found = ray_dask_get(drawn.graph, drawn.request)
    agree(found, wanted(drawn))


@given(graphs(eagleray.put), st.data())
@checked
def test_step_by_step_with_some_answers_known(pool: None, drawn: Drawn, data: st.DataObject) -> None:
    """What presubmit answers stands for what the task would have made."""
    candidates = [key for key in drawn.keys if key in drawn.computed]
    chosen = set(data.draw(st.lists(st.sampled_from(candidates), max_size=3))) if candidates else set()
    answers = {key: ("answer", place) for place, key in enumerate(sorted(chosen, key=repr))}
    as_refs = data.draw(st.booleans())
    calls: list[Any] = []

    def presubmit(task: Any, key: Any, deps: Any) -> Any:
        calls.append(key)
        answer = answers.get(key)
        return eagleray.put(answer) if answer is not None and as_refs else answer

    with RayDaskCallback(ray_presubmit=presubmit, ray_postsubmit=lambda *_: None):
        found = ray_dask_get(drawn.graph, drawn.request)
    oracle = dict(drawn.oracle)
    for key, answer in answers.items():
        oracle[key] = dask._task_spec.DataNode(key, answer)
    values = dask.get(oracle, drawn.request)
    assert len(calls) == len(set(calls))
    assert exact(_tuples(found)) == exact(_tuples(values))


def _tuples(values: Any) -> Any:
    """Which container it is depends on what presubmit was asked for; that has tests of its own."""
    return tuple(values) if isinstance(values, list) else values


@given(graphs(eagleray.put))
@checked
def test_refs_of_results(pool: None, drawn: Drawn) -> None:
    """Persisted results, read by another graph."""
    keys = [key for key in drawn.keys if key in drawn.computed][:4]
    refs = ray_dask_get(drawn.graph, keys, ray_persist=True)
    again = {f"again {place}": (list, [ref]) for place, ref in enumerate(refs)}
    found = ray_dask_get(again, list(again))
    agree([value for (value,) in found], list(dask.get(drawn.oracle, keys)))


@pytest.mark.parametrize("hooks", [False, True], ids=["plain", "hooks"])
@given(drawn=graphs(lambda value: value))
@checked
def test_in_the_driver(hooks: bool, drawn: Drawn) -> None:
    """One task at a time, without a pool."""
    if hooks:
        with Watched():
            found = ray_dask_get_sync(drawn.graph, drawn.request)
    else:
        found = ray_dask_get_sync(drawn.graph, drawn.request)
    agree(found, wanted(drawn))


@given(graphs(eagleray.put))
@checked
def test_in_the_driver_with_refs(pool: None, drawn: Drawn) -> None:
    agree(ray_dask_get_sync(drawn.graph, drawn.request), wanted(drawn))


def test_nothing_is_kept(pool: None) -> None:
    """After all these graphs. Refs of the last examples are in hypothesis's hands until it is done."""
    import gc

    gc.collect()
    until(lambda: _engine.native.counters()["objects"] == 0)
