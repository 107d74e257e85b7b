"""A table of what a user can do wrong, and the message that results.

Each row: what is done, the class of the exception, and a pattern that its text with all its notes matches.
"""

import ctypes
import os
import pickle
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from dask._task_spec import Alias, Task, TaskRef

import eagleray
from eagleray import ObjectRef
from eagleray.dask import RayDaskCallback, ray_dask_get, ray_dask_get_sync
from eagleray.exceptions import (
    GetTimeoutError,
    MissingKeyError,
    ObjectLostError,
    TaskCancelledError,
    TaskError,
    WorkerCrashedError,
)
from tests import tasks
from tests.tasks import HoldsLock, Prefixed, TwoArguments, add, fail, inc

Row = tuple[str, Callable[[], object], type[BaseException], str]


def table(*rows: Row) -> Any:
    return pytest.mark.parametrize(("do", "error", "text"), [row[1:] for row in rows], ids=[row[0] for row in rows])


def check(do: Callable[[], object], error: type[BaseException], text: str) -> None:
    with pytest.raises(error) as caught:
        do()
    assert re.search(text, "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])]), re.DOTALL)


def compute(*task: Any) -> Any:
    """The task `f-123`, and one that needs it."""
    return ray_dask_get({"f-123": task[0] if isinstance(task[0], Task) else task, "after": (inc, "f-123")}, "after")


def alone(function: Callable[[], object]) -> Any:
    """The task `f-123`, whose result the driver wants."""
    return ray_dask_get({"f-123": (function,)}, "f-123")


def nest(depth: int) -> Any:
    task: Any = 1
    for _ in range(depth):
        task = (inc, task)
    return task


class CannotArrive:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return fail, (ImportError, "not here")


class Stop(BaseException):
    """No `Exception`."""


class Quiet(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    @classmethod
    def fail(cls, code: int) -> None:
        raise cls(code=code)


class BadHash:
    def __hash__(self) -> int:
        raise ZeroDivisionError("no hash today")


def closure() -> Callable[[], object]:
    lock = threading.Lock()
    return lambda: lock


def recurse(n: int) -> int:
    return recurse(n + 1)


def put() -> ObjectRef:
    return eagleray.put(1)


def generate() -> Iterator[int]:
    yield 1


def speak_and_leave(words: str) -> None:
    print(words)
    sys.exit(5)


def shut_down() -> None:
    eagleray.shutdown()


def initialise() -> None:
    eagleray.init(num_cpus=1)


def many_inputs() -> Any:
    graph: dict[Any, Any] = {f"x-{i}": (np.zeros, 10 * i) for i in range(25)}
    return ray_dask_get({**graph, "sum": (fail, ValueError, [*graph])}, "sum")


def hook_that_fails(*args: object) -> None:
    raise LookupError("of a hook")


class Unpicklable:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def hook(self, key: object, values: object) -> None:
        """Is called in workers."""


ARGUMENTS = table(
    ("processors: none", lambda: eagleray.init(num_cpus=0), ValueError, "num_cpus must be at least 1 .*not 0"),
    ("processors: text", lambda: eagleray.init(num_cpus="2"), TypeError, "num_cpus must be a whole number.*not str"),  # type: ignore[arg-type]
    ("processors: half", lambda: eagleray.init(num_cpus=1.5), TypeError, "num_cpus must be.*not float"),  # type: ignore[arg-type]
    (
        "memory: too little",
        lambda: eagleray.init(object_store_memory=9),
        ValueError,
        "object_store_memory must be at least",
    ),
    ("memory: text", lambda: eagleray.init(object_store_memory="1 GB"), TypeError, "whole number of bytes.*not str"),  # type: ignore[arg-type]
    ("flag", lambda: eagleray.init(ignore_reinit_error=1), TypeError, "must be True or False, not int"),  # type: ignore[arg-type]
    ("unknown argument", lambda: eagleray.init(cpus=1), TypeError, "cpus"),  # type: ignore[call-arg]
    ("twice", initialise, RuntimeError, r"initialized already.*shutdown\(\) first"),
    ("get: no ref", lambda: eagleray.get(5), ValueError, "takes an ObjectRef or a list of ObjectRefs, not int"),  # type: ignore[call-overload]
    ("get: list of no refs", lambda: eagleray.get([put(), 1]), TypeError, "item 1 of the list is int"),  # type: ignore[list-item]
    ("get: timeout: text", lambda: eagleray.get(put(), timeout="1"), TypeError, "timeout must be a number.*not str"),  # type: ignore[call-overload]
    ("get: timeout: negative", lambda: eagleray.get(put(), timeout=-1), ValueError, "0 or more seconds, not -1"),
    ("put: ref", lambda: eagleray.put(put()), TypeError, "takes a value, not an ObjectRef"),
    (
        "put: lock",
        lambda: eagleray.put([threading.Lock()]),
        TypeError,
        "value of type _thread.lock cannot be put.*pickled",
    ),
    (
        "wait: one ref",
        lambda: eagleray.wait(put()),
        TypeError,
        "takes a list of ObjectRefs, not eagleray|not ObjectRef",
    ),  # type: ignore[arg-type]
    ("wait: duplicates", lambda: eagleray.wait([put()] * 2), ValueError, "duplicates"),
    (
        "wait: too many",
        lambda: eagleray.wait([put()], num_returns=2),
        ValueError,
        "at most the number of refs, 1, not 2",
    ),
    ("wait: none", lambda: eagleray.wait([put()], num_returns=0), ValueError, "num_returns must be at least 1"),
    ("option: unknown", lambda: ray_dask_get({"a": 1}, "a", workers=2), TypeError, "'workers'. It knows ray_callbacks"),
    ("option: number of workers", lambda: ray_dask_get({"a": 1}, "a", num_workers=0), ValueError, "at least 1, not 0"),
    ("option: text", lambda: ray_dask_get({"a": 1}, "a", num_workers="2"), TypeError, "num_workers must be.*not str"),
    (
        "option: persist",
        lambda: ray_dask_get({"a": 1}, "a", ray_persist="yes"),
        TypeError,
        "ray_persist must be True or",
    ),
    ("option: cache", lambda: ray_dask_get({"a": 1}, "a", cache=[1]), TypeError, "cache must be a mapping.*not list"),
    (
        "callbacks: number",
        lambda: ray_dask_get({"a": 1}, "a", ray_callbacks=5),
        TypeError,
        "ray_callbacks must be.*int",
    ),
    ("callbacks: numbers", lambda: ray_dask_get({"a": 1}, "a", ray_callbacks=[5]), TypeError, "int"),
    ("callbacks: Dask's", lambda: ray_dask_get({"a": 1}, "a", callbacks=5), TypeError, "callbacks must be.*not int"),
    ("callbacks: unknown hook", lambda: RayDaskCallback(ray_before=print), TypeError, "ray_before"),
)


@pytest.mark.usefixtures("shared")
@ARGUMENTS
def test_arguments(do: Callable[[], object], error: type[BaseException], text: str) -> None:
    check(do, error, text)


GRAPHS = table(
    ("no graph: list", lambda: ray_dask_get([1], "a"), TypeError, "graph must be a mapping.*not list"),
    ("no graph: None", lambda: ray_dask_get(None, "a"), TypeError, "graph must be a mapping.*not NoneType"),
    (
        "key that is asked for",
        lambda: ray_dask_get({"sum-1": 1}, "sum-2"),
        MissingKeyError,
        "'sum-2'.*was asked for.*'sum-1'",
    ),
    ("key in a list", lambda: ray_dask_get({"a": 1}, ["a", ["b"]]), KeyError, "Key 'b' is not in the graph"),
    (
        "key of a tuple",
        lambda: ray_dask_get({("x", 0): 1}, ("x", 1)),
        KeyError,
        r"\('x', 1\).*Similar keys: \('x', 0\)",
    ),
    (
        "key that a task needs",
        lambda: ray_dask_get({"a": Task("a", inc, TaskRef("bb")), "b": 1}, "a"),
        KeyError,
        "'bb' is not in the graph, but task 'a' needs it.",
    ),
    (
        "key that an alias needs",
        lambda: ray_dask_get({"a": Alias("a", "nowhere")}, "a"),
        KeyError,
        "'nowhere' is not in the graph, but task 'a' needs it.",
    ),
    (
        "alias of itself",
        lambda: ray_dask_get({"a": Alias("a", "a")}, "a"),
        KeyError,
        "'a' has no value: .*alias of itself",
    ),
    ("key that is a dict", lambda: ray_dask_get({"a": 1}, {"a": 1}), TypeError, "unhashable"),
    ("key whose hash fails", lambda: ray_dask_get({"a": 1}, BadHash()), ZeroDivisionError, "no hash today"),
    (
        "cycle",
        lambda: ray_dask_get({"a": (inc, "b"), "b": (inc, "a")}, "a"),
        RuntimeError,
        "'(a|b)' -> '[ab]' -> '\\1'",
    ),
    ("task that needs itself", lambda: ray_dask_get({"a": (inc, "a")}, "a"), RuntimeError, "'a' -> 'a'$"),
    (
        "cycle of aliases",
        lambda: ray_dask_get({"a": Alias("a", "b"), "b": Alias("b", "a")}, "a"),
        RuntimeError,
        "'a' -> 'b' -> 'a'",
    ),
    ("nested too deep", lambda: compute(nest(2000)), RecursionError, "deep"),
    (
        "argument: lock",
        lambda: compute(add, 1, threading.Lock()),
        TypeError,
        r"^Argument 2 \(type _thread.lock\) of task 'f-123' cannot be sent.*cannot pickle '_thread.lock'",
    ),
    (
        "argument by name",
        lambda: compute(Task("f-123", add, 1, y=threading.Lock())),
        TypeError,
        r"^Argument 'y' \(type _thread.lock\) of task 'f-123' ",
    ),
    (
        "argument in a list",
        lambda: compute(add, [1, threading.Lock()], 2),
        TypeError,
        r"^Argument 1 \(type _thread.lock, in a list\) of task 'f-123' ",
    ),
    (
        "argument of an inner call",
        lambda: compute(add, 1, (inc, threading.Lock())),
        TypeError,
        r"^Argument 1 \(type _thread.lock\) of the call of inc in task 'f-123' ",
    ),
    (
        "argument: large",
        lambda: compute(len, np.array([threading.Lock()] * 100_000, dtype=object)),
        TypeError,
        r"^Argument 1 \(type numpy.ndarray\) of task 'f-123' ",
    ),
    (
        "argument: generator",
        lambda: compute(sum, generate()),
        TypeError,
        r"^Argument 1 \(type generator\) of task 'f-123'",
    ),
    (
        "argument: value of a key",
        lambda: ray_dask_get({"lock": threading.Lock(), "f-123": (id, "lock")}, "f-123"),
        TypeError,
        "type _thread.lock.*cannot be sent",
    ),
    (
        "function: of a lock",
        lambda: compute(threading.Lock().acquire),
        TypeError,
        "^The function lock.acquire .* of task 'f-123' cannot be sent",
    ),
    (
        "function: closure over too much",
        lambda: compute(lambda data=bytes(513 << 20): len(data)),
        TypeError,
        r"of task 'f-123' cannot be sent.*513.0 MiB when pickled.*512 MiB.*eagleray.put\(\)",
    ),
    (
        "function: closure over a lock",
        lambda: compute(closure()),
        TypeError,
        "^The function .*lambda.* of task 'f-123' cannot be sent",
    ),
    (
        "hook that cannot be pickled",
        lambda: ray_dask_get({"a": (inc, 1)}, "a", ray_callbacks=RayDaskCallback(ray_pretask=Unpicklable().hook)),
        TypeError,
        "hooks run in workers and must be picklable.*Unpicklable",
    ),
    (
        "hook that fails in the driver",
        lambda: ray_dask_get({"a": (inc, 1)}, "a", ray_callbacks=RayDaskCallback(ray_presubmit=hook_that_fails)),
        LookupError,
        "of a hook",
    ),
    (
        "hook that fails in a worker",
        lambda: ray_dask_get({"a": (inc, 1)}, "a", ray_callbacks=RayDaskCallback(ray_pretask=hook_that_fails)),
        LookupError,
        "of a hook.*Task 'a' failed in worker process .*in hook_that_fails",
    ),
)


@pytest.mark.usefixtures("shared")
@GRAPHS
def test_graphs(do: Callable[[], object], error: type[BaseException], text: str) -> None:
    check(do, error, text)


TASKS = table(
    (
        "raises",
        lambda: compute(fail, ValueError, "boom"),
        ValueError,
        "^boom\nTask 'f-123' failed in worker process.*in fail",
    ),
    (
        "raises, with inputs",
        lambda: ray_dask_get({"x-3": (np.ones, (1000, 1000)), "y": (add, "x-3", "text")}, "y"),
        Exception,
        r"Task 'y'.* Its inputs:\n  x-3: numpy.ndarray, shape \(1000, 1000\), float64, 7.6 MiB\nTraceback there:",
    ),
    ("raises, with many inputs", many_inputs, ValueError, r"x-19: numpy.ndarray, shape \(190,\).*  and 5 more"),
    (
        "raises, with a large argument",
        lambda: compute(fail, ValueError, np.ones(100_000)),
        ValueError,
        r"argument 2: numpy.ndarray, shape \(100000,\)",
    ),
    (
        "raises, with a ref",
        lambda: compute(Task("f-123", fail, ValueError, eagleray.put(np.ones(100_000)))),
        ValueError,
        r"ObjectRef [0-9a-f]+: numpy.ndarray, shape \(100000,\)",
    ),
    (
        "too few arguments",
        lambda: compute(add, 1),
        TypeError,
        "missing 1 required positional argument: 'y'\nTask 'f-123'",
    ),
    ("two arguments", lambda: compute(fail, TwoArguments, 3, "text"), TwoArguments, "^3: text"),
    ("message of its own", lambda: compute(fail, Prefixed, "text"), Prefixed, "^prefix text\n"),
    ("argument by name only", lambda: compute(Task("f-123", Quiet.fail, code=7)), Quiet, "^code 7\n"),
    ("unpicklable exception", lambda: compute(fail, HoldsLock, "text"), HoldsLock, "HoldsLock: text\n.*in fail"),
    (
        "unpicklable exception is also",
        lambda: compute(fail, HoldsLock, "text"),
        TaskError,
        "HoldsLock: text\n.*in fail",
    ),
    ("no Exception", lambda: compute(fail, Stop, "text"), Stop, "^text\nTask 'f-123'"),
    ("chained", lambda: compute(tasks.fail_because, "why"), ValueError, "chained.*KeyError: 'why'.*direct cause"),
    ("StopIteration", lambda: compute(fail, StopIteration), StopIteration, "Task 'f-123'"),
    ("GeneratorExit", lambda: compute(fail, GeneratorExit), TaskError, "GeneratorExit"),
    ("KeyboardInterrupt", lambda: compute(fail, KeyboardInterrupt), TaskCancelledError, "interrupted"),
    ("endless recursion", lambda: compute(recurse, 0), RecursionError, "Task 'f-123'.*Previous line repeated"),
    (
        "result: lock",
        lambda: alone(threading.Lock),
        TypeError,
        r"result of the task \(type _thread.lock\).*Task 'f-123'",
    ),
    ("result: generator", lambda: alone(generate), TypeError, r"result of the task \(type generator\).*Task 'f-123'"),
    (
        "argument that cannot arrive",
        lambda: compute(str, CannotArrive()),
        ImportError,
        "^not here\nUnpickling .* an input in the worker .*\nTask 'f-123'",
    ),
    (
        "result that cannot arrive",
        lambda: alone(CannotArrive),
        ImportError,
        r"^not here\nThe result of task 'f-123' was pickled without an error, but unpickling it in process \d+ raised",
    ),
    (
        "result that cannot arrive, persisted",
        lambda: eagleray.get(ray_dask_get({"f-123": (CannotArrive,)}, "f-123", ray_persist=True)),
        ImportError,
        "^not here\nThe result of task 'f-123' was pickled",
    ),
    (
        "put: cannot arrive",
        lambda: eagleray.get(eagleray.put(CannotArrive())),
        ImportError,
        "^not here\nThe value was pickled",
    ),
    (
        "sys.exit",
        lambda: compute(sys.exit, 3),
        WorkerCrashedError,
        "task 'f-123' exited with code 3. .*sys.exit.*4 times",
    ),
    ("os._exit", lambda: compute(os._exit, 4), WorkerCrashedError, "task 'f-123' exited with code 4. .*MiB of memory"),
    (
        "segmentation fault",
        lambda: compute(ctypes.string_at, 0),
        WorkerCrashedError,
        r"The worker process \d+ that ran task 'f-123' was ended by signal 11 \(SIGSEGV\)\. Native code"
        r".*Its last lines of output:.*Segmentation fault.*in string_at",
    ),
    (
        "words before the end",
        lambda: compute(speak_and_leave, "my last words"),
        WorkerCrashedError,
        r"code 5\..*Its last lines of output:\n  my last words$",
    ),
    ("out of memory", lambda: compute(tasks.die, signal.SIGKILL), WorkerCrashedError, "SIGKILL.*memory runs out.*MiB"),
    ("shutdown in a task", lambda: compute(shut_down), RuntimeError, "cannot shut down the session that runs it"),
    ("init in a task", lambda: compute(initialise), RuntimeError, "initialized already"),
    (
        "get: too slow",
        lambda: eagleray.get(ray_dask_get({"a": (tasks.sleep, 5)}, "a", ray_persist=True), timeout=0),
        GetTimeoutError,
        "not there after 0.0 seconds",
    ),
)


@pytest.mark.usefixtures("shared")
@TASKS
def test_tasks(do: Callable[[], object], error: type[BaseException], text: str) -> None:
    check(do, error, text)


def compute_here(*task: Any) -> Any:
    return ray_dask_get_sync({"x": (inc, 1), "f-123": task[0] if isinstance(task[0], Task) else task}, "f-123")


def compute_here_with_hooks(*task: Any) -> Any:
    callback = RayDaskCallback(ray_presubmit=lambda *args: None)
    graph = {"x": (inc, 1), "f-123": task[0] if isinstance(task[0], Task) else task}
    return ray_dask_get_sync(graph, "f-123", ray_callbacks=callback)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("run", [compute_here, compute_here_with_hooks])
@pytest.mark.parametrize(
    ("task", "error", "text"),
    [
        ((fail, ValueError, "x"), ValueError, "Task 'f-123' failed. Its inputs:\n  x: int, 2$"),
        ((fail, HoldsLock, "x"), HoldsLock, "^2\nTask 'f-123' failed"),
        ((fail, KeyboardInterrupt, "x"), KeyboardInterrupt, "Task 'f-123' failed"),
        ((sys.exit, "x"), SystemExit, "2"),
        ((inc, "f-123"), RuntimeError, "'f-123' -> 'f-123'"),
        ((Task("f-123", inc, TaskRef("y")),), KeyError, "'y' is not in the graph, but task 'f-123' needs it"),
        ((inc, threading.Lock()), TypeError, "unsupported operand"),
    ],
    ids=lambda value: getattr(value, "__name__", "") if isinstance(value, type) else "",
)
def test_in_the_driver(run: Callable[..., object], task: Any, error: type[BaseException], text: str) -> None:
    check(lambda: run(*task), error, text)


@pytest.mark.usefixtures("fresh")
class TestSessions:
    def ended(self) -> ObjectRef:
        eagleray.init(num_cpus=1)
        ref = put()
        eagleray.shutdown()
        return ref

    def test_ref_of_an_ended_session(self) -> None:
        ref = self.ended()
        check(lambda: eagleray.get(ref), ObjectLostError, "session .* has ended")
        check(lambda: eagleray.wait([ref]), ObjectLostError, "session .* has ended")

    def test_ref_of_an_earlier_session(self) -> None:
        ref = self.ended()
        eagleray.init(num_cpus=1)
        check(lambda: eagleray.get(ref), ObjectLostError, "session")
        check(lambda: compute(inc, ref), ObjectLostError, "session")

    def test_pickled_ref_of_an_earlier_session(self) -> None:
        eagleray.init(num_cpus=1)
        pickled = pickle.dumps(put())
        eagleray.shutdown()
        eagleray.init(num_cpus=1)
        check(lambda: pickle.loads(pickled), ObjectLostError, "session that has ended, or of another")

    def test_interpreter_that_cannot_be_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        check(
            lambda: compute(inc, 1), WorkerCrashedError, "No worker process could be started: .*template.*No such file"
        )

    def test_interpreter_that_ends_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        check(
            lambda: compute(inc, 1),
            WorkerCrashedError,
            "No worker process could be started: .*template.*(exit status: 1|Broken pipe)",
        )

    def test_no_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "")
        check(lambda: compute(inc, 1), RuntimeError, "sys.executable does not name")
