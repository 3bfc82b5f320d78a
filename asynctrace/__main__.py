"""``python -m asynctrace``: the command."""

from __future__ import annotations

import sys

from asynctrace.cli import main

if __name__ == "__main__":
    sys.exit(main())
