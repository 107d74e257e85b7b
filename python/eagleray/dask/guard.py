"""Keeps other schedulers from taking refs for values.

To Dask a persisted collection is a graph of constants, so that any scheduler could compute with it: some operations would
fail strangely, others return arrays of refs. A Dask callback hears of every graph that a local scheduler starts.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from dask.callbacks import Callback

from eagleray._engine import ObjectRef
from eagleray.dask import graphs

__all__ = ["is_guard", "watch"]


class _Guard(Callback):  # type: ignore[misc]
    """In force while refs that were given to Dask live."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()  # a ref may go, and call back, while the lock is held
        self._alive: set[weakref.ref[ObjectRef]] = set()
        self.hooks = self._callback

    def watch(self, refs: Iterable[ObjectRef]) -> None:
        with self._lock:
            self._alive.update(weakref.ref(ref, self._gone) for ref in refs)
            if self._alive:
                Callback.active.add(self.hooks)

    def _gone(self, ref: weakref.ref[ObjectRef]) -> None:
        with self._lock:
            self._alive.discard(ref)
            if not self._alive:
                Callback.active.discard(self.hooks)

    def _start(self, dsk: Mapping[Any, Any]) -> None:
        for key, node in dsk.items():
            if graphs.holds_ref(node):
                raise TypeError(
                    f"Task {key!r} needs a result that was persisted on eagleray's worker pool, and only eagleray can "
                    "compute with that: pass scheduler=ray_dask_get to compute(), or call enable_dask_on_ray() once."
                )


_guard = _Guard()


def watch(refs: Iterable[Any]) -> None:
    """Has other schedulers raise TypeError for graphs that hold any of these, as long as they live."""
    _guard.watch(ref for ref in refs if isinstance(ref, ObjectRef))


def is_guard(hooks: tuple[Any, ...]) -> bool:
    """Whether a callback, as Dask keeps it, is meant for other schedulers only."""
    return bool(hooks == _guard.hooks)
