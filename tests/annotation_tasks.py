"""What annotated tasks do in tests. Imported in workers."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

from eagleray import _engine
from tests.tasks import touch

Specs = list[dict[str, Any]]


def submit(graph: dict[Any, Any], keys: Any, specs: Specs, by_key: dict[Any, int] | None = None) -> Any:
    """The result of an annotated graph."""
    return _engine.native.submit(graph, keys, annotations=(specs, by_key or {})).result()


def attempts(path: str) -> int:
    """How often tasks were begun that note it in this file."""
    return len(Path(path).read_text().splitlines()) if os.path.exists(path) else 0


def fail_until(path: str, attempt: int, error: type[Exception] = ValueError, *_: object) -> int:
    """Raises until the attempt with this number."""
    touch(path)
    if attempts(path) < attempt:
        raise error(f"attempt {attempts(path)}")
    return attempts(path)


def spoil(items: list[int], path: str, attempt: int) -> list[int]:
    """Changes its input and raises, until the attempt with this number."""
    items.append(99)
    fail_until(path, attempt)
    return items


def make_list(path: str) -> list[int]:
    touch(path)
    return [1, 2, 3]


def note(log: str, what: object) -> None:
    """Adds a line; those of several processes do not mix."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{what}\n".encode())
    os.close(descriptor)


def noted(log: str, seconds: float = 0.01, *_: object) -> str:
    """Notes that it begins and ends; what it returns are the GPUs that it sees."""
    note(log, "begin")
    time.sleep(seconds)
    note(log, "end")
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def most_at_once(log: Path) -> int:
    most = now = 0
    for line in log.read_text().split():
        now += 1 if line == "begin" else -1
        most = max(most, now)
    return most


def meet(directory: str, name: str, others: int) -> str:
    """Ends when so many others are there too: they run at the same time."""
    Path(directory, name).touch()
    while len(os.listdir(directory)) <= others:
        time.sleep(0.005)
    return name


def wait_for(path: str, *_: object) -> None:
    while not os.path.exists(path):
        time.sleep(0.005)


def visible(*_: object) -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def compute(specs: Specs, function: Any, *args: Any) -> Any:
    """Computes an annotated graph of one task."""
    return submit({"inner": (function, *args)}, "inner", specs)


def compute_or_say_why(specs: Specs) -> str:
    try:
        return str(compute(specs, visible))
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


ONLY_OS_ERRORS = pickle.dumps((OSError,))
