"""Reading runs back: ``find_traces`` and ``find_trace``, in two colours, the same answer from every store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asynctrace import settings
from asynctrace.core import codec, timestamp
from asynctrace.core.arguments import whole_number
from asynctrace.core.level import Level
from asynctrace.core.query import Query
from asynctrace.core.record import Kind, Record, Status
from asynctrace.core.summary import RunSummary
from asynctrace.errors import ConfigurationError, TraceNotFoundError
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.loop_thread import loop_thread
from asynctrace.ports import CandidReader, Reader
from asynctrace.sinks import registry

Moment = datetime | str | int


@dataclass(slots=True)
class SpanNode:
    """A span as it was stored, with what happened inside it.

    Args:
        span_id: W3C span id, 64 bits.
        name: what people call it.
        start: its start record; None when that was lost.
        end: its end record; None while it runs, or when the process ended first.
        records: log records made directly in it, oldest first.
        children: spans directly inside it, oldest first.
    """

    span_id: int
    name: str
    start: Record | None
    end: Record | None
    records: list[Record]
    children: list[SpanNode]

    @property
    def duration_ms(self) -> float | None:
        """Milliseconds by the monotonic clock; None while it runs."""
        return self.end.duration_ms if self.end is not None else None

    @property
    def status(self) -> Status:
        """How it ended, or RUNNING."""
        if self.end is None or self.end.status is None:
            return Status.RUNNING
        return self.end.status


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run as a store knows it.

    Args:
        summary: the run in one line.
        entries: all its records, structural ones included, oldest first.
    """

    summary: RunSummary
    entries: tuple[Record, ...]

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.summary.run_id

    @property
    def records(self) -> tuple[Record, ...]:
        """The log records, oldest first."""
        return tuple(record for record in self.entries if record.kind is Kind.LOG)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def attempts(self) -> list[SpanNode]:
        """The tree of each attempt: its root stands for the run itself."""
        nodes: dict[int, SpanNode] = {}
        parents: dict[int, int] = {}
        roots: list[SpanNode] = []
        for record in self.entries:
            node = nodes.get(record.span_id)
            if node is None:
                node = nodes[record.span_id] = SpanNode(record.span_id, record.message, None, None, [], [])
                parents[record.span_id] = record.parent_span_id
                if record.kind is Kind.LOG:
                    node.name = record.context.run.name or record.run_id
            if record.kind is Kind.LOG:
                node.records.append(record)
            elif record.kind in (Kind.SPAN_START, Kind.RUN_START):
                node.start, node.name = record, record.message
            else:
                node.end, node.name = record, record.message
        for span_id, node in nodes.items():
            parent = nodes.get(parents[span_id])
            is_run = node.start is not None and node.start.kind is Kind.RUN_START
            # A retry inside the attempt before it is an attempt all the same.
            # A parent inside itself cannot be: it would hide the whole tree.
            if is_run or parent is None or parent is node:
                roots.append(node)
            else:
                parent.children.append(node)
        return roots


async def afind_traces(
    store: str | Reader | None = None,
    *,
    level: Level | str | int | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    text: str | None = None,
    name: str | None = None,
    fields: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> list[RunSummary]:
    """The runs with at least one record that meets all conditions; the one that was active last comes first.

    Args:
        store: the URL of a store, or a reader; by default the first readable store of the process default.
        level: the record's level is this or above; the end of a run or span that failed has level error.
        since: inclusive; a datetime, ISO text (UTC unless it says otherwise) or nanoseconds since the epoch.
        until: exclusive; likewise.
        text: the message contains it, whatever the case; that of a start or an end is the name of its span or run.
        name: the run's name or workflow name.
        fields: each field (bound, or the record's own) has this value, or is a list with this value in it:
            ``{"tags": "nightly"}`` finds ``tags="nightly"`` and ``tags=["nightly", "eu"]``. None for a field that
            fills a column (``tags``, ``user_id``, …): it has no value.
        limit: at most so many runs.

    What cannot be read (a torn line, a file of something else) is told by ``problems`` of the runs it may have been
    of; where no run is left to tell it, the logger ``asynctrace`` warns.

    Raises:
        StoreError: the store is not there, or holds something else.
        ConfigurationError: an argument cannot be used.
    """
    query = make_query(level, since, until, text, name, fields, limit)
    reader, owned = open_reader(store)
    try:
        return [summary async for summary in reader.runs(query)]
    finally:
        _warn_of_problems(reader)
        if owned:
            await reader.aclose()


async def afind_trace(run_id: str, store: str | Reader | None = None) -> StoredRun:
    """One run with all its records.

    Args:
        run_id: the run, as it was given to :class:`Trace`.
        store: as of :func:`afind_traces`.

    Raises:
        TraceNotFoundError: the store holds no such run.
        StoreError: the store is not there, or holds something else.
        ConfigurationError: an argument cannot be used.
    """
    if run_id is None:
        raise ConfigurationError("run_id", run_id, "the id of a run")
    wanted = codec.text_of(run_id)
    reader, owned = open_reader(store)
    try:
        summary = await reader.find(wanted)
        if summary is None:
            raise TraceNotFoundError(wanted, registry.shown(store) if isinstance(store, str) else str(reader))
        return StoredRun(summary, tuple([record async for record in reader.records(wanted, Query())]))
    finally:
        _warn_of_problems(reader)
        if owned:
            await reader.aclose()


def _warn_of_problems(reader: Reader) -> None:
    if isinstance(reader, CandidReader):
        for problem in reader.problems():
            diagnostics.say(
                logging.WARNING,
                ("unreadable", str(reader), problem),
                "%s: not all could be read: %s",
                reader,
                problem,
            )


def find_traces(
    store: str | Reader | None = None,
    *,
    level: Level | str | int | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    text: str | None = None,
    name: str | None = None,
    fields: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> list[RunSummary]:
    """As :func:`afind_traces`, for code without an event loop; blocks the calling thread.

    Example:
        >>> import tempfile
        >>> from asynctrace import Trace
        >>> url = f"sqlite:{tempfile.mkdtemp()}/t.db"
        >>> with Trace("run-1", sinks=[url]) as trace:
        ...     trace.info("hello")
        >>> [(run.run_id, run.records, run.status.label) for run in find_traces(url)]
        [('run-1', 1, 'ok')]
    """
    return loop_thread.wait_for(
        afind_traces(
            store, level=level, since=since, until=until, text=text, name=name, fields=fields, limit=limit
        )
    )


def find_trace(run_id: str, store: str | Reader | None = None) -> StoredRun:
    """As :func:`afind_trace`, for code without an event loop; blocks the calling thread."""
    return loop_thread.wait_for(afind_trace(run_id, store))


def open_store(store: str | None = None) -> Reader:
    """The reader of a store, for more than one question; close it with ``aclose``.

    Args:
        store: the URL; by default the first readable store of the process default.

    Raises:
        ConfigurationError: the store cannot be read back, or nothing that can be is configured.
    """
    return open_reader(store)[0]


def open_reader(store: str | Reader | None) -> tuple[Reader, bool]:
    """The reader of a store, and whether the caller has to close it.

    Raises:
        ConfigurationError: the store cannot be read back, or nothing that can be is configured.
    """
    if store is None:
        return _default_reader(), True
    if isinstance(store, str):
        try:
            return registry.reader_from_url(store), True
        except ConfigurationError as error:
            if error.name != "sink":
                raise
            raise ConfigurationError("store", error.value, error.allowed) from error
    if isinstance(store, type) or not isinstance(store, Reader):
        raise ConfigurationError(
            "store", store, "a URL such as sqlite:./traces.db or file:./logs, or a reader"
        )
    return store, False


def _default_reader() -> Reader:
    """The reader of the first sink of the process default that can be read back."""
    sinks = [sink[0] if isinstance(sink, tuple) else sink for sink in settings.current().sinks]
    for sink in sinks:
        if isinstance(sink, str) and registry.is_readable(sink):
            return registry.reader_from_url(sink)
    names = " ".join(registry.shown(sink) if isinstance(sink, str) else repr(sink) for sink in sinks)
    raise ConfigurationError("store", names, "a store that can be read back, such as sqlite: or file:")


def make_query(
    level: Level | str | int | None,
    since: Moment | None,
    until: Moment | None,
    text: str | None,
    name: str | None,
    fields: Mapping[str, Any] | None,
    limit: int | None,
) -> Query:
    """The conditions in the form that readers take.

    Raises:
        ConfigurationError: a value cannot be used.
    """
    return Query(
        floor=0 if level is None else Level.parse(level),
        since_ns=_moment("since", since),
        until_ns=_moment("until", until),
        text=text,
        name=name,
        fields={} if fields is None else fields,
        limit=None if limit is None else whole_number("limit", limit, 1),
    )


def _moment(name: str, moment: Moment | None) -> int | None:
    if moment is None or (isinstance(moment, int) and not isinstance(moment, bool)):
        return moment
    try:
        if isinstance(moment, datetime):
            return timestamp.from_text((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat())
        if isinstance(moment, str):
            return timestamp.from_text(moment)
    except (ValueError, OverflowError):
        pass
    raise ConfigurationError(name, moment, "a datetime, ISO 8601 text, or nanoseconds since the epoch")
