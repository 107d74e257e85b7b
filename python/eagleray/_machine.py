"""What this process may use of the machine: processors, GPUs and memory, containers included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")

_LEAST_WORKERS, _MOST_WORKERS = 256, 1024
"""How many workers there may be, whatever the memory."""

_MEMORY_OF_A_WORKER = 16 << 20
"""Bytes that a worker that waits is reckoned with."""


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


def gpus() -> int:
    """How many NVIDIA GPUs this process may use: those of CUDA_VISIBLE_DEVICES if it is set, else all.

    As CUDA reads the variable: the list ends at the first entry that names no device.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        try:
            return len(os.listdir("/proc/driver/nvidia/gpus"))
        except OSError:
            return 0
    count = 0
    for name in map(str.strip, visible.split(",")):
        if not name or name.startswith("-") or name == "NoDevFiles":
            break
        count += 1
    return count


def memory() -> int:
    """Bytes of memory this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(int(words[0]) for words in _limits("memory.max"))])


def workers(slots: int) -> int:
    """How many workers there may be at once for so many slots.

    Each task that waits for others keeps its own. So a recursion of tasks may be as deep as there are, about as deep as one
    of functions where there is the memory; one without end must not take all of it before it fails.
    """
    fitting = memory() // _MEMORY_OF_A_WORKER
    return max(min(fitting, _MOST_WORKERS), _LEAST_WORKERS, 4 * slots)
