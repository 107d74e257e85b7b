"""What of a failed compute's traceback the user sees."""

import os
import traceback

import dask
import pytest

import eagleray
from eagleray.dask import ray_dask_get, ray_dask_get_sync
from eagleray.dask.tracebacks import leave_out_ours


def inner() -> float:
    return 1 / 0


def outer() -> float:
    return inner() + 1


def ours(scheduler: object) -> list[str]:
    """The functions of this package in the traceback of a task's error, but for the innermost frame: that stays always."""
    with pytest.raises(ZeroDivisionError) as caught:
        dask.compute(dask.delayed(outer)(), scheduler=scheduler)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame.name for frame in frames][:2] == ["ours", "compute"]
    package = os.path.dirname(eagleray.__file__)
    return [frame.name for frame in frames[:-1] if frame.filename.startswith(package)]


@pytest.mark.parametrize("scheduler", [ray_dask_get, ray_dask_get_sync])
def test_a_traceback_has_no_frames_of_ours(shared: None, scheduler: object) -> None:
    assert ours(scheduler) == []


def test_a_list_of_the_users_stays_as_it_is(shared: None) -> None:
    with dask.config.set({"admin.traceback.shorten": []}):
        assert "ray_dask_get" in ours(ray_dask_get)
        leave_out_ours()
        assert dask.config.get("admin.traceback.shorten") == []
