"""What tasks and actors occupy while they run, and while they live."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray.exceptions import GetTimeoutError, InfeasibleResourceError
from tests.conftest import until
from tests.core.remotes import Counter, begin_and_wait, echo, until_exists, wait_for

pytestmark = pytest.mark.usefixtures("fresh")


class TestOfTasks:
    @pytest.fixture(autouse=True)
    def node(self, fresh: None) -> None:
        eagleray.init(num_cpus=2, num_gpus=2, resources={"disk": 1, "slot": 2})

    def run_together(self, function: Any, tmp_path: Path, count: int, most: int) -> None:
        """Of `count` calls, `most` run at the same time."""
        go = tmp_path / "go"
        refs = [function.remote(str(tmp_path / f"begun-{i}"), str(go)) for i in range(count)]

        def begun() -> int:
            return len(list(tmp_path.glob("begun-*")))

        until(lambda: begun() >= most)
        assert eagleray.wait(refs, timeout=0.2) == ([], refs)  # if more of them could run, they would have begun
        assert begun() == most
        go.touch()
        assert eagleray.get(refs) == [str(go)] * count

    @pytest.mark.parametrize(
        ("options", "most"),
        [
            ({}, 2),
            ({"num_cpus": 2}, 1),
            ({"num_cpus": 1.5}, 1),
            ({"resources": {"disk": 1}}, 1),
            ({"resources": {"disk": 0.5}, "num_cpus": 0.25}, 2),
            ({"resources": {"slot": 1}, "num_cpus": 0.1}, 2),
            ({"num_gpus": 2}, 1),
            ({"num_gpus": 1, "num_cpus": 0.5}, 2),
        ],
        ids=str,
    )
    def test_bound_what_runs_at_once(self, options: dict[str, Any], most: int, tmp_path: Path) -> None:
        self.run_together(begin_and_wait.options(**options), tmp_path, 3, most)

    def test_fractions_of_a_cpu_run_together(self, tmp_path: Path) -> None:
        self.run_together(begin_and_wait.options(num_cpus=0.5), tmp_path, 4, 4)

    def test_no_cpu_waits_for_none(self, tmp_path: Path) -> None:
        go = tmp_path / "go"
        busy = [until_exists.remote(str(go)) for _ in range(2)]
        assert eagleray.get(echo.options(num_cpus=0).remote("at once")) == "at once"
        go.touch()
        eagleray.get(busy)

    @pytest.mark.parametrize(
        "options",
        [{"num_cpus": 3}, {"num_gpus": 3}, {"resources": {"disk": 2}}, {"resources": {"tape": 1}}, {"memory": 1 << 60}],
        ids=str,
    )
    def test_that_can_never_be_had(self, options: dict[str, Any]) -> None:
        def call() -> None:
            eagleray.get(echo.options(**options).remote(1))

        with pytest.raises(InfeasibleResourceError, match=r"echo.*asks for"):
            call()
        assert eagleray.get(echo.remote(1)) == 1

    def test_that_others_can_never_have(self) -> None:
        """The session takes calls together: what fails one of them is nothing to the others."""
        for _ in range(20):
            good, bad = echo.remote(1), echo.options(num_gpus=3, name="greedy").remote(2)
            after, reader = echo.options(num_gpus=1).remote(3), echo.remote(bad)
            for ref in (bad, reader):
                with pytest.raises(InfeasibleResourceError, match="'greedy' asks for 3 GPU"):
                    eagleray.get(ref)
            assert eagleray.get([good, after]) == [1, 3]

    def test_gpus_have_numbers(self) -> None:
        @eagleray.remote(num_gpus=1)
        def gpus() -> tuple[list[Any], str | None]:
            return eagleray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

        ids, visible = eagleray.get(gpus.remote())
        assert len(ids) == 1
        assert visible == str(ids[0])
        # As in Ray since it does not hide them any more: who asks for none finds the variable as it was.
        assert eagleray.get(gpus.options(num_gpus=0).remote()) == ([], None)
        both, _ = eagleray.get(gpus.options(num_gpus=2).remote())
        assert sorted(map(int, both)) == [0, 1]

    def test_are_told(self, tmp_path: Path) -> None:
        total = eagleray.cluster_resources()
        assert (total["CPU"], total["GPU"], total["disk"], total["slot"]) == (2, 2, 1, 2)
        begun, go = tmp_path / "begun", tmp_path / "go"
        ref = begin_and_wait.options(num_cpus=1, resources={"disk": 0.5}).remote(str(begun), str(go))
        wait_for(begun)
        until(lambda: eagleray.available_resources().get("disk", 0) == 0.5)
        assert eagleray.available_resources()["CPU"] == 1
        go.touch()
        eagleray.get(ref)
        until(lambda: eagleray.available_resources().get("disk", 0) == 1)
        (node,) = eagleray.nodes()
        assert node["Alive"]
        assert node["Resources"]["disk"] == 1

    def test_of_this_node(self) -> None:
        """By a share of these, programs for Ray have something run on one node."""
        address = eagleray.util.get_node_ip_address()
        assert address == eagleray.nodes()[0]["NodeManagerAddress"]
        names = [name for name in eagleray.cluster_resources() if name.startswith("node:")]
        assert f"node:{address}" in names
        refs = [echo.options(resources={name: 0.01}).remote(name) for name in names]
        assert eagleray.get(refs) == names

    @pytest.mark.parametrize("options", [{"num_cpus": 1e-7}, {"num_gpus": 1e-7}, {"resources": {"disk": 1e-7}}])
    def test_too_small_to_count(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"must be 0 or at least 0\.0001"):
            echo.options(**options)

    def test_assigned_ones(self) -> None:
        @eagleray.remote(num_cpus=0.5, resources={"slot": 1})
        def assigned() -> dict[str, float]:
            return eagleray.get_runtime_context().get_assigned_resources()

        assert eagleray.get(assigned.remote()) == {"CPU": 0.5, "slot": 1}


class TestOfNobody:
    def test_what_there_is_not_is_not_listed(self) -> None:
        """Programs look whether "GPU" is there."""
        eagleray.init(num_cpus=1, num_gpus=0, resources={"disk": 1})
        for listed in (eagleray.cluster_resources(), eagleray.available_resources(), eagleray.nodes()[0]["Resources"]):
            assert "GPU" not in listed
            assert listed["disk"] == 1

    def test_what_is_occupied_is_listed(self) -> None:
        eagleray.init(num_cpus=1, resources={"disk": 1})
        actor = Counter.options(num_cpus=1, resources={"disk": 1}).remote()
        eagleray.get(actor.read.remote())
        free = eagleray.available_resources()
        assert (free["CPU"], free["disk"]) == (0, 0)


class TestOfActors:
    def test_none_while_it_lives(self) -> None:
        eagleray.init(num_cpus=1)
        actors = [Counter.remote(i) for i in range(4)]
        assert eagleray.get([actor.read.remote() for actor in actors]) == [0, 1, 2, 3]
        assert eagleray.get(echo.remote("free")) == "free"
        until(lambda: eagleray.available_resources()["CPU"] == 1)

    def test_a_cpu_if_asked(self, tmp_path: Path) -> None:
        eagleray.init(num_cpus=2)
        actor = Counter.options(num_cpus=1).remote()
        eagleray.get(actor.read.remote())
        assert eagleray.available_resources()["CPU"] == 1
        assert eagleray.get(echo.remote("one")) == "one"
        whole = echo.options(num_cpus=2).remote("both")
        assert eagleray.wait([whole], timeout=0.1) == ([], [whole])
        del actor
        assert eagleray.get(whole) == "both"

    @pytest.mark.parametrize("options", [{"num_gpus": 1}, {"resources": {"disk": 1}}], ids=str)
    def test_others_as_long_as_it_lives(self, options: dict[str, Any]) -> None:
        eagleray.init(num_cpus=2, num_gpus=1, resources={"disk": 1})
        actor = Counter.options(**options).remote()
        eagleray.get(actor.read.remote())
        task, second = echo.options(**options).remote("task"), Counter.options(**options).remote(2)
        calls = [task, second.read.remote()]
        assert eagleray.wait(calls, timeout=0.1) == ([], calls)
        assert eagleray.get(echo.remote(1)) == 1
        eagleray.kill(actor)
        (done,), _ = eagleray.wait(calls)
        if done != task:
            del second
        assert eagleray.get(task) == "task"

    def test_a_gpu_has_its_number(self) -> None:
        eagleray.init(num_cpus=2, num_gpus=2)

        def gpus() -> tuple[list[Any], str | None]:
            return eagleray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

        actors = [Counter.options(num_gpus=1).remote() for _ in range(2)]
        seen = eagleray.get([actor.call.remote(gpus) for actor in actors])
        assert sorted(int(ids[0]) for ids, _ in seen) == [0, 1]
        assert all(visible == str(ids[0]) for ids, visible in seen)

    def test_wait_for_a_place(self, tmp_path: Path) -> None:
        eagleray.init(num_cpus=1)
        busy = until_exists.remote(str(tmp_path / "go"))
        actor = Counter.remote()
        with pytest.raises(GetTimeoutError):
            eagleray.get(actor.read.remote(), timeout=0.1)
        (tmp_path / "go").touch()
        assert eagleray.get([busy, actor.read.remote()])[1] == 0

    @pytest.mark.parametrize("options", [{"num_cpus": 2}, {"resources": {"disk": 2}}])
    def test_who_waits_for_it_keeps_nobody_waiting(self, options: dict[str, Any], tmp_path: Path) -> None:
        eagleray.init(num_cpus=2, resources={"disk": 2})
        actor = Counter.options(num_cpus=1, resources={"disk": 1}).remote()
        eagleray.get(actor.read.remote())
        waits = echo.options(**options).remote(1)
        smaller = echo.options(resources={"disk": 1})
        begin = time.monotonic()
        while time.monotonic() < begin + 0.5:  # longer than the patience with which others are let pass
            assert eagleray.get([echo.remote(2), smaller.remote(3)]) == [2, 3]
        assert eagleray.wait([waits], timeout=0) == ([], [waits])
        eagleray.kill(actor)
        assert eagleray.get(waits) == 1
