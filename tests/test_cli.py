"""The command `eagleray`, in processes of its own, with sessions in others."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import eagleray
from eagleray import _inquiries, _output
from eagleray._cli import main
from eagleray.util import state
from tests.conftest import until

PROGRAM = """
import sys
import eagleray
eagleray.init(num_cpus=1)
eagleray.get(eagleray.put(1))
print("ready", flush=True)
sys.stdin.read()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "eagleray", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@contextlib.contextmanager
def program() -> Iterator[subprocess.Popen[str]]:
    """Another program with a session."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.stdin.close()
            process.wait()


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path, monkeypatch) -> None:
    """Sessions of others, and of other tests, are elsewhere."""
    # Sockets have short names.
    with tempfile.TemporaryDirectory(prefix="er-") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield
        eagleray.shutdown()
        assert os.listdir(directory) == []


@eagleray.remote
def sleep(seconds):
    time.sleep(seconds)


def test_status(session):
    ref = sleep.remote(60)
    until(lambda: state.get_task(ref).state == "RUNNING")
    said = run("status")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith(f"session of process {os.getpid()}")
    assert "  CPU: 1 of 2\n" in said.stdout
    assert "tasks: 1 RUNNING\n" in said.stdout
    states = [line.split()[2] for line in said.stdout.splitlines() if line.startswith("  pid")]
    assert sorted(states) == ["busy", "idle"]
    assert "  sleep" in said.stdout


def test_status_as_json(session):
    eagleray.get(sleep.remote(0))
    [answer] = json.loads(run("status", "--json").stdout)
    assert (answer["pid"], answer["tasks"], answer["actors"]) == (os.getpid(), {"FINISHED": 1}, {})
    assert answer["offered"]["CPU"] == 2
    assert answer["age"] >= 0
    assert len(answer["workers"]) == 2


def test_memory(session):
    ref = eagleray.put(np.zeros(1 << 20))
    said = run("memory", "--units", "MB", "--num-entries", "5")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.strip() == eagleray.memory_summary(units="MB").strip()
    assert ref.hex() in said.stdout
    assert ref.hex() not in run("memory", "--stats-only").stdout
    failed = run("memory", "--num-entries", "-5")
    assert (failed.returncode, failed.stderr) == (1, "eagleray: num_entries must be 0 or more, not -5.\n")


def test_without_a_session(fresh):
    for command in (["status"], ["memory"], ["status", "--session", "1"], ["status", "--session", "/no/such"]):
        said = run(*command)
        assert (said.returncode, said.stdout) == (1, "")
        assert "No session of this user runs" in said.stderr


def test_several_sessions(session):
    with program() as other:
        said = run("status")
        assert f"session of process {os.getpid()}" in said.stdout
        assert f"session of process {other.pid}" in said.stdout
        said = run("memory")
        assert said.returncode == 1
        assert "There are " in said.stderr
        assert "choose one with --session" in said.stderr
        for name in (str(other.pid), _inquiries.find(str(other.pid)).directory):
            chosen = json.loads(run("status", "--json", "--session", name).stdout)
            assert [answer["pid"] for answer in chosen] == [other.pid]
        said = run("status", "--session", "99999999")
        assert (said.returncode, said.stdout) == (1, "")
        assert "No session '99999999' runs here. There are" in said.stderr
    assert [each.pid for each in _inquiries.sessions()] == [os.getpid()]


def test_what_a_dead_session_has_left_is_no_session(session):
    [mine] = _inquiries.sessions()
    left = Path(tempfile.gettempdir()) / f"eagleray-{os.getpid()}-left"
    left.mkdir()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(left / _output.INQUIRIES))
    dead.close()
    (Path(tempfile.gettempdir()) / "eagleray-x-y").mkdir()
    assert _inquiries.sessions() == [mine]
    assert "FINISHED" not in run("status").stdout
    (left / _output.INQUIRIES).unlink()
    left.rmdir()
    (Path(tempfile.gettempdir()) / "eagleray-x-y").rmdir()


def test_a_driver_that_is_stopped_does_not_answer(fresh):
    with program() as other:
        [session] = _inquiries.sessions()
        other.send_signal(signal.SIGSTOP)
        with pytest.raises(_inquiries.InquiryError, match=f"process {other.pid}, did not answer within"):
            session.ask("status", patience=0.2)


def test_a_session_that_ends_is_no_session(session):
    [mine] = _inquiries.sessions()
    eagleray.shutdown()
    assert _inquiries.sessions() == []
    with pytest.raises(_inquiries.InquiryError, match="cannot be asked"):
        mine.ask("status")


def ask_raw(data: bytes) -> bytes:
    [mine] = _inquiries.sessions()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.path.join(mine.directory, _output.INQUIRIES))
        connection.sendall(data)
        return connection.makefile("rb").readline()


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (b'{"ask": "weather"}\n', "A session of this version is asked for"),
        (b'{"ask": ["status"]}\n', "unhashable"),
        (b'{"ask": "memory", "with": {"no": 1}}\n', "unexpected keyword argument 'no'"),
        (b"no json\n", "Expecting value"),
        (b"5\n", "not subscriptable"),
        (b'"' + b"x" * (1 << 17) + b'"\n', "Unterminated string"),
    ],
)
def test_questions_that_cannot_be_answered(session, question, said):
    assert said in json.loads(ask_raw(question))["error"]
    assert run("status").returncode == 0


def test_who_asks_nothing_holds_nobody_up(fresh):
    eagleray.init(num_cpus=1)
    [mine] = _inquiries.sessions()
    with contextlib.ExitStack() as silent:
        for _ in range(_output._MOST_INQUIRERS):
            connection = silent.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(os.path.join(mine.directory, _output.INQUIRIES))
        until(lambda: inquiry_threads() == _output._MOST_INQUIRERS)
        with pytest.raises(_inquiries.InquiryError, match="answers too many others now"):
            mine.ask("status")
        assert eagleray.get(sleep.remote(0)) is None
        eagleray.shutdown()
        assert inquiry_threads() == 0


def inquiry_threads() -> int:
    return sum(thread.name == "eagleray-inquiry" for thread in threading.enumerate())


def test_only_the_same_user_is_answered(session, monkeypatch):
    [mine] = _inquiries.sessions()
    assert os.stat(mine.directory).st_mode & 0o777 == 0o700
    monkeypatch.setattr(_output, "_peer_of", lambda connection: (1, os.geteuid() + 1))
    with pytest.raises(_inquiries.InquiryError, match="has ended, or answers too many"):
        mine.ask("status")


def test_a_directory_of_another_user_is_no_session(session, monkeypatch):
    [mine] = _inquiries.sessions()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat("/").st_uid + 12345)
    assert _inquiries.sessions() == []
    for name in (mine.directory, os.path.basename(mine.directory), str(mine.pid)):
        with pytest.raises(_inquiries.InquiryError, match="is of another user: only that user can ask it"):
            _inquiries.find(name)


def test_wrong_arguments_are_said(fresh):
    for arguments in ([], ["dance"], ["memory", "--units", "pounds"], ["memory", "--num-entries", "few"]):
        said = run(*arguments)
        assert said.returncode == 2
        assert "usage: eagleray" in said.stderr


def test_the_script_is_this_command():
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert pyproject["project"]["scripts"] == {"eagleray": f"{main.__module__}:{main.__name__}"}


def test_a_reader_that_has_seen_enough(session):
    refs = [eagleray.put(i) for i in range(3000)]
    command = [sys.executable, "-m", "eagleray", "memory", "--num-entries", "3000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 1
    del refs
