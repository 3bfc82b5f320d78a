"""What a journal holds: entries of MessagePack, each followed by a mark.

The mark is written by a second call: an entry without one behind it may be torn, for nobody knows in which order a
killed process copied its bytes. Whoever returned from recording has written the mark.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from asynctrace.core.process import ProcessInfo
from asynctrace.core.wire import MalformedError, Wire

MARK = b"\xc1AJ\xc1"
"""Behind every entry. MessagePack never begins a value with 0xC1, and no text holds that byte."""

RECORD, EVENT, CONTEXT, SPAN, SITE, NOTE, SEALED = range(1, 8)
"""What each kind of entry begins with."""

_JOINED = 8  # marks that may stand inside one entry, by chance or by malice

Names = tuple[str, str, str]


class RecordEntry(Struct, array_like=True, tag=RECORD, gc=False):
    """A record as most are: made by a method with fields and a message.

    Args:
        number: of the record; with the producer its idempotence key.
        time_ns: of the call.
        level: of the record.
        context: key of a :class:`ContextEntry`.
        span: key of a :class:`SpanEntry`; 0 outside any span.
        site: key of a :class:`SiteEntry`; 0 where no frame was.
        thread: id of the thread.
        message: without secrets.
        fields: packed, without secrets.
    """

    number: int
    time_ns: int
    level: int
    context: int
    span: int
    site: int
    thread: int
    message: str
    fields: bytes | None


class EventEntry(RecordEntry, array_like=True, tag=EVENT, gc=False):
    """A record with more to it: the start or end of a span or run, or one with an exception.

    Args:
        kind: of the record.
        duration_ns: of the span or run.
        status: of its end.
        task: name of the asyncio task.
        exception: type, message and stack, without secrets.
    """

    kind: int
    duration_ns: int | None
    status: int | None
    task: str | None
    exception: Names | None


class ProcessEntry(Struct, array_like=True):
    """The process of a run, see :class:`~asynctrace.core.process.ProcessInfo`."""

    pid: int
    hostname: str
    ip_address: str
    python_version: str
    package_version: str
    started: int
    boot: str

    @classmethod
    def of(cls, process: ProcessInfo) -> ProcessEntry:
        """What is told of the process."""
        return cls(*[getattr(process, name) for name in cls.__struct_fields__])

    def to_process(self) -> ProcessInfo:
        """The process as it was told."""
        return ProcessInfo(*astuple(self))


class ContextEntry(Struct, array_like=True, tag=CONTEXT):
    """What a handle says about each of its records, see :class:`~asynctrace.core.run.Run`; fields without secrets."""

    key: int
    run_id: str
    trace_id: str
    span_id: int
    parent_run_id: str | None
    parent_span_id: int
    name: str | None
    attempt: str
    level: int
    fields: bytes
    process: ProcessEntry


class SpanEntry(Struct, array_like=True, tag=SPAN):
    """A span and the one around it, which may be of another run: who records there to the outer run is in that one.

    Args:
        key: its id.
        trace_id: of its run.
        root: id of the span of its run: with the trace id it tells one run from another.
        parent: key of the span around it; 0 when there is none.
    """

    key: int
    trace_id: str
    root: int
    parent: int


class SiteEntry(Struct, array_like=True, tag=SITE):
    """A call site."""

    key: int
    filename: str
    lineno: int


class NoteEntry(Struct, array_like=True, tag=NOTE):
    """How far one lane is: what need not be recovered for it, and what the marks in its store say.

    Args:
        lane: its key in the state directory.
        safe: every number below is safe, or settled otherwise.
        first: the first number that the lane has seen.
        through: the last number that the marks in the store tell of.
        admitted: what they add up to.
        filtered: what they add up to.
    """

    lane: str
    safe: int
    first: int
    through: int
    admitted: int
    filtered: int


class SealedEntry(Struct, array_like=True, tag=SEALED, gc=False):
    """Another entry with its checksum: after a power failure the pages of a file may be of different age."""

    checksum: int
    data: bytes


Entry = RecordEntry | EventEntry | ContextEntry | SpanEntry | SiteEntry | NoteEntry | SealedEntry

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Entry).decode


def pack_entry(entry: Struct) -> bytes:
    """The entry as bytes.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
    """
    return _pack(entry)


def seal(data: bytes) -> bytes:
    """An entry with its checksum."""
    return _pack(SealedEntry(crc32(data), data))


class Entries:
    """The entries in the bytes of one segment, as far as they are whole.

    Attributes:
        damaged: entries that could not be read although a mark stands behind them.
    """

    def __init__(self, data: bytes) -> None:
        self.damaged = 0
        # Behind the last mark is what a killed thread was writing: its call had not returned.
        self._chunks = data.rstrip(b"\0").split(MARK)[:-1]

    def __iter__(self) -> Iterator[Entry]:
        chunks, at = self._chunks, 0
        while at < len(chunks):
            for last in range(at, min(at + _JOINED, len(chunks))):
                found = _entries_of(MARK.join(chunks[at : last + 1]))
                if found is not None:
                    break
            if found is None:
                self.damaged += 1
                at += 1
                continue
            at = last + 1
            for entry in found:
                inner = _unsealed(entry)
                if inner is None:
                    self.damaged += 1
                else:
                    yield inner


def _entries_of(chunk: bytes) -> list[Any] | None:
    """The entries in a chunk, of several threads perhaps; None when it is not whole."""
    try:
        return [_unpack(chunk)] if chunk else []
    except ValueError:  # also of a text that is none
        pass
    wire, found = Wire(chunk), []
    try:
        while not wire.ended:
            found.append(_unpack(wire.cut_out().payload))
    except (MalformedError, ValueError):
        return None
    return found


def _unsealed(entry: Entry) -> Entry | None:
    if not isinstance(entry, SealedEntry):
        return entry
    try:
        return _unpack(entry.data) if crc32(entry.data) == entry.checksum else None
    except ValueError:
        return None
