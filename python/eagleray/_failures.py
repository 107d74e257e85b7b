"""The exceptions for what fails without raising anything itself: dead workers, lost objects, graphs that do not fit."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from eagleray import _output, exceptions
from eagleray._summary import clip, size

_MOST_KEY = 200
"""Characters of a key that are shown."""

_MOST_COMPARED = 5000
"""So many keys are compared with one that is missing."""

_MOST_OF_CYCLE = 20
"""So many keys of a cycle are named."""

_MOST_LINES = 15
"""So many of a worker's last lines of output are shown."""

_HINTS = {
    signal.SIGKILL: (
        "That is how the system ends a process when memory runs out (the kernel's log and the container's memory limit "
        "tell): smaller chunks or fewer workers (num_cpus of eagleray.init) need less."
    ),
    signal.SIGSEGV: "Native code that the task called is at fault, or its recursion went too deep.",
    signal.SIGABRT: "Native code that the task called gave up; it mostly says why in its last lines.",
    signal.SIGBUS: "Mostly a file that is mapped into memory has become shorter, or /dev/shm is full.",
    signal.SIGILL: "Native code that the task called was built for another processor.",
    signal.SIGTERM: "Somebody asked the process to end: the task itself, a batch system or an administrator.",
}

_MADE_ANEW = "It is made anew, but the call is not made again: how often that is done max_task_retries says."

_EXIT_HINT = "The task, or a library that it called, ended the process, as sys.exit() and os._exit() do."


def named(key: object) -> str:
    """A key in a message."""
    try:
        return clip(repr(key), _MOST_KEY)
    except Exception as error:
        return f"<a {type(key).__name__} whose repr() raises {type(error).__name__}>"


def _output_of(details: Mapping[str, Any]) -> str:
    """The last lines that a process wrote, for the end of a message; nothing if it wrote none."""
    lines = _output.last_lines(details.get("pid", 0))[-_MOST_LINES:]
    return "".join(["\nIts last lines of output:", *(f"\n  {line}" for line in lines)]) if lines else ""


def _death(details: Mapping[str, Any]) -> str:
    """How a process ended, as the predicate of a sentence."""
    if "reason" in details:
        return f"was stopped: {details['reason']}"
    number = details.get("signal")
    if number is None:
        return f"exited with code {details.get('exit_code')}"
    try:
        return f"was ended by signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"was ended by signal {number}"


def _hint(details: Mapping[str, Any]) -> str:
    if "reason" in details:
        return ""
    number = details.get("signal")
    hint = _EXIT_HINT if number is None else _HINTS.get(number, "")
    return f" {hint}" if hint else ""


def _worker_died(key: object, details: Mapping[str, Any]) -> exceptions.WorkerCrashedError:
    task = "the task" if key is None else f"task {named(key)}"
    pid, peak = details.get("pid"), details.get("peak_bytes")
    process = f"The worker process {pid}" if pid else "The worker process"
    attempts = details.get("attempts", 1)
    tries = "once" if attempts == 1 else f"{attempts} times, each in another process"
    memory = f" It had used {size(peak)} of memory at most." if peak else ""
    return exceptions.WorkerCrashedError(
        f"{process} that ran {task} {_death(details)}.{_hint(details)}{memory} "
        f"The task was tried {tries}.{_output_of(details)}"
    )


def actor_died(actor: object, details: Mapping[str, Any]) -> exceptions.ActorError:
    """The error for a call of an actor that is dead, or has died and is made anew.

    Args:
        actor: The name of its class; None if it is not known.
        details: `end` says why: "init" (with `error`, what `_errors.dump_error` gave), "died" (with what is known of the
            process's end), "killed", "exited", "released" or "name_taken". `restarts`: how often it had
            been restarted. `comes_back`: whether it is made anew and the call was interrupted.
    """
    what = "The actor" if actor is None else f"The actor {clip(str(actor), _MOST_KEY)}"
    restarts = details.get("restarts", 0)
    again = f" It had been restarted {restarts} time{'' if restarts == 1 else 's'} before." if restarts else ""
    match details["end"]:
        case "init":
            from eagleray._errors import constructor_error

            cause, trace = constructor_error(details["error"])
            error = exceptions.ActorDiedError(
                f"{what} could not be made, because its constructor raised {type(cause).__name__}.{again} Traceback "
                f"there:\n{trace.rstrip()}"
            )
            error.__cause__ = cause
            return error
        case "died":
            pid, peak = details.get("pid"), details.get("peak_bytes")
            memory = f" It had used {size(peak)} of memory at most." if peak else ""
            process = f"its worker process{f' {pid}' if pid else ''} {_death(details)}"
            if details.get("comes_back"):
                return exceptions.ActorUnavailableError(
                    f"{what} died while it had this call: {process}.{_hint(details)}{memory}{again} {_MADE_ANEW}"
                    f"{_output_of(details)}"
                )
            advice = "" if restarts else " An actor with max_restarts is made anew."
            return exceptions.ActorDiedError(
                f"{what} is dead: {process}.{_hint(details)}{memory}{again}{advice}{_output_of(details)}"
            )
        case "killed" if details.get("comes_back"):
            return exceptions.ActorUnavailableError(
                f"{what} was ended by eagleray.kill(..., no_restart=False) while it had this call.{again} {_MADE_ANEW}"
            )
        case "killed":
            why = "is dead: eagleray.kill() has ended it"
        case "exited":
            why = "is dead: it has ended itself with exit_actor()"
        case "released":
            why = "is dead: it was ended when the last handle to it was gone"
        case "name_taken":
            why = "was not made: another one has got its name"
        case other:
            why = f"is dead: {other}"
    return exceptions.ActorDiedError(f"{what} {why}.{again}")


_TO_OFFER = {"CPU": "num_cpus=...", "GPU": "num_gpus=..."}
"""What `eagleray.init` is told so that the node offers more of a resource."""


def _amount(resource: str, amount: float) -> str:
    return f"{amount:.0f} bytes of memory" if resource == "memory" else f"{amount:.15g} {resource}"


def _infeasible(what: str, details: Mapping[str, Any]) -> exceptions.InfeasibleResourceError:
    resource = details["resource"]
    asked, offered, held = (_amount(resource, details[name]) for name in ("asked", "offered", "held"))
    text = f"{what} asks for {asked}, but the node offers {offered}"
    if details["held"]:
        why = f"and tasks that wait for this one to end hold {held}"
        advice = "A task that computes keeps what it asked for, CPUs excepted: ask for less there, or here"
        return exceptions.InfeasibleResourceError(f"{text}, {why}. {advice}.")
    advice = "Ask for less with dask.annotate, ray_remote_args or the options of a remote function or class"
    if resource != "memory":
        argument = _TO_OFFER.get(resource, f"resources={{{resource!r}: ...}}")
        advice += f", or offer more with eagleray.init({argument})"
    return exceptions.InfeasibleResourceError(f"{text}. {advice}.")


def failure(kind: str, key: object, details: Mapping[str, Any]) -> BaseException:
    """The exception to raise when a task or an object failed without raising anything itself."""
    what = "An object" if key is None else f"Task {named(key)}"
    match kind:
        case "worker_died":
            return _worker_died(key, details)
        case "cancelled":
            return exceptions.TaskCancelledError(f"{'The computation' if key is None else what} was cancelled.")
        case "lost":
            return exceptions.ObjectLostError(
                f"{what} has no value any more: it was released, or its session has ended."
                if key is None
                else f"The result of task {named(key)} is lost and cannot be computed again."
            )
        case "no_workers":
            reason = details.get("reason") or f"each ended at once, the last one {_death(details)}"
            return exceptions.WorkerCrashedError(f"No worker process could be started: {reason}.{_output_of(details)}")
        case "too_deep":
            return exceptions.EaglerayError(
                f"{what} waits for a graph that is nested {details.get('depth')} deep; "
                f"at most {details.get('most')} levels are possible, since a task that waits keeps its process."
            )
        case "actor_died":
            return actor_died(details.get("actor"), details)
        case "infeasible":
            actor = details.get("actor")
            if actor is not None:
                what = f"The actor {clip(str(actor), _MOST_KEY)}"
            elif key is None:
                what = "A task or an actor"
            return _infeasible(what, details)
        case "timeout":
            return exceptions.GetTimeoutError(f"The value was not there after {details.get('seconds')} seconds.")
    return exceptions.EaglerayError(f"{what} failed: {kind} {dict(details)}".rstrip())


def missing_key(key: object, dependents: Sequence[object], keys: Iterable[object]) -> exceptions.MissingKeyError:
    """The error for a key that the graph does not have.

    Args:
        key: The key.
        dependents: The key that needs it, or nothing if it was asked for.
        keys: Those that the graph has.
    """
    from difflib import get_close_matches

    if key in dependents:
        return exceptions.MissingKeyError(key, f"Key {named(key)} has no value: it is an alias of itself.")
    # Without quotes, which would make short keys similar.
    known = {named(other).strip("'"): other for other in islice(keys, _MOST_COMPARED)}
    close = [named(known[text]) for text in get_close_matches(named(key).strip("'"), known)]
    why = f"task {named(dependents[0])} needs it" if dependents else "it was asked for"
    hint = f" Similar keys: {', '.join(close)}." if close else ""
    return exceptions.MissingKeyError(key, f"Key {named(key)} is not in the graph, but {why}.{hint}")


def cycle(keys: Sequence[object]) -> RuntimeError:
    """The error for keys of which each needs the next, and the last the first."""
    names = [named(key) for key in keys]
    if len(names) > _MOST_OF_CYCLE:
        half = _MOST_OF_CYCLE // 2
        names = [*names[:half], f"({len(names) - 2 * half} more)", *names[-half:]]
    return RuntimeError(f"Cycle detected in the graph, each key needs the next: {' -> '.join([*names, names[0]])}")
