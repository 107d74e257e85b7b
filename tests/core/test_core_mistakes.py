"""A table of what a user of tasks, actors and objects can do wrong, and the message that results.

Each row: what is done, the class of the exception, and a pattern that its text with all its notes matches.
"""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray import exceptions
from eagleray.exceptions import ActorDiedError, InfeasibleResourceError, ObjectLostError, WorkerCrashedError
from tests.core.remotes import Counter, add, die, echo, numbers
from tests.test_mistakes import CannotArrive, check, table

LOCK = threading.Lock()


class Bad:
    def __init__(self, text: str = "of the constructor") -> None:
        raise LookupError(text)

    def method(self) -> None:
        """Is never called."""


class Locked:
    """Cannot be pickled: neither its class nor what it holds."""

    lock = LOCK


def closure() -> Callable[[], object]:
    lock = threading.Lock()
    return lambda: lock


def dead() -> Any:
    """The handle of an actor that was killed."""
    counter = Counter.remote()
    eagleray.kill(counter)
    return counter


def taken() -> Any:
    """An actor whose name another one has."""
    keep.append(Counter.options(name="taken", get_if_exists=True).remote())
    return Counter.options(name="taken").remote()


def in_task(function: Callable[[], object]) -> Any:
    return eagleray.get(eagleray.remote(function).remote())


def option(**options: Any) -> Callable[[], object]:
    """A task with these options."""
    return lambda: eagleray.get(echo.options(**options).remote(1))


def actor_option(**options: Any) -> Callable[[], object]:
    return lambda: eagleray.get(Counter.options(**options).remote().read.remote())


def method_option(**options: Any) -> Callable[[], object]:
    return lambda: eagleray.get(actor().read.options(**options).remote())


def derive() -> type:
    class More(Counter):
        """Cannot be."""

    return More


keep: list[Any] = []
"""Handles that a row needs for its whole length."""


def actor() -> Any:
    """One for all rows that only ask what its handle does."""
    if not keep:
        keep.append(Counter.options(name="of the table", get_if_exists=True).remote())
    return keep[0]


@pytest.fixture(scope="module", autouse=True)
def release() -> Iterator[None]:
    yield
    keep.clear()


CALLS = table(
    ("function called directly", lambda: add(1, 2), TypeError, r"add\.remote\("),
    ("class called directly", Counter, TypeError, r"Sum\.remote\("),
    ("method called directly", lambda: actor().add(), TypeError, r"add\.remote\("),
    ("too many arguments", lambda: add.remote(1, 2, 3), TypeError, r"add\(\) takes.*were given"),
    ("missing argument", add.remote, TypeError, r"add\(\) missing.*'x'"),
    ("unknown argument", lambda: add.remote(1, z=1), TypeError, r"add\(\) got an unexpected keyword argument 'z'"),
    ("actor: too many arguments", lambda: Counter.remote(1, 2), TypeError, r"Sum\(\) takes.*were given"),
    ("method: too many arguments", lambda: actor().add.remote(1, 2), TypeError, r"add\(\) takes.*were given"),
    (
        "method: unknown argument",
        lambda: actor().add.remote(y=1),
        TypeError,
        r"add\(\) got an unexpected keyword argument 'y'",
    ),
    ("no such method", lambda: actor().ad, AttributeError, "Sum has no method 'ad'.*add"),
    ("attribute of the instance", lambda: actor().total, AttributeError, "Sum has no method 'total'"),
    ("remote: number", lambda: eagleray.remote(5), TypeError, "function or a class.*not int"),
    ("remote: nothing", lambda: eagleray.remote()(5), TypeError, "function or a class.*not int"),
    ("remote: two arguments", lambda: eagleray.remote(lambda: 1, lambda: 2), TypeError, "remote"),
    ("remote: remote function", lambda: eagleray.remote(add), TypeError, "add.*already"),
    ("remote: options after the function", lambda: eagleray.remote(lambda: 1, num_cpus=1), TypeError, "options"),
    ("remote: coroutine function", lambda: eagleray.remote(coroutine), (TypeError, ValueError), "coroutine.*actor"),
    ("derived from an actor class", derive, TypeError, "Sum"),
    ("kill: number", lambda: eagleray.kill(5), (TypeError, ValueError), "kill.*actor.*not int"),
    ("kill: ref", lambda: eagleray.kill(eagleray.put(1)), (TypeError, ValueError), "kill.*actor.*cancel"),
    ("cancel: number", lambda: eagleray.cancel(5), TypeError, "cancel.*ObjectRef.*not int"),
    ("cancel: handle", lambda: eagleray.cancel(actor()), TypeError, "cancel.*ObjectRef.*kill"),
    ("cancel: actor call by force", lambda: eagleray.cancel(actor().read.remote(), force=True), ValueError, "force"),
    ("cancel: flag", lambda: eagleray.cancel(echo.remote(1), force=1), TypeError, "force must be True or False"),
    ("get: handle", lambda: eagleray.get(actor()), (TypeError, ValueError), "ObjectRef.*not ActorHandle"),
    ("get: nested list", lambda: eagleray.get([[echo.remote(1)]]), TypeError, "item 0 of the list is list"),
    ("get: generator", lambda: eagleray.get(stream()), (TypeError, ValueError), "ObjectRefGenerator"),
    ("wait: handle", lambda: eagleray.wait([actor()]), TypeError, "ActorHandle"),
    ("wait: duplicates", lambda: eagleray.wait([echo.remote(1)] * 2), ValueError, "duplicates"),
    ("wait: set", lambda: eagleray.wait({echo.remote(1)}), TypeError, "list of ObjectRefs, not set"),
    ("wait: timeout", lambda: eagleray.wait([echo.remote(1)], timeout=-1), ValueError, "0 or more seconds, not -1"),
    ("get_actor: absent", lambda: eagleray.get_actor("nobody"), ValueError, "nobody"),
    ("get_actor: number", lambda: eagleray.get_actor(5), TypeError, "name must be.*not int"),
    ("get_actor: empty", lambda: eagleray.get_actor(""), ValueError, "name.*empty"),
    ("get_actor: namespace", lambda: eagleray.get_actor("of the table", namespace="x"), ValueError, "of the table.*x"),
    ("get_actor: namespace: number", lambda: eagleray.get_actor("a", namespace=5), TypeError, "namespace must be"),
    ("exit_actor in the driver", eagleray.actor.exit_actor, (TypeError, RuntimeError), "exit_actor.*actor"),
    (
        "exit_actor in a task",
        lambda: in_task(eagleray.actor.exit_actor),
        (TypeError, RuntimeError),
        "exit_actor",
    ),
    ("method: not a method", lambda: eagleray.method(5), TypeError, "method"),
    (
        "method: unknown option",
        lambda: eagleray.method(num_return=2),
        (TypeError, ValueError),
        "num_return.*num_returns",
    ),
    ("init in a task", lambda: in_task(lambda: eagleray.init(num_cpus=1)), RuntimeError, "initialized already"),
    (
        "shutdown in a task",
        lambda: in_task(eagleray.shutdown),
        RuntimeError,
        "cannot shut down the session that runs it",
    ),
)


async def coroutine() -> int:
    return 1


def stream() -> Any:
    return eagleray.remote(numbers).remote(1)


OPTIONS = table(
    ("unknown", option(num_cpu=1), ValueError, "num_cpu.*num_cpus"),
    ("unknown, nothing like it", option(colour="red"), ValueError, "colour.*num_cpus"),
    ("unknown, in the decorator", lambda: eagleray.remote(num_cpu=1)(new_lock), ValueError, "num_cpu.*num_cpus"),
    ("of actors", option(max_restarts=1), ValueError, "max_restarts.*max_retries"),
    ("CPUs: negative", option(num_cpus=-1), ValueError, "num_cpus.*-1"),
    ("CPUs: text", option(num_cpus="2"), TypeError, "num_cpus.*must be a number.*not str"),
    ("CPUs: flag", option(num_cpus=True), TypeError, "num_cpus.*must be a number.*not bool"),
    ("CPUs: NaN", option(num_cpus=float("nan")), ValueError, "num_cpus.*nan"),
    ("GPUs: fraction above one", option(num_gpus=1.5), ValueError, "num_gpus.*whole.*1.5"),
    ("memory: negative", option(memory=-1), ValueError, "memory.*-1"),
    ("resources: no dict", option(resources=5), TypeError, "resources.*must be.*not int"),
    ("resources: CPU", option(resources={"CPU": 1}), ValueError, "num_cpus"),
    ("resources: negative", option(resources={"disk": -1}), ValueError, "disk.*-1"),
    ("resources: text", option(resources={"disk": "1"}), TypeError, "disk.*not str"),
    ("resources: name", option(resources={5: 1}), TypeError, "resources.*int"),
    ("returns: negative", option(num_returns=-1), ValueError, "num_returns.*-1"),
    ("returns: half", option(num_returns=1.5), TypeError, "num_returns.*must be.*not float"),
    ("returns: text", option(num_returns="two"), (TypeError, ValueError), "num_returns.*streaming.*two"),
    ("returns: no generator", option(num_returns="streaming"), ValueError, "streaming.*generator"),
    ("retries: below", option(max_retries=-2), ValueError, "max_retries.*-2"),
    ("retries: text", option(max_retries="3"), TypeError, "max_retries.*must be.*not str"),
    ("exceptions: number", option(retry_exceptions=5), TypeError, "retry_exceptions.*must be.*not int"),
    ("exceptions: no class", option(retry_exceptions=[5]), (TypeError, ValueError), "retry_exceptions.*5"),
    ("calls: negative", option(max_calls=-1), ValueError, "max_calls.*-1"),
    ("name: number", option(name=5), TypeError, "name.*must be.*not int"),
    ("strategy: unknown", option(scheduling_strategy="FAR"), ValueError, "scheduling_strategy.*SPREAD.*FAR"),
    ("environment: number", option(runtime_env=5), TypeError, "runtime_env.*must be.*not int"),
    ("environment: unknown field", option(runtime_env={"env_var": {}}), ValueError, "env_var.*env_vars"),
    ("environment: number in it", option(runtime_env={"env_vars": {"A": 1}}), TypeError, "env_vars.*A"),
    ("environment: no such directory", option(runtime_env={"working_dir": "/nowhere"}), ValueError, "/nowhere"),
    ("actor: unknown", actor_option(max_restart=1), ValueError, "max_restart.*max_restarts"),
    ("actor: of tasks", actor_option(max_retries=1), ValueError, "max_retries.*max_task_retries"),
    ("actor: returns", actor_option(num_returns=2), ValueError, "num_returns"),
    ("actor: restarts", actor_option(max_restarts=-2), ValueError, "max_restarts.*-2"),
    ("actor: restarts: text", actor_option(max_restarts="1"), TypeError, "max_restarts.*must be.*not str"),
    ("actor: task retries", actor_option(max_task_retries=-2), ValueError, "max_task_retries.*-2"),
    ("actor: concurrency", actor_option(max_concurrency=0), ValueError, "max_concurrency.*at least 1.*0"),
    ("actor: concurrency: text", actor_option(max_concurrency="2"), TypeError, "max_concurrency.*must be.*not str"),
    ("actor: name: number", actor_option(name=5), TypeError, "name.*must be.*not int"),
    ("actor: name: empty", actor_option(name=""), ValueError, "name.*empty"),
    ("actor: namespace: number", actor_option(name="n", namespace=5), TypeError, "namespace.*must be.*not int"),
    ("actor: namespace: empty", actor_option(name="n", namespace=""), ValueError, "namespace.*empty"),
    ("actor: lifetime", actor_option(lifetime="long"), ValueError, "lifetime.*detached.*long"),
    ("actor: get_if_exists without a name", actor_option(get_if_exists=True), ValueError, "get_if_exists.*name"),
    ("actor: get_if_exists: number", actor_option(get_if_exists=1, name="n"), TypeError, "get_if_exists.*must be"),
    ("actor: name taken", taken, exceptions.ActorAlreadyExistsError, "taken"),
    ("actor: name taken is a ValueError", taken, ValueError, "get_if_exists|get_actor"),
    ("method: unknown", method_option(num_return=1), (TypeError, ValueError), "num_return.*num_returns"),
    ("method: returns", method_option(num_returns=-1), ValueError, "num_returns.*-1"),
    ("method: returns: half", method_option(num_returns=0.5), TypeError, "num_returns.*must be.*not float"),
)


VALUES = table(
    ("argument: lock", lambda: echo.remote(LOCK), TypeError, r"^Argument 1 .*_thread.lock.*echo.*cannot pickle"),
    ("argument by name", lambda: echo.remote(value=LOCK), TypeError, r"^Argument 'value' .*_thread.lock.*echo"),
    ("argument in a list", lambda: echo.remote([1, LOCK]), TypeError, "_thread.lock, in a list.*echo"),
    ("argument of a method", lambda: actor().add.remote(LOCK), TypeError, r"^Argument 1 .*_thread.lock.*add"),
    ("argument of an actor", lambda: Counter.remote(LOCK), TypeError, r"^Argument 1 .*_thread.lock.*Sum"),
    (
        "function: closure over a lock",
        lambda: eagleray.remote(closure()).remote(),
        TypeError,
        "lambda.*cannot (be sent|pickle)",
    ),
    (
        "class that holds a lock",
        lambda: eagleray.remote(local_class()).remote(),
        TypeError,
        "Local.*cannot (be sent|pickle)",
    ),
    ("put: lock", lambda: eagleray.put([LOCK]), TypeError, "_thread.lock cannot be put"),
    ("put: ref", lambda: eagleray.put(echo.remote(1)), TypeError, "takes a value, not an ObjectRef"),
    ("result: lock", lambda: in_task(new_lock), TypeError, "_thread.lock"),
    ("result of a method: lock", lambda: eagleray.get(actor().call.remote(new_lock)), TypeError, "_thread.lock"),
    ("argument that cannot arrive", lambda: eagleray.get(echo.remote(CannotArrive())), ImportError, "not here"),
    ("result that cannot arrive", lambda: in_task(cannot_arrive), ImportError, "not here"),
    ("returns: other number", lambda: eagleray.get(several((1, 2))), ValueError, "2.*num_returns.*3|num_returns.*3.*2"),
    (
        "returns: no sequence",
        lambda: eagleray.get(several(5)),
        (TypeError, ValueError),
        "int.*num_returns|num_returns.*int",
    ),
    ("ref as a number", lambda: echo.remote(1) + 1, TypeError, "ObjectRef"),
    ("ref as an array", lambda: np.array(echo.remote(1)), TypeError, "ObjectRef"),
    ("future as a sequence", lambda: list(echo.remote([1])), TypeError, "ObjectRef"),
)


def cannot_arrive() -> Any:
    return CannotArrive()


def new_lock() -> Any:
    return threading.Lock()


def local_class() -> type:
    class Local(Locked):
        own = threading.Lock()

    return Local


def several(value: Any) -> Any:
    return echo.options(num_returns=3).remote(value)


ENDS = table(
    (
        "constructor",
        lambda: eagleray.get(eagleray.remote(Bad).remote().method.remote()),
        ActorDiedError,
        "Bad.*LookupError.*of the constructor",
    ),
    ("constructor that needs more", lambda: eagleray.remote(Needs).remote(), TypeError, r"Needs\(\) missing.*'what'"),
    (
        "constructor: unpicklable error",
        lambda: eagleray.get(eagleray.remote(BadLock).remote().method.remote()),
        ActorDiedError,
        "BadLock.*the text",
    ),
    ("handle of a dead actor", lambda: eagleray.get(dead().read.remote()), ActorDiedError, "Sum.*kill"),
    (
        "handle of a dead actor in a task",
        lambda: eagleray.get(eagleray.remote(read).remote([dead()])),
        ActorDiedError,
        "Sum.*kill",
    ),
    ("result of a dead actor", lambda: eagleray.get(add.remote(dead().read.remote(), 1)), ActorDiedError, "Sum.*kill"),
    ("os._exit in an actor", lambda: eagleray.get(Counter.remote().die.remote(5)), ActorDiedError, "Sum.*code 5"),
    (
        "sys.exit in an actor",
        lambda: eagleray.get(Counter.remote().fail.remote(SystemExit, 6)),
        ActorDiedError,
        "Sum.*",
    ),
    ("exit_actor", lambda: eagleray.get(Counter.remote().leave.remote()), ActorDiedError, "Sum.*exit_actor"),
    ("signal", lambda: eagleray.get(Counter.remote().call.remote(suicide)), ActorDiedError, r"Sum.*SIGSEGV"),
    (
        "os._exit in a task",
        lambda: eagleray.get(die.options(max_retries=1).remote()),
        WorkerCrashedError,
        "die.*code 7.*2 times",
    ),
    ("task that can never run", option(num_cpus=1000), InfeasibleResourceError, "echo.*asks for 1000 CPU.*node offers"),
    ("task: no such resource", option(resources={"tape": 1}), InfeasibleResourceError, "echo.*tape.*init"),
    ("task: no such GPU", option(num_gpus=100), InfeasibleResourceError, "echo.*100 GPU"),
    ("actor that can never run", actor_option(num_gpus=100), InfeasibleResourceError, "Sum.*100 GPU"),
    ("actor: no such resource", actor_option(resources={"tape": 1}), InfeasibleResourceError, "Sum.*tape"),
)


class Needs:
    def __init__(self, what: int) -> None:
        self.what = what


class BadLock:
    def __init__(self) -> None:
        from tests.tasks import HoldsLock

        raise HoldsLock("the text")

    def method(self) -> None:
        """Is never called."""


def read(handles: list[Any]) -> Any:
    return eagleray.get(handles[0].read.remote())


def suicide() -> None:
    os.kill(os.getpid(), 11)


@pytest.mark.usefixtures("shared")
@CALLS
def test_calls(do: Callable[[], object], error: Any, text: str) -> None:
    check(do, error, text)


@pytest.mark.usefixtures("shared")
@OPTIONS
def test_options(do: Callable[[], object], error: Any, text: str) -> None:
    check(do, error, text)


@pytest.mark.usefixtures("shared")
@VALUES
def test_values(do: Callable[[], object], error: Any, text: str) -> None:
    check(do, error, text)


@pytest.mark.usefixtures("shared")
@ENDS
def test_ends(do: Callable[[], object], error: Any, text: str) -> None:
    check(do, error, text)


@pytest.mark.usefixtures("fresh")
class TestSessions:
    """What belongs to a session that has ended says so."""

    def test_ref(self) -> None:
        eagleray.init(num_cpus=1)
        ref = echo.remote(1)
        eagleray.shutdown()
        eagleray.init(num_cpus=1)
        counter = Counter.remote()
        for do in (
            lambda: eagleray.get(ref),
            lambda: eagleray.wait([ref]),
            lambda: eagleray.put([ref]),
            lambda: echo.remote(ref),
            lambda: echo.remote([ref]),
            lambda: echo.remote(value={"ref": [ref]}),
            lambda: eagleray.remote(lambda: ref).remote(),
            lambda: eagleray.cancel(ref),
            lambda: Counter.remote(ref),
            lambda: Counter.remote([ref]),
            lambda: counter.add.remote([ref]),
        ):
            check(do, ObjectLostError, "session")

    def test_handle(self) -> None:
        eagleray.init(num_cpus=1)
        counter = Counter.remote()
        eagleray.shutdown()
        check(counter.read.remote, (ObjectLostError, ActorDiedError), "session")
        eagleray.init(num_cpus=1)
        for do in (
            counter.read.remote,
            lambda: eagleray.kill(counter),
            lambda: echo.remote(counter),
            lambda: echo.remote([counter]),
            lambda: eagleray.remote(lambda: counter).remote(),
        ):
            check(do, (ObjectLostError, ActorDiedError), "session")

    def test_names_of_an_earlier_one(self) -> None:
        """Graphs of each session are numbered from the first on, so their names must not be taken for those of another."""

        class First:
            pass

        eagleray.init(num_cpus=1)
        eagleray.remote(First).remote()
        eagleray.shutdown()
        eagleray.init(num_cpus=1)
        check(lambda: eagleray.get(Counter.remote().die.remote()), ActorDiedError, "actor Sum is dead")

    def test_functions_and_classes_are_of_no_session(self) -> None:
        for total in (1, 2):
            eagleray.init(num_cpus=1)
            assert eagleray.get(add.remote(total, 1)) == total + 1
            assert eagleray.get(Counter.remote(total).read.remote()) == total
            eagleray.shutdown()

    def test_names_of_the_session_before(self) -> None:
        """Both number their graphs alike."""
        eagleray.init(num_cpus=1)
        counter = Counter.remote()
        old = [counter.add.remote(1) for _ in range(3)]
        eagleray.get(old)
        eagleray.shutdown()
        eagleray.init(num_cpus=1)
        for number in range(30):
            ref = echo.options(name=f"number {number}").remote(1)
            eagleray.get(ref)
            eagleray.cancel(ref, force=True)  # a ValueError for a call of an actor

    def test_without_a_session(self) -> None:
        """A call starts one; what asks about one that is not there says so."""
        check(lambda: eagleray.get_actor("nobody"), (RuntimeError, ValueError), "nobody|session|init")
        eagleray.shutdown()
        assert eagleray.get(add.remote(1, 1)) == 2
