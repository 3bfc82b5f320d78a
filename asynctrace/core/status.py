"""How a span or a run ended."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """How a span or a run ended, or that it has not."""

    RUNNING = 0
    OK = 1
    ERROR = 2
    CANCELLED = 3
    INTERRUPTED = 4

    @property
    def label(self) -> str:
        """The lower-case name, as every store keeps it."""
        return self.name.lower()
