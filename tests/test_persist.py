"""Collections that hold refs in the place of results."""

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.callbacks import Callback

import eagleray as er
from eagleray import ObjectRef, _engine
from eagleray.dask import RayDaskCallback, enable_dask_on_ray, ray_dask_get, ray_dask_get_sync, ray_dask_persist
from tests import tasks
from tests.conftest import until

pytestmark = pytest.mark.usefixtures("shared", "_nothing_left")


@pytest.fixture(scope="module")
def _nothing_left() -> Iterator[None]:
    """No refs that other schedulers must be kept from, not even in the tracebacks of errors."""
    yield
    gc.collect()
    assert not Callback.active


def frame(partitions: int = 3) -> Any:
    data = pd.DataFrame({"a": np.arange(30) % 4, "b": np.arange(30.0), "c": [f"s{i % 7}" for i in range(30)]})
    return dd.from_pandas(data, npartitions=partitions).assign(d=lambda f: f.b * 2)


def collections() -> dict[str, Any]:
    return {
        "array": da.ones(10, chunks=5) + 2,
        "bag": db.from_sequence(range(10), npartitions=3).map(tasks.inc),
        "dataframe": frame(),
        "delayed": dask.delayed(tasks.inc)(1),
    }


def objects() -> int:
    return _engine.native.counters()["objects"]


def gated(path: Path, value: Any) -> Any:
    """A task that ends when the file is there."""
    until(path.exists)
    return value


def same(left: Any, right: Any) -> bool:
    if isinstance(left, pd.DataFrame | pd.Series):
        return bool(left.sort_index().equals(right.sort_index()))
    return bool(np.all(left == right))


@pytest.mark.parametrize("kind", ["array", "bag", "dataframe", "delayed"])
@pytest.mark.parametrize(
    "persist",
    [
        lambda x: x.persist(scheduler=ray_dask_get),
        lambda x: x.persist(scheduler="eagleray"),
        lambda x: x.persist(scheduler=ray_dask_get, optimize_graph=False),
        lambda x: dask.persist(x, scheduler=ray_dask_get)[0],
        lambda x: ray_dask_persist(x)[0],
    ],
    ids=["method", "name", "unoptimized", "function", "ray_dask_persist"],
)
def test_a_collection_holds_refs(kind: str, persist: Callable[[Any], Any]) -> None:
    x = collections()[kind]
    p = persist(x)
    assert type(p) is type(x)
    assert isinstance(next(iter(p.dask.values())), ObjectRef)
    assert same(p.compute(scheduler=ray_dask_get), x.compute(scheduler="sync"))


def test_persist_returns_at_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    p = dask.delayed(gated)(gate, 5).persist(scheduler=ray_dask_get)
    q = (p + 1).persist(scheduler=ray_dask_get)  # of what is not there yet
    gate.touch()
    assert (q * 2).compute(scheduler=ray_dask_get) == 12


def test_persist_while_enabled() -> None:
    with enable_dask_on_ray():
        p = (da.ones(10, chunks=5) + 2).persist()
        assert isinstance(next(iter(p.dask.values())), ObjectRef)
        assert p.sum().compute() == 30


def test_what_is_persisted_is_computed_once(tmp_path: Path) -> None:
    path = tmp_path / "ran"
    p = dask.delayed(tasks.touch)(str(path)).persist(scheduler=ray_dask_get)
    for _ in range(3):
        p.compute(scheduler=ray_dask_get)
    assert len(path.read_text().splitlines()) == 1


def test_several_at_once_and_what_is_no_collection() -> None:
    all_ = collections()
    del all_["dataframe"]  # Dask warns of those beside others
    persisted = dask.persist(*all_.values(), 3, {"deep": [all_["array"]]}, scheduler=ray_dask_get)
    for x, p in zip(all_.values(), persisted, strict=False):
        assert isinstance(next(iter(p.dask.values())), ObjectRef)
        assert same(p.compute(scheduler=ray_dask_get), x.compute(scheduler="sync"))
    assert persisted[3] == 3
    (inner,) = persisted[4]["deep"]
    assert isinstance(next(iter(inner.dask.values())), ObjectRef)
    assert dask.persist(1, [2], scheduler=ray_dask_get) == (1, [2])


def test_a_persisted_collection_is_persisted_again() -> None:
    p = (da.ones(10, chunks=5) + 2).persist(scheduler=ray_dask_get)
    again = p.persist(scheduler=ray_dask_get)
    assert set(again.dask.values()) <= set(p.dask.values())
    assert again.sum().compute(scheduler=ray_dask_get) == 30


def test_literals_stay_where_they_are() -> None:
    data = pd.DataFrame({"a": range(6)})
    p = dd.from_pandas(data, npartitions=2).persist(scheduler=ray_dask_get)
    assert any(isinstance(value, pd.DataFrame) for value in p.dask.values())
    assert p.compute(scheduler=ray_dask_get).equals(data)
    assert p.compute(scheduler="threads").equals(data)


def test_an_error_is_raised_by_who_computes() -> None:
    p = dask.delayed(tasks.fail)(ValueError, "on purpose", dask_key_name="bad").persist(scheduler=ray_dask_get)
    consumer = dask.delayed(tasks.inc)(p)
    for x in (p, consumer, consumer.persist(scheduler=ray_dask_get), p):
        with pytest.raises(ValueError, match="on purpose") as caught:
            x.compute(scheduler=ray_dask_get)
        assert "Task 'bad' failed" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="on purpose") as caught:
        er.get(next(iter(p.dask.values())))
    assert "Task 'bad' failed" in caught.value.__notes__[0]


def test_what_was_there_before_another_failed_can_be_had(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    good = dask.delayed(tasks.inc)(1)
    bad = dask.delayed(tasks.fail)(ValueError, dask.delayed(gated)(gate, "late"))
    good, bad = dask.persist(good, bad, scheduler=ray_dask_get)
    assert good.compute(scheduler=ray_dask_get) == 2
    gate.touch()
    with pytest.raises(ValueError, match="late"):
        bad.compute(scheduler=ray_dask_get)
    assert good.compute(scheduler=ray_dask_get) == 2


def test_hooks_get_refs() -> None:
    seen: list[Any] = []
    keys: list[Any] = []

    def presubmit(task: Any, key: Any, deps: Any) -> None:
        keys.append(key)

    with RayDaskCallback(ray_finish=seen.append, ray_presubmit=presubmit):
        p = dask.delayed(tasks.inc)(1, dask_key_name="x").persist(scheduler=ray_dask_get)
        assert p.compute(scheduler=ray_dask_get) == 2
    refs, value = seen
    assert list(refs) == list(p.dask.values())
    assert keys == ["x"]
    assert value in ([2], [(2,)], ((2,),))  # older Dask asks for [["x"]]


def test_only_our_scheduler_is_asked_for_refs() -> None:
    x = da.ones(10, chunks=5) + 2
    for scheduler in ("threads", "sync", ray_dask_get_sync):
        p = x.persist(scheduler=scheduler)
        assert all(isinstance(value, np.ndarray) for value in p.dask.values())
        assert p.sum().compute(scheduler="sync") == 30
    (held,) = dask.persist(x, scheduler=ray_dask_get, ray_persist=False)
    assert all(isinstance(value, np.ndarray) for value in held.dask.values())


def test_an_option_that_nobody_knows() -> None:
    with pytest.raises(TypeError, match="'speed'"):
        dask.persist(da.ones(3), scheduler=ray_dask_get, speed=3)


def test_persist_inside_a_task() -> None:
    def inside() -> float:
        p = (da.ones(10, chunks=5) + 2).persist(scheduler=ray_dask_get)
        assert isinstance(next(iter(p.dask.values())), ObjectRef)
        return float(p.sum().compute(scheduler=ray_dask_get))

    assert dask.delayed(inside)().compute(scheduler=ray_dask_get) == 30


def test_persist_in_a_thread() -> None:
    found = []
    thread = threading.Thread(
        target=lambda: found.append(
            (da.ones(10, chunks=5) + 2).persist(scheduler=ray_dask_get).sum().compute(scheduler=ray_dask_get)
        )
    )
    thread.start()
    thread.join()
    assert found == [30]


@pytest.mark.parametrize(
    "operation",
    [
        lambda f: f.compute(),
        lambda f: f.set_index("b").compute(),
        lambda f: f.merge(f, on="b").compute().sort_values("b"),
        lambda f: f.groupby("a").b.mean().compute(),
        lambda f: f.map_partitions(len).compute(),
        lambda f: f.shuffle("a").compute(),
        lambda f: f.sort_values("c").c.compute(),
        lambda f: f.repartition(npartitions=2).compute(),
        lambda f: f.head(3),
        lambda f: pd.Series(len(f)),
        lambda f: f.describe().compute(),
        lambda f: pd.Series(f.b.quantile(0.5).compute()),
        lambda f: f.b.rolling(3).sum().compute().dropna(),
        lambda f: pd.DataFrame([row for _, row in f.iterrows()]),
    ],
    ids=[
        "compute", "set_index", "merge", "groupby", "map_partitions", "shuffle", "sort_values", "repartition", "head", "len",
        "describe", "quantile", "rolling", "iterrows",
    ],
)  # fmt: skip
@pytest.mark.parametrize("partitions", [1, 3])
def test_operations_on_a_persisted_frame(partitions: int, operation: Callable[[Any], Any]) -> None:
    f = frame(partitions)
    with enable_dask_on_ray():
        p = f.persist()
        assert any(isinstance(value, ObjectRef) for value in p.dask.values())
        left = operation(p)
    with dask.config.set({"scheduler": "sync", "dataframe.shuffle.method": "tasks"}):
        right = operation(f)
    assert np.all(left.sort_index().to_numpy() == right.sort_index().to_numpy())


def test_a_persisted_frame_is_written(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    f = frame()
    with enable_dask_on_ray():
        f.persist().to_parquet(tmp_path / "frame")
    written = pd.concat([pd.read_parquet(part) for part in sorted((tmp_path / "frame").glob("*.parquet"))])
    assert written.to_dict("list") == f.compute(scheduler="sync").to_dict("list")


ELSEWHERE: list[Callable[[dict[str, Any]], Any]] = [
    lambda p: p["array"],
    lambda p: p["array"] + 1,
    lambda p: p["array"].sum(),
    lambda p: p["array"][:5],
    lambda p: p["array"][0],
    lambda p: p["bag"],
    lambda p: p["bag"].map(str),
    lambda p: p["bag"].sum(),
    lambda p: p["dataframe"],
    lambda p: p["dataframe"].a,
    lambda p: p["dataframe"].groupby("a").b.mean(),
    lambda p: p["dataframe"].map_partitions(lambda part: part, meta=p["dataframe"]._meta),
    lambda p: p["delayed"],
    lambda p: p["delayed"] + 1,
    lambda p: p["delayed"].real,
    lambda p: dask.delayed(str)(p["delayed"]),
    lambda p: dask.delayed(list)([p["delayed"]]),
    lambda p: p["frame of one partition"],
]


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_another_scheduler_refuses(scheduler: str) -> None:
    """It would take the refs for values: arrays of refs, or errors nobody understands."""
    persisted = {name: x.persist(scheduler=ray_dask_get) for name, x in collections().items()}
    persisted["frame of one partition"] = frame(1).persist(scheduler=ray_dask_get)
    with dask.config.set(scheduler=scheduler):
        for expression in ELSEWHERE:
            with pytest.raises(TypeError, match=r"pass scheduler=ray_dask_get"):
                expression(persisted).compute()
        with pytest.raises(TypeError, match=r"pass scheduler=ray_dask_get"):
            len(persisted["dataframe"])
        with pytest.raises(TypeError, match=r"pass scheduler=ray_dask_get"):
            persisted["array"].persist()


def test_other_schedulers_are_left_alone_when_nothing_is_persisted() -> None:
    gc.collect()
    assert not Callback.active
    p = (da.ones(10, chunks=5) + 2).persist(scheduler=ray_dask_get)
    assert Callback.active
    assert (da.ones(10, chunks=5) + 2).sum().compute(scheduler="threads") == 30
    del p
    gc.collect()
    assert not Callback.active


def test_a_ref_is_no_value() -> None:
    ref = er.put(np.ones(3))
    with pytest.raises(TypeError, match=r"no array: .*eagleray\.get"):
        np.asarray(ref)
    with pytest.raises(TypeError, match=r"no array"):
        np.ones(3) + ref
    with pytest.raises(AttributeError, match=r'no attribute "shape": .*eagleray\.get'):
        ref.shape  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(ref, "shape")
    with pytest.raises(TypeError, match="ObjectRef"):
        ref[0]  # type: ignore[index]


def test_memory_returns_when_the_collection_goes() -> None:
    gc.collect()
    before = objects()
    p = da.ones((64, 1 << 15), chunks=(1, 1 << 15)).persist(scheduler=ray_dask_get)
    q = (p + 1).sum(axis=1).persist(scheduler=ray_dask_get)
    assert q.compute(scheduler=ray_dask_get).shape == (64,)
    assert objects() >= before + 65
    del p
    gc.collect()
    assert q.compute(scheduler=ray_dask_get)[0] == 2 << 15  # needs `p` no more
    del q
    gc.collect()
    until(lambda: objects() <= before)


def test_a_collection_that_goes_before_it_is_there(tmp_path: Path) -> None:
    gc.collect()
    before = objects()
    gate = tmp_path / "gate"
    p = dask.delayed(gated)(gate, np.ones(1 << 17)).persist(scheduler=ray_dask_get)
    del p
    gc.collect()
    gate.touch()
    until(lambda: objects() <= before)


def test_persist_many_times() -> None:
    gc.collect()
    before = objects()
    x = da.zeros(1000, chunks=100)
    for step in range(20):
        x = (x + 1).persist(scheduler=ray_dask_get)
        if step % 5 == 4:
            assert x[0].compute(scheduler=ray_dask_get) == step + 1
    del x
    gc.collect()
    until(lambda: objects() <= before)


def test_the_session_ends_before_the_collection(fresh: None) -> None:
    er.init(num_cpus=1)
    p = (da.ones(10, chunks=5) + 2).persist(scheduler=ray_dask_get)
    er.shutdown()
    with pytest.raises(er.exceptions.ObjectLostError):
        p.compute(scheduler=ray_dask_get)
