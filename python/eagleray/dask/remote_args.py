"""The options of a task, from `ray_remote_args` and Dask's annotations, checked and in the words of the scheduler."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from eagleray import _pickling

Spec = dict[str, Any]
"""Of a task: `retries` after it raised, of exceptions in `retry_exceptions` only (the pickle of a tuple of classes);
`max_retries` after its worker died; `priority`; `resources`, name to amount. What nobody said is not there."""

HONOURED = ("num_cpus", "num_gpus", "memory", "resources", "max_retries", "retry_exceptions")

IGNORED = (
    "_generator_backpressure_num_objects",
    "_labels",
    "_metadata",
    "accelerator_type",
    "enable_task_events",
    "fallback_strategy",
    "label_selector",
    "max_calls",
    "object_store_memory",
    "placement_group",
    "placement_group_bundle_index",
    "placement_group_capture_child_tasks",
    "scheduling_strategy",
)
"""Options of Ray that say where or in which process a task runs. Without them its result is the same."""

REFUSED = {"runtime_env": "Workers have the environment, the packages and the modules of this process."}
"""Options of Ray that change what a task computes, and why they cannot be honoured."""

TAKEN = ("name", "num_returns")
"""Options that Dask-on-Ray sets itself."""

_RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}

UNLIMITED = 2**31 - 1
"""Retries, where Ray says -1."""

_MAX_RETRIES = 3
"""Ray's default, which counts for raised exceptions too if `retry_exceptions` is given alone."""


def count(value: object, what: str) -> int:
    """A whole number of retries.

    Raises:
        TypeError, ValueError: It is none, or negative.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{what} must be a whole number, not {type(value).__name__}.")
    if value < 0:
        raise ValueError(f"{what} must be 0 or more, not {value}.")
    return min(int(value), UNLIMITED)


def priority(value: object, what: str) -> int:
    """Raises TypeError unless it is a whole number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{what} must be a whole number, not {type(value).__name__}.")
    if abs(int(value)) > UNLIMITED:
        raise ValueError(f"{what} must be between {-UNLIMITED} and {UNLIMITED}, not {value}.")
    return int(value)


def _amount(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{what} must be a number, not {type(value).__name__}.")
    number = float(value)
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{what} must be 0 or more, not {number}.")
    return number


def demand(value: object, what: str) -> dict[str, float]:
    """What a task takes of each resource.

    Raises:
        TypeError, ValueError: It is not a mapping of names to amounts.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a mapping of names to amounts, not {type(value).__name__}.")
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"The names in {what} must be strings, not {type(name).__name__}.")
    return _whole_gpus({name: _amount(amount, f"{what}[{name!r}]") for name, amount in value.items()}, what)


def remote_args(options: object, what: str, ignored: set[str]) -> Spec:
    """What `ray_remote_args` say.

    Args:
        options: The options by Ray's names. None stands for what was not said. `num_cpus`, `num_gpus`, `memory` (bytes)
            and `resources` are what the task takes while it runs. `max_retries` says how often it runs again after its
            worker died, -1 without limit; with `retry_exceptions`, which is True or a list of classes, after it raised
            too.
        what: What they are called in messages.
        ignored: Collects the names of options that have no effect.

    Raises:
        TypeError: They or a value are not of their type, or an option is set by the scheduler itself.
        ValueError: An option is unknown, or cannot be honoured and must not be ignored.
    """
    if not isinstance(options, Mapping):
        raise TypeError(f"{what} must be a mapping of options, not {type(options).__name__}.")
    said = {}
    for name, value in options.items():
        if name in TAKEN:
            raise TypeError(f"{what} got multiple values for the option {name!r}: the scheduler sets it itself.")
        if name in REFUSED and value:
            raise ValueError(f"{what} cannot have the option {name!r}. {REFUSED[name]}")
        if name not in HONOURED and name not in IGNORED and name not in REFUSED:
            valid = ", ".join((*HONOURED, *IGNORED))
            raise ValueError(f"{what} has the unknown option {name!r}. Valid options: {valid}.")
        if value is None or (name in REFUSED):
            continue
        if name in IGNORED:
            ignored.add(name)
        else:
            said[name] = value
    spec: Spec = {}
    if resources := _demands(said, what):
        spec["resources"] = resources
    spec.update(_failures(said, what))
    return spec


def _demands(said: Mapping[str, Any], what: str) -> dict[str, float]:
    resources = demand(said.get("resources", {}), f"{what}['resources']")
    for option, name in _RESOURCES.items():
        if name in resources:
            raise ValueError(f"{what}['resources'] must not name {name!r}. Use {option!r} instead.")
        if option in said:
            resources[name] = _amount(said[option], f"{what}[{option!r}]")
    return _whole_gpus(resources, what)


def _whole_gpus(resources: dict[str, float], what: str) -> dict[str, float]:
    gpus = resources.get("GPU", 0.0)
    if gpus > 1 and not gpus.is_integer():
        raise ValueError(f"{what} asks for {gpus} GPUs: a task can have a part of one GPU, or several whole ones.")
    return resources


def _failures(said: Mapping[str, Any], what: str) -> Spec:
    """`max_retries` and `retry_exceptions`."""
    spec: Spec = {}
    if "max_retries" in said:
        unlimited = said["max_retries"] == -1 and not isinstance(said["max_retries"], bool)
        spec["max_retries"] = UNLIMITED if unlimited else count(said["max_retries"], f"{what}['max_retries']")
    wanted = said.get("retry_exceptions", False)
    if isinstance(wanted, bool):
        if wanted:
            spec["retries"] = spec.get("max_retries", _MAX_RETRIES)
        return spec
    name = f"{what}['retry_exceptions']"
    if not isinstance(wanted, list | tuple):
        raise TypeError(f"{name} must be True, False or a list of exception classes, not {type(wanted).__name__}.")
    for item in wanted:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise TypeError(f"{name} must list exception classes; {item!r} is none.")
    if wanted:
        spec["retries"] = spec.get("max_retries", _MAX_RETRIES)
        spec["retry_exceptions"] = _pickling.dump(tuple(wanted))
    return spec
