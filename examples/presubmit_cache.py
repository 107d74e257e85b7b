"""A cache of results: what one compute has made, the next does not run again.

``_ray_postsubmit`` keeps the ref of each task that was submitted; ``_ray_presubmit`` answers with it when the same key comes
again. The values themselves stay in the object store: the driver never sees them.
"""

# ruff: noqa: ARG002  (hooks take what hooks are given)

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from typing import Any

import dask

from eagleray import ObjectRef
from eagleray.dask import RayDaskCallback, ray_dask_get


class Cache(RayDaskCallback):
    """Keeps the results of the tasks whose keys begin with one of `prefixes`."""

    def __init__(self, *prefixes: str) -> None:
        self.prefixes = prefixes
        self.refs: dict[Hashable, ObjectRef] = {}
        self.hits = 0

    def _ray_presubmit(self, task: Any, key: Hashable, deps: Mapping[Hashable, Any]) -> ObjectRef | None:
        ref = self.refs.get(key)
        self.hits += ref is not None
        return ref

    def _ray_postsubmit(self, task: Any, key: Hashable, deps: Mapping[Hashable, Any], object_ref: ObjectRef) -> None:
        if str(key).startswith(self.prefixes):
            self.refs[key] = object_ref


def load(part: int) -> list[int]:
    time.sleep(0.1)  # something slow
    return list(range(part * 1000, (part + 1) * 1000))


def main() -> None:
    parts = [dask.delayed(load)(part, dask_key_name=f"load-{part}") for part in range(8)]
    total = dask.delayed(sum)([dask.delayed(sum)(part) for part in parts])
    longest = dask.delayed(max)([dask.delayed(len)(part) for part in parts])

    with Cache("load-") as cache:
        begin = time.perf_counter()
        assert total.compute(scheduler=ray_dask_get) == sum(range(8000))
        first = time.perf_counter() - begin
        assert cache.hits == 0

        begin = time.perf_counter()
        assert longest.compute(scheduler=ray_dask_get) == 1000  # another graph over the same parts
        second = time.perf_counter() - begin
        assert cache.hits == 8

    print(f"first compute {first:.2f} s, second, with {cache.hits} parts from the cache, {second:.2f} s")


if __name__ == "__main__":
    main()
