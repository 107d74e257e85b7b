"""The options of a task, from `ray_remote_args` and Dask's annotations, checked and in the words of the scheduler."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from eagleray import _options, _pickling
from eagleray._options import MAX_RETRIES, UNLIMITED, amount, amounts, retry_exceptions, tries, whole_gpus

Spec = dict[str, Any]
"""Of a task: `retries` after it raised, of exceptions in `retry_exceptions` only (the pickle of a tuple of classes);
`max_retries` after its worker died; `priority`; `resources`, name to amount. What nobody said is not there."""

HONOURED = ("num_cpus", "num_gpus", "memory", "resources", "max_retries", "retry_exceptions")

IGNORED = tuple(
    sorted((*_options.WITHOUT_EFFECT, "_generator_backpressure_num_objects", "max_calls", "scheduling_strategy"))
)
"""Options of Ray that say where or in which process a task runs. Without them its result is the same."""

REFUSED = {"runtime_env": "Workers have the environment, the packages and the modules of this process."}
"""Options of Ray that change what a task computes, and why they cannot be honoured."""

TAKEN = ("name", "num_returns")
"""Options that Dask-on-Ray sets itself."""


def priority(value: object, what: str) -> int:
    """Raises TypeError unless it is a whole number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{what} must be a whole number, not {type(value).__name__}.")
    if abs(int(value)) > UNLIMITED:
        raise ValueError(f"{what} must be between {-UNLIMITED} and {UNLIMITED}, not {value}.")
    return int(value)


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
            raise _options.unknown(what, name, (*HONOURED, *IGNORED))
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
    resources = amounts(said.get("resources", {}), f"{what}['resources']")
    for option, name in _options.RESOURCES.items():
        if name in resources:
            raise ValueError(f"{what}['resources'] must not name {name!r}. Use {option!r} instead.")
        if option in said:
            resources[name] = amount(said[option], f"{what}[{option!r}]")
    return whole_gpus(resources, what)


def _failures(said: Mapping[str, Any], what: str) -> Spec:
    """`max_retries` and `retry_exceptions`."""
    spec: Spec = {}
    if "max_retries" in said:
        most = tries(said["max_retries"], f"{what}['max_retries']")
        spec["max_retries"] = UNLIMITED if most == -1 else most
    wanted = retry_exceptions(said.get("retry_exceptions", False), f"{what}['retry_exceptions']")
    if wanted:
        spec["retries"] = spec.get("max_retries", MAX_RETRIES)
        if not isinstance(wanted, bool):
            spec["retry_exceptions"] = _pickling.dump(wanted)
    return spec
