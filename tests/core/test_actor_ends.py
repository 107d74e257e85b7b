"""How actors end: without handles, killed, dead, at the end of the session; and how they come back."""

import atexit
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eagleray
from eagleray import _engine, exceptions
from eagleray.exceptions import ActorDiedError, ActorUnavailableError
from tests.conftest import alive, until
from tests.core.remotes import Counter, Shelf, add, echo, note, noted, pid, wait_for

pytestmark = pytest.mark.usefixtures("shared")


@eagleray.remote
def fail_with(*_: object) -> None:
    raise ValueError


@eagleray.remote
class TakesAll:
    def __init__(self, *_: object) -> None: ...

    def take(self, *_: object) -> None: ...

    def refuse(self, *_: object) -> None:
        raise ValueError


@eagleray.remote
class TakesAllAsync:
    async def take(self, *_: object) -> None: ...

    async def refuse(self, *_: object) -> None:
        raise ValueError


class TestOutOfScope:
    def test_ends_the_process(self) -> None:
        counter = Counter.remote()
        process = eagleray.get(counter.pid.remote())
        assert alive(process)
        del counter
        until(lambda: not alive(process))

    def test_queued_calls_are_not_lost(self, tmp_path: Path) -> None:
        path, go = str(tmp_path / "calls"), tmp_path / "go"
        counter = Counter.remote()
        process = eagleray.get(counter.pid.remote())
        waiting = counter.wait.remote(str(go))
        refs = [counter.call.remote(note, path) for _ in range(20)]
        del counter
        go.touch()
        assert eagleray.get(refs) == list(range(1, 21))
        assert eagleray.get(waiting) == str(go)
        until(lambda: not alive(process))

    def test_calls_whose_refs_are_dropped_run(self, tmp_path: Path) -> None:
        path = str(tmp_path / "calls")
        counter = Counter.remote()
        for _ in range(10):
            counter.call.remote(note, path)
        del counter
        until(lambda: noted(path) == 10)

    def test_results_of_the_gone(self) -> None:
        counter = Counter.remote(np.ones(500_000))
        small, large = counter.pid.remote(), counter.read.remote()
        process = eagleray.get(small)
        del counter
        until(lambda: not alive(process))
        assert eagleray.get(small) == process
        assert eagleray.get(large).sum() == 500_000

    def test_handle_elsewhere_keeps_it(self) -> None:
        shelf, counter = Shelf.remote(), Counter.remote()
        process = eagleray.get(counter.pid.remote())
        eagleray.get(shelf.put.remote("counter", counter))
        del counter
        assert eagleray.get(shelf.call.remote("counter", "pid")) == process
        eagleray.get(shelf.take.remote("counter"))
        until(lambda: not alive(process))

    def test_in_a_dropped_result(self) -> None:
        @eagleray.remote
        def make() -> Any:
            counter = Counter.remote()
            return eagleray.get(counter.pid.remote()), [counter]

        ref = make.remote()
        process, handles = eagleray.get(ref)
        assert alive(process)
        del handles
        assert eagleray.get(eagleray.get(ref)[1][0].pid.remote()) == process
        del ref
        until(lambda: not alive(process))

    def test_with_the_actor_that_holds_it(self) -> None:
        shelf = Shelf.remote(counter=Counter.remote())
        process = eagleray.get(shelf.call.remote("counter", "pid"))
        del shelf
        until(lambda: not alive(process))

    @pytest.mark.parametrize("call", [pid, fail_with, TakesAll], ids=str)
    def test_calls_that_are_over_do_not_keep_what_they_were_given(self, call: Any) -> None:
        """Though who asked for the result has it still."""
        for given in (lambda handle: handle, lambda handle: [handle]):
            counter = Counter.remote()
            process = eagleray.get(counter.pid.remote())
            result = call.remote(given(counter))
            if isinstance(result, eagleray.ObjectRef):
                eagleray.wait([result])
            else:
                eagleray.get(result.__ray_ready__.remote())
            del counter
            until(lambda process=process: not alive(process))
            del result

    @pytest.mark.parametrize("concurrency", [1, 2])
    @pytest.mark.parametrize("method", ["take", "refuse"])
    @pytest.mark.parametrize("kind", [TakesAll, TakesAllAsync])
    def test_calls_of_actors_that_are_over_do_not_either(self, kind: Any, method: str, concurrency: int) -> None:
        """No later call is needed that they do."""
        taker = kind.options(max_concurrency=concurrency).remote()
        counter = Counter.remote()
        process = eagleray.get(counter.pid.remote())
        result = getattr(taker, method).remote(counter)
        eagleray.wait([result])
        del counter
        until(lambda: not alive(process))
        del result, taker

    def test_atexit_and_finalizers_run(self, tmp_path: Path) -> None:
        """The end is that of a Python program, so what the actor's libraries registered happens."""
        path = tmp_path / "ended"

        def register(path: str) -> None:
            import atexit

            atexit.register(note, path)

        counter = Counter.remote()
        eagleray.get(counter.call.remote(register, str(path)))
        del counter
        until(path.exists)

    def test_finalizers_run(self, tmp_path: Path) -> None:
        ended, finalized, deleted = (tmp_path / name for name in ("ended", "finalized", "deleted"))

        @eagleray.remote
        class Careful:
            def __init__(self, finalized: str) -> None:
                weakref.finalize(self, note, finalized)
                atexit.register(note, str(ended))

            def __del__(self) -> None:
                note(str(deleted))

            def pid(self) -> int:
                return os.getpid()

        careful = Careful.remote(str(finalized))
        process = eagleray.get(careful.pid.remote())
        del careful
        until(lambda: not alive(process))
        assert [noted(ended), noted(finalized), noted(deleted)] == [1, 1, 1]

    @pytest.mark.parametrize("how", ["leave", "__ray_terminate__"])
    def test_atexit_runs_when_it_ends_itself(self, how: str, tmp_path: Path) -> None:
        path = tmp_path / "ended"
        counter = Counter.remote()
        eagleray.get(counter.call.remote(lambda: atexit.register(note, str(path)) and None))
        with pytest.raises(ActorDiedError, match="actor Sum is dead: it has ended itself"):
            eagleray.get(getattr(counter, how).remote())
        assert noted(path) == 1


class TestKill:
    def test_ends_it(self) -> None:
        counter = Counter.remote()
        process = eagleray.get(counter.pid.remote())
        eagleray.kill(counter)
        until(lambda: not alive(process))
        with pytest.raises(ActorDiedError, match=r"(?i)kill"):
            eagleray.get(counter.read.remote())

    def test_ends_the_call_that_runs_and_the_queue(self, tmp_path: Path) -> None:
        begun = tmp_path / "begun"
        counter = Counter.remote()
        running = counter.wait.remote(str(tmp_path / "never"), str(begun))
        queued = [counter.add.remote() for _ in range(5)]
        wait_for(begun)
        eagleray.kill(counter)
        for ref in [running, *queued]:
            with pytest.raises(ActorDiedError):
                eagleray.get(ref)

    def test_twice_and_of_a_dead_one(self) -> None:
        counter = Counter.remote()
        eagleray.get(counter.read.remote())
        eagleray.kill(counter)
        eagleray.kill(counter)
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.read.remote())
        eagleray.kill(counter)

    def test_before_it_is_there(self) -> None:
        counter = Counter.remote()
        eagleray.kill(counter)
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.read.remote())

    def test_restarts_if_told(self) -> None:
        counter = Counter.options(max_restarts=1).remote(1)
        first = eagleray.get(counter.pid.remote())
        eagleray.get(counter.add.remote())
        eagleray.kill(counter, no_restart=False)
        until(lambda: not alive(first))
        assert eagleray.get(counter.read.remote()) == 1
        second = eagleray.get(counter.pid.remote())
        assert second != first
        eagleray.kill(counter)
        until(lambda: not alive(second))
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.read.remote())

    def test_by_another(self) -> None:
        counter = Counter.remote()
        process = eagleray.get(counter.pid.remote())
        eagleray.get(eagleray.remote(lambda actors: eagleray.kill(actors[0])).remote([counter]))
        until(lambda: not alive(process))

    def test_before_it_is_made(self) -> None:
        counter = Counter.remote()
        eagleray.kill(counter, no_restart=False)
        with pytest.raises(ActorDiedError, match=r"eagleray\.kill\(\) has ended it"):
            eagleray.get(counter.read.remote())
        counter = Counter.options(max_restarts=1).remote()
        eagleray.kill(counter, no_restart=False)
        assert eagleray.get(counter.read.remote()) == 0
        eagleray.kill(counter, no_restart=False)
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.wait.remote("/nowhere"))


class TestDeath:
    def test_says_why(self) -> None:
        counter = Counter.remote()
        bad = counter.die.remote(3)
        for ref in (bad, counter.read.remote()):
            with pytest.raises(ActorDiedError, match="Sum") as caught:
                eagleray.get(ref)
            assert isinstance(caught.value, exceptions.RayActorError)
            assert "3" in str(caught.value)

    def test_of_a_signal(self) -> None:
        counter = Counter.remote()
        process = eagleray.get(counter.pid.remote())
        os.kill(process, 9)
        until(lambda: not alive(process))
        with pytest.raises(ActorDiedError, match="SIGKILL"):
            eagleray.get(counter.read.remote())

    def test_constructor_that_fails(self) -> None:
        @eagleray.remote
        class Bad:
            def __init__(self, text: str) -> None:
                raise LookupError(text)

            def method(self) -> int:
                return 1

        bad = Bad.remote("no such thing")
        for _ in range(2):
            with pytest.raises(ActorDiedError, match=r"(?s)Bad.*LookupError.*no such thing") as caught:
                eagleray.get(bad.method.remote())
            assert not isinstance(caught.value, LookupError)

    def test_constructor_that_ends_the_process(self) -> None:
        @eagleray.remote
        class Bad:
            def __init__(self) -> None:
                os._exit(9)

            def method(self) -> int:
                return 1

        with pytest.raises(ActorDiedError, match="9"):
            eagleray.get(Bad.remote().method.remote())

    def test_killed_while_the_constructor_runs(self, tmp_path: Path) -> None:
        begun = str(tmp_path / "begun")

        @eagleray.remote
        class Endless:
            def __init__(self) -> None:
                note(begun)
                wait_for(tmp_path / "never")

            def method(self) -> int:
                return 1

        endless = Endless.remote()
        called = endless.method.remote()
        until(lambda: noted(begun) == 1)
        process = int(Path(begun).read_text())
        eagleray.kill(endless)
        with pytest.raises(ActorDiedError, match=r"kill\(\) has ended it"):
            eagleray.get(called)
        until(lambda: not alive(process))

    def test_exit_actor(self) -> None:
        counter = Counter.remote()
        process = eagleray.get(counter.pid.remote())
        before = counter.add.remote()
        leave = counter.leave.remote()
        with pytest.raises(ActorDiedError, match="exit_actor"):
            eagleray.get(leave)
        until(lambda: not alive(process))
        assert eagleray.get(before) == 1
        with pytest.raises(ActorDiedError, match="exit_actor"):
            eagleray.get(counter.add.remote())

    def test_exit_actor_is_final(self) -> None:
        counter = Counter.options(max_restarts=-1).remote()
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.leave.remote())
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.add.remote())

    def test_sys_exit(self) -> None:
        counter = Counter.remote()
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.fail.remote(SystemExit, 0))

    def test_others_go_on(self) -> None:
        counter, other = Counter.remote(), Counter.remote()
        counter.die.remote()
        assert eagleray.get([other.add.remote(), echo.remote(2)]) == [1, 2]

    def test_readers_of_its_results_learn_it(self) -> None:
        counter = Counter.remote()
        with pytest.raises(ActorDiedError):
            eagleray.get(add.remote(counter.die.remote(), 1))


class TestRestarts:
    def test_as_often_as_told(self) -> None:
        counter = Counter.options(max_restarts=2).remote(10)
        pids = set()
        for _ in range(2):
            assert eagleray.get(counter.add.remote()) == 11
            pids.add(eagleray.get(counter.pid.remote()))
            with pytest.raises(exceptions.RayActorError):
                eagleray.get(counter.die.remote())
        assert eagleray.get(counter.add.remote()) == 11
        pids.add(eagleray.get(counter.pid.remote()))
        assert len(pids) == 3
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.die.remote())
        with pytest.raises(ActorDiedError):
            eagleray.get(counter.add.remote())

    def test_a_call_that_it_interrupts_is_not_one_of_a_dead_actor(self) -> None:
        counter = Counter.options(max_restarts=1).remote()
        with pytest.raises(
            ActorUnavailableError, match=r"Sum died while.*code 7.*made anew.*max_task_retries"
        ) as caught:
            eagleray.get(counter.die.remote())
        assert not isinstance(caught.value, ActorDiedError)
        assert "is dead" not in str(caught.value)
        assert eagleray.get(counter.add.remote()) == 1
        with pytest.raises(ActorDiedError, match=r"is dead.*restarted 1 time before"):
            eagleray.get(counter.die.remote())

    @pytest.mark.parametrize("concurrency", [1, 2])
    def test_no_call_is_done_twice(self, concurrency: int, tmp_path: Path) -> None:
        """Also not those that had run before the actor died, but of which it had not told yet."""

        @eagleray.remote(max_restarts=1, max_concurrency=concurrency)
        class Notes:
            def note(self, path: str, die: bool) -> None:
                note(path)
                if die:
                    os._exit(1)

        notes = Notes.remote()
        paths = [str(tmp_path / str(i)) for i in range(60)]
        refs = [notes.note.remote(path, i == 40) for i, path in enumerate(paths)]
        eagleray.wait(refs, num_returns=len(refs))
        counts = [noted(path) for path in paths]
        assert set(counts) <= {0, 1}
        # What ran beside the one that ended the process had perhaps not come to it.
        assert counts[:41].count(0) < concurrency

    def test_a_call_that_a_kill_interrupts(self, tmp_path: Path) -> None:
        counter = Counter.options(max_restarts=-1).remote()
        call = counter.wait.remote(str(tmp_path / "never"), str(tmp_path / "begun"))
        until(lambda: bool(noted(str(tmp_path / "begun"))))
        eagleray.kill(counter, no_restart=False)
        with pytest.raises(ActorUnavailableError, match=r"kill\(\.\.\., no_restart=False\)") as caught:
            eagleray.get(call)
        assert "SIGKILL" not in str(caught.value)
        assert "memory" not in str(caught.value)

    @pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}])
    def test_a_call_that_the_last_kill_interrupts(self, tmp_path: Path, options: dict[str, Any]) -> None:
        counter = Counter.options(**options).remote()
        call = counter.wait.remote(str(tmp_path / "never"), str(tmp_path / "begun"))
        until(lambda: bool(noted(str(tmp_path / "begun"))))
        eagleray.kill(counter, no_restart=False)
        # Not both at once: `kill` does not wait, and with a second thread the old process may still read.
        for submit in (lambda: call, counter.read.remote):
            with pytest.raises(ActorDiedError, match=r"is dead: eagleray\.kill\(\) has ended it"):
                eagleray.get(submit())

    def test_a_call_of_another_process_that_it_interrupts(self) -> None:
        counter = Counter.options(max_restarts=-1).remote()

        @eagleray.remote
        def error(actor: Any) -> str:
            try:
                eagleray.get(actor.die.remote())
            except exceptions.RayActorError as error:
                return type(error).__name__
            return "none"

        assert eagleray.get(error.remote(counter)) == "ActorUnavailableError"

    def test_knows_it(self) -> None:
        again = Counter.options(max_restarts=-1).remote()

        def reconstructed() -> bool:
            return bool(eagleray.get_runtime_context().was_current_actor_reconstructed)

        assert eagleray.get(again.call.remote(reconstructed)) is False
        with pytest.raises(exceptions.RayActorError):
            eagleray.get(again.die.remote())
        assert eagleray.get(again.call.remote(reconstructed)) is True

    def test_runs_no_call_again_that_has_ended(self, tmp_path: Path) -> None:
        """Though it took so short a time that it would be reported with what ends the worker."""
        path = str(tmp_path / "runs")
        counter = Counter.options(max_restarts=-1).remote()
        eagleray.get([counter.call.remote(noted, path) for _ in range(50)])
        for _ in range(10):
            *ended, last = [counter.call.remote(*call) for call in [(note, path)] * 3 + [(os._exit, 3)]]
            with pytest.raises(ActorUnavailableError):
                eagleray.get(last)
            eagleray.get(ended)
        assert noted(path) == 30

    def test_knows_it_when_it_is_made(self, tmp_path: Path) -> None:
        path = str(tmp_path / "made")

        @eagleray.remote(max_restarts=1)
        class Knowing:
            def __init__(self) -> None:
                self.known = eagleray.get_runtime_context().was_current_actor_reconstructed
                if note(path) == 1:
                    os._exit(7)

            def read(self) -> bool:
                return self.known

        assert eagleray.get(Knowing.remote().read.remote()) is True

    def test_leaves_no_file(self) -> None:
        session_dir = _engine._session_dir
        assert session_dir is not None
        before = set(os.listdir(session_dir))
        assert eagleray.get(Counter.options(max_restarts=1).remote(3).read.remote()) == 3
        assert set(os.listdir(session_dir)) == before

    def test_queued_calls_fail_or_run_but_are_not_lost(self) -> None:
        counter = Counter.options(max_restarts=1).remote()
        refs = [counter.die.remote(), *[counter.add.remote() for _ in range(10)]]
        done, rest = eagleray.wait(refs, num_returns=len(refs))
        assert (len(done), rest) == (len(refs), [])
        assert eagleray.get(counter.read.remote()) <= 10

    def test_task_retries(self, tmp_path: Path) -> None:
        counter = Counter.options(max_restarts=1, max_task_retries=1).remote(5)
        assert eagleray.get(counter.die_once.remote(str(tmp_path / "runs"))) == "survived"
        assert eagleray.get(counter.add.remote()) == 6

    def test_task_retries_keep_the_order(self, tmp_path: Path) -> None:
        log = Counter.options(max_restarts=-1, max_task_retries=-1).remote([])
        refs = [log.add.remote([0]), log.die_once.remote(str(tmp_path / "runs"))]
        refs += [log.add.remote([i]) for i in range(1, 6)]
        *_, last = eagleray.get(refs)
        assert [i for i in last if i] == [1, 2, 3, 4, 5]

    def test_the_constructor_has_its_arguments_again(self) -> None:
        data = np.ones(500_000)
        counter = Counter.options(max_restarts=1).remote(eagleray.put(data))
        with pytest.raises(exceptions.RayActorError):
            eagleray.get(counter.die.remote())
        assert eagleray.get(counter.read.remote()).sum() == 500_000

    def test_name_stays(self) -> None:
        counter = Counter.options(max_restarts=1, name="comes back").remote()
        with pytest.raises(exceptions.RayActorError):
            eagleray.get(counter.die.remote())
        assert eagleray.get(eagleray.get_actor("comes back").add.remote()) == 1

    def test_not_after_the_last_handle(self) -> None:
        counter = Counter.options(max_restarts=-1).remote()
        process = eagleray.get(counter.pid.remote())
        del counter
        until(lambda: not alive(process))


def test_shutdown_ends_all(fresh: None) -> None:
    eagleray.init(num_cpus=2)
    actors = [Counter.remote(), Counter.options(name="d", lifetime="detached").remote()]
    pids = eagleray.get([actor.pid.remote() for actor in actors])
    eagleray.shutdown()
    assert not any(map(alive, pids))
