"""The Tally: what became of every number of a producer in one lane, told in marks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from asynctrace.core.batch import Mark
from asynctrace.core.record import Record

_KNOWN_ENDS = 1_024
"""So many ends of ranges are remembered for each producer; what is still on its way is younger."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers that are through the lane's rules; it stands in the backlog behind the last of them.

    Args:
        first: first number.
        last: last number.
        filtered: how many were held back by the lane's rule or a processor.
    """

    first: int
    last: int
    filtered: int


class Tally:
    """Adds up marks so that each holds ``last - first + 1 = admitted + filtered + dropped``.

    What is filtered is known when a range ends; what is dropped only when the backlog has given out what was
    left of it. A record that is lost after its mark was made is told by a correction: an empty range
    (``first = last + 1``) that takes from ``admitted`` what it adds to ``dropped``.

    Args:
        producer: who numbers the records.
        first: the next number to come.
    """

    def __init__(self, producer: str, first: int) -> None:
        self._producer = producer
        self._first = first
        self._filtered = 0
        self._given_out = 0
        self._owed: list[Mark] = []
        self._stored = Mark(
            producer, first, first - 1, 0
        )  # the sum of the marks that are in the store, or on disk
        self._stored_apart: list[Mark] = []  # in the store, but one before them is not
        self._ends: dict[str, list[int]] = {}  # where ranges end, in order, by producer

    def held_back(self, count: int) -> None:
        """So many numbers of the open range were filtered."""
        self._filtered += count

    def size(self, next_seq: int) -> int:
        """How many numbers the open range holds."""
        return next_seq - self._first

    def end_range(self, next_seq: int) -> Range | None:
        """Close the open range before that number; None when it is empty."""
        if next_seq == self._first:
            return None
        ended = Range(self._first, next_seq - 1, self._filtered)
        self._first, self._filtered = next_seq, 0
        self._ends_at(self._producer, ended.last)
        return ended

    def gave_out(self, count: int) -> None:
        """So many records in front of the next range left the backlog for a batch."""
        self._given_out += count

    def mark(self, ended: Range) -> Mark:
        """The mark of a range whose records have all left the backlog."""
        admitted, self._given_out = self._given_out, 0
        dropped = ended.last - ended.first + 1 - admitted - ended.filtered
        return Mark(self._producer, ended.first, ended.last, admitted, ended.filtered, dropped)

    def lost(self, records: Sequence[Record]) -> None:
        """These records were given out but are not in the store and never will be; each is told in its own range."""
        last: dict[tuple[str, int], int] = {}
        counts: Counter[tuple[str, int]] = Counter()
        for record in records:
            place = (record.producer, self._range_of(record.producer, record.seq))
            counts[place] += 1
            last[place] = max(last.get(place, 0), record.seq)
        for place, count in counts.items():
            self.lost_up_to(last[place], count, place[0])

    def lost_up_to(self, last: int, count: int, producer: str | None = None) -> None:
        """So many records up to that number were given out but are not in the store and never will be.

        Args:
            last: the highest of their numbers.
            count: how many.
            producer: whose, when it was another process.
        """
        self._owe(Mark(producer or self._producer, last + 1, last, admitted=-count, dropped=count))

    def passed(self, marks: Sequence[Mark]) -> None:
        """A batch carried these marks: that is where their ranges begin and end."""
        for mark in marks:
            if not mark.is_correction:
                self._ends_at(mark.producer, mark.first - 1)
                self._ends_at(mark.producer, mark.last)

    def not_stored(self, marks: tuple[Mark, ...]) -> None:
        """The batch that carried these marks failed; they are owed to the next one."""
        for mark in marks:
            self._owe(mark)

    def stored(self, marks: tuple[Mark, ...]) -> None:
        """These marks are in the store, or on disk on their way there."""
        self._stored_apart += [mark for mark in marks if mark.producer == self._producer]
        left = []
        for mark in self._stored_apart:
            following = self._stored.last + 1
            if mark.first == following or (mark.is_correction and mark.first < following):
                self._stored = self._stored.plus(mark)
            else:
                left.append(mark)
        self._stored_apart = left

    @property
    def stored_sum(self) -> Mark:
        """What the marks in the store add up to, from the first number to the last one without a gap."""
        return self._stored

    @property
    def owes(self) -> bool:
        """Whether marks wait for a batch to carry them."""
        return bool(self._owed)

    def take_owed(self) -> list[Mark]:
        """The marks that the next batch has to carry besides its own."""
        owed, self._owed = self._owed, []
        return owed

    def _owe(self, mark: Mark) -> None:
        # A store that is away for days must not make the list grow: neighbours become one.
        for place in range(len(self._owed) - 1, max(-1, len(self._owed) - 3), -1):
            if (joined := self._join(self._owed[place], mark)) is not None:
                self._owed[place] = joined
                return
        self._owed.append(mark)

    def _join(self, one: Mark, other: Mark) -> Mark | None:
        if one.is_correction and other.is_correction and self._in_one_range(one, other):
            return other.plus(one) if one.last < other.last else one.plus(other)
        return one.joined(other)

    def _in_one_range(self, one: Mark, other: Mark) -> bool:
        if one.producer != other.producer:
            return False
        return self._range_of(one.producer, one.last) == self._range_of(other.producer, other.last)

    def _ends_at(self, producer: str, last: int) -> None:
        ends = self._ends.setdefault(producer, [])
        place = bisect_left(ends, last)
        if ends[place : place + 1] != [last]:
            ends.insert(place, last)
            del ends[:-_KNOWN_ENDS]

    def _range_of(self, producer: str, seq: int) -> int:
        """A number for the range that holds it: the end of the one before, as far as is known."""
        ends = self._ends.get(producer)
        if not ends:
            return 0
        place = bisect_left(ends, seq)
        return ends[place - 1] if place else 0
