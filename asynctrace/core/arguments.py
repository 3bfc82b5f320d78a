"""Arguments: what callers pass whatever the annotations say, as it can be used, or an error that says what could."""

from __future__ import annotations

from asynctrace.core.allowed import is_number, is_whole
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


def whole_number(name: str, value: int, least: int) -> int:
    """The value, a whole number from ``least`` on.

    Raises:
        ConfigurationError: it is something else.
    """
    if not is_whole(value, least):
        raise ConfigurationError(name, value, f"a whole number from {least}")
    return value


def number(name: str, value: float, unit: str) -> float:
    """The value, a finite number from 0 on.

    Args:
        name: what holds it.
        value: what was given.
        unit: what it counts, for the error.

    Raises:
        ConfigurationError: it is something else.
    """
    if not is_number(value):
        raise ConfigurationError(name, value, f"a number of {unit} from 0")
    return value
