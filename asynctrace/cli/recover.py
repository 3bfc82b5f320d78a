"""``asynctrace recover``: what killed processes left in their journals."""

from __future__ import annotations

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import to_json
from asynctrace.cli.exits import Exit


def recover(
    to: options.To = None,
    state_dir: options.StateDir = None,
    timeout: options.Timeout = 60.0,
    as_json: options.Json = False,
) -> None:
    """Deliver what killed processes left in their journals, to the configured sinks or to one store.

    The exit code is 5 when records are still waiting after it, or when some could not be read.
    """
    import asyncio

    from asynctrace.cli import screen  # here, for --help does without rich

    report = asyncio.run(asynctrace.arecover(to, state_dir=state_dir, timeout=timeout))
    lanes = report.stats.lanes
    counts = {
        "journals": report.journals,
        "records": report.records,
        "damaged": report.damaged,
        "failed": report.failed,
        "elsewhere": report.elsewhere,
        "delivered": sum(lane.delivered for lane in lanes),
        "waiting": sum(lane.spooled for lane in lanes),
    }
    if as_json:
        screen.write(to_json(counts))
    elif not (report.journals or report.failed):
        screen.write("no journal of a killed process waits for these sinks\n")
    else:
        screen.write(
            "{journals:,} journals, {records:,} records in them, {damaged:,} damaged; "
            "{delivered:,} delivered, {waiting:,} waiting; {failed:,} journals failed\n".format(**counts)
        )
    if report.elsewhere and not as_json:
        screen.write(
            f"journals that wait for other sinks: {report.elsewhere:,}; "
            "name those in ASYNCTRACE_SINKS, or one store for all by --to\n"
        )
    if counts["waiting"] or counts["damaged"] or counts["failed"]:
        raise SystemExit(Exit.LOSS)
