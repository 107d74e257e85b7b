"""The short form of the soak; the whole is `make soak`."""

import os

import pytest

from tests.soak import soak


@pytest.mark.timeout(600)
def test_mixed_graphs_while_workers_are_killed(fresh: None, recwarn: pytest.WarningsRecorder) -> None:
    soak(int(os.environ.get("EAGLERAY_SOAK", "120")), seed=7)
