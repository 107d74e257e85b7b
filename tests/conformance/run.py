"""Runs Dask's own test suite, as its wheel brings it, with every computation sent through `ray_dask_get`.

    python tests/conformance/run.py                          # everything
    python tests/conformance/run.py dask/bag dask/array/tests/test_fft.py::test_fft
    python tests/conformance/run.py --share                  # what `make test` runs: much of it, in ten minutes
    python tests/conformance/run.py --scheduler=processes    # the same on a pool of dask.multiprocessing, to compare

Further arguments are pytest's: `-n 2` runs two modules at a time. The working directory is a temporary one, because some
tests write where they are.
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

SHARE = (
    "dask/bag",
    "dask/tests",
    "dask/diagnostics",
    "dask/array/tests/test_array_core.py",
    "dask/array/tests/test_linalg.py",
    "dask/array/tests/test_overlap.py",
    "dask/array/tests/test_reductions.py",
    "dask/array/tests/test_slicing.py",
    "dask/dataframe/dask_expr/tests/test_groupby.py",
    "dask/dataframe/dask_expr/tests/test_merge.py",
    "dask/dataframe/dask_expr/tests/test_shuffle.py",
    "dask/dataframe/io/tests/test_csv.py",
    "dask/dataframe/tests/test_multi.py",
)


def main(arguments: list[str]) -> int:
    share = "--share" in arguments
    places = [argument for argument in arguments if argument.startswith("dask/")] or (SHARE if share else EVERYTHING)
    options = [argument for argument in arguments if argument not in (*places, "--share")]
    if any(option.startswith("-n") for option in options):
        # Module by module, so that the tests of one run in their order and in one process.
        options.append("--dist=loadfile")
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        os.chdir(directory)
        return pytest.main(
            ["-c", str(HERE / "pytest.ini"), f"--rootdir={SITE}", "-p", "dask_suite", *options]
            + [str(SITE / place) for place in places]
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
