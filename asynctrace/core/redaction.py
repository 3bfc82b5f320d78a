"""Redaction: secrets leave a record before it reaches any sink, disk or wire.

The cost when nothing is secret is what counts: names of fields are compared as sets, texts are searched for short
literals, hundreds of records in one call. Only a record in which something was found is looked at closely.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal, get_args

import msgspec

from asynctrace.core import codec
from asynctrace.core.allowed import is_choice, is_texts
from asynctrace.core.canonical import base64_of
from asynctrace.core.record import Record
from asynctrace.core.redaction_keys import KeyNames
from asynctrace.core.redaction_match import FAILED, Callback, Redaction, mark
from asynctrace.core.redaction_patterns import TextPatterns, fold
from asynctrace.core.redaction_rules import Rules
from asynctrace.core.redaction_walk import Walk
from asynctrace.core.run import RunContext
from asynctrace.core.slice import Slice
from asynctrace.errors import ConfigurationError

Mode = Literal["full", "keys", "off"]
"""``full``: fields by their name and secrets inside text. ``keys``: fields by their name. ``off``: nothing."""

_KNOWN = 10_000  # names remembered as harmless
_MANY = 100  # separators in one search; up to there it is cheaper to look at what stands before each

_NAME = re.compile(r"[\w.-]{1,100}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{4,}={0,2}")
_CONTAINERS = frozenset((dict, list, tuple))

_pack = msgspec.msgpack.Encoder().encode


class Redactor:
    """Takes secrets out of records, fields, texts and payloads. Its methods raise nothing.

    Args:
        mode: how much is looked at, see :data:`Mode`.
        names: further names of fields that hold secrets; case and separators do not matter.
        safe_names: names of fields that hold none, whatever they look like.
        patterns: further patterns by the name of their rule; what a pattern matches is a secret. They are searched
            in every text, which costs what they cost.
        callback: asked about each match. When it fails the value is replaced entirely, and counted.

    Raises:
        ConfigurationError: the mode is unknown, a pattern cannot be compiled, ``names`` or ``safe_names`` is no list
            of names, or the callback cannot be called.

    Example:
        >>> Redactor().redact_fields({"user": "ann", "password": "hunter2", "password_reset": True})
        {'user': 'ann', 'password': '[redacted: password]', 'password_reset': True}
    """

    def __init__(
        self,
        mode: Mode = "full",
        *,
        names: Sequence[str] = (),
        safe_names: Sequence[str] = (),
        patterns: Mapping[str, str | re.Pattern[str]] | None = None,
        callback: Callback | None = None,
    ) -> None:
        if not is_choice(mode, get_args(Mode)):
            raise ConfigurationError("redact", mode, "full, keys or off")
        for argument, given in (("names", names), ("safe_names", safe_names)):
            if not is_texts(given):
                raise ConfigurationError(argument, given, "a list of names")
        if callback is not None and not callable(callback):
            raise ConfigurationError("callback", callback, "a callable, or None")
        self.mode: Mode = mode
        self._full = mode == "full"
        self._names = KeyNames(extra=names, safe=safe_names)
        self._patterns = TextPatterns(self._names, _compiled({} if patterns is None else patterns))
        self._rules = Rules(self._names, self._patterns, in_texts=self._full, callback=callback)
        self._safe: set[str] = set()  # names of fields found harmless

    def __repr__(self) -> str:
        return f"<Redactor {self.mode}>"

    @property
    def counts(self) -> Counter[str]:
        """How many secrets were taken out, by rule."""
        return self._rules.counts

    @property
    def errors(self) -> int:
        """How often a callback, or redaction itself, failed."""
        return self._rules.errors

    # -- records ---------------------------------------------------------------------------------------------

    def redact(
        self,
        records: Sequence[Record],
        payloads: Sequence[bytes] | None = None,
        *,
        nested: bool | None = None,
    ) -> None:
        """Take the secrets out of the records, in place.

        Args:
            records: finished records; a slice of some hundreds at a time is cheapest.
            payloads: the packed own fields of each record, if they are at hand and still say the same.
            nested: whether a field holds a list or dict; None when that is not known.
        """
        if self.mode == "off" or not records:
            return
        try:
            contexts = records.contexts if type(records) is Slice else {record.context for record in records}
            for context in contexts:
                self.redact_context(context)
            suspects = self._suspects(records, payloads, nested)
        except Exception:  # a processor may have put anything into a record
            self._rules.errors += 1
            suspects = records
        for record in suspects:
            self._redact_record(record)

    def redact_context(self, context: RunContext) -> None:
        """Take the secrets out of bound fields and the run's name, once, whoever asks how often."""
        if self.mode == "off" or context.redacted:
            return
        context.run.name = context.run.name and self.redact_text(context.run.name, "run.name")
        # Who binds fields does not know the redactor: bytes in them are text already.
        context.replace_fields(self.redact_fields(self._searched(context.fields)))
        context.redacted = True

    def _suspects(
        self, records: Sequence[Record], payloads: Sequence[bytes] | None, nested: bool | None
    ) -> Sequence[Record]:
        """The records that may hold a secret."""
        part = records if type(records) is Slice and not records.is_made else None
        fields = part.fields if part is not None else [record.own_fields for record in records]
        names = part.names if part is not None else set().union(*fields)
        secret: set[str] = set()
        if not self._safe.issuperset(names):
            secret = self._secret_names(names - self._safe)
        if nested is None:
            nested = not _CONTAINERS.isdisjoint(map(type, chain.from_iterable(map(dict.values, fields))))
        if not self._full:
            if nested or "value" in names:
                return records
            return (
                [record for record in records if not secret.isdisjoint(record.own_fields)] if secret else ()
            )
        if payloads is None:
            payloads = [_packed(own) for own in fields]
        messages = {
            item.message for item in (part.raws if part is not None else records)
        } - self._rules.harmless
        if (
            not secret
            and not self._patterns.has_extra
            and not self._any_text(payloads, messages, nested, names)
        ):
            self._rules.remember(messages)
            unusual = part.special.values() if part is not None else records
            return [record for record in unusual if record.exception is not None or record.task is not None]
        return [record for record in records if self._is_suspect(record, secret)]

    def _any_text(self, payloads: Sequence[bytes], messages: set[str], nested: bool, names: set[str]) -> bool:
        """Whether one of the texts may hold a secret; one search serves them all."""
        raw = b"\n".join(payloads)
        if messages:
            raw += b"\n" + _bytes("\n".join(messages))
        folded = fold(raw)
        if self._patterns.has_shape(raw, folded):
            return True
        if nested or "value" in names:
            return self._patterns.has_name(folded)
        if b"-" in raw and b"--" in raw:
            return self._patterns.has_name(folded)
        before = list(islice(_before_separators(raw), _MANY + 1))
        if len(before) > _MANY:
            return self._patterns.has_name(folded)
        return bool(before) and self._patterns.has_name(fold(b"\n".join(before)))

    def _is_suspect(self, record: Record, secret: set[str]) -> bool:
        own = record.own_fields
        if (
            record.exception is not None
            or record.task is not None
            or not secret.isdisjoint(own)
            or "value" in own
        ):
            return True
        for value in (record.message, *own.values()):
            kind = type(value)
            if kind is str:
                if value not in self._rules.harmless and self._rules.is_suspicious(value):
                    return True
            elif kind is dict or kind is list or kind is tuple:
                return True
        return False

    def _secret_names(self, unknown: set[str]) -> set[str]:
        """Those names that stand for secrets, or hold one; the others are remembered as safe."""
        secret = {name for name in unknown if self._is_secret_name(name)}
        if len(self._safe) < _KNOWN:
            self._safe |= unknown - secret
        return secret

    def _is_secret_name(self, name: str) -> bool:
        return (
            self._names.rule_of(name) is not None
            or self._names.may_name_card(name)
            or (self._full and bool(self._patterns.spans(name)))
        )

    def _redact_record(self, record: Record) -> None:
        walk = Walk(self._rules)
        try:
            record.message = walk.text(record.message, "message")
            record.own_fields = walk.value(record.own_fields, "fields")
            if record.task is not None:
                record.task = walk.text(record.task, "task")
            if (exception := record.exception) is not None:
                message = walk.text(exception.message, "exception.message")
                stack = walk.text(exception.stack, "exception.stack", is_stack=True)
                record.exception = msgspec.structs.replace(exception, message=message, stack=stack)
        except Exception:  # whatever was in it is not known to be harmless
            self._rules.errors += 1
            record.message, record.own_fields, record.exception, record.task = mark(FAILED), {}, None, None
        record.json = None

    # -- parts -----------------------------------------------------------------------------------------------

    def redact_fields(self, fields: Mapping[str, Any], path: str = "fields") -> dict[str, Any]:
        """The fields without secrets; for fields that are bound, not recorded.

        Args:
            fields: in canonical form.
            path: what a callback is told.
        """
        if self.mode == "off":
            return dict(fields)
        try:
            return dict(Walk(self._rules).value(dict(fields), path))
        except Exception:
            self._rules.errors += 1
            return dict.fromkeys(fields, mark(FAILED))

    def redact_text(self, text: str, path: str = "message", *, is_stack: bool = False) -> str:
        """The text without secrets; itself when there are none.

        Args:
            text: any text.
            path: what a callback is told.
            is_stack: whether it is a traceback, whose source lines are code.
        """
        try:
            return Walk(self._rules).text(text, path, is_stack=is_stack)
        except Exception:
            self._rules.errors += 1
            return mark(FAILED)

    def text_of_bytes(self, data: bytes) -> str:
        """What stands for bytes: base64 of what is left of them without secrets; the name of a secret is kept as text.

        Args:
            data: searched when they are text in UTF-8, as names, headers and bodies are.

        >>> [Redactor().text_of_bytes(data) for data in (b"Authorization", b"ann")]
        ['Authorization', 'YW5u']
        """
        return base64_of(data) if self.mode == "off" else self._told(data, Walk(self._rules))

    def _told(self, data: bytes, walk: Walk) -> str:
        try:
            text = data.decode()
            if _NAME.fullmatch(text) and (self._names.rule_of(text) or self._names.may_name_card(text)):
                return text  # what it is the name of is taken out with the fields
            left = walk.text(text, "fields: bytes")
            return base64_of(data if left is text else left.encode())
        except UnicodeDecodeError:  # no text
            return base64_of(data)
        except Exception:
            self._rules.errors += 1
            return mark(FAILED)

    def _searched(self, value: Any) -> Any:
        """The value with :meth:`text_of_bytes` for what is base64 of text."""
        kind = type(value)
        if kind is str and len(value) % 4 == 0 and _BASE64.fullmatch(value):
            return self.text_of_bytes(a2b_base64(value))
        if kind is dict:
            return {self._searched(name): self._searched(item) for name, item in value.items()}
        return [*map(self._searched, value)] if kind is list else value

    def is_harmless_name(self, name: str) -> bool:
        """Whether a field of that name, if its value is a number or a harmless text, holds no secret."""
        return self.mode == "off" or (name != "value" and not self._is_secret_name(name))

    def is_harmless_text(self, text: str) -> bool:
        """Whether the text holds no secret."""
        return not self._full or not self._patterns.suspicious(text) or not self._patterns.spans(text)

    def explain(self, message: str = "", fields: Mapping[str, Any] | None = None) -> tuple[Redaction, ...]:
        """What would be redacted in such a record, and why; a callback is not asked, nothing is counted.

        Args:
            message: the message, or any text.
            fields: key-values of any kind.

        Example:
            >>> for found in Redactor().explain("Authorization: Bearer abc1234", {"db": {"pwd": "hunter2"}}):
            ...     print(found.path, "|", found.rule, "|", found.why)
            message | authorization | the name 'Authorization' in front
            fields.db.pwd | password | the name 'pwd'
        """
        if self.mode == "off":
            return ()
        found: list[Redaction] = []
        walk = Walk(self._rules, found)
        walk.text(message, "message")
        payload = codec.pack_any(fields or {})[0]
        walk.value(codec.canonical(payload, lambda data: self._told(data, walk)), "fields")
        return tuple(found)


def _compiled(patterns: object) -> dict[str, re.Pattern[str]]:
    if not isinstance(patterns, Mapping) or not is_texts(patterns):
        raise ConfigurationError("patterns", patterns, "patterns by the name of their rule")
    compiled = {}
    for rule, pattern in patterns.items():
        try:
            compiled[rule] = found = re.compile(pattern)
            found.search("")  # one for bytes cannot
        except (re.error, TypeError) as error:
            raise ConfigurationError(
                f"patterns[{rule!r}]", pattern, "a regular expression for str"
            ) from error
    return compiled


def _packed(fields: dict[str, Any]) -> bytes:
    try:
        return _pack(fields)
    except Exception:  # from a processor: not in canonical form
        return codec.pack_any(fields)[0]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _before_separators(raw: bytes) -> Iterator[bytes]:
    """What stands before each ``=`` and ``:`` in its line."""
    for separator in (b"=", b":"):
        position = raw.find(separator)
        while position >= 0:
            yield raw[raw.rfind(b"\n", 0, position) + 1 : position]
            position = raw.find(separator, position + 1)
