"""A JournalReading: the entries of a journal back to raw records, with runs, spans and call sites."""

from __future__ import annotations

from collections.abc import Iterator

from asynctrace.core import codec
from asynctrace.core.context import SpanContext, make_span
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Detail, Kind, NumberedRecord
from asynctrace.core.run import Run, RunContext
from asynctrace.core.site import UNKNOWN_SITE, Site
from asynctrace.core.status import Status
from asynctrace.pipeline.journal_entries import (
    ContextEntry,
    Entries,
    EventEntry,
    NoteEntry,
    RecordEntry,
    SiteEntry,
    SpanEntry,
)

_RunKey = tuple[str, int]


class JournalReading:
    """Reads the segments of one journal, oldest first; remembers what later ones refer to.

    Attributes:
        notes: the newest of each lane.
        damaged: entries that could not be read.
        orphans: numbers of records that refer to what is not there. It stood in a segment that was used again since, so
            they are safe, unless there is damage.
    """

    def __init__(self) -> None:
        self.notes: dict[str, NoteEntry] = {}
        self.damaged = 0
        self.orphans: list[int] = []
        self._runs: dict[_RunKey, Run] = {}
        self._contexts: dict[int, RunContext] = {}
        self._spans: dict[int, SpanEntry] = {}
        self._made: dict[int, SpanContext] = {}
        self._sites: dict[int, Site] = {}

    def records(self, contents: bytes) -> list[NumberedRecord]:
        """The records of the next segment, ascending by number, each once."""
        found: dict[int, NumberedRecord] = {}
        entries = Entries(contents)
        for record in self._through(entries):
            found[record.number] = record
        self.damaged += entries.damaged
        return [found[number] for number in sorted(found)]

    def _through(self, entries: Entries) -> Iterator[NumberedRecord]:
        for entry in entries:
            if isinstance(entry, RecordEntry):
                record = self._record(entry)
                if record is None:
                    self.orphans.append(entry.number)
                else:
                    yield record
            elif isinstance(entry, ContextEntry):
                if entry.key not in self._contexts:
                    self._contexts[entry.key] = self._context(entry)
            elif isinstance(entry, SpanEntry):
                self._spans.setdefault(entry.key, entry)
            elif isinstance(entry, SiteEntry):
                self._sites[entry.key] = Site(entry.filename, entry.lineno)
            elif isinstance(entry, NoteEntry):
                self.notes[entry.lane] = entry

    def _record(self, entry: RecordEntry) -> NumberedRecord | None:
        context = self._contexts.get(entry.context)
        if context is None:
            return None
        detail: bytes | Detail | None = entry.fields
        kind = Kind.LOG.value
        if isinstance(entry, EventEntry):
            kind = entry.kind
            try:
                Kind(kind)
                status = None if entry.status is None else Status(entry.status)
            except ValueError:
                return None
            exception = None if entry.exception is None else ExceptionInfo(*entry.exception)
            detail = Detail(entry.fields, exception, entry.duration_ns, status, entry.task)
        return NumberedRecord(
            entry.level,
            context,
            self._span(entry.span),
            entry.message,
            detail,
            self._sites.get(entry.site, UNKNOWN_SITE),
            0,
            kind,
            entry.time_ns,
            entry.thread,
            entry.number,
        )

    def _context(self, entry: ContextEntry) -> RunContext:
        run = self._runs.get((entry.trace_id, entry.span_id))
        if run is None:
            run = self._runs[entry.trace_id, entry.span_id] = _run(entry)
            self._made.clear()  # a span of this run may have been made without it
        context = RunContext(run, codec.canonical(entry.fields))
        context.redacted = True
        return context

    def _span(self, key: int) -> SpanContext | None:
        """The span and those around it."""
        if not key:
            return None
        made = self._made.get(key)
        if made is None:
            entry = self._spans.get(key)
            if entry is None:
                return None
            run = self._runs.get((entry.trace_id, entry.root)) or _unknown_run(entry)
            made = self._made[key] = make_span(run, key)
            made.parent = self._span(entry.parent)
        return made


def _run(entry: ContextEntry) -> Run:
    return Run(
        entry.run_id,
        trace_id=int(entry.trace_id, 16),
        span_id=entry.span_id,
        process=entry.process.to_process(),
        parent_run_id=entry.parent_run_id,
        parent_span_id=entry.parent_span_id,
        name=entry.name,
        attempt=entry.attempt,
        level=entry.level,
    )


def _unknown_run(entry: SpanEntry) -> Run:
    """That of a trace with another pipeline, around ours."""
    return Run(
        "", trace_id=int(entry.trace_id, 16), span_id=entry.root, process=ProcessInfo(0, "", "", "", "")
    )
