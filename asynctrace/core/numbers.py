"""Numbers: the keys of stored records, told as ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Numbers(NamedTuple):
    """Consecutive numbers of one producer; both ends belong to it.

    Args:
        producer: who gave the numbers.
        first: the lowest.
        last: the highest.
    """

    producer: str
    first: int
    last: int


def in_ranges(keys: Iterable[tuple[str, int]]) -> Iterator[Numbers]:
    """Keys ``(producer, seq)`` as ranges, in the order they come; a key that comes twice is in two ranges.

    >>> list(in_ranges([("p", 1), ("p", 2), ("p", 4), ("p", 4), ("q", 5)]))[:2]
    [Numbers(producer='p', first=1, last=2), Numbers(producer='p', first=4, last=4)]
    """
    producer: str | None = None
    first = last = 0
    for who, seq in keys:
        if who == producer and seq == last + 1:
            last = seq
            continue
        if producer is not None:
            yield Numbers(producer, first, last)
        producer, first, last = who, seq, seq
    if producer is not None:
        yield Numbers(producer, first, last)
