"""What is done does not wait for what its worker does next, however long that takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray.exceptions import TaskError
from tests.conftest import until


@pytest.fixture
def one(fresh: None) -> None:
    eagleray.init(num_cpus=1)


def work(go: Path | None, value: Any = None) -> Any:
    if go is not None:
        until(go.exists)
    if isinstance(value, Exception):
        raise value
    return value


remote = eagleray.remote(work)


@eagleray.remote
class Works:
    def work(self, go: Path | None, value: Any = None) -> Any:
        return work(go, value)


def test_tasks(one: None, tmp_path: Path) -> None:
    assert eagleray.get([remote.remote(None, n) for n in range(5)]) == list(range(5))  # now they are known to be quick
    go = tmp_path / "go"
    refs = [remote.remote(None, n) for n in range(3)]
    last = remote.remote(go, "last")
    assert eagleray.get(refs) == [0, 1, 2]
    go.touch()
    assert eagleray.get(last) == "last"


def test_calls_of_an_actor(one: None, tmp_path: Path) -> None:
    actor = Works.remote()
    eagleray.get(actor.work.remote(None))
    go = tmp_path / "go"
    refs = [actor.work.remote(None, n) for n in range(3)]
    last = actor.work.remote(go, "last")
    assert eagleray.get(refs) == [0, 1, 2]
    go.touch()
    assert eagleray.get(last) == "last"


def test_what_reads_the_result_before(one: None, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first = remote.remote(None, 1)
    second = remote.remote(None, first)
    third = remote.remote(go, second)
    assert eagleray.get([first, second]) == [1, 1]
    go.touch()
    assert eagleray.get(third) == 1


def test_failures(one: None, tmp_path: Path) -> None:
    go = tmp_path / "go"
    eagleray.get(remote.remote(None))
    failed = [remote.remote(None, ValueError(n)) for n in range(2)]
    last = remote.remote(go, "last")
    for ref in failed:
        with pytest.raises(TaskError):
            eagleray.get(ref)
    go.touch()
    assert eagleray.get(last) == "last"


def test_several_values(one: None, tmp_path: Path) -> None:
    def pair(go: Path | None) -> Iterator[int]:
        work(go)
        return iter((1, 2))

    pairs = eagleray.remote(num_returns=2)(pair)
    eagleray.get(pairs.remote(None))
    go = tmp_path / "go"
    refs = [ref for _ in range(3) for ref in pairs.remote(None)]
    last = pairs.remote(go)
    assert eagleray.get(refs) == [1, 2] * 3
    go.touch()
    assert eagleray.get(last) == [1, 2]


def test_what_they_print_is_there_before(one: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @eagleray.remote
    def prints(go: Path | None, number: int = 0) -> None:
        print(f"said {number}", end="")
        work(go)

    eagleray.get(prints.remote(None))
    capsys.readouterr()
    go = tmp_path / "go"
    refs = [prints.remote(None, n) for n in (1, 2)]
    last = prints.remote(go, 3)
    eagleray.get(refs)
    out = capsys.readouterr().out
    assert "said 1\n" in out
    assert "said 2\n" in out
    go.touch()
    eagleray.get(last)
