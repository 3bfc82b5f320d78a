"""Record: what flows. A RawRecord as the caller left it, a Record as the writer finished it."""

from __future__ import annotations

from enum import IntEnum
from threading import get_ident
from time import time_ns
from types import CodeType
from typing import Any

from msgspec import Struct, field

from asynctrace.core import timestamp
from asynctrace.core.context import SpanContext
from asynctrace.core.exceptions import Caught, ExceptionInfo
from asynctrace.core.level import LABELS, Level
from asynctrace.core.run import COLUMN_FIELDS, RunContext, split_fields
from asynctrace.core.site import Site
from asynctrace.core.status import Status as Status


class Kind(IntEnum):
    """What a record tells. Only ``LOG`` records are what people call log lines."""

    LOG = 0
    SPAN_START = 1
    SPAN_END = 2
    RUN_START = 3
    RUN_END = 4

    @property
    def label(self) -> str:
        """The lower-case name, as every store keeps it."""
        return self.name.lower()


class Detail(Struct, gc=False):
    """What few records carry, in place of the packed fields.

    Args:
        payload: the packed fields.
        exception: the exception as it was at the call; as text where it had to be told there.
        duration_ns: how long a span or run lasted, by the monotonic clock.
        status: how it ended.
        task: the name of the asyncio task.
    """

    payload: bytes | None
    exception: Caught | ExceptionInfo | None = None
    duration_ns: int | None = None
    status: Status | None = None
    task: str | None = None


class RawRecord(Struct, gc=False):
    """A record on its way to the writer: references and atoms only, made in well under a microsecond.

    Time and thread are those in which it is made; the constructor, which is C, asks for them quicker than its caller
    could.

    ``gc=False``: a record refers to no container that could refer back, so the collector need not look at it;
    that is half of the cost of keeping 100,000 of them.
    """

    level: int
    run: RunContext
    span: SpanContext | None
    message: str
    fields: bytes | Detail | None
    code: CodeType | Site | None
    lasti: int
    kind: int = 0
    time_ns: int = field(default_factory=time_ns)
    thread: int = field(default_factory=get_ident)


def payload_of(raw: RawRecord) -> bytes:
    """The packed fields; empty when there are none."""
    fields = raw.fields
    return fields if isinstance(fields, bytes) else (fields.payload or b"") if fields is not None else b""


class NumberedRecord(RawRecord, gc=False):
    """A raw record that got its number in the caller, because it stands in the journal.

    Args:
        number: of the record; with the producer its idempotence key.
    """

    number: int = 0


class Usage(Struct, frozen=True, gc=False):
    """A sample of what the process uses.

    Args:
        memory_mb: resident memory, in units of 1,048,576 bytes.
        cpu_percent: of one processor, since the sample before.
    """

    memory_mb: float
    cpu_percent: float


class Record(Struct, gc=False, eq=False):
    """A finished record: every value in canonical form. Sinks receive it, readers give it back equal.

    ``(producer, seq)`` is the idempotence key in every store. The documents' columns are attributes.
    """

    producer: str
    seq: int
    kind: Kind
    time_ns: int
    level: int
    context: RunContext
    span_id: int
    parent_span_id: int
    message: str
    own_fields: dict[str, Any]
    site: Site
    thread: int
    usage: Usage | None = None
    size: int = 0  # bytes that it counts, see `core.size`
    exception: ExceptionInfo | None = None
    duration_ms: float | None = None
    status: Status | None = None
    task: str | None = None
    json: bytes | None = None  # filled by the encoder when the first lane asks

    @property
    def run_id(self) -> str:
        """The run that it belongs to."""
        return self.context.run.run_id

    @property
    def datetime(self) -> str:
        """``YYYY-MM-DD HH:MM:SS.ffffff``, UTC."""
        return timestamp.to_text(self.time_ns)

    @property
    def mode(self) -> str:
        """``stderr`` from level error upwards, else ``stdout``."""
        return "stderr" if self.level >= Level.ERROR else "stdout"

    @property
    def fields(self) -> dict[str, Any]:
        """The caller's key-values, bound ones included; those that fill a column as the text in it."""
        columns, metadata = split_fields(self.context, self.own_fields)
        return {**columns, **metadata}

    def to_dict(self) -> dict[str, Any]:
        """All columns by name, in canonical form; those without a value are None."""
        run, process = self.context.run, self.context.run.process
        columns, metadata = split_fields(self.context, self.own_fields)
        exception, usage = self.exception, self.usage
        return {
            "producer": self.producer,
            "seq": self.seq,
            "kind": self.kind.label,
            "run_id": run.run_id,
            "parent_run_id": run.parent_run_id,
            "run_name": run.name,
            "attempt": run.attempt,
            "level": LABELS[self.level],
            "message": self.message,
            "mode": self.mode,
            "datetime": self.datetime,
            "process": process.pid,
            "thread": self.thread,
            "filename": self.site.filename,
            "lineno": self.site.lineno,
            "cut_id": run.cut_id,
            "duration_ms": self.duration_ms,
            "status": self.status.label if self.status is not None else None,
            "task": self.task,
            "memory_usage_mb": usage.memory_mb if usage else None,
            "cpu_usage_percent": usage.cpu_percent if usage else None,
            "trace_id": run.trace_id,
            "span_id": f"{self.span_id:016x}" if self.span_id else None,
            "parent_span_id": f"{self.parent_span_id:016x}" if self.parent_span_id else None,
            "exception_type": exception.type if exception else None,
            "exception_message": exception.message if exception else None,
            "stack_trace": exception.stack if exception else None,
            "hostname": process.hostname,
            "ip_address": process.ip_address,
            "python_version": process.python_version,
            "package_version": process.package_version,
            **{name: columns.get(name) for name in COLUMN_FIELDS},
            "metadata": metadata,
        }

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Record) else NotImplemented

    __hash__ = None  # type: ignore[assignment]
