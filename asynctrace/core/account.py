"""The account of one producer: what a store holds of its numbers, against what the marks say it should.

Pure arithmetic on ranges; :mod:`asynctrace.verifying` brings the ranges from a store.

A mark says how many records of a range were handed to the store, not which. So a range with more missing than
explained has lost exactly that many; which ones is certain when nothing else is missing there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asynctrace.core.batch import Mark

Range = tuple[int, int]
"""First and last number; both belong to it."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Records that a mark says were stored, and that nothing explains the absence of.

    Args:
        first: first number of the marked range.
        last: its last number.
        records: how many were lost.
        missing: the numbers of the range that are not in the store, as (first, last) pairs.
    """

    first: int
    last: int
    records: int
    missing: tuple[Range, ...]

    @property
    def exact(self) -> bool:
        """Whether every missing number is a lost record; else the lost ones are among them."""
        return self.records == _size(self.missing)


@dataclass(frozen=True, slots=True)
class Unproven:
    """Numbers that no mark tells of: what is missing there may be lost, or may never have been meant to be there.

    Args:
        first: first number.
        last: last number.
        stored: how many of them are in the store.
        reason: why nothing can be said.
    """

    first: int
    last: int
    stored: int
    reason: str

    @property
    def missing(self) -> int:
        """How many of them are not in the store."""
        return self.last - self.first + 1 - self.stored


@dataclass(frozen=True, slots=True)
class ProducerAccount:
    """What became of the numbers of one producer in one store; all counts in records.

    Args:
        producer: who gave the numbers: one pipeline in one process.
        first: the lowest number that the store knows of.
        last: the highest one.
        stored: records in the store, each counted once.
        filtered: held back by a lane's rule or a processor, as the marks say.
        dropped: given up by policy or rejected for good, as the marks say.
        pruned: removed by retention, as the marks say.
        losses: what the marks promise and the store does not hold.
        unproven: what the marks say nothing about.
        doubles: copies beyond the first, in stores that take a batch at least once.
        unfinished: runs whose end this producer did not record: it still runs, or it was killed.
    """

    producer: str
    first: int
    last: int
    stored: int
    filtered: int
    dropped: int
    pruned: int
    losses: tuple[Loss, ...]
    unproven: tuple[Unproven, ...]
    doubles: int = 0
    unfinished: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """Lost records, over all ranges."""
        return sum(loss.records for loss in self.losses)

    @property
    def proven(self) -> bool:
        """Whether every number is accounted for and nothing can have come behind the last one."""
        return not (self.losses or self.unproven or self.unfinished)


@dataclass(slots=True)
class _Credit:
    """So many absences, anywhere between two numbers, that a mark explains."""

    first: int
    last: int
    left: int


class Account:
    """Gathers what a store says about one producer.

    Args:
        producer: the producer.
    """

    def __init__(self, producer: str) -> None:
        self._producer = producer
        self._stored: list[Range] = []
        self._marks: dict[Mark, None] = {}  # in the order they came, each once: a batch may be stored twice

    def add(self, first: int, last: int) -> None:
        """These numbers are in the store; both ends belong to them."""
        before = self._stored[-1] if self._stored else None
        if before is not None and first == before[1] + 1:
            self._stored[-1] = before[0], last
        else:
            self._stored.append((first, last))

    def mark(self, mark: Mark) -> None:
        """The store holds this mark."""
        self._marks[mark] = None

    def balance(self, unfinished: Iterable[str] = ()) -> ProducerAccount:
        """What all that comes to.

        Args:
            unfinished: runs of this producer that have not ended.
        """
        stored = _united(self._stored)
        covering = [mark for mark in self._marks if mark.last >= mark.first and not mark.pruned]
        pruning = [mark for mark in self._marks if mark.pruned]
        # A correction is an empty range behind the last record that it concerns; joined ones reach back further.
        corrections = [mark for mark in self._marks if mark.last < mark.first]
        credits = _Credits(
            [_Credit(mark.first, mark.last, mark.pruned) for mark in pruning]
            + [_Credit(0, mark.last, -mark.admitted) for mark in corrections]
        )
        losses: list[Loss] = []
        unproven: list[Unproven] = []
        filtered, dropped = 0, sum(mark.dropped for mark in corrections)
        groups = _overlapping(covering)
        # The first number that has not been looked at. Before the first record there is nothing to explain: a lane
        # that came later never saw those numbers.
        next_number = stored[0][0] if stored else groups[0][0].first if groups else 0
        at = 0  # where in `stored` the search begins: both lists ascend
        for group in groups:
            first, last = group[0].first, max(mark.last for mark in group)
            unproven += _unproven(stored, next_number, first - 1, "no mark tells of them")
            next_number = last + 1
            while at < len(stored) and stored[at][1] < first:
                at += 1
            missing = _missing(stored, first, last, at)
            mark = next((mark for mark in reversed(group) if (mark.first, mark.last) == (first, last)), None)
            if mark is None:
                unproven += _unproven(stored, first, last, "the marks contradict each other")
                continue
            filtered += mark.filtered
            dropped += mark.dropped
            explained = last - first + 1 - mark.admitted
            if lost := credits.use(first, last, _size(missing) - explained):
                losses.append(Loss(first, last, lost, tuple(missing)))
        if stored and stored[-1][1] >= next_number:
            end = stored[-1][1]
            here = end - next_number + 1 - _size(_missing(stored, next_number, end, at))
            unproven.append(Unproven(next_number, end, here, "no mark has come behind them"))
        known = [*stored, *((mark.first, mark.last) for mark in (*covering, *pruning))]
        return ProducerAccount(
            self._producer,
            first=min((first for first, _ in known), default=0),
            last=max((last for _, last in known), default=0),
            stored=_size(stored),
            filtered=filtered,
            dropped=dropped,
            pruned=sum(mark.pruned for mark in pruning),
            losses=tuple(losses),
            unproven=tuple(unproven),
            doubles=_size(self._stored) - _size(stored),
            unfinished=tuple(unfinished),
        )


class _Credits:
    """Absences that are explained, to be matched with the ranges where something is absent.

    Given out to ascending ranges, each time from what expires first: no other order explains more.
    """

    def __init__(self, credits: Iterable[_Credit]) -> None:
        self._credits = sorted(credits, key=lambda credit: credit.last)

    def use(self, first: int, last: int, absent: int) -> int:
        """How many of the absences in that range stay unexplained."""
        for credit in self._credits:
            if absent <= 0:
                break
            if credit.left > 0 and credit.first <= last and credit.last >= first:
                used = min(absent, credit.left)
                credit.left -= used
                absent -= used
        return max(0, absent)


def _unproven(stored: Sequence[Range], first: int, last: int, reason: str) -> list[Unproven]:
    """The numbers of that range, unless all of them are there: then nothing has to be proven."""
    absent = _size(_missing(stored, first, last)) if last >= first else 0
    return [Unproven(first, last, last - first + 1 - absent, reason)] if absent else []


def _overlapping(marks: Iterable[Mark]) -> list[list[Mark]]:
    """Marks in groups that share numbers, ascending; in each, those of one range in the order they came."""
    groups: list[list[Mark]] = []
    last = -1
    for mark in sorted(marks, key=lambda mark: mark.first):
        if groups and mark.first <= last:
            groups[-1].append(mark)
        else:
            groups.append([mark])
        last = max(last, mark.last)
    return groups


def _united(ranges: Iterable[Range]) -> list[Range]:
    """The ranges in ascending order, without overlaps, neighbours as one."""
    united: list[Range] = []
    for first, last in sorted(ranges):
        if united and first <= united[-1][1] + 1:
            united[-1] = united[-1][0], max(last, united[-1][1])
        else:
            united.append((first, last))
    return united


def _missing(stored: Sequence[Range], first: int, last: int, at: int = 0) -> list[Range]:
    """The numbers from first to last that are not stored; the search begins at that place."""
    missing: list[Range] = []
    for index in range(at, len(stored)):
        low, high = stored[index]
        if low > last:
            break
        if high < first:
            continue
        if low > first:
            missing.append((first, low - 1))
        first = max(first, high + 1)
    if first <= last:
        missing.append((first, last))
    return missing


def _size(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)
