"""Rules: what each option of a policy may be; a wrong one must not show hours later, as a lane that never writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynctrace.errors import ConfigurationError

Rules = tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...]
"""Names of options, whether a value is right for them, and what is, in words."""


def check(owner: str, options: object, rules: Rules) -> None:
    """Hold the options against the rules.

    Args:
        owner: named in the error.
        options: has the names as attributes.
        rules: see :data:`Rules`.

    Raises:
        ConfigurationError: one of them has a value that cannot be used.
    """
    for names, is_right, allowed in rules:
        for name in names:
            value = getattr(options, name)
            if not is_right(value):
                raise ConfigurationError(f"{owner}.{name}", value, allowed)
