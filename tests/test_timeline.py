"""`eagleray.timeline`: what ran when."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import dask.array as da
import numpy as np
import pytest

import eagleray
from eagleray.dask import ray_dask_get
from eagleray.util import state
from tests.conftest import until


@eagleray.remote
def wait(*_):
    time.sleep(0.02)
    return os.getpid()


@eagleray.remote
def big(_):
    return np.zeros(100_000)


def of(events, category, phase):
    return [event for event in events if event.get("cat") == category and event["ph"] == phase]


def test_tasks_runs_values_and_arrows(session):
    first = wait.remote()
    second = wait.options(name="second").remote(first)
    began = time.monotonic_ns() / 1000
    pid = eagleray.get(second)
    array = big.remote(second)
    eagleray.wait([array])
    events = eagleray.timeline()
    tasks = {event["args"]["id"]: event for event in of(events, "task", "X")}
    assert list(tasks) == [first.hex(), second.hex(), array.hex()]
    assert [task["name"] for task in tasks.values()] == ["wait", "second", "big"]
    one, two = tasks[first.hex()], tasks[second.hex()]
    assert one["dur"] >= 20_000
    assert one["ts"] + one["dur"] <= two["ts"]
    assert began - 10e6 < one["ts"] < time.monotonic_ns() / 1000
    assert two["pid"] == pid
    starts, ends = of(events, "data", "s"), of(events, "data", "f")
    assert [arrow["ts"] for arrow in ends] == [two["ts"], tasks[array.hex()]["ts"]]
    for arrow, maker in zip(starts, (one, two), strict=True):
        assert maker["ts"] <= arrow["ts"] <= maker["ts"] + maker["dur"]
    runs = of(events, "run", "b")
    assert {run["pid"] for run in runs} <= {worker.pid for worker in state.list_workers()}
    assert sum(run["args"]["tasks"] for run in runs) == 3
    values = {event["name"]: event["args"] for event in of(events, "value", "i")}
    assert values["sealed: big"]["bytes"] > 800_000
    assert values["sealed: big"]["store"] == "memory"
    assert values["sent: second"]["store"] == "inline"
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert f"driver (pid {os.getpid()})" in names
    assert len({event["pid"] for event in events}) == len(names)


def test_a_dask_graph_has_all_its_tasks(session):
    array = da.ones((100, 100), chunks=10)
    assert array.sum().compute(scheduler=ray_dask_get) == 10_000
    events = eagleray.timeline()
    tasks = of(events, "task", "X")
    assert len(tasks) == eagleray._engine.native.counters()["tasks"] > 100
    assert {task["name"] for task in tasks} == {row.func_or_class_name for row in state.list_tasks(limit=1000)}
    assert len(of(events, "data", "s")) == len(of(events, "data", "f")) >= len(tasks) - 1
    by_process = Counter(task["pid"] for task in tasks)
    for pid in by_process:
        mine = sorted((task["ts"], task["ts"] + task["dur"]) for task in tasks if task["pid"] == pid)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(mine)), "one task at a time"


def test_a_task_that_goes_on_when_its_function_has_returned(session):
    @eagleray.remote
    class Sleeper:
        async def sleep(self):
            import asyncio

            await asyncio.sleep(0.05)

    sleeper = Sleeper.remote()
    eagleray.get([sleeper.sleep.remote() for _ in range(3)])
    events = eagleray.timeline()
    begun, ended = of(events, "goes on", "b"), of(events, "goes on", "e")
    assert [end["ts"] - begin["ts"] > 40_000 for begin, end in zip(begun, ended, strict=True)] == [True] * 3


def test_failed_tasks_are_in_it(session):
    with pytest.raises(ZeroDivisionError):
        eagleray.get(eagleray.remote(lambda: 1 // 0).remote())
    assert len(of(eagleray.timeline(), "task", "X")) == 1


def test_rays_name_of_the_file(session, tmp_path):
    eagleray.get(wait.remote())
    eagleray.timeline(filename=str(tmp_path / "trace.json"))
    assert len(of(json.loads((tmp_path / "trace.json").read_text())["traceEvents"], "task", "X")) == 1
    with pytest.raises(TypeError, match="not both"):
        eagleray.timeline(tmp_path / "a", filename=tmp_path / "b")


def test_a_file_holds_the_same(session, tmp_path):
    eagleray.get(wait.remote())
    path = tmp_path / "trace.json"
    # The end of a run may be heard of later than its results.
    until(lambda: all(worker.state == "idle" for worker in state.list_workers()[1:]))
    assert eagleray.timeline(path) is None
    assert json.loads(path.read_text())["traceEvents"] == json.loads(json.dumps(eagleray.timeline()))
    assert os.listdir(tmp_path) == ["trace.json"]
    with pytest.raises(FileNotFoundError):
        eagleray.timeline(tmp_path / "no such" / "trace.json")


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_it_can_be_off(fresh, monkeypatch, way):
    if way == "environment":
        monkeypatch.setenv("EAGLERAY_TIMELINE", "0")
    eagleray.init(num_cpus=1, **({"timeline": False} if way == "argument" else {}))
    eagleray.get(wait.remote())
    with pytest.raises(RuntimeError, match=r"started with init\(timeline=False\)"):
        eagleray.timeline()
    assert len(state.list_tasks()) == 1


def test_the_argument_is_above_the_environment(fresh, monkeypatch):
    monkeypatch.setenv("EAGLERAY_TIMELINE", "0")
    eagleray.init(num_cpus=1, timeline=True)
    eagleray.get(wait.remote())
    assert len(of(eagleray.timeline(), "task", "X")) == 1


def test_the_command_says_why_there_is_none(fresh, tmp_path):
    eagleray.init(num_cpus=1, timeline=False)
    said = subprocess.run(
        [sys.executable, "-m", "eagleray", "timeline", "--session", str(os.getpid()), str(tmp_path / "trace.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout) == (1, "")
    assert "started with init(timeline=False)" in said.stderr
    assert os.listdir(tmp_path) == []


def test_more_is_remembered_if_that_is_wanted(fresh, monkeypatch):
    monkeypatch.setenv("EAGLERAY_TIMELINE", "1")
    many = {f"y-{i}": (abs, i) for i in range(110_000)}
    for given, remembered in (({"timeline": None}, 110_000), ({}, 110_000)):
        eagleray.shutdown()
        eagleray.init(num_cpus=2, **given)
        ray_dask_get(many, list(many))
        assert len(eagleray._engine.native.timeline()["tasks"]) == remembered


def test_what_is_forgotten_is_said(fresh):
    eagleray.init(num_cpus=2)
    many = {f"y-{i}": (abs, i) for i in range(60_000)}
    for _ in range(2):
        ray_dask_get(many, list(many))
    seen = eagleray._engine.native.timeline()
    assert seen["forgotten"] + len(seen["tasks"]) == 120_000
    assert len(seen["tasks"]) <= 100_000
    [label] = [event for event in eagleray.timeline() if event["name"] == "process_labels"]
    assert label["args"]["labels"] == f"{seen['forgotten']:,} tasks that ran earlier are forgotten"


def test_it_is_asked_for_where_it_is(fresh):
    with pytest.raises(RuntimeError, match="not initialized"):
        eagleray.timeline()
    eagleray.init(num_cpus=1)
    with pytest.raises(RuntimeError, match="A task cannot ask for the timeline"):
        eagleray.get(eagleray.remote(eagleray.timeline).remote())


def test_wrong_wishes(fresh, monkeypatch):
    with pytest.raises(TypeError, match="timeline must be True or False"):
        eagleray.init(timeline=1)
    monkeypatch.setenv("EAGLERAY_TIMELINE", "yes")
    with pytest.raises(ValueError, match="EAGLERAY_TIMELINE must be 0 or 1, not 'yes'"):
        eagleray.init()


def test_the_command_writes_it(session, tmp_path):
    ref = wait.remote()
    eagleray.get(ref)
    command = [sys.executable, "-m", "eagleray", "timeline", "--session", str(os.getpid())]
    said = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | python_path(), check=False
    )
    assert (said.returncode, said.stderr) == (0, "")
    path = tmp_path / f"eagleray-timeline-{os.getpid()}.json"
    assert str(path) in said.stdout
    events = json.loads(path.read_text())["traceEvents"]
    assert [event["args"]["id"] for event in of(events, "task", "X")] == [ref.hex()]
    said = subprocess.run(
        [*command, str(tmp_path / "no" / "x")], capture_output=True, text=True, env=os.environ, check=False
    )
    assert said.returncode == 1
    assert "No such file or directory" in said.stderr


def python_path() -> dict[str, str]:
    """The package is found from any directory."""
    return {"PYTHONPATH": os.path.dirname(os.path.dirname(eagleray.__file__))}


def test_a_value_that_goes_to_a_file_is_spilled(fresh):
    eagleray.init(num_cpus=1, object_store_memory=16 << 20)
    refs = [eagleray.put(np.zeros(1 << 20)) for _ in range(4)]
    values = of(eagleray.timeline(), "value", "i")
    names = Counter((value["name"].split(":")[0], value["args"]["store"]) for value in values)
    assert names["spilled", "file"] > 0
    assert names["sealed", "memory"] + names["spilled", "file"] == len(refs)


def test_what_a_task_asks_for_is_sent_to_it(session):
    @eagleray.remote
    def asks(refs):
        return len(eagleray.get(refs[0]))

    array = eagleray.put(np.zeros(100_000))
    assert eagleray.get(asks.remote([array])) == 100_000
    [sent] = [value for value in of(eagleray.timeline(), "value", "i") if value["args"]["object"] == array.hex()][1:]
    assert sent["name"].startswith("sent: ")
    assert sent["pid"] != os.getpid()


def test_the_last_graph_has_its_names_however_large_it_is(session):
    many = {f"y-{i}": (abs, i) for i in range(110_000)}
    many["s"] = (len, list(many))
    assert ray_dask_get(many, "s") == 110_000
    events = eagleray.timeline()
    tasks = of(events, "task", "X")
    assert 90_000 < len(tasks) <= 110_001
    assert {task["name"] for task in tasks} <= {"y", "s"}
    assert len(of(events, "data", "f")) > 0
    with pytest.warns(UserWarning, match="list_tasks gives 5 of 110,001"):
        assert len(state.list_tasks(limit=5)) == 5


def test_values_of_a_worker_whose_runs_are_forgotten_are_too(fresh, monkeypatch):
    """They would stand in a process that has its number in the session for a process id, and no name."""
    monkeypatch.setattr("eagleray._timeline._USUAL", 40)
    eagleray.init(num_cpus=1)

    def work():
        return [eagleray.get(wait.remote(np.zeros(20_000))) for _ in range(4)][-1]

    first = work()
    os.kill(first, signal.SIGKILL)
    assert work() != first
    events = eagleray.timeline()
    assert first not in {run["pid"] for run in of(events, "run", "b")}
    named = {event["pid"] for event in events if event["name"] == "process_name"}
    assert {event["pid"] for event in events} == named
