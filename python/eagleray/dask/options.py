"""The options of a compute, checked."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from dask.callbacks import Callback, normalize_callback

from eagleray.dask.callbacks import RayCallback, RayDaskCallback, normalize_ray_callback

TOP_LEVEL_RESOURCES_ERR_MSG = (
    'Use ray_remote_args={"resources": {...}} instead of resources={...} to say which resources the tasks of a compute '
    "take; or annotate them: with dask.annotate(resources={...})."
)
"""What a scheduler says to `resources=`, which would mean those of the pool to one and those of tasks to another."""

_OF_OPTIMIZERS = frozenset(
    ("fast_functions", "fuse", "fuse_keys", "inline_functions_fast_functions", "rename_fused_keys")
)
"""What the optimizations of Dask's collections take. `compute` passes its options on to both, optimizer and scheduler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `ray_dask_get` takes beside graph and keys. The names are those of its keyword arguments."""

    ray_callbacks: Any = None
    num_workers: Any = None
    pool: Any = None
    ray_persist: Any = False
    ray_remote_args: Any = None
    callbacks: Any = None
    cache: Any = None
    rerun_exceptions_locally: Any = None
    chunksize: Any = None
    optimize_graph: Any = None
    _ray_enable_progress_bar: Any = False

    @classmethod
    def of(cls, function: str, given: Mapping[str, Any]) -> Options:
        """Checks what a scheduler was given.

        Raises:
            TypeError: An option is unknown, or not of its type.
            ValueError: `num_workers` is less than 1, or there are `resources`.
        """
        if "resources" in given:
            raise ValueError(TOP_LEVEL_RESOURCES_ERR_MSG)
        given = {name: value for name, value in given.items() if name not in _OF_OPTIMIZERS}
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise TypeError(f"{function}() does not know the option {name!r}. It knows {', '.join(known)}.")
        options = cls(**given)
        workers = options.num_workers
        if workers is not None:
            if isinstance(workers, bool) or not isinstance(workers, numbers.Integral):
                raise TypeError(f"num_workers must be a whole number or None, not {type(workers).__name__}.")
            if workers < 1:
                raise ValueError(f"num_workers must be at least 1, not {workers}.")
        if options.cache is not None and not isinstance(options.cache, Mapping):
            raise TypeError(f"cache must be a mapping of keys to values, not {type(options.cache).__name__}.")
        pool = options.pool
        if pool is not None and not (hasattr(pool, "submit") or hasattr(pool, "apply_async")):
            raise TypeError(f"pool must be a thread pool or an executor, not {type(pool).__name__}.")
        rerun = options.rerun_exceptions_locally
        if rerun is not None and not isinstance(rerun, bool):
            raise TypeError(f"rerun_exceptions_locally must be True, False or None, not {type(rerun).__name__}.")
        remote_args = options.ray_remote_args
        if remote_args is not None and not isinstance(remote_args, Mapping):
            raise TypeError(f"ray_remote_args must be a mapping of options, not {type(remote_args).__name__}.")
        for name in ("ray_persist", "_ray_enable_progress_bar"):
            if not isinstance(value := getattr(options, name), bool):
                raise TypeError(f"{name} must be True or False, not {type(value).__name__}.")
        return options

    def hooks(self) -> list[RayCallback] | None:
        """The callbacks of this compute; None means those in force."""
        given = self.ray_callbacks
        if given is None:
            return None
        if isinstance(given, RayDaskCallback | RayCallback):
            given = [given]
        if not isinstance(given, Iterable):
            raise TypeError(
                "ray_callbacks must be a RayDaskCallback, a RayCallback, or an iterable of them, "
                f"not {type(given).__name__}."
            )
        return [normalize_ray_callback(callback) for callback in given]

    def dask_hooks(self) -> list[tuple[Any, ...]] | None:
        """Dask's callbacks of this compute; None means those in force."""
        given = self.callbacks
        if given is None:
            return None
        one = isinstance(given, Callback) or (
            isinstance(given, tuple) and not any(isinstance(item, tuple | Callback) for item in given)
        )
        if not one and not isinstance(given, Iterable):
            raise TypeError(
                f"callbacks must be a Callback of Dask's, or an iterable of them, not {type(given).__name__}."
            )
        return [normalize_callback(callback) for callback in ([given] if one and given else given)]
