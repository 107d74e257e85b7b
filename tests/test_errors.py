"""What a user sees when something fails."""

import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from dask._task_spec import DataNode, Task

import eagleray
from eagleray import _errors, _failures, _pickling
from eagleray.dask import ray_dask_get, ray_dask_get_sync
from eagleray.exceptions import (
    EaglerayError,
    GetTimeoutError,
    ObjectLostError,
    TaskCancelledError,
    TaskError,
    WorkerCrashedError,
)
from tests import tasks
from tests.tasks import HoldsLock, Prefixed, TwoArguments, fail, inc


@pytest.mark.usefixtures("shared")
class TestInAGraph:
    @pytest.mark.parametrize(
        ("kind", "args"),
        [
            (ValueError, ("boom!",)),
            (KeyError, ("k",)),
            (StopIteration, ()),
            (TwoArguments, (3, "text")),
            (Prefixed, ("text",)),
            (OSError, (2, "No such file", "path")),
            (UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "bad")),
        ],
    )
    def test_class_arguments_and_note(self, kind: type[Exception], args: tuple[Any, ...]) -> None:
        with pytest.raises(kind) as caught:
            ray_dask_get({("a", 1): (fail, kind, *args)}, ("a", 1))
        expected = kind(*args)
        assert type(caught.value) is type(expected)
        assert caught.value.args == expected.args
        assert str(caught.value) == str(expected)
        assert vars(expected).items() <= vars(caught.value).items()
        note = "\n".join(caught.value.__notes__)
        assert "('a', 1)" in note
        assert "in fail" in note, "the traceback of the worker"
        pid = int(note.split("worker process ")[1].split(".")[0])
        assert pid != os.getpid()

    def test_chained_exception_shows_its_cause(self) -> None:
        with pytest.raises(ValueError, match="chained") as caught:
            ray_dask_get({"a": (tasks.fail_because, "the cause")}, "a")
        assert "KeyError: 'the cause'" in caught.value.__notes__[0]

    def test_class_defined_here(self) -> None:
        class Local(Exception):
            pass

        with pytest.raises(Local, match="by value"):
            ray_dask_get({"a": Task("a", fail, DataNode(None, Local), "by value")}, "a")

    def test_unpicklable_exception_keeps_its_text(self) -> None:
        with pytest.raises(TaskError, match=r"HoldsLock: the text") as caught:
            ray_dask_get({"a": (fail, HoldsLock, "the text")}, "a")
        assert caught.value.text == "the text"
        assert caught.value.type_name.endswith("HoldsLock")
        assert "in fail" in caught.value.remote_traceback

    def test_keyboard_interrupt_in_a_task_is_no_interrupt_of_the_driver(self) -> None:
        with pytest.raises(TaskCancelledError):
            ray_dask_get({"a": (fail, KeyboardInterrupt)}, "a")

    def test_dependents_of_a_failed_task_raise_its_error(self) -> None:
        graph = {"a": (fail, ValueError, "boom"), "b": (inc, "a"), "c": (inc, "b")}
        with pytest.raises(ValueError, match="boom") as caught:
            ray_dask_get(graph, ["c"])
        assert "'a'" in caught.value.__notes__[0]

    def test_unpicklable_result(self) -> None:
        with pytest.raises(TypeError, match="pickle"):
            ray_dask_get({"a": (threading.Lock,), "b": 1}, "a")

    def test_unpicklable_argument(self) -> None:
        with pytest.raises(TypeError, match="pickle"):
            ray_dask_get({"a": Task("a", inc, DataNode(None, threading.Lock()))}, "a")

    def test_ref_of_a_failed_task(self) -> None:
        ref = ray_dask_get({"a": (fail, ValueError, "boom")}, "a", ray_persist=True)
        for _ in range(2):
            with pytest.raises(ValueError, match="boom"):
                eagleray.get(ref)

    def test_session_goes_on(self) -> None:
        for _ in range(20):
            with pytest.raises(ValueError, match="boom"):
                ray_dask_get({"a": (fail, ValueError, "boom"), "b": (inc, 1)}, ["a", "b"])
            assert ray_dask_get({"b": (inc, 1)}, "b") == 2


def test_sync_raises_the_exception_itself() -> None:
    error = ValueError("mine")

    def fails() -> None:
        raise error

    with pytest.raises(ValueError, match="mine") as caught:
        ray_dask_get_sync({"a": (fails,)}, "a")
    assert type(caught.value) is ValueError
    assert caught.value.args == ("mine",)


@pytest.mark.usefixtures("session")
def test_failed_task_cancels_the_rest(tmp_path: Path) -> None:
    started = tmp_path / "started"
    slow = {("slow", i): (tasks.touch_and_sleep, str(started), 0.2) for i in range(200)}
    # One at either end: whatever the order is, one of them is early.
    graph = {"a": (fail, ValueError, "boom"), **slow, "z": (fail, ValueError, "boom")}
    with pytest.raises(ValueError, match="boom"):
        ray_dask_get(graph, list(graph))
    # Until it has had an answer, what runs on two workers is all that can still have started.
    assert ray_dask_get({"b": (inc, 1)}, "b") == 2
    assert not started.exists() or len(started.read_text().split()) < 100


class TestPickling:
    @pytest.mark.parametrize(
        "error", [ValueError("a", 1), TwoArguments(1, "x"), Prefixed("x"), OSError(2, "no", "f"), Exception()], ids=repr
    )
    def test_round_trip(self, error: Exception) -> None:
        error.extra = [1]  # type: ignore[attr-defined]
        back = _errors.task_error(_errors.dump_error(error), "key")
        assert type(back) is type(error)
        assert back.args == error.args
        assert back.extra == [1]  # type: ignore[attr-defined]
        assert "'key'" in back.__notes__[0]

    def test_error_that_passes_through_many_workers_stays_small(self) -> None:
        error: BaseException = ValueError("x")
        for level in range(50):
            error = _errors.task_error(_errors.dump_error(error), level)
        assert len(_errors.dump_error(error)) < 100_000
        assert len(error.__notes__) == 16
        assert "Task 0 " in error.__notes__[0]
        assert "Task 49 " in error.__notes__[-1]

    def test_arguments_that_do_not_equal_their_copies(self) -> None:
        for argument in (KeyError("y"), float("nan"), object):
            back = _errors.task_error(_errors.dump_error(ValueError("x", argument)), "key")
            assert type(back) is ValueError

    def test_array_in_the_arguments(self) -> None:
        numpy = pytest.importorskip("numpy")
        back = _errors.task_error(_errors.dump_error(ValueError(numpy.ones(3))), "key")
        assert type(back) is ValueError
        assert back.args[0].tolist() == [1, 1, 1]

    def test_exception_whose_text_fails(self) -> None:
        class Odd(Exception):
            def __init__(self) -> None:
                self.lock = threading.Lock()

            def __str__(self) -> str:
                raise RuntimeError

        back = _errors.task_error(_errors.dump_error(Odd()), "key")
        assert isinstance(back, TaskError)
        assert "RuntimeError" in back.text

    def test_class_that_is_not_here(self) -> None:
        record = (b"cno_such_module\nError\n(tR.", None, "no_such_module.Error", "text")
        payload = pickle.dumps(([record], "tb", 1, ([], 0), False))
        back = _errors.task_error(payload, "key")
        assert isinstance(back, TaskError)
        assert str(back) == "no_such_module.Error: text"
        assert "no_such_module" in back.remote_traceback

    @pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), KeyboardInterrupt()], ids=repr)
    def test_what_would_end_the_driver_does_not(self, error: BaseException) -> None:
        assert isinstance(_errors.task_error(_errors.dump_error(error), "key"), EaglerayError)

    def test_own_exceptions_pickle(self) -> None:
        error = pickle.loads(pickle.dumps(TaskError("m.E", "text", "trace")))
        assert (error.type_name, error.text, error.remote_traceback) == ("m.E", "text", "trace")

    @pytest.mark.parametrize(
        ("kind", "details", "error", "words"),
        [
            ("worker_died", {"signal": 9, "attempts": 4}, WorkerCrashedError, ["'k'", "SIGKILL", "4 times"]),
            ("worker_died", {"exit_code": 3, "attempts": 1}, WorkerCrashedError, ["'k'", "code 3", "once"]),
            ("cancelled", {}, TaskCancelledError, ["'k'"]),
            ("lost", {}, ObjectLostError, ["'k'"]),
            ("no_workers", {"reason": "fork failed"}, WorkerCrashedError, ["fork failed"]),
            ("no_workers", {"exit_code": 1}, WorkerCrashedError, ["code 1"]),
            ("too_deep", {"depth": 9, "most": 8}, EaglerayError, ["9", "8"]),
            ("timeout", {"seconds": 1.5}, GetTimeoutError, ["1.5"]),
        ],
    )
    def test_failures(self, kind: str, details: dict[str, Any], error: type[Exception], words: list[str]) -> None:
        failure = _failures.failure(kind, "k", details)
        assert type(failure) is error
        assert all(word in str(failure) for word in words)

    def test_plain_pickle_first_cloudpickle_where_needed(self) -> None:
        assert _pickling.dump([1]) == pickle.dumps([1], 5)
        value = 3
        assert pickle.loads(_pickling.dump(lambda: value))() == 3
        with pytest.raises(TypeError):
            _pickling.dump(threading.Lock())


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    ("function", "argument", "words"),
    [(tasks.die, signal.SIGSEGV, ["SIGSEGV", "'a'"]), (tasks.leave, 3, ["code 3", "'a'"])],
)
def test_worker_that_dies_each_time(function: Any, argument: int, words: list[str]) -> None:
    with pytest.raises(WorkerCrashedError) as caught:
        ray_dask_get({"a": (function, int(argument))}, "a")
    assert all(word in str(caught.value) for word in words)
    assert ray_dask_get({"b": (inc, 1)}, "b") == 2
