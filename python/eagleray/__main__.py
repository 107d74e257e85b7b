"""`python -m eagleray`: the command line."""

from __future__ import annotations

import sys

from eagleray._cli import main

if __name__ == "__main__":
    sys.exit(main())
