"""Lines that several processes write alike: the first is shown at once, those of others are counted and shown as one.

So does Ray (`ray._private.ray_logging.LogDeduplicator`), but there lines count as equal that differ in their digits only.
Here they are equal to the letter, so that nothing is lost but who has written them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WINDOW = 5.0
"""Seconds after the first line in which equal ones are counted."""

_MOST_LINES = 1000
"""So many are remembered."""
_MOST_LINE = 1000
"""Characters of a line that is remembered. Longer ones are always shown."""

_VARIABLES = ("EAGLERAY_DEDUP_LOGS", "RAY_DEDUP_LOGS")
"""Of those that are set the first decides."""
_OFF = ("0", "false")

Line = tuple[str, str]
"""The name of a stream, and what stands in a line."""
Show = Callable[[str, str], object]
"""Takes the name of a stream and whole lines."""


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the user has not turned it off."""
    said = next((environment[name] for name in _VARIABLES if environment.get(name)), "1")
    return said.strip().lower() not in _OFF


@dataclass(slots=True)
class _Held:
    """Equal lines of which nothing has been shown."""

    count: int
    prefix: str
    """Of the last."""


class Repeats:
    """What was shown of late, and what was withheld since. Has no clock: times are in seconds of any."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._first: OrderedDict[Line, tuple[int, float]] = OrderedDict()
        """Which process has written a line, and when its window began: the oldest first."""
        self._held: dict[Line, _Held] = {}
        """Of some of those."""
        self._hint = "; EAGLERAY_DEDUP_LOGS=0 shows each"
        self.due: float | None = None
        """When something is to be shown that is withheld."""

    def withholds(self, stream: str, text: str, prefix: str, pid: int, now: float) -> bool:
        """Takes note of a whole line. If it is not withheld, who calls this shows it."""
        if len(text) > _MOST_LINE:
            return False
        line = (stream, text)
        first = self._first.get(line)
        if first is not None and now >= first[1] + WINDOW:
            self.show_due(now)
            first = self._first.get(line)
        if first is None:
            # What is different from all others costs no more than this.
            self._first[line] = (pid, now)
            if len(self._first) > _MOST_LINES:
                self._forget_oldest()
            return False
        held = self._held.get(line)
        if first[0] == pid or not text.strip():
            return False
        if held is None:
            self._held[line] = _Held(1, prefix)
            end = first[1] + WINDOW
            self.due = end if self.due is None else min(self.due, end)
        else:
            held.count += 1
            held.prefix = prefix
        return True

    def show_due(self, now: float) -> None:
        """Shows what is withheld of the lines whose window is over."""
        while self._first:
            line, (pid, since) = next(iter(self._first.items()))
            if now < since + WINDOW:
                break
            del self._first[line]
            if self._show_held(line) > 1:
                # It is said again and again: its next window begins.
                self._first[line] = (pid, now)
        self.due = min((self._first[line][1] + WINDOW for line in self._held), default=None)

    def show_all(self) -> None:
        """Shows all that is withheld."""
        for line in list(self._held):
            self._show_held(line)
        self._first.clear()
        self.due = None

    def _forget_oldest(self) -> None:
        line, _ = self._first.popitem(last=False)
        self._show_held(line)

    def _show_held(self, line: Line) -> int:
        """Shows what is withheld of a line, and gives how many there were of it."""
        held = self._held.pop(line, None)
        if held is None:
            return 0
        stream, text = line
        if held.count == 1:
            self._show(stream, f"{held.prefix}{text}\n")
        else:
            hint, self._hint = self._hint, ""
            self._show(stream, f"{held.prefix}{text} [repeated {held.count}x by other workers{hint}]\n")
        return held.count
