"""Questions about a running session, from other processes of the same user on this machine: the driver's end and theirs.

One line of JSON each way. A question is `{"ask": name, "with": {arguments}}`; the answer is `{"answer": ...}` or
`{"error": text}`. The socket is in the session's directory, which only its user can enter.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eagleray import _output

_PATIENCE = 10.0
"""Seconds that one end waits for the other to say something."""

_MOST_QUESTION = 1 << 16
"""Bytes of a question."""


class InquiryError(Exception):
    """A session cannot be found, or does not answer, or says why it will not."""


def status() -> dict[str, Any]:
    """What there is and what goes on, in numbers and a line for each worker."""
    from eagleray._look import Seen, counted

    seen = Seen(counts=True, makers=100_000)
    actors = seen.actors()
    tasks: dict[str, int] = {}
    for each in seen.task_counts():
        tasks[each.state] = tasks.get(each.state, 0) + each.tasks
    return {
        "pid": os.getpid(),
        "program": sys.argv[0] if sys.argv else "",
        "directory": seen.session.session,
        "namespace": seen.session.namespace,
        "offered": seen.raw["offered"],
        "free": seen.raw["free"],
        "workers": [worker.asdict() for worker in seen.workers().rows[1:] if worker.is_alive],
        "tasks": tasks,
        "tasks_forgotten": seen.raw["tasks_forgotten"],
        "actors": counted(actor.state for actor in actors.rows),
        "counters": seen.raw["counters"],
        "store_bytes": seen.raw["store_bytes"],
    }


def memory(**options: Any) -> str:
    """The table of objects."""
    from eagleray._memory import memory_summary

    return memory_summary(**options)


def timeline(path: str) -> int:
    """Writes the trace to a file. Gives the number of its events."""
    from eagleray import _timeline

    return _timeline.write(path)


_ASKED: dict[str, Callable[..., Any]] = {"status": status, "memory": memory, "timeline": timeline}


def answer(connection: socket.socket) -> None:
    """In the driver: answers one question, and closes the connection."""
    with connection, contextlib.suppress(OSError):
        connection.settimeout(_PATIENCE)
        with connection.makefile("rwb") as stream:
            line = stream.readline(_MOST_QUESTION)
            if not line:
                return
            try:
                question = json.loads(line)
                ask = _ASKED.get(question["ask"])
                if ask is None:
                    raise ValueError(
                        f"A session of this version is asked for {', '.join(_ASKED)}, not {question['ask']!r}."
                    )
                said = {"answer": ask(**question.get("with", {}))}
            except Exception as error:  # whatever it is, who asks wants to know
                said = {"error": f"{error}" or type(error).__name__}
            stream.write(json.dumps(said, default=str).encode() + b"\n")


@dataclass(frozen=True)
class Session:
    """A running session of this user."""

    directory: str
    pid: int
    """The driver's process."""

    def ask(self, name: str, patience: float = _PATIENCE, **arguments: Any) -> Any:
        """Asks its driver.

        Raises:
            InquiryError: It does not answer within `patience` seconds, or answers with an error.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.settimeout(patience)
                connection.connect(os.path.join(self.directory, _output.INQUIRIES))
                with connection.makefile("rwb") as stream:
                    stream.write(json.dumps({"ask": name, "with": arguments}).encode() + b"\n")
                    stream.flush()
                    line = stream.readline()
            except TimeoutError:
                raise InquiryError(
                    f"The driver of {self.directory}, process {self.pid}, did not answer within {patience:.0f} s: it is "
                    "stopped, or busy in code that lets no other thread run."
                ) from None
            except (BrokenPipeError, ConnectionResetError):
                line = b""
            except OSError as error:
                raise InquiryError(
                    f"The driver of {self.directory}, process {self.pid}, cannot be asked: {error}."
                ) from error
        if not line:
            raise InquiryError(f"The session {self.directory} has ended, or answers too many others now.")
        said = json.loads(line)
        if "error" in said:
            raise InquiryError(said["error"])
        return said["answer"]


def _directories() -> list[str]:
    return glob.glob(os.path.join(tempfile.gettempdir(), "eagleray-*-*"))


def _pid_of(directory: str) -> str | None:
    """The process that a session directory is named after."""
    parts = os.path.basename(directory).split("-")
    return parts[1] if len(parts) > 2 and parts[1].isdecimal() else None


def _session_at(directory: str) -> Session | None:
    """The session with this directory, if one listens there."""
    pid = _pid_of(directory)
    try:
        if pid is None or os.stat(directory).st_uid != os.geteuid():
            return None
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(os.path.join(directory, _output.INQUIRIES))
    except OSError:
        return None
    return Session(directory, int(pid))


def sessions() -> list[Session]:
    """The sessions of this user that run on this machine, with the same directory for temporary files."""
    found = (_session_at(directory) for directory in _directories())
    return sorted(
        (session for session in found if session is not None), key=lambda session: (session.pid, session.directory)
    )


def find(name: str) -> Session:
    """A session by its directory, the name of that, or its driver's process id.

    Raises:
        InquiryError: There is none, or more than one.
    """
    if os.sep in name:
        known = [session] if (session := _session_at(os.path.abspath(name))) else []
    else:
        known = [each for each in sessions() if name in (str(each.pid), os.path.basename(each.directory))]
    if len(known) == 1:
        return known[0]
    if known:
        raise InquiryError(f"Several sessions fit {name!r}: {_listed(known)}.")
    if _is_of_another_user(name):
        raise InquiryError(f"The session {name!r} is of another user: only that user can ask it.")
    raise InquiryError(f"No session {name!r} runs here. {_running()}")


def _is_of_another_user(name: str) -> bool:
    def of_another(directory: str) -> bool:
        try:
            return os.stat(directory).st_uid != os.geteuid()
        except OSError:
            return False

    if os.sep in name:
        return of_another(name)
    return any(
        name in (os.path.basename(directory), _pid_of(directory)) and of_another(directory)
        for directory in _directories()
    )


def only() -> Session:
    """The session, if there is just one.

    Raises:
        InquiryError: There is none, or more than one.
    """
    known = sessions()
    if len(known) == 1:
        return known[0]
    raise InquiryError(_running())


def _running() -> str:
    known = sessions()
    if not known:
        return f"No session of this user runs with its directory in {tempfile.gettempdir()}."
    if len(known) == 1:
        return f"There is {_listed(known)}."
    return f"There are {_listed(known)}: choose one with --session and its process id."


def _listed(known: list[Session]) -> str:
    return ", ".join(f"{session.pid} ({session.directory})" for session in known)


def age(session: Session) -> float:
    """Seconds since a session's directory was made."""
    return time.time() - os.stat(os.path.join(session.directory, _output.INQUIRIES)).st_ctime
