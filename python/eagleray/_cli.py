"""The command `eagleray`: looks at running sessions of the same user on this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from eagleray import _inquiries
from eagleray._inquiries import InquiryError, Session
from eagleray._summary import clip, size

_WRITING = 600.0
"""Seconds that a session may take to write its timeline."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns what the process exits with: 0, or 1 if it could not be done, with a message on stderr."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.command(chosen)
        sys.stdout.flush()
    except InquiryError as error:
        print(f"eagleray: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Who reads has seen enough. Python would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eagleray", description="Looks at running sessions of eagleray: those of the same user on this machine."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=function)
        added.add_argument(
            "--session",
            metavar="PID",
            help="the driver's process id, or the session's directory; needed if there are several",
        )
        return added

    status = command(
        "status", _status, "What there is, what is free, and what workers do. Of all sessions, if none is chosen."
    )
    status.add_argument("--json", action="store_true", help="as JSON: a list with an object for each session")
    memory = command("memory", _memory, "The objects of a session: size, kind, where they are, who holds them.")
    memory.add_argument("--sort-by", choices=["OBJECT_SIZE", "REFERENCE_TYPE"], default="OBJECT_SIZE")
    memory.add_argument("--group-by", choices=["NODE_ADDRESS", "REFERENCE_TYPE"], default="NODE_ADDRESS")
    memory.add_argument("--units", choices=["auto", "B", "KB", "MB", "GB"], default="auto")
    memory.add_argument("--stats-only", action="store_true", help="totals only")
    memory.add_argument("--num-entries", type=int, default=100, metavar="N", help="show at most so many objects (100)")
    timeline = command("timeline", _timeline, "Writes what ran when as a Chrome trace, for https://ui.perfetto.dev.")
    timeline.add_argument("path", nargs="?", help="where to write it (eagleray-timeline-PID.json)")
    return parser


def _timeline(chosen: argparse.Namespace) -> None:
    session = _chosen(chosen.session)
    path = os.path.abspath(chosen.path or f"eagleray-timeline-{session.pid}.json")
    events = session.ask("timeline", patience=_WRITING, path=path)
    print(f"{events:,} events are in {path}: open it in https://ui.perfetto.dev or chrome://tracing.")


def _chosen(name: str | None) -> Session:
    return _inquiries.only() if name is None else _inquiries.find(name)


def _status(chosen: argparse.Namespace) -> None:
    sessions = _inquiries.sessions() if chosen.session is None else [_inquiries.find(chosen.session)]
    if not sessions:
        _inquiries.only()  # which says that there is none
    answers = [session.ask("status") | {"age": _inquiries.age(session)} for session in sessions]
    if chosen.json:
        print(json.dumps(answers, indent=2))
    else:
        print("\n\n".join(_status_text(answer) for answer in answers))


def _memory(chosen: argparse.Namespace) -> None:
    options = {name: getattr(chosen, name) for name in ("sort_by", "group_by", "units", "stats_only", "num_entries")}
    print(_chosen(chosen.session).ask("memory", **options))


def _status_text(answer: Mapping[str, Any]) -> str:
    program = f", {answer['program']}" if answer["program"] else ""
    lines = [
        f"session of process {answer['pid']}{program}: {answer['directory']}, for {_duration(answer['age'])}",
        "",
        "in use:",
    ]
    for name, offered in sorted(answer["offered"].items()):
        if offered:
            lines.append(f"  {name}: {_amount(name, offered - answer['free'][name])} of {_amount(name, offered)}")
    sealed = answer["counters"]["sealed_bytes"]
    lines.append(f"  object store: {size(sealed)}, up to {size(answer['store_bytes'])} for each process")
    lines += ["", f"tasks: {_counts(answer['tasks'])}"]
    if answer["tasks_forgotten"]:
        lines.append(f"  {answer['tasks_forgotten']:,} that ended earlier are not counted")
    lines += [
        f"actors: {_counts(answer['actors'])}",
        f"objects: {answer['counters']['objects']:,} stored",
        "",
        "workers:",
    ]
    for worker in answer["workers"]:
        task = f"  {clip(worker['task'])}" if worker["task"] else ""
        actor = "  an actor" if worker["actor_id"] else ""
        lines.append(f"  pid {worker['pid']:<8} {worker['state']:<8} {worker['tasks']:>10,} tasks done{actor}{task}")
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in counts.items()) or "none"


def _amount(name: str, amount: float) -> str:
    return size(amount) if name == "memory" else f"{amount:g}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
