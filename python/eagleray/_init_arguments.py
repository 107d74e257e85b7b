"""What `eagleray.init` may be told, and what is whole, flag or text in other functions, too."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping

STORE_LEAST = 16 << 20
"""Bytes: what the segments of a few workers need at the very least."""


def whole(name: str, value: object, least: int, unit: str) -> int:
    """A whole number that is not too small.

    Raises:
        TypeError, ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number of {unit} or None, not {type(value).__name__}.")
    number = int(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least} {unit}, not {number}.")
    return number


def without_fraction(value: object) -> object:
    """Of 1e9 the whole number that it is; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_OWN_ARGUMENT = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": None}
"""Resources that are not offered by `resources`, and the argument that offers them."""


def offered(resources: object) -> dict[str, float]:
    """What tasks can ask for beside what there always is, by name."""
    if resources is None:
        return {}
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources must be a dict of names and amounts or None, not {type(resources).__name__}.")
    checked: dict[str, float] = {}
    for name, amount in resources.items():
        if not isinstance(name, str):
            raise TypeError(f"A name in resources must be a str, not {type(name).__name__}: {name!r}.")
        if not name:
            raise ValueError("A name in resources is empty.")
        if name in _OWN_ARGUMENT:
            argument = _OWN_ARGUMENT[name]
            instead = f"say it with {argument}" if argument else "it is what this machine has"
            raise ValueError(f"resources cannot contain {name!r}: {instead}.")
        if isinstance(amount, bool) or not isinstance(amount, numbers.Real):
            raise TypeError(f"The amount of resource {name!r} must be a number, not {type(amount).__name__}.")
        if not 0 <= float(amount) < float("inf"):
            raise ValueError(f"The amount of resource {name!r} must be 0 or more, not {amount}.")
        checked[name] = float(amount)
    return checked


_OF_RAY = (
    "cgroup_path",
    "configure_logging",
    "dashboard_agent_listen_port",
    "dashboard_grpc_port",
    "dashboard_host",
    "dashboard_port",
    "enable_resource_isolation",
    "job_config",
    "labels",
    "logging_config",
    "logging_format",
    "proxy_server_url",
    "system_reserved_cpu",
    "system_reserved_memory",
)
"""Arguments of Ray's `init` that change no result. So do those that begin with an underscore."""


def check_of_ray(given: Mapping[str, object], known: Iterable[str]) -> None:
    """Raises for arguments that are neither Ray's nor `known`, and for those that ask for what there is not."""
    for name in given:
        if name not in _OF_RAY and not name.startswith("_") and name != "local_mode":
            raise TypeError(f"init() does not know the argument {name!r}. It knows {', '.join(known)}.")
    if given.get("local_mode"):
        raise ValueError(
            "init() cannot have local_mode: tasks run in workers. To debug a graph in this process use ray_dask_get_sync."
        )


def check_address(address: object) -> None:
    """Raises unless it stands for a session of this program."""
    if address is not None and not isinstance(address, str):
        raise TypeError(f"address must be a str or None, not {type(address).__name__}.")
    if address not in (None, "local", "auto"):
        raise ValueError(
            f"address must be None, 'local' or 'auto', not {address!r}: a session has this machine only, and each program "
            "has its own."
        )


def text(name: str, value: object) -> str | None:
    """A text that is not empty, or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None, not {type(value).__name__}.")
    if value == "":
        raise ValueError(f"{name} is empty.")
    return value


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}.")
    return value
