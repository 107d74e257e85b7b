"""The shuffle of Dask-on-Ray, for the dataframes of Dask before 2025.1 that are no expressions.

There a partition is split by one task that returns all parts (`MultipleReturnFunc`), instead of a dictionary of them.
Newer Dask has no place for such an optimization, and needs none.
"""

from __future__ import annotations

import warnings
from typing import Any

import dask
from dask.core import flatten

from eagleray import _dask_versions

__all__ = ["dataframe_optimize"]

if _dask_versions.LEGACY_DATAFRAMES:
    from eagleray.dask.simple_shuffle import MultipleReturnSimpleShuffleLayer, rewrite_simple_shuffle_layer

    __all__ += ["MultipleReturnSimpleShuffleLayer", "rewrite_simple_shuffle_layer"]

    def dataframe_optimize(dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Dask's optimization of dataframes, after `rewrite_simple_shuffle_layer` of this module."""
        from dask.dataframe.optimize import optimize

        wanted = list(flatten(keys if isinstance(keys, list | set) else [keys]))
        return optimize(rewrite_simple_shuffle_layer(dsk, wanted), wanted, **kwargs)

else:

    def dataframe_optimize(dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Returns the graph as it is, with a warning: this Dask optimizes dataframes before there is a graph."""
        warnings.warn(
            f"The shuffle optimization is for Dask before 2025.1 only. This is Dask {dask.__version__}, which optimizes "
            "dataframes itself: use eagleray.dask.enable_dask_on_ray() and nothing else.",
            stacklevel=2,
        )
        return dsk
