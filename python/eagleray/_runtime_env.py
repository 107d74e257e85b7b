"""What `runtime_env` says of the surroundings of a task or an actor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True, slots=True)
class RuntimeEnv:
    """What a task or an actor finds around it that differs from its caller's."""

    env_vars: tuple[tuple[str, str], ...] = ()
    working_dir: str | None = None
    path: tuple[str, ...] = ()
    """Directories in which modules are found first."""


def _directory(value: object, what: str) -> str:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{what} must be the path of a directory, not {type(value).__name__}.")
    path = os.fspath(value)
    if "://" in path:
        raise ValueError(f"{what} must be a directory of this machine: nothing is fetched from {path!r}.")
    if not os.path.isdir(path):
        raise ValueError(f"{what} must be a directory, and {path!r} is none.")
    return os.path.abspath(path)


def _home_of(module: object, what: str) -> str:
    """The directory in which a module is found."""
    if isinstance(module, ModuleType):
        found = next(iter(getattr(module, "__path__", ())), None) or getattr(module, "__file__", None)
        if found is None:
            raise ValueError(f"{what} has the module {module.__name__!r}, which was not read from a file.")
        module = found
    if not isinstance(module, str | os.PathLike):
        raise TypeError(f"{what} must list modules or their paths, not {type(module).__name__}.")
    path = os.path.abspath(os.fspath(module))
    if not (os.path.isdir(path) or (os.path.isfile(path) and path.endswith(".py"))):
        raise ValueError(f"{what} must list packages (directories) or .py files; {os.fspath(module)!r} is neither.")
    return os.path.dirname(path)


_KNOWN = ("env_vars", "working_dir", "py_modules")
_OF_SENDING = ("config", "excludes")
"""Fields of Ray's that say how something is sent or installed."""
_OF_INSTALLING = (
    "conda",
    "container",
    "image_uri",
    "java_jars",
    "pip",
    "py_executable",
    "uv",
    "worker_process_setup_hook",
)
"""Those that workers cannot have; one that is empty asks for nothing."""


def checked(value: object, what: str) -> RuntimeEnv:
    """Variables, directory and modules of a `runtime_env`.

    Raises:
        TypeError, ValueError: It is none, or has more than these. Nothing is installed or fetched.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a dict, not {type(value).__name__}.")
    for name, field in value.items():
        if name not in _KNOWN + _OF_SENDING and (field or name not in _OF_INSTALLING):
            raise ValueError(
                f"{what} cannot have {name!r}: workers have the packages of the program. It can have "
                f"{', '.join(_KNOWN)}."
            )
    variables = value.get("env_vars") or {}
    if not isinstance(variables, Mapping):
        raise TypeError(f"{what}['env_vars'] must be a dict, not {type(variables).__name__}.")
    for pair in variables.items():
        if not all(isinstance(item, str) for item in pair):
            raise TypeError(f"{what}['env_vars'] must map str to str, not {pair[0]!r} to {pair[1]!r}.")
        if not pair[0] or "=" in pair[0] or "\0" in pair[0] + pair[1]:
            raise ValueError(f"{what}['env_vars'] has {pair[0]!r}, which cannot be set.")
    place = value.get("working_dir")
    directory = None if place is None else _directory(place, f"{what}['working_dir']")
    modules = value.get("py_modules") or ()
    if not isinstance(modules, list | tuple):
        raise TypeError(f"{what}['py_modules'] must be a list, not {type(modules).__name__}.")
    homes = [_home_of(module, f"{what}['py_modules']") for module in modules]
    path = tuple(dict.fromkeys([*homes, *([directory] if directory else [])]))
    return RuntimeEnv(tuple(variables.items()), directory, path)
