"""Generators: refs of what a function yields, one by one."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eagleray
from tests.core.remotes import (
    numbers,
    until_exists,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("shared")


class TestGenerators:
    def test_refs_come_one_by_one(self, tmp_path: Path) -> None:
        def two(path: str) -> Any:
            yield 1
            wait_for(path)
            yield 2

        go = tmp_path / "go"
        stream = eagleray.remote(two).remote(str(go))
        assert isinstance(stream, eagleray.ObjectRefGenerator)
        assert eagleray.get(next(stream)) == 1  # while the function waits
        go.touch()
        assert [eagleray.get(ref) for ref in stream] == [2]
        with pytest.raises(StopIteration):
            next(stream)

    def test_error_is_the_last_one(self) -> None:
        refs = list(eagleray.remote(numbers).remote(5, fail_at=2))
        assert eagleray.get(refs[:2]) == [0, 1]
        assert len(refs) == 3
        with pytest.raises(ValueError, match="at 2"):
            eagleray.get(refs[2])

    def test_several_at_once(self) -> None:
        """Told how many there will be, the refs are there at the call."""
        assert eagleray.get(eagleray.remote(numbers).options(num_returns=3).remote(3)) == [0, 1, 2]

    def test_none_at_all(self) -> None:
        assert list(eagleray.remote(numbers).remote(0)) == []

    def test_of_an_actor(self) -> None:
        @eagleray.remote
        class Source:
            def stream(self, n: int) -> Any:
                yield from range(n)

        source = Source.remote()
        stream = source.stream.remote(4)
        assert [eagleray.get(ref) for ref in stream] == [0, 1, 2, 3]

    def test_large_items_as_arguments(self) -> None:
        def blocks() -> Any:
            for i in range(4):
                yield np.full(200_000, i)

        total = eagleray.remote(lambda block: int(block.sum()))
        sums = [total.remote(ref) for ref in eagleray.remote(blocks).remote()]
        assert eagleray.get(sums) == [0, 200_000, 400_000, 600_000]

    def test_that_is_dropped(self, tmp_path: Path) -> None:
        go = tmp_path / "go"
        stream = eagleray.remote(numbers).remote(3)
        next(stream)
        del stream
        go.touch()
        assert eagleray.get(until_exists.remote(str(go))) == str(go)

    async def read(self, n: int) -> list[int]:
        return [await ref async for ref in eagleray.remote(numbers).remote(n)]

    def test_in_a_coroutine(self) -> None:

        assert asyncio.run(self.read(3)) == [0, 1, 2]
