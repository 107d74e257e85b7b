"""The clusters that Ray's own tests of Dask-on-Ray begin with."""

from collections.abc import Iterator

import pytest

import eagleray
from eagleray.dask import enable_dask_on_ray


@pytest.fixture
def one_cpu(fresh: None) -> None:
    """One CPU and 150 MiB for objects: what Ray's tests of the scheduler run on."""
    eagleray.init(num_cpus=1, object_store_memory=150 << 20)


@pytest.fixture
def two_cpus(fresh: None) -> None:
    eagleray.init(num_cpus=2)


@pytest.fixture
def enabled() -> Iterator[None]:
    with enable_dask_on_ray():
        yield
