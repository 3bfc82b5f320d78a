"""``asynctrace spool``: what waits on disk for a sink that was away."""

from __future__ import annotations

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import to_json
from asynctrace.cli.exits import Exit
from asynctrace.cli.words import count
from asynctrace.errors import ConfigurationError


def spool(
    action: options.SpoolAction = "ls",
    lane: options.Lane = None,
    timeout: options.Timeout = 60.0,
    as_json: options.Json = False,
) -> None:
    """List, deliver or delete the records that wait on disk, because their sink was away.

    The exit code of a replay is 5 when records are still waiting after it.
    """
    if action == "ls":
        _list(lane, as_json)
    elif action == "purge":
        _say({"purged": asynctrace.purge_spools(lane)}, as_json)
    elif action == "replay":
        if lane is not None:
            raise ConfigurationError("LANE", lane, "nothing: what is configured decides where records go")
        _replay(timeout, as_json)
    else:
        raise ConfigurationError("ACTION", action, "ls, replay, purge")


def _list(lane: str | None, as_json: bool) -> None:
    from asynctrace.cli import screen  # here, for --help does without rich

    found = [page for page in asynctrace.spools() if lane in (None, page.lane)]
    if as_json:
        names = ("lane", "records", "size", "in_use", "damaged")
        screen.write(to_json([{name: getattr(page, name) for name in names} for page in found]))
        return
    if not found:
        screen.write("nothing waits on disk\n")
        return
    rows = [
        (page.lane, f"{page.records:,}", f"{page.size:,}", f"{page.in_use:,}", f"{page.damaged:,}")
        for page in found
    ]
    headers = ["LANE", "RECORDS", "BYTES", "IN USE", "DAMAGED"]
    screen.Screen(pager=False).show(screen.table(headers, rows, right=headers[1:]))


def _replay(timeout: float, as_json: bool) -> None:
    import asyncio

    stats = asyncio.run(asynctrace.areplay_spools(timeout))
    taken = sum(lane.adopted + lane.replayed for lane in stats.lanes)
    waiting = sum(lane.spooled for lane in stats.lanes)
    delivered = sum(lane.delivered for lane in stats.lanes)
    dead = sum(lane.dead for lane in stats.lanes)
    _say({"taken": taken, "delivered": delivered, "dead": dead, "waiting": waiting}, as_json)
    if waiting:
        raise SystemExit(Exit.LOSS)


def _say(counts: dict[str, int], as_json: bool) -> None:
    from asynctrace.cli import screen

    text = ", ".join(f"{count(number, 'record')} {what}" for what, number in counts.items())
    screen.write(to_json(counts) if as_json else f"{text}\n")
