"""What is listed of a session: `eagleray.util.state`, and the table of its objects."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from dask import delayed

import eagleray
from eagleray._identity import Identity
from eagleray.dask import ray_dask_get
from eagleray.util import state
from tests.conftest import alive, until


@eagleray.remote
def double(x):
    return 2 * x


@eagleray.remote
def sleep(seconds):
    time.sleep(seconds)
    return seconds


@eagleray.remote
def fails():
    raise KeyError("what it raised")


@eagleray.remote
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count

    def pid(self):
        return os.getpid()


def wait_for_state(ref, wanted):
    until(lambda: state.get_task(ref).state == wanted)
    return state.get_task(ref)


def test_tasks_have_names_and_states(session):
    done, failed, runs = double.remote(1), fails.remote(), sleep.remote(60)
    reads = double.remote(runs)
    eagleray.wait([done, failed], num_returns=2)
    running = wait_for_state(runs, "RUNNING")
    tasks = {task.task_id: task for task in state.list_tasks()}
    assert list(tasks) == [done.hex(), failed.hex(), runs.hex(), reads.hex()]
    finished = tasks[done.hex()]
    assert (finished.name, finished.state, finished.type) == ("double", "FINISHED", "NORMAL_TASK")
    assert (finished.worker_id, finished.error_type, finished.required_resources) == (None, None, {"CPU": 1.0})
    assert (tasks[failed.hex()].state, tasks[failed.hex()].error_type) == ("FAILED", "TASK_EXECUTION_EXCEPTION")
    assert "what it raised" in tasks[failed.hex()].error_message
    assert tasks[reads.hex()].state == "PENDING_ARGS_AVAIL"
    assert running.worker_pid in [worker.pid for worker in state.list_workers()]
    assert abs(running.start_time_ms / 1000 - time.time()) < 60
    assert running.node_id == eagleray.nodes()[0]["NodeID"]
    assert running.job_id == eagleray.get_runtime_context().get_job_id()
    eagleray.cancel(runs, force=True)


def test_a_task_without_room_waits_for_a_node(session):
    first = [sleep.remote(60) for _ in range(2)]
    for ref in first:
        wait_for_state(ref, "RUNNING")
    last = sleep.options(num_cpus=2).remote(0)
    assert wait_for_state(last, "PENDING_NODE_ASSIGNMENT").attempt_number == 0
    ahead = sleep.remote(0)
    waiting = ("PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER")
    assert state.get_task(ahead).state in waiting, "a worker may be given it, to run it next"
    for ref in first:
        eagleray.cancel(ref, force=True)


def test_a_task_that_waits_for_others_says_so(session):
    @eagleray.remote
    def outer():
        return eagleray.get(sleep.remote(60))

    wait_for_state(outer.remote(), "RUNNING_IN_RAY_GET")
    assert [worker.state for worker in state.list_workers()].count("blocked") == 1


def test_tasks_of_dask_graphs_have_keys_while_these_are_known(session):
    persisted = delayed(len, pure=True)([1, 2], dask_key_name="length-of").persist(scheduler=ray_dask_get)
    eagleray.get(list(persisted.dask.values()) if hasattr(persisted.dask, "values") else [])
    assert [task.name for task in state.list_tasks()] == ["length-of"]
    assert delayed(len)([1], dask_key_name=("a tuple", 1)).compute(scheduler=ray_dask_get) == 1
    assert [task.func_or_class_name for task in state.list_tasks(filters=[("name", "=", "a tuple")])] == ["a tuple"]


def test_tasks_that_were_run_again_count_their_attempts(session, tmp_path):
    @eagleray.remote(retry_exceptions=True, max_retries=3)
    def third_time(path):
        with open(path, "a") as file:
            file.write("x")
        if os.path.getsize(path) < 3:
            raise OSError
        return 1

    ref = third_time.remote(tmp_path / "attempts")
    assert eagleray.get(ref) == 1
    assert state.get_task(ref).attempt_number == 2


def test_a_failure_names_the_task_it_comes_from(session):
    origin = fails.remote()
    reads = double.remote(origin)
    eagleray.wait([reads])
    task = state.get_task(reads)
    assert (task.state, task.failed_because_of, task.error_message) == ("FAILED", origin.hex(), None)
    assert state.get_task(origin).failed_because_of is None


def test_tasks_are_known_when_their_refs_are_gone(session):
    assert eagleray.get([double.remote(i) for i in range(5)]) == [0, 2, 4, 6, 8]
    until(lambda: not state.list_objects())
    assert [task.state for task in state.list_tasks()] == ["FINISHED"] * 5
    assert state.summarize_tasks()["cluster"]["summary"]["double"]["state_counts"] == {"FINISHED": 5}


def test_actors(session):
    counter = Counter.remote()
    named = Counter.options(name="named", namespace="here", lifetime="detached", max_restarts=1).remote()
    pid = eagleray.get(counter.pid.remote())
    eagleray.get(named.add.remote())
    [first, second] = state.list_actors()
    assert (first.class_name, first.state, first.pid, first.name) == ("Counter", "ALIVE", pid, None)
    assert (second.name, second.ray_namespace, second.is_detached) == ("named", "here", True)
    assert first == state.get_actor(first.actor_id) == state.get_actor(counter._actor_id.hex())
    [call] = state.list_tasks(filters=[("type", "=", "actor_task"), ("actor_id", "=", first.actor_id)])
    assert (call.name, call.state) == ("Counter.pid", "FINISHED")
    os.kill(eagleray.get(named.pid.remote()), signal.SIGKILL)
    until(lambda: state.get_actor(second.actor_id).num_restarts == 1)
    eagleray.kill(named)
    until(lambda: state.get_actor(second.actor_id).state == "DEAD")
    dead = state.get_actor(second.actor_id)
    assert (dead.name, dead.pid, dead.num_restarts, dead.is_detached) == ("named", None, 1, True)
    assert "eagleray.kill()" in dead.death_cause
    made = state.get_task(second.actor_id)
    assert (made.type, made.state, made.error_type, made.error_message) == (
        "ACTOR_CREATION_TASK",
        "FINISHED",
        None,
        None,
    )
    assert not state.list_tasks(filters=[("type", "=", "ACTOR_CREATION_TASK"), ("state", "=", "FAILED")])
    assert state.summarize_actors()["cluster"]["summary"]["Counter"]["state_counts"] == {"ALIVE": 1, "DEAD": 1}


def test_an_actor_without_room_is_pending(session):
    holds = [sleep.remote(60) for _ in range(2)]
    for ref in holds:
        wait_for_state(ref, "RUNNING")
    counter = Counter.remote()
    assert state.list_actors()[0].state == "PENDING_CREATION"
    for ref in holds:
        eagleray.cancel(ref, force=True)
    assert eagleray.get(counter.add.remote()) == 1
    assert state.list_actors()[0].state == "ALIVE"


def test_objects_say_what_they_are_and_who_holds_them(session):
    big, small = eagleray.put(np.zeros(100_000)), eagleray.put(1)
    also = small.__reduce__()[0](*small.__reduce__()[1])
    result = double.remote(np.ones(100_000))
    eagleray.wait([result])
    objects = {row.object_id: row for row in state.list_objects()}
    assert (objects[big.hex()].store, objects[big.hex()].reference_type) == ("SEALED", "PUT")
    assert 800_000 < objects[big.hex()].object_size < 801_000
    assert (objects[small.hex()].store, objects[small.hex()].holders["driver"]) == ("INLINE", 4)
    made = objects[result.hex()]
    assert (made.reference_type, made.task_status, made.name) == ("RESULT", "FINISHED", "double")
    assert state.get_objects(result) == [made]
    del also


def test_a_large_argument_is_a_literal(session):
    @eagleray.remote
    def both(array, x):
        return x

    ref = both.remote(np.ones(100_000), sleep.remote(60))
    [row] = state.list_objects(filters=[("reference_type", "=", "LITERAL")])
    assert row.holders == {"others": 1}
    del ref


def test_a_worker_that_holds_a_ref_is_named(session):
    @eagleray.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs
            return os.getpid()

    keeper, ref = Keeper.remote(), eagleray.put(1)
    pid = eagleray.get(keeper.keep.remote([ref]))
    until(lambda: state.get_objects(ref)[0].holders == {"driver": 1, f"pid {pid}": 1})


def test_workers(session):
    eagleray.get(double.remote(1))
    workers = state.list_workers()
    assert [worker.worker_type for worker in workers][:1] == ["DRIVER"]
    assert workers[0].pid == os.getpid()
    assert workers[0].worker_id == eagleray.get_runtime_context().get_worker_id()
    victim = next(worker for worker in workers[1:] if worker.is_alive)
    assert state.get_worker(victim.worker_id).pid == victim.pid
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: not state.get_worker(victim.worker_id).is_alive)
    dead = state.get_worker(victim.worker_id)
    assert (dead.state, dead.exit_type, dead.exit_detail) == ("ended", "SYSTEM_ERROR", "It was ended by signal 9.")
    until(lambda: not alive(victim.pid))
    busy = sleep.remote(60)
    wait_for_state(busy, "RUNNING")
    assert [(worker.state, worker.task) for worker in state.list_workers() if worker.task] == [("busy", "sleep")]


def test_nodes(session):
    [node] = state.list_nodes()
    assert (node.state, node.is_head_node, node.resources_total["CPU"]) == ("ALIVE", True, 2.0)
    assert state.get_node(node.node_id) == node
    assert state.get_node("0") is None


def test_tasks_see_the_same(session):
    @eagleray.remote
    def inside():
        tasks = state.list_tasks()
        return (
            [task.asdict() for task in tasks],
            len(state.list_workers()),
            eagleray.get_runtime_context().get_worker_id(),
        )

    ref = inside.remote()
    tasks, workers, worker = eagleray.get(ref)
    assert [(task["name"], task["state"], task["worker_id"]) for task in tasks] == [(inside._name, "RUNNING", worker)]
    assert tasks[0]["task_id"] == ref.hex()
    assert workers == len(state.list_workers())


def test_rows_are_attributes_and_items(session):
    ref = double.remote(1)
    eagleray.get(ref)
    row = state.get_task(ref)
    assert row["name"] == row.get("name") == row.asdict()["name"] == row.name
    assert row.get("no such", 5) == 5
    with pytest.raises(KeyError):
        row["no such"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([("name", "=", "double")], ["double"]),
        ([("name", "!=", "double")], ["fails"]),
        ([("state", "=", "finished")], ["double"]),
        ([("state", "=", "FAILED"), ("name", "=", "double")], []),
        ([["attempt_number", "=", "0"]], ["double", "fails"]),
        ([("attempt_number", "=", 0), ("actor_id", "=", None)], ["double", "fails"]),
        ([], ["double", "fails"]),
    ],
)
def test_filters(session, filters, names):
    refs = [double.remote(1), fails.remote()]
    eagleray.wait(refs, num_returns=2)
    assert [task.name for task in state.list_tasks(filters=filters)] == names


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"filters": "state=ALIVE"}, TypeError, "filters must be a list of filters"),
        ({"filters": 5}, TypeError, "filters must be a list of filters"),
        ({"filters": [("state", "ALIVE")]}, ValueError, 'A filter is a field, "=" or "!=", and a value'),
        ({"filters": ["abc"]}, ValueError, 'A filter is a field, "=" or "!=", and a value'),
        ({"filters": [("stat", "=", "ALIVE")]}, ValueError, "no field 'stat' to filter by. Did you mean 'state'"),
        ({"filters": [("state", "<", "ALIVE")]}, ValueError, "not with '<'"),
        ({"limit": 0}, ValueError, "at least 1"),
        ({"limit": 1.5}, TypeError, "whole number"),
        ({"address": "127.0.0.1:6379"}, ValueError, "address must be None"),
    ],
)
def test_bad_arguments(shared, arguments, error, said):
    with pytest.raises(error, match=re.escape(said)):
        state.list_tasks(**arguments)


def test_a_limit_is_said(session):
    eagleray.get([double.remote(i) for i in range(10)])
    with pytest.warns(UserWarning, match="list_tasks gives 3 of 10: see its limit"):
        assert len(state.list_tasks(limit=3)) == 3
    with pytest.warns(UserWarning, match="gives 4 of 10 that fit the filters"):
        assert len(state.list_tasks(limit=4, filters=[("name", "=", "double")])) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(state.list_tasks(limit=10)) == 10


def test_what_is_forgotten_is_said(session):
    many = {f"y-{i}": (abs, i) for i in range(60_000)}
    for _ in range(2):
        ray_dask_get(many, list(many))
    eagleray.get(double.remote(1))
    until(lambda: not state.list_objects())
    with pytest.warns(UserWarning, match="knows nothing any more of 60,000 that ended earlier"):
        tasks = state.list_tasks(limit=100_000)
    assert 60_000 < len(tasks) < 100_000
    assert state.list_tasks(filters=[("state", "=", "RUNNING")]) == []


def test_the_state_is_looked_for_among_all_tasks(session, tmp_path):
    """However many there are: not only among the first 100,000."""

    def last():
        while not (tmp_path / "go on").exists():
            time.sleep(0.01)

    def counts_of(name):
        return state.summarize_tasks()["cluster"]["summary"].get(name, {}).get("state_counts")

    many = {f"y-{i}": (abs, i) for i in range(110_000)} | {"last": (last,)}
    computation = threading.Thread(target=ray_dask_get, args=(many, list(many)))
    computation.start()
    until(lambda: [task.name for task in state.list_tasks(filters=[("state", "=", "RUNNING")])] == ["last"])
    until(lambda: counts_of("y") == {"FINISHED": 110_000})
    assert counts_of("last") == {"RUNNING": 1}
    assert state.list_tasks(filters=[("state", "=", "FAILED")]) == []
    assert state.list_tasks(filters=[("state", "=", "RUNNING"), ("state", "!=", "RUNNING")]) == []
    with pytest.warns(UserWarning, match="looked through 100,000 of 110,000 and gives 3 that fit"):
        assert len(state.list_tasks(filters=[("state", "!=", "RUNNING")], limit=3)) == 3
    (tmp_path / "go on").touch()
    computation.join()


def test_of_calls_one_at_a_time_fewer_are_remembered(session):
    """Each is a graph, which takes memory."""
    for i in range(9_500):
        eagleray.get(double.remote(i))
    until(lambda: len(state.list_objects()) == 0)
    with pytest.warns(UserWarning, match="list_tasks knows nothing any more of"):
        assert 9_000 <= len(state.list_tasks(limit=20_000)) < 9_500


def test_ids_must_be_ids(session):
    with pytest.raises(TypeError, match="An id is a str"):
        state.get_task(5)
    assert state.get_task("0") is None
    assert state.get_objects("0") == []


def test_summaries(session):
    refs = [double.remote(1), double.remote(2), fails.remote()]
    put = eagleray.put(np.zeros(1 << 17))
    eagleray.wait(refs, num_returns=3)
    counts = state.summarize_tasks()["cluster"]
    assert (counts["total_tasks"], counts["total_actor_tasks"], counts["total_actor_scheduled"]) == (3, 0, 0)
    assert {name: row["state_counts"] for name, row in counts["summary"].items()} == {
        "double": {"FINISHED": 2},
        "fails": {"FAILED": 1},
    }
    objects = state.summarize_objects()["cluster"]
    assert objects["total_objects"] == 4
    assert 1 < objects["total_size_mb"] < 1.1
    assert objects["summary"]["PUT"]["total_objects"] == 1
    assert objects["summary"]["RESULT"]["task_state_counts"] == {"FINISHED": 2, "FAILED": 1}
    del put


def test_without_a_session_one_is_started(fresh):
    assert state.list_tasks() == []
    assert eagleray.is_initialized()


def test_memory_summary(session):
    big, small, result = eagleray.put(np.zeros(1 << 20)), eagleray.put("small"), double.remote(1)
    same = [eagleray._engine.native._rebuild_ref(*big.__reduce__()[1]) for _ in range(2)]
    eagleray.wait([result])
    lines = eagleray.memory_summary(units="MB").splitlines()
    assert lines[0].split() == ["object", "kind", "size", "where", "held", "by", "still", "read", "by", "of"]
    assert [line.split()[0] for line in lines[1:4]] == [big.hex(), small.hex(), result.hex()]
    assert re.search(r"put +8\.000 MB +sealed +driver \(\d+\)", lines[1])
    assert "2 puts: 8.000 MB" in lines
    assert "1 result: 0.000 MB" in lines
    assert lines[-1].startswith("object store: ")
    assert "1,000" not in eagleray.memory_summary(stats_only=True)
    assert big.hex() not in eagleray.memory_summary(stats_only=True)
    assert "... and 2 more" in eagleray.memory_summary(num_entries=1)
    assert "result:\n" in eagleray.memory_summary(group_by="REFERENCE_TYPE", sort_by="REFERENCE_TYPE", units="auto")
    del same


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"group_by": "PID"}, ValueError),
        ({"sort_by": "NAME"}, ValueError),
        ({"units": "kB"}, ValueError),
        ({"num_entries": -1}, ValueError),
        ({"num_entries": "all"}, TypeError),
        ({"address": "elsewhere"}, ValueError),
    ],
)
def test_memory_summary_checks_its_arguments(shared, arguments, error):
    with pytest.raises(error):
        eagleray.memory_summary(**arguments)


def test_processes_have_the_ids_that_they_say(session):
    @eagleray.remote
    def who():
        return os.getpid(), eagleray.get_runtime_context().get_worker_id()

    pid, identity = eagleray.get(who.remote())
    assert state.get_worker(identity).pid == pid
    assert isinstance(eagleray._engine.session(), Identity)


def test_it_is_there_without_an_import_of_its_own():
    said = subprocess.run(
        [sys.executable, "-c", "import eagleray; print(eagleray.util.state.list_tasks.__name__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.stdout, said.stderr) == ("list_tasks\n", "")
    with pytest.raises(AttributeError, match=r"eagleray\.util' has no attribute 'stat'"):
        eagleray.util.stat  # noqa: B018
