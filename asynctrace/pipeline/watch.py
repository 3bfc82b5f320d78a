"""A Watch: which records of one lane somebody waits for, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from asynctrace.core.record import Record
from asynctrace.pipeline.awaited import Awaited, Claims, Part
from asynctrace.pipeline.ledger import LaneCounts
from asynctrace.ports import Safety

_Claim = tuple[Awaited, Part]


class Watch:
    """False while nobody waits for anything; then the lane need not tell it anything. On the home loop.

    Args:
        lane: the lane's name.
        sink: the sink, as it shows itself.
        safety: what a record survives once the sink took it.
        counts: of the lane; for the last error.
        producer: of the lane's own records; those of others, adopted from disk, nobody waits for.
    """

    def __init__(self, lane: str, sink: object, safety: Safety, counts: LaneCounts, producer: str) -> None:
        self.lane = lane
        self.sink = sink
        self.safety = safety
        self._counts = counts
        self._producer = producer
        self._expected: Mapping[int, Claims] = {}
        self._open: dict[int, list[_Claim]] = {}
        self._on_disk: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._open or self._expected)

    @property
    def wants_disk(self) -> bool:
        """Whether anybody waits for records to be on disk at least."""
        return any(awaited.to == "disk" for claims in self._open.values() for awaited, _ in claims)

    @property
    def reason(self) -> str | None:
        """The last error of the lane in words."""
        return self._counts.last_error

    def expect(self, numbered: Mapping[int, Claims]) -> None:
        """These are about to be offered."""
        self._expected = numbered

    def admitted(self, records: Iterable[Record]) -> None:
        """The lane takes these; the others that were expected are filtered, and nobody waits for them here."""
        expected, self._expected = self._expected, {}
        for record in records:
            if (claims := expected.get(record.seq)) is not None:
                self._open[record.seq] = [(awaited, awaited.admitted(self)) for awaited in claims]

    def safe(self, records: Iterable[Record]) -> None:
        """The sink took them."""
        self._end(records, lambda awaited, part, was_on_disk: awaited.safe(part, was_on_disk=was_on_disk))

    def lost(self, records: Iterable[Record], reason: str) -> None:
        """They were dropped, or rejected for good."""
        self._end(
            records, lambda awaited, part, was_on_disk: awaited.lost(part, reason, was_on_disk=was_on_disk)
        )

    def spooled(self, records: Iterable[Record]) -> None:
        """They are on disk."""
        for record in records:
            claims = self._open.get(record.seq)
            if claims is None or record.producer != self._producer or record.seq in self._on_disk:
                continue
            self._on_disk.add(record.seq)
            claims[:] = [claim for claim in claims if not claim[0].spooled(claim[1])]
            self._drop_if_empty(record.seq, claims)

    def disk_is_empty(self) -> None:
        """What was on disk and was not given back is damaged."""
        for seq in list(self._on_disk):
            for awaited, part in self._open.pop(seq, ()):
                awaited.lost(part, "spool: damaged", was_on_disk=True)
        self._on_disk.clear()

    def end(self) -> None:
        """The lane is at its end: what is on disk stays there."""
        for claims in self._open.values():
            for awaited, _ in claims:
                awaited.stranded()
        self._open.clear()
        self._on_disk.clear()

    def _end(self, records: Iterable[Record], how: Callable[[Awaited, Part, bool], None]) -> None:
        for record in records:
            if record.producer != self._producer:
                continue
            was_on_disk = record.seq in self._on_disk
            self._on_disk.discard(record.seq)
            for awaited, part in self._open.pop(record.seq, ()):
                how(awaited, part, was_on_disk)

    def _drop_if_empty(self, seq: int, claims: list[_Claim]) -> None:
        if not claims:
            del self._open[seq]
            self._on_disk.discard(seq)
