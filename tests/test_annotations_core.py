"""Annotated graphs at the native level: retries, priority, resources."""

import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray import _engine, _machine
from eagleray.exceptions import EaglerayError, InfeasibleResourceError, WorkerCrashedError
from tests.annotation_tasks import (
    ONLY_OS_ERRORS,
    Specs,
    attempts,
    compute,
    compute_or_say_why,
    fail_until,
    make_list,
    meet,
    most_at_once,
    note,
    noted,
    spoil,
    submit,
    visible,
    wait_for,
)
from tests.conftest import until
from tests.tasks import inc, total, touch

native = _engine.native


@pytest.fixture(scope="class")
def plain() -> Iterator[None]:
    """Two workers."""
    eagleray.shutdown()
    eagleray.init(num_cpus=2)
    yield
    eagleray.shutdown()


@pytest.fixture(scope="class")
def offering() -> Iterator[None]:
    """Two workers on a node with two GPUs and a license."""
    eagleray.shutdown()
    before = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    eagleray.init(num_cpus=2, num_gpus=2, resources={"license": 1, "seat": 2.5})
    yield
    eagleray.shutdown()
    if before is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.usefixtures("plain")
class TestRetries:
    def test_a_task_that_raises_is_run_again(self, log: Path) -> None:
        assert submit({"a": (fail_until, str(log), 3)}, "a", [{"retries": 2}]) == 3

    def test_after_the_last_attempt_its_exception_is_raised(self, log: Path) -> None:
        with pytest.raises(ValueError, match="attempt 3") as raised:
            submit({"a": (fail_until, str(log), 9)}, "a", [{"retries": 2}])
        assert attempts(str(log)) == 3
        assert "Task 'a' failed at attempt 3, the last," in raised.value.__notes__[0]

    def test_without_retries_nothing_is_said_of_attempts(self, log: Path) -> None:
        with pytest.raises(ValueError, match="attempt 1") as raised:
            submit({"a": (fail_until, str(log), 9)}, "a", [{}])
        assert "attempt" not in raised.value.__notes__[0].splitlines()[0]

    def test_only_the_keys_that_are_named(self, tmp_path: Path) -> None:
        paths = [str(tmp_path / name) for name in "ab"]
        graph = {"a": (fail_until, paths[0], 2), "b": (fail_until, paths[1], 9)}
        with pytest.raises(ValueError, match="attempt 1"):
            submit(graph, ["a", "b"], [{}, {"retries": 5}], {"a": 1, "not there": 1})
        assert attempts(paths[1]) == 1

    def test_what_depends_on_it_waits(self, log: Path) -> None:
        graph = {"a": (fail_until, str(log), 3), "b": (inc, "a"), "c": (inc, "b"), "d": (total, ["a", "c"])}
        assert submit(graph, ["d", "b"], [{"retries": 5}]) == [8, 4]

    def test_for_ever(self, log: Path) -> None:
        assert submit({"a": (fail_until, str(log), 300)}, "a", [{"retries": -1}]) == 300

    def test_only_for_exceptions_of_these_classes(self, tmp_path: Path) -> None:
        spec = {"retries": 5, "retry_exceptions": ONLY_OS_ERRORS}
        lines = str(tmp_path / "a")
        assert submit({"a": (fail_until, lines, 3, FileNotFoundError)}, "a", [spec]) == 3
        lines = str(tmp_path / "b")
        with pytest.raises(ValueError, match="attempt 1"):
            submit({"a": (fail_until, lines, 3)}, "a", [spec])
        assert attempts(lines) == 1

    def test_an_input_that_the_failed_attempt_changed_is_made_again(self, tmp_path: Path) -> None:
        made, log = str(tmp_path / "made"), str(tmp_path / "log")
        graph = {"list": (make_list, made), "sum": (spoil, "list", log, 3)}
        assert submit(graph, "sum", [{}, {"retries": 2}], {"sum": 1}) == [1, 2, 3, 99]

    def test_an_input_from_outside_is_read_anew(self, log: Path) -> None:
        ref = eagleray.put([1, 2, 3])
        assert submit({"sum": (spoil, ref, str(log), 3)}, "sum", [{"retries": 2}]) == [1, 2, 3, 99]

    def test_hooks_run_with_each_attempt(self, tmp_path: Path) -> None:
        hooks = pickle.dumps([(None, _fail_after_two)])
        graph = {"a": (touch, str(tmp_path / "log"))}
        native.submit(graph, "a", worker_hooks=hooks, annotations=([{"retries": 2}], {})).result()
        assert attempts(str(tmp_path / "log")) == 3

    def test_a_death_is_no_failure(self, log: Path) -> None:
        graph = {"a": (_die_until, str(log), 2)}
        with pytest.raises(WorkerCrashedError, match="once"):
            submit(graph, "a", [{"max_retries": 0, "retries": 5}])
        assert submit(graph, "a", [{"max_retries": 1}]) == 2

    def test_reruns_are_counted(self, log: Path) -> None:
        before = native.counters()["reruns"]
        submit({"a": (fail_until, str(log), 3)}, "a", [{"retries": 2}])
        assert native.counters()["reruns"] == before + 2

    def test_retries_of_a_nested_graph(self, log: Path) -> None:
        spec = {"retries": 2, "retry_exceptions": ONLY_OS_ERRORS}
        assert submit({"a": (compute, [spec], fail_until, str(log), 3, OSError)}, "a", [{}]) == 3


def _fail_after_two(key: str, result: str, state: object) -> None:
    if attempts(result) < 3:
        raise ValueError(key)


def _die_until(path: str, attempt: int) -> int:
    touch(path)
    if attempts(path) < attempt:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempts(path)


class TestPriority:
    def test_tasks_of_a_graph_run_by_priority_and_with_what_they_need(self, fresh: None, log: Path) -> None:
        eagleray.init(num_cpus=1)
        graph: dict[Any, Any] = {("low", i): (note, str(log), f"low {i}") for i in range(3)}
        graph["a"] = (note, str(log), "need")
        graph["b"] = (_note_after, str(log), "high", "a")
        submit(graph, list(graph), [{}, {"priority": 7}], {"b": 1})
        assert log.read_text().splitlines() == ["need", "high", "low 0", "low 1", "low 2"]

    def test_a_graph_of_higher_priority_goes_before_what_has_not_begun(self, fresh: None, tmp_path: Path) -> None:
        eagleray.init(num_cpus=1)
        log, door = str(tmp_path / "log"), str(tmp_path / "door")
        first: dict[Any, Any] = dict.fromkeys(range(3), (_note_after, log, "low", "a"))
        first["a"] = (wait_for, door)
        low = native.submit(first, list(first), annotations=([{}], {}))
        until(lambda: any(worker["state"] == "busy" for worker in native.workers()))
        high = native.submit({"b": (note, log, "high")}, "b", annotations=([{"priority": 1}], {}))
        native.workers()  # is answered after the submission was taken in
        Path(door).touch()
        high.result()
        low.result()
        assert Path(log).read_text().splitlines() == ["high", "low", "low", "low"]


def _note_after(log: str, what: str, *_: object) -> None:
    note(log, what)


@pytest.mark.usefixtures("offering")
class TestResources:
    def test_no_more_at_once_than_there_is(self, log: Path) -> None:
        graph = {i: (noted, str(log)) for i in range(6)}
        submit(graph, list(graph), [{"resources": {"license": 1}}])
        assert most_at_once(log) == 1

    def test_parts_add_up(self, tmp_path: Path) -> None:
        graph = {name: (meet, str(tmp_path), f"{name}1", 1) for name in "ab"}
        assert submit(graph, ["a", "b"], [{"resources": {"license": 0.5}}]) == ["a1", "b1"]

    def test_a_task_of_all_processors_runs_alone(self, log: Path) -> None:
        graph = {i: (noted, str(log)) for i in range(8)}
        submit(graph, list(graph), [{}, {"resources": {"CPU": 2}}], {3: 1, 4: 1})
        lines = log.read_text().split()
        assert lines.count("begin") == lines.count("end") == 8
        again = log.with_name("again")
        submit({i: (noted, str(again)) for i in range(4)}, [0, 1, 2, 3], [{"resources": {"CPU": 2}}])
        assert most_at_once(again) == 1

    def test_tasks_that_fit_go_by_one_that_does_not(self, tmp_path: Path) -> None:
        """The holder ends only when what is behind the one that waits for the license has run."""
        door, log = str(tmp_path / "door"), str(tmp_path / "log")
        license_ = [{"resources": {"license": 1}}]
        holder = native.submit({"a": (wait_for, door)}, "a", annotations=(license_, {}))
        until(lambda: any(worker["state"] == "busy" for worker in native.workers()))
        waits = native.submit({"b": (note, log, "license")}, "b", annotations=(license_, {}))
        native.submit({"c": (note, door, "opened")}, "c").result()
        holder.result()
        waits.result()

    def test_a_task_of_two_processors_is_not_starved_by_single_ones(self, log: Path) -> None:
        door, stop = f"{log}.door", f"{log}.stop"
        holder = native.submit({"a": (wait_for, door)}, "a")
        until(lambda: any(worker["state"] == "busy" for worker in native.workers()))
        big = native.submit({"a": (note, stop, "now")}, "a", annotations=([{"resources": {"CPU": 2}}], {}))
        others = [native.submit(dict.fromkeys(range(400), (_work_until, stop)), list(range(400))) for _ in range(5)]
        Path(door).touch()
        big.result()
        saw = [seen for other in others for seen in other.result()]
        assert any(saw), "it ran last"
        holder.result()

    def test_inputs_and_results_of_special_tasks(self, log: Path) -> None:
        graph: dict[Any, Any] = {("a", i): (inc, i) for i in range(40)}
        graph |= {("b", i): (inc, ("a", i)) for i in range(40)}
        graph |= {("c", i): (inc, ("b", i)) for i in range(40)}
        graph["sum"] = (total, [("c", i) for i in range(40)])
        specs = [{}, {"resources": {"license": 1}}, {"resources": {"GPU": 1, "CPU": 0}}]
        by_key = {**{("b", i): 1 + i % 2 for i in range(40)}, ("c", 7): 2}
        assert submit(graph, "sum", specs, by_key) == sum(range(40)) + 120

    def test_each_gpu_is_seen_by_one_task(self, tmp_path: Path) -> None:
        graph = {name: (_meet_and_see, str(tmp_path), f"{name}1", 1) for name in "ab"}
        assert sorted(submit(graph, ["a", "b"], [{"resources": {"GPU": 1}}])) == ["0", "1"]
        assert submit({"a": (visible,)}, "a", [{"resources": {"GPU": 2}}]) == "0,1"
        assert submit({"a": (visible,)}, "a", [{}]) == ""

    def test_parts_of_a_gpu_are_of_the_same_one(self, tmp_path: Path) -> None:
        graph = {name: (_meet_and_see, str(tmp_path), f"{name}1", 1) for name in "ab"}
        assert submit(graph, ["a", "b"], [{"resources": {"GPU": 0.5}}]) == ["0", "0"]

    def test_a_task_that_computes_gives_back_its_processor(self) -> None:
        spec = {"resources": {"CPU": 2}}
        assert submit({"a": (compute, [spec], inc, 1)}, "a", [spec]) == 2

    def test_a_task_that_raises_or_dies_gives_back_what_it_had(self, tmp_path: Path) -> None:
        graph = {"a": (fail_until, str(tmp_path / "a"), 2), "b": (_die_until, str(tmp_path / "b"), 2)}
        assert submit(graph, ["a", "b"], [{"resources": {"license": 1}, "retries": 1}]) == [2, 2]
        with pytest.raises(ValueError, match="attempt"):
            submit({"a": (fail_until, str(tmp_path / "c"), 9)}, "a", [{"resources": {"license": 1}}])
        assert submit({"a": (inc, 1)}, "a", [{"resources": {"license": 1}}]) == 2

    def test_memory_is_what_the_machine_has(self) -> None:
        assert submit({"a": (inc, 1)}, "a", [{"resources": {"memory": _machine.memory() / 2}}]) == 2
        with pytest.raises(InfeasibleResourceError, match="bytes of memory"):
            submit({"a": (inc, 1)}, "a", [{"resources": {"memory": _machine.memory() * 2}}])


def _meet_and_see(directory: str, name: str, others: int) -> str:
    meet(directory, name, others)
    return visible()


def _work_until(path: str) -> bool:
    """A millisecond, or nothing once the file is there."""
    seen = os.path.exists(path)
    if not seen:
        time.sleep(0.001)
    return seen


@pytest.mark.usefixtures("offering")
class TestInfeasible:
    @pytest.mark.parametrize(
        ("resources", "text"),
        [
            ({"CPU": 3}, r"Task 'b' asks for 3 CPU, but the node offers 2 CPU\..*init\(num_cpus=\.\.\.\)"),
            ({"GPU": 3}, r"Task 'b' asks for 3 GPU, but the node offers 2 GPU\..*init\(num_gpus=\.\.\.\)"),
            ({"seat": 2.6}, r"asks for 2.6 seat, but the node offers 2.5 seat\..*resources=\{'seat': \.\.\.\}"),
            ({"nothing": 0.001}, r"asks for 0.001 nothing, but the node offers 0 nothing"),
        ],
    )
    def test_what_the_node_does_not_have_fails_at_once(
        self, resources: dict[str, float], text: str, tmp_path: Path
    ) -> None:
        door = str(tmp_path / "door")
        graph = {"a": (wait_for, door), "b": (inc, "a")}
        with pytest.raises(InfeasibleResourceError, match=text) as raised:
            submit(graph, ["a", "b"], [{}, {"resources": resources}], {"b": 1})
        assert isinstance(raised.value, ValueError)
        assert isinstance(raised.value, EaglerayError)

    def test_from_inside_a_task(self) -> None:
        text = submit({"a": (compute_or_say_why, [{"resources": {"GPU": 3}}])}, "a", [{}])
        assert text.startswith("InfeasibleResourceError: Task 'inner' asks for 3 GPU, but the node offers 2 GPU")

    def test_what_the_task_that_waits_has_itself(self) -> None:
        inner = [{"resources": {"license": 1}}]
        text = submit({"a": (compute_or_say_why, inner)}, "a", inner)
        assert text.startswith("InfeasibleResourceError: Task 'inner' asks for 1 license")
        assert "tasks that wait for this one to end hold 1 license" in text

    def test_what_two_tasks_have_that_both_want_the_rest(self, tmp_path: Path) -> None:
        """One of them is told; then the other can go on."""
        half = [{"resources": {"license": 0.5}}]
        graph = {name: (_meet_and_compute, str(tmp_path), f"{name}1", half) for name in "ab"}
        texts = sorted(submit(graph, ["a", "b"], half))
        assert texts[0] == ""
        assert "tasks that wait for this one to end hold 1 license" in texts[1]


def _meet_and_compute(directory: str, name: str, specs: Specs) -> str:
    meet(directory, name, 1)
    return compute_or_say_why(specs)


@pytest.mark.usefixtures("plain")
class TestArguments:
    @pytest.mark.parametrize(
        ("annotations", "error"),
        [
            (([], {}), ValueError),
            (([{"unknown": 1}], {}), TypeError),
            (([{"retries": "often"}], {}), TypeError),
            (([{"retries": -2}], {}), ValueError),
            (([{"priority": "high"}], {}), TypeError),
            (([{"resources": {"GPU": -1}}], {}), ValueError),
            (([{"resources": {"GPU": 1.5}}], {}), ValueError),
            (([{"resources": {"GPU": float("nan")}}], {}), ValueError),
            (([{"resources": ["GPU"]}], {}), TypeError),
            (([{}], {"a": 1}), IndexError),
            (([{}], ["a"]), TypeError),
            ([{}], TypeError),
        ],
    )
    def test_of_submit(self, annotations: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            native.submit({"a": (inc, 1)}, "a", annotations=annotations)

    @pytest.mark.parametrize(
        ("arguments", "error", "text"),
        [
            ({"num_gpus": -1}, ValueError, "num_gpus must be at least 0"),
            ({"num_gpus": 0.5}, TypeError, "num_gpus must be a whole number"),
            ({"resources": ["license"]}, TypeError, "resources must be a dict"),
            ({"resources": {1: 1}}, TypeError, "must be a str"),
            ({"resources": {"": 1}}, ValueError, "empty"),
            ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
            ({"resources": {"GPU": 1}}, ValueError, "num_gpus"),
            ({"resources": {"memory": 1}}, ValueError, "memory"),
            ({"resources": {"license": -1}}, ValueError, "0 or more"),
            ({"resources": {"license": float("inf")}}, ValueError, "0 or more"),
            ({"resources": {"license": True}}, TypeError, "must be a number"),
        ],
    )
    def test_of_init(self, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
        with pytest.raises(error, match=text):
            eagleray.init(**arguments)

    @pytest.mark.parametrize(("visible", "count"), [("", 0), ("0", 1), ("2, 3", 2), ("-1", 0), ("1,-1,2", 1)])
    def test_gpus_are_those_that_are_visible(self, monkeypatch: Any, visible: str, count: int) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert _machine.gpus() == count
