"""Moments on the command line: ISO 8601, or so long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from asynctrace.errors import ConfigurationError

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_ALLOWED = "ISO 8601 such as 2025-03-01 or 2025-03-01T08:00:00+01:00, or so long ago: 30s, 15m, 2h, 1d, 1w"


def parse_moment(option: str, text: str | None, now: datetime | None = None) -> int | None:
    """The moment in nanoseconds since the epoch; without a zone it is local time, as the commands show it.

    Args:
        option: for the error.
        text: None for no moment.
        now: what "ago" counts from; by default now.

    Raises:
        ConfigurationError: the text is no moment.

    >>> parse_moment("--since", "90m", datetime(1970, 1, 1, 2, tzinfo=UTC)) == 1800 * 10**9
    True
    """
    if text is None:
        return None
    try:
        ago = _AGO.fullmatch(text.strip())
        if ago is not None:
            meant = (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        else:
            meant = datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigurationError(option, text, _ALLOWED) from error
    return (meant - _EPOCH) // timedelta(microseconds=1) * 1000
