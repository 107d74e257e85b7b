"""The process of an actor: its instance, and how calls of it run: one by one, in threads, or as coroutines."""

from __future__ import annotations

import atexit
import contextvars
import gc
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from eagleray import _generators, _identity, _running, _surroundings, _worker_output
from eagleray._engine import native
from eagleray._generators import Way
from eagleray._running import Task
from eagleray.exceptions import TaskCancelledError

if TYPE_CHECKING:
    import asyncio

_TOGETHER = 3600.0
"""Seconds that a thread sleeps at a time while its process is being ended."""


class Plan(NamedTuple):
    """How an actor is to be made. Comes behind the positional arguments of the constructor."""

    name: str | None
    namespace: str
    concurrency: int
    coroutines: bool
    """Whether calls are coroutines, or functions that are called where coroutines run."""
    resources: dict[str, float]
    """What it occupies while it lives."""
    meta: bytes


# What workers call.


class Create:
    """Makes the actor of this process. A pickle of it has the class."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __call__(self, *given: Any, **kwargs: Any) -> None:
        """Takes the arguments of the constructor, and as the last positional one the plan: so messages count right."""
        global _process
        *args, plan = given
        task = native.current_task()
        assert task is not None  # of a worker's main thread
        _running.actor = _running.Here(task, plan.name, plan.namespace, plan.resources, plan.meta)
        process = _way(plan, task)
        try:
            process.make(lambda: self._cls(*args, **kwargs))
        except BaseException:
            _running.actor = None
            raise
        if not isinstance(process, _OneByOne):
            native.set_cancel_deferred(process.cancel)
        _worker_output.call_it(_shown(process.instance))
        _surroundings.keep()
        _process = process


def _shown(instance: object) -> str:
    """What the output of an actor is marked with: its class, or what it says of itself."""
    cls = type(instance)
    if cls.__repr__ is object.__repr__:
        return cls.__name__
    try:
        return repr(instance) or cls.__name__
    except Exception:
        return cls.__name__


@dataclass(frozen=True, slots=True)
class Method:
    """Calls a method of this process's actor."""

    name: str
    way: Way | None
    """How what it yields is handed out, if it is a generator."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _process is None:
            raise RuntimeError(f"The method {self.name!r} was called in a process that has no actor.")
        return _process.call(self, args, kwargs)

    def of(self, instance: object) -> Callable[..., Any]:
        """The method of an instance."""
        own = _OF_ALL.get(self.name)
        function: Callable[..., Any] = getattr(instance, self.name) if own is None else own.__get__(instance)
        return function

    def result(self, value: Any) -> Any:
        """What the call returns, if the method has returned this."""
        return value if self.way is None else _generators.hand_out(self.way, value, _present())

    async def result_async(self, value: Any) -> Any:
        """The same where coroutines run."""
        import asyncio

        # Not whatever can be awaited: an ObjectRef is a result.
        if inspect.iscoroutine(value) or isinstance(value, asyncio.Future):
            value = await value
        if self.way is not None:
            return await _generators.hand_out_async(self.way, value, _present())
        return value


def _present() -> Task:
    task = _running.task()
    assert task is not None  # of a call
    return task


def _ready(_instance: object) -> bool:
    return True


def _terminate(_instance: object) -> None:
    exit_actor()


def _call(instance: object, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return function(instance, *args, **kwargs)


_OF_ALL: dict[str, Any] = {"__ray_ready__": _ready, "__ray_terminate__": _terminate, "__ray_call__": _call}
"""Methods that each actor has."""


# How calls run.


class _Process(Protocol):
    """An instance, and the way in which calls of it run."""

    instance: Any

    def make(self, constructor: Callable[[], Any]) -> None:
        """Makes the instance, and raises what the constructor does."""

    def call(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns what the task does, or a `Deferred` that will have it."""

    def cancel(self, deferred: str) -> None:
        """Cancels a deferred call. It may be over."""


class _OneByOne:
    """Calls run on the main thread, in the order in which they come."""

    instance: Any

    def make(self, constructor: Callable[[], Any]) -> None:
        self.instance = constructor()

    def call(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return method.result(method.of(self.instance)(*args, **kwargs))

    def cancel(self, deferred: str) -> None:
        """There are no deferred ones."""


class _Given:
    """The arguments of a deferred call: once, so that whoever started it does not keep them when it is over."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._given = [(args, kwargs)]

    def to(self, function: Callable[..., Any]) -> Any:
        """Calls a function with them."""
        args, kwargs = self._given.pop()
        return function(*args, **kwargs)


class _Threads:
    """Calls begin in the order in which they come, some at a time. One that has begun is not cancelled."""

    instance: Any

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="eagleray-actor")
        self._calls: dict[str, Future[None]] = {}

    def make(self, constructor: Callable[[], Any]) -> None:
        self.instance = constructor()

    def call(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> native.Deferred:
        deferred = native.defer()
        given = _Given(args, kwargs)
        call = self._pool.submit(_context(native.current_task()).run, self._run, deferred, method, given)
        self._calls[deferred.hex] = call
        call.add_done_callback(lambda call: self._ended(call, deferred, method))
        return deferred

    def _run(self, deferred: native.Deferred, method: Method, given: _Given) -> None:
        try:
            deferred.complete(method.result(given.to(method.of(self.instance))))
        except BaseException as error:
            _fail(deferred, error)
        native.flush_uses()

    def _ended(self, call: Future[None], deferred: native.Deferred, method: Method) -> None:
        self._calls.pop(deferred.hex, None)
        if call.cancelled():
            deferred.fail(_cancelled(method))

    def cancel(self, deferred: str) -> None:
        call = self._calls.get(deferred)
        if call is not None:
            call.cancel()


class _Coroutines:
    """Calls are tasks of an asyncio loop, which has a thread. Functions are called there, too.

    The constructor finds the loop running, but is called on the main thread: what waits for others there gives its slot
    back. What it starts begins when it has returned.
    """

    instance: Any

    def __init__(self, most: int, creation: Task) -> None:
        import asyncio

        self._creation = creation
        self._loop = asyncio.new_event_loop()
        self._most = asyncio.Semaphore(most)
        self._calls: dict[str, asyncio.Task[None]] = {}

    def make(self, constructor: Callable[[], Any]) -> None:
        import asyncio

        asyncio.events._set_running_loop(self._loop)
        try:
            self.instance = _context(self._creation).run(constructor)
        finally:
            asyncio.events._set_running_loop(None)
        threading.Thread(target=self._loop.run_forever, name="eagleray-actor", daemon=True).start()

    def call(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> native.Deferred:
        deferred = native.defer()
        context = _context(native.current_task())
        self._loop.call_soon_threadsafe(self._begin, deferred, method, _Given(args, kwargs), context)
        return deferred

    def _begin(
        self,
        deferred: native.Deferred,
        method: Method,
        given: _Given,
        context: contextvars.Context,
    ) -> None:
        call = self._loop.create_task(self._run(deferred, method, given), context=context)
        self._calls[deferred.hex] = call
        call.add_done_callback(lambda call: self._ended(call, deferred, method))

    def _ended(self, call: asyncio.Task[None], deferred: native.Deferred, method: Method) -> None:
        self._calls.pop(deferred.hex, None)
        if call.cancelled():
            # Before its first step: then nothing of it has run.
            deferred.fail(_cancelled(method))

    async def _run(self, deferred: native.Deferred, method: Method, given: _Given) -> None:
        import asyncio

        try:
            async with self._most:
                deferred.complete(await method.result_async(given.to(method.of(self.instance))))
        except asyncio.CancelledError:
            deferred.fail(_cancelled(method))
        except BaseException as error:
            _fail(deferred, error)
        native.flush_uses()

    def cancel(self, deferred: str) -> None:
        self._loop.call_soon_threadsafe(self._cancel, deferred)

    def _cancel(self, deferred: str) -> None:
        call = self._calls.get(deferred)
        if call is not None:
            call.cancel()


_process: _Process | None = None
"""None before the actor is made, and in workers that are none."""


def _way(plan: Plan, creation: Task) -> _Process:
    if plan.coroutines:
        return _Coroutines(plan.concurrency, creation)
    return _Threads(plan.concurrency) if plan.concurrency > 1 else _OneByOne()


def _context(task: Task | None) -> contextvars.Context:
    """What a call sees that does not run on the main thread, where the next task begins meanwhile."""
    context = contextvars.copy_context()
    context.run(_running.here, task)
    return context


def _cancelled(method: Method) -> TaskCancelledError:
    return TaskCancelledError(f"The call of {method.name} was cancelled.")


def _fail(deferred: native.Deferred, error: BaseException) -> None:
    if isinstance(error, SystemExit):
        # On the main thread this ends the worker, so it does here.
        _flush()
        os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
    deferred.fail(error)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def end() -> None:
    """Ends the actor of this process, if it has one, as a Python program ends: `atexit` functions, finalizers, output."""
    global _process
    if _process is None:
        return
    try:
        atexit._run_exitfuncs()
        _process = None
        gc.collect()
    finally:
        _flush()


def exit_actor() -> NoReturn:
    """Ends the actor that calls it, for good. What it has returned before is kept; this call, and those that wait, fail
    with `ActorDiedError`. Functions registered with `atexit` are called.

    Raises:
        RuntimeError: Called outside of an actor.
    """
    here, session = _running.actor, _identity.current
    if here is None or session is None:
        raise RuntimeError("exit_actor() ends the actor whose method calls it, but this is no actor.")
    atexit._run_exitfuncs()
    _flush()
    itself = native._rebuild_ref(session.session, *here.task)
    native.wait([itself], 1, 0.0)  # with a question all goes out that was not reported
    native.kill_actor(itself, False)
    while True:  # until the process is ended: what comes after the call must not run
        time.sleep(_TOGETHER)
