"""``asynctrace tail``: the newest records of all runs, and those to come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import record_document, to_json
from asynctrace.cli.problems import problems_of, tell

if TYPE_CHECKING:
    from asynctrace import Record


def tail(
    run: options.PerhapsRun = None,
    store: options.Store = None,
    follow: options.Follow = False,
    lines: options.LastRecords = 10,
    level: options.Level = None,
    structure: options.Structure = False,
    stacks: options.Stacks = False,
    as_json: options.Json = False,
) -> None:
    """Print the newest records, one a line, in the order of time; with -f also those to come.

    --json prints JSON lines.
    """
    import asyncio

    from asynctrace.cli.screen import Screen, write

    lowest = 0 if level is None else int(asynctrace.Level.parse(level))
    out = Screen()

    def show(records: list[Record]) -> None:
        if as_json:
            write("".join(to_json(record_document(record), indent=None) for record in records))
        elif records:
            from asynctrace.cli.record_line import tail_line

            out.show(*[tail_line(record, stacks=stacks) for record in records])

    asyncio.run(_tail(run, store, lines, lowest, structure, follow, show))


async def _tail(
    wanted: str | None,
    store: str | None,
    lines: int,
    level: int,
    structure: bool,
    follow: bool,
    show: Callable[[list[Record]], None],
) -> None:
    from asynctrace.cli.lookup import find_run
    from asynctrace.cli.newest import Follower, newest_records

    def admits(record: Record) -> bool:
        return record.level >= level and (structure or record.kind is asynctrace.Kind.LOG)

    reader = asynctrace.open_store(store)
    try:
        run_id = (await find_run(reader, wanted, store)).run_id if wanted is not None else None
        follower = Follower(reader, run_id)
        if follow:
            await follower.begin()
        last, problems = await newest_records(reader, run_id, lines, admits)
        tell((*problems, *problems_of(reader)))
        show(last)
        if follow:
            follower.note(last)
            async for arrived in follower.arrivals():
                show([record for record in arrived if admits(record)])
    finally:
        await reader.aclose()
