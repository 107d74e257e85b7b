"""What is made of remote functions and actors: a pool of actors, a queue; custom serializers; the names of actors.

`state` lists what there is."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from eagleray._actors import list_named_actors
from eagleray._runtime_context import get_node_ip_address
from eagleray.util.actor_pool import ActorPool
from eagleray.util.completion import as_completed, map_unordered
from eagleray.util.serialization import deregister_serializer, inspect_serializability, register_serializer

if TYPE_CHECKING:
    from eagleray.util import state

__all__ = [
    "ActorPool",
    "as_completed",
    "deregister_serializer",
    "get_node_ip_address",
    "inspect_serializability",
    "list_named_actors",
    "map_unordered",
    "register_serializer",
    "state",
]


def __getattr__(name: str) -> Any:
    # Few programs need it, so it is imported by those.
    if name == "state":
        return importlib.import_module("eagleray.util.state")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
