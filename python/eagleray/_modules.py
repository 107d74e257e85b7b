"""Modules of the user's program: those that changed since workers imported them, and those that workers cannot import."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from types import ModuleType
from typing import Any

from eagleray import _native as native
from eagleray.exceptions import WorkerImportError

_guard = threading.Lock()

_INSTALLED = tuple(
    {os.path.join(path, "") for path in sysconfig.get_paths().values()} | {os.path.join(os.path.dirname(__file__), "")}
)

_known: dict[str, tuple[ModuleType, Any] | None] = {}
"""The modules met so far, by name: the module and its specification, which a reload replaces. None if it is no module of
the user's."""

_seen: tuple[int, str | None] = (0, None)
"""How many modules there were, and the name of the last, when `_known` was brought up to date."""

_by_value: set[str] = set()
"""Modules that are sent with what is theirs."""


def _is_users(module: object) -> bool:
    path = getattr(module, "__file__", None)
    # The program's own goes by value, under all its names: multiprocessing calls it `__mp_main__` too. If it were
    # held, its destructors would find their globals gone when the program ends.
    if module is sys.modules.get("__main__") or not isinstance(module, ModuleType) or not isinstance(path, str):
        return False
    return not path.startswith(_INSTALLED) and "site-packages" not in path and "dist-packages" not in path


def _is_made_here(name: str, module: object) -> bool:
    """Whether a module was made by the running program, so that there is nothing to import."""
    spec = getattr(module, "__spec__", None)
    made = type(module) is ModuleType and spec is None and not getattr(module, "__file__", None)
    return made and not name.startswith("__") and name not in sys.builtin_module_names


def _changed() -> bool:
    """Whether a module was loaded again since this was last asked; takes note of new ones."""
    global _seen
    modules = sys.modules
    changed = False
    for name, known in _known.items():
        if known is None:
            continue
        module = modules.get(name)
        if module is not known[0] or module.__spec__ is not known[1]:
            if module is None:
                continue  # if it comes back, as another
            _known[name] = (module, module.__spec__)
            changed = True
    now = (len(modules), next(reversed(modules), None))
    if now != _seen:
        _seen = now
        for name, module in list(modules.items()):
            if name not in _known:
                _known[name] = (module, module.__spec__) if _is_users(module) else None
                if _is_made_here(name, module):
                    _send_by_value(name)
    return changed


def refresh() -> None:
    """Before a compute in the driver: workers that may have imported what was since loaded again are replaced."""
    with _guard:
        changed = _changed()
    if changed:
        native.renew_workers()


def _send_by_value(name: str) -> None:
    import cloudpickle

    _by_value.add(name)
    cloudpickle.register_pickle_by_value(sys.modules[name])
    native.name_by_value(name.encode())


def names_by_value(pickled: bytes) -> bool:
    """Whether a pickle refers to a module by name that workers cannot import."""
    return any(name.encode() in pickled for name in _by_value)


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
