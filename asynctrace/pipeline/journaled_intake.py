"""The Intake of a pipeline with a journal: every record is written there before its call returns.

Records have their numbers from the caller. Threads overtake each other between taking a number and appending the
record, so the writer is given them in the order of their numbers.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any, cast

from asynctrace.core.clock import SYSTEM_CLOCK, Clock
from asynctrace.core.context import SpanContext
from asynctrace.core.exceptions import Caught, ExceptionInfo, tell
from asynctrace.core.record import Detail, Kind, NumberedRecord, RawRecord
from asynctrace.pipeline import awaited
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.finisher import take_task
from asynctrace.pipeline.intake import Barrier, Intake
from asynctrace.pipeline.journal import Journal
from asynctrace.pipeline.journal_entries import EventEntry, RecordEntry, pack_entry
from asynctrace.pipeline.journal_reading import JournalReading
from asynctrace.pipeline.screen import Screen

_PATIENCE = 0.5
"""Seconds before a number that an interrupt has left without a record is looked for."""


class _Gap:
    """Stands for a record that will never come: there was no room for it, or its call was interrupted."""


_GAP = _Gap()


class JournaledIntake(Intake):
    """As :class:`Intake`. ``append`` journals; who has journaled itself calls ``enqueue``.

    Args:
        max_records: room; errors find a tenth of it reserved.
        max_bytes: likewise.
        wake: asks the writer, from any thread, to call :meth:`woken` on its loop.
        new_journal: makes the journal, and another one after a fork.
        clock: decides how long a missing number is waited for.
        waiting: as of :class:`Intake`: who may wait for room.

    Attributes:
        journal: the journal.
        screen: what may be journaled as it is.
        expected: the next number for the writer: all below have been taken.
    """

    journal: Journal

    def __init__(
        self,
        max_records: int,
        max_bytes: int,
        wake: Callable[[], None],
        new_journal: Callable[[], Journal],
        screen: Screen,
        clock: Clock = SYSTEM_CLOCK,
        **waiting: Any,
    ) -> None:
        super().__init__(max_records, max_bytes, wake, **waiting)
        self.enqueue: Callable[[RawRecord | Barrier], None] = self.records.append
        self.append, self.plain_append = self._append, None
        awaited.register(self)  # anew: whoever waits for records looks at those of this `append`
        self.screen = screen
        self.journal = new_journal()
        self.expected = 1
        self._new_journal = new_journal
        self._clock = clock
        self._inherited: list[object] = []
        self._forget_order()

    def _forget_order(self) -> None:
        self._early: dict[int, RawRecord | _Gap] = {}  # taken from the queue, or given up, before their turn
        self._behind: deque[tuple[int, Barrier]] = (
            deque()
        )  # barriers, each with the number that it stands behind
        self._filled: set[int] = set()  # read from the journal, because the record did not come
        self._missing = (0, 0.0)  # the number that is waited for, and since when

    # -- producers, any thread -------------------------------------------------------------------------------

    def _append(self, raw: RawRecord | Barrier) -> None:
        """Journal the record and queue it, whatever it holds; a disk that fails costs its protection only."""
        if isinstance(raw, Barrier):
            self.enqueue(raw)
            return
        detail = self._told(raw)
        message = self.screen.clean_text(raw.message)
        journal, span = self.journal, raw.span
        number = 0
        try:
            number = next(journal.numbers)
            try:
                site = journal.refer(raw.run, span, cast("CodeType | None", raw.code), raw.lasti)
                journal.append(_entry(raw, number, site, message, detail))
            except Exception as error:
                diagnostics.say(logging.WARNING, ("journal",), "a record is not in the journal: %r", error)
            record = NumberedRecord(
                raw.level,
                raw.run,
                span,
                message,
                detail,
                raw.code,
                raw.lasti,
                raw.kind,
                raw.time_ns,
                raw.thread,
                number,
            )
            if self.claims and (who := self.claims.pop(id(raw), None)) is not None:
                self.claims[id(record)] = who
            self.enqueue(record)
        except BaseException:
            journal.interrupted += 1
            raise

    def _told(self, raw: RawRecord) -> bytes | Detail | None:
        """What the record carries, as text and without secrets: the journal cannot keep objects."""
        fields, screen = raw.fields, self.screen
        detail = fields if type(fields) is Detail else None
        payload = detail.payload if detail is not None else cast("bytes | None", fields)
        if payload is not None:
            payload = screen.clean_payload(payload)
        if detail is None and raw.kind == Kind.LOG:
            return payload
        told = Detail(payload)
        exception: Caught | ExceptionInfo | None = None
        if detail is not None:
            exception = detail.exception
            told.duration_ns, told.status, told.task = detail.duration_ns, detail.status, detail.task
        elif raw.span is not None:
            exception = _add_span(told, raw.kind, raw.span)
        if told.task is not None:
            told.task = screen.clean_text(told.task)
        if exception is not None:
            told.exception = screen.clean_exception(tell(exception))
        return told

    def _drop(self) -> None:
        with self._lock:
            self.dropped += 1
        self._early[next(self.journal.numbers)] = _GAP

    # -- the writer, on its loop -----------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether the writer can take something now."""
        behind = self._behind
        return (
            bool(self.records)
            or self.expected in self._early
            or bool(behind and behind[0][0] < self.expected)
        )

    @property
    def queued(self) -> int:
        """Records that the writer has not taken."""
        return len(self.records) - self.barriers + len(self._behind) + len(self._early)

    async def wait(self) -> None:
        """As :meth:`Intake.wait`."""
        await super().wait()
        if self._early and not self.waiting:
            self._look_at_gap()

    def get_batch(self, most: int) -> list[RawRecord | Barrier]:
        """Take at most so many from the front, in the order of their numbers; nothing while the next one is missing."""
        found = super().get_batch(most)
        first = self.expected
        if not self._early and not self._behind and _numbers(found) == list(range(first, first + len(found))):
            self.expected = first + len(found)
            return found
        for item in found:
            if isinstance(item, Barrier):
                self._behind.append((max(self._early, default=self.expected - 1), item))
            else:
                self._sort_in(cast(NumberedRecord, item))
        taken: list[RawRecord | Barrier] = []
        early, behind = self._early, self._behind
        while True:
            while behind and behind[0][0] < self.expected:
                taken.append(behind.popleft()[1])
            following = early.get(self.expected)
            if not isinstance(following, RawRecord) or len(taken) >= most:
                return taken
            del early[self.expected]
            taken.append(following)
            self.expected += 1

    def _sort_in(self, record: NumberedRecord) -> None:
        number = record.number
        if number in self._filled:
            self._filled.discard(number)
            return
        if number < self.expected or number in self._early:  # its number was given up
            record.number = number = next(self.journal.numbers)
        self._early[number] = record

    def put_back(self, items: Sequence[RawRecord | Barrier]) -> None:
        """As :meth:`Intake.put_back`."""
        super().put_back(items)
        numbers = _numbers(items)
        if numbers:
            self.expected = numbers[0]

    def take_dropped(self) -> int:
        """How many of the next numbers stand for records that were dropped; their numbers are skipped."""
        first = self.expected
        while self._early.get(self.expected) is _GAP:
            del self._early[self.expected]
            self.expected += 1
        return self.expected - first

    def _look_at_gap(self) -> None:
        now = self._clock.monotonic()
        if self._missing[0] != self.expected:
            self._missing = (self.expected, now)
        elif self.journal.interrupted and now - self._missing[1] >= _PATIENCE:
            self.close_gaps()

    def close_gaps(self) -> bool:
        """No more records come in: find those whose calls were interrupted; whether there is something to take now."""
        numbers = set(range(self.expected, max(self._early, default=0))) - self._early.keys()
        if not numbers:
            return False
        self.journal.interrupted = 0
        reading = JournalReading()
        for contents in self.journal.contents():
            for record in reading.records(contents):
                if record.number in numbers:
                    numbers.discard(record.number)
                    self._filled.add(record.number)
                    self._early[record.number] = record
        self._early.update(dict.fromkeys(numbers, _GAP))
        return True

    @property
    def unprotected(self) -> int:
        """As :attr:`Intake.unprotected`."""
        return self.journal.unprotected

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Everything is safe: the journal goes."""
        self.journal.close()

    def clear(self) -> None:
        """Forget everything: in a forked child it is the parent's, the journal too."""
        self._inherited.append(self.journal)
        super().clear()
        self.journal = self._new_journal()
        self.expected = 1
        self._forget_order()


def _entry(raw: RawRecord, number: int, site: int, message: str, detail: bytes | Detail | None) -> bytes:
    span = raw.span.span_id if raw.span is not None else 0
    head = (number, raw.time_ns, raw.level, raw.run.key, span, site, raw.thread, message)
    if not isinstance(detail, Detail):
        return pack_entry(RecordEntry(*head, detail))
    told = cast("ExceptionInfo | None", detail.exception)
    return pack_entry(
        EventEntry(
            *head,
            detail.payload,
            raw.kind,
            detail.duration_ns,
            None if detail.status is None else int(detail.status),
            detail.task,
            None if told is None else (told.type, told.message, told.stack),
        )
    )


def _add_span(told: Detail, kind: int, span: SpanContext) -> Caught | None:
    """What the start or the end of a span says besides its fields; the exception that ended it."""
    if kind == Kind.SPAN_START:
        told.task = take_task(span)
        return None
    told.duration_ns, told.status = span.duration_ns, span.status
    return span.caught


def _numbers(items: Sequence[RawRecord | Barrier]) -> list[int]:
    return [item.number for item in items if isinstance(item, NumberedRecord)]
