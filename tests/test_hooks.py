"""Hooks: which are called, where, in what order, with what."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pytest
from dask._task_spec import Alias, Task
from dask.callbacks import Callback

import eagleray
from eagleray import ObjectRef
from eagleray.dask import RayDaskCallback, ray_dask_get, ray_dask_get_sync
from tests.tasks import add, fail, inc, sleep, total

pytestmark = pytest.mark.usefixtures("shared")

GRAPH: dict[str, Any] = {"x": 1, "y": (inc, "x"), "al": "y", "z": (add, "y", (inc, "x"))}
KEYS = ["z", "al", "x"]
RAY = ["ray_presubmit", "ray_postsubmit", "ray_pretask", "ray_posttask", "ray_postsubmit_all", "ray_finish"]
DASK = ["start", "start_state", "pretask", "posttask", "finish"]
DRIVER = [name for name in (*DASK, *RAY) if name not in ("ray_pretask", "ray_posttask")]


@pytest.fixture(params=[ray_dask_get, ray_dask_get_sync], ids=["pool", "sync"])
def get(request: pytest.FixtureRequest) -> Any:
    return request.param


def recorder(calls: list[Any], name: str) -> Callable[..., None]:
    def record(*args: Any) -> None:
        calls.append((name, args))

    return record


class Notes:
    """A worker hook that notes in a file what it was given."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pretask(self, key: Any, inputs: Any) -> str:
        with self.path.open("a") as file:
            file.write(f"pre {os.getpid()} {key!r} {inputs!r}\n")
        return f"state of {key}"

    def posttask(self, key: Any, result: Any, state: Any) -> None:
        with self.path.open("a") as file:
            file.write(f"post {os.getpid()} {key!r} {result!r} {state!r}\n")

    def lines(self) -> list[str]:
        """What was noted, without the processes."""
        if not self.path.exists():
            return []
        return [" ".join([line.split()[0], *line.split()[2:]]) for line in self.path.read_text().splitlines()]

    def pids(self) -> set[int]:
        return {int(line.split()[1]) for line in self.path.read_text().splitlines()}


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


def test_driver_hooks_in_order(get: Any) -> None:
    calls: list[Any] = []
    with RayDaskCallback(**{name: recorder(calls, name) for name in DRIVER}):
        assert get(GRAPH, KEYS) == (4, 2, 1)
    names = [name for name, _ in calls]
    one = ["pretask", "ray_presubmit", "ray_postsubmit", "posttask"]
    alias = ["pretask", "ray_presubmit", "posttask"]
    assert names[:2] == ["start", "start_state"]
    assert names[-3:] == ["finish", "ray_postsubmit_all", "ray_finish"]
    middle = [(name, args[0] if "task" in name else args[1]) for name, args in calls[2:-3]]
    of = {key: [name for name, its in middle if its == key] for key in ("y", "z", "al")}
    assert of == {"y": one, "z": one, "al": alias}
    assert len(middle) == 11
    # Each task from its pretask to its posttask, before the next.
    assert [key for _, key in middle] in (["y"] * 4 + ["z"] * 4 + ["al"] * 3, ["y"] * 4 + ["al"] * 3 + ["z"] * 4)


def test_arguments_of_driver_hooks(get: Any) -> None:
    calls: list[Any] = []
    with RayDaskCallback(**{name: recorder(calls, name) for name in DRIVER}):
        get(GRAPH, KEYS)
    (graph,) = next(args for name, args in calls if name == "start")
    assert set(graph) == {"x", "y", "al", "z"}
    assert isinstance(graph["z"], Task)

    state = next(args[1] for name, args in calls if name == "start_state")
    assert set(state) == {
        "cache", "dependencies", "dependents", "finished", "ready", "released", "running", "waiting", "waiting_data",
    }  # fmt: skip
    assert state["finished"] == {"y", "z", "al"}

    pre = {args[1]: args for name, args in calls if name == "ray_presubmit"}
    task, key, deps = pre["z"]
    assert isinstance(task, Task)
    assert key == "z"
    assert type(deps) is dict
    assert set(deps) == {"x", "y"}
    assert deps["x"] == 1
    assert isinstance(deps["y"], ObjectRef)
    assert eagleray.get(deps["y"]) == 2
    assert isinstance(pre["al"][0], Alias)
    assert pre["al"][2] == {"y": deps["y"]}

    post = {args[1]: args for name, args in calls if name == "ray_postsubmit"}
    assert post["z"][:3] == pre["z"]
    assert eagleray.get(post["z"][3]) == 4

    done = {args[0]: args for name, args in calls if name == "posttask"}
    assert eagleray.get(done["z"][1]) == 4
    assert done["z"][2:] == (graph, state, threading.get_ident())

    refs, dsk = next(args for name, args in calls if name == "ray_postsubmit_all")
    assert type(refs) is tuple
    assert eagleray.get(list(refs[:2])) == [4, 2]
    assert refs[2] == 1
    assert set(dsk) == set(graph)
    assert next(args for name, args in calls if name == "finish") == (graph, state, False)
    assert next(args for name, args in calls if name == "ray_finish") == ((4, 2, 1),)


def test_postsubmit_all_has_the_shape_of_the_keys(get: Any) -> None:
    seen: list[Any] = []
    with RayDaskCallback(ray_postsubmit_all=lambda refs, dsk: seen.append(refs)):
        get(GRAPH, "z")
        get(GRAPH, [["z", "y"], "x"])
    assert isinstance(seen[0], ObjectRef)
    assert isinstance(seen[1], tuple)
    assert isinstance(seen[1][0], tuple)
    assert seen[1][1] == 1


def test_worker_hooks(notes: Notes) -> None:
    graph = {"x": 1, "y": (inc, "x"), "al": "y", "z": (total, ["al", "y", (inc, "x")])}
    with RayDaskCallback(ray_pretask=notes.pretask, ray_posttask=notes.posttask):
        assert ray_dask_get(graph, ["z", "al"]) == [6, 2]
    assert sorted(notes.lines()) == sorted(
        [
            "pre 'y' ()",
            "post 'y' 2 'state of y'",
            notes.lines()[2],
            "post 'z' 6 'state of z'",
        ]
    )
    assert notes.lines()[2] in ("pre 'z' (2,)", "pre 'z' (2, 2)")
    assert os.getpid() not in notes.pids()


def test_worker_hooks_beside_driver_hooks_skip_aliases(get: Any, notes: Notes) -> None:
    with RayDaskCallback(ray_pretask=notes.pretask, ray_presubmit=lambda task, key, deps: None):
        get(GRAPH, KEYS)
    assert sorted(notes.lines()) == ["pre 'y' ()", "pre 'z' (2,)"]


def test_sync_calls_worker_hooks_here(notes: Notes) -> None:
    with RayDaskCallback(ray_pretask=notes.pretask, ray_posttask=notes.posttask):
        ray_dask_get_sync(GRAPH, "z")
    assert notes.lines() == ["pre 'y' ()", "post 'y' 2 'state of y'", "pre 'z' (2,)", "post 'z' 4 'state of z'"]
    assert notes.pids() == {os.getpid()}


def test_posttask_without_pretask_gets_none(notes: Notes) -> None:
    with RayDaskCallback(ray_posttask=notes.posttask):
        ray_dask_get(GRAPH, "y")
    assert notes.lines() == ["post 'y' 2 None"]


def test_subclass_without_super_init(notes: Notes) -> None:
    class Mine(RayDaskCallback):
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix
            self.seen: list[str] = []

        def _ray_presubmit(self, task: Any, key: Any, deps: Any) -> None:
            self.seen.append(f"{self.prefix} {key}")

        def _start(self, dsk: Any) -> None:
            self.seen.append("start")

    with Mine("pre") as mine:
        ray_dask_get(GRAPH, "y")
    assert mine.seen == ["start", "pre y"]


def test_several_fire_in_the_order_entered(get: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    path = tmp_path / "order"

    def make(name: str) -> RayDaskCallback:
        def worker(key: Any, inputs: Any) -> str:
            with path.open("a") as file:
                file.write(name + "\n")
            return name

        def after(key: Any, result: Any, state: Any) -> None:
            assert state == name

        return RayDaskCallback(
            start=lambda dsk: calls.append(f"start {name}"),
            ray_presubmit=lambda task, key, deps: calls.append(f"pre {name}"),
            ray_finish=lambda result: calls.append(f"finish {name}"),
            ray_pretask=worker,
            ray_posttask=after,
        )

    names = ["delta", "alpha", "charlie", "bravo"]
    with make("delta"), make("alpha"), make("charlie"), make("bravo"):
        get(GRAPH, "y")
    assert calls == [f"{hook} {name}" for hook in ("start", "pre", "finish") for name in names]
    assert path.read_text().split() == names


def test_reentered_callback_is_not_lost(get: Any) -> None:
    calls: list[str] = []
    callback = RayDaskCallback(ray_finish=lambda _: calls.append("ray"), start=lambda _: calls.append("dask"))
    with callback:
        with callback:
            get(GRAPH, "y")
        assert calls == ["dask", "ray"], "entered twice, it fires once"
        get(GRAPH, "y")
    assert calls == ["dask", "ray"] * 2
    get(GRAPH, "y")
    assert calls == ["dask", "ray"] * 2
    assert not RayDaskCallback.ray_active
    assert not Callback.active


def test_register_and_unregister(get: Any) -> None:
    results: list[Any] = []
    callback = RayDaskCallback(ray_finish=results.append)
    callback.register()
    try:
        get(GRAPH, "y")
    finally:
        callback.unregister()
    get(GRAPH, "z")
    assert results == [2]


@pytest.mark.parametrize("answer", [0, "", [], False, 10])
def test_presubmit_answers(get: Any, notes: Notes, answer: Any) -> None:
    posted: list[str] = []
    first = RayDaskCallback(
        ray_presubmit=lambda task, key, deps: answer if key == "y" else None,
        ray_postsubmit=lambda task, key, deps, ref: posted.append(key),
        ray_pretask=notes.pretask,
    )
    asked: list[str] = []

    def late(task: Any, key: Any, deps: Any) -> str | None:
        asked.append(key)
        return "second" if key == "y" else None

    second = RayDaskCallback(ray_presubmit=late)
    graph = {"x": 1, "y": (inc, "x"), "z": (list, ["y"])}
    with first, second:
        assert get(graph, ["z", "y"]) == ([answer], answer)
    assert asked == ["y", "z"], "all are asked, the first answer counts"
    assert posted == ["z"]
    assert [line.split()[1] for line in notes.lines()] == ["'z'"]


def test_presubmit_answers_a_single_key(get: Any) -> None:
    with RayDaskCallback(ray_presubmit=lambda task, key, deps: "mine"):
        assert get(GRAPH, "z") == "mine"


def test_presubmit_answers_with_a_ref(get: Any) -> None:
    ref = eagleray.put(41)
    with RayDaskCallback(ray_presubmit=lambda task, key, deps: ref if key == "y" else None):
        result = get(GRAPH, ["z", "y"])
    assert result == [43, 41]


def test_presubmit_answers_for_an_alias(get: Any) -> None:
    graph = {"y": (inc, 1), "al": "y", "of_alias": (inc, "al"), "of_y": (inc, "y")}
    with RayDaskCallback(ray_presubmit=lambda task, key, deps: 10 if key == "al" else None):
        assert get(graph, ["of_alias", "of_y", "al"]) == (11, 3, 10)


def test_presubmit_may_wait_for_earlier_tasks() -> None:
    seen: dict[str, Any] = {}

    def look(task: Any, key: Any, deps: Any) -> None:
        seen[key] = {dep: eagleray.get(ref) for dep, ref in deps.items() if isinstance(ref, ObjectRef)}

    graph = {"a": (inc, 1), "b": (inc, "a"), "c": (inc, "b")}
    with RayDaskCallback(ray_presubmit=look):
        assert ray_dask_get(graph, "c") == 4
    assert seen == {"a": {}, "b": {"a": 2}, "c": {"b": 3}}


@pytest.mark.parametrize("name", DRIVER)
def test_exception_in_a_driver_hook_is_raised_bare(get: Any, name: str) -> None:
    class Mine(Exception):
        pass

    error = Mine("from the hook")

    def hook(*args: Any) -> None:
        raise error

    with RayDaskCallback(**{name: hook}):
        with pytest.raises(Mine) as caught:
            get(GRAPH, KEYS)
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert get(GRAPH, "z") == 4


@pytest.mark.parametrize("name", ["ray_pretask", "ray_posttask"])
def test_exception_in_a_worker_hook_fails_the_task(name: str) -> None:
    def hook(*args: Any) -> None:
        raise LookupError("from the hook")

    with RayDaskCallback(**{name: hook}):
        with pytest.raises(LookupError, match="from the hook") as caught:
            ray_dask_get(GRAPH, "y")
    assert "'y'" in caught.value.__notes__[0]


def test_failed_task_has_no_ray_finish_and_finish_was_not_errored() -> None:
    calls: list[Any] = []
    with RayDaskCallback(ray_finish=calls.append, finish=lambda dsk, state, errored: calls.append(errored)):
        with pytest.raises(ValueError, match="boom"):
            ray_dask_get({"a": (fail, ValueError, "boom")}, "a")
    assert calls == [False]


def test_errored_finish_of_those_that_started() -> None:
    calls: list[Any] = []

    def bad(dsk: Any) -> None:
        raise ValueError("start")

    with RayDaskCallback(finish=lambda dsk, state, errored: calls.append(errored)):
        with RayDaskCallback(start=bad, finish=lambda *_: calls.append("never started")):
            with pytest.raises(ValueError, match="start"):
                ray_dask_get(GRAPH, "z")
    assert calls == [True]


def test_compute_inside_a_driver_hook_sees_no_callbacks(get: Any) -> None:
    calls: list[str] = []

    def presubmit(task: Any, key: Any, deps: Any) -> None:
        calls.append(key)
        assert get({"inner": (inc, 1)}, "inner") == 2

    with RayDaskCallback(ray_presubmit=presubmit, start=lambda _: calls.append("start")):
        get(GRAPH, "y")
        assert calls == ["start", "y"]
        get(GRAPH, "y")
    assert calls == ["start", "y"] * 2


def test_explicit_callbacks_replace_those_in_force(get: Any) -> None:
    calls: list[str] = []
    outer = RayDaskCallback(ray_finish=lambda _: calls.append("outer"))
    inner = RayDaskCallback(ray_finish=lambda _: calls.append("inner"))
    with outer:
        get(GRAPH, "y", ray_callbacks=[inner])
        get(GRAPH, "y", ray_callbacks=inner)
        get(GRAPH, "y", ray_callbacks=(inner._ray_callback,))
        get(GRAPH, "y", ray_callbacks=inner._ray_callback)
        get(GRAPH, "y", ray_callbacks=[])
    assert calls == ["inner"] * 4


def test_explicit_dask_callbacks(get: Any) -> None:
    calls: list[str] = []
    with RayDaskCallback(start=lambda _: calls.append("outer")):
        get(GRAPH, "y", callbacks=[Callback(start=lambda _: calls.append("inner"))])
        get(GRAPH, "y", callbacks=Callback(start=lambda _: calls.append("one")))
    assert calls == ["inner", "one"]


def test_dask_hooks_under_another_scheduler() -> None:
    calls: list[str] = []
    with RayDaskCallback(start=lambda _: calls.append("dask"), ray_finish=lambda _: calls.append("ray")):
        dask.delayed(inc)(1).compute(scheduler="sync")
    assert calls == ["dask"]


def test_callback_with_driver_hooks_only_is_not_pickled() -> None:
    class Counter(RayDaskCallback):
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.count = 0

        def _ray_presubmit(self, task: Any, key: Any, deps: Any) -> None:
            with self.lock:
                self.count += 1

        def __reduce__(self) -> Any:
            raise AssertionError("pickled")

    with Counter() as counter:
        ray_dask_get(GRAPH, "z")
    assert counter.count == 2


def test_callback_with_worker_hooks_is_pickled_once(tmp_path: Path) -> None:
    pickled: list[int] = []

    class Both(RayDaskCallback):
        def _ray_pretask(self, key: Any, inputs: Any) -> int:
            self.last = key
            return id(self)

        def _ray_posttask(self, key: Any, result: Any, state: int) -> None:
            assert state == id(self), "both hooks belong to one object"
            assert self.last == key

        def __getstate__(self) -> Any:
            pickled.append(os.getpid())
            return {}

    graph = {**{("leaf", i): (inc, i) for i in range(500)}}
    with Both():
        assert sum(ray_dask_get(graph, list(graph))) == sum(range(1, 501))
    assert set(pickled) == {os.getpid()}
    assert len(pickled) <= 2, "plain pickle, and cloudpickle if that refuses"


def test_worker_hook_that_cannot_be_pickled_is_named() -> None:
    class Locked(RayDaskCallback):
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def _ray_pretask(self, key: Any, inputs: Any) -> None: ...

    with Locked(), pytest.raises(TypeError, match=r"picklable.*Locked"):
        ray_dask_get(GRAPH, "z")


def test_tasks_run_while_hooks_are_called() -> None:
    """Step by step is not one after the other: the pool works while the driver submits."""
    refs: list[ObjectRef] = []
    graph = {"a": (sleep, 0.0), "b": (sleep, 0.0, "a")}

    def postsubmit(task: Any, key: Any, deps: Any, ref: ObjectRef) -> None:
        refs.append(ref)
        assert eagleray.wait([refs[0]])[0] == [refs[0]]

    with RayDaskCallback(ray_postsubmit=postsubmit):
        ray_dask_get(graph, "b")
    assert len(refs) == 2


def test_refs_kept_by_a_hook_outlive_the_compute() -> None:
    kept: dict[str, ObjectRef] = {}
    with RayDaskCallback(ray_postsubmit=lambda task, key, deps, ref: kept.update({key: ref})):
        assert ray_dask_get(GRAPH, "z") == 4
    assert eagleray.get([kept["y"], kept["z"]]) == [2, 4]


class TestConstructor:
    def test_unknown_hook_is_named_beside_the_known_ones(self) -> None:
        with pytest.raises(TypeError, match=r"'ray_bogus' is no hook.*ray_presubmit.*ray_finish.*pretask"):
            RayDaskCallback(ray_bogus=print)

    def test_hook_that_cannot_be_called(self) -> None:
        with pytest.raises(TypeError, match="ray_finish must be callable, not int"):
            RayDaskCallback(ray_finish=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ray_pretask", "_ray_pretsk", "_ray_post_task", "_ray_presubmits"])
def test_method_that_is_nearly_a_hook(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"Mistaken\.{name} is no hook\. Is _ray_\w+ meant\?"):
        type("Mistaken", (RayDaskCallback,), {name: lambda self: None})


def test_methods_that_are_no_hooks() -> None:
    type("Right", (RayDaskCallback,), {"report": None, "_ray_state": None, "ray_address": None, "_ray_finish": print})


def test_active_callbacks_can_be_cleared() -> None:
    callback = RayDaskCallback(ray_finish=print)
    with callback:
        assert RayDaskCallback.ray_active
        RayDaskCallback.ray_active.clear()
        assert not RayDaskCallback.ray_active
