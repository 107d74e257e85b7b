"""Runs Ray's own tests of Dask-on-Ray on eagleray: everything that is called `ray` there is eagleray.

    python tests/ray_compat/run_upstream.py DIRECTORY [pytest's arguments]

DIRECTORY is a checkout of Ray's repository, or a directory that has its `test_dask_*.py` files (in a checkout:
`python/ray/util/dask/tests`). They are Ray's and not kept here:

    git clone --depth 1 --filter=blob:none --sparse https://github.com/ray-project/ray
    git -C ray sparse-checkout set python/ray/util/dask/tests

Left out are `test_dask_multi_node.py`, and `test_spread_scheduling` of older versions, which need several nodes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
IN_A_CHECKOUT = Path("python/ray/util/dask/tests")
SEVERAL_NODES = "test_dask_multi_node.py"


def tests_of(directory: Path) -> list[Path]:
    """The test files; raises SystemExit if there are none."""
    place = directory / IN_A_CHECKOUT if (directory / IN_A_CHECKOUT).is_dir() else directory
    found = [path for path in sorted(place.glob("test_dask_*.py")) if path.name != SEVERAL_NODES]
    if not found:
        raise SystemExit(f"{directory} has no test_dask_*.py, neither itself nor in {IN_A_CHECKOUT}.")
    return found


def main(arguments: list[str]) -> int:
    if not arguments:
        raise SystemExit(__doc__)
    files = tests_of(Path(arguments[0]).resolve())
    with tempfile.TemporaryDirectory(prefix="upstream-") as name:
        # Beside copies of the tests, so that their checkout, which has a package `ray`, is not in the path.
        directory = Path(name)
        for file in files:
            shutil.copy(file, directory)
        (directory / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -ra\n")
        path = [str(HERE / "shim"), str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
        sys.path[:0] = path[:2]
        os.environ["PYTHONPATH"] = os.pathsep.join(path)
        os.chdir(directory)
        options = ["-c", str(directory / "pytest.ini"), f"--rootdir={directory}", "-k", "not spread_scheduling"]
        return pytest.main([*options, *arguments[1:], *(file.name for file in files)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
