"""Generators and who reads them, where one task runs at a time."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import eagleray
from tests.core.remotes import echo, note, numbers, wait_for


class TestOnOneProcessor:
    @pytest.fixture(autouse=True)
    def one(self, fresh: None) -> None:
        eagleray.init(num_cpus=1)

    def test_a_task_that_reads_gives_its_slot_back(self) -> None:
        @eagleray.remote
        def total(n: int) -> int:
            return sum(eagleray.get(ref) for ref in eagleray.remote(numbers).remote(n))

        assert eagleray.get([total.remote(n) for n in (3, 4)]) == [3, 6]

    def test_who_is_ahead_lets_others_run(self) -> None:
        stream = eagleray.remote(numbers).options(_generator_backpressure_num_objects=1).remote(4)
        assert [eagleray.get(echo.remote(ref)) for ref in stream] == [0, 1, 2, 3]

    def test_an_actor_reads_for_a_task(self, tmp_path: Path) -> None:
        @eagleray.remote
        class Reader:
            def read(self, begun: str, n: int) -> int:
                stream = eagleray.remote(numbers).remote(n)
                note(begun)
                return sum(eagleray.get(ref) for ref in stream)

        @eagleray.remote
        def asks(reader: Any, begun: str) -> int:
            ref = reader.read.remote(begun, 3)
            wait_for(begun)
            return eagleray.get(ref)

        assert eagleray.get(asks.remote(Reader.remote(), str(tmp_path / "begun"))) == 3

    def test_the_next_session_is_waited_for_too(self) -> None:
        """Who waits for coroutines has something of the session for which it did last."""

        async def read() -> list[int]:
            return [await ref async for ref in eagleray.remote(numbers).remote(2)]

        for _ in range(3):
            assert asyncio.run(read()) == [0, 1]
            eagleray.shutdown()
            eagleray.init(num_cpus=1)
