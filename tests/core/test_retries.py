"""Calls that are run again: after the death of a worker, after an exception."""

import os
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray.exceptions import WorkerCrashedError
from tests.core.remotes import note, noted

pytestmark = pytest.mark.usefixtures("shared")


class TestRetries:
    def test_of_a_worker_that_dies(self, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")

        @eagleray.remote
        def third_time(path: str) -> int:
            if note(path) < 3:
                os._exit(1)
            return noted(path)

        assert eagleray.get(third_time.remote(path)) == 3

    @pytest.mark.parametrize(("retries", "runs"), [(0, 1), (2, 3)])
    def test_end(self, retries: int, runs: int, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")

        @eagleray.remote(max_retries=retries)
        def never(path: str) -> None:
            note(path)
            os._exit(3)

        with pytest.raises(WorkerCrashedError, match="never"):
            eagleray.get(never.remote(path))
        assert noted(path) == runs

    def test_without_any_what_has_ended_is_not_run_again(self, tmp_path: Path) -> None:
        """Though it took so short a time that it would be reported with what ends the worker."""
        path = str(tmp_path / "runs")

        @eagleray.remote(max_retries=0)
        def step(ends: bool) -> None:
            note(path)
            if ends:
                os._exit(3)

        eagleray.get([step.remote(False) for _ in range(50)])
        for _ in range(10):
            *steps, last = [step.remote(ends) for ends in [False, False, False, True]]
            eagleray.get(steps)
            with pytest.raises(WorkerCrashedError):
                eagleray.get(last)
        assert noted(path) == 90

    def test_of_an_exception_are_off(self, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")
        with pytest.raises(ZeroDivisionError):
            eagleray.get(eagleray.remote(lambda: note(path) / 0).remote())
        assert noted(path) == 1

    @pytest.mark.parametrize(
        ("which", "runs"), [(True, 3), ([ZeroDivisionError], 3), ([ArithmeticError], 3), ([KeyError], 1), (False, 1)]
    )
    def test_of_an_exception(self, which: Any, runs: int, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")
        divide = eagleray.remote(lambda: note(path) / 0).options(max_retries=2, retry_exceptions=which)
        with pytest.raises(ZeroDivisionError):
            eagleray.get(divide.remote())
        assert noted(path) == runs

    def test_of_an_exception_that_goes_away(self, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")
        second = eagleray.remote(lambda: 1 / (note(path) - 1)).options(max_retries=-1, retry_exceptions=True)
        assert eagleray.get(second.remote()) == 1

    @pytest.mark.parametrize(("most", "runs"), [(2, 3), (3, 4)])
    def test_deaths_and_exceptions_are_counted_together(self, most: int, runs: int, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")

        @eagleray.remote(max_retries=most, retry_exceptions=True)
        def never(path: str) -> None:
            if note(path) == 1:
                os._exit(1)
            raise ValueError("never")

        with pytest.raises(ValueError, match="never"):
            eagleray.get(never.remote(path))
        assert noted(path) == runs

    def test_several_results(self, tmp_path: Path) -> None:
        path = str(tmp_path / "runs")

        @eagleray.remote(num_returns=2)
        def second_time() -> tuple[int, int]:
            if note(path) == 1:
                os._exit(1)
            return 1, 2

        assert eagleray.get(second_time.remote()) == [1, 2]
