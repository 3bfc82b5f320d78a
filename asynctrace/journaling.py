"""The recording methods of handles whose pipeline has a journal: classes of their own, so that others do not pay.

The body of :func:`_recorder` is that of :mod:`asynctrace.emitter`, with the record written to the journal before it is
queued. What the screen does not pass leaves it for the long way, an exception among it, as do unusual calls.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from asynctrace.core.codec import pack
from asynctrace.core.context import current_span
from asynctrace.core.level import Level
from asynctrace.core.record import NumberedRecord
from asynctrace.emitter import Emitter, caller
from asynctrace.handles import Awaited, methods, quiet, variant
from asynctrace.pipeline.durability import Durability
from asynctrace.pipeline.journal_entries import MARK, RECORD
from asynctrace.pipeline.journaled_intake import JournaledIntake
from asynctrace.pipeline.screen import PLAIN
from asynctrace.span import Span, quiet_span

_getframe = sys._getframe

EVERYTHING = -1
"""The threshold of a handle that silences nothing; not 0, so that its spans ask the outlet what they shall be."""


def handle_class(durability: Durability) -> Callable[[Any, int], Any]:
    """Makes of the class of a handle, and a threshold, the one whose methods journal."""
    # An fsync costs a thousand times as much as the long way round, which every append to the Intake is.
    return _journaling if durability == "process" else _journaling_slowly


def span_class(durability: Durability) -> Callable[[int], Any] | None:
    """Makes of a threshold the class of spans whose methods journal."""
    return _journaling_span if durability == "process" else None


@cache
def _journaling(loud: Any, threshold: int) -> type[Any]:
    return variant(quiet(loud, threshold), loud, threshold or EVERYTHING, methods(loud, _recorder, threshold))


@cache
def _journaling_slowly(loud: Any, threshold: int) -> type[Any]:
    return variant(quiet(loud, threshold), loud, threshold or EVERYTHING, {})


@cache
def _journaling_span(threshold: int) -> type[Any]:
    return variant(quiet_span(threshold), Span, threshold or EVERYTHING, methods(Span, _recorder, threshold))


def _recorder(level: Level, long_way: str, result: Awaited | None, inside: bool) -> Any:
    """See :data:`asynctrace.handles.Recorder`."""
    number_of_level = int(level)
    span_here = current_span.get

    def record(self: Emitter, message: object, /, *args: object, **fields: Any) -> Any:
        intake: JournaledIntake = self._intake  # type: ignore[assignment]
        if (
            args
            or type(message) is not str
            or (len(intake.records) >= intake.limit and intake.full())
            or intake.plain_append is not None  # a receipt waits for records
        ):
            return getattr(self, long_way)(number_of_level, message, args, fields, caller())
        try:
            screen = intake.screen
            names, texts = screen.names, screen.texts
            passes = message in texts
            for name in fields:  # walked in half the time that the values take
                if name in names:
                    value = fields[name]
                    kind = type(value)
                    # Most values are numbers; a look into a set costs three times as much.
                    if kind is int or kind is float or (value in texts if kind is str else kind in PLAIN):
                        continue
                passes = False
                break
            if not (passes or screen.passes(message, fields)):
                return getattr(self, long_way)(number_of_level, message, args, fields, caller())
            payload = pack(fields) if fields else None
            frame = _getframe(1)
        except BaseException as error:  # the long way takes every value; an interrupt goes on afterwards
            return getattr(self, long_way)(number_of_level, message, args, fields, caller(), interrupt=error)
        context = self._context
        span: Any = self if inside else span_here()
        code, lasti = frame.f_code, frame.f_lasti
        journal = intake.journal
        try:
            number = next(journal.numbers)  # before the look at the segment, see there
            segment = journal.segment
            span_id = 0 if span is None else span.span_id
            try:
                site = segment.sites[id(code)][lasti]
            except KeyError:
                site = 0
            if (
                not site
                or context.journaled_in is not segment
                or (span is not segment.newest_span and span_id and span_id not in segment.spans)
            ):
                site = journal.refer(context, span, code, lasti)
                segment = journal.segment  # what was told may stand there: the one before is read first
            raw = NumberedRecord(number_of_level, context, span, message, payload, code, lasti, number=number)
            entry = pack(
                (
                    RECORD,
                    number,
                    raw.time_ns,
                    number_of_level,
                    context.key,
                    span_id,
                    site,
                    raw.thread,
                    message,
                    payload,
                )
            )
            try:
                write = segment.write
                write(entry)
                write(MARK)
            except ValueError:
                journal.append_elsewhere(entry)
            enqueue = intake.enqueue
            enqueue(raw)
        except BaseException:
            journal.interrupted += 1
            raise
        if not intake.pending:
            intake.wake()
        return result

    return record
