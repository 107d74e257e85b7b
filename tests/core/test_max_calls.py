"""`max_calls`: the worker that runs a function ends after so many calls of it."""

from pathlib import Path

import pytest

import eagleray
from tests.conftest import alive, until
from tests.core.remotes import echo, noted, pid
from tests.core.remotes import note as write

note = eagleray.remote(write)


@pytest.fixture(autouse=True)
def one_worker(fresh: None) -> None:
    eagleray.init(num_cpus=1)


def test_each_call_has_its_process() -> None:
    once = pid.options(max_calls=1)
    one_by_one = [eagleray.get(once.remote()) for _ in range(3)]
    at_once = eagleray.get([once.remote() for _ in range(3)])
    assert len({*one_by_one, *at_once}) == 6
    until(lambda: not any(map(alive, [*one_by_one, *at_once])))


def test_after_several() -> None:
    thrice = pid.options(max_calls=3)
    pids = [eagleray.get(thrice.remote()) for _ in range(6)]
    assert [len(set(pids[:3])), len(set(pids[3:]))] == [1, 1]
    assert pids[0] != pids[3]


def test_functions_are_counted_apart() -> None:
    first = eagleray.get(pid.options(max_calls=2).remote())
    eagleray.get(echo.options(max_calls=2).remote(1))
    assert eagleray.get(pid.remote()) == first


def test_results_stay(tmp_path: Path) -> None:
    large = eagleray.remote(max_calls=1)(lambda: bytes(1 << 20))
    refs = [large.remote() for _ in range(2)]
    until(lambda: len(eagleray.wait(refs, num_returns=2)[0]) == 2)
    path = tmp_path / "calls"
    assert eagleray.get(note.options(max_calls=1).remote(str(path))) == 1
    until(lambda: not alive(int(path.read_text())))
    assert [len(value) for value in eagleray.get(refs)] == [1 << 20] * 2
    assert noted(path) == 1


def test_one_that_fails_counts() -> None:
    fails = eagleray.remote(max_calls=1)(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        eagleray.get(fails.remote())
    process = int(str(caught.value).partition("worker process ")[2].split(".")[0])
    until(lambda: not alive(process))
    assert eagleray.get(echo.remote("goes on")) == "goes on"


def test_not_for_actors() -> None:
    with pytest.raises(ValueError, match="unknown option 'max_calls'"):
        eagleray.remote(max_calls=1)(type("Some", (), {}))
