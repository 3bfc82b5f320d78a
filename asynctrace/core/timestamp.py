"""The one text form of a moment: ``YYYY-MM-DD HH:MM:SS.ffffff`` in UTC.

It sorts as text and compares with SQLite's ``datetime('now')``; with a ``T`` it would not.
"""

from __future__ import annotations

import struct
import time
from datetime import UTC, datetime
from operator import itemgetter

SECOND_NS = 1_000_000_000
"""A second in nanoseconds."""

THREE_DIGITS = tuple(f"{number:03d}" for number in range(1000))
"""Numbers below a thousand as text; a format specification costs more than the rest of a stamp."""

_NINETEEN_DIGITS = 10**18

micros_of_digits = itemgetter(slice(10, 16))
"""The microseconds of a stamp in nanoseconds that is text of nineteen digits, see :func:`have_nineteen_digits`."""

_MICROS_OF_LINE = "10x6s4x"  # seconds, microseconds, the rest of the nanoseconds with the line end

_seconds: dict[int, str] = {}
_CACHED_SECONDS = 64  # records arrive in time order, so few seconds are alive at once


def to_text(time_ns: int) -> str:
    """A wall-clock stamp in nanoseconds as text, to the microsecond.

    >>> to_text(1_700_000_000_123_456_789)
    '2023-11-14 22:13:20.123456'
    """
    second, rest = divmod(time_ns, SECOND_NS)
    prefix = _seconds.get(second)
    if prefix is None:
        if len(_seconds) >= _CACHED_SECONDS:
            _seconds.clear()
        prefix = time.strftime("%Y-%m-%d %H:%M:%S.", time.gmtime(second))
        _seconds[second] = prefix
    millis, micros = divmod(rest // 1000, 1000)
    return f"{prefix}{THREE_DIGITS[millis]}{THREE_DIGITS[micros]}"


def from_text(text: str) -> int:
    """The stamp in nanoseconds of :func:`to_text`'s form, or of ISO 8601; without a zone it is UTC.

    Raises:
        ValueError: the text is not a moment.

    >>> from_text("2023-11-14 22:13:20.123456")
    1700000000123456000
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * SECOND_NS + delta.microseconds * 1000


def have_nineteen_digits(oldest: int, newest: int) -> bool:
    """Whether the first ten digits of both stamps are their seconds, as they are from 2001 to 2286.

    >>> have_nineteen_digits(1_700_000_000_123_456_789, 1_800_000_000_123_456_789)
    True
    """
    return oldest >= _NINETEEN_DIGITS and newest < 10 * _NINETEEN_DIGITS


def micros_of_lines(digits: bytes, count: int) -> tuple[bytes, ...]:
    """The microseconds of so many stamps of nineteen digits, each with a line end behind it.

    >>> micros_of_lines(b"1700000000123456789\\n1700000000000001000\\n", 2)
    (b'123456', b'000001')
    """
    return struct.unpack(_MICROS_OF_LINE * count, digits)
