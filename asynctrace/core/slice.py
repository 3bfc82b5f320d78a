"""A Slice: what the writer finished in one go; its records become objects only when somebody looks at them.

Making a Record costs as much as encoding its fields. A store of lines, which needs the same few texts in another
order, never looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, overload

from asynctrace.core import codec, timestamp
from asynctrace.core.codec import to_json_lines
from asynctrace.core.context import SpanContext, span_of
from asynctrace.core.record import Kind, RawRecord, Record, Usage, payload_of
from asynctrace.core.run import COLUMN_FIELD_SET, RunContext
from asynctrace.core.site import SiteCache
from asynctrace.core.size import RECORD_BYTES, text_size
from asynctrace.core.timestamp import SECOND_NS, have_nineteen_digits, micros_of_digits

SLICE = 256
"""Records that are finished or encoded between two looks at the event loop: about 0.2 ms; a power of two, as the
batches are that databases are given."""

_KINDS = tuple(Kind)  # by number


class Slice(Sequence[Record]):
    """Finished records with consecutive numbers.

    Any number of threads may read it; who takes ``raws`` first and then finds ``is_made`` false may use them.

    Args:
        producer: who numbered them.
        first: the number of the first one.
        raws: what the callers left, their messages clean.
        fields: the own fields of each in canonical form.
        payloads: bytes of the packed fields of each.
        usage: the sample of what the process uses.
        sites: resolves the call sites.
        text: bytes of all messages, if the caller knows.
    """

    __slots__ = (
        "_contexts",
        "_count",
        "_fields",
        "_made",
        "_names",
        "_times",
        "block",
        "first",
        "is_flat",
        "is_shared",
        "payloads",
        "producer",
        "raws",
        "sites",
        "size",
        "special",
        "usage",
    )

    def __init__(
        self,
        producer: str,
        first: int,
        raws: Sequence[RawRecord],
        fields: Sequence[dict[str, Any]],
        payloads: Sequence[int],
        usage: Usage | None,
        sites: SiteCache,
        text: int | None = None,
    ) -> None:
        self.producer = producer
        self.first = first
        self.raws = raws
        self._fields: Sequence[dict[str, Any]] | None = fields
        self.payloads = payloads
        if text is None:
            text = text_size("".join([raw.message for raw in raws]))
        self.size = len(raws) * RECORD_BYTES + sum(payloads) + text
        """Bytes that the records count, see :mod:`asynctrace.core.size`."""
        self.usage = usage
        self.sites = sites
        self.special: Mapping[int, Record] = {}
        """Records, by place, that hold more than their raw record does."""
        self.block: bytes | None = None  # filled by the encoder when the first lane asks
        self.is_flat = False
        """Whether no own field is a list, a dict or bytes."""
        self.is_shared = False
        """Whether several lanes have it."""
        self._count = len(raws)
        self._made: list[Record] | None = None
        self._contexts: set[RunContext] | None = None
        self._names: set[str] | None = None
        self._times: list[int] | None = None

    @property
    def is_made(self) -> bool:
        """Whether the records are objects by now, which may differ from what they were made of."""
        return self._made is not None

    @property
    def records(self) -> list[Record]:
        """The records as objects, made at the first call."""
        raws, made = self.raws, self._made
        if made is None:
            made = self._make(raws, range(self._count))
            for place, record in self.special.items():
                made[place] = record
            self._made = made
            self.raws = ()  # what only they held is free now
        return made

    @property
    def fields(self) -> Sequence[dict[str, Any]]:
        """The own fields of each in canonical form."""
        fields = self._fields
        if fields is None:
            fields, _ = codec.canonical_many([payload_of(raw) for raw in self.raws])
            self._fields = fields
        return fields

    def let_go_of_fields(self) -> None:
        """For who has read what he needs, and nobody else will: who looks again has them decoded again.

        Dicts are most of what a slice holds, and alone in counting for the garbage collector.
        """
        if self.is_flat and not self.is_shared and not self.is_made:
            self._fields = None

    @property
    def names(self) -> set[str]:
        """The names of all own fields."""
        if self._names is None:
            self._names = set().union(*self.fields)
        return self._names

    @property
    def is_simple(self) -> bool:
        """Whether own fields stand behind the bound ones, without filling a column or taking the place of any."""
        names = self.names
        return COLUMN_FIELD_SET.isdisjoint(names) and all(
            names.isdisjoint(context.metadata) for context in self.contexts
        )

    @property
    def contexts(self) -> set[RunContext]:
        """The handles that the records were made with."""
        raws = self.raws
        if self.is_made:
            return {record.context for record in self.records}
        if self._contexts is None:
            self._contexts = {raw.run for raw in raws}
        return self._contexts

    @property
    def times_ns(self) -> list[int]:
        """When each record was made, by the wall clock."""
        raws = self.raws
        if self.is_made:
            return [record.time_ns for record in self.records]
        if self._times is None:
            self._times = [raw.time_ns for raw in raws]
        return self._times

    @property
    def datetimes(self) -> list[str]:
        """The same as text."""
        times = self.times_ns
        oldest, newest = min(times), max(times)
        prefix = timestamp.to_text(oldest)[:-6]
        if oldest // SECOND_NS != newest // SECOND_NS or not have_nineteen_digits(oldest, newest):
            return [*map(timestamp.to_text, times)]
        # The encoder writes numbers quicker than Python does.
        digits = to_json_lines(times).decode().split("\n")[:-1]
        return [prefix + micros for micros in map(micros_of_digits, digits)]

    @property
    def sizes(self) -> list[int]:
        """Bytes that each record counts."""
        raws, special = self.raws, self.special
        if self.is_made:
            return [record.size for record in self.records]
        sizes = [
            RECORD_BYTES + text_size(raw.message) + payload
            for raw, payload in zip(raws, self.payloads, strict=True)
        ]
        for place, record in special.items():
            sizes[place] = record.size
        return sizes

    def make(self, places: Iterable[int]) -> list[Record]:
        """The records at these places as new objects, without what is special about them.

        For who finishes the slice: nobody has looked at ``records`` yet.
        """
        return self._make(self.raws, places)

    def _make(self, raws: Sequence[RawRecord], places: Iterable[int]) -> list[Record]:
        producer, first, usage, resolve = self.producer, self.first, self.usage, self.sites.resolve
        fields, payloads = self.fields, self.payloads
        code = site = None
        lasti = -1
        records = []
        for place in places:
            raw = raws[place]
            context, span = raw.run, raw.span
            if span is not None and span.run is not context.run:
                span = span_of(context.run, span)
            if raw.lasti != lasti or raw.code is not code:
                code, lasti = raw.code, raw.lasti
                site = resolve(code, lasti)
            records.append(
                Record(
                    producer,
                    first + place,
                    _KINDS[raw.kind],
                    raw.time_ns - raw.time_ns % 1000,  # as every store keeps it
                    raw.level,
                    context,
                    context.run.span_id if span is None else span.span_id,
                    context.run.parent_span_id if span is None else parent_of(span),
                    raw.message,
                    fields[place],
                    site,  # type: ignore[arg-type]  # resolved at the first turn
                    raw.thread,
                    usage,
                    RECORD_BYTES + text_size(raw.message) + payloads[place],
                )
            )
        return records

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        raws = self.raws
        if isinstance(index, int) or self.is_made:
            return self.records[index]
        start, stop, step = index.indices(self._count)
        if step != 1:
            return self.records[index]
        part = Slice(
            self.producer,
            self.first + start,
            raws[start:stop],
            self.fields[start:stop],
            self.payloads[start:stop],
            self.usage,
            self.sites,
        )
        part.is_flat, part.is_shared = self.is_flat, self.is_shared
        part.special = {
            place - start: record for place, record in self.special.items() if start <= place < stop
        }
        part.count_special()
        return part

    def count_special(self) -> None:
        """Add what special records hold beside message and fields to the size."""
        for place, record in self.special.items():
            raw = self.raws[place]
            self.size += record.size - RECORD_BYTES - text_size(raw.message) - self.payloads[place]

    def __repr__(self) -> str:
        return f"<Slice of {self._count} records from number {self.first}>"


def parent_of(span: SpanContext) -> int:
    """The id of the span, or of the run's root, that stands above the span."""
    parent = span_of(span.run, span.parent)
    return parent.span_id if parent is not None else span.run.span_id


def times_of(parts: Iterable[Sequence[Record]]) -> list[int]:
    """When the records of all parts were made, by the wall clock in nanoseconds."""
    return list(
        chain.from_iterable(
            part.times_ns if isinstance(part, Slice) else [record.time_ns for record in part]
            for part in parts
        )
    )


def first_of(part: Sequence[Record]) -> int:
    """The number of the first record."""
    return part.first if isinstance(part, Slice) else part[0].seq


def size_of(part: Sequence[Record]) -> int:
    """Bytes that the records count together."""
    return part.size if isinstance(part, Slice) else sum([record.size for record in part])


def sizes_of(part: Sequence[Record]) -> list[int]:
    """Bytes that each of them counts."""
    return part.sizes if isinstance(part, Slice) else [record.size for record in part]
