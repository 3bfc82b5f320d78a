"""What the writer does to each record: number it, resolve it, put it into canonical form."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from asynctrace.core import codec
from asynctrace.core.clock import SYSTEM_CLOCK
from asynctrace.core.context import SpanContext, span_of
from asynctrace.core.exceptions import Caught, ExceptionInfo, tell
from asynctrace.core.record import Detail, Kind, RawRecord, Record, payload_of
from asynctrace.core.redaction import Redactor
from asynctrace.core.site import SiteCache
from asynctrace.core.size import RAW_BYTES, RECORD_BYTES, text_size
from asynctrace.core.slice import Slice
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.process import Sampler, UsageSampler
from asynctrace.ports import Processor

_BYTES = {bytes}
_PLAIN = {bytes, type(None)}  # what most records carry


class Finisher:
    """Turns raw records into records, in the order of the queue.

    Args:
        producer: names this pipeline in this process.
        processors: called on each record, in turn; the first that gives None back ends it.
        redactor: takes the secrets out of what the processors leave; by default one with its defaults.
        sampler: what the process uses; by default one that asks the system.
    """

    def __init__(
        self,
        producer: str,
        processors: Sequence[Processor] = (),
        redactor: Redactor | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self.producer = producer
        self.redactor = redactor or Redactor()
        self.next_seq = 1
        self.started_ns = SYSTEM_CLOCK.time_ns()
        self.processors = tuple(processors)
        self._size = 0
        self._sites = SiteCache()
        self._sampler: Sampler = sampler or UsageSampler()

    def skip(self, count: int) -> None:
        """Numbers for records that were dropped before they came here."""
        self.next_seq += count

    def take_size(self) -> int:
        """Bytes of the raw records that were finished since the last call, see :mod:`asynctrace.core.size`."""
        size, self._size = self._size, 0
        return size

    def finish(self, raws: Sequence[RawRecord]) -> Sequence[Record]:
        """The finished records; those that a processor held back are missing, their numbers stay used."""
        details = [raw.fields for raw in raws]
        # One call of the decoder for the whole slice, one look at all messages.
        kinds = set(map(type, details))
        payloads = cast("list[bytes]", details) if kinds == _BYTES else [payload_of(raw) for raw in raws]
        fields, nested = codec.canonical_many(payloads, self.redactor.text_of_bytes)
        messages = "".join([raw.message for raw in raws])
        if _needs_cleaning(messages):
            for raw in raws:
                raw.message = codec.clean_text(raw.message)
            messages = "".join([raw.message for raw in raws])
        part = Slice(
            self.producer,
            self.next_seq,
            raws,
            fields,
            list(map(len, payloads)),
            self._sampler.sample(),
            self._sites,
            text_size(messages),
        )
        part.is_flat = not nested
        self._size += part.size - len(raws) * (RECORD_BYTES - RAW_BYTES)
        if not _PLAIN.issuperset(kinds) or any([raw.kind for raw in raws]):
            part.special = _special_records(part)
            part.count_special()
        self.next_seq += len(raws)
        if not self.processors:
            self.redactor.redact(part, payloads, nested=nested)
            return part
        records = self._process(part.records)
        self.redactor.redact(records)
        return records

    def _process(self, records: Sequence[Record]) -> list[Record]:
        processed = (self._through(record) for record in records)
        return [record for record in processed if record is not None]

    def _through(self, record: Record) -> Record | None:
        for processor in self.processors:
            try:
                result: object = processor(record)
                if result is None:
                    return None
                if not isinstance(result, Record):
                    raise TypeError("it gave back neither a record nor None")
            except Exception as error:  # the user's code: the record is kept as it was
                name, kind = (
                    getattr(processor, "__qualname__", type(processor).__name__),
                    type(error).__name__,
                )
                diagnostics.say(
                    logging.WARNING,
                    ("processor", name, kind),
                    "processor %s raised %s; the record is kept unchanged",
                    name,
                    kind,
                )
                continue
            record = result
        return record


def take_task(span: SpanContext) -> str | None:
    """The name of the asyncio task that entered the span, for the record of its start; it is told once."""
    task, span.task = span.task, None
    return codec.text_of(task.get_name()) if task is not None else None


def _needs_cleaning(messages: str) -> bool:
    if len(messages) > codec.limits().max_text:
        return True
    try:
        messages.encode()
    except UnicodeEncodeError:  # a lone surrogate, which no store can keep
        return True
    return False


def _special_records(part: Slice) -> dict[int, Record]:
    """Those that hold more than their raw record: starts, ends, what was caught."""
    raws = part.raws
    places = [place for place, raw in enumerate(raws) if raw.kind or type(raw.fields) is Detail]
    special = dict(zip(places, part.make(places), strict=True))
    for place, record in special.items():
        raw = raws[place]
        if type(raw.fields) is Detail:
            _add_detail(record, raw.fields)
        else:
            _add_span(record, span_of(raw.run.run, raw.span))
    return special


def _add_detail(record: Record, detail: Detail) -> None:
    record.task = detail.task
    record.status = detail.status
    if detail.duration_ns is not None:
        record.duration_ms = detail.duration_ns / 1_000_000
    if detail.exception is not None:
        _add_exception(record, detail.exception)


def _add_span(record: Record, span: SpanContext | None) -> None:
    if span is None:
        return
    if record.kind is Kind.SPAN_START:
        record.task = take_task(span)
        return
    record.duration_ms = span.duration_ns / 1_000_000
    record.status = span.status
    if span.caught is not None:
        _add_exception(record, span.caught)


def _add_exception(record: Record, caught: Caught | ExceptionInfo) -> None:
    record.exception = tell(caught)
    record.size += text_size(record.exception.stack)
