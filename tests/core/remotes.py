"""Functions and actors that the tests run in workers. Imported there, so it imports little."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import eagleray


@eagleray.remote
def echo(value: Any = None) -> Any:
    return value


@eagleray.remote
def add(x: Any, y: Any = 0) -> Any:
    return x + y


@eagleray.remote
def pid(*_: object) -> int:
    return os.getpid()


@eagleray.remote
def fail(kind: type[BaseException], *args: Any) -> None:
    raise kind(*args)


@eagleray.remote
def die(*_: object) -> None:
    os._exit(7)


@eagleray.remote
def until_exists(path: str, *_: object) -> str:
    """Runs until the file is there."""
    wait_for(path)
    return path


@eagleray.remote
def begin_and_wait(begun: str, path: str) -> str:
    """Says that it runs, and runs until the file is there."""
    note(begun)
    wait_for(path)
    return path


@eagleray.remote
def kind_of(*values: Any, **named: Any) -> Any:
    """The type's name of each argument."""
    positional = [type(value).__name__ for value in values]
    return positional, {name: type(value).__name__ for name, value in named.items()}


def note(path: str) -> int:
    """One line for each call; how many there are now."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    return noted(path)


def noted(path: str | Path) -> int:
    return len(Path(path).read_text().split()) if os.path.exists(path) else 0


def wait_for(path: str | Path) -> None:
    while not os.path.exists(path):
        time.sleep(0.005)


def ready(ref: Any) -> bool:
    """Whether there is a result, or an error in its place."""
    return bool(eagleray.wait([ref], timeout=0)[0])


class Sum:
    """A sum, and what a worker can be asked about itself. The class of actors in most tests."""

    def __init__(self, total: Any = 0) -> None:
        self.total = total

    def add(self, x: Any = 1) -> Any:
        self.total = self.total + x
        return self.total

    def read(self) -> Any:
        return self.total

    def echo(self, value: Any = None) -> Any:
        return value

    def pid(self) -> int:
        return os.getpid()

    def thread(self) -> bool:
        """Whether calls run in the main thread."""
        return threading.current_thread() is threading.main_thread()

    def fail(self, kind: type[BaseException], *args: Any) -> None:
        raise kind(*args)

    def die(self, code: int = 7) -> None:
        os._exit(code)

    def die_once(self, path: str) -> str:
        """Ends its process, the first time."""
        if note(path) == 1:
            os._exit(7)
        return "survived"

    def wait(self, path: str, begun: str | None = None) -> str:
        """Runs until the file is there."""
        if begun is not None:
            note(begun)
        wait_for(path)
        return path

    def leave(self) -> None:
        eagleray.actor.exit_actor()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


Counter = eagleray.remote(Sum)


@eagleray.remote
class Shelf:
    """Keeps things, refs and handles among them."""

    def __init__(self, **things: Any) -> None:
        self.things: dict[str, Any] = things

    def put(self, name: str, thing: Any) -> None:
        self.things[name] = thing

    def take(self, name: str) -> Any:
        return self.things.pop(name)

    def look(self, name: str) -> Any:
        return self.things[name]

    def value(self, name: str) -> Any:
        """The value of a ref that it keeps."""
        return eagleray.get(self.things[name])

    def call(self, name: str, method: str, *args: Any) -> Any:
        """Calls an actor whose handle it keeps."""
        return eagleray.get(getattr(self.things[name], method).remote(*args))

    def names(self) -> list[str]:
        return sorted(self.things)

    def pid(self) -> int:
        return os.getpid()


def numbers(n: int, fail_at: int | None = None) -> Iterator[int]:
    for i in range(n):
        if i == fail_at:
            raise ValueError(f"at {i}")
        yield i
