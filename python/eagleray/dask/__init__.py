"""Dask's side: schedulers to compute with, and hooks around every task.

>>> from eagleray.dask import ray_dask_get
>>> z.compute(scheduler=ray_dask_get)  # doctest: +SKIP
"""

from __future__ import annotations

import eagleray._dask_versions  # noqa: F401 - first: it refuses a Dask without what the other modules import
from eagleray.dask.callbacks import ProgressBarCallback, RayDaskCallback, local_ray_callbacks, unpack_ray_callbacks
from eagleray.dask.optimizations import dataframe_optimize
from eagleray.dask.persist import ray_dask_persist
from eagleray.dask.scheduler import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get, ray_dask_get_sync
from eagleray.dask.tracebacks import leave_out_ours

__all__ = [
    "ProgressBarCallback",
    "RayDaskCallback",
    "dataframe_optimize",
    "disable_dask_on_ray",
    "enable_dask_on_ray",
    "local_ray_callbacks",
    "ray_dask_get",
    "ray_dask_get_sync",
    "ray_dask_persist",
    "unpack_ray_callbacks",
]

leave_out_ours()
