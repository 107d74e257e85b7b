"""Two callbacks at once: their hooks are called in the order in which the callbacks were entered.

Both are driver-side: ``_ray_presubmit`` sees a task before it goes to a worker, ``_ray_postsubmit`` after,
``_ray_finish`` the values at the end.
"""

# ruff: noqa: ARG002  (hooks take what hooks are given)

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import dask

from eagleray.dask import RayDaskCallback, ray_dask_get

Event = tuple[str, str, str]


class Recorder(RayDaskCallback):
    """Notes what it is told, under its name, in a list shared with others."""

    def __init__(self, name: str, events: list[Event]) -> None:
        self.name = name
        self.events = events

    def _ray_presubmit(self, task: Any, key: Hashable, deps: Mapping[Hashable, Any]) -> None:
        self.events.append((self.name, "presubmit", str(key)))

    def _ray_postsubmit(self, task: Any, key: Hashable, deps: Mapping[Hashable, Any], object_ref: Any) -> None:
        self.events.append((self.name, "postsubmit", str(key)))

    def _ray_finish(self, result: Any) -> None:
        self.events.append((self.name, "finish", ""))


def increment(x: int) -> int:
    return x + 1


def main() -> None:
    one = dask.delayed(increment)(0, dask_key_name="one")
    two = dask.delayed(increment)(one, dask_key_name="two")

    events: list[Event] = []
    with Recorder("outer", events), Recorder("inner", events):
        assert two.compute(scheduler=ray_dask_get) == 2

    for name, hook, key in events:
        print(f"{name:<6} {hook:<11} {key}")

    for hook, key in (("presubmit", "one"), ("postsubmit", "one"), ("presubmit", "two"), ("postsubmit", "two")):
        assert [name for name, h, k in events if (h, k) == (hook, key)] == ["outer", "inner"]
    assert [name for name, hook, _ in events if hook == "finish"] == ["outer", "inner"]

    # Outside the block nobody listens.
    seen = len(events)
    assert two.compute(scheduler=ray_dask_get) == 2
    assert len(events) == seen


if __name__ == "__main__":
    main()
