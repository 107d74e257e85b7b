"""Remote classes, and the handles by which their instances are called. What happens in the worker is `_actor_process`."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from eagleray import _actor_process, _calls, _engine, _identity, _options, _pickling, _signatures, _surroundings
from eagleray._calls import Returns
from eagleray._engine import ObjectRef, native
from eagleray._identity import Identity
from eagleray._options import ACTOR, METHOD, Checked
from eagleray.exceptions import ActorAlreadyExistsError, ObjectLostError, PendingCallsLimitExceeded

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "get_actor", "kill", "method"]

_METHOD_OPTIONS = "__eagleray_method__"
"""Where `method` leaves its options."""

_OF_ALL = {"__ray_ready__": "()", "__ray_terminate__": "()", "__ray_call__": "(function, /, *args, **kwargs)"}
"""Methods that each actor has, and their parameters."""


class _Method(NamedTuple):
    """What a handle knows of a method."""

    parameters: str | None
    generator: bool
    options: Checked


class _Kind(NamedTuple):
    """What a handle knows of its actor beside where it is."""

    class_name: str
    methods: dict[str, _Method]
    options: Checked
    """Those that say how it is called."""


@lru_cache(maxsize=1024)
def _kind(meta: bytes) -> _Kind:
    kind: _Kind = pickle.loads(meta)
    return kind


def method(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives options to a method of a remote class. A decorator.

    Args:
        num_returns: How many refs a call gives.
        name: What a call is called in messages.
        max_task_retries: How often a call is made again when the actor was made anew.
        retry_exceptions: After which exceptions it is made again, too.

    Raises:
        TypeError: An option is not of its type.
        ValueError: An option is unknown, or cannot have its value.
    """
    said = _options.checked(options, METHOD, "method()")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        setattr(function, _METHOD_OPTIONS, said)
        return function

    return decorate


def _is_method(name: str) -> bool:
    return not (name.startswith("__") and name.endswith("__")) or name == "__call__"


def _methods(cls: type) -> dict[str, _Method]:
    found = {}
    for name in dir(cls):
        function = inspect.getattr_static(cls, name)
        bound = not isinstance(function, staticmethod)
        function = getattr(function, "__func__", function)
        if _is_method(name) and callable(function) and not isinstance(function, type):
            parameters = _signatures.parameters(function, bound=bound)
            generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
            found[name] = _Method(parameters, generator, getattr(function, _METHOD_OPTIONS, {}))
    return found | {name: _Method(parameters, False, {}) for name, parameters in _OF_ALL.items()}


def _has_coroutines(cls: type) -> bool:
    functions = [inspect.getattr_static(cls, name) for name in dir(cls)]
    return any(
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        for function in (getattr(function, "__func__", function) for function in functions)
    )


# Calls.


@dataclass(slots=True)
class _Ready:
    """What is the same for all calls of a method in a session."""

    session: Identity
    code: native.RemoteCode
    options: native.RemoteOptions
    returns: Returns


class _Codes:
    """What workers call for a method: of all actors the same."""

    def __init__(self) -> None:
        self._of: Identity | None = None
        self._codes: dict[_actor_process.Method, native.RemoteCode] = {}

    def get(self, session: Identity, method: _actor_process.Method) -> native.RemoteCode:
        if self._of is not session:
            self._codes, self._of = {}, session
        code = self._codes.get(method)
        if code is None:
            code = self._codes[method] = _calls.code(method)
        return code


_codes = _Codes()


class _Actor:
    """What a handle and its methods share."""

    __slots__ = ("kind", "limit", "meta", "pending", "ref", "session")

    def __init__(self, ref: ObjectRef, meta: bytes) -> None:
        self.ref = ref
        self.meta = meta
        self.kind = _kind(meta)
        self.session = _identity.current
        self.limit: int = _options.of(self.kind.options, ACTOR, "max_pending_calls")
        self.pending: list[ObjectRef] = []
        """Refs of calls that may not have ended, if their number is limited."""

    def make_room(self, call: str) -> None:
        """Raises PendingCallsLimitExceeded if there must not be another call."""
        if len(self.pending) >= self.limit:
            _, self.pending = native.wait(self.pending, len(self.pending), 0.0)
        if len(self.pending) >= self.limit:
            raise PendingCallsLimitExceeded(
                f"{call} cannot be called now: {len(self.pending)} calls of this handle have no result yet, and its actor "
                f"was made with max_pending_calls={self.limit}. Wait for some of them with eagleray.wait()."
            )


class ActorMethod:
    """A method of an actor. Call it with `.remote()`, which returns at once."""

    def __init__(self, actor: _Actor, name: str, options: Checked) -> None:
        self._actor = actor
        self._name = name
        self._options = options
        self._ready: _Ready | None = None
        kind = actor.kind
        self._called = f"{kind.class_name}.{name}"
        self._check = _signatures.check(self._called, kind.methods[name].parameters)

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Raises TypeError."""
        raise TypeError(
            f"A method of an actor cannot be called like another: call {self._name}.remote(), which returns an ObjectRef."
        )

    def __repr__(self) -> str:
        return f"ActorMethod({self._called})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _method_of, (self._actor.ref, self._actor.meta, self._name, self._options)

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options, which are those of `method`.

        Raises:
            TypeError, ValueError: As of `method`.
        """
        return ActorMethod(
            self._actor, self._name, _calls.merged(self._options, options, METHOD, f"the method {self._called!r}")
        )

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Has the actor call the method, after all that this process has called before. Returns at once.

        Args:
            *args: Arguments. An `ObjectRef` among them is replaced by its value; one within an argument stays a ref.
            **kwargs: The same.

        Returns:
            A ref to the result; a list of them if `num_returns` is more than 1, None if it is 0, an `ObjectRefGenerator`
            if it is "streaming", which it is for generators if nobody says.

        Raises:
            TypeError: The arguments do not fit the method, or cannot be pickled.
            ObjectLostError: The actor's session has ended.
            PendingCallsLimitExceeded: More calls are pending than `max_pending_calls` allows.
        """
        actor, ready = self._actor, self._ready
        if ready is None or ready.session is not _identity.current:
            ready = self._prepare()
        self._check(*args, **kwargs)
        if actor.limit != -1:
            actor.make_room(self._called)
        refs = native.call_actor(actor.ref, ready.code, args, kwargs, ready.options)
        if actor.limit != -1:
            actor.pending += refs[:1]
        return refs[0] if ready.returns == 1 else _calls.given(refs, ready.returns)

    def _prepare(self) -> _Ready:
        session = self._actor.session
        if session is None or session is not _identity.current:
            raise ObjectLostError(
                f"{self._called} cannot be called: the actor was of a session that has ended, or this process was forked "
                "from the one that has the session."
            )
        kind, options = self._actor.kind, self._options
        returns = options.get("num_returns", "streaming" if kind.methods[self._name].generator else 1)
        again = options.get("max_task_retries", _options.of(kind.options, ACTOR, "max_task_retries"))
        said = native.RemoteOptions(
            options.get("name", self._called), num_returns=_calls.number(returns), **_calls.retries(options, again)
        )
        code = _codes.get(session, _actor_process.Method(self._name, isinstance(returns, str)))
        self._ready = ready = _Ready(session, code, said, returns)
        return ready


def _method_of(ref: ObjectRef, meta: bytes, name: str, options: Checked) -> ActorMethod:
    return ActorMethod(_Actor(ref, meta), name, options)


class ActorHandle:
    """Names an actor and keeps it alive. Its methods are attributes. Pickles; equal handles hash alike."""

    def __init__(self, ref: ObjectRef, meta: bytes) -> None:
        self._eagleray_actor = _Actor(ref, meta)

    def __getattr__(self, name: str) -> ActorMethod:
        """A method. It is kept, but does not know the handle: so the last handle goes without the collector."""
        if name == "_eagleray_actor":  # asked for before there is one, by a copy
            raise AttributeError(name)
        actor = self._eagleray_actor
        found = actor.kind.methods.get(name)
        if found is None:
            known = ", ".join(sorted(actor.kind.methods.keys() - _OF_ALL.keys()))
            raise AttributeError(
                f"An actor of class {actor.kind.class_name} has no method {name!r}. It has {known or 'none'}.",
                name=name,
                obj=self,
            )
        made = self.__dict__[name] = ActorMethod(actor, name, found.options)
        return made

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._eagleray_actor.kind.methods]

    @property
    def _actor_id(self) -> str:
        return self._eagleray_actor.ref.hex()

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorHandle, (self._eagleray_actor.ref, self._eagleray_actor.meta)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._eagleray_actor.ref == other._eagleray_actor.ref

    def __hash__(self) -> int:
        return hash(self._eagleray_actor.ref)

    def __repr__(self) -> str:
        return f"Actor({self._eagleray_actor.kind.class_name}, {self._actor_id})"


# Making them.


_OF_HANDLES = ("max_task_retries", "max_pending_calls")


class ActorClass:
    """A class of which each instance lives in a worker of its own. Made by `remote`.

    Make an instance with `.remote()`, which returns a handle at once. `.options()` gives a class with other options.
    """

    def __init__(self, cls: type, options: Mapping[str, Any]) -> None:
        """Takes the options of `remote`, and raises what `remote` raises."""
        said = _options.checked(options, ACTOR, f"the actor class {cls.__qualname__!r}")
        self._begin(cls, said, _ClassCode(cls), cls.__qualname__)
        functools.update_wrapper(self, cls, updated=())

    def _begin(self, cls: type, options: Checked, code: _ClassCode, name: str) -> None:
        self._cls = cls
        self._options = options
        self._code = code
        self._name = name

    # As of a remote function.

    def __getstate__(self) -> tuple[Any, ...]:
        return self._cls, self._options, self._name

    def __setstate__(self, state: tuple[type, Checked, str]) -> None:
        cls, options, name = state
        self._begin(cls, options, _ClassCode(cls), name)

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Raises TypeError."""
        raise TypeError(
            f"An actor is not made by calling its class: call {self._name}.remote(), which returns a handle."
        )

    def __mro_entries__(self, bases: tuple[object, ...]) -> NoReturn:
        raise TypeError(
            f"The actor class {self._name!r} cannot be inherited from. Inherit from the class that it was made of, and make "
            "the derived one remote."
        )

    def __repr__(self) -> str:
        return f"ActorClass({self._name})"

    def options(self, **options: Any) -> ActorClass:
        """The same class with other options; those that are not given are as they are.

        Raises:
            TypeError, ValueError: As of `remote`.
        """
        merged = _calls.merged(self._options, options, ACTOR, f"the actor class {self._name!r}")
        other = ActorClass.__new__(ActorClass)
        other._begin(self._cls, merged, self._code, self._name)
        functools.update_wrapper(other, self._cls, updated=())
        return other

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorHandle:
        """Has a worker make an instance. Returns at once; if it cannot be made, calls of it say why.

        Args:
            *args: Arguments of the constructor, as of a remote function.
            **kwargs: The same.

        Raises:
            TypeError: The arguments do not fit the constructor, or they or the class cannot be pickled.
            ValueError: Its name is taken (`ActorAlreadyExistsError`), unless there is `get_if_exists`; or the options do
                not go together.
        """
        session = _engine.session()
        options, what = self._options, f"the actor class {self._name!r}"
        _options.reachable(options, what)
        name, namespace = options.get("name"), options.get("namespace", session.namespace)
        exists = _options.of(options, ACTOR, "get_if_exists")
        if exists and name is None:
            raise ValueError(f"{what[:1].upper()}{what[1:]} has get_if_exists=True, so it needs a name to look for.")
        ready = self._code.get(session)
        ready.check(*args, **kwargs)
        if name is not None and (found := native.find_actor(namespace, name)):
            return _taken(found, name, namespace, exists)
        ref, meta = self._create(ready, name, namespace, args, kwargs)
        # Another process may have been faster. The head knows whose name it is when it has seen both.
        if name is not None and (found := native.find_actor(namespace, name)) and found[0] != ref:
            return _taken(found, name, namespace, exists)
        return ActorHandle(ref, meta)

    def _create(
        self, ready: _ReadyClass, name: str | None, namespace: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[ObjectRef, bytes]:
        options = self._options
        of_handles = {option: options[option] for option in _OF_HANDLES if option in options}
        meta = _pickling.dump(_Kind(self._name, ready.methods, of_handles))
        surroundings = _surroundings.capture_for_call()
        if env := options.get("runtime_env"):
            surroundings = _surroundings.within(env, surroundings)
        restarts = _options.of(options, ACTOR, "max_restarts")
        keeps = {**_options.demand(options), "CPU": options.get("num_cpus", 0.0)}
        if "max_concurrency" in options:
            concurrency = options["max_concurrency"]
        else:
            concurrency = _options.ASYNC_CONCURRENCY if ready.coroutines else 1
        plan = _actor_process.Plan(
            name, namespace, concurrency, ready.coroutines, {k: v for k, v in keeps.items() if v}, restarts != 0, meta
        )
        ref = native.create_actor(
            ready.code,
            (plan, *args),
            kwargs,
            native.RemoteOptions(self._name, max_retries=0, resources=_options.demand(options)),
            surroundings,
            name=None if name is None else (namespace, name),
            detached=options.get("lifetime") == "detached",
            max_restarts=restarts,
            running_cpu=keeps["CPU"],
            meta=meta,
        )
        return ref, meta


class _ReadyClass(NamedTuple):
    """What is the same for all instances in a session."""

    code: native.RemoteCode
    methods: dict[str, _Method]
    coroutines: bool
    check: Callable[..., None]


class _ClassCode:
    """What workers call to make an instance of a class: made when it is first needed, once in a session."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._of: Identity | None = None
        self._ready: _ReadyClass | None = None

    def get(self, session: Identity) -> _ReadyClass:
        if self._ready is None or self._of is not session:
            cls = self._cls
            check = _signatures.check(cls.__qualname__, _signatures.parameters(cls))
            code = _calls.code(_actor_process.Create(cls))
            self._ready, self._of = _ReadyClass(code, _methods(cls), _has_coroutines(cls), check), session
        return self._ready


def _taken(found: tuple[ObjectRef, bytes], name: str, namespace: str, exists: bool) -> ActorHandle:
    if exists:
        return ActorHandle(*found)
    raise ActorAlreadyExistsError(
        f"The name {name!r} is taken in namespace {namespace!r}: an actor of class {_kind(found[1]).class_name} has it. Use "
        "another one, get_actor(), or get_if_exists=True."
    )


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A handle to the actor of a name.

    Args:
        name: The name that it was given by `.options(name=...)`.
        namespace: Where it was given; that of the session, if None.

    Raises:
        TypeError: They are no strings.
        ValueError: There is no such actor, or it is dead.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}.")
    if not name:
        raise ValueError("name is empty.")
    if namespace is not None and not isinstance(namespace, str):
        raise TypeError(f"namespace must be a str or None, not {type(namespace).__name__}.")
    session = _engine.session()
    place = session.namespace if namespace is None else namespace
    found = native.find_actor(place, name)
    if found is None:
        raise ValueError(
            f"There is no actor with the name {name!r} in namespace {place!r}. It may have another namespace, or be dead."
        )
    return ActorHandle(*found)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """Ends an actor at once. Results that it has returned stay; calls that have not ended fail with `ActorDiedError`.

    Args:
        actor: A handle to it.
        no_restart: Whether it stays dead; else it is made anew if its `max_restarts` says so.

    Raises:
        TypeError: It is no handle.
    """
    if not isinstance(actor, ActorHandle):
        instead = " To cancel a task use eagleray.cancel()." if isinstance(actor, ObjectRef) else ""
        raise TypeError(f"kill() takes the handle of an actor, not {type(actor).__name__}.{instead}")
    if not isinstance(no_restart, bool):
        raise TypeError(f"no_restart must be True or False, not {type(no_restart).__name__}.")
    native.kill_actor(actor._eagleray_actor.ref, not no_restart)
