"""Remote functions: `remote`, and what a worker calls for one."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, overload

from eagleray import _calls, _engine, _generators, _identity, _options, _running, _signatures, _surroundings
from eagleray._actors import ActorClass
from eagleray._calls import Returns
from eagleray._engine import native
from eagleray._generators import Way
from eagleray._identity import Identity
from eagleray._options import TASK, Checked
from eagleray._runtime_env import RuntimeEnv

__all__ = ["RemoteFunction", "remote"]


@dataclass(frozen=True, slots=True)
class _Form:
    """What a worker does beside calling the function. Functions with the same form share their code."""

    way: Way | None = None
    """How what it yields is handed out, if it is a generator."""
    resources: tuple[tuple[str, float], ...] = ()
    """What the call occupies, if that is not just one CPU."""
    most: int = 0
    """After so many calls the worker ends; 0 for any number."""


_PLAIN = _Form()


class _Called:
    """What a worker calls for a remote function with a form of its own. A pickle of it has the function."""

    def __init__(self, function: Callable[..., Any], form: _Form) -> None:
        self._function = function
        self._form = form

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._form.most:
            _count(self._function, self._form.most)
        with _running.assigned(dict(self._form.resources)):
            value = self._function(*args, **kwargs)
            if self._form.way is None:
                return value
            task = _running.task()
            assert task is not None  # of a worker
            return _generators.hand_out(self._form.way, value, task)


_calls_here: Counter[tuple[str, str]] = Counter()
"""In a worker: calls of functions whose calls are limited, by module and name."""


def _count(function: Callable[..., Any], most: int) -> None:
    """Counts a call. With the last one that this process may have, it ends when it has reported."""
    name = (str(getattr(function, "__module__", "")), getattr(function, "__qualname__", ""))
    _calls_here[name] += 1
    if _calls_here[name] >= most:
        native.retire()


class _Codes:
    """What workers call for a function: made when it is first needed, once in a session."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._of: Identity | None = None
        self._codes: dict[_Form, native.RemoteCode] = {}

    def get(self, session: Identity, form: _Form) -> native.RemoteCode:
        if self._of is not session:
            self._codes, self._of = {}, session
        code = self._codes.get(form)
        if code is None:
            target = self._function if form == _PLAIN else _Called(self._function, form)
            code = self._codes[form] = _calls.code(target, self._function)
        return code


@dataclass(slots=True)
class _Ready:
    """What is the same for all calls in a session."""

    session: Identity
    code: native.RemoteCode
    options: native.RemoteOptions
    returns: Returns
    check: Callable[..., None]
    env: RuntimeEnv | None
    around: dict[bytes | None, bytes] = field(default_factory=dict)
    """The latest surroundings and the same with `env`."""

    def surroundings(self) -> bytes | None:
        data = _surroundings.capture_for_call()
        if self.env is None:
            return data
        if data not in self.around:
            self.around = {data: _surroundings.within(self.env, data)}
        return self.around[data]


class RemoteFunction:
    """A function that workers run. Made by `remote`.

    Call it with `.remote()`, which returns at once. `.options()` gives one with other options.
    """

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        """Takes the options of `remote`, and raises what `remote` raises."""
        name = _calls.name_of(function)
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                f"The remote function {name!r} cannot be a coroutine function: nothing in a worker would await it. Have "
                "it call asyncio.run(), or use an actor."
            )
        said = _options.checked(options, TASK, f"the remote function {name!r}")
        _calls.check_streams(said, _calls.is_generator(function), f"the remote function {name!r}")
        self._begin(function, said, _Codes(function), name)
        functools.update_wrapper(self, function, updated=())

    def _begin(self, function: Callable[..., Any], options: Checked, codes: _Codes, name: str) -> None:
        self._function = function
        self._options = options
        self._codes = codes
        self._name = name
        self._ready: _Ready | None = None

    # With these, and no `__reduce__`, a function can refer to itself. Then it is not complete when the state is set, and
    # nothing is asked of it.

    def __getstate__(self) -> tuple[Any, ...]:
        return self._function, self._options, self._name

    def __setstate__(self, state: tuple[Callable[..., Any], Checked, str]) -> None:
        function, options, name = state
        self._begin(function, options, _Codes(function), name)

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Raises TypeError."""
        raise TypeError(
            f"A remote function cannot be called like another: call {self._name}.remote(), which returns an ObjectRef."
        )

    def __repr__(self) -> str:
        return f"RemoteFunction({self._name})"

    def options(self, **options: Any) -> RemoteFunction:
        """The same function with other options; those that are not given are as they are.

        Raises:
            TypeError, ValueError: As of `remote`.
        """
        merged = _calls.merged(self._options, options, TASK, f"the remote function {self._name!r}")
        _calls.check_streams(merged, _calls.is_generator(self._function), f"the remote function {self._name!r}")
        other = RemoteFunction.__new__(RemoteFunction)
        other._begin(self._function, merged, self._codes, self._name)
        functools.update_wrapper(other, self._function, updated=())
        return other

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Has a worker call the function. Returns at once.

        Args:
            *args: Arguments. An `ObjectRef` among them is replaced by its value; one within an argument stays a ref.
            **kwargs: The same.

        Returns:
            A ref to the result; a list of them if `num_returns` is more than 1, None if it is 0, an `ObjectRefGenerator`
            if it is "streaming", which it is for generator functions if nobody says.

        Raises:
            TypeError: The arguments do not fit the function, or cannot be pickled.
        """
        ready = self._ready
        if ready is None or ready.session is not _identity.current:
            ready = self._prepare()
        ready.check(*args, **kwargs)
        refs = native.call(ready.code, args, kwargs, ready.options, ready.surroundings())
        return refs[0] if ready.returns == 1 else _calls.given(refs, ready.returns)

    def _prepare(self) -> _Ready:
        session = _engine.session()
        options, what = self._options, f"the remote function {self._name!r}"
        _options.reachable(options, what)
        taken = _options.demand(options)
        special = taken != {"CPU": 1.0}
        returns = options.get("num_returns")
        generator = _calls.is_generator(self._function)
        if returns is None:
            returns = "streaming" if generator else 1
        most = _options.of(options, TASK, "max_calls")
        again = _options.of(options, TASK, "max_retries")
        way = _calls.way(returns, options, generator, again)
        form = _Form(way, tuple(sorted(taken.items())) if special else (), most)
        said = native.RemoteOptions(
            options.get("name", self._name),
            num_returns=_calls.number(returns),
            resources=taken if special else None,
            alone=most > 0,
            **_calls.retries(options, again),
        )
        code = self._codes.get(session, form)
        check = _signatures.check(self._name, _signatures.parameters(self._function))
        self._ready = ready = _Ready(session, code, said, returns, check, options.get("runtime_env"))
        return ready


@overload
def remote(target: type, /) -> ActorClass: ...  # type: ignore[overload-overlap]  # a class is a callable, too
@overload
def remote(target: Callable[..., Any], /) -> RemoteFunction: ...
@overload
def remote(**options: Any) -> Callable[[Any], Any]: ...
def remote(*args: Any, **options: Any) -> Any:
    """Makes a remote function of a function, and an actor class of a class. A decorator, with or without options.

    Args:
        num_cpus, num_gpus, memory, resources: What a call takes of the node's while it runs, one CPU if nobody says; memory
            in bytes, resources as a dict of names and amounts. An actor takes them while it lives; if nobody says, there
            must be one CPU to place it, and it takes none.
        name: Of a function: what it is called in messages. Of an actor: by what `get_actor` finds it.
        num_returns: How many refs a call gives. For a generator "streaming", an iterator over refs of what it yields; or
            "dynamic", a ref to all of it when it has ended.
        _generator_backpressure_num_objects: How many values nobody has taken there may be before a streaming generator goes
            on; -1, as if nobody says, for any number.
        max_retries: How often a call is made again when its worker died, 3 if nobody says; -1 has no limit.
        retry_exceptions: After which exceptions it is made again, too: True for all, or a list of classes.
        max_calls: After how many calls of the function the worker that runs them ends, and another takes its place: for
            code that leaks. 0, if nobody says, for any number.
        max_restarts: How often an actor is made anew when its process died; -1 has no limit.
        max_task_retries: How often a call of an actor is made again when the actor was made anew.
        max_concurrency: How many calls an actor runs at a time: in threads, or coroutines if it has any (then 1000, if
            nobody says).
        max_pending_calls: How many calls of one handle may wait for their end; -1 for any number.
        namespace, get_if_exists, lifetime: Where an actor's name is known; whether to take the actor that has the name
            already; "detached" for one that lives without handles.
        runtime_env: `env_vars`, `working_dir` and `py_modules` of the call or the actor.
        scheduling_strategy: "DEFAULT", "SPREAD" or a `NodeAffinitySchedulingStrategy`.

    Raises:
        TypeError: It is neither function nor class, or an option is not of its type.
        ValueError: An option is unknown, or cannot have its value.
    """
    if not args:
        return lambda target: _made(target, options)
    if len(args) != 1 or options:
        raise TypeError("remote() takes a function or a class, or options by name, but not both.")
    return _made(args[0], {})


def _made(target: Any, options: Mapping[str, Any]) -> RemoteFunction | ActorClass:
    if isinstance(target, RemoteFunction | ActorClass):
        raise TypeError(f"remote() takes a function or a class, and {target!r} is remote already.")
    if isinstance(target, type):
        return ActorClass(target, options)
    if inspect.isroutine(target) or type(target).__name__ == "cython_function_or_method":
        return RemoteFunction(target, options)
    raise TypeError(f"remote() takes a function or a class, not {type(target).__name__}.")
