"""Functions that tests run in workers. Imported there, so it imports little."""

import os
import signal
import time
from pathlib import Path
from typing import Any


def inc(x: Any) -> Any:
    return x + 1


def add(x: Any, y: Any) -> Any:
    return x + y


def total(items: list[Any]) -> Any:
    return sum(items)


def pid(*_: object) -> int:
    return os.getpid()


def pid_after(seconds: float, *_: object) -> int:
    if seconds:
        time.sleep(seconds)
    return os.getpid()


def sleep(seconds: float, *_: object) -> float:
    if seconds:
        time.sleep(seconds)
    return seconds


def touch(path: str, *_: object) -> str:
    """One line for each time it ran."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    return path


def touch_and_sleep(path: str, seconds: float) -> str:
    touch(path)
    time.sleep(seconds)
    return path


def touch_and_fail(path: str) -> None:
    touch(path)
    raise ValueError("on purpose")


def die_once(path: str, number: int = signal.SIGKILL) -> str:
    """Ends its own worker by a signal, the first time."""
    if not os.path.exists(path):
        touch(path)
        os.kill(os.getpid(), number)
    return "survived"


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(code: int) -> None:
    os._exit(code)


class TwoArguments(Exception):
    """Its `args` are not what its constructor takes."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Prefixed(Exception):
    """Pickle's own way gives another message, without an error."""

    def __init__(self, text: str) -> None:
        super().__init__(f"prefix {text}")


class HoldsLock(Exception):
    """Cannot be pickled."""

    def __init__(self, text: str) -> None:
        import threading

        super().__init__(text)
        self.lock = threading.Lock()


def fail(kind: type[BaseException], *args: Any) -> None:
    raise kind(*args)


def fail_because(cause: str) -> None:
    try:
        raise KeyError(cause)
    except KeyError as error:
        raise ValueError("chained") from error


def nested(n: int) -> int:
    """Computes a graph of its own, in a task."""
    from eagleray.dask import ray_dask_get

    graph: dict[Any, Any] = {("leaf", i): (inc, i) for i in range(4)}
    graph["sum"] = (total, [("leaf", i) for i in range(4)])
    return int(ray_dask_get(graph, "sum")) + n


def deeper(depth: int) -> int:
    """Nests as deep as told."""
    from eagleray.dask import ray_dask_get

    return 0 if depth == 0 else 1 + int(ray_dask_get({"x": (deeper, depth - 1)}, "x"))


def begin_and_look(path: str) -> bool:
    """Submits a task and waits for what it does without asking for its result."""
    from eagleray.dask import ray_dask_get

    ref = ray_dask_get({"touch": (touch, path)}, "touch", ray_persist=True)
    while not Path(path).exists():
        time.sleep(0.005)
    return ref is not None


class Configured:
    """Is what `dask.config` makes of it where it is unpickled."""

    def __init__(self) -> None:
        import dask.config

        self.value = dask.config.get("eagleray-test", None)

    def __reduce__(self) -> Any:
        return Configured, ()

    def __call__(self) -> Any:
        return self.value
