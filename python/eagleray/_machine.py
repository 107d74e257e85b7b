"""What this process may use of the machine: processors and memory, containers included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def _own_cgroups() -> Iterator[Path]:
    """The directories of this process's cgroup (version 2) and of all above it: each can set a limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("0::"):
            own = _CGROUP / line[3:].lstrip("/")
            yield own
            yield from (above for above in own.parents if above.is_relative_to(_CGROUP))


def _limits(name: str) -> Iterator[list[str]]:
    for group in _own_cgroups():
        try:
            words = (group / name).read_text().split()
        except OSError:
            continue
        if words and words[0] != "max":
            yield words


def cpus() -> int:
    """How many processors this process may keep busy: its affinity and its cgroup's quota, at least 1."""
    count = len(os.sched_getaffinity(0))
    for words in _limits("cpu.max"):
        if len(words) == 2:
            count = min(count, int(words[0]) // int(words[1]))
    return max(count, 1)


def memory() -> int:
    """Bytes of memory this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(int(words[0]) for words in _limits("memory.max"))])
