"""``asynctrace show``: one run, with everything in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import record_document, run_document, span_document, to_json
from asynctrace.errors import ConfigurationError

if TYPE_CHECKING:
    from asynctrace import RunSummary, SpanNode, StoredRun


def show(
    run: options.WantedRun,
    store: options.Store = None,
    level: options.Level = None,
    records: options.ShowRecords = True,
    stacks: options.Stacks = False,
    limit: options.Limit = 100,
    svg: options.Picture = None,
    as_json: options.Json = False,
    no_pager: options.NoPager = False,
) -> None:
    """Show a run: its spans as a tree, and the records inside them.

    Of what went well, --limit children of each span are shown; warnings, errors and what holds them always.
    """
    import asyncio

    lowest = 0 if level is None else int(asynctrace.Level.parse(level))
    found, children = asyncio.run(_read(run, store))

    from asynctrace.cli import run_tree, screen  # here, for --help does without rich

    if as_json:
        screen.write(to_json(_document(found, children, lowest, records)))
        return
    parts = run_tree.draw(found, children, run_tree.View(lowest, records, stacks, limit))
    if svg is None:
        screen.Screen(pager=not no_pager).show(*parts)
        return
    try:
        Path(svg).write_text(screen.picture(f"asynctrace show {run}", *parts), "utf-8")
    except OSError as error:
        raise ConfigurationError("--svg", svg, f"a file that can be written ({error.strerror})") from error


async def _read(wanted: str, store: str | None) -> tuple[StoredRun, list[RunSummary]]:
    from asynctrace.cli.lookup import find_run

    reader = asynctrace.open_store(store)
    try:
        summary = await find_run(reader, wanted, store)
        found = await asynctrace.afind_trace(summary.run_id, reader)
        while_it_ran = asynctrace.Query(since_ns=summary.started_ns, until_ns=summary.ended_ns + 1)
        children = [
            child async for child in reader.runs(while_it_ran) if child.parent_run_id == summary.run_id
        ]
    finally:
        await reader.aclose()
    return found, sorted(children, key=lambda child: (child.started_ns, child.run_id))


def _document(run: StoredRun, children: list[RunSummary], level: int, with_records: bool) -> dict[str, Any]:
    spans: list[dict[str, Any]] = []
    for number, root in enumerate(run.attempts(), 1):
        waiting: list[tuple[SpanNode, SpanNode | None]] = [(root, None)]
        while waiting:
            node, parent = waiting.pop()
            spans.append(span_document(node, parent, number))
            waiting += [(child, node) for child in reversed(node.children)]
    document = {
        "run": run_document(run.summary),
        "spans": spans,
        "child_runs": [run_document(child) for child in children],
    }
    if with_records:
        document["records"] = [record_document(record) for record in run.records if record.level >= level]
    return document
