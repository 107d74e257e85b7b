"""What tasks print, and what they emit, in the driver."""

import ctypes
import gc
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray import _engine, _output, _repeats, _worker_output
from eagleray.dask import ray_dask_get
from tests import tasks
from tests.conftest import until


def run(function: Callable[..., Any], *args: Any, key: Any = "a") -> Any:
    return ray_dask_get({key: (function, *args)}, key)


def without_pids(text: str) -> str:
    return re.sub(r"pid=\d+", "pid=N", text)


def say(*words: Any, **kwargs: Any) -> int:
    print(*words, **kwargs)
    return os.getpid()


@pytest.mark.usefixtures("shared")
class TestPrint:
    def test_a_line_has_key_and_pid_when_compute_returns(self, capsys: pytest.CaptureFixture[str]) -> None:
        pid = run(say, "hello", "there")
        assert capsys.readouterr().out == f"(a, pid={pid}) hello there\n"

    def test_a_key_that_is_a_tuple(self, capsys: pytest.CaptureFixture[str]) -> None:
        pid = run(say, "x", key=("b-1", 0, 3))
        assert capsys.readouterr().out == f"(('b-1', 0, 3), pid={pid}) x\n"

    def test_each_task_of_a_run_has_its_own_key(self, capsys: pytest.CaptureFixture[str]) -> None:
        graph = {("say", i): (say, i) for i in range(200)}
        ray_dask_get(graph, list(graph))
        lines = capsys.readouterr().out.splitlines()
        assert sorted(without_pids(line) for line in lines) == sorted(f"(('say', {i}), pid=N) {i}" for i in range(200))

    def test_stderr(self, capsys: pytest.CaptureFixture[str]) -> None:
        pid = run(_to_stderr)
        assert capsys.readouterr() == ("", f"(a, pid={pid}) problem\n")

    def test_several_lines_at_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(say, "one\n\ntwo")
        assert without_pids(capsys.readouterr().out) == "(a, pid=N) one\n(a, pid=N) \n(a, pid=N) two\n"

    def test_a_line_without_end_ends_with_its_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        for flush in (False, True):
            run(_print_part, flush)
            assert without_pids(capsys.readouterr().out) == "(a, pid=N) unfinished\n"

    def test_tasks_do_not_share_a_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        graph = {("p", i): (_say_unended, i) for i in range(20)}
        ray_dask_get(graph, list(graph))
        lines = [without_pids(line) for line in capsys.readouterr().out.splitlines()]
        assert sorted(lines) == sorted(f"(('p', {i}), pid=N) part {i}" for i in range(20))

    def test_a_part_of_a_task_whose_run_goes_on(
        self, fresh: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        eagleray.init(num_cpus=1)
        # Now and then the worker is given only one of the two.
        for number in range(5):
            door = tmp_path / str(number)
            part, waiting = eagleray.remote(_say_unended).remote(number), eagleray.remote(_wait_for).remote(door)
            eagleray.get(part)
            assert without_pids(capsys.readouterr().out) == f"(_say_unended, pid=N) part {number}\n"
            door.touch()
            eagleray.get(waiting)

    def test_flush_of_a_part_and_the_rest(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(_print_flushed)
        assert without_pids(capsys.readouterr().out) == "(a, pid=N) one two\n"

    def test_text_in_any_script_and_bytes(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(say, "žluťoučký \udc80 🦅")
        run(_write_bytes, b"bytes \xff\n")
        assert without_pids(capsys.readouterr().out) == ("(a, pid=N) žluťoučký \\udc80 🦅\n(a, pid=N) bytes \ufffd\n")

    def test_control_characters_of_a_task_stay(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(say, "a\x1eb\x1fc")
        assert without_pids(capsys.readouterr().out) == "(a, pid=N) a\x1eb\x1fc\n"

    def test_a_progress_bar_shows_its_last_state(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(say, " 0%\r 50%\r100%")
        assert without_pids(capsys.readouterr().out) == "(a, pid=N) 100%\n"

    def test_a_very_long_line_is_cut(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(_print_long, 3_000_000)
        first, second = without_pids(capsys.readouterr().out).splitlines()
        assert first.startswith("(a, pid=N) xxxxx")
        assert first.endswith("x [the rest of the line is left out]")
        assert len(first) < 100_000
        assert second == "(a, pid=N) after"

    def test_c_code_and_children(self, capfd: pytest.CaptureFixture[str]) -> None:
        run(_print_from_elsewhere)
        out = without_pids(capfd.readouterr().out)
        assert out.splitlines() == ["(pid=N) from C", "(pid=N) from a child", "(pid=N) device", "(a, pid=N) Python"]

    def test_before_a_failure_is_raised(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ValueError, match="on purpose"):
            run(_say_and_fail)
        assert without_pids(capsys.readouterr().out) == "(a, pid=N) about to fail\n"

    def test_by_get_of_refs(self, capsys: pytest.CaptureFixture[str]) -> None:
        ref = ray_dask_get({"a": (say, "by ref")}, "a", ray_persist=True)
        eagleray.get(ref)
        assert "by ref\n" in capsys.readouterr().out

    def test_key_of_a_graph_that_nobody_has_in_hand(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        ref = ray_dask_get({"a": (_say_when, str(tmp_path / "go"), "late")}, "a", ray_persist=True)
        gc.collect()
        (tmp_path / "go").touch()
        eagleray.get(ref)
        assert without_pids(capsys.readouterr().out) == "(a, pid=N) late\n"

    def test_from_threads_and_forks_of_a_task(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(_print_in_threads, 4, 100)
        lines = [without_pids(line) for line in capsys.readouterr().out.splitlines()]
        assert sorted(lines) == sorted(f"(a, pid=N) thread {n} line {i}" for n in range(4) for i in range(100))
        run(_print_in_pool, 3)
        lines = [without_pids(line) for line in capsys.readouterr().out.splitlines()]
        assert sorted(lines) == [f"(a, pid=N) pool {n}" for n in range(3)]

    def test_much_of_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        graph = {("much", i): (_print_much, 2_000, i) for i in range(8)}
        ray_dask_get(graph, list(graph))
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 16_000
        counts = Counter(line.partition(") ")[2] for line in lines)
        assert counts == {f"the same line again {i}": 2_000 for i in range(8)}

    def test_a_driver_whose_stream_does_not_take_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        closed = io.StringIO()
        closed.close()
        for n, stream in enumerate((closed, None, object(), io.TextIOWrapper(io.BytesIO(), encoding="ascii"))):
            monkeypatch.setattr(sys, "stdout", stream)
            assert run(say, f"ž{n}") > 0
        assert isinstance(stream, io.TextIOWrapper)
        assert stream.buffer.getvalue().endswith(b") \\u017e3\n")  # type: ignore[attr-defined]

    def test_nested_computes(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(_compute_and_say)
        assert without_pids(capsys.readouterr().out) == "(pid=N) inner\n(a, pid=N) outer\n"


def _to_stderr() -> int:
    return say("problem", file=sys.stderr)


def _print_part(flush: bool) -> None:
    print("unfinished", end="", flush=flush)


def _wait_for(door: Path) -> None:
    until(door.exists)


def _say_unended(i: int) -> None:
    print("part", i, end="")


def _print_flushed() -> None:
    print("one", end=" ", flush=True)
    print("two")


def _write_bytes(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def _print_long(length: int) -> None:
    for _ in range(3):
        print("x" * (length // 3), end="")
    print("\nafter")


def _print_from_elsewhere() -> None:
    libc = ctypes.CDLL(None)
    libc.puts(b"from C")
    subprocess.run(["echo", "from a child"], check=True)
    subprocess.run("echo device > /dev/stdout", shell=True, check=True)
    print("Python")


def _say_and_fail() -> None:
    print("about to fail")
    raise ValueError("on purpose")


def _say_when(path: str, text: str) -> None:
    until(lambda: os.path.exists(path))
    print(text)


def _print_in_threads(threads: int, lines: int) -> None:
    def work(n: int) -> None:
        for i in range(lines):
            sys.stdout.write(f"thread {n} line {i}\n")

    running = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def _pool_task(n: int) -> None:
    print("pool", n)


def _print_in_pool(n: int) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(_pool_task, range(n))


def _print_much(lines: int, n: int = 0) -> None:
    for _ in range(lines):
        print("the same line again", n)


def _compute_and_say() -> None:
    ray_dask_get({"x": (say, "inner")}, "x")
    print("outer")


@pytest.mark.usefixtures("session")
class TestWorkersThatEnd:
    def test_their_last_lines_are_kept(self) -> None:
        with pytest.raises(eagleray.exceptions.WorkerCrashedError):
            run(_say_and_die)
        ended = [worker["pid"] for worker in _engine.native.workers() if worker["state"] == "ended"]
        lines = [_output.last_lines(pid) for pid in ended]
        assert [f"line {i}" for i in range(11, 30)] + ["no end"] in lines

    def test_a_crash_of_c_code_says_where(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(eagleray.exceptions.WorkerCrashedError):
            run(_crash)
        err = without_pids(capsys.readouterr().err)
        assert "(pid=N) Fatal Python error: Segmentation fault" in err
        assert "in _crash" in err

    def test_nothing_is_known_of_others(self) -> None:
        assert _output.last_lines(1) == []
        eagleray.shutdown()
        assert _output.last_lines(1) == []

    def test_those_of_long_ago_are_forgotten(self) -> None:
        output = _output._output
        assert output is not None
        pids = []
        for _ in range(_output._MOST_DEAD + 5):
            pids.append(child := os.fork())
            if child == 0:
                _speak_as_worker(output._path)
                os._exit(0)
            os.waitpid(child, 0)
            until(lambda: output.last_lines(child) == ["spoken"])
        known = [pid for pid in pids if output.last_lines(pid)]
        assert known == pids[-len(known) :]
        # Workers of the session may have ended meanwhile, too.
        assert _output._MOST_DEAD - 4 <= len(known) < len(pids)


def _speak_as_worker(path: str) -> None:
    _worker_output.attach(os.path.dirname(path), lambda: None, lambda function: None)
    print("spoken")


def _say_and_die() -> None:
    for i in range(30):
        print("line", i)
    print("no end", end="", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def _crash() -> None:
    ctypes.string_at(0)


class TestAlike:
    """What several workers write alike: each of these actors is a process."""

    @pytest.fixture(autouse=True)
    def _clean(self, monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
        for name in ("EAGLERAY_DEDUP_LOGS", "RAY_DEDUP_LOGS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(_repeats, "WINDOW", 1e5)

    def test_others_are_counted(self, capsys: pytest.CaptureFixture[str]) -> None:
        first, *others = speakers(4)
        eagleray.get(first.say.remote("hello"))
        for other in others:
            eagleray.get(other.say.remote("hello"))
            eagleray.get(other.say.remote("Hello"))
        assert without_pids(capsys.readouterr().out) == "(Speaker, pid=N) hello\n(Speaker, pid=N) Hello\n"
        last = eagleray.get(others[-1].pid.remote())
        eagleray.shutdown()
        assert capsys.readouterr().out == (
            f"(Speaker, pid={last}) hello [repeated 3x by other workers; EAGLERAY_DEDUP_LOGS=0 shows each]\n"
            f"(Speaker, pid={last}) Hello [repeated 2x by other workers]\n"
        )

    def test_one_is_shown_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        first, second = speakers(2)
        eagleray.get(first.say.remote("hello"))
        eagleray.get(second.say.remote("hello"))
        assert len(capsys.readouterr().out.splitlines()) == 1
        pid = eagleray.get(second.pid.remote())
        eagleray.shutdown()
        assert capsys.readouterr().out == f"(Speaker, pid={pid}) hello\n"

    def test_the_same_process_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        (only,) = speakers(1)
        for _ in range(5):
            eagleray.get(only.say.remote("hello\nhello"))
        assert without_pids(capsys.readouterr().out) == "(Speaker, pid=N) hello\n" * 10

    def test_what_is_no_whole_line_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        for speaker in speakers(2):
            eagleray.get(speaker.say.remote("  0%\r100%"))
            eagleray.get(speaker.say.remote("\n  "))
            eagleray.get(speaker.say.remote("x" * 2000))
            eagleray.get(speaker.raw.remote(b"open"))
            eagleray.get(speaker.say.remote("tagged"))
        shown = [line.partition(") ")[2] for line in capsys.readouterr().out.splitlines()]
        assert shown == ["100%", "", "  ", "x" * 2000, "open", "tagged"] * 2

    def test_streams_are_not_alike(self, capsys: pytest.CaptureFixture[str]) -> None:
        first, second = speakers(2)
        eagleray.get(first.say.remote("hello"))
        eagleray.get(second.complain.remote("hello"))
        out, err = capsys.readouterr()
        assert without_pids(out) == without_pids(err) == "(Speaker, pid=N) hello\n"

    def test_last_lines_have_it(self) -> None:
        for speaker in speakers(2):
            eagleray.get(speaker.say.remote("hello"))
            assert _output.last_lines(eagleray.get(speaker.pid.remote())) == ["hello"]

    def test_when_the_window_ends(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Though nobody writes or computes any more."""
        first, *others = speakers(3)
        eagleray.get(first.say.remote("hello"))
        for other in others:
            eagleray.get(other.say.remote("hello"))
        shown = capsys.readouterr().out
        assert len(shown.splitlines()) == 1
        monkeypatch.setattr(_repeats, "WINDOW", 0.05)
        # What is withheld now is due at once, and the thread sleeps until the end of time.
        eagleray.get(first.say.remote("again"))
        eagleray.get(others[0].say.remote("again"))
        lines: list[str] = []

        def complete() -> bool:
            lines.extend(capsys.readouterr().out.splitlines())
            return sum("again" in line for line in lines) == 2 and any("repeated 2x" in line for line in lines)

        until(complete)

    @pytest.mark.parametrize("name", ["EAGLERAY_DEDUP_LOGS", "RAY_DEDUP_LOGS"])
    def test_turned_off(self, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, "0")
        for speaker in speakers(2):
            eagleray.get(speaker.say.remote("hello"))
        assert without_pids(capsys.readouterr().out) == "(Speaker, pid=N) hello\n" * 2

    def test_before_the_driver_exits(self) -> None:
        program = """
            import eagleray
            from tests.test_output import Speaker
            eagleray.init(num_cpus=1)
            speakers = [Speaker.remote() for _ in range(3)]
            for speaker in speakers:
                eagleray.get(speaker.say.remote("hello"))
        """
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_DEDUP_LOGS")}
        command = [sys.executable, "-c", textwrap.dedent(program)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        assert [line.partition(") ")[2] for line in done.stdout.splitlines()] == [
            "hello",
            "hello [repeated 2x by other workers; EAGLERAY_DEDUP_LOGS=0 shows each]",
        ]


@eagleray.remote(num_cpus=0)
class Speaker:
    def say(self, text: str) -> None:
        print(text)

    def complain(self, text: str) -> None:
        print(text, file=sys.stderr)

    def raw(self, data: bytes) -> None:
        os.write(1, data)

    def pid(self) -> int:
        return os.getpid()


def speakers(count: int) -> list[Any]:
    if not eagleray.is_initialized():
        eagleray.init(num_cpus=1)
    return [Speaker.remote() for _ in range(count)]


class TestRepeats:
    """What is withheld, and when it is shown."""

    def repeats(self) -> tuple[_repeats.Repeats, list[str]]:
        shown: list[str] = []
        return _repeats.Repeats(lambda stream, text: shown.append(text)), shown

    def test_of_a_window(self) -> None:
        repeats, shown = self.repeats()
        assert not repeats.withholds("stdout", "a", "(1) ", 1, 10.0)
        assert repeats.due is None
        assert repeats.withholds("stdout", "a", "(2) ", 2, 11.0)
        assert repeats.due == 15.0
        assert repeats.withholds("stdout", "a", "(3) ", 3, 14.9)
        repeats.show_due(14.9)
        assert not shown
        repeats.show_due(15.0)
        assert shown == ["(3) a [repeated 2x by other workers; EAGLERAY_DEDUP_LOGS=0 shows each]\n"]
        assert repeats.due is None
        # It goes on, and then it does not.
        assert repeats.withholds("stdout", "a", "(2) ", 2, 19.0)
        assert repeats.due == 20.0
        repeats.show_due(20.0)
        assert shown[1:] == ["(2) a\n"]
        assert not repeats.withholds("stdout", "a", "(3) ", 3, 20.0)

    def test_one_that_comes_when_the_window_is_over(self) -> None:
        repeats, shown = self.repeats()
        assert not repeats.withholds("stdout", "a", "(1) ", 1, 0.0)
        assert not repeats.withholds("stdout", "a", "(2) ", 2, 5.0)
        assert repeats.withholds("stdout", "a", "(1) ", 1, 6.0)
        assert not repeats.withholds("stdout", "a", "(3) ", 3, 10.0)
        assert shown == ["(1) a\n"]

    def test_the_earliest_is_due(self) -> None:
        repeats, _ = self.repeats()
        for at, text in enumerate("ab"):
            assert not repeats.withholds("stdout", text, "", 1, at)
        assert repeats.withholds("stdout", "b", "", 2, 2.0)
        assert repeats.due == 6.0
        assert repeats.withholds("stdout", "a", "", 2, 2.0)
        assert repeats.due == 5.0
        repeats.show_due(5.0)
        assert repeats.due == 6.0

    def test_many_that_are_different(self) -> None:
        repeats, shown = self.repeats()
        assert not repeats.withholds("stdout", "first", "(1) ", 1, 0.0)
        assert repeats.withholds("stdout", "first", "(2) ", 2, 0.0)
        for n in range(5 * _repeats._MOST_LINES):
            assert not repeats.withholds("stdout", f"line {n}", "(1) ", 1, 0.0)
        assert shown == ["(2) first\n"]
        assert len(repeats._first) == _repeats._MOST_LINES
        assert not repeats._held

    @pytest.mark.parametrize(
        ("environment", "wanted"),
        [
            ({}, True),
            ({"EAGLERAY_DEDUP_LOGS": "0"}, False),
            ({"RAY_DEDUP_LOGS": "False"}, False),
            ({"EAGLERAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS": "0"}, True),
            ({"EAGLERAY_DEDUP_LOGS": "", "RAY_DEDUP_LOGS": "0"}, False),
        ],
    )
    def test_wanted(self, environment: dict[str, str], wanted: bool) -> None:
        assert _repeats.wanted(environment) is wanted


class TestEvents:
    def test_records_are_there_in_order_when_compute_returns(self, session: None) -> None:
        records: list[Any] = []
        _output.subscribe(7, records.append)
        for n in range(20):
            pid = run(_emit, 7, n, 50)
            assert records == [(pid, n, i) for i in range(50)]
            records.clear()
        _output.unsubscribe(7)
        run(_emit, 7, 0, 5)
        assert not records

    def test_each_token_has_its_own(self, session: None) -> None:
        one: list[Any] = []
        two: list[Any] = []
        _output.subscribe(1, one.append)
        _output.subscribe(2**64 - 1, two.append)
        run(_emit, 1, 0, 3)
        run(_emit, 2**64 - 1, 1, 2)
        run(_emit, 3, 1, 2)
        assert ([len(one), len(two)]) == [3, 2]

    def test_large_records_and_forks_and_threads(self, session: None) -> None:
        records: list[Any] = []
        _output.subscribe(1, records.append)
        run(_emit_from_all, 1, 20, 300_000)
        assert len(records) == 4 * 20
        assert {(name, len(body)) for name, _, body in records} == {(n, 300_000) for n in ("t0", "t1", "f0", "f1")}
        for name in ("t0", "t1", "f0", "f1"):
            assert [i for n, i, _ in records if n == name] == list(range(20))

    def test_a_subscriber_that_fails_or_computes(self, session: None, capsys: pytest.CaptureFixture[str]) -> None:
        seen: list[Any] = []

        def fail(record: object) -> None:
            raise RuntimeError("in a subscriber")

        _output.subscribe(1, fail)
        run(_emit, 1, 0, 1)
        assert "RuntimeError: in a subscriber" in capsys.readouterr().err
        _output.subscribe(1, lambda record: seen.append(run(tasks.inc, 1, key="b")))
        run(_emit, 1, 0, 1)
        assert seen == [2]

    def test_without_a_driver(self) -> None:
        _worker_output.emit(1, "nobody hears it")


def _emit(token: int, n: int, count: int) -> int:
    for i in range(count):
        _worker_output.emit(token, (os.getpid(), n, i))
    return os.getpid()


def _emit_from_all(token: int, count: int, size: int) -> None:
    def work(name: str) -> None:
        for i in range(count):
            _worker_output.emit(token, (name, i, b"x" * size))

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    forks = [multiprocessing.get_context("fork").Process(target=work, args=(f"f{n}",)) for n in range(2)]
    for process in forks:
        process.start()
    for one in (*threads, *forks):
        one.join()


class TestDriver:
    @pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
    def test_without_standard_streams(self, closed: tuple[int, ...], tmp_path: Path) -> None:
        """As a daemon may be: the numbers are free, and sockets must not get them."""
        program = f"""
            import io, sys, eagleray
            from eagleray.dask import ray_dask_get
            from tests.test_output import say
            eagleray.init(num_cpus=2)
            sys.stdout = io.StringIO()
            graph = {{str(i): (say, "words", i) for i in range(10)}}
            ray_dask_get(graph, list(graph))
            assert sys.stdout.getvalue().count("words") == 10
            eagleray.shutdown()
            open({str(tmp_path / "done")!r}, "w").close()
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        redirections = " ".join(f"{fd}>&-" for fd in closed)
        subprocess.run(["sh", "-c", f'exec "$@" {redirections}', "sh", *command], check=False)
        assert (tmp_path / "done").exists()

    def test_holding_the_gil_does_not_hang(self, session: None, capsys: pytest.CaptureFixture[str]) -> None:
        sys.setswitchinterval(10)
        try:
            ref = ray_dask_get({"a": (_print_much, 20_000)}, "a", ray_persist=True)
            sum(i * i for i in range(3_000_000))
            eagleray.get(ref)
        finally:
            sys.setswitchinterval(0.005)
        assert len(capsys.readouterr().out.splitlines()) == 20_000

    def test_forked_after_the_thread_has_given_up(self, session: None) -> None:
        output = _output._output
        assert output
        output._end()
        output._thread.join()
        kept = os.open(os.devnull, os.O_RDONLY)
        others = [os.dup(kept) for _ in range(64)]  # of which some have the numbers that were closed
        child = os.fork()
        if child == 0:
            os._exit(0 if all(os.path.exists(f"/proc/self/fd/{fd}") for fd in others) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for fd in (kept, *others):
            os.close(fd)

    def test_forked_child_leaves_the_session_alone(self, session: None, capsys: pytest.CaptureFixture[str]) -> None:
        run(say, "before")
        before = threading.active_count()
        output = _output._output
        assert output is not None
        fds = [output._listener.fileno(), output._epoll.fileno(), output._wake, *output._sources]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _output.drain()
                assert _output.last_lines(1) == []
                assert threading.active_count() == 1
                assert not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        run(say, "after", key="b")
        assert [without_pids(line) for line in capsys.readouterr().out.splitlines()] == [
            "(a, pid=N) before",
            "(b, pid=N) after",
        ]
        assert threading.active_count() == before

    def test_fork_while_much_arrives(self, session: None, capsys: pytest.CaptureFixture[str]) -> None:
        ref = ray_dask_get({"a": (_print_much, 20_000)}, "a", ray_persist=True)
        for _ in range(20):
            child = os.fork()
            if child == 0:
                print("the stream's lock is free")
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        eagleray.get(ref)

    def test_shutdown_leaves_nothing(self, fresh: None, capsys: pytest.CaptureFixture[str]) -> None:
        fds = set(os.listdir("/proc/self/fd"))
        for n in range(3):
            eagleray.init(num_cpus=1)
            ray_dask_get({"a": (say, n)}, "a", ray_persist=True)
            assert [thread.name for thread in threading.enumerate()].count("eagleray-output") == 1
            eagleray.shutdown()
            assert "eagleray-output" not in [thread.name for thread in threading.enumerate()]
        assert set(os.listdir("/proc/self/fd")) == fds

    def test_directory_whose_name_is_too_long(
        self, fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        directory = tmp_path / ("long" * 30)
        directory.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(directory))
        run(say, "inherited")
        _output.drain()
        eagleray.shutdown()
        assert capfd.readouterr().out == "inherited\n"
        assert not list(directory.iterdir())

    def test_shutdown_by_a_subscriber(self, session: None) -> None:
        thread = _output._output._thread if _output._output else None
        assert thread is not None
        seen: list[object] = []

        def end(record: object) -> None:
            seen.append(record)
            eagleray.shutdown()

        _output.subscribe(1, end)
        ref = ray_dask_get({"a": (_emit, 1, 0, 1)}, "a", ray_persist=True)
        until(lambda: bool(seen))
        until(lambda: not thread.is_alive())
        assert not eagleray.is_initialized()
        del ref

    def test_a_stream_that_waits_for_the_thread_that_computes(
        self, session: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a window's text field does: it is written to by the main thread only."""
        done = threading.Event()
        written: list[str] = []

        class Field(io.StringIO):
            def write(self, text: str) -> int:
                written.append(text)
                if threading.current_thread() is not threading.main_thread():
                    done.wait()
                return len(text)

        monkeypatch.setattr(_output, "_PATIENCE", 0.05)
        monkeypatch.setattr(sys, "stdout", Field())
        for n in range(20):
            run(say, n)
        done.set()
        _output.drain()
        shown = [line.partition(") ")[2] for line in "".join(written).splitlines()]
        assert sorted(shown, key=int) == [str(n) for n in range(20)]

    def test_strangers_are_sent_away(self, session: None) -> None:
        import socket

        output = _output._output
        assert output is not None
        for greeting in (b"", b"?", b"S"):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(output._path)
                stranger.sendall(greeting)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(1) == b""
        run(tasks.inc, 1)
