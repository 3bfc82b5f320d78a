"""Words: values as people read them, without the characters that drive a terminal."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any

# C0 and C1 controls and DEL, and what turns the direction of writing around (CVE-2021-42574).
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_SECOND, _MINUTE, _HOUR = 1_000.0, 60_000.0, 3_600_000.0  # milliseconds
_PLAIN = re.compile(r"""[^\s="'{}\[\],]+""")


def printable(text: str) -> str:
    """The text with control characters as escapes; line ends stay, tabs become blanks.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return _CONTROLS.sub(_escape, text.replace("\r\n", "\n").expandtabs(4))


def one_line(text: str) -> str:
    """As :func:`printable`, with line ends as ``\\n``."""
    return printable(text).replace("\n", "\\n")


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def duration(milliseconds: float | None) -> str:
    """A length of time in the unit that fits.

    >>> duration(0.25), duration(12.3), duration(1234), duration(90_000), duration(None)
    ('0.25 ms', '12.3 ms', '1.23 s', '1 min 30 s', '')
    """
    if milliseconds is None:
        return ""
    if milliseconds < 1:
        return f"{milliseconds:.2f} ms"
    if milliseconds < _SECOND:
        return f"{milliseconds:.1f} ms"
    if milliseconds < _MINUTE:
        return f"{milliseconds / _SECOND:.2f} s"
    if milliseconds < _HOUR:
        minutes, seconds = divmod(int(milliseconds / _SECOND), 60)
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(int(milliseconds / _MINUTE), 60)
    return f"{hours} h {minutes} min"


def moment(time_ns: int) -> str:
    """A wall-clock stamp as date and time where the reader is, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns // 1_000_000_000))


def precise_moment(time_ns: int) -> str:
    """As :func:`moment`, to the millisecond."""
    return f"{moment(time_ns)}.{time_ns // 1_000_000 % 1000:03d}"


def offset(time_ns: int, start_ns: int) -> str:
    """How long after the start.

    >>> offset(1_500_000_000, 1_000_000_000)
    '+0.500s'
    """
    return f"{(time_ns - start_ns) / 1e9:+.3f}s"


def fields_text(fields: Mapping[str, Any]) -> str:
    """Key-values on one line.

    >>> fields_text({"rows": 120, "table": "orders", "why": "too slow"})
    'rows=120 table=orders why="too slow"'
    """
    return " ".join(f"{one_line(name)}={_value(value)}" for name, value in fields.items())


def _value(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return one_line(value)
    return one_line(json.dumps(value, ensure_ascii=False))


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "error"), count(2_000, "record")
    ('1 error', '2,000 records')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
