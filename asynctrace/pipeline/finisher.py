"""What the writer does to each record: number it, resolve it, put it into canonical form."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from asynctrace.core import codec
from asynctrace.core.context import SpanContext, span_of
from asynctrace.core.exceptions import tell
from asynctrace.core.record import Detail, Kind, RawRecord, Record
from asynctrace.core.site import SiteCache
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.process import UsageSampler
from asynctrace.ports import Processor

_KINDS = {kind.value: kind for kind in Kind}


class Finisher:
    """Turns raw records into records, in the order of the queue.

    Args:
        producer: names this pipeline in this process.
        processors: called on each record, in turn; the first that gives None back ends it.
    """

    def __init__(self, producer: str, processors: Sequence[Processor] = ()) -> None:
        self.producer = producer
        self.next_seq = 1
        self.processors = tuple(processors)
        self.processor_errors = 0
        self._sites = SiteCache()
        self._sampler = UsageSampler()

    def skip(self, count: int) -> None:
        """Numbers for records that were dropped before they came here."""
        self.next_seq += count

    def finish(self, raws: Sequence[RawRecord]) -> list[Record]:
        """The finished records; those that a processor held back are missing, their numbers stay used."""
        payloads = [_payload_of(raw.fields) for raw in raws]
        # One search over the whole slice instead of one for each record.
        to_fields = codec.canonical if codec.has_non_finite(b"".join(payloads)) else codec.canonical_finite
        clean = _needs_cleaning(raws)
        usage = self._sampler.sample()
        resolve, producer, seq = self._sites.resolve, self.producer, self.next_seq
        records = []
        for raw, payload in zip(raws, payloads, strict=True):
            context, span = raw.run, raw.span
            run = context.run
            if span is not None and span.run is not run:
                span = span_of(run, span)
            if span is None:
                span_id, parent_span_id = run.span_id, run.parent_span_id
            else:
                span_id, parent_span_id = span.span_id, _parent_of(span)
            record = Record(
                producer,
                seq,
                _KINDS[raw.kind],
                raw.time_ns,
                raw.level,
                context,
                span_id,
                parent_span_id,
                codec.clean_text(raw.message) if clean else raw.message,
                to_fields(payload) if payload else {},
                resolve(raw.code, raw.lasti),
                raw.thread,
                usage,
            )
            detail = raw.fields
            if type(detail) is Detail:
                _add_detail(record, detail)
            records.append(record)
            seq += 1
        self.next_seq = seq
        return self._process(records) if self.processors else records

    def _process(self, records: list[Record]) -> list[Record]:
        processed = (self._through(record) for record in records)
        return [record for record in processed if record is not None]

    def _through(self, record: Record) -> Record | None:
        for processor in self.processors:
            try:
                result = processor(record)
            except Exception as error:  # the user's code: the record is kept as it was
                self.processor_errors += 1
                diagnostics.say(
                    logging.WARNING,
                    ("processor", repr(processor), type(error).__name__),
                    "processor %r raised %r; the record is kept unchanged",
                    processor,
                    error,
                )
                continue
            if result is None:
                return None
            record = result
        return record


def _payload_of(fields: bytes | Detail | None) -> bytes:
    if type(fields) is bytes:
        return fields
    if fields is None:
        return b""
    return fields.payload or b""  # type: ignore[union-attr]


def _needs_cleaning(raws: Sequence[RawRecord]) -> bool:
    messages = "".join([raw.message for raw in raws])
    if len(messages) > codec.limits().max_text:
        return True
    try:
        messages.encode()
    except UnicodeEncodeError:  # a lone surrogate, which no store can keep
        return True
    return False


def _parent_of(span: SpanContext) -> int:
    parent = span_of(span.run, span.parent)
    return parent.span_id if parent is not None else span.run.span_id


def _add_detail(record: Record, detail: Detail) -> None:
    record.task = detail.task
    record.status = detail.status
    if detail.duration_ns is not None:
        record.duration_ms = detail.duration_ns / 1_000_000
    if detail.exception is not None:
        record.exception = tell(detail.exception)
