"""A Match: what was redacted and why, and what stands in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

FAILED = "error"
"""What a mark says where redaction itself, or a callback, failed."""


class Redaction(Struct, frozen=True):
    """What was redacted, or would be, and why; it does not hold the secret.

    Args:
        path: where: ``message``, ``fields.headers[2]``, ``exception.stack`` …
        rule: the rule's name, which the mark shows too.
        why: what gave it away, in words.
    """

    path: str
    rule: str
    why: str


class Match(Redaction, frozen=True):
    """What a callback is asked about.

    Args:
        value: the secret: a field's value, or the part of a text.
    """

    value: Any


Callback = Callable[[Match], Any]
"""Gives what shall stand for the match: its ``value`` to keep it, None for the usual mark, or anything else."""


def mark(rule: str) -> str:
    """What stands where a secret was.

    >>> mark("password")
    '[redacted: password]'
    """
    return f"[redacted: {rule}]"


def is_mark(value: object) -> bool:
    """Whether the value is such a mark."""
    return type(value) is str and value.startswith("[redacted: ") and value.endswith("]") and len(value) < 80
