"""The Screen: whether a record may go to the journal as it is, told in the caller, in a fraction of a microsecond."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from asynctrace.core import codec
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.redaction import Redactor

_KNOWN = 10_000  # texts, and names, remembered as harmless
_SHORT = 200  # characters of a text that is remembered

EXCEPTION = "exc_info"
"""The name of the field that is an exception, which goes the long way: it never passes, so nobody need look for it."""

PLAIN = frozenset((int, float, bool, type(None), datetime, date, time, timedelta, Decimal, UUID))
"""Types whose values hold no secret that shows."""


class Screen:
    """Remembers what was found harmless; most programs say the same again and again. Any thread.

    Args:
        redactor: whose rules hold.

    Attributes:
        names: of fields that were found harmless.
        texts: messages and values that were.
    """

    def __init__(self, redactor: Redactor) -> None:
        self.names: set[str] = set()
        self.texts: set[str] = set()
        self._redactor = redactor

    def passes(self, message: str, fields: Mapping[str, Any]) -> bool:
        """Whether they hold no secret and nothing that has to be looked at more closely."""
        for name, value in fields.items():
            if name not in self.names and not self._learn(self.names, name, is_name=True):
                return False
            kind = type(value)
            if kind is str:
                if value not in self.texts and not self._learn(self.texts, value):
                    return False
            elif kind not in PLAIN:
                return False
        return message in self.texts or self._learn(self.texts, message)

    def _learn(self, known: set[str], text: str, *, is_name: bool = False) -> bool:
        redactor = self._redactor
        if is_name and text == EXCEPTION:
            return False
        if (not text.isascii() and _is_lone(text)) or len(text) > codec.limits().max_text:
            return False
        harmless = redactor.is_harmless_name(text) if is_name else redactor.is_harmless_text(text)
        if harmless and len(text) <= _SHORT:
            if len(known) >= _KNOWN:
                known.clear()
            known.add(text)
        return harmless

    # -- what did not pass -----------------------------------------------------------------------------------

    def clean_text(self, text: str) -> str:
        """The text in canonical form, without secrets."""
        if text in self.texts:
            return text
        return self._redactor.redact_text(codec.clean_text(text))

    def clean_payload(self, payload: bytes) -> bytes:
        """The packed fields without secrets; bytes as the stores will show them."""
        if self._redactor.mode == "off":
            return payload
        has_bytes = False

        def tell(data: bytes) -> str:
            nonlocal has_bytes
            has_bytes = True
            return self._redactor.text_of_bytes(data)

        fields = codec.canonical(payload, tell)
        if not has_bytes and self.passes("", fields):
            return payload
        return codec.pack_any(self._redactor.redact_fields(fields))[0]

    def clean_exception(self, exception: ExceptionInfo) -> ExceptionInfo:
        """The exception without secrets."""
        redact = self._redactor.redact_text
        return ExceptionInfo(
            exception.type,
            redact(exception.message, "exception.message"),
            redact(exception.stack, "exception.stack", is_stack=True),
        )


def _is_lone(text: str) -> bool:
    """Whether it holds a surrogate without its other half, which no encoder takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
