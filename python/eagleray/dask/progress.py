"""The progress bar of Dask-on-Ray: of execution, with a short summary at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from dask.utils import format_time

from eagleray import _task_spec
from eagleray.dask.execution import Measure, Ran
from eagleray.dask.graphs import Key, Nodes

_MOST_PREFIXES = 5
"""Lines of the summary."""


def make_bar(total: int) -> Any:
    """A bar of tqdm, on standard error.

    Raises:
        ImportError: tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError('A progress bar needs tqdm: install it, or eagleray[progress]: pip install "eagleray[progress]"') from error
    return tqdm(total=total, unit="task", dynamic_ncols=True)


class Progress:
    """The bar of one compute. An `execution.Observer`."""

    measures: Sequence[Measure] = ()

    def __init__(self) -> None:
        self._bar: Any = None
        self._ran: list[Ran] = []
        self._total = 0
        self._start = 0.0
