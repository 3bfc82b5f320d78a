"""A Backlog: what waits for one sink, bounded by a named policy, given out in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.level import Level
from asynctrace.core.record import Record
from asynctrace.pipeline.options import LaneOptions
from asynctrace.pipeline.spool import Position
from asynctrace.pipeline.tally import Range, Tally

_RESERVED = 10
"""One part in so many of the room is kept for level error and above."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A place in the backlog; ``done`` is called, in any thread, when everything before it is settled."""

    done: Callable[[], None]


@dataclass(slots=True, eq=False)
class Load:
    """A batch on its way, what was tried with it, and who waits for it.

    Args:
        batch: the records; may be empty.
        waiters: done when this load and all before it are settled.
        started: monotonic seconds of the first try; None before it.
        attempts: failed tries since the last progress.
        surprises: those of them that failed with an error that no sink should raise.
        on_disk: whether its records are in the spool until they are settled.
        position: what to acknowledge there then; None when a part of the same batch comes behind it.
    """

    batch: Batch
    waiters: list[Waiter] = field(default_factory=list)
    started: float | None = None
    attempts: int = 0
    surprises: int = 0
    on_disk: bool = False
    position: Position | None = None


class Backlog:
    """Keeps records in order, with the ends of ranges and the waiters between them.

    Args:
        options: bounds and policy.
        tally: told what is given out.
    """

    def __init__(self, options: LaneOptions, tally: Tally) -> None:
        self.waiting = 0  # records
        self._options = options
        self._tally = tally
        self._items: deque[Sequence[Record] | Record | Range | Waiter] = deque()
        self._parts = 0  # items that are many records
        self._room = options.capacity - options.capacity // _RESERVED
        self._kept = 0  # items at the front that `drop_oldest` may not take; it need not look at them again

    def __bool__(self) -> bool:
        return bool(self._items)

    def extend(self, records: Sequence[Record]) -> list[Record]:
        """Take the records as far as there is room; those that were dropped for it, newcomers or others."""
        if self.waiting + len(records) <= self._room:
            if records:
                self._items.append(records)
                self._parts += 1
                self.waiting += len(records)
            return []
        self._take_apart()
        dropped: list[Record] = []
        for record in records:
            full = self.waiting >= (self._options.capacity if record.level >= Level.ERROR else self._room)
            if (
                full
                and self._options.when_full in ("drop_oldest", "spill")
                and (oldest := self._drop_oldest()) is not None
            ):
                dropped.append(oldest)
            elif full:
                dropped.append(record)
                continue
            self._items.append(record)
            self.waiting += 1
        return dropped

    def _take_apart(self) -> None:
        """Have each record stand for itself, so that any of them can be dropped."""
        if self._parts:
            self._items = deque(
                single for item in self._items for single in (item if isinstance(item, Sequence) else (item,))
            )
            self._parts = 0

    def _drop_oldest(self) -> Record | None:
        items = self._items
        for index in range(self._kept, len(items)):
            item = items[index]
            if isinstance(item, Record) and item.level < Level.ERROR:
                del items[index]
                self._kept = index
                self.waiting -= 1
                return item
        self._kept = len(items)
        return None

    def end_range(self, ended: Range) -> None:
        """A range of numbers ends here; its mark goes with the batch before."""
        self._items.append(ended)

    def add_waiter(self, waiter: Waiter) -> None:
        """Somebody waits for everything that is in the backlog now."""
        self._items.append(waiter)

    def cut(self) -> Load:
        """Take the next batch from the front, with what stands right behind it."""
        options, items, tally = self._options, self._items, self._tally
        most = min(self.waiting, options.max_records)
        if self.waiting > options.short:
            most = 1 << (most.bit_length() - 1)
        parts: list[Sequence[Record]] = []
        singles: list[Record] = []  # neighbours that have been taken apart
        marks: list[Mark] = tally.take_owed()
        waiters: list[Waiter] = []
        taken = given = 0  # records; those already told to the tally
        while items:
            item = items[0]
            if isinstance(item, Record):
                if taken == most:
                    break
                if not singles:
                    parts.append(singles)
                singles.append(item)
                taken += 1
            elif isinstance(item, Sequence):
                if taken == most:
                    break
                singles = []
                if taken + len(item) > most:
                    items[0] = item[most - taken :]
                    parts.append(item[: most - taken])
                    taken = most
                    break
                parts.append(item)
                taken += len(item)
                self._parts -= 1
            elif isinstance(item, Range):
                tally.gave_out(taken - given)
                given = taken
                marks.append(tally.mark(item))
            else:
                waiters.append(item)
            items.popleft()
        tally.gave_out(taken - given)
        self.waiting -= taken
        self._kept = 0
        return Load(Batch.of_parts(parts, marks), waiters)
