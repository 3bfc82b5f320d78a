"""Which store and which run the words on a command line mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asynctrace
from asynctrace.cli.problems import problems_of, tell
from asynctrace.cli.streams import first_that
from asynctrace.errors import ConfigurationError, TraceNotFoundError

if TYPE_CHECKING:
    from asynctrace import Reader, RunSummary

LATEST = "latest"
_NAMED = 5  # candidates that an error lists


def store_meant(argument: str | None, option: str | None) -> str | None:
    """The store of a command that takes it as STORE or as ``--store``; None where it is not named.

    Args:
        argument: what STORE says.
        option: what ``--store`` says.

    Raises:
        ConfigurationError: both are given.
    """
    if argument is not None and option is not None:
        raise ConfigurationError("--store", option, f"nothing, for STORE says {argument} already")
    return argument or option


async def find_run(reader: Reader, wanted: str, store: str | None = None) -> RunSummary:
    """The run of that id; of the only id that begins or ends so; or the newest, for ``latest``.

    The newest is the one with the newest record, or the run of this store that it is a child of.

    Args:
        reader: the store.
        wanted: the word.
        store: the URL of the store, for the error.

    Raises:
        TraceNotFoundError: there is none.
        ConfigurationError: there are several.
        StoreError: the store cannot be read.
    """
    wanted = wanted.encode("utf-8", "backslashreplace").decode()  # what is no UTF-8, as records hold it
    exact = await reader.find(wanted)
    if exact is not None:
        return exact
    if wanted == LATEST:
        newest = await first_that(reader.runs(asynctrace.Query(limit=1)), lambda summary: True)
        if newest is None:
            raise _not_found(reader, wanted, store)
        return await _outermost(reader, newest)
    fitting = [
        summary
        async for summary in reader.runs(asynctrace.Query())
        if wanted and (summary.run_id.startswith(wanted) or summary.run_id.endswith(wanted))
    ]
    if not fitting:
        raise _not_found(reader, wanted, store)
    if len(fitting) > 1:
        named = ", ".join(summary.run_id for summary in fitting[:_NAMED])
        more = ", …" if len(fitting) > _NAMED else ""
        raise ConfigurationError("RUN", wanted, f"more of the id, for {len(fitting)} runs fit: {named}{more}")
    return fitting[0]


def _not_found(reader: Reader, wanted: str, store: str | None) -> TraceNotFoundError:
    tell(problems_of(reader))  # it may be what could not be read
    return TraceNotFoundError(wanted, store or str(reader))


async def _outermost(reader: Reader, summary: RunSummary) -> RunSummary:
    passed = {summary.run_id}
    while summary.parent_run_id is not None and summary.parent_run_id not in passed:
        parent = await reader.find(summary.parent_run_id)
        if parent is None:  # it is recorded elsewhere, or is no run at all
            break
        summary = parent
        passed.add(summary.run_id)
    return summary
