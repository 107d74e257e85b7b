"""How exceptions, and what plain pickle refuses, cross a process boundary."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Mapping
from typing import Any

from eagleray import exceptions

_PROTOCOL = 5

_MOST_BYTES = 16 << 20
"""The largest pickle of an exception that is sent; of a larger one, only text."""

_MOST_TEXT = 1 << 16
"""The longest traceback, in characters; of a longer one, both ends."""


def dump(value: object) -> bytes:
    """Pickles a value: plain pickle first, cloudpickle for what it refuses and for what names `__main__`.

    A worker has no `__main__` of the driver's, so plain pickle's reference to it could not be followed there.
    """
    try:
        data = pickle.dumps(value, _PROTOCOL)
    except Exception:
        pass
    else:
        if b"__main__" not in data:
            return data
    import cloudpickle

    by_value: bytes = cloudpickle.dumps(value, _PROTOCOL)
    return by_value


class _Parts:
    """Pickles as an exception taken apart: class, arguments, attributes. For constructors that do not take `args`."""

    def __init__(self, exc: BaseException) -> None:
        self.exc = exc

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self.exc), self.exc.args, self.exc.__dict__)


def _rebuild(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    exc = cls.__new__(cls, *args)
    exc.args = args
    exc.__dict__.update(state)
    return exc


def _same(copy: object, exc: BaseException) -> bool:
    """Whether unpickling gave the exception back, as far as can be told.

    Only plain arguments are compared: others, such as exceptions, are not equal to their own copies.
    """
    if type(copy) is not type(exc) or len(copy.args) != len(exc.args):
        return False
    pairs = zip(copy.args, exc.args, strict=True)
    return all(type(a) is type(b) and (not isinstance(a, str | bytes | int) or a == b) for a, b in pairs)


def _dump_checked(exc: BaseException) -> bytes | None:
    """A pickle of the exception that has been seen to unpickle, or None."""
    for form in (exc, _Parts(exc)):
        try:
            data = dump(form)
            if len(data) <= _MOST_BYTES and _same(pickle.loads(data), exc):
                return data
        except Exception:
            continue
    return None


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as error:
        return f"<str() of it raised {type(error).__name__}>"


def _traceback(exc: BaseException) -> str:
    """The traceback without notes: those of an error that passed through several workers hold a traceback each."""
    open_: list[traceback.TracebackException | None] = [found := traceback.TracebackException.from_exception(exc)]
    while open_:
        part = open_.pop()
        if part is not None:
            part.__notes__ = None
            open_ += [part.__cause__, part.__context__, *(part.exceptions or [])]
    text = "".join(found.format())
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT // 2]}\n[...]\n{text[-_MOST_TEXT // 2 :]}"


def dump_error(exc: BaseException) -> bytes:
    """What a worker reports of an exception: itself if that is possible, and in any case type, text and traceback."""
    cls = type(exc)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return pickle.dumps((_dump_checked(exc), name, _text(exc), _traceback(exc), os.getpid()), _PROTOCOL)


def task_error(payload: bytes, key: object, attempts: int = 1) -> BaseException:
    """The exception to raise for a task that failed: the original, with a note of key, worker and remote traceback.

    `attempts` is how often the task was tried.
    What is no `Exception` must not end or interrupt the driver as it would have ended the worker.
    """
    data, name, text, trace, pid = pickle.loads(payload)
    exc: BaseException | None = None
    if data is not None:
        try:
            exc = pickle.loads(data)
        except Exception as error:
            trace += f"\n(It could not be unpickled here: {type(error).__name__}: {_text(error)})\n"
    if isinstance(exc, KeyboardInterrupt):
        exc = exceptions.TaskCancelledError("The task was interrupted.")
    elif not isinstance(exc, Exception):
        exc = exceptions.TaskError(name, text, trace)
    what = "The task" if key is None else f"Task {key!r}"
    tries = "" if attempts == 1 else f" at attempt {attempts}, the last,"
    exc.add_note(f"{what} failed{tries} in worker process {pid}. Traceback there:\n{trace.rstrip()}")
    return exc


def _death(details: Mapping[str, Any]) -> str:
    if "reason" in details:
        return f"was stopped: {details['reason']}"
    number = details.get("signal")
    if number is None:
        return f"exited with code {details.get('exit_code')}"
    try:
        return f"was ended by signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"was ended by signal {number}"


_TO_OFFER = {"CPU": "num_cpus=...", "GPU": "num_gpus=..."}
"""What `eagleray.init` is told so that the node offers more of a resource."""


def _amount(resource: str, amount: float) -> str:
    return f"{amount:.0f} bytes of memory" if resource == "memory" else f"{amount:.15g} {resource}"


def _infeasible(what: str, details: Mapping[str, Any]) -> str:
    resource = details["resource"]
    asked, offered, held = (_amount(resource, details[name]) for name in ("asked", "offered", "held"))
    text = f"{what} asks for {asked}, but the node offers {offered}"
    if details["held"]:
        return (
            f"{text}, and tasks that wait for this one to end hold {held}. A task that computes keeps what it asked for, "
            "CPUs excepted: ask for less there, or here."
        )
    if resource == "memory":
        return f"{text}. Ask for less with dask.annotate or ray_remote_args."
    argument = _TO_OFFER.get(resource, f"resources={{{resource!r}: ...}}")
    return f"{text}. Ask for less with dask.annotate or ray_remote_args, or offer more with eagleray.init({argument})."


def failure(kind: str, key: object, details: Mapping[str, Any]) -> BaseException:
    """The exception to raise when a task or an object failed without raising anything itself."""
    what = "An object" if key is None else f"Task {key!r}"
    match kind:
        case "worker_died":
            task = "the task" if key is None else f"task {key!r}"
            attempts = details.get("attempts", 1)
            tries = "once" if attempts == 1 else f"{attempts} times"
            return exceptions.WorkerCrashedError(
                f"The worker process that ran {task} {_death(details)}. The task was tried {tries}."
            )
        case "cancelled":
            return exceptions.TaskCancelledError(f"{what} was cancelled.")
        case "lost":
            return exceptions.ObjectLostError(
                f"{what} has no value any more: it was released, or its session has ended."
                if key is None
                else f"The result of task {key!r} is lost and cannot be computed again."
            )
        case "no_workers":
            reason = details.get("reason") or f"it {_death(details)}"
            return exceptions.WorkerCrashedError(f"No worker process could be started: {reason}.")
        case "too_deep":
            return exceptions.EaglerayError(
                f"{what} waits for a graph that is nested {details.get('depth')} deep; "
                f"at most {details.get('most')} levels are possible."
            )
        case "infeasible":
            return exceptions.InfeasibleResourceError(
                _infeasible("A task" if key is None else f"Task {key!r}", details)
            )
        case "timeout":
            return exceptions.GetTimeoutError(f"The value was not there after {details.get('seconds')} seconds.")
    return exceptions.EaglerayError(f"{what} failed: {kind} {dict(details)}".rstrip())
