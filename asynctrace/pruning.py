"""Removing old runs from a store when somebody says so: ``aprune`` and ``prune``."""

from __future__ import annotations

from asynctrace.core.clock import SYSTEM_CLOCK
from asynctrace.errors import ConfigurationError
from asynctrace.pipeline.loop_thread import loop_thread
from asynctrace.ports import Reader
from asynctrace.reading import open_reader
from asynctrace.retention import Retention


async def aprune(
    store: str | Reader | None = None, *, days: float | None = None, max_bytes: int | None = None
) -> int:
    """Remove the oldest runs of a store; how many records went. Marks tell ``verify`` what they were.

    Args:
        store: the URL of a store, or a reader; by default the first readable store of the process default.
        days: runs whose newest record is older go.
        max_bytes: while the store takes more, its oldest runs go; the newest stays.

    Raises:
        StoreError: the store is not there, or cannot be written.
        ConfigurationError: neither is given, or a value cannot be used.
    """
    retention = Retention(0.0 if days is None else days, 0 if max_bytes is None else max_bytes)
    if not retention.removes:
        raise ConfigurationError("days", days, "a number of days above 0, or max_bytes")
    reader, owned = open_reader(store)
    try:
        return await retention.apply(reader, SYSTEM_CLOCK.time_ns())
    finally:
        if owned:
            await reader.aclose()


def prune(
    store: str | Reader | None = None, *, days: float | None = None, max_bytes: int | None = None
) -> int:
    """As :func:`aprune`, for code without an event loop; blocks the calling thread.

    Example:
        >>> import tempfile
        >>> from asynctrace import Trace
        >>> url = f"sqlite:{tempfile.mkdtemp()}/t.db"
        >>> with Trace("run-1", sinks=[url]) as trace:
        ...     trace.info("hello")
        >>> prune(url, days=10)
        0
    """
    return loop_thread.wait_for(aprune(store, days=days, max_bytes=max_bytes))
