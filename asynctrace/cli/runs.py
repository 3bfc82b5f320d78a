"""``asynctrace runs``: the runs of a store."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import run_document, to_json
from asynctrace.cli.moments import parse_moment
from asynctrace.cli.problems import problems_of, tell
from asynctrace.errors import ConfigurationError

if TYPE_CHECKING:
    from asynctrace import Query, RunSummary

_DEFAULT_LIMIT = 50


def runs(
    store: options.Store = None,
    level: options.Level = None,
    since: options.Since = None,
    until: options.Until = None,
    text: options.Contained = None,
    name: options.Name = None,
    field: options.Fields = None,
    limit: options.Limit = _DEFAULT_LIMIT,
    as_json: options.Json = False,
    no_pager: options.NoPager = False,
) -> None:
    """List runs with a record that meets all conditions, newest first."""
    query = asynctrace.Query(
        floor=0 if level is None else int(asynctrace.Level.parse(level)),
        since_ns=parse_moment("--since", since),
        until_ns=parse_moment("--until", until),
        text=text,
        name=name,
    )
    import asyncio

    found, problems = asyncio.run(
        _find(store, [replace(query, fields=each) for each in _parse_fields(field)], limit or None)
    )
    from asynctrace.cli import run_table, screen  # here, for --help does without rich

    if as_json:
        screen.write(to_json([run_document(summary) for summary in found]))
    else:
        run_table.show(found, screen.Screen(pager=not no_pager), limit)
    tell(problems)


def _parse_fields(pairs: Iterable[str] | None) -> list[dict[str, Any]]:
    """All that the pairs may mean: on a command line, ``3`` is a text or a number."""
    meanings: list[list[tuple[str, Any]]] = []
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError("--field", pair, "KEY=VALUE")
        meanings.append([(name, value)])
        try:
            meanings[-1].append((name, json.loads(value)))
        except (ValueError, RecursionError):  # text, and nothing else
            pass
    return [dict(choice) for choice in itertools.product(*meanings)]


async def _find(
    store: str | None, queries: list[Query], limit: int | None
) -> tuple[list[RunSummary], tuple[str, ...]]:
    found: dict[str, RunSummary] = {}
    reader = asynctrace.open_store(store)
    try:
        for query in queries:
            async for summary in reader.runs(replace(query, limit=limit)):
                found[summary.run_id] = summary
        problems = problems_of(reader)
    finally:
        await reader.aclose()
    newest_first = sorted(
        found.values(), key=lambda summary: (summary.ended_ns, summary.run_id), reverse=True
    )
    return newest_first[:limit], problems
