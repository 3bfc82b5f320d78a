"""The Allowance: how many records may wait in the Intake, so that neither their number nor their bytes run away."""

from __future__ import annotations

from collections import deque
from typing import Any

from asynctrace.core.record import RawRecord
from asynctrace.core.size import RAW_BYTES, raw_size

_RESERVED = 10
"""One part in so many of the room is kept for records of level error and above."""

_STEP = 512
"""Records between two looks at their sizes, at most; fewer when so many of 1 MiB would be more than the bound."""

_SAMPLE = 4
"""Records whose size is looked at then; measuring each would cost its caller more than appending it."""

_SLICE_BYTES = 1 << 20
"""Bytes of one slice: between two slices the event loop runs, and large texts take long to search for secrets."""


class Allowance:
    """Keeps the bounds of a queue whose producers count records, never bytes.

    Somebody must :meth:`look` when so many records wait as ``next_look`` says. Their bytes are estimated from a few
    of those that came since; what the writer takes is known. When the queue is empty, nothing is estimated.

    Args:
        max_records: that may wait.
        max_bytes: that may wait; a burst may exceed it by as much again until somebody looks.
    """

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._step = max(16, min(_STEP, max_bytes >> 20))
        self.clear()

    def clear(self) -> None:
        """Nothing waits."""
        self._seen = 0  # records, from the front, that are in the bytes
        self._bytes = 0
        self._typical = RAW_BYTES
        self._bound(0)

    def look(self, records: deque[Any]) -> None:
        """Estimate the bytes of what came since the last look."""
        waiting = len(records)
        unseen = waiting - self._seen
        if unseen > 0:
            sizes = []
            # Item by item: other threads append meanwhile, which would break an iterator.
            for place in range(-1, -unseen - 1, -max(1, unseen // _SAMPLE)):
                try:
                    item = records[place]
                except IndexError:  # the writer has taken the rest
                    break
                if isinstance(item, RawRecord):
                    sizes.append(raw_size(item))
            if sizes:
                self._typical = sum(sizes) // len(sizes)
            self._bytes += self._typical * unseen
            self._seen = waiting
        self._bound(waiting)

    def took(self, count: int, size: int, left: int) -> None:
        """The writer has taken so many records of that size; so many are left."""
        if not left:
            self._seen = self._bytes = 0
        elif self._seen:
            self._seen = max(0, self._seen - count)
            self._bytes = max(0, self._bytes - size)
        self._bound(left)

    def _bound(self, waiting: int) -> None:
        left = self._max_bytes - self._bytes
        self.capacity = min(self._max_records, max(1, waiting + left // self._typical))
        """Records that may wait when one of level error or above comes."""
        left -= self._max_bytes // _RESERVED
        plain = self._max_records - self._max_records // _RESERVED
        self.plain = min(plain, max(1, waiting + left // self._typical))
        """The same for other records."""
        self.next_look = min(self.plain, waiting + self._step)
        """So many records may wait before somebody has to look."""

    @property
    def at_once(self) -> int:
        """Records that the writer may take in one slice, for it makes copies of them."""
        return max(1, _SLICE_BYTES // self._typical)
