"""Runs Dask graphs on a pool of worker processes.

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

from eagleray import exceptions
from eagleray._engine import (
    ObjectRef,
    get,
    init,
    is_initialized,
    put,
    shutdown,
    wait,
)

__version__ = "0.1.0"

__all__ = [
    "ObjectRef",
    "__version__",
    "exceptions",
    "get",
    "init",
    "is_initialized",
    "put",
    "shutdown",
    "wait",
]
