"""Modules of the user's program: those that changed since workers imported them, and those that workers cannot import."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from types import ModuleType
from typing import Any

from eagleray import _engine
from eagleray.exceptions import WorkerImportError

_guard = threading.Lock()

_INSTALLED = tuple(
    {os.path.join(path, "") for path in sysconfig.get_paths().values()} | {os.path.join(os.path.dirname(__file__), "")}
)

_users: dict[str, tuple[ModuleType, Any]] = {}
"""The user's modules met so far, by name: the module and its specification, which a reload replaces."""

_met: set[str] = set()
"""The names of all modules met so far."""

_seen: tuple[int, str | None] = (0, None)
"""How many modules there were, and the name of the last, when these were brought up to date."""

_by_value: dict[str, bytes] = {}
"""Modules that are sent with what is theirs: their names, and the same as pickles have them. Replaced, never changed."""

_OF_CYTHON = ("cython_runtime", "_cython_")
"""What modules begin with that Cython makes in each process that uses it."""


def _forked() -> None:
    """In a child: whoever looked at the modules is not here."""
    global _guard
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def _attributes(module: object) -> dict[str, Any]:
    """What a module has. Nothing is loaded: to ask a lazy module for an attribute imports it."""
    return object.__getattribute__(module, "__dict__") if issubclass(type(module), ModuleType) else {}


def _specification(module: object) -> Any:
    return _attributes(module).get("__spec__")


def _is_users(module: object) -> bool:
    path = _attributes(module).get("__file__")
    # The program's own goes by value, under all its names: multiprocessing calls it `__mp_main__` too. If it were
    # held, its destructors would find their globals gone when the program ends.
    if module is sys.modules.get("__main__") or not isinstance(path, str):
        return False
    return not path.startswith(_INSTALLED) and "site-packages" not in path and "dist-packages" not in path


def _is_made_here(name: str, module: object) -> bool:
    """Whether a module was made by the running program, so that there is nothing to import.

    Extensions make modules as well, which workers get with them: those of a package, or Cython's own.
    """
    attributes = _attributes(module)
    if type(module) is not ModuleType or attributes.get("__spec__") or attributes.get("__file__"):
        return False
    if name.startswith(("__", *_OF_CYTHON)) or name in sys.builtin_module_names:
        return False
    package, _, inner = name.partition(".")
    return not inner or _specification(sys.modules.get(package)) is None


def _changed() -> bool:
    """Whether a module was loaded again since this was last asked; takes note of new ones."""
    global _seen
    modules = sys.modules
    changed = False
    for name, known in _users.items():
        module = modules.get(name)
        if module is None:
            continue  # if it comes back, as another
        now = (module, _specification(module))
        if now[0] is not known[0] or now[1] is not known[1]:
            _users[name] = now
            changed = True
    try:
        state = (len(modules), next(reversed(modules), None))
    except RuntimeError:  # another thread imports
        state = (0, None)
    if state != _seen:
        _seen = state
        for name, module in list(modules.items()):
            if name not in _met:
                _met.add(name)
                if _is_users(module):
                    _users[name] = (module, _specification(module))
                elif _is_made_here(name, module):
                    _send_by_value(name)
    return changed


def refresh() -> None:
    """Before a compute in the driver: workers that may have imported what was since loaded again are replaced."""
    with _guard:
        changed = _changed()
    if changed:
        _engine.native.renew_workers()


def _send_by_value(name: str) -> None:
    global _by_value
    import cloudpickle

    _by_value = {**_by_value, name: name.encode()}
    cloudpickle.register_pickle_by_value(sys.modules[name])
    _engine.native.name_by_value(_by_value[name])


def names_by_value(pickled: bytes) -> bool:
    """Whether a pickle refers to a module by name that workers cannot import."""
    return any(name in pickled for name in _by_value.values())


def not_loaded(error: BaseException) -> BaseException:
    """What a worker raises for an `error` of loading what it was sent: it says so if a module is the reason."""
    name = None
    if isinstance(error, ImportError):
        name = error.name
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = error.obj.__name__
    if not name:
        if isinstance(error, Exception):  # its own text is rarely about pickles
            error.add_note("Unpickling the task's function or an input in the worker raised this, not the task.")
        return error
    explained = WorkerImportError(name, f"{type(error).__name__}: {error}", list(sys.path))
    explained.__cause__ = error
    return explained


def send_by_value(error: WorkerImportError) -> bool:
    """Whether there is hope that a second attempt goes better, because now the module is sent by value."""
    name = error.module
    with _guard:
        module = sys.modules.get(name)
        if name in _by_value or not isinstance(module, ModuleType):
            return False
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and (path.startswith(_INSTALLED) or not path.endswith(".py")):
            return False
        _send_by_value(name)
    return True
