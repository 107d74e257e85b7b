"""With what name the output of an actor is shown."""

import os
import re
import threading
from typing import Any

import pytest

import eagleray

pytestmark = pytest.mark.usefixtures("session")


@eagleray.remote
class Plain:
    def say(self, text: str) -> None:
        print(text)

    def raw(self, text: bytes) -> None:
        os.write(1, text)

    def hold(self, text: str) -> None:
        print(text, end="")


@eagleray.remote
class Named:
    def __init__(self, name: Any) -> None:
        self.name = name
        print("begins")

    def __repr__(self) -> str:
        if not isinstance(self.name, str):
            raise TypeError("no name")
        return self.name

    def say(self, text: str) -> None:
        print(text)


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return re.sub(r"pid=\d+", "pid=N", capsys.readouterr().out)


def test_its_class(capsys: pytest.CaptureFixture[str]) -> None:
    actor = Plain.remote()
    eagleray.get(actor.say.remote("hello"))
    assert shown(capsys) == "(Plain, pid=N) hello\n"
    eagleray.get(actor.raw.remote(b"from C\n"))
    assert shown(capsys) == "(Plain, pid=N) from C\n"
    eagleray.get(actor.hold.remote("unfinished"))
    assert shown(capsys) == "(Plain, pid=N) unfinished\n"


def test_what_it_says_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = Named.remote("Named(1)"), Named.remote("two\nlines")
    eagleray.get(one.say.remote("x"))
    eagleray.get(two.say.remote("y"))
    eagleray.shutdown()  # until then what both have said may be withheld of one
    lines = shown(capsys).splitlines()
    assert sorted(lines) == [
        "(Named(1), pid=N) x",
        "(Named, pid=N) begins",
        "(Named, pid=N) begins",
        "(two lines, pid=N) y",
    ]


@pytest.mark.parametrize("name", ["", None])
def test_it_cannot_say(name: Any, capsys: pytest.CaptureFixture[str]) -> None:
    eagleray.get(Named.remote(name).say.remote("x"))
    assert shown(capsys) == "(Named, pid=N) begins\n(Named, pid=N) x\n"


def test_a_long_name(capsys: pytest.CaptureFixture[str]) -> None:
    eagleray.get(Named.remote("ü" * 1000).say.remote("x"))
    assert shown(capsys) == f"(Named, pid=N) begins\n({'ü' * 200}, pid=N) x\n"


def test_of_threads_and_coroutines(capsys: pytest.CaptureFixture[str]) -> None:
    @eagleray.remote
    class Coroutines:
        async def say(self, text: str) -> None:
            print(text)

    threads = Plain.options(max_concurrency=2).remote()
    eagleray.get([threads.say.remote("a"), threads.say.remote("b")])
    assert sorted(shown(capsys).splitlines()) == ["(Plain, pid=N) a", "(Plain, pid=N) b"]
    # Nobody holds the call any more when it prints.
    eagleray.get(Coroutines.remote().say.remote("c"))
    assert shown(capsys) == "(Coroutines, pid=N) c\n"


def test_a_task_has_its_own_name_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    eagleray.get(Plain.remote().say.remote("x"))
    eagleray.get(eagleray.remote(say).remote())
    assert shown(capsys) == "(Plain, pid=N) x\n(say, pid=N) task True\n"


def say() -> None:
    print("task", threading.current_thread() is threading.main_thread())
