"""Numbers that callers give: usable, or an error that says which would be."""

from __future__ import annotations

from math import inf

from asynctrace.errors import ConfigurationError


def whole_number(name: str, value: object, least: int) -> int:
    """The value, a whole number from ``least`` on.

    Raises:
        ConfigurationError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(name, value, f"a whole number from {least}")
    return value


def number(name: str, value: object, unit: str) -> float:
    """The value, a finite number from 0 on.

    Args:
        name: what holds it.
        value: what was given.
        unit: what it counts, for the error.

    Raises:
        ConfigurationError: it is something else.
    """
    # A NaN compares with nothing.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
        raise ConfigurationError(name, value, f"a number of {unit} from 0")
    return value
