"""Remote classes, and actors by their names. What their handles are is `_handles`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, NoReturn, overload

from eagleray import _actor_process, _calls, _engine, _options, _pickling, _signatures, _surroundings
from eagleray._engine import ObjectRef, native
from eagleray._handles import ActorHandle, Kind, MethodKind, has_coroutines, kind_of, methods_of
from eagleray._identity import Identity
from eagleray._options import ACTOR, Checked
from eagleray.exceptions import ActorAlreadyExistsError

__all__ = ["ActorClass", "get_actor", "kill", "list_named_actors"]

_OF_HANDLES = ("max_restarts", "max_task_retries", "max_pending_calls")


class ActorClass:
    """A class of which each instance lives in a worker of its own. Made by `remote`.

    Make an instance with `.remote()`, which returns a handle at once. `.options()` gives a class with other options.
    """

    def __init__(self, cls: type, options: Mapping[str, Any]) -> None:
        """Takes the options of `remote`, and raises what `remote` raises."""
        name = _calls.name_of(cls)
        said = _options.checked(options, ACTOR, f"the actor class {name!r}")
        self._begin(cls, said, _ClassCode(cls), name)
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

    def __getattr__(self, name: str) -> Any:
        """What the class has: its methods speak of it by the name that is the actor class now."""
        cls = None if name.startswith("__") else self.__dict__.get("_cls")
        if cls is None or not hasattr(cls, name):
            raise AttributeError(
                f"The actor class {self.__dict__.get('_name')!r} has no attribute {name!r}.", name=name, obj=self
            )
        return getattr(cls, name)

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
        meta = _pickling.dump(Kind(self._name, ready.methods, of_handles))
        surroundings = _surroundings.capture_for_call()
        if env := options.get("runtime_env"):
            surroundings = _surroundings.within(env, surroundings)
        keeps = {**_options.demand(options), "CPU": options.get("num_cpus", 0.0)}
        if "max_concurrency" in options:
            concurrency = options["max_concurrency"]
        else:
            concurrency = _options.ASYNC_CONCURRENCY if ready.coroutines else 1
        plan = _actor_process.Plan(
            name, namespace, concurrency, ready.coroutines, {k: v for k, v in keeps.items() if v}, meta
        )
        ref = native.create_actor(
            ready.code,
            (*args, plan),
            kwargs,
            native.RemoteOptions(self._name, max_retries=0, resources=_options.demand(options)),
            surroundings,
            name=None if name is None else (namespace, name),
            detached=options.get("lifetime") == "detached",
            max_restarts=_options.of(options, ACTOR, "max_restarts"),
            running_cpu=keeps["CPU"],
            meta=meta,
        )
        return ref, meta


class _ReadyClass(NamedTuple):
    """What is the same for all instances in a session."""

    code: native.RemoteCode
    methods: dict[str, MethodKind]
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
            check = _signatures.check(_calls.name_of(cls), _signatures.parameters(cls))
            code = _calls.code(_actor_process.Create(cls), cls)
            self._ready, self._of = _ReadyClass(code, methods_of(cls), has_coroutines(cls), check), session
        return self._ready


def _taken(found: tuple[ObjectRef, bytes], name: str, namespace: str, exists: bool) -> ActorHandle:
    if exists:
        return ActorHandle(*found)
    raise ActorAlreadyExistsError(
        f"The name {name!r} is taken in namespace {namespace!r}: an actor of class {kind_of(found[1]).class_name} has it. Use "
        "another one, get_actor(), or get_if_exists=True."
    )


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A handle to the actor of a name.

    Args:
        name: The name that it was given by `.options(name=...)`.
        namespace: Where it was given; that of the session, if None.

    Raises:
        TypeError: They are no strings.
        ValueError: There is no such actor, or it is dead; or there is no name.
    """
    if name is None or name == "":  # None as in Ray
        raise ValueError(
            f"name is {'None' if name is None else 'empty'}: an actor is found by what options(name=...) gave it."
        )
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}.")
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


@overload
def list_named_actors(all_namespaces: Literal[False] = False) -> list[str]: ...
@overload
def list_named_actors(all_namespaces: Literal[True]) -> list[dict[str, str]]: ...
@overload
def list_named_actors(all_namespaces: bool) -> list[str] | list[dict[str, str]]: ...
def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:
    """The names by which `get_actor` finds actors, sorted. Those of actors that are being made, or made anew, are among them.

    Args:
        all_namespaces: Those of all namespaces, as `{"name": ..., "namespace": ...}`; else the names in that of the session.

    Raises:
        TypeError: It is not True or False.
    """
    if not isinstance(all_namespaces, bool):
        raise TypeError(f"all_namespaces must be True or False, not {type(all_namespaces).__name__}.")
    session = _engine.session()
    named = sorted(actor["name"] for actor in native.state()["actors"] if actor["name"] is not None)
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in named]
    return [name for namespace, name in named if namespace == session.namespace]


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """Ends an actor at once. Results that it has returned stay; calls that have not ended fail with `ActorDiedError`.

    Args:
        actor: A handle to it.
        no_restart: Whether it stays dead; else it is made anew if its `max_restarts` says so.

    Raises:
        TypeError: `no_restart` is not True or False.
        ValueError: It is no handle.
    """
    if not isinstance(actor, ActorHandle):
        instead = " To cancel a task use eagleray.cancel()." if isinstance(actor, ObjectRef) else ""
        # As in Ray.
        raise ValueError(f"kill() takes the handle of an actor, not {type(actor).__name__}.{instead}")
    if not isinstance(no_restart, bool):
        raise TypeError(f"no_restart must be True or False, not {type(no_restart).__name__}.")
    _engine.check_session()
    native.kill_actor(actor._eagleray_actor.ref, not no_restart)
