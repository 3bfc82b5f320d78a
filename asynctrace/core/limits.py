"""Limits: how much of a value is kept, and the marks left where something was cut."""

from __future__ import annotations

from dataclasses import dataclass, fields

from asynctrace.errors import ConfigurationError

_LOWEST = {"max_text": 100, "max_items": 2, "max_depth": 1, "max_payload": 4096}
_HIGHEST = {"max_depth": 64}  # a level costs frames of the Python stack, on which the caller already stands
_MARK_ROOM = 60  # characters kept free for the mark: a cut text is within the limit and never cut again


@dataclass(frozen=True, slots=True)
class Limits:
    """What the canonical form keeps of over-long values; a mark stands where something is cut.

    Args:
        max_text: characters of one text (at least 100); the default keeps 1 MiB of ASCII whole.
        max_items: entries of one list or dict (at least 2), the mark included.
        max_depth: containers inside one another (1 to 64), the fields themselves being the first.
        max_payload: bytes of all fields of one record together, as MessagePack (at least 4,096).

    Raises:
        ConfigurationError: a limit is not an integer in its range.
    """

    max_text: int = 1_048_576
    max_items: int = 10_000
    max_depth: int = 32
    max_payload: int = 4_194_304

    def __post_init__(self) -> None:
        for field in fields(self):
            value, lowest = getattr(self, field.name), _LOWEST[field.name]
            highest = _HIGHEST.get(field.name)
            if type(value) is not int or value < lowest or (highest is not None and value > highest):
                upper = f"at most {highest}" if highest is not None else "any size"
                raise ConfigurationError(field.name, value, f"an integer, at least {lowest}, {upper}")


def cut_mark(count: int, noun: str) -> str:
    """What stands where something was cut.

    >>> cut_mark(5_000_000, "character")
    '…[cut: 5,000,000 characters]'
    """
    return f"…[cut: {count:,} {noun}{'' if count == 1 else 's'}]"


def cut_text(text: str, limit: int) -> str:
    """The text in at most ``limit`` characters, the mark included.

    >>> cut_text("x" * 1000, 62)
    'xx…[cut: 998 characters]'
    """
    if len(text) <= limit:
        return text
    kept = max(limit - _MARK_ROOM, 0)
    return text[:kept] + cut_mark(len(text) - kept, "character")
