"""The options of tasks and actors, by Ray's names: what they may be, and what holds if they are not said."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from eagleray import _identity, _runtime_env
from eagleray._identity import Id

Checked = dict[str, Any]
"""Options as they are meant. What nobody said is not there."""

Check = Callable[[Any, str], Any]
"""Takes a value and what to call it in a message. Returns what is meant, or raises TypeError or ValueError."""

UNLIMITED = 2**31 - 1
"""The largest number of retries."""

MAX_RETRIES = 3
"""Ray's default. It counts for raised exceptions too if `retry_exceptions` is given alone."""

ASYNC_CONCURRENCY = 1000
"""How many coroutines of an actor run at a time, if nobody says."""

WITHOUT_EFFECT = (
    "_labels",
    "_metadata",
    "accelerator_type",
    "allow_out_of_order_execution",
    "enable_task_events",
    "fallback_strategy",
    "label_selector",
    "object_store_memory",
    "placement_group",
    "placement_group_bundle_index",
    "placement_group_capture_child_tasks",
)
"""Options of Ray that say where or in which process something runs, or what is recorded of it, or allow what is not done.
Without them the results are the same."""

_OF_METHODS = frozenset({"enable_task_events"})
"""Those that methods have, too."""

_LEAST = 0.0001
"""Amounts of resources are counted in parts of this size, as in Ray."""

RESOURCES = MappingProxyType({"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"})
"""Options that are amounts of a resource, and the resource."""


@dataclass(frozen=True, slots=True)
class NodeAffinitySchedulingStrategy:
    """Run on one node.

    Args:
        node_id: The node, as `get_runtime_context()` names it.
        soft: Run elsewhere if there is no such node, instead of failing.
    """

    node_id: str
    soft: bool = False

    def __post_init__(self) -> None:
        # The context's `node_id` is an object of its own, in Ray too.
        if isinstance(self.node_id, Id):
            object.__setattr__(self, "node_id", self.node_id.hex())


# Values.


def count(value: object, what: str) -> int:
    """A whole number that is not negative.

    Raises:
        TypeError, ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{what} must be a whole number, not {type(value).__name__}.")
    if value < 0:
        raise ValueError(f"{what} must be 0 or more, not {value}.")
    return min(int(value), UNLIMITED)


def tries(value: object, what: str) -> int:
    """A number of further attempts; -1 for as many as it takes."""
    if value == -1 and not isinstance(value, bool):
        return -1
    try:
        return count(value, what)
    except ValueError:
        raise ValueError(f"{what} must be 0 or more, not {value}, or -1 for no limit.") from None


def amount(value: object, what: str) -> float:
    """How much of a resource."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{what} must be a number, not {type(value).__name__}.")
    number = float(value)
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{what} must be 0 or more, not {number}.")
    if 0 < number < _LEAST:
        raise ValueError(f"{what} must be 0 or at least {_LEAST}, not {number}.")
    return number


def whole_gpus(resources: dict[str, float], what: str) -> dict[str, float]:
    """The resources, if they ask for a part of one GPU or for whole ones.

    Raises:
        ValueError: They ask for something else.
    """
    gpus = resources.get("GPU", 0.0)
    if gpus > 1 and not gpus.is_integer():
        raise ValueError(f"{what} asks for {gpus} GPUs: a task can have a part of one GPU, or several whole ones.")
    return resources


def amounts(value: object, what: str) -> dict[str, float]:
    """How much of each resource, by name.

    Raises:
        TypeError, ValueError: It is not a mapping of names to amounts.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a mapping of names to amounts, not {type(value).__name__}.")
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"The names in {what} must be strings, not {type(name).__name__}.")
    return whole_gpus({name: amount(value, f"{what}[{name!r}]") for name, value in value.items()}, what)


def _own_amounts(value: object, what: str) -> dict[str, float]:
    """The same for `resources`, beside which other options say how much of CPU, GPU and memory."""
    checked = amounts(value, what)
    for option, name in RESOURCES.items():
        if name in checked:
            raise ValueError(f"{what} must not name {name!r}. Use {option!r} instead.")
    return checked


def retry_exceptions(value: object, what: str) -> bool | tuple[type[BaseException], ...]:
    """After which exceptions a task is run again: all, none, or those of some classes."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        raise TypeError(f"{what} must be True, False or a list of exception classes, not {type(value).__name__}.")
    for item in value:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise TypeError(f"{what} must list exception classes; {item!r} is none.")
    return tuple(value)


def _num_gpus(value: object, what: str) -> float:
    number = amount(value, what)
    if number > 1 and not number.is_integer():
        raise ValueError(f"{what} must be a part of one GPU, or a whole number of them, not {number}.")
    return number


def _num_returns(value: object, what: str) -> int | str:
    if isinstance(value, str):
        if value not in ("streaming", "dynamic"):
            raise ValueError(f"{what} must be a whole number, 'streaming' or 'dynamic', not {value!r}.")
        return value
    return count(value, what)


def _ahead(value: object, what: str) -> int:
    """How far a generator may be ahead of those who take what it yields; -1 for any number."""
    number = tries(value, what)
    if number == 0:
        raise ValueError(f"{what} must be 1 or more, or -1 for no limit, not 0: a generator could never go on.")
    return number


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}.")
    if not value:
        raise ValueError(f"{what} is empty.")
    return value


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be True or False, not {type(value).__name__}.")
    return value


def _lifetime(value: object, what: str) -> str:
    if value not in ("detached", "non_detached"):
        raise ValueError(f"{what} must be 'detached', 'non_detached' or None, not {value!r}.")
    return str(value)


def _at_least_one(value: object, what: str) -> int:
    number = count(value, what)
    if not number:
        raise ValueError(f"{what} must be at least 1, not 0.")
    return number


def _max_pending_calls(value: object, what: str) -> int:
    number = tries(value, what)
    if not number:
        raise ValueError(f"{what} must be at least 1, or -1 for no limit, not 0.")
    return number


def _scheduling_strategy(value: object, what: str) -> object:
    if isinstance(value, NodeAffinitySchedulingStrategy) or value in ("DEFAULT", "SPREAD"):
        return value
    shown = repr(value) if isinstance(value, str) else type(value).__name__
    raise ValueError(f"{what} must be 'DEFAULT', 'SPREAD' or a NodeAffinitySchedulingStrategy, not {shown}.")


# Tables.


@dataclass(frozen=True, slots=True)
class Option:
    """What a value must be, and what holds if it is not said."""

    check: Check
    default: Any = None


_PLACING: dict[str, Option] = {
    "num_cpus": Option(amount),
    "num_gpus": Option(_num_gpus),
    "memory": Option(amount),
    "resources": Option(_own_amounts),
    "runtime_env": Option(_runtime_env.checked),
    "scheduling_strategy": Option(_scheduling_strategy),
}

TASK: Mapping[str, Option] = MappingProxyType(
    {
        **_PLACING,
        "num_returns": Option(_num_returns, 1),
        "_generator_backpressure_num_objects": Option(_ahead, -1),
        "name": Option(_text),
        "max_calls": Option(count, 0),
        "max_retries": Option(tries, MAX_RETRIES),
        "retry_exceptions": Option(retry_exceptions, False),
    }
)
"""Options of remote functions."""

ACTOR: Mapping[str, Option] = MappingProxyType(
    {
        **_PLACING,
        "name": Option(_text),
        "namespace": Option(_text),
        "get_if_exists": Option(_flag, False),
        "lifetime": Option(_lifetime),
        "max_restarts": Option(tries, 0),
        "max_task_retries": Option(tries, 0),
        "max_concurrency": Option(_at_least_one),
        "max_pending_calls": Option(_max_pending_calls, -1),
    }
)
"""Options of remote classes."""

METHOD: Mapping[str, Option] = MappingProxyType(
    {
        "num_returns": Option(_num_returns, 1),
        "_generator_backpressure_num_objects": Option(_ahead, -1),
        "name": Option(_text),
        "max_task_retries": Option(tries),
        "retry_exceptions": Option(retry_exceptions, False),
    }
)
"""Options of methods."""


def unknown(what: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for an option that there is not."""
    names = list(known)
    close = get_close_matches(str(name), names, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ValueError(f"{what} has the unknown option {name!r}.{hint} Valid options: {', '.join(names)}.")


def checked(given: Mapping[str, Any], table: Mapping[str, Option], what: str) -> Checked:
    """The options that were said.

    Args:
        given: The options. None stands for what was not said.
        table: Those that there are.
        what: Whose they are, in messages.

    Raises:
        TypeError: A value is not of its type.
        ValueError: An option is unknown, or cannot have this value.
    """
    found: Checked = {}
    ignored = []
    for name, value in given.items():
        if name in table:
            if value is not None:
                found[name] = table[name].check(value, f"{name} of {what}")
        elif name not in (_OF_METHODS if table is METHOD else WITHOUT_EFFECT):
            raise unknown(what[:1].upper() + what[1:], name, table)
        elif value is not None:
            ignored.append(name)
    if ignored:
        warnings.warn(
            f"These options of {what} have no effect in eagleray: {', '.join(sorted(ignored))}.",
            stacklevel=4,
        )
    return found


def of(options: Checked, table: Mapping[str, Option], name: str) -> Any:
    """An option, or what holds if nobody said it."""
    return options.get(name, table[name].default)


def demand(options: Checked, cpus: float = 1.0) -> dict[str, float]:
    """What of each resource something takes: at least how many CPUs."""
    taken: dict[str, float] = {"CPU": cpus, **options.get("resources", {})}
    for option, name in RESOURCES.items():
        if option in options:
            taken[name] = options[option]
    return {name: number for name, number in taken.items() if number or name == "CPU"}


def reachable(options: Checked, what: str) -> None:
    """Whether the node that a task is to run on is there.

    Raises:
        ValueError: It is not.
    """
    strategy = options.get("scheduling_strategy")
    here = _identity.current
    if not isinstance(strategy, NodeAffinitySchedulingStrategy) or here is None:
        return
    if strategy.node_id != here.node and not strategy.soft:
        raise ValueError(
            f"There is no node {strategy.node_id!r} for {what}. The node of this session is {here.node!r}."
        )
