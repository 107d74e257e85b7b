"""Who this process is: its session, and its part in that. And what an id is."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_NODE_DIGITS = 56
_JOB_DIGITS = 8

NODE_ADDRESS = "127.0.0.1"
"""The address of the node. A session has this machine only."""


@dataclass(frozen=True)
class Identity:
    """A process's part in a session. Each session has its own, so what holds for one session only is known by it."""

    session: str
    """The session's directory, which names it."""
    namespace: str
    """Where named actors are looked for, if nothing else is said."""
    worker: int | None = None
    """The worker's number; None for the driver."""

    def _digits(self, what: str, digits: int) -> str:
        return hashlib.sha256(f"{what} {self.session}".encode()).hexdigest()[:digits]

    @cached_property
    def node(self) -> str:
        """The id of the node, as hexadecimal digits."""
        return self._digits("node", _NODE_DIGITS)

    @cached_property
    def program(self) -> str:
        """The id of the user's program in the session, as hexadecimal digits."""
        return self._digits("program", _JOB_DIGITS)

    @cached_property
    def process(self) -> str:
        """The id of this process in the session, as hexadecimal digits."""
        return self._digits(f"process {self.worker} of", _NODE_DIGITS)


class Id:
    """The id of something in a session."""

    __slots__ = ("_digits",)

    def __init__(self, digits: str) -> None:
        """Takes the hexadecimal digits."""
        self._digits = digits

    def hex(self) -> str:
        """The hexadecimal digits."""
        return self._digits

    def binary(self) -> bytes:
        """The same as bytes."""
        return bytes.fromhex(self._digits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Id) and self._digits == other._digits

    def __hash__(self) -> int:
        return hash(self._digits)

    def __reduce__(self) -> tuple[Any, ...]:
        return Id, (self._digits,)

    def __repr__(self) -> str:
        return f"Id({self._digits})"


current: Identity | None = None
"""None while there is no session."""


def take_on(identity: Identity | None) -> None:
    """This is what this process is from now on."""
    global current
    current = identity


def _forget() -> None:
    """In a forked child: the session is the parent's."""
    take_on(None)


os.register_at_fork(after_in_child=_forget)
