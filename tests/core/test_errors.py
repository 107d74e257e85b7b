"""What `get` raises: one tree of classes, the user's own class among them."""

import pickle
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray import exceptions
from eagleray.dask import ray_dask_get
from eagleray.exceptions import (
    ActorDiedError,
    EaglerayError,
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    TaskCancelledError,
    TaskError,
    WorkerCrashedError,
)
from tests.core.remotes import Counter, add, die, echo, fail, until_exists
from tests.tasks import HoldsLock, Prefixed, TwoArguments

pytestmark = pytest.mark.usefixtures("shared")


def raised(ref: Any) -> Any:
    with pytest.raises(EaglerayError) as caught:
        eagleray.get(ref)
    return caught.value


class TestTree:
    @pytest.mark.parametrize(
        "kind",
        [
            ActorDiedError,
            GetTimeoutError,
            ObjectLostError,
            OutOfMemoryError,
            TaskCancelledError,
            TaskError,
            WorkerCrashedError,
        ],
    )
    def test_root(self, kind: type[Exception]) -> None:
        assert issubclass(kind, EaglerayError)

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("RayError", "EaglerayError"),
            ("RayTaskError", "TaskError"),
            ("RayActorError", "ActorDiedError"),
            ("WorkerCrashedError", "WorkerCrashedError"),
            ("ObjectLostError", "ObjectLostError"),
            ("GetTimeoutError", "GetTimeoutError"),
            ("TaskCancelledError", "TaskCancelledError"),
            ("OutOfMemoryError", "OutOfMemoryError"),
            ("ObjectStoreFullError", "ObjectStoreFullError"),
        ],
    )
    def test_rays_names_catch_ours(self, name: str, ours: str) -> None:
        assert issubclass(getattr(exceptions, ours), getattr(exceptions, name))

    def test_timeout_is_a_timeout(self) -> None:
        assert issubclass(GetTimeoutError, TimeoutError)


class TestDual:
    @pytest.mark.parametrize(
        ("kind", "args"),
        [
            (KeyError, ["key"]),
            (ValueError, ["text", 3]),
            (ZeroDivisionError, []),
            (StopIteration, [5]),
            (OSError, [2, "No such file", "name"]),
            (UnicodeDecodeError, ["utf-8", b"\xff", 0, 1, "bad byte"]),
            (TwoArguments, [3, "text"]),
            (Prefixed, ["text"]),
            (FileNotFoundError, [2, "not there"]),
            (AssertionError, []),
        ],
    )
    def test_is_both(self, kind: type[Exception], args: list[Any]) -> None:
        error = raised(fail.remote(kind, *args))
        assert isinstance(error, TaskError)
        assert isinstance(error, kind)
        assert error.as_instanceof_cause() is error
        # An OSError becomes one of a class for its number.
        assert type(error.cause) is type(kind(*args))
        assert str(error.cause) == str(kind(*args))
        assert error.cause.args == kind(*args).args

    def test_local_class(self) -> None:
        class Local(LookupError):
            def __init__(self, code: int) -> None:
                super().__init__(f"code {code}")
                self.code = code

        def act() -> None:
            raise Local(7)

        with pytest.raises(Local) as caught:
            eagleray.get(eagleray.remote(act).remote())
        error: Any = caught.value
        assert isinstance(error, TaskError)
        assert error.cause.code == 7

    def test_name_and_order_of_bases(self) -> None:
        error = raised(fail.remote(KeyError, "k"))
        kinds = type(error).__mro__
        assert "KeyError" in type(error).__name__
        assert kinds.index(TaskError) < kinds.index(KeyError)
        assert kinds.index(EaglerayError) < kinds.index(KeyError)

    def test_text_has_the_remote_traceback(self) -> None:
        error = raised(fail.options(name="named task").remote(ValueError, "the text"))
        text = str(error)
        assert "named task" in text
        assert "the text" in text
        assert "in fail" in text
        assert "remotes.py" in text
        assert text in "".join(traceback.format_exception(error))

    def test_of_an_actor_names_class_and_method(self) -> None:
        text = str(raised(Counter.remote().fail.remote(ValueError, "the text")))
        assert "Sum.fail" in text
        assert "the text" in text

    def test_chained(self) -> None:
        def act() -> None:
            try:
                {}["first"]
            except KeyError as error:
                raise ValueError("second") from error

        error = raised(eagleray.remote(act).remote())
        assert isinstance(error, ValueError)
        assert "first" in str(error)
        assert "second" in str(error)

    def test_that_cannot_be_pickled(self) -> None:
        error = raised(fail.remote(HoldsLock, "the text"))
        assert isinstance(error, TaskError)
        assert "HoldsLock" in str(error)
        assert "the text" in str(error)
        assert isinstance(error, HoldsLock)
        assert error.cause is None

    def test_no_exception(self) -> None:
        with pytest.raises(TaskError):
            eagleray.get(fail.remote(GeneratorExit))

    def test_keyboard_interrupt(self) -> None:
        with pytest.raises(TaskCancelledError):
            eagleray.get(fail.remote(KeyboardInterrupt))

    def test_unpicklable_result(self) -> None:
        def act() -> Any:
            return threading.Lock()

        error = raised(eagleray.remote(act).remote())
        assert isinstance(error, TypeError)
        assert "lock" in str(error)

    def test_pickles(self) -> None:
        error = raised(fail.remote(KeyError, "k"))
        again = pickle.loads(pickle.dumps(error))
        assert isinstance(again, KeyError)
        assert isinstance(again, TaskError)
        assert type(again.cause) is KeyError

    def test_each_get_has_its_own(self) -> None:
        """A traceback that grew with each raise would keep what the frames hold."""
        ref = fail.remote(KeyError, "k")
        assert raised(ref) is not raised(ref)


class TestDownstream:
    def test_the_same_class(self) -> None:
        error = raised(add.remote(add.remote(fail.options(name="source").remote(KeyError, "k"), 1), 1))
        assert isinstance(error, KeyError)
        assert type(error.cause) is KeyError
        assert "source" in str(error)

    def test_of_what_a_task_gets(self) -> None:
        def outer(refs: list[Any]) -> Any:
            return eagleray.get(refs[0])

        error = raised(eagleray.remote(outer).remote([fail.remote(KeyError, "k")]))
        assert isinstance(error, KeyError)
        assert "in outer" in str(error)

    def test_is_caught_in_a_task(self) -> None:
        def careful(refs: list[Any]) -> str:
            try:
                eagleray.get(refs[0])
            except KeyError as error:
                return f"caught {type(error.cause).__name__}" if isinstance(error, TaskError) else "no TaskError"
            return "nothing"

        assert eagleray.get(eagleray.remote(careful).remote([fail.remote(KeyError, "k")])) == "caught KeyError"

    def test_of_a_dead_worker(self) -> None:
        crash = die.options(max_retries=0).remote()
        for ref in (crash, add.remote(crash, 1)):
            error = raised(ref)
            assert isinstance(error, WorkerCrashedError)
            assert "7" in str(error)

    def test_of_a_dead_actor(self) -> None:
        counter = Counter.remote()
        dead = counter.die.remote()
        for ref in (dead, add.remote(dead, 1), counter.add.remote()):
            assert isinstance(raised(ref), ActorDiedError)

    def test_of_a_cancelled_one(self, tmp_path: Any) -> None:
        pending = until_exists.remote(str(tmp_path / "never"))
        reader = add.remote(pending, "x")
        eagleray.cancel(pending)
        for ref in (pending, reader):
            assert isinstance(raised(ref), TaskCancelledError)

    def test_in_a_graph(self) -> None:
        """`compute` raises the exception itself, as it does for the tasks of a graph."""
        with pytest.raises(KeyError):
            ray_dask_get({"x": fail.remote(KeyError, "k"), "y": (str, "x")}, "y")

    def test_of_a_graph_in_a_task(self) -> None:
        def outer() -> Any:
            return ray_dask_get({"y": (int, "no number")}, "y")

        error = raised(eagleray.remote(outer).remote())
        assert isinstance(error, ValueError)
        assert "no number" in str(error)


def test_first_of_a_list() -> None:
    refs = [echo.remote(1), fail.remote(KeyError, "first"), fail.remote(ValueError, "second")]
    eagleray.wait(refs, num_returns=3)
    with pytest.raises(KeyError, match="first"):
        eagleray.get(refs)


def test_a_failure_does_not_wait_for_what_its_worker_does_next(fresh: None, tmp_path: Path) -> None:
    eagleray.init(num_cpus=1)
    # Now and then the worker is given only one of the two.
    for number in range(5):
        door = tmp_path / str(number)
        failure, waiting = fail.remote(KeyError, number), until_exists.remote(door)
        eagleray.wait([failure])
        door.touch()
        with pytest.raises(KeyError, match=str(number)):
            eagleray.get(failure)
        eagleray.get(waiting)
