"""Arguments: what callers pass whatever the annotations say, checked where they pass it."""

from __future__ import annotations

from typing import Any

from asynctrace.errors import ConfigurationError

_LONGEST = 365 * 86_400  # seconds; the clocks of threads and loops do not reach to infinity


def seconds_to_wait(value: object) -> float | None:
    """A ``timeout`` in seconds, as every call that waits takes it; None stays None.

    Raises:
        ConfigurationError: it is no number.

    >>> seconds_to_wait(2)
    2.0
    """
    if value is None:
        return None
    if not isinstance(value, (int, float)) or value != value:
        raise ConfigurationError("timeout", value, "a number of seconds, or None")
    return float(max(0, min(value, _LONGEST)))


def whole_number(name: str, value: Any, least: int) -> int:
    """The number, if it is whole and not below the least.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, int) or value < least:
        raise ConfigurationError(name, value, f"a whole number from {least}")
    return value
