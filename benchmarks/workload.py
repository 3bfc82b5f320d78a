"""The record that everybody makes: one message, three fields (an int, a text, a float), and where it goes."""

from __future__ import annotations

from asynctrace import Batch, LocalSink

RETAINED = 20_000
"""Records of one sample: all wait in the queue at its end, a burst that the writer has not seen yet."""


class CountingSink(LocalSink):
    """Counts what arrives and keeps nothing, so that a row about the caller measures the caller."""

    def __init__(self) -> None:
        self.count = 0

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, batch: Batch) -> None:
        """Count."""
        self.count += len(batch)

    def write_now(self, batch: Batch) -> None:
        """Count."""
        self.count += len(batch)

    async def aclose(self) -> None:
        """Nothing to close."""
