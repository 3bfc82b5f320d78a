"""The Bounds of a backlog: how much it holds, and from where on its lane is behind."""

from __future__ import annotations

from dataclasses import dataclass

_HIGH_WATER = 8_192
"""Records: some 0.1 s of a local store at full speed."""

_HIGH_WATER_BYTES = 32 << 20

_CAPACITY = 1_000_000
"""Records: what a lane that is not waited for may hold; its bytes are bounded anyway."""

_CAPACITY_BYTES = 512 << 20

_RESERVED = 10
"""One part in so many of the room is kept for level error and above."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Records and bytes; whichever is reached first.

    Args:
        high_water: records from which on the lane is behind.
        high_water_bytes: bytes from which on it is.
        capacity: records that the backlog may hold.
        capacity_bytes: bytes that it may hold.
    """

    high_water: int
    high_water_bytes: int
    capacity: int
    capacity_bytes: int

    @classmethod
    def of(
        cls,
        high_water: int | None,
        high_water_bytes: int | None,
        capacity: int | None,
        capacity_bytes: int | None,
    ) -> Bounds:
        """What is given; what is None follows from its counterpart, so that one bound alone never sets a trap."""
        records = _pair(high_water, capacity, _HIGH_WATER, _CAPACITY)
        size = _pair(high_water_bytes, capacity_bytes, _HIGH_WATER_BYTES, _CAPACITY_BYTES)
        return cls(records[0], size[0], records[1], size[1])

    @property
    def plain(self) -> int:
        """Records that the backlog may hold when one below level error comes."""
        return self.capacity - self.capacity // _RESERVED

    @property
    def plain_bytes(self) -> int:
        """The same in bytes."""
        return self.capacity_bytes - self.capacity_bytes // _RESERVED


def _pair(high: int | None, most: int | None, default_high: int, default_most: int) -> tuple[int, int]:
    if most is None:
        most = default_most if high is None else max(default_most, 2 * high)
    return (max(1, min(default_high, most // 2)) if high is None else high), most
