"""Text that people see in a terminal or an editor, without the characters that drive it."""

from __future__ import annotations

import re

# C0 and C1 controls and DEL, and what turns the direction of writing around ("Trojan Source",
# CVE-2021-42574).
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with control characters as escapes; line ends and tabs stay.

    >>> printable("a\\x1b[2Jb\\r")
    'a\\\\x1b[2Jb\\\\r'
    """
    if text.isprintable():
        return text
    return _CONTROLS.sub(_escape, text.replace("\r\n", "\n"))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def indented(text: str, margin: str) -> str:
    """The text with every line but the first behind the margin."""
    return text.replace("\n", "\n" + margin) if "\n" in text else text
