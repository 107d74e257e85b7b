"""Dask's configuration while a scheduler of eagleray is its default."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import dask

_SHUFFLES = ("tasks", "disk")

_enabled: list[Enabled] = []
"""Those in force, the newest last."""


class Enabled(dask.config.set):  # type: ignore[misc]
    """A scheduler as Dask's default, from now until the `with` block ends or until `disable`."""

    def __init__(self, scheduler: Any, shuffle: str | None, dataframe_optimize: Any) -> None:
        if shuffle is not None and shuffle not in _SHUFFLES:
            raise ValueError(f"shuffle must be 'tasks', 'disk' or None, not {shuffle!r}.")
        self._arguments = (scheduler, shuffle, dataframe_optimize)
        settings = {"scheduler": scheduler, "dataframe.shuffle.method": shuffle}
        if dataframe_optimize is not None:
            settings["dataframe_optimize"] = dataframe_optimize
        super().__init__(settings)
        _enabled.append(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self not in _enabled:
            return
        newest = None
        while newest is not self:  # what was enabled in the block and not disabled ends with it
            newest = _enabled.pop()
            newest.restore()

    def restore(self) -> None:
        """Gives Dask back the settings that it had before."""
        super().__exit__(None, None, None)


class Disabled:
    """Dask's settings as they were before the first `Enabled` in force; inside a `with` block, until it ends."""

    def __init__(self) -> None:
        self._ended = [enabled._arguments for enabled in _enabled]
        while _enabled:
            _enabled.pop().restore()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._ended:
            Enabled(*self._ended.pop(0))
