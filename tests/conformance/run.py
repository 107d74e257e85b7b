"""Runs Dask's own test suite, as its wheel brings it, with every computation sent through `ray_dask_get`.

    python tests/conformance/run.py                          # everything
    python tests/conformance/run.py dask/bag dask/array/tests/test_fft.py::test_fft
    python tests/conformance/run.py --scheduler=processes    # the same on a pool of dask.multiprocessing, to compare

Further arguments are pytest's. The working directory is a temporary one: some tests write where they are.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import dask
import pytest

HERE = Path(__file__).parent
SITE = Path(dask.__file__).parent.parent

EVERYTHING = ("dask/bag", "dask/tests", "dask/diagnostics", "dask/bytes", "dask/array", "dask/dataframe")


def main(arguments: list[str]) -> int:
    places = [argument for argument in arguments if argument.startswith("dask/")]
    options = [os.path.abspath(a) if os.path.exists(a) else a for a in arguments if a not in places]
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        os.chdir(directory)
        return pytest.main(
            ["-c", str(HERE / "pytest.ini"), f"--rootdir={SITE}", "-p", "dask_suite", *options]
            + [str(SITE / place) for place in places or EVERYTHING]
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
