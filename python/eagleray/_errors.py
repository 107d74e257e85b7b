"""How an exception crosses a process boundary, and what the driver raises for it."""

from __future__ import annotations

import io
import os
import pickle
import traceback
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import cloudpickle

import eagleray
from eagleray._arguments import place
from eagleray._failures import named
from eagleray._pickling import PROTOCOL, dump
from eagleray._summary import summary, type_name
from eagleray.exceptions import ReadOnlyInputError, TaskCancelledError, TaskError, WorkerImportError

_MOST_BYTES = 16 << 20
"""The largest pickle of an exception that is sent; of a larger one, only text."""

_MOST_TEXT = 1 << 16
"""The longest text or traceback, in characters; of a longer one, both ends."""

_MOST_CAUSES = 8
"""How far `__cause__` is followed."""

_MOST_INPUTS = 20
"""How many inputs of a task are described."""

_MOST_NOTES = 16
"""How many notes an exception may gather on its way through nested computes; the oldest and the newest are kept."""

_OURS = os.path.dirname(eagleray.__file__) + os.sep


# Pickling.


def _builtin_base(cls: type[BaseException]) -> type[BaseException]:
    return next(base for base in cls.__mro__ if base.__module__ == "builtins")


def _slots(exc: BaseException) -> dict[str, Any]:
    """What `__slots__` of the exception's classes hold: the pickle of an exception leaves that out."""
    found = {}
    for base in type(exc).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(exc, name):
                found[name] = getattr(exc, name)
    return found


def _taken_apart(exc: BaseException) -> tuple[Any, ...]:
    """An exception as class, arguments and attributes, for constructors and `__reduce__`s that do not lead back to it."""
    cls = type(exc)
    base = _builtin_base(cls)
    reduced: Any = base.__reduce__(exc)
    state = reduced[2] if len(reduced) > 2 and reduced[2] else {}
    return _rebuild, (cls, base, reduced[1], {**state, **_slots(exc)})


def _rebuild(
    cls: type[BaseException], base: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    """The exception, without its class's own constructor."""
    exc: BaseException = base.__new__(cls, *args)
    base.__init__(exc, *args)
    for name, value in state.items():
        object.__setattr__(exc, name, value)
    return exc


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Takes an exception apart, and those within its arguments, each for itself: one of a group need not spoil it."""

    def __init__(self, file: io.BytesIO, exc: BaseException) -> None:
        super().__init__(file, PROTOCOL)
        self._exc = exc

    def reducer_override(self, obj: Any) -> Any:
        if obj is self._exc:
            return _taken_apart(obj)
        if isinstance(obj, BaseException):
            return _load, (_record(obj), "")
        return super().reducer_override(obj)


def _dump_apart(exc: BaseException) -> bytes:
    with io.BytesIO() as file:
        _Pickler(file, exc).dump(exc)
        return file.getvalue()


def _alike(a: object, b: object) -> bool:
    return type(a) is type(b) and (not isinstance(a, str | bytes | int) or a == b)


def _same(copy: object, exc: BaseException) -> bool:
    """Whether unpickling gave the exception back, as far as can be told.

    Only plain arguments are compared: others, such as arrays, are not equal to their own copies.
    """
    if type(copy) is not type(exc) or not isinstance(copy, BaseException) or len(copy.args) != len(exc.args):
        return False
    slots, other = _slots(exc), _slots(copy)
    if slots.keys() != other.keys() or not all(_alike(slots[name], other[name]) for name in slots):
        return False
    if isinstance(exc, BaseExceptionGroup) and isinstance(copy, BaseExceptionGroup):
        members = zip(copy.exceptions, exc.exceptions, strict=True)
        return all(isinstance(a, TaskError) or _same(a, b) for a, b in members)
    return all(_alike(a, b) for a, b in zip(copy.args, exc.args, strict=True))


def _dump_checked(exc: BaseException) -> bytes | None:
    """A pickle of the exception that has been seen to unpickle, or None."""
    forms: tuple[Callable[[Any], bytes], ...] = (dump, _dump_apart)
    for form in forms:
        try:
            data = form(exc)
            if len(data) <= _MOST_BYTES and _same(pickle.loads(data), exc):
                return data
        except Exception:
            continue
    return None


def _dump_stand_in(exc: BaseException) -> bytes | None:
    """What a stand-in is made of: the class, and the attributes that can be pickled. None if the class cannot."""
    state = {}
    try:
        for name, value in (exc.__dict__ | _slots(exc)).items():
            try:
                pickle.loads(dump({name: value}))
            except Exception:
                continue
            state[name] = value
        data = dump((type(exc), state))
        pickle.loads(data)
    except Exception:
        return None
    return data if len(data) <= _MOST_BYTES else None


_Record = tuple[bytes | None, bytes | None, str, str]
"""Pickle of an exception, or what a stand-in is made of; its type's name; its text."""


def _record(exc: BaseException) -> _Record:
    data = _dump_checked(exc)
    return data, _dump_stand_in(exc) if data is None else None, type_name(type(exc)), _text(exc)


# Text.


def _both_ends(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT // 2]}\n[...]\n{text[-_MOST_TEXT // 2 :]}"


def _text(exc: BaseException) -> str:
    try:
        return _both_ends(str(exc))
    except Exception as error:
        return f"<str() of it raised {type(error).__name__}>"


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_OURS)


def _traceback(exc: BaseException) -> str:
    """The traceback without our own frames, and without notes: an error that passed through several workers has one of
    each, with a traceback in it."""
    try:
        open_: list[traceback.TracebackException | None] = [found := traceback.TracebackException.from_exception(exc)]
        while open_:
            part = open_.pop()
            if part is not None:
                part.__notes__ = None
                if not all(map(_is_ours, part.stack)):
                    part.stack[:] = [frame for frame in part.stack if not _is_ours(frame)]
                open_ += [part.__cause__, part.__context__, *(part.exceptions or [])]
        return _both_ends("".join(found.format()))
    except Exception as error:
        return f"<its traceback cannot be formatted: {type(error).__name__}>"


# What a worker reports.

Inputs = Sequence[tuple[int, Any]]
"""The inputs of a task: their numbers in the graph, and their values."""


def _described(inputs: Inputs) -> tuple[list[tuple[int, str]], int]:
    """What the first of the inputs are, and how many there are in all."""
    return [(number, summary(value)) for number, value in inputs[:_MOST_INPUTS]], len(inputs)


def dump_error(exc: BaseException, inputs: Inputs = (), call: bool = False) -> bytes:
    """What a worker reports of an exception: itself if that is possible, and in any case type, text and traceback.

    Args:
        exc: What the task raised.
        inputs: What the task was given.
        call: Whether it is a call of a remote function or an actor, and no task of a graph.
    """
    chain: list[_Record] = []
    link: BaseException | None = exc
    while link is not None and len(chain) < _MOST_CAUSES:
        chain.append(_record(link))
        link = link.__cause__
    return pickle.dumps((chain, _traceback(exc), os.getpid(), _described(inputs), call), PROTOCOL)


# What the driver raises.


_derived: WeakValueDictionary[type[BaseException], type[TaskError]] = WeakValueDictionary()
"""`TaskError`s that `except` takes for another class, by that class."""


def _derived_class(cls: type[BaseException]) -> type[TaskError]:
    known = _derived.get(cls)
    if known is not None:
        return known

    def reduce(self: TaskError) -> tuple[Any, ...]:
        if self.cause is not None:
            return _of_record, (_record(self.cause), self.where, self.remote_traceback)
        return stand_in, (cls, self.type_name, self.text, self.remote_traceback, {"where": self.where})

    def of_cause(self: TaskError, name: str) -> Any:
        if self.cause is None or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        return getattr(self.cause, name)

    name = f"{TaskError.__name__}({cls.__name__})"
    namespace = {
        "__reduce__": reduce,
        "__getattr__": of_cause,
        "__module__": TaskError.__module__,
        "__qualname__": name,
    }
    made = _derived[cls] = type(name, (TaskError, cls), namespace)
    return made


def of_call(cause: BaseException, where: str, trace: str) -> TaskError:
    """What is raised for what a remote call raised: of the class of that, if a class can be derived from it.

    Args:
        cause: What the call raised.
        where: Which call that was, and in which process, as a sentence.
        trace: The traceback there.
    """
    cls, name, text = type(cause), type_name(type(cause)), _text(cause)
    error: TaskError | None = None
    if not issubclass(cls, TaskError):
        try:
            _, (_, base, args, state) = _taken_apart(cause)
            kind = _derived_class(cls)
            # What the attributes of built-in classes show is not found by asking the cause.
            builtin = {name: value for name, value in state.items() if name not in cause.__dict__}
            made = _rebuild(kind, base, args, builtin)
            TaskError.__init__(made, name, text, trace)  # type: ignore[arg-type]  # it is one
            made.args = (cause,)
            error = made  # type: ignore[assignment]
        except Exception:  # a class that cannot be derived from
            error = None
    if error is None:
        error = TaskError(name, text, trace)
    error.cause, error.where = cause, where
    return error


def _of_record(record: _Record, where: str, trace: str) -> TaskError:
    return of_call(_load(record, ""), where, trace)


def stand_in(cls: type[BaseException] | None, name: str, text: str, trace: str, state: dict[str, Any]) -> TaskError:
    """A `TaskError` for an exception that cannot be brought here, which `except` takes for one of its class.

    Args:
        cls: The class, if it is known here.
        name: Its qualified name.
        text: What `str` of the exception gave.
        trace: Its traceback.
        state: Attributes.
    """
    if cls is not None and not issubclass(cls, TaskError) and _may_pass(cls):
        try:
            kind = _derived_class(cls)
            exc = kind.__new__(kind)
            TaskError.__init__(exc, name, text, trace)
            for attribute, value in state.items():
                object.__setattr__(exc, attribute, value)
            return exc
        except Exception:  # a class that cannot be derived from, or made without arguments
            return TaskError(name, text, trace)
    return TaskError(name, text, trace)


def _may_pass(cls: type[BaseException]) -> bool:
    """Whether raising such an exception in the driver would say no more than that the task failed.

    What ends a worker, a generator or a coroutine must not do so to the driver's.
    """
    from asyncio import CancelledError

    return not issubclass(cls, SystemExit | KeyboardInterrupt | GeneratorExit | CancelledError)


def _load(record: _Record, trace: str) -> BaseException:
    data, stand_in_data, name, text = record
    cls, state = None, {}
    try:
        if data is not None:
            exc = pickle.loads(data)
            if isinstance(exc, KeyboardInterrupt):
                return TaskCancelledError("The task was interrupted.")
            if isinstance(exc, BaseException) and _may_pass(type(exc)):
                return exc
        elif stand_in_data is not None:
            cls, state = pickle.loads(stand_in_data)
    except Exception as error:
        trace += f"\n(It could not be unpickled here: {type(error).__name__}: {_text(error)})\n"
    return stand_in(cls, name, text, trace, state)


def _add_note(exc: BaseException, note: str) -> None:
    notes = getattr(exc, "__notes__", None)
    kept = [*(notes if isinstance(notes, list) else ()), note]
    if len(kept) > _MOST_NOTES:
        kept = [*kept[: _MOST_NOTES // 2], *kept[-_MOST_NOTES // 2 :]]
    try:
        # Not `add_note`: classes whose attributes are frozen refuse it.
        object.__setattr__(exc, "__notes__", kept)
    except Exception:
        return


def _argument(node: Any, value: Any, keys: Sequence[Any]) -> str:
    """An input that is no task's result: a ref, or a value too large to be sent with its task."""
    if isinstance(value, eagleray.ObjectRef):
        return f"ObjectRef {value.hex()}"
    if found := place(node, value):
        return found
    # The value of a key. Which, is only certain if there is one.
    known = set(keys)
    literals = [key for key in getattr(node, "dependencies", ()) if key not in known]
    return named(literals[0]) if len(literals) == 1 else "a value of the graph"


def _inputs_note(
    described: tuple[list[tuple[int, str]], int], node: Any, keys: Sequence[Any], externals: Sequence[Any]
) -> str:
    shown, count = described
    lines = []
    for number, text in shown:
        if number < len(keys):
            name = keys[number] if isinstance(keys[number], str) else named(keys[number])
        elif number - len(keys) < len(externals):
            name = _argument(node, externals[number - len(keys)], keys)
        else:
            name = "an object"
        lines.append(f"  {name}: {text}")
    if count > len(shown):
        lines.append(f"  and {count - len(shown)} more")
    return "".join([" Its inputs:\n", *(f"{line}\n" for line in lines)]) if lines else ""


def task_error(
    payload: bytes,
    key: object,
    node: Any = None,
    keys: Sequence[Any] = (),
    externals: Sequence[Any] = (),
    attempts: int = 1,
) -> BaseException:
    """The exception to raise for a task that failed: the original, with a note of key, worker, traceback and inputs.

    Args:
        payload: What `dump_error` gave.
        key: The task's key, or the name of a call; None if it is not known.
        node: The task.
        keys: The keys of the graph's tasks, by number.
        externals: What the numbers behind those stand for: refs, and arguments that became objects.
        attempts: How often the task was tried.
    """
    chain, trace, pid, described, call = pickle.loads(payload)
    exc = loaded(chain, trace)
    if isinstance(exc, ReadOnlyInputError | WorkerImportError) and exc.key is None:
        exc.key = key
    tries = "" if attempts == 1 else f" at attempt {attempts}, the last,"
    if call and not isinstance(exc, TaskCancelledError):
        what = "A remote call" if key is None else f"The call of {key}"
        return _call_error(exc, f"{what} failed{tries} in worker process {pid}.", trace)
    what = "The task" if key is None else f"Task {named(key)}"
    inputs = _inputs_note(described, node, keys, externals) or " "
    _add_note(exc, f"{what} failed{tries} in worker process {pid}.{inputs}Traceback there:\n{trace.rstrip()}")
    return exc


def loaded(chain: Sequence[_Record], trace: str) -> BaseException:
    """The exception that a worker reported, with the causes that it had there."""
    exc = _load(chain[0], trace)
    link = exc
    for record in chain[1:]:
        try:
            link.__cause__ = _load(record, "")
        except Exception:  # a class whose attributes are frozen
            break
        link = link.__cause__
    return exc


def _call_error(exc: BaseException, where: str, trace: str) -> TaskError:
    if isinstance(exc, TaskError):
        if exc.cause is not None:  # of a call within this one; the traceback tells of both
            return of_call(exc.cause, where, trace)
        exc.where, exc.remote_traceback = where, trace
        return exc
    return of_call(exc, where, trace)


def constructor_error(payload: bytes) -> tuple[BaseException, str]:
    """What the constructor of an actor raised, and the traceback in the worker."""
    chain, trace, *_ = pickle.loads(payload)
    return loaded(chain, trace), trace


def add_local_note(
    exc: BaseException, key: object, inputs: Inputs, node: Any, keys: Sequence[Any], externals: Sequence[Any]
) -> None:
    """Adds to the exception of a task that ran in this process what `task_error` says of one that did not."""
    text = _inputs_note(_described(inputs), node, keys, externals)
    _add_note(exc, f"Task {named(key)} failed.{text}".rstrip())


def add_note_of_value(exc: BaseException, key: object) -> None:
    """Adds to the exception of unpickling a value in this process whose value it is.

    Args:
        exc: The exception.
        key: The key of the task whose result it is; None if it is not known, or if no task has made it.
    """
    what = "The value" if key is None else f"The result of task {named(key)}"
    _add_note(exc, f"{what} was pickled without an error, but unpickling it in process {os.getpid()} raised this one.")
