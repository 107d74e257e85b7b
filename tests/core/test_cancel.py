"""`cancel`: what has not begun does not, what runs is interrupted, what is done stays."""

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray.exceptions import TaskCancelledError, WorkerCrashedError
from tests.conftest import alive, until
from tests.core.remotes import Counter, add, begin_and_wait, echo, note, noted, until_exists, wait_for

pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture
def full(tmp_path: Path) -> Any:
    """Both workers are busy until the test has ended."""
    go = tmp_path / "full-go"
    refs = [begin_and_wait.remote(str(tmp_path / f"full-{i}"), str(go)) for i in range(2)]
    for i in range(2):
        wait_for(tmp_path / f"full-{i}")
    yield
    go.touch()
    eagleray.get(refs)


def cancelled(ref: Any) -> None:
    with pytest.raises(TaskCancelledError):
        eagleray.get(ref)


class TestPending:
    @pytest.mark.parametrize("force", [False, True])
    def test_never_runs(self, full: None, force: bool, tmp_path: Path) -> None:
        path = tmp_path / "runs"
        ref = eagleray.remote(note).remote(str(path))
        eagleray.cancel(ref, force=force)
        cancelled(ref)
        assert noted(path) == 0

    def test_that_waits_for_an_argument(self, tmp_path: Path) -> None:
        go = tmp_path / "go"
        argument = until_exists.remote(str(go))
        ref = add.remote(argument, "x")
        eagleray.cancel(ref)
        cancelled(ref)
        go.touch()
        assert eagleray.get(argument) == str(go)

    def test_readers_are_cancelled_too(self, full: None) -> None:
        first = echo.remote(1)
        last = add.remote(add.remote(first, 1), 1)
        eagleray.cancel(first)
        cancelled(last)

    def test_others_run(self, tmp_path: Path) -> None:
        refs = [echo.remote(i) for i in range(20)]
        doomed = until_exists.remote(str(tmp_path / "never"))
        eagleray.cancel(doomed)
        cancelled(doomed)
        assert eagleray.get(refs) == list(range(20))

    def test_one_of_several_results_cancels_all(self, full: None) -> None:
        one, two = echo.options(num_returns=2).remote((1, 2))
        eagleray.cancel(one)
        cancelled(one)
        cancelled(two)


class TestRunning:
    def test_is_interrupted(self, tmp_path: Path) -> None:
        begun = tmp_path / "begun"
        ref = begin_and_wait.remote(str(begun), str(tmp_path / "never"))
        wait_for(begun)
        eagleray.cancel(ref)
        cancelled(ref)
        assert eagleray.get([echo.remote(i) for i in range(4)]) == [0, 1, 2, 3]

    @pytest.mark.parametrize("force", [False, True])
    def test_that_returns_several_values(self, force: bool, tmp_path: Path) -> None:
        begun = tmp_path / "begun"
        refs = begin_and_wait.options(num_returns=3).remote(str(begun), str(tmp_path / "never"))
        wait_for(begun)
        eagleray.cancel(refs[1], force=force)
        for ref in refs:
            with pytest.raises((TaskCancelledError, WorkerCrashedError) if force else TaskCancelledError):
                eagleray.get(ref)
        assert eagleray.get([echo.remote(i) for i in range(4)]) == [0, 1, 2, 3]
        assert noted(begun) == 1

    def test_may_clean_up(self, tmp_path: Path) -> None:
        begun, ended = tmp_path / "begun", tmp_path / "ended"

        @eagleray.remote
        def careful(begun: str, ended: str) -> None:
            try:
                note(begun)
                while True:
                    time.sleep(0.005)
            finally:
                note(ended)

        ref = careful.remote(str(begun), str(ended))
        wait_for(begun)
        eagleray.cancel(ref)
        cancelled(ref)
        until(lambda: noted(ended) == 1)

    def test_is_not_tried_again(self, tmp_path: Path) -> None:
        begun = tmp_path / "begun"
        ref = begin_and_wait.options(max_retries=5, retry_exceptions=True).remote(str(begun), str(tmp_path / "never"))
        wait_for(begun)
        eagleray.cancel(ref)
        cancelled(ref)
        assert eagleray.get([echo.remote(i) for i in range(4)]) == [0, 1, 2, 3]
        assert noted(begun) == 1

    def test_by_force(self, tmp_path: Path) -> None:
        """A task that does not let itself be interrupted loses its process."""
        begun = tmp_path / "begun"

        @eagleray.remote
        def stubborn(begun: str) -> None:
            note(begun)
            while True:
                try:
                    while True:
                        time.sleep(0.005)
                except KeyboardInterrupt:
                    pass

        ref = stubborn.remote(str(begun))
        wait_for(begun)
        until(lambda: noted(begun) == 1)
        process = int(begun.read_text())
        eagleray.cancel(ref, force=True)
        with pytest.raises((TaskCancelledError, WorkerCrashedError)):
            eagleray.get(ref)
        until(lambda: not alive(process))
        assert eagleray.get([echo.remote(i) for i in range(4)]) == [0, 1, 2, 3]
        assert noted(begun) == 1

    def test_that_answers_the_interrupt_with_a_result(self, tmp_path: Path) -> None:
        begun = tmp_path / "begun"

        @eagleray.remote
        def answer(begun: str) -> str:
            try:
                note(begun)
                while True:
                    time.sleep(0.005)
            except KeyboardInterrupt:
                return "interrupted"

        ref = answer.remote(str(begun))
        wait_for(begun)
        eagleray.cancel(ref)
        with contextlib.suppress(TaskCancelledError):
            assert eagleray.get(ref) == "interrupted"
        assert eagleray.get([echo.remote(i) for i in range(4)]) == [0, 1, 2, 3]

    @pytest.mark.parametrize("returns", [1, 2])
    def test_with_its_children(self, returns: int, tmp_path: Path) -> None:
        begun = tmp_path / "begun"

        @eagleray.remote
        def parent(begun: str, never: str) -> Any:
            refs = begin_and_wait.options(num_returns=returns).remote(begun, never)
            return eagleray.get(refs)

        ref = parent.remote(str(begun), str(tmp_path / "never"))
        wait_for(begun)
        eagleray.cancel(ref)
        cancelled(ref)
        both = echo.options(num_cpus=2).remote("the child does not run any more")
        assert eagleray.get(both) == "the child does not run any more"

    def test_without_its_children(self, tmp_path: Path) -> None:
        begun, go = tmp_path / "begun", tmp_path / "go"

        @eagleray.remote
        def parent(begun: str, go: str) -> Any:
            return eagleray.get(begin_and_wait.remote(begun, go))

        ref = parent.remote(str(begun), str(go))
        wait_for(begun)
        until(lambda: noted(begun) == 1)
        child = int(begun.read_text())
        eagleray.cancel(ref, recursive=False)
        cancelled(ref)
        assert alive(child)
        go.touch()


class TestDone:
    def test_stays(self) -> None:
        ref = echo.remote(1)
        eagleray.wait([ref])
        eagleray.cancel(ref)
        eagleray.cancel(ref, force=True)
        assert eagleray.get(ref) == 1

    def test_failed_stays_failed(self) -> None:
        ref = eagleray.remote(lambda: 1 / 0).remote()
        eagleray.wait([ref])
        eagleray.cancel(ref)
        with pytest.raises(ZeroDivisionError):
            eagleray.get(ref)

    def test_twice(self, full: None) -> None:
        ref = echo.remote(1)
        eagleray.cancel(ref)
        eagleray.cancel(ref)
        cancelled(ref)


class TestActors:
    def test_queued_call(self, tmp_path: Path) -> None:
        counter, go = Counter.remote(), tmp_path / "go"
        running = counter.wait.remote(str(go), str(tmp_path / "begun"))
        doomed, kept = counter.add.remote(100), counter.add.remote(1)
        wait_for(tmp_path / "begun")
        eagleray.cancel(doomed)
        cancelled(doomed)
        go.touch()
        assert eagleray.get([running, kept]) == [str(go), 1]

    def test_force_is_refused(self) -> None:
        counter = Counter.remote()
        with pytest.raises(ValueError, match="force"):
            eagleray.cancel(counter.add.remote(), force=True)
        assert eagleray.get(counter.add.remote()) == 2

    def test_by_a_task(self, tmp_path: Path) -> None:
        begun = tmp_path / "begun"
        ref = begin_and_wait.remote(str(begun), str(tmp_path / "never"))
        wait_for(begun)
        eagleray.get(eagleray.remote(lambda refs: eagleray.cancel(refs[0])).remote([ref]))
        cancelled(ref)


def test_many_at_once(tmp_path: Path) -> None:
    refs = [until_exists.remote(str(tmp_path / "never")) for _ in range(100)]
    for ref in refs:
        eagleray.cancel(ref)
    for ref in refs:
        cancelled(ref)
    assert eagleray.get([echo.remote(i) for i in range(4)]) == [0, 1, 2, 3]
