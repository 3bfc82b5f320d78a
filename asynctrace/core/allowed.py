"""What a value may be, whatever was given: predicates for the rules of arguments, which say the rest in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_MOST = 1e300
"""Beyond it a whole number is no float any more, and clocks cannot count."""


def is_whole(value: object, least: int) -> bool:
    """Whether it is a whole number from that one on; True and False are none.

    >>> is_whole(1, 1), is_whole(1.0, 1), is_whole("1", 1), is_whole(True, 1)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object, least: float = 0.0, most: float = _MOST) -> bool:
    """Whether it is a number within those bounds; True, False and NaN are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        return False
    return isinstance(value, float) or value <= _MOST


def is_positive(value: object, most: float = _MOST) -> bool:
    """Whether it is a number above 0, up to that one."""
    return is_number(value, most=most) and value != 0


def is_choice(value: object, choices: Sequence[str]) -> bool:
    """Whether it is one of those texts."""
    return isinstance(value, str) and value in choices


def is_texts(value: object) -> bool:
    """Whether it is a collection of texts, which one text is not."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return False
    return iter(value) is not value and all(isinstance(text, str) for text in value)
