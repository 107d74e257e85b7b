"""The file descriptors of the process that starts a session."""

from __future__ import annotations

import contextlib
import os
import resource

_MOST = 65_536
"""So many files may be open. Each worker needs four: its connection, that for events, and the two that it prints to."""


def open_missing() -> None:
    """Opens /dev/null for standard input, output and error, as far as they are closed, as they may be in a daemon.

    Otherwise the next socket gets its number, and then what anybody prints. Rust's own programs begin likewise.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # Gets this number: it is the lowest that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def allow_many() -> None:
    """Raises the soft limit on open files: the usual 1024 is reached with 250 actors.

    What may be open is limited by the hard limit, as it was before. Go's programs begin likewise.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(_MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        # Who forbids it has a reason; then fewer workers can be started.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
