"""Remote functions, classes and handles, as far as nothing is called: what they are, and what is said of mistakes."""

import asyncio
import copy
import io
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

import eagleray
import eagleray.actor
import eagleray.runtime_context
from eagleray import (
    _actor_process,
    _errors,
    _failures,
    _futures,
    _handles,
    _identity,
    _output,
    _signatures,
    _surroundings,
)
from eagleray._runtime_env import RuntimeEnv
from eagleray.dask import ray_dask_get
from eagleray.exceptions import ActorDiedError, ObjectLostError, RuntimeEnvSetupError, TaskCancelledError, TaskError
from eagleray.util import ActorPool, deregister_serializer, inspect_serializability, register_serializer
from tests.conftest import until
from tests.tasks import sleep


def add(a: int, b: int = 2, *, c: int = 3) -> int:
    return a + b + c


class Counter:
    start = 3

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def get(self) -> int:
        return self.count

    def add(self, by: int, times: int = 1) -> None:
        self.count += by * times

    @eagleray.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return self.count, self.count

    @staticmethod
    def fixed(x: int) -> int:
        return x

    @classmethod
    def named(cls) -> str:
        return cls.__name__

    def _inner(self) -> None:
        pass


class Waiting(Counter):
    async def later(self) -> None:
        pass


class Yielding(Counter):
    async def items(self) -> Any:
        yield 1


def handle(cls: type) -> eagleray.actor.ActorHandle:
    """A handle to no actor."""
    meta = pickle.dumps(_handles.Kind(cls.__qualname__, _handles.methods_of(cls), {}))
    return eagleray.actor.ActorHandle(eagleray.put(None), meta)


class TestSignatures:
    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [((), {}), ((1, 2, 3), {}), ((1,), {"d": 1}), ((1,), {"a": 2}), ((), {"b": 1})],
    )
    def test_pythons_own_words(self, args: Any, kwargs: Any) -> None:
        with pytest.raises(TypeError) as theirs:
            add(*args, **kwargs)
        with pytest.raises(TypeError) as ours:
            _signatures.check("add", _signatures.parameters(add))(*args, **kwargs)
        assert str(ours.value) == str(theirs.value)

    @pytest.mark.parametrize(("args", "kwargs"), [((1,), {}), ((1, 2), {"c": 3}), ((), {"a": 1})])
    def test_what_fits(self, args: Any, kwargs: Any) -> None:
        _signatures.check("add", _signatures.parameters(add))(*args, **kwargs)

    def test_all_kinds_of_parameters(self) -> None:
        def function(a: Any, /, b: Any = Counter, *args: Any, c: Any, d: Any = 3, **kwargs: Any) -> None: ...

        assert _signatures.parameters(function) == "(a, /, b=None, *args, c, d=None, **kwargs)"
        assert _signatures.parameters(Counter.add, bound=True) == "(by, times=None)"

    def test_unknown_ones_take_anything(self) -> None:
        assert _signatures.parameters(min) is None
        _signatures.check("min", None)(1, x=2)


class TestRemote:
    def test_functions(self) -> None:
        remote = eagleray.remote(add)
        assert (remote.__name__, remote.__wrapped__) == ("add", add)
        assert repr(remote) == "RemoteFunction(add)"
        assert type(eagleray.remote(num_cpus=2)(add)) is type(remote)

    def test_classes(self) -> None:
        remote = eagleray.remote(Counter)
        assert isinstance(remote, eagleray.actor.ActorClass)
        assert repr(remote) == "ActorClass(Counter)"
        assert isinstance(eagleray.remote(num_cpus=2)(Counter), eagleray.actor.ActorClass)

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: eagleray.remote(3), TypeError, "a function or a class, not int"),
            (lambda: eagleray.remote(add, num_cpus=2), TypeError, "options by name, but not both"),
            (lambda: eagleray.remote(eagleray.remote(add)), TypeError, r"RemoteFunction\(add\) is remote already"),
            (lambda: eagleray.remote(eagleray.remote(Counter)), TypeError, r"ActorClass\(Counter\) is remote already"),
            (lambda: eagleray.remote(Waiting.later), ValueError, r"cannot be a coroutine function.*asyncio\.run"),
            (lambda: eagleray.remote(add)(1), TypeError, r"call add\.remote\(\)"),
            (eagleray.remote(Counter), TypeError, r"call Counter\.remote\(\)"),
            (lambda: eagleray.kill(add), ValueError, "handle of an actor, not function"),
            (lambda: eagleray.cancel(add), TypeError, "an ObjectRef, not function"),
            (lambda: eagleray.get_actor(3), TypeError, "name must be a str, not int"),
            (lambda: eagleray.get_actor(""), ValueError, "name is empty"),
            (lambda: eagleray.get_actor(None), ValueError, "name is None"),
            (lambda: eagleray.get_actor("a", namespace=3), TypeError, "namespace must be a str or None, not int"),
            (eagleray.actor.exit_actor, RuntimeError, "this is no actor"),
        ],
    )
    def test_mistakes(self, make: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            make()

    def test_actor_classes_have_what_their_class_has(self) -> None:
        remote = eagleray.remote(Counter)
        assert (remote.start, remote.fixed(2)) == (3, 2)
        assert pickle.loads(cloudpickle.dumps(remote)).start == 3
        with pytest.raises(AttributeError, match=r"The actor class 'Counter' has no attribute 'other'\."):
            remote.other  # noqa: B018

    def test_actor_classes_have_no_children(self) -> None:
        with pytest.raises(TypeError, match="'Counter' cannot be inherited from"):

            class Derived(eagleray.remote(Counter)):  # type: ignore[misc]
                pass

    def test_options_make_another(self) -> None:
        first = eagleray.remote(num_cpus=2, name="x")(add)
        second = first.options(num_cpus=None, max_retries=1)
        assert first._options == {"num_cpus": 2.0, "name": "x"}
        assert second._options == {"name": "x", "max_retries": 1}
        assert eagleray.remote(Counter).options(name="a").options(num_gpus=1)._options == {"name": "a", "num_gpus": 1.0}

    def test_pickles(self) -> None:
        remote = eagleray.remote(num_cpus=2)(add)
        back = pickle.loads(pickle.dumps(remote))
        assert (back._function, back._options, repr(back)) == (add, remote._options, repr(remote))
        back = pickle.loads(pickle.dumps(eagleray.remote(name="a")(Counter)))
        assert (back._cls, back._options) == (Counter, {"name": "a"})

    def test_a_function_that_refers_to_itself_pickles(self) -> None:
        def outer() -> Any:
            @eagleray.remote
            def inner(x: int, y: int = 3) -> Any:
                return inner, x, y

            return inner

        back = pickle.loads(cloudpickle.dumps(outer()))
        again, *rest = back._function(1)
        assert rest == [1, 3]
        assert again._function is back._function


class TestMethods:
    def test_which_there_are(self) -> None:
        own = {name for name in _handles.methods_of(Counter) if not name.startswith("__")}
        assert own == {"get", "add", "pair", "fixed", "named", "_inner"}

    def test_parameters(self) -> None:
        methods = _handles.methods_of(Counter)
        parameters = {name: method.parameters for name, method in methods.items()}
        assert [parameters[name] for name in ("get", "add", "fixed", "named")] == [
            "()",
            "(by, times=None)",
            "(x)",
            "()",
        ]
        assert methods["pair"].options == {"num_returns": 2}

    def test_coroutines_are_seen(self) -> None:
        assert [_handles.has_coroutines(cls) for cls in (Counter, Waiting, Yielding)] == [False, True, True]
        assert _handles.methods_of(Yielding)["items"].generator

    def test_code_of_a_method_is_one(self) -> None:
        assert _actor_process.Method("get", False) == _actor_process.Method("get", False)
        assert hash(_actor_process.Method("get", False)) == hash(_actor_process.Method("get", False))


@pytest.mark.usefixtures("shared")
class TestHandles:
    def test_methods_are_attributes(self) -> None:
        actor = handle(Counter)
        assert repr(actor.get) == "ActorMethod(Counter.get)"
        assert actor.get is actor.get
        assert "add" in dir(actor)

    def test_unknown_method(self) -> None:
        actor = handle(Counter)
        with pytest.raises(
            AttributeError, match=r"class Counter has no method 'got'\. It has _inner, add, fixed, get, named, pair"
        ):
            actor.got  # noqa: B018
        assert not hasattr(actor, "__len__")

    def test_called_directly(self) -> None:
        with pytest.raises(TypeError, match=r"call get\.remote\(\)"):
            handle(Counter).get()

    def test_wrong_arguments_of_a_method(self) -> None:
        method = handle(Counter).add
        with pytest.raises(TypeError, match=r"Counter\.add\(\) missing 1 required positional argument: 'by'"):
            method._check()

    def test_pickles(self) -> None:
        actor = handle(Counter)
        assert copy.copy(actor) == actor
        back = pickle.loads(pickle.dumps([actor, actor.pair.options(name="x")]))
        assert back[0] == actor
        assert hash(back[0]) == hash(actor)
        assert back[0] != handle(Counter)
        assert back[1]._options == {"num_returns": 2, "name": "x"}

    def test_last_handle_goes_without_the_collector(self) -> None:
        actor = handle(Counter)
        ref = actor._eagleray_actor.ref
        method = actor.get
        eagleray.available_resources()  # answered after the put was taken in
        before = eagleray._engine.native.counters()["objects"]
        del actor, ref, method
        until(lambda: eagleray._engine.native.counters()["objects"] < before)

    def test_of_a_session_that_has_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        method = handle(Counter).get
        monkeypatch.setattr(_identity, "current", _identity.Identity("/tmp/other", "n"))
        with pytest.raises(ObjectLostError, match=r"Counter\.get cannot be called: .* a session that has ended"):
            method.remote()


class Odd(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("one")
        self.a, self.b = a, b


class Slotted(Exception):
    __slots__ = ("code",)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def of_call(error: BaseException, attempts: int = 1) -> Any:
    """What `get` raises for a call that raised this."""
    return _errors.task_error(_errors.dump_error(raised(error), (), True), "f", attempts=attempts)


class TestErrorsOfCalls:
    @pytest.mark.parametrize(
        "error", [ValueError("x"), KeyError("k"), Odd(1, 2), ExceptionGroup("g", [OSError(1, "x")]), StopIteration(3)]
    )
    def test_is_of_both_classes(self, error: Exception) -> None:
        got = of_call(error)
        cls = type(error)
        assert isinstance(got, TaskError)
        assert isinstance(got, cls)
        assert type(got.cause) is cls
        assert got.args == (got.cause,)
        assert got.__cause__ is None
        assert type(got).__name__ == f"TaskError({cls.__name__})"

    def test_text_has_the_traceback(self) -> None:
        lines = str(of_call(ValueError("x"), attempts=4)).splitlines()
        assert lines[0].startswith("The call of f failed at attempt 4, the last, in worker process ")
        assert lines[1] == "Traceback (most recent call last):"
        assert lines[-1] == "ValueError: x"

    def test_has_the_attributes_of_the_cause(self) -> None:
        assert (of_call(Odd(1, 2)).a, of_call(Odd(1, 2)).b) == (1, 2)
        assert of_call(FileNotFoundError(2, "no", "file")).filename == "file"
        assert of_call(ImportError("x", name="n")).name == "n"
        slotted = Slotted("x")
        slotted.code = 5
        assert of_call(slotted).code == 5
        with pytest.raises(AttributeError):
            of_call(ValueError()).nothing  # noqa: B018

    def test_pickles(self) -> None:
        got = of_call(Odd(1, 2))
        back = pickle.loads(pickle.dumps(got))
        assert (type(back), str(back), back.a) == (type(got), str(got), 1)
        assert of_call(got).b == 2

    def test_through_several_calls(self) -> None:
        got = of_call(of_call(of_call(KeyError("k"))))
        assert type(got).__name__ == "TaskError(KeyError)"
        assert type(got.cause) is KeyError
        assert str(got).count("The call of f failed") == 3

    def test_with_its_causes(self) -> None:
        error = ValueError("x")
        error.__cause__ = OSError("y")
        assert repr(of_call(error).cause.__cause__) == "OSError('y')"

    def test_what_cannot_be_pickled(self) -> None:
        error = Odd(1, 2)
        error.b = threading.Lock()  # type: ignore[assignment]
        got = of_call(error)
        assert isinstance(got, Odd)
        assert got.cause is None
        assert got.a == 1
        assert str(got).startswith("The call of f failed")
        assert isinstance(of_call(got), Odd)

    def test_a_class_that_cannot_be_derived_from(self) -> None:
        class Final(Exception):
            def __init_subclass__(cls) -> None:
                raise TypeError("no")

        got = of_call(Final("x"))
        assert type(got) is TaskError
        assert type(got.cause) is Final
        assert str(got).startswith("The call of f failed")

    def test_cancelled_is_cancelled(self) -> None:
        assert type(of_call(TaskCancelledError("x"))) is TaskCancelledError
        assert type(of_call(KeyboardInterrupt())) is TaskCancelledError

    def test_of_a_graph_stays_itself(self) -> None:
        got = _errors.task_error(_errors.dump_error(raised(ValueError("x"))), "key")
        assert type(got) is ValueError


class TestWhyAnActorIsDead:
    @pytest.mark.parametrize(
        ("details", "text"),
        [
            ({"end": "killed"}, r"The actor Counter is dead: eagleray\.kill\(\) has ended it\.$"),
            ({"end": "exited"}, r"The actor Counter is dead: it has ended itself with exit_actor\(\)\.$"),
            ({"end": "killed", "restarts": 1}, r"kill\(\) has ended it\. It had been restarted 1 time before\.$"),
            ({"end": "released"}, "the last handle to it was gone"),
            ({"end": "name_taken"}, "The actor Counter was not made: another one has got its name"),
            (
                {"end": "died", "pid": 5, "signal": 9, "peak_bytes": 1 << 20},
                r"its worker process 5 was ended by signal 9 \(SIGKILL\)\. That is how .*1\.0 MiB .*max_restarts",
            ),
            (
                {"end": "died", "pid": 5, "exit_code": 3, "restarts": 2},
                r"exited with code 3\..*been restarted 2 times before\.$",
            ),
        ],
    )
    def test_text(self, details: dict[str, Any], text: str) -> None:
        error = _failures.failure("actor_died", None, {"actor": "Counter", **details})
        assert type(error) is ActorDiedError
        with pytest.raises(ActorDiedError, match=text):
            raise error

    def test_constructor_failed(self) -> None:
        payload = _errors.dump_error(raised(OSError(2, "no such thing")), (), True)
        error = _failures.failure("actor_died", None, {"end": "init", "error": payload, "restarts": 0})
        assert type(error) is ActorDiedError
        assert isinstance(error.__cause__, FileNotFoundError)
        assert str(error).startswith(
            "The actor could not be made, because its constructor raised FileNotFoundError. Trace"
        )
        assert str(error).endswith("no such thing")


def test_exceptions_are_one_tree() -> None:
    exceptions = eagleray.exceptions
    found = [getattr(exceptions, name) for name in exceptions.__all__]
    assert all(issubclass(cls, exceptions.EaglerayError) for cls in found)
    assert exceptions.RayError is exceptions.EaglerayError
    assert issubclass(exceptions.ActorDiedError, exceptions.RayActorError)
    assert issubclass(exceptions.ActorAlreadyExistsError, ValueError)
    assert issubclass(exceptions.GetTimeoutError, TimeoutError)
    assert issubclass(exceptions.OwnerDiedError, exceptions.ObjectLostError)


@pytest.mark.usefixtures("shared")
class TestFutures:
    def test_values_and_errors(self) -> None:
        slow, failed = (eagleray._engine.native.submit({"k": call}, "k").ref(0) for call in ((sleep, 0.3), (int, "x")))
        there = eagleray.put(5)
        futures = [_futures.future(ref) for ref in (slow, failed, there, slow)]
        assert futures[2].result() == 5
        assert isinstance(futures[1].exception(), ValueError)
        assert futures[0].result() == futures[3].result()

    def test_one_thread_for_all(self) -> None:
        slow = eagleray._engine.native.submit({"k": (sleep, 0.3)}, "k").ref(0)
        futures = [_futures.future(slow)] + [_futures.future(eagleray.put(i)) for i in range(100)]
        assert [future.result() for future in futures[1:]] == list(range(100))
        assert [thread.name for thread in threading.enumerate()].count("eagleray-futures") == 1
        futures[0].result()

    def test_cancelled_futures_are_forgotten(self) -> None:
        slow = eagleray._engine.native.submit({"k": (sleep, 0.3)}, "k").ref(0)
        first, second = _futures.future(slow), _futures.future(slow)
        assert first.cancel()
        second.result()
        assert first.cancelled()

    def test_awaited(self) -> None:
        async def main() -> list[Any]:
            async def value(i: int) -> Any:
                return await _Awaitable(eagleray.put(i))

            return await asyncio.gather(*map(value, range(50)))

        assert asyncio.run(main()) == list(range(50))


class _Awaitable:
    def __init__(self, ref: eagleray.ObjectRef) -> None:
        self._ref = ref

    def __await__(self) -> Any:
        return _futures.awaited(self._ref)


@pytest.mark.usefixtures("fresh")
def test_futures_end_with_the_session() -> None:
    eagleray.init(num_cpus=1)
    old = eagleray.put(1)
    slow = _futures.future(eagleray._engine.native.submit({"k": (sleep, 600)}, "k").ref(0))
    eagleray.shutdown()
    assert isinstance(slow.exception(), RuntimeError)
    with pytest.raises(ObjectLostError, match=r"session .* has ended"):
        _futures.future(old)
    eagleray.init(num_cpus=1)
    with pytest.raises(ObjectLostError, match="of a session that has ended"):
        _futures.future(old)
    assert _futures.future(eagleray.put(2)).result() == 2


def context_of_task() -> tuple[Any, ...]:
    context = eagleray.get_runtime_context()
    return (
        context.get_node_id(),
        context.get_job_id(),
        context.namespace,
        context.get_task_id(),
        context.get_worker_id(),
    )


class TestRuntimeContext:
    @pytest.mark.usefixtures("fresh")
    def test_of_driver_and_task(self) -> None:
        eagleray.init(num_cpus=1, namespace="mine")
        context = eagleray.get_runtime_context()
        here = context_of_task()
        node, job, namespace, task, worker = ray_dask_get({"a": (context_of_task,)}, "a")
        assert (node, job, namespace) == here[:3]
        assert (context.get_node_id(), context.namespace) == (node, "mine")
        assert context.node_id.hex() == node
        assert len(bytes.fromhex(node)) == 28
        assert here[3] is None
        assert bytes.fromhex(task)
        assert worker != here[4]
        assert context.get_assigned_resources() == {}

    @pytest.mark.usefixtures("shared")
    def test_of_what_is_no_actor(self) -> None:
        context = eagleray.runtime_context.get_runtime_context()
        assert (context.get_actor_id(), context.get_actor_name(), context.was_current_actor_reconstructed) == (
            None,
            None,
            False,
        )
        with pytest.raises(RuntimeError, match="this is no actor"):
            context.current_actor  # noqa: B018

    @pytest.mark.parametrize(("visible", "gpus"), [("", []), ("0, 2", [0, 2]), ("GPU-a,1", ["GPU-a", "1"])])
    def test_gpus(self, monkeypatch: pytest.MonkeyPatch, visible: str, gpus: list[Any]) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert eagleray.get_gpu_ids() == gpus


class TestInit:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"num_cpu": 2}, TypeError, "does not know the argument 'num_cpu'. It knows address, num_cpus, "),
            ({"local_mode": True}, ValueError, "ray_dask_get_sync"),
            ({"address": "10.0.0.1:6379"}, ValueError, "'local' or 'auto', not '10.0.0.1:6379'"),
            ({"address": 3}, TypeError, "address must be a str or None, not int"),
            ({"namespace": ""}, ValueError, "namespace is empty"),
            ({"namespace": 3}, TypeError, "namespace must be a str"),
            ({"log_to_driver": "no"}, TypeError, "True or False"),
            ({"runtime_env": {"conda": "x"}}, ValueError, "cannot have 'conda'"),
        ],
    )
    def test_mistakes(self, fresh: None, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            eagleray.init(num_cpus=1, **arguments)
        assert not eagleray.is_initialized()

    def test_arguments_of_ray(self, fresh: None) -> None:
        eagleray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            dashboard_port=8265,
            _system_config={"x": 1},
            local_mode=False,
        )
        assert eagleray.is_initialized()

    def test_no_dashboard(self, fresh: None) -> None:
        with pytest.warns(UserWarning, match="no dashboard"):
            eagleray.init(num_cpus=1, include_dashboard=True)

    def test_quiet(self, fresh: None, capfd: pytest.CaptureFixture[str]) -> None:
        eagleray.init(num_cpus=1, log_to_driver=False)
        ray_dask_get({"a": (print, "not to be seen")}, "a")
        _output.drain()
        assert "not to be seen" not in "".join(capfd.readouterr())

    def test_surroundings_of_all(self, fresh: None) -> None:
        import os

        eagleray.init(num_cpus=1, runtime_env={"env_vars": {"EAGLERAY_TEST": "all"}})
        assert ray_dask_get({"a": (os.getenv, "EAGLERAY_TEST")}, "a") == "all"
        assert "EAGLERAY_TEST" not in os.environ


class TestSurroundings:
    @pytest.fixture(autouse=True)
    def restored(self) -> Iterator[None]:
        yield
        _surroundings._kept = False
        _surroundings._restore()
        _surroundings.begin()

    def test_of_a_call(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        import os
        import sys

        monkeypatch.chdir(os.getcwd())  # which is entered again at the end
        _surroundings.begin()
        assert _surroundings.capture_for_call() is None
        monkeypatch.setenv("EAGLERAY_TEST", "1")
        outer = _surroundings.capture_for_call()
        data = _surroundings.within(RuntimeEnv((("EAGLERAY_MORE", "2"),), str(tmp_path), (str(tmp_path),)), outer)
        monkeypatch.delenv("EAGLERAY_TEST")
        here, path = os.getcwd(), list(sys.path)
        _surroundings.apply(data)
        assert (os.environ["EAGLERAY_TEST"], os.environ["EAGLERAY_MORE"]) == ("1", "2")
        assert (os.getcwd(), sys.path) == (str(tmp_path), [str(tmp_path), *path])
        _surroundings.keep()
        _surroundings.apply(None)
        assert os.getcwd() == str(tmp_path)
        _surroundings._kept = False
        _surroundings.apply(None)
        assert (os.getcwd(), sys.path) == (here, path)
        assert "EAGLERAY_MORE" not in os.environ

    def test_directory_that_is_gone(self) -> None:
        _surroundings.begin()
        with pytest.raises(RuntimeEnvSetupError, match="cannot enter the working directory"):
            _surroundings.apply(_surroundings.within(RuntimeEnv(working_dir="/no/such"), None))


class Guarded:
    def __init__(self, value: int) -> None:
        self.value = value
        self.lock = threading.Lock()


class TestSerialization:
    @pytest.mark.usefixtures("shared")
    def test_registered(self) -> None:
        register_serializer(Guarded, serializer=lambda guarded: guarded.value, deserializer=Guarded)
        try:
            assert eagleray.get(eagleray.put(Guarded(3))).value == 3
        finally:
            deregister_serializer(Guarded)
        with pytest.raises(TypeError, match="lock"):
            eagleray.put(Guarded(3))

    def test_mistakes(self) -> None:
        with pytest.raises(TypeError, match="takes a class, not int"):
            register_serializer(3, serializer=str, deserializer=str)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="deserializer must be a function, not int"):
            register_serializer(Guarded, serializer=str, deserializer=3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="depth must be 0 or more"):
            inspect_serializability(3, depth=-1)

    def test_inspected(self) -> None:
        guarded = Guarded(3)

        def function() -> Any:
            return [guarded]

        out = io.StringIO()
        fine, found = inspect_serializability(function, print_file=out)
        assert not fine
        assert [(failure.name, failure.obj) for failure in found] == [("attribute 'lock'", guarded.lock)]
        assert "variable of the enclosing function 'guarded'" in out.getvalue()
        assert inspect_serializability(3) == (True, [])


class TestPool:
    def test_no_results(self) -> None:
        pool = ActorPool([])
        assert not pool.has_next()
        assert not pool.has_free()
        assert pool.pop_idle() is None
        with pytest.raises(StopIteration):
            pool.get_next()

    @pytest.mark.usefixtures("shared")
    def test_order_and_actors(self) -> None:
        first, second = handle(Counter), handle(Counter)
        pool = ActorPool([first, second])
        assert list(pool.map(lambda _, value: eagleray.put(value), range(5))) == list(range(5))
        assert sorted(pool.map_unordered(lambda _, value: eagleray.put(value), range(5))) == list(range(5))
        assert pool.pop_idle() in (first, second)
        with pytest.raises(ValueError, match="in the pool already"):
            pool.push(first if first in pool._idle else second)
        with pytest.raises(TypeError, match="the ObjectRef of a call, not int"):
            pool.submit(lambda _, value: value, 3)
        assert pool.has_free()
