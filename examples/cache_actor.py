"""A cache of slow results, kept by an actor and asked by a callback.

``_ray_presubmit`` runs in the driver and asks the actor before a task is submitted; what the actor has is not computed.
``_ray_pretask`` and ``_ray_posttask`` run in the workers, time each task there, and send the slow results to the actor.
The actor is one process that everybody reaches by its handle, so the cache is the same for all, and for later computes.
"""

# ruff: noqa: ARG002  (hooks take what hooks are given)

from __future__ import annotations

from collections.abc import Hashable, Mapping
from time import perf_counter, sleep
from typing import Any

import dask

import eagleray
from eagleray.dask import RayDaskCallback, ray_dask_get


@eagleray.remote
class SimpleCacheActor:
    """Results by key."""

    def __init__(self) -> None:
        self.cache: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        """Raises KeyError for a key that was never put."""
        return self.cache[key]

    def put(self, key: str, value: Any) -> None:
        self.cache[key] = value

    def keys(self) -> list[str]:
        return sorted(self.cache)


class SimpleCacheCallback(RayDaskCallback):
    """Answers for tasks whose results the actor has; gives it those that took longer than `put_threshold` seconds."""

    def __init__(self, cache_actor: Any, put_threshold: float = 10.0) -> None:
        self.cache_actor = cache_actor
        self.put_threshold = put_threshold

    def _ray_presubmit(self, task: Any, key: Hashable, deps: Mapping[Hashable, Any]) -> Any:
        try:
            return eagleray.get(self.cache_actor.get.remote(str(key)))
        except KeyError:  # the actor's own exception arrives as itself
            return None

    def _ray_pretask(self, key: Hashable, object_refs: tuple[Any, ...]) -> float:
        return perf_counter()

    def _ray_posttask(self, key: Hashable, result: Any, pre_state: float) -> None:
        if perf_counter() - pre_state > self.put_threshold:
            self.cache_actor.put.remote(str(key), result)


class Submitted(RayDaskCallback):
    """The keys that were computed, not answered."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def _ray_postsubmit(self, task: Any, key: Hashable, deps: Mapping[Hashable, Any], object_ref: Any) -> None:
        self.keys.append(str(key))


def load(part: int) -> list[int]:
    sleep(0.3)  # slow: its result is worth keeping
    return list(range(part * 100, (part + 1) * 100))


def largest(numbers: list[int]) -> int:
    return max(numbers)  # fast: computed again each time


def main() -> None:
    parts = [dask.delayed(load)(part, dask_key_name=f"load-{part}") for part in range(4)]
    tops = [dask.delayed(largest)(part, dask_key_name=f"largest-{i}") for i, part in enumerate(parts)]
    total = dask.delayed(sum)(tops, dask_key_name="total")

    cache_actor = SimpleCacheActor.remote()
    for turn in ("first", "second"):
        begin = perf_counter()
        with SimpleCacheCallback(cache_actor, put_threshold=0.2), Submitted() as submitted:
            assert total.compute(scheduler=ray_dask_get) == 99 + 199 + 299 + 399
        print(f"{turn} compute: {perf_counter() - begin:.2f} s, ran {', '.join(sorted(submitted.keys))}")
        assert eagleray.get(cache_actor.keys.remote()) == [f"load-{part}" for part in range(4)]
    # What was slow was answered by the actor; only what was fast ran again.
    assert not any(key.startswith("load-") for key in submitted.keys)
    assert "total" in submitted.keys


if __name__ == "__main__":
    main()
