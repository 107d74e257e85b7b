"""What surrounds a computation beside its graph: environment variables, working directory, `sys.path`, `dask.config`.

Workers are forked from a template that has them as they were when the session began. What differs when a graph is
submitted travels with it (`capture`), and a worker sets it for the runs of that graph (`apply`). In both the difference is
taken against the beginning of the process's own session (`begin`): so a graph that a task submits gets what its task has.

Of Dask's configuration only what a new process would not read by itself travels, and nothing that says where and with how
many workers to compute: in a worker that is the worker's affair.
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eagleray import _pickling
from eagleray._runtime_env import RuntimeEnv
from eagleray.exceptions import EaglerayError, RuntimeEnvSetupError

Config = dict[str, Any]
Place = tuple[str, ...]
"""Where something stands in a nested configuration."""

_NOT_SENT = frozenset({("scheduler",), ("get",), ("pool",), ("num_workers",), ("num-workers",), ("admin", "traceback")})
"""Of `dask.config`: a worker's own affair, or that of the process that shows a traceback."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Everything at one moment, for comparison. Names and values of variables are as the system has them."""

    environment: dict[bytes, bytes]
    cwd: str | None
    path: list[str]
    config: Config | None
    """None where Dask is not imported."""
    data: bytes | None
    """What `capture` returned for it."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What differs from the beginning. It travels pickled."""

    environment: dict[bytes, bytes | None]
    """None for a variable that is gone."""
    cwd: str | None
    path: list[str] | None
    config: dict[Place, bytes | None]
    """Each value pickled; None for one that is gone."""

    def __bool__(self) -> bool:
        return bool(self.environment or self.cwd or self.path is not None or self.config)


_base: _Snapshot | None = None
_fresh: Config | None = None
"""Dask's configuration as a new process reads it."""
_last: _Snapshot | None = None
"""The latest: most computes find everything as it was."""
_undo: list[Callable[[], object]] = []
"""In a worker: what leads back to the beginning, last change first."""
_last_of_calls: _Snapshot | None = None
"""The latest that was made for a remote call; without Dask's configuration."""
_of_all: RuntimeEnv | None = None
"""What everything that is submitted here has besides."""
_kept = False
"""In a worker: whether what is set now stays."""


def _environment() -> dict[bytes, bytes]:
    # `os.environ` decodes each name and value at each access; the mapping below it compares in half a microsecond.
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    return data


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # removed, so nobody can go there
        return None


def _config() -> Config | None:
    module = sys.modules.get("dask.config")
    return getattr(module, "config", None)


def _copy(config: Any) -> Any:
    """The containers anew, what is in them as it is: it may be anything."""
    if isinstance(config, dict):
        return {name: _copy(value) for name, value in config.items()}
    if isinstance(config, list):
        return [_copy(value) for value in config]
    return config


def _same(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # arrays and the like
        return False


def begin(env: RuntimeEnv | None = None) -> None:
    """Notes everything as it is: what workers forked from now on have by themselves.

    Args:
        env: What they are to have besides.
    """
    global _base, _fresh, _last, _last_of_calls, _kept, _of_all
    _base = _Snapshot(dict(_environment()), _cwd(), list(sys.path), None, None)
    _fresh = None
    _last = _last_of_calls = None
    _kept = False
    _of_all = env
    _undo.clear()


def capture() -> bytes | None:
    """What differs from the beginning, for `apply` in a worker; None if nothing does.

    Costs two microseconds if nothing has changed since the last call.
    """
    global _last
    last, cwd, config = _last, _cwd(), _config()
    if (
        last is not None
        and last.cwd == cwd
        and last.environment == _environment()
        and last.path == sys.path
        and _same(last.config, config)
    ):
        return last.data
    if _base is None:
        return None
    now = _snapshot()
    change = _difference(_base, now)
    data = _packed(change)
    _last = _Snapshot(now.environment, now.cwd, now.path, now.config, data)
    return data


def capture_for_call() -> bytes | None:
    """The same for a remote call, which is to cost less: without `dask.config`, which mostly takes the longest.

    What differs in a worker while it runs a task is that task's doing, and is passed on.
    """
    global _last_of_calls
    last, cwd = _last_of_calls, _cwd()
    if last is not None and last.cwd == cwd and last.environment == _environment() and last.path == sys.path:
        return last.data
    if _base is None:
        return None
    now = _Snapshot(dict(_environment()), cwd, list(sys.path), None, None)
    change = _difference(_base, now)
    data = _packed(change)
    _last_of_calls = _Snapshot(now.environment, now.cwd, now.path, None, data)
    return data


def _packed(change: _Change) -> bytes | None:
    data = pickle.dumps(change, 5) if change else None
    return data if _of_all is None else within(_of_all, data)


def within(env: RuntimeEnv, data: bytes | None) -> bytes:
    """Surroundings with what a `runtime_env` says on top. A variable may be made of others, as `/opt/bin:${PATH}`.

    Args:
        env: What it says.
        data: What a `capture` gave.
    """
    change = _Change({}, None, None, {}) if data is None else pickle.loads(data)
    variables: dict[bytes, bytes | None] = dict(change.environment)
    for name, value in env.env_vars:
        variables[os.fsencode(name)] = _expanded(os.fsencode(value), variables)
    path = change.path
    if env.path:
        known = _base.path if path is None and _base is not None else path or []
        path = [*env.path, *(entry for entry in known if entry not in env.path)]
    merged = _Change(variables, env.working_dir or change.cwd, path, change.config)
    return pickle.dumps(merged, 5)


def _expanded(value: bytes, change: Mapping[bytes, bytes | None]) -> bytes:
    """A value with variables in place of their names. As in Ray, `${NAME}` of one that there is not is empty, and `$NAME`
    stays."""

    def of(found: re.Match[bytes]) -> bytes:
        name = found["name"] or found["braced"]
        known = change[name] if name in change or _base is None else _base.environment.get(name)
        return known if known is not None else b"" if found["braced"] else found[0]

    return re.sub(rb"\$(?:(?P<name>\w+)|\{(?P<braced>\w+)\})", of, value)


def keep() -> None:
    """In a worker: what is set now stays to its end, whatever is applied. For an actor, whose calls bring nothing."""
    global _kept
    _kept = True


def _snapshot() -> _Snapshot:
    config = _config()
    if config is not None:
        with sys.modules["dask.config"].config_lock:
            config = _copy(config)
    return _Snapshot(dict(_environment()), _cwd(), list(sys.path), config, None)


def _difference(base: _Snapshot, now: _Snapshot) -> _Change:
    names = base.environment.keys() | now.environment.keys()
    changed = {name: now.environment.get(name) for name in names}
    environment = {name: value for name, value in changed.items() if value != base.environment.get(name)}
    cwd = None if now.cwd == base.cwd else now.cwd
    path = None if now.path == base.path else [str(entry) for entry in now.path]
    config = {} if now.config is None else dict(_config_difference(_fresh_config(base), now.config))
    return _Change(environment, cwd, path, config)


def _fresh_config(base: _Snapshot) -> Config:
    global _fresh
    if _fresh is None:
        import dask.config

        fresh: Config = {}
        environment = {os.fsdecode(name): os.fsdecode(value) for name, value in base.environment.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when Dask was imported: some setting has a new name
            dask.config.refresh(config=fresh, env=environment)
        _fresh = fresh
    return _fresh


def _config_difference(old: Config, new: Config, above: Place = ()) -> Iterator[tuple[Place, bytes | None]]:
    for name in [*old, *(name for name in new if name not in old)]:
        place = (*above, name)
        if place in _NOT_SENT:
            continue
        before, now = old.get(name), new.get(name)
        if name not in new:
            yield place, None
        elif isinstance(now, dict) and now:
            yield from _config_difference(before if isinstance(before, dict) else {}, now, place)
        elif name not in old or not _same(before, now):
            yield from _pickled(place, now)


def _pickled(place: Place, value: object) -> Iterator[tuple[Place, bytes]]:
    try:
        yield place, _pickling.dump(value)
    except Exception as error:
        warnings.warn(
            f"dask.config {'.'.join(map(str, place))!r} is not set in workers: it cannot be pickled ({error})",
            stacklevel=2,
        )


def apply(data: bytes | None) -> None:
    """In a worker: makes everything as it was at the submission of a graph.

    Args:
        data: What `capture` returned there. None leads back to the beginning.

    Raises:
        EaglerayError: Something cannot be set. Then everything is as at the beginning.
    """
    global _last
    if _kept:
        return
    _restore()
    if data is None:
        return
    change: _Change = pickle.loads(data)
    try:
        for name, value in change.environment.items():
            _set_variable(name, value)
        if change.path is not None:
            _set_path(change.path)
        if change.cwd is not None:
            _enter(change.cwd)
        if change.config:
            _configure(change.config)
    except BaseException:
        _restore()
        raise
    now = _snapshot()
    _last = _Snapshot(now.environment, now.cwd, now.path, now.config, data)


def _restore() -> None:
    while _undo:
        _undo.pop()()


def _set_variable(name: bytes, value: bytes | None) -> None:
    old = os.environb.get(name)

    def put(value: bytes | None) -> None:
        if value is None:
            os.environb.pop(name, None)
        else:
            os.environb[name] = value
        if name == b"TZ":
            time.tzset()

    _undo.append(lambda: put(old))
    put(value)


def _set_path(entries: list[str]) -> None:
    old = list(sys.path)

    def put(entries: list[str]) -> None:
        sys.path[:] = entries
        importlib.invalidate_caches()

    _undo.append(lambda: put(old))
    put(entries)


def _enter(directory: str) -> None:
    old = _cwd()
    try:
        os.chdir(directory)
    except OSError as error:
        raise RuntimeEnvSetupError(
            f"The worker cannot enter the working directory of the process that submitted the graph, {directory!r}: "
            f"{error.strerror}. Change to a directory that exists before you compute."
        ) from error
    if old is not None:
        _undo.append(lambda: _leave_for(old))


def _leave_for(directory: str) -> None:
    # Where the session began may be gone meanwhile. No task can have meant to be there.
    if os.path.isdir(directory):
        os.chdir(directory)


def _configure(changes: dict[Place, bytes | None]) -> None:
    import dask.config

    for place, value in changes.items():
        try:
            loaded = None if value is None else pickle.loads(value)
        except Exception as error:
            raise EaglerayError(
                f"dask.config {'.'.join(map(str, place))!r} cannot be set in a worker: its value cannot be unpickled "
                f"there ({type(error).__name__}: {error})."
            ) from error
        with dask.config.config_lock:
            _put(dask.config.config, place, loaded, gone=value is None)


def _put(config: Config, place: Place, value: object, gone: bool) -> None:
    *above, name = place
    for part in above:
        below = config.get(part)
        if not isinstance(below, dict):
            if gone:
                return
            below = {}
            _assign(config, part, below)
        config = below
    if not gone:
        _assign(config, name, value)
    elif name in config:
        old = config.pop(name)
        _undo.append(lambda: config.__setitem__(name, old))


def _assign(config: Config, name: str, value: object) -> None:
    if name in config:
        old = config[name]
        _undo.append(lambda: config.__setitem__(name, old))
    else:
        _undo.append(lambda: config.pop(name, None))
    config[name] = value
