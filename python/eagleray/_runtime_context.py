"""Where code runs: session, node, worker, task, actor."""

from __future__ import annotations

import os
from typing import Any

from eagleray import _engine, _identity, _running
from eagleray._engine import native
from eagleray._handles import ActorHandle
from eagleray._identity import Id

_MOST_BEGUN = 100_000
"""So many tasks that workers have are looked through for one."""


class RuntimeContext:
    """What can be known of where code runs. `get_runtime_context` gives it."""

    def __init__(self, identity: _identity.Identity) -> None:
        self._identity = identity

    def get_node_id(self) -> str:
        """The id of the node, as hexadecimal digits."""
        return self._identity.node

    @property
    def node_id(self) -> Id:
        """The id of the node."""
        return Id(self._identity.node)

    def get_job_id(self) -> str:
        """The id of the user's program, as hexadecimal digits: in all processes of a session the same."""
        return self._identity.program

    @property
    def job_id(self) -> Id:
        """The id of the user's program."""
        return Id(self._identity.program)

    def get_worker_id(self) -> str:
        """The id of this process, as hexadecimal digits."""
        return self._identity.process

    def get_task_id(self) -> str | None:
        """The id of the task that runs here, as hexadecimal digits; None in the driver. It is that of the task's ref."""
        task = _running.task()
        return None if task is None else _running.hexadecimal(task)

    @property
    def task_id(self) -> Id | None:
        """The id of the task that runs here."""
        digits = self.get_task_id()
        return None if digits is None else Id(digits)

    def get_task_name(self) -> str | None:
        """What the task that runs here is called, as in `eagleray.util.state`: by the option `name` or its function, by class
        and method, or, of a Dask graph, by the prefix of its key. None in the driver. This asks the session each time.
        """
        digits = self.get_task_id()
        if digits is None:
            return None
        seen = native.state(tasks=_MOST_BEGUN, phases=["assigned", "running", "blocked"])
        return next((task["name"] for task in seen["tasks"] if task["id"] == digits), None)

    def get_actor_id(self) -> str | None:
        """The id of the actor that this is, as hexadecimal digits; None if it is none."""
        return None if _running.actor is None else _running.hexadecimal(_running.actor.task)

    @property
    def actor_id(self) -> Id | None:
        """The id of the actor that this is."""
        digits = self.get_actor_id()
        return None if digits is None else Id(digits)

    def get_actor_name(self) -> str | None:
        """The name of the actor that this is, empty if it has none; None if it is none."""
        return None if _running.actor is None else _running.actor.name or ""

    @property
    def namespace(self) -> str:
        """Where named actors are looked for."""
        return self._identity.namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor that this is was made anew, because the process died in which it was before."""
        here = _running.actor
        if here is None:
            return False
        own = _running.hexadecimal(here.task)
        return any(actor["id"] == own and actor["restarts"] > 0 for actor in native.state()["actors"])

    @property
    def current_actor(self) -> ActorHandle:
        """A handle to the actor that this is. An actor that keeps one does not end by itself.

        Raises:
            RuntimeError: It is none.
        """
        here = _running.actor
        if here is None:
            raise RuntimeError("current_actor is the actor whose method asks for it, but this is no actor.")
        return ActorHandle(native._rebuild_ref(self._identity.session, *here.task), here.meta)

    def get_assigned_resources(self) -> dict[str, float]:
        """What the task or actor that runs here occupies, by name. Nothing in the driver."""
        return _running.resources()

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The accelerators that code here may use: of "GPU", what CUDA_VISIBLE_DEVICES lists."""
        return {"GPU": [str(gpu) for gpu in get_gpu_ids()]}


def get_runtime_context() -> RuntimeContext:
    """What can be known of where the calling code runs. Starts a session if there is none."""
    return RuntimeContext(_engine.session())


def get_gpu_ids() -> list[int] | list[str]:
    """The GPUs that code here may use, as CUDA_VISIBLE_DEVICES lists them: of a task, those it was given.

    Numbers, or names if they are not all numbers.
    """
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return [int(name) for name in names] if all(name.isdecimal() for name in names) else names


def nodes() -> list[dict[str, Any]]:
    """The nodes of the session: one, this machine. Of each its id, names, and what it offers."""
    session = _engine.session()
    host = os.uname().nodename
    return [
        {
            "NodeID": session.node,
            "Alive": True,
            "alive": True,
            "NodeManagerAddress": _identity.NODE_ADDRESS,
            "NodeManagerHostname": host,
            "NodeName": host,
            "Resources": cluster_resources(),
            "Labels": {},
        }
    ]


def cluster_resources() -> dict[str, float]:
    """What the nodes offer, by name: CPU, memory in bytes, and what else there is, such as GPU or what `init` was told."""
    _engine.session()
    return {name: amount for name, amount in native.resources()[0].items() if amount}


def available_resources() -> dict[str, float]:
    """What of `cluster_resources` nothing occupies. Of what is all occupied it says 0, where Ray leaves it out."""
    _engine.session()
    offered, free = native.resources()
    return {name: amount for name, amount in free.items() if offered[name]}


def get_node_ip_address() -> str:
    """The address of this node."""
    return _identity.NODE_ADDRESS
