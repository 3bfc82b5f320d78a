"""Identifiers: UUIDv7 for runs, W3C sizes for traces and spans, a producer per process and pipeline.

Formats: RFC 9562 section 5.7 (UUIDv7); W3C Trace Context section 3.2.2 (trace-id, parent-id).
"""

from __future__ import annotations

import itertools
import os
import random
import time
import uuid
from collections.abc import Iterator

_CUT_LENGTH = 8

span_ids: Iterator[int]
"""What :func:`new_span_id` gives, one after the other; a forked child has its own."""

_random = random.Random()  # not a secret: ids must be unlikely to meet, not hard to guess


def reseed() -> None:
    """Give this process its own sequence of ids; a forked child would repeat its parent's."""
    global span_ids
    _random.seed(os.urandom(32))
    span_ids = itertools.count(_random.getrandbits(63) + 1)


reseed()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reseed)


def new_run_id() -> str:
    """A UUIDv7: unique, and sorts by the time it was made (milliseconds).

    >>> uuid.UUID(new_run_id()).version
    7
    """
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | _random.getrandbits(12) << 64
    value |= 2 << 62 | _random.getrandbits(62)
    return str(uuid.UUID(int=value))


def new_trace_id() -> int:
    """128 random bits, never zero (W3C forbids it)."""
    return _random.getrandbits(128) or 1


def new_span_id() -> int:
    """64 bits, never zero (W3C forbids it): they start at random in each process and count from there.

    Counting costs a third of drawing; two processes meet only if their starts lie as close as they have spans.
    """
    return next(span_ids)


def new_producer() -> str:
    """16 hex digits that name one writer of records in one process."""
    return f"{_random.getrandbits(64):016x}"


def cut_id(run_id: str) -> str:
    """The short form of a run id that people read: its last 8 characters."""
    return run_id[-_CUT_LENGTH:]
