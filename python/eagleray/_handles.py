"""Handles of actors, by which they are called. What happens in the worker is `_actor_process`."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import GenericAlias
from typing import Any, NamedTuple, NoReturn

from eagleray import _actor_process, _calls, _identity, _options, _signatures
from eagleray._calls import Returns
from eagleray._engine import ObjectRef, native
from eagleray._identity import Id, Identity
from eagleray._options import ACTOR, METHOD, Checked
from eagleray.exceptions import ObjectLostError, PendingCallsLimitExceeded

__all__ = ["ActorHandle", "ActorMethod", "Kind", "has_coroutines", "method", "methods_of"]

_METHOD_OPTIONS = "__eagleray_method__"
"""Where `method` leaves its options."""

_SPECIAL = frozenset(
    f"__{name}__"
    for name in (
        *("call", "len", "contains", "getitem", "setitem", "delitem", "iter", "next", "aiter", "anext"),
        *("enter", "exit", "aenter", "aexit"),
    )
)
"""Special methods that an actor can be asked for. Others would be found by those who copy a handle or look what it is."""

_OF_ALL = {"__ray_ready__": "()", "__ray_terminate__": "()", "__ray_call__": "(function, /, *args, **kwargs)"}
"""Methods that each actor has, and their parameters."""


class MethodKind(NamedTuple):
    """What a handle knows of a method."""

    parameters: str | None
    generator: bool
    options: Checked


class Kind(NamedTuple):
    """What a handle knows of its actor beside where it is."""

    class_name: str
    methods: dict[str, MethodKind]
    options: Checked
    """Those that say how it is called."""


@lru_cache(maxsize=1024)
def kind_of(meta: bytes) -> Kind:
    kind: Kind = pickle.loads(meta)
    return kind


def method(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives options to a method of a remote class. A decorator.

    Args:
        num_returns: How many refs a call gives.
        name: What a call is called in messages.
        max_task_retries: How often a call is made again when the actor was made anew.
        retry_exceptions: After which exceptions it is made again, too.
        _generator_backpressure_num_objects: How far a streaming generator may be ahead, as of `remote`.

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
    return not (name.startswith("__") and name.endswith("__")) or name in _SPECIAL


def methods_of(cls: type) -> dict[str, MethodKind]:
    found = {}
    for name in dir(cls):
        function = inspect.getattr_static(cls, name)
        bound = not isinstance(function, staticmethod)
        function = getattr(function, "__func__", function)
        if _is_method(name) and callable(function) and not isinstance(function, type):
            parameters = _signatures.parameters(function, bound=bound)
            options = getattr(function, _METHOD_OPTIONS, {})
            generator = _calls.is_generator(function)
            _calls.check_streams(options, generator, f"the method {_calls.name_of(cls)}.{name}")
            found[name] = MethodKind(parameters, generator, options)
    return found | {name: MethodKind(parameters, False, {}) for name, parameters in _OF_ALL.items()}


def has_coroutines(cls: type) -> bool:
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
        self.kind = kind_of(meta)
        self.session = _identity.current
        native.name_actor(ref, self.kind.class_name, _options.of(self.kind.options, ACTOR, "max_restarts"))
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
        what = f"the method {self._called!r}"
        merged = _calls.merged(self._options, options, METHOD, what)
        _calls.check_streams(merged, self._actor.kind.methods[self._name].generator, what)
        return ActorMethod(self._actor, self._name, merged)

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
        generator = kind.methods[self._name].generator
        returns = options.get("num_returns", "streaming" if generator else 1)
        again = options.get("max_task_retries", _options.of(kind.options, ACTOR, "max_task_retries"))
        said = native.RemoteOptions(
            options.get("name", self._called), num_returns=_calls.number(returns), **_calls.retries(options, again)
        )
        code = _codes.get(session, _actor_process.Method(self._name, _calls.way(returns, options, generator, again)))
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

    def __class_getitem__(cls, _of: object) -> GenericAlias:
        """`ActorHandle[Class]`, for annotations."""
        return GenericAlias(cls, _of)

    @property
    def _actor_id(self) -> Id:
        # Ray's name: programs look the actor up by it in the listings of `util.state`.
        return Id(self._eagleray_actor.ref.hex())

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorHandle, (self._eagleray_actor.ref, self._eagleray_actor.meta)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._eagleray_actor.ref == other._eagleray_actor.ref

    def __hash__(self) -> int:
        return hash(self._eagleray_actor.ref)

    def __repr__(self) -> str:
        return f"Actor({self._eagleray_actor.kind.class_name}, {self._eagleray_actor.ref.hex()})"
