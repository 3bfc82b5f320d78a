"""P20: CPU time of a fresh interpreter that imports, its own start included."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from benchmarks.figures import Figure, Group
from benchmarks.harness import Job, Values

_IMPORTS = {
    "nothing": "",
    "asyncio": "import asyncio",
    "asynctrace": "import asynctrace",
    "Trace": "from asynctrace import Trace",
}


def imports(times: int) -> Values:
    """Milliseconds of CPU of each import, the median of so many interpreters taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    for _ in range(times):
        for name, statement in _IMPORTS.items():
            code = f"{statement}\nimport time\nprint(time.process_time_ns())"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            taken[name].append(int(done.stdout) / 1e6)
    return {f"import {name}": median(found) for name, found in taken.items()}


GROUPS = (
    Group(
        figures=(
            Figure(
                "P20",
                "import asynctrace ÷ import asyncio",
                "import asynctrace",
                "import asyncio",
                1.6,
                "most",
            ),
            Figure("P20", "from asynctrace import Trace ÷ import asyncio", "import Trace", "import asyncio"),
        ),
        jobs=(Job("imports:imports", {"times": 7}, {"times": 5}),),
        unit="ms of CPU",
    ),
)
