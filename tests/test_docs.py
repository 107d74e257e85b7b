"""The code in the documentation runs.

The Python blocks of a page are run one after the other, as one program. A block of the language `python raises=X` must raise
`X`. Blocks in other languages are not run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^```python(?: raises=(?P<error>[\w.]+))?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def program(page: str, name: str) -> str:
    """The blocks of a page as a program, with the line numbers of the page in tracebacks."""
    parts = []
    for block in BLOCK.finditer(page):
        line = page.count("\n", 0, block.start("code"))
        code = f"exec(compile({chr(10) * line + block['code']!r}, {name!r}, 'exec'), globals())"
        if block["error"]:
            parts.append(
                f"try:\n    {code}\n"
                f"except {block['error']} as error:\n    print(type(error).__name__, error, *getattr(error, '__notes__', []))\n"
                f"else:\n    raise AssertionError('line {line + 1} of {name} raises nothing')\n"
            )
        else:
            parts.append(code + "\n")
    return "".join(parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_code_of_a_page(page: Path, tmp_path: Path) -> None:
    code = program(page.read_text(), page.name)
    assert code, f"{page.name} has no code"
    path = os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link
