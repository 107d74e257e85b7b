"""Hooks around tasks.

| hook | where | arguments |
|---|---|---|
| `ray_presubmit` | driver, before a task is submitted | `task, key, deps`; a result other than None stands for it |
| `ray_postsubmit` | driver, after it was submitted | `task, key, deps, object_ref` |
| `ray_pretask` | worker, before it runs | `key, object_refs`: the values of the inputs that are results of tasks |
| `ray_posttask` | worker, after it ran | `key, result, pre_state`: what this callback's `ray_pretask` returned |
| `ray_postsubmit_all` | driver, after all were submitted | `object_refs, dsk` |
| `ray_finish` | driver, at the end | `result` |

Dask's own five (`start`, `start_state`, `pretask`, `posttask`, `finish`) work too and fire at submission.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

from dask.callbacks import Callback

__all__ = [
    "CBS",
    "CBS_DONT_DROP",
    "CB_FIELDS",
    "ProgressBarCallback",
    "RayCallback",
    "RayCallbacks",
    "RayDaskCallback",
    "add_ray_callbacks",
    "local_ray_callbacks",
    "normalize_ray_callback",
    "unpack_ray_callbacks",
]

Hook = Callable[..., Any]
Pair = tuple[Hook | None, Hook | None]
"""`ray_pretask` and `ray_posttask` of one callback."""


class RayCallback(NamedTuple):
    """The hooks of one callback; None where it has none."""

    ray_presubmit: Hook | None = None
    ray_postsubmit: Hook | None = None
    ray_pretask: Hook | None = None
    ray_posttask: Hook | None = None
    ray_postsubmit_all: Hook | None = None
    ray_finish: Hook | None = None


CBS = RayCallback._fields
CB_FIELDS = tuple("_" + field for field in CBS)
CBS_DONT_DROP = frozenset({"ray_pretask", "ray_posttask"})
"""Hooks that belong together by position: a callback without one keeps a None in its place."""

Hooks = list[Hook] | tuple[()] | None
Paired = list[Hook | None] | tuple[()] | None


_DASK_HOOKS = ("start", "start_state", "pretask", "posttask", "finish")


class RayCallbacks(NamedTuple):
    """The hooks of several callbacks, hook by hook."""

    ray_presubmit_cbs: Hooks
    ray_postsubmit_cbs: Hooks
    ray_pretask_cbs: Paired
    ray_posttask_cbs: Paired
    ray_postsubmit_all_cbs: Hooks
    ray_finish_cbs: Hooks


class _Active:
    """The callbacks in force, in the order in which they were entered.

    Each is in force until it was left as often as it was entered. Inside `local_ray_callbacks` a thread or coroutine
    sees only what it entered there.
    """

    def __init__(self) -> None:
        self._everywhere: _Entries = {}
        self._here: ContextVar[_Entries | None] = ContextVar("eagleray_callbacks", default=None)

    def _entries(self) -> _Entries:
        here = self._here.get()
        return self._everywhere if here is None else here

    def add(self, callback: RayCallback, owner: object = None) -> None:
        """Enters a callback. Two owners with equal hooks are two callbacks."""
        entries = self._entries()
        key = (callback, id(owner))
        entries[key] = entries.get(key, 0) + 1

    def discard(self, callback: RayCallback, owner: object = None) -> bool:
        """Leaves a callback; harmless if it was not entered. Whether it is out of force now."""
        entries = self._entries()
        key = (callback, id(owner))
        left = entries.get(key, 0) - 1
        if left > 0:
            entries[key] = left
            return False
        entries.pop(key, None)
        return True

    def clear(self) -> None:
        """Leaves all callbacks."""
        self._entries().clear()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        token = self._here.set({})
        try:
            yield
        finally:
            self._here.reset(token)

    def __contains__(self, callback: object) -> bool:
        return any(entered == callback for entered in self)

    def __iter__(self) -> Iterator[RayCallback]:
        return iter([callback for callback, _ in self._entries()])

    def __len__(self) -> int:
        return len(self._entries())


_Entries = dict[tuple[RayCallback, int], int]
"""(hooks, identity of the owner) to how often entered. The hooks of an instance keep nothing of it alive by themselves,
but who entered it holds it."""

_dask_entered: dict[tuple[Hook | None, ...], int] = {}
"""The Dask hooks of the callbacks entered, in their order, and how often: Dask's own record is a set."""


def in_order(active: Iterable[tuple[Hook | None, ...]]) -> list[tuple[Hook | None, ...]]:
    """Dask callbacks in the order in which they were entered; those that only Dask knows come last."""
    place = {callback: number for number, callback in enumerate(_dask_entered)}
    return sorted(active, key=lambda callback: place.get(callback, len(place)))


class RayDaskCallback(Callback):  # type: ignore[misc]
    """Hooks around the tasks of all computes inside a `with` block, or from `register()` to `unregister()`.

    Hooks are arguments of the constructor, or methods of a subclass with an underscore before their names. Several
    callbacks fire in the order in which they were entered. Only hooks that exist cost something; only an instance with
    `ray_pretask` or `ray_posttask` is pickled, once for each compute.

    >>> def report(key, result, pre_state): print(key, result)
    >>> with RayDaskCallback(ray_posttask=report):  # doctest: +SKIP
    ...     z.compute(scheduler=ray_dask_get)
    """

    ray_active: ClassVar[_Active] = _Active()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls).keys() - set(CB_FIELDS):
            if meant := difflib.get_close_matches(name, CB_FIELDS, n=1, cutoff=0.85):
                warnings.warn(f"{cls.__qualname__}.{name} is no hook. Is {meant[0]} meant?", stacklevel=2)

    def __init__(self, **hooks: Hook | None) -> None:
        known = (*CBS, *_DASK_HOOKS)
        for name, hook in hooks.items():
            if name not in known:
                raise TypeError(f"{name!r} is no hook. Hooks are: {', '.join(known)}.")
            if hook is not None and not callable(hook):
                raise TypeError(f"The hook {name} must be callable, not {type(hook).__name__}.")
        for name in CBS:
            hook = hooks.pop(name, None)
            if hook is not None:
                setattr(self, "_" + name, hook)
        super().__init__(**hooks)

    def _ray_presubmit(self, task: Any, key: Any, deps: dict[Any, Any]) -> Any:
        """Before a task is submitted. Unless it returns None, the task is not run and this is its result."""

    def _ray_postsubmit(self, task: Any, key: Any, deps: dict[Any, Any], object_ref: Any) -> None:
        """After a task was submitted."""

    def _ray_pretask(self, key: Any, object_refs: tuple[Any, ...]) -> Any:
        """In the worker, before the task. `object_refs` are values. What it returns goes to `_ray_posttask`."""

    def _ray_posttask(self, key: Any, result: Any, pre_state: Any) -> None:
        """In the worker, after the task."""

    def _ray_postsubmit_all(self, object_refs: Any, dsk: dict[Any, Any]) -> None:
        """After all tasks were submitted."""

    def _ray_finish(self, result: Any) -> None:
        """When the result is there."""

    def _hook(self, field: str) -> Hook | None:
        hook: Hook | None = getattr(self, field)
        return None if getattr(hook, "__func__", None) is getattr(RayDaskCallback, field) else hook

    @property
    def _ray_callback(self) -> RayCallback:
        return RayCallback(*map(self._hook, CB_FIELDS))

    def register(self) -> None:
        """Puts the callback in force."""
        self.ray_active.add(self._ray_callback, self)
        hooks = self._callback
        _dask_entered[hooks] = _dask_entered.get(hooks, 0) + 1
        Callback.active.add(hooks)

    def unregister(self) -> None:
        """Takes back one `register`."""
        self.ray_active.discard(self._ray_callback, self)
        hooks = self._callback
        left = _dask_entered.get(hooks, 0) - 1
        if left > 0:
            _dask_entered[hooks] = left
        else:
            _dask_entered.pop(hooks, None)
            Callback.active.discard(hooks)

    def __enter__(self) -> Self:
        self.register()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unregister()


class ProgressBarCallback(RayDaskCallback):
    """Dask-on-Ray's companion of `_ray_enable_progress_bar=True`, which here needs none: it may be entered or not."""


AnyCallback = RayDaskCallback | RayCallback


class add_ray_callbacks:
    """Puts callbacks in force: those of eagleray's hooks only, until the `with` block ends."""

    def __init__(self, *callbacks: AnyCallback) -> None:
        self.callbacks = [normalize_ray_callback(callback) for callback in callbacks]
        for callback in self.callbacks:
            RayDaskCallback.ray_active.add(callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for callback in self.callbacks:
            RayDaskCallback.ray_active.discard(callback)


def normalize_ray_callback(cb: AnyCallback) -> RayCallback:
    """The hooks of a callback.

    Raises:
        TypeError: It is neither a `RayDaskCallback` nor a `RayCallback`.
    """
    if isinstance(cb, RayDaskCallback):
        return cb._ray_callback
    if isinstance(cb, RayCallback):
        return cb
    raise TypeError(f"A callback must be a RayDaskCallback or a RayCallback, not {type(cb).__name__}.")


@contextmanager
def local_ray_callbacks(
    callbacks: Iterable[RayCallback] | None = None,
) -> Iterator[Iterable[RayCallback]]:
    """Gives the callbacks of a compute: those in force if None.

    Callbacks in force serve the outermost compute only: inside the block a compute of the same thread sees none.
    """
    if callbacks is not None:
        yield callbacks or ()
        return
    active = tuple(RayDaskCallback.ray_active)
    with RayDaskCallback.ray_active.hidden():
        yield active


def unpack_ray_callbacks(cbs: Iterable[RayCallback] | None) -> RayCallbacks:
    """Sorts callbacks by hook. A hook that no callback has is None; without callbacks all are ()."""
    if not cbs:
        return RayCallbacks((), (), (), (), (), ())
    columns = {
        field: [hook for hook in column if hook or field in CBS_DONT_DROP] or None
        for field, column in zip(CBS, zip(*cbs, strict=True), strict=True)
    }
    return RayCallbacks(*columns.values())
