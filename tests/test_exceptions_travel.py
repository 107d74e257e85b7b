"""Exceptions on their way from a worker to the driver: the class stays, with what the exception holds."""

import asyncio
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray import _engine, _errors
from eagleray.dask import ray_dask_get, ray_dask_get_sync
from eagleray.exceptions import TaskError
from tests.tasks import HoldsLock, Prefixed, TwoArguments, fail


def travel(error: BaseException) -> BaseException:
    return _errors.task_error(_errors.dump_error(error), "key")


class ByName(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__("text")
        self.code = code


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class NoSuchFile(FileNotFoundError):
    def __init__(self, name: str) -> None:
        super().__init__(2, "not here", name)


class BadText(UnicodeDecodeError):
    def __init__(self, place: int) -> None:
        super().__init__("utf-8", b"abc", place, place + 1, "bad")


class NoModule(ImportError):
    def __init__(self, place: int) -> None:
        super().__init__(f"at {place}", name="module", path="here")


class ComesBackAsAnother(Exception):
    def __reduce__(self) -> Any:
        return ValueError, ("another",)


class DoesNotComeBack(Exception):
    def __reduce__(self) -> Any:
        return fail, (RuntimeError, "unpickling")


class Stop(BaseException):
    pass


class Restricted(Exception):
    """Cannot be derived from, nor pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __init_subclass__(cls) -> None:
        raise TypeError("no")


class TestClassAndContents:
    @pytest.mark.parametrize(
        "error",
        [
            ByName(code=3),
            Slotted(3),
            Frozen(3),
            NoSuchFile("name"),
            BadText(1),
            NoModule(3),
            ComesBackAsAnother("text"),
            DoesNotComeBack("text"),
            Stop("text"),
            ValueError("text", 1),
            ValueError(TwoArguments(1, "inner")),
            TimeoutError("late"),
            SyntaxError("bad", ("file", 1, 2, "text")),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_stay(self, error: BaseException) -> None:
        for back in (travel(error), travel(travel(error))):
            assert type(back) is type(error)
            assert str(back) == str(error)
            assert getattr(back, "code", None) == getattr(error, "code", None)
            for name in ("filename", "errno", "start", "name", "path", "lineno"):
                assert getattr(back, name, None) == getattr(error, name, None)
            assert "'key'" in back.__notes__[-1]

    def test_notes_of_the_user_come_first(self) -> None:
        error = ValueError("x")
        error.add_note("mine")
        assert travel(error).__notes__[0] == "mine"

    def test_group(self) -> None:
        inner = ExceptionGroup("inner", [Prefixed("x")])
        back = travel(ExceptionGroup("outer", [ByName(code=3), inner, HoldsLock("y")]))
        assert type(back) is ExceptionGroup
        first, second, third = back.exceptions
        assert isinstance(first, ByName)
        assert first.code == 3
        assert isinstance(second, ExceptionGroup)
        assert str(second.exceptions[0]) == "prefix x"
        assert isinstance(third, HoldsLock)
        assert isinstance(third, TaskError)

    def test_group_of_no_exceptions(self) -> None:
        back = travel(BaseExceptionGroup("g", [Stop("x"), ValueError("y")]))
        assert isinstance(back, BaseExceptionGroup)
        assert [type(member) for member in back.exceptions] == [Stop, ValueError]

    def test_causes(self) -> None:
        error = ValueError("last")
        error.__cause__ = TwoArguments(1, "middle")
        error.__cause__.__cause__ = HoldsLock("first")
        back = travel(error)
        assert isinstance(back.__cause__, TwoArguments)
        assert isinstance(back.__cause__.__cause__, HoldsLock)

    def test_causes_in_a_circle(self) -> None:
        error, cause = ValueError("a"), KeyError("b")
        error.__cause__, cause.__cause__ = cause, error
        assert type(travel(error)) is ValueError

    def test_argument_that_holds_the_exception(self) -> None:
        error = ValueError("x")
        error.args = ("x", error)
        assert isinstance(travel(error), ValueError)

    def test_large_exception_is_cut(self) -> None:
        payload = _errors.dump_error(ValueError("x" * (32 << 20)))
        assert len(payload) < 1 << 20
        back = _errors.task_error(payload, "key")
        assert isinstance(back, ValueError)
        assert len(str(back)) < 1 << 17


class TestStandIn:
    def test_is_of_the_class_and_has_the_attributes_that_travel(self) -> None:
        error = HoldsLock("text")
        error.code = 3  # type: ignore[attr-defined]
        for back in (travel(error), travel(travel(error)), pickle.loads(pickle.dumps(travel(error)))):
            assert isinstance(back, HoldsLock)
            assert isinstance(back, TaskError)
            assert back.text == "text"
            assert back.type_name == "tests.tasks.HoldsLock"
            assert not hasattr(back, "lock")
        assert travel(error).code == 3  # type: ignore[attr-defined]

    def test_class_that_cannot_be_derived_from(self) -> None:
        back = travel(Restricted())
        assert type(back) is TaskError
        assert back.type_name.endswith("Restricted")

    @pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError("x")], ids=repr)
    def test_what_would_end_the_driver_or_a_coroutine(self, error: BaseException) -> None:
        back = travel(error)
        assert type(back) is TaskError
        assert back.type_name.endswith(type(error).__name__)


def inner_fails(value: int) -> Any:
    return ray_dask_get({"inner": (fail, ValueError, "deep", value)}, "inner")


@pytest.mark.usefixtures("shared")
class TestNotes:
    def test_nested_computes_name_both_keys_and_show_no_frames_of_ours(self) -> None:
        with pytest.raises(ValueError, match="deep") as caught:
            ray_dask_get({"outer": (inner_fails, 3)}, "outer")
        inner, outer = caught.value.__notes__
        assert inner.startswith("Task 'inner' failed in worker process")
        assert outer.startswith("Task 'outer' failed in worker process")
        assert "in fail" in inner
        assert "in inner_fails" in outer
        assert os.path.dirname(eagleray.__file__) not in inner + outer

    def test_threads_get_their_own(self) -> None:
        notes: dict[int, list[str]] = {}

        def work(number: int) -> None:
            for _ in range(20):
                with pytest.raises(ValueError, match=f"^boom {number}") as caught:
                    ray_dask_get({"x": (int, number), f"k{number}": (fail_with, "x")}, f"k{number}")
                notes.setdefault(number, []).extend(caught.value.__notes__)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(4):
            assert len(notes[number]) == 20
            assert all(
                note.startswith(f"Task 'k{number}' ") and f"x: int, {number}\n" in note for note in notes[number]
            )

    def test_ref_that_is_asked_for_again(self) -> None:
        ref = ray_dask_get({"a": (fail, ValueError, "boom")}, "a", ray_persist=True)
        for _ in range(3):
            with pytest.raises(ValueError, match="boom") as caught:
                eagleray.get(ref)
            assert len(caught.value.__notes__) == 1


def fail_with(number: int) -> None:
    raise ValueError(f"boom {number}")


def test_in_the_driver_it_is_the_exception_itself_with_its_traceback() -> None:
    error = HoldsLock("mine")

    def fails() -> None:
        raise error

    with pytest.raises(HoldsLock) as caught:
        ray_dask_get_sync({"a": (fails,)}, "a")
    assert caught.value is error
    assert caught.traceback[-1].name == "fails"


def test_classes_of_the_program_itself() -> None:
    program = """
    import eagleray
    from eagleray.dask import ray_dask_get

    class Mine(Exception):
        def __init__(self, a, *, b):
            super().__init__(f"{a} {b}")
            self.b = b

    class Stop(BaseException):
        pass

    def raises(kind, *args, **kwargs):
        raise kind(*args, **kwargs)

    def group():
        raise ExceptionGroup("g", [Mine(1, b=2), ValueError(3)])

    if __name__ == "__main__":
        from dask._task_spec import Task
        eagleray.init(num_cpus=1)
        try:
            ray_dask_get({"a": Task("a", raises, Mine, 1, b=2)}, "a")
        except Mine as error:
            print(type(error) is Mine, error, error.b)
        try:
            ray_dask_get({"a": (group,)}, "a")
        except* Mine as errors:
            print(errors.exceptions)
        except* ValueError as errors:
            print(errors.exceptions)
        try:
            ray_dask_get({"a": (raises, Stop, 1)}, "a")
        except Stop as error:
            print(repr(error))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.splitlines() == ["True 1 2 2", "(Mine('1 2'),)", "(ValueError(3),)", "Stop(1)"]
    assert not done.stderr


@pytest.mark.usefixtures("shared")
class TestRefs:
    """The graph is gone when the error comes."""

    def failing(self) -> Any:
        return ray_dask_get(
            {"x": (int, 3), "bad": (fail_with, "x"), "after": (str, "bad")}, ["after"], ray_persist=True
        )

    def check(self, notes: list[str]) -> None:
        (note,) = notes
        assert note.startswith("Task 'bad' failed in worker process")
        assert "  x: int, 3\n" in note

    def test_asked_for(self) -> None:
        (ref,) = self.failing()
        with pytest.raises(ValueError, match="boom 3") as caught:
            eagleray.get(ref)
        self.check(caught.value.__notes__)

    def test_in_another_graph(self) -> None:
        (ref,) = self.failing()
        with pytest.raises(ValueError, match="boom 3") as caught:
            ray_dask_get({"b": (len, ref)}, "b")
        self.check(caught.value.__notes__)

    def test_keys_go_with_the_last_ref(self) -> None:
        refs = ray_dask_get({"a": (int, 3), "b": (int, 4)}, ["a", "b"], ray_persist=True)
        graph = int(refs[0].hex()[:16], 16)
        known = [_engine.native.task_key(graph, index) for index in range(3)]
        assert known == ["a", "b", None]
        last = refs[1]
        del refs
        assert _engine.native.task_key(graph, 0) == "a"
        del last
        assert _engine.native.task_key(graph, 0) is None
