"""Which of the interpreters that tests start are measured by coverage.

Commands are; programs that fork, are killed or are interrupted are not: coverage takes locks of its own while it
traces. A fork beside threads may leave one locked in the child for ever, and so may an exception that a signal's
handler raises inside it; its answer to SIGTERM is one of its own, too.
"""

import os

_withheld: dict[str, str] = {}


def withhold() -> None:
    """From here on, interpreters are measured only if they are given what `measured` returns."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
        _withheld[name] = os.environ.pop(name)


def measured() -> dict[str, str]:
    """What an interpreter must find in its environment to be measured; empty when nothing is."""
    return dict(_withheld)
