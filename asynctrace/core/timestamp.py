"""The one text form of a moment: ``YYYY-MM-DD HH:MM:SS.ffffff`` in UTC.

It sorts as text and compares with SQLite's ``datetime('now')``; with a ``T`` it would not.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

_seconds: dict[int, str] = {}
_CACHED_SECONDS = 64  # records arrive in time order, so few seconds are alive at once
THREE_DIGITS = tuple(
    f"{number:03d}" for number in range(1000)
)  # a format specification costs more than the rest


def to_text(time_ns: int) -> str:
    """A wall-clock stamp in nanoseconds as text, to the microsecond.

    >>> to_text(1_700_000_000_123_456_789)
    '2023-11-14 22:13:20.123456'
    """
    second, rest = divmod(time_ns, 1_000_000_000)
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
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1000
