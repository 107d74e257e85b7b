"""Standard input, output and error of a process that was started without them, as a daemon may be."""

from __future__ import annotations

import os


def open_missing() -> None:
    """Opens /dev/null for each of the three that is closed.

    Otherwise the next socket gets its number, and then what anybody prints. Rust's own programs begin likewise.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # Gets this number: it is the lowest that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
