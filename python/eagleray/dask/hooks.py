"""The hooks of one compute, sorted by where they are called."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from eagleray import _pickling
from eagleray.dask.callbacks import Hook, Pair, RayCallback, in_order, unpack_ray_callbacks
from eagleray.dask.diagnostics import is_diagnostic
from eagleray.dask.graphs import Key


class Hooks:
    """Eagleray's and Dask's hooks, in the order in which the callbacks were entered."""

    def __init__(self, callbacks: Iterable[RayCallback], dask: Iterable[tuple[Hook | None, ...]]) -> None:
        hooks = unpack_ray_callbacks(tuple(callbacks))
        self.presubmit = hooks.ray_presubmit_cbs or ()
        self.postsubmit = hooks.ray_postsubmit_cbs or ()
        self.postsubmit_all = hooks.ray_postsubmit_all_cbs or ()
        self.finish = hooks.ray_finish_cbs or ()
        self.worker: list[Pair] = [
            (pretask, posttask)
            for pretask, posttask in zip(hooks.ray_pretask_cbs or (), hooks.ray_posttask_cbs or (), strict=True)
            if pretask or posttask
        ]
        self.dask = [callback for callback in in_order(dask) if any(callback)]
        self.diagnostics: list[tuple[Hook | None, ...]] = []
        """Those that want to hear of execution."""

    def split(self) -> None:
        """Takes Dask's diagnostics out of `dask`."""
        self.diagnostics = [callback for callback in self.dask if is_diagnostic(callback)]
        if self.diagnostics:
            self.dask = [callback for callback in self.dask if not is_diagnostic(callback)]

    def watched(self, pairs: Iterable[Pair]) -> None:
        """Has more worker hooks called, before all others."""
        self.worker[:0] = pairs

    @property
    def sees_deps(self) -> bool:
        """Whether a hook is given the inputs of each task."""
        return bool(self.presubmit or self.postsubmit)

    @property
    def per_task(self) -> bool:
        """Whether the driver has something to do for each task."""
        return self.sees_deps or bool(self.dask)

    def for_workers(self, silent: Collection[Key] = ()) -> list[Pair]:
        """The worker hooks, which are not called for the keys in `silent`."""
        if not silent:
            return self.worker
        keys = frozenset(silent)
        return [(pre and _Except(pre, keys), post and _Except(post, keys)) for pre, post in self.worker]

    def pickled(self, silent: Collection[Key] = ()) -> bytes | None:
        """The same as workers get them, or None if there are none.

        Raises:
            TypeError: They cannot be pickled.
        """
        if not self.worker:
            return None
        try:
            return _pickling.dump(self.for_workers(silent))
        except Exception as error:
            names = ", ".join(sorted({_owner(hook) for pair in self.worker for hook in pair if hook}))
            raise TypeError(
                f"The ray_pretask and ray_posttask hooks run in workers and must be picklable, "
                f"with the object they belong to ({names}): {error}"
            ) from error


class _Except:
    """A worker hook that passes some keys by."""

    def __init__(self, hook: Hook, keys: frozenset[Key]) -> None:
        self._hook = hook
        self._keys = keys

    def __call__(self, key: Key, *args: Any) -> Any:
        return None if key in self._keys else self._hook(key, *args)


def _owner(hook: Hook) -> str:
    owner = getattr(hook, "__self__", hook)
    return getattr(owner, "__qualname__", type(owner).__qualname__)
