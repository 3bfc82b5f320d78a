"""A Backlog: what waits for one sink, bounded by a named policy, given out in batches."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.level import Level
from asynctrace.core.record import Record
from asynctrace.core.slice import SLICE, first_of, size_of, sizes_of
from asynctrace.pipeline.options import LaneOptions
from asynctrace.pipeline.stream_queue import Position
from asynctrace.pipeline.tally import Range, Tally


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A place in the backlog; ``done`` is called, in any thread, when everything before it is settled."""

    done: Callable[[], None]


_Item: TypeAlias = Sequence[Record] | Record | Range | Waiter


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

    Newcomers for which there is no room wait at the door, and come in, in order, as room returns; whoever does not
    wait for that has them :meth:`press` in by the policy.

    Args:
        options: bounds and policy.
        tally: told what is given out.
    """

    def __init__(self, options: LaneOptions, tally: Tally) -> None:
        self.waiting = 0  # records
        self.size = 0  # their bytes
        self.held = 0  # records at the door
        self.held_size = 0  # their bytes
        self._options = options
        self._bounds = options.bounds
        self._tally = tally
        self._items: deque[_Item] = deque()
        self._door: deque[_Item] = deque()  # empty, or begins with records
        self._parts = 0  # items that are many records
        self._room = self._bounds.plain
        self._room_bytes = self._bounds.plain_bytes
        self._kept = 0  # items at the front that `drop_oldest` may not take; it need not look at them again

    def __bool__(self) -> bool:
        return bool(self._items)

    def extend(self, records: Sequence[Record]) -> None:
        """Take the records as far as there is room; the rest waits at the door."""
        if not records:
            return
        size = size_of(records)
        if self._door:
            self._hold(records, size)
        elif self.waiting + len(records) <= self._room and self.size + size <= self._room_bytes:
            self._append(records, size)
        else:
            self._hold(records, size)
            self._let_in()

    def press(self) -> list[Record]:
        """Take what waits at the door by the policy; those that were dropped for it, newcomers or others."""
        self._take_apart()
        dropped: list[Record] = []
        door, self._door = self._door, deque()
        self.held = self.held_size = 0
        for item in door:
            if not isinstance(item, Sequence):
                self._items.append(item)
                continue
            for record in item:
                if self._full(record) and not self._make_room(record, dropped):
                    dropped.append(record)
                    continue
                self._items.append(record)
                self.waiting += 1
                self.size += record.size
        return dropped

    def _append(self, records: Sequence[Record], size: int) -> None:
        self._items.append(records)
        self._parts += 1
        self.waiting += len(records)
        self.size += size

    def _hold(self, records: Sequence[Record], size: int) -> None:
        self._door.append(records)
        self.held += len(records)
        self.held_size += size

    def _let_in(self) -> None:
        """Have come in from the door what there is room for; an empty backlog takes any record."""
        door = self._door
        while door:
            item = door[0]
            if not isinstance(item, Sequence):
                self._items.append(item)
                door.popleft()
                continue
            fitting = min(len(item), self._room - self.waiting)
            if fitting > 0 and self.size + size_of(item) > self._room_bytes:
                fitting = min(fitting, _fitting(item, self._room_bytes - self.size))
            fitting = fitting if fitting > 0 or self.waiting else 1
            if fitting <= 0:
                return
            part = item[:fitting]
            if fitting < len(item):
                door[0] = item[fitting:]
            else:
                door.popleft()
            size = size_of(part)
            self.held -= fitting
            self.held_size -= size
            self._append(part, size)

    def _make_room(self, record: Record, dropped: list[Record]) -> bool:
        """Drop the oldest for the record, as much as it takes and no more; whether there is room for it now."""
        if self._options.when_full not in ("drop_oldest", "spill"):
            return False
        freed = 0
        while (oldest := self._drop_oldest()) is not None:
            dropped.append(oldest)
            freed += oldest.size
            # One record for one record, and bytes for bytes: errors may be beyond the room that others have.
            if freed >= record.size or self.size + record.size <= self._most(record)[1]:
                return True
        return not self._full(record)  # it may be the only one now

    def _full(self, record: Record) -> bool:
        """Whether there is no room for the record; an empty backlog takes any."""
        most, most_bytes = self._most(record)
        return self.waiting > 0 and (self.waiting >= most or self.size + record.size > most_bytes)

    def _most(self, record: Record) -> tuple[int, int]:
        """Records and bytes that the record may find, or make up."""
        if record.level >= Level.ERROR:
            return self._bounds.capacity, self._bounds.capacity_bytes
        return self._room, self._room_bytes

    @property
    def ripe(self) -> bool:
        """Whether enough waits for a write."""
        return self.waiting >= self._options.trigger or self.size >= self._options.max_bytes or self.high

    @property
    def behind(self) -> bool:
        """Whether so much waits that the writer should wait too, if the policy has it do so."""
        if self._options.when_full == "spill":
            return bool(self._door) or not self.half_empty
        return self.high

    @property
    def caught_up(self) -> bool:
        """Whether it need not wait any longer."""
        if self._door:
            return False
        return self.half_empty if self._options.when_full == "spill" else self.low

    @property
    def high(self) -> bool:
        """Whether as much waits as high water is, or more."""
        bounds = self._bounds
        return self.waiting >= bounds.high_water or self.size >= bounds.high_water_bytes or bool(self._door)

    @property
    def low(self) -> bool:
        """Whether no more than half of that waits."""
        bounds = self._bounds
        return self.waiting <= bounds.high_water // 2 and self.size <= bounds.high_water_bytes // 2

    @property
    def half_empty(self) -> bool:
        """Whether at least half of the room is free."""
        bounds = self._bounds
        return self.waiting <= bounds.capacity // 2 and self.size <= bounds.capacity_bytes // 2

    def _take_apart(self) -> None:
        """Have each record stand for itself, so that any of them can be dropped."""
        if self._parts:
            self._items = deque(
                single for item in self._items for single in (item if isinstance(item, Sequence) else (item,))
            )
            self._parts = 0

    @property
    def oldest(self) -> int | None:
        """The number of the record that comes next; None when none waits."""
        for item in self._items if self.waiting else ():
            if isinstance(item, Record):
                return item.seq
            if isinstance(item, Sequence):
                return first_of(item)
        return None

    def _drop_oldest(self) -> Record | None:
        items = self._items
        for index in range(self._kept, len(items)):
            item = items[index]
            if isinstance(item, Record) and item.level < Level.ERROR:
                del items[index]
                self._kept = index
                self.waiting -= 1
                self.size -= item.size
                return item
        self._kept = len(items)
        return None

    def end_range(self, ended: Range) -> None:
        """A range of numbers ends here; its mark goes with the batch before."""
        self._behind_all.append(ended)

    def add_waiter(self, waiter: Waiter) -> None:
        """Somebody waits for everything that is in the backlog now."""
        self._behind_all.append(waiter)

    @property
    def _behind_all(self) -> deque[_Item]:
        """Where to stand behind everything that is here."""
        return self._door or self._items

    def cut(self, *, for_disk: bool = False) -> Load:
        """Take the next batch from the front, with what stands right behind it.

        Args:
            for_disk: it goes to the spool, which takes more at once than the sink may.
        """
        options, items, tally = self._options, self._items, self._tally
        most = min(self.waiting, max(options.max_records, SLICE) if for_disk else options.max_records)
        if self.waiting > options.short and not for_disk:
            most = 1 << (most.bit_length() - 1)
        parts: list[Sequence[Record]] = []
        singles: list[Record] = []  # neighbours that have been taken apart
        marks: list[Mark] = tally.take_owed()
        waiters: list[Waiter] = []
        taken = given = 0  # records; those already told to the tally
        size, most_bytes = 0, options.max_bytes
        while items:
            item = items[0]
            if isinstance(item, Record):
                if taken == most or (taken and size + item.size > most_bytes):
                    break
                if not singles:
                    parts.append(singles)
                singles.append(item)
                taken += 1
                size += item.size
            elif isinstance(item, Sequence):
                if taken == most:
                    break
                singles = []
                fitting = most - taken
                if size + size_of(item) > most_bytes:
                    fitting = min(fitting, _fitting(item, most_bytes - size) or not taken)
                if fitting < len(item):
                    if fitting:
                        parts.append(item[:fitting])
                        items[0] = item[fitting:]
                        taken += fitting
                        size += size_of(parts[-1])
                    break
                parts.append(item)
                taken += len(item)
                size += size_of(item)
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
        self.size -= size
        self._kept = 0
        if self._door:
            self._let_in()
        return Load(Batch.of_parts(parts, marks), waiters)


def _fitting(part: Sequence[Record], room: int) -> int:
    """How many of the first records have no more bytes than the room."""
    return bisect_right(list(accumulate(sizes_of(part))), room)
