"""Answer a task before it is submitted: by constructor and by subclass.

What ``ray_presubmit`` returns, if it is not None, takes the place of the task's result: the task is not run.
Falsy values such as 0 count as results too.
"""

# ruff: noqa: ARG001, ARG002  (hooks take what hooks are given)

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import dask

from eagleray.dask import RayDaskCallback, ray_dask_get

KNOWN: dict[Hashable, int] = {"dear": 41}


def answer(task: Any, key: Hashable, deps: Mapping[Hashable, Any]) -> int | None:
    """The known result of `key`, or None to have it computed."""
    return KNOWN.get(key)


class Answer(RayDaskCallback):
    """The same as a class, with a memory of what it answered."""

    def __init__(self, known: dict[Hashable, int]) -> None:
        self.known = known
        self.answered: list[Hashable] = []

    def _ray_presubmit(self, task: Any, key: Hashable, deps: Mapping[Hashable, Any]) -> int | None:
        value = self.known.get(key)
        if value is not None:
            self.answered.append(key)
        return value


def dear() -> int:
    raise RuntimeError("this task was to be answered before it is submitted")


def increment(x: int) -> int:
    return x + 1


def main() -> None:
    result = dask.delayed(increment)(dask.delayed(dear)(dask_key_name="dear"), dask_key_name="result")

    with RayDaskCallback(ray_presubmit=answer):
        assert result.compute(scheduler=ray_dask_get) == 42

    callback = Answer({"dear": 0})
    with callback:
        assert result.compute(scheduler=ray_dask_get) == 1
    assert callback.answered == ["dear"]

    # Without a callback the task does run.
    try:
        result.compute(scheduler=ray_dask_get)
    except RuntimeError as error:
        print(f"without presubmit: {str(error).splitlines()[0]}")
    else:
        raise AssertionError("the task was not run")
    print("with presubmit: 42 by constructor, 1 by subclass")


if __name__ == "__main__":
    main()
