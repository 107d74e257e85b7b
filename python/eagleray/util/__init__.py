"""What is made of remote functions and actors: a pool of actors, a queue; and custom serializers."""

from __future__ import annotations

from eagleray.util.actor_pool import ActorPool
from eagleray.util.completion import as_completed, map_unordered
from eagleray.util.serialization import deregister_serializer, inspect_serializability, register_serializer

__all__ = [
    "ActorPool",
    "as_completed",
    "deregister_serializer",
    "inspect_serializability",
    "map_unordered",
    "register_serializer",
]
