"""``asynctrace demo``: trace a small service, and see where that went."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import asynctrace
from asynctrace.cli import options
from asynctrace.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from asynctrace import RunSummary


def demo(
    sinks: options.Sinks = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
) -> None:
    """Trace a small order service, then tell where the records went and how to look at them.

    Concurrent tasks, a thread pool, nested spans, warnings, a retry, a declined payment, and a child run.
    """
    import asyncio

    from asynctrace.cli.orders import make_orders, run_service

    orders = make_orders(seed)
    run_id = asyncio.run(run_service(None, orders, sinks))

    readable = _first_readable(sinks)
    summary = asyncio.run(_read(run_id, readable)) if readable is not _NOTHING else None
    _tell(run_id, summary, sinks, readable, as_json=as_json)


_NOTHING = ""
"""No store that can be read back; None is the process default."""


def _first_readable(sinks: list[str] | None) -> str | None:
    if sinks is None:
        return None
    for url in sinks:
        if not url.startswith("memory:"):  # what it holds is in the trace's own sink
            try:
                asynctrace.open_store(url)
                return url
            except ConfigurationError:  # a sink that only writes, as the console does
                continue
    return _NOTHING


async def _read(run_id: str, store: str | None) -> RunSummary | None:
    try:
        reader = asynctrace.open_store(store)
    except ConfigurationError:
        return None
    try:
        return await reader.find(run_id)
    finally:
        await reader.aclose()


def _tell(
    run_id: str, summary: RunSummary | None, sinks: list[str] | None, readable: str | None, *, as_json: bool
) -> None:
    import shlex

    from asynctrace.cli import screen
    from asynctrace.cli.documents import run_document, to_json

    where = f" --store {shlex.quote(readable)}" if readable else ""
    command = f"asynctrace show {run_id}{where}" if summary is not None else None
    if as_json:
        run = run_document(summary) if summary is not None else {"run_id": run_id}
        screen.write(to_json({"run": run, "sinks": sinks, "command": command}))
        return
    out = screen.Screen()
    if summary is None:
        if readable is not _NOTHING:
            raise StoreError(f"run {run_id} was recorded, but is not there")
        print("recorded in no store that can be read back; try --sinks sqlite:./traces.db", file=sys.stderr)
        return
    from asynctrace.cli.run_tree import head

    out.show(
        head(summary),
        screen.Text(f"recorded in {' '.join(sinks) if sinks else _default_name()}\n"),
        screen.Text("look at it:"),
        *[
            screen.Text(f"  {line}", "bold")
            for line in (command or "", f"asynctrace runs{where}", f"asynctrace stats{where}")
        ],
    )


def _default_name() -> str:
    return str(asynctrace.open_store())
