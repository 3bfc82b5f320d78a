"""``asynctrace stats``: what a store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import to_json
from asynctrace.cli.problems import problems_of

if TYPE_CHECKING:
    from asynctrace.cli.tally import Tally


def stats(
    store: options.Store = None,
    limit: options.Limit = 10,
    as_json: options.Json = False,
    no_pager: options.NoPager = False,
) -> None:
    """Tell what the store holds: runs by status, records by level, errors, spans and the slowest of them."""
    import asyncio

    tally = asyncio.run(_count(store))

    from asynctrace.cli import screen, tally_table  # here, for --help does without rich

    if as_json:
        screen.write(to_json(tally.document(limit or None)))
    else:
        screen.Screen(pager=not no_pager).show(*tally_table.draw(tally, limit or None))


async def _count(store: str | None) -> Tally:
    from asynctrace.cli.tally import Tally

    tally = Tally()
    everything = asynctrace.Query()
    reader = asynctrace.open_store(store)
    try:
        async for summary in reader.runs(everything):
            tally.add_run(summary)
            if not isinstance(reader, asynctrace.BulkReader):
                async for record in reader.records(summary.run_id, everything):
                    tally.add(record)
        if isinstance(reader, asynctrace.BulkReader):
            async for record in reader.all_records():
                tally.add(record)
        tally.problems += problems_of(reader)
    finally:
        await reader.aclose()
    return tally
