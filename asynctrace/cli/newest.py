"""The newest records of a store, and those that arrive."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

import asynctrace
from asynctrace.errors import StoreError

if TYPE_CHECKING:
    from asynctrace import Reader, Record, RunSummary

OVERLAP = 10.0
"""Seconds: a record that reaches the store so much later than one made after it is still followed."""

_PAUSE = 0.2  # seconds between two looks, or as long as a look takes: at most half of a core
_PATIENCE = 10.0  # seconds that a store may be unreadable while it is followed: locked, rotated, replaced
_FIRST_WINDOW_NS = 1_000_000_000
_WINDOW_GROWTH = 8
_SECOND_NS = 1_000_000_000

_Age = tuple[int, str, int]


def _age(record: Record) -> _Age:
    return record.time_ns, record.producer, record.seq


async def newest_records(
    reader: Reader, run_id: str | None, number: int, admits: Callable[[Record], bool]
) -> tuple[list[Record], list[str]]:
    """The newest records that are admitted, oldest first, and what could not be read.

    Reads backwards, in windows of time: as little of a long run as will do.

    Args:
        reader: the store.
        run_id: of this run only; None for all.
        number: how many records at most.
        admits: which ones.
    """
    summaries = await _summaries(reader, run_id, asynctrace.Query())
    newest: list[tuple[_Age, Record]] = []
    for summary in sorted(summaries, key=lambda summary: summary.ended_ns, reverse=True):
        if not number or (len(newest) == number and newest[0][0][0] > summary.ended_ns):
            break  # this run, and all the others, ended before
        for record in await _newest_of(reader, summary, number, admits):
            item = (_age(record), record)
            if len(newest) < number:
                heapq.heappush(newest, item)
            elif item[0] > newest[0][0]:
                heapq.heapreplace(newest, item)
    problems = [f"{summary.run_id}: {problem}" for summary in summaries for problem in summary.problems]
    return [record for _, record in sorted(newest, key=lambda item: item[0])], problems


async def _newest_of(
    reader: Reader, summary: RunSummary, number: int, admits: Callable[[Record], bool]
) -> list[Record]:
    window = _FIRST_WINDOW_NS
    while True:
        since = summary.ended_ns - window
        whole = since <= summary.started_ns
        query = asynctrace.Query(since_ns=None if whole else since)
        found = [record async for record in reader.records(summary.run_id, query) if admits(record)]
        if whole or len(found) >= number:
            return found[-number:]
        window *= _WINDOW_GROWTH


async def _summaries(reader: Reader, run_id: str | None, query: asynctrace.Query) -> list[RunSummary]:
    if run_id is None:
        return [summary async for summary in reader.runs(query)]
    summary = await reader.find(run_id)
    return [] if summary is None else [summary]


class Follower:
    """Tells which records are new, each once, in the order of time as far as they arrive in it.

    Args:
        reader: the store.
        run_id: of this run only; None for all.
    """

    def __init__(self, reader: Reader, run_id: str | None) -> None:
        self._reader = reader
        self._run_id = run_id
        self._seen: dict[tuple[str, int], int] = {}
        self._newest_ns = 0

    async def begin(self) -> None:
        """Take what is there as known."""
        summaries = await _summaries(self._reader, self._run_id, asynctrace.Query())
        self._newest_ns = max((summary.ended_ns for summary in summaries), default=time.time_ns())
        self.note(await self._look())

    def note(self, records: Iterable[Record]) -> None:
        """Take these as known."""
        for record in records:
            self._seen[record.producer, record.seq] = record.time_ns
            # A clock that is ahead must not make the look begin in the future.
            if self._newest_ns < record.time_ns:
                self._newest_ns = min(record.time_ns, time.time_ns())

    async def arrivals(self) -> AsyncIterator[list[Record]]:
        """What is new, whenever there is something; never ends by itself.

        Raises:
            StoreError: the store stayed unreadable.
        """
        readable_at = time.monotonic()
        while True:
            began = time.monotonic()
            try:
                found = await self._look()
                readable_at = time.monotonic()
            except StoreError:
                if time.monotonic() - readable_at > _PATIENCE:
                    raise
                found = []
            new = sorted(
                (record for record in found if (record.producer, record.seq) not in self._seen), key=_age
            )
            if new:
                self.note(new)
                yield new
            self._forget()
            await asyncio.sleep(max(_PAUSE, time.monotonic() - began))

    def _since(self) -> int:
        return min(self._newest_ns, time.time_ns()) - int(OVERLAP * _SECOND_NS)

    async def _look(self) -> list[Record]:
        query = asynctrace.Query(since_ns=self._since())
        if self._run_id is not None:
            return [record async for record in self._reader.records(self._run_id, query)]
        run_ids = [summary.run_id async for summary in self._reader.runs(query)]
        return [record for run_id in run_ids async for record in self._reader.records(run_id, query)]

    def _forget(self) -> None:
        since = self._since()
        old = [key for key, time_ns in self._seen.items() if time_ns < since]
        for key in old:
            del self._seen[key]
