"""Runs Dask graphs on a pool of worker processes, with remote functions and actors beside them.

>>> import eagleray as er
>>> from eagleray.dask import ray_dask_get
>>> z.compute(scheduler=ray_dask_get)  # doctest: +SKIP
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError(f"eagleray runs on Linux only, not on {sys.platform}.")
if "t" in sys.abiflags:
    raise ImportError("eagleray does not run on a free-threaded Python: use the ordinary build of the same version.")

from eagleray import actor, exceptions, runtime_context, util
from eagleray._actors import get_actor, kill
from eagleray._engine import (
    ObjectRef,
    cancel,
    get,
    init,
    is_initialized,
    put,
    shutdown,
    wait,
)
from eagleray._generators import ObjectRefGenerator
from eagleray._handles import method
from eagleray._memory import memory_summary
from eagleray._remote import remote
from eagleray._runtime_context import (
    available_resources,
    cluster_resources,
    get_gpu_ids,
    get_runtime_context,
    nodes,
)
from eagleray._timeline import timeline

__version__ = "0.1.0"

__all__ = [
    "ObjectRef",
    "ObjectRefGenerator",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "memory_summary",
    "method",
    "nodes",
    "put",
    "remote",
    "runtime_context",
    "shutdown",
    "timeline",
    "util",
    "wait",
]
