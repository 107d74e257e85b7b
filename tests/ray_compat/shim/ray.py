"""eagleray under Ray's names, as far as Ray's tests of Dask-on-Ray use them. Only `run_upstream.py` has this in its path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import eagleray
from eagleray import actor, dask, exceptions
from eagleray import util as our_util


@pytest.fixture
def ray_start_regular_shared() -> Iterator[Any]:
    """Of Ray's own conftest: a cluster of one CPU."""
    yield eagleray.init(num_cpus=1, object_store_memory=150 << 20)
    eagleray.shutdown()


@pytest.fixture
def ray_start_cluster() -> None:
    """Of Ray's own conftest: a cluster to which a test adds nodes."""
    pytest.skip("needs several nodes")


class ClientObjectRef:
    """Of Ray Client, which does not exist here: nothing is an instance."""


def _module(name: str, **contents: Any) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    module.__dict__.update(contents)
    return module


def __getattr__(name: str) -> Any:
    return getattr(eagleray, name)


__all__ = ["actor", "exceptions"]

tests = _module(
    "ray.tests",
    conftest=_module(
        "ray.tests.conftest",
        ray_start_regular_shared=ray_start_regular_shared,
        ray_start_cluster=ray_start_cluster,
    ),
)
client = _module("ray.util.client", common=_module("ray.util.client.common", ClientObjectRef=ClientObjectRef))
util = _module("ray.util", **{name: getattr(our_util, name) for name in dir(our_util) if name[0] != "_"})
util.__dict__.update(client=client, dask=dask)

# The same module objects under both names: what a test patches in the one is patched in the other.
for ours, theirs in (
    ("eagleray.dask", "ray.util.dask"),
    ("eagleray.util.", "ray.util."),
    ("eagleray.actor", "ray.actor"),
    ("eagleray.exceptions", "ray.exceptions"),
):
    sys.modules.update(
        {theirs + name[len(ours) :]: module for name, module in [*sys.modules.items()] if name.startswith(ours)}
    )
