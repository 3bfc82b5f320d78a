"""The Tally: what became of every number of a producer in one lane, told in marks."""

from __future__ import annotations

from dataclasses import dataclass

from asynctrace.core.batch import Mark


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
        return ended

    def gave_out(self, count: int) -> None:
        """So many records in front of the next range left the backlog for a batch."""
        self._given_out += count

    def mark(self, ended: Range) -> Mark:
        """The mark of a range whose records have all left the backlog."""
        admitted, self._given_out = self._given_out, 0
        dropped = ended.last - ended.first + 1 - admitted - ended.filtered
        return Mark(self._producer, ended.first, ended.last, admitted, ended.filtered, dropped)

    def lost(self, last: int, count: int, producer: str | None = None) -> None:
        """So many records up to that number were given out but are not in the store and never will be.

        Args:
            last: the highest of their numbers.
            count: how many.
            producer: whose, when it was another process.
        """
        self._owe(Mark(producer or self._producer, last + 1, last, admitted=-count, dropped=count))

    def not_stored(self, marks: tuple[Mark, ...]) -> None:
        """The batch that carried these marks failed; they are owed to the next one."""
        for mark in marks:
            self._owe(mark)

    def stored(self, marks: tuple[Mark, ...]) -> None:
        """These marks are in the store, or on disk on their way there."""
        self._stored_apart += [mark for mark in marks if mark.producer == self._producer]
        left = []
        for mark in self._stored_apart:
            if mark.first == self._stored.last + 1 or (mark.last < mark.first <= self._stored.last + 1):
                before = self._stored
                self._stored = Mark(
                    before.producer,
                    before.first,
                    max(before.last, mark.last),
                    before.admitted + mark.admitted,
                    before.filtered + mark.filtered,
                    before.dropped + mark.dropped,
                )
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
            if (joined := _join(self._owed[place], mark)) is not None:
                self._owed[place] = joined
                return
        self._owed.append(mark)


def _join(one: Mark, other: Mark) -> Mark | None:
    if one.producer != other.producer:
        return None
    if one.first <= one.last and other.first == one.last + 1 <= other.last:
        first, last = one.first, other.last
    elif other.first == other.last + 1 and one.first <= other.last <= one.last:
        first, last = one.first, one.last  # a correction within the range
    elif other.first == other.last + 1 and one.first == one.last + 1:
        first, last = max(one.first, other.first), max(one.last, other.last)
    else:
        return None
    return Mark(
        one.producer,
        first,
        last,
        one.admitted + other.admitted,
        one.filtered + other.filtered,
        one.dropped + other.dropped,
    )
