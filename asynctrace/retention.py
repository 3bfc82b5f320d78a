"""Retention: old runs leave the stores in the background, by one process at a time, and marks say so."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from asynctrace.core.arguments import number, whole_number
from asynctrace.core.clock import SYSTEM_CLOCK, Clock
from asynctrace.core.query import EVERYTHING
from asynctrace.core.timestamp import SECOND_NS
from asynctrace.errors import ConfigurationError, StoreError
from asynctrace.pipeline.claim import exclusively
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.private import make_private
from asynctrace.pipeline.state_directory import StateDirectory, lane_key
from asynctrace.ports import Reader, SizedReader
from asynctrace.sinks import registry

_DAY = 86_400
_FILLED = 0.9  # of the bytes are left after a store had too many, so that not every look removes something
_STRUCTURAL = 2  # records that a run has besides its log records: start and end

_NOTE = "cleaned"

_began: dict[str, int] = {}  # when this process first had the store; there it is cleaned an interval later


@dataclass(frozen=True, slots=True)
class Retention:
    """What a store keeps.

    Args:
        days: runs whose newest record is older go; 0: none for its age.
        max_bytes: while the store takes more, its oldest runs go; 0: none for its size.

    Raises:
        ConfigurationError: a value is out of range.
    """

    days: float = 0.0
    max_bytes: int = 0

    def __post_init__(self) -> None:
        number("days", self.days, "days")
        whole_number("max_bytes", self.max_bytes, 0)

    @property
    def removes(self) -> bool:
        """Whether anything ever goes."""
        return bool(self.days or self.max_bytes)

    async def apply(self, reader: Reader, now_ns: int) -> int:
        """Remove what is not kept; how many records went.

        Args:
            reader: of the store.
            now_ns: wall clock.

        Raises:
            StoreError: the store is not there, or cannot be written.
            ConfigurationError: the store does not tell its size.
        """
        removed = 0
        if self.days:
            removed += await reader.prune(now_ns - int(self.days * _DAY * SECOND_NS))
        if self.max_bytes:
            if not isinstance(reader, SizedReader):
                raise ConfigurationError(
                    "max_bytes", self.max_bytes, f"0, for {reader} does not tell its size"
                )
            size = await reader.used_bytes()
            if size > self.max_bytes:
                removed += await reader.prune(
                    await _moment_that_leaves(reader, self.max_bytes * _FILLED / size)
                )
        return removed


async def _moment_that_leaves(reader: Reader, part: float) -> int:
    """Runs that ended before it are to go, so that this part of the records stays; the newest run always does."""
    runs = [(summary.ended_ns, summary.records + _STRUCTURAL) async for summary in reader.runs(EVERYTHING)]
    runs.sort(reverse=True)
    room = part * sum(records for _, records in runs)
    kept = 0
    for index, (_, records) in enumerate(runs):
        kept += records
        if index and kept > room:
            return runs[index][0] + 1
    return 0


class Cleaner:
    """The chore of a pipeline: applies the retention to its stores, once an interval among all processes.

    Args:
        stores: URLs that can be read back.
        retention: what they keep.
        interval: seconds between two cleanings.
        state: where it is noted when each store was cleaned last, and who is at it.
        clock: tells the time.
    """

    def __init__(
        self,
        stores: Sequence[str],
        retention: Retention,
        interval: float,
        state: StateDirectory,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._retention = retention
        self._interval_ns = int(interval * SECOND_NS)
        self._clock = clock
        self._stores = [_Store(url, state, clock) for url in stores]

    def __repr__(self) -> str:
        return f"<Cleaner of {', '.join(repr(store) for store in self._stores)}>"

    def due_in(self) -> float:
        """Seconds until the first store is due; 0 when one is."""
        now = self._clock.time_ns()
        waits = [store.cleaned_ns() + self._interval_ns - now for store in self._stores]
        return max(0, min(waits, default=self._interval_ns)) / SECOND_NS

    def run(self) -> None:
        """Clean the stores that are due, unless another process is at it."""
        for store in self._stores:
            if store.cleaned_ns() + self._interval_ns <= self._clock.time_ns():
                store.clean(self._retention, self._interval_ns)


class _Store:
    def __init__(self, url: str, state: StateDirectory, clock: Clock) -> None:
        self._url = url
        self._path = registry.path_of(url)
        self._clock = clock
        self._state = state
        self._key = lane_key(url.partition(":")[0], self._path or url)
        _began.setdefault(url, clock.time_ns())

    def __repr__(self) -> str:
        return registry.shown(self._url)

    def cleaned_ns(self) -> int:
        """When it was cleaned last, by anyone; when nobody knows, since when this process has it."""
        with suppress(OSError, ValueError, IndexError):
            return int((self._state.retention(self._key)[0] / _NOTE).read_text("ascii"))
        return _began.setdefault(self._url, self._clock.time_ns())

    def clean(self, retention: Retention, interval_ns: int) -> None:
        now = self._clock.time_ns()
        try:
            notes = self._state.retention(self._key)[0]
            make_private(notes)
            with exclusively(notes, 0.0) as gained:
                if gained and self.cleaned_ns() + interval_ns <= now:  # nobody was quicker
                    self._apply(retention, now)
                    (notes / _NOTE).write_text(str(now), "ascii")
        except (OSError, IndexError):  # nowhere to note it, nobody to share the work with
            self._apply(retention, now)
        _began[self._url] = now

    def _apply(self, retention: Retention, now: int) -> None:
        if self._path is not None and not os.path.exists(self._path):
            return
        try:
            removed = asyncio.run(_apply(self._url, retention, now))
        except StoreError as error:
            diagnostics.say(
                logging.WARNING, ("retention", self._url), "%r keeps what is too old: %s", self, error
            )
            return
        if removed:
            diagnostics.say(
                logging.INFO,
                ("retention", self._url, "removed"),
                "%r: %d record(s) of old runs were removed, as retention_days and retention_max_bytes say",
                self,
                removed,
            )


async def _apply(url: str, retention: Retention, now: int) -> int:
    reader = registry.reader_from_url(url)
    try:
        return await retention.apply(reader, now)
    finally:
        await reader.aclose()
