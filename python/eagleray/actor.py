"""Remote classes and handles, under Ray's names."""

from __future__ import annotations

from eagleray._actor_process import exit_actor
from eagleray._actors import ActorClass
from eagleray._handles import ActorHandle, ActorMethod

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor"]
