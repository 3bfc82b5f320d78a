"""The application: which commands there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asynctrace.cli.dead import dead
from asynctrace.cli.demo import demo
from asynctrace.cli.options import make_app, run_app
from asynctrace.cli.prune import prune
from asynctrace.cli.recover import recover
from asynctrace.cli.runs import runs
from asynctrace.cli.show import show
from asynctrace.cli.spool import spool
from asynctrace.cli.stats import stats
from asynctrace.cli.tail import tail
from asynctrace.cli.verify import verify

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "runs": runs,
    "show": show,
    "tail": tail,
    "stats": stats,
    "verify": verify,
    "prune": prune,
    "spool": spool,
    "dead": dead,
    "recover": recover,
}


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    return run_app(make_app(COMMANDS), arguments)
