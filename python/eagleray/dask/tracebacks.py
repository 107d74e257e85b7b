"""Tracebacks show the user's frames: Dask leaves out its own, and then ours too."""

from __future__ import annotations

import os
import re

import dask.config

_SETTING = "admin.traceback.shorten"
_OURS = re.escape(os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep)


def leave_out_ours() -> None:
    """Adds this package to what Dask leaves out of the traceback of a compute, as a default: a list that the user has
    set stays as it is, and so does an empty one, which leaves out nothing."""
    known = dask.config.get(_SETTING, None)
    if known and _OURS not in known:
        dask.config.update_defaults({"admin": {"traceback": {"shorten": [*known, _OURS]}}})
