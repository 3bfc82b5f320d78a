"""Redaction: secrets leave a record before it reaches any sink, disk or wire.

The cost when nothing is secret is what counts: names of fields are compared as sets, texts are searched for short
literals, hundreds of records in one call. Only a record in which something was found is looked at closely.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from asynctrace.core import codec
from asynctrace.core.record import Record
from asynctrace.core.redaction_assignments import is_harmless
from asynctrace.core.redaction_keys import KeyNames, KeyRule
from asynctrace.core.redaction_patterns import Span, TextPatterns, fold
from asynctrace.core.run import RunContext
from asynctrace.core.slice import Slice
from asynctrace.errors import ConfigurationError

Mode = Literal["full", "keys", "off"]
"""``full``: fields by their name and secrets inside text. ``keys``: fields by their name. ``off``: nothing."""

_KNOWN = 10_000  # names and messages remembered as harmless
_SHORT = 200  # characters of a message that is remembered
_FAILED = "error"  # what a mark says where redaction itself, or a callback, failed
_MANY = 100  # separators in one search; up to there it is cheaper to look at what stands before each
_NAMERS = ("name", "key", "header")  # {"name": "Authorization", "value": "…"}

_CONTAINERS = frozenset((dict, list, tuple))
_HEADER_NAME = re.compile(r"[\w.-]{1,100}")

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


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


class Redactor:
    """Takes secrets out of records, fields, texts and payloads. Its methods raise nothing.

    Args:
        mode: how much is looked at, see :data:`Mode`.
        names: further names of fields that hold secrets; case and separators do not matter.
        safe_names: names of fields that hold none, whatever they look like.
        patterns: further patterns by the name of their rule; what a pattern matches is a secret. They are searched
            in every text, which costs what they cost.
        callback: asked about each match. When it fails the value is replaced entirely, and counted.

    Attributes:
        counts: how many secrets were taken out, by rule.
        errors: how often a callback, or redaction itself, failed.

    Raises:
        ConfigurationError: the mode is unknown, a pattern cannot be compiled, or ``names`` is one text.

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
        if mode not in get_args(Mode):
            raise ConfigurationError("redact", mode, "full, keys or off")
        for argument, given in (("names", names), ("safe_names", safe_names)):
            if isinstance(given, str):
                raise ConfigurationError(argument, given, "a list of names")
        self.mode: Mode = mode
        self.counts: Counter[str] = Counter()
        self.errors = 0
        self._callback = callback
        self._names = KeyNames(extra=names, safe=safe_names)
        self._patterns = TextPatterns(self._names, _compiled(patterns or {}))
        self._full = mode == "full"
        self._safe: set[str] = set()  # names of fields found harmless
        self._clean: set[str] = set()  # messages found harmless: most programs say the same again and again

    def __repr__(self) -> str:
        return f"<Redactor {self.mode}>"

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
            for context in (
                records.contexts if type(records) is Slice else {record.context for record in records}
            ):
                if not context.redacted:
                    self.redact_context(context)
            suspects = self._suspects(records, payloads, nested)
        except Exception:  # a processor may have put anything into a record
            self.errors += 1
            suspects = records
        for record in suspects:
            self._redact_record(record)

    def redact_context(self, context: RunContext) -> None:
        """Take the secrets out of bound fields and the run's name, once, whoever asks how often."""
        if self.mode == "off" or context.redacted:
            return
        context.run.name = context.run.name and self.redact_text(context.run.name, "run.name")
        context.replace_fields(self.redact_fields(context.fields))
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
        messages = {item.message for item in (part.raws if part is not None else records)} - self._clean
        if (
            not secret
            and not self._patterns.has_extra
            and not self._any_text(payloads, messages, nested, names)
        ):
            self._remember(messages)
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
                if value not in self._clean and self._is_suspicious(value):
                    return True
            elif kind is dict or kind is list or kind is tuple:
                return True
        return False

    def _is_suspicious(self, text: str) -> bool:
        if self._patterns.suspicious(text):
            return True
        self._remember((text,))
        return False

    def _remember(self, texts: Iterable[str]) -> None:
        if len(self._clean) > _KNOWN:
            self._clean.clear()
        self._clean.update(text for text in texts if len(text) <= _SHORT)

    def _secret_names(self, unknown: set[str]) -> set[str]:
        """Those names that stand for secrets, or hold one; the others are remembered as safe."""
        secret = {name for name in unknown if self._is_secret_name(name)}
        if len(self._safe) < _KNOWN:
            self._safe |= unknown - secret
        return secret

    def _is_secret_name(self, name: str) -> bool:
        return self._names.rule_of(name) is not None or (self._full and bool(self._patterns.spans(name)))

    def _redact_record(self, record: Record) -> None:
        walk = _Walk(self)
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
            self.errors += 1
            record.message, record.own_fields, record.exception, record.task = mark(_FAILED), {}, None, None
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
            return dict(_Walk(self).value(dict(fields), path))
        except Exception:
            self.errors += 1
            return dict.fromkeys(fields, mark(_FAILED))

    def redact_text(self, text: str, path: str = "message", *, is_stack: bool = False) -> str:
        """The text without secrets; itself when there are none.

        Args:
            text: any text.
            path: what a callback is told.
            is_stack: whether it is a traceback, whose source lines are code.
        """
        try:
            return _Walk(self).text(text, path, is_stack=is_stack)
        except Exception:
            self.errors += 1
            return mark(_FAILED)

    def redact_payload(self, payload: bytes) -> bytes:
        """The packed fields without secrets; the same object when there are none.

        For whoever writes records before the writer sees them. One call costs more than a record's part of
        :meth:`redact`.
        """
        if self.mode == "off":
            return payload
        folded, patterns = fold(payload), self._patterns
        shaped = self._full and (patterns.has_extra or patterns.has_shape(payload, folded))
        if not shaped and not patterns.has_name(folded):
            return payload
        try:
            fields = _unpack(payload)
        except Exception:  # too deep for the C decoder, or a map as a key
            fields = codec.canonical(payload)
        redacted = self.redact_fields(fields) if isinstance(fields, dict) else {}
        return payload if redacted == fields else codec.pack_any(redacted)[0]

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
        walk = _Walk(self, found)
        walk.text(message, "message")
        walk.value(codec.canonical(codec.pack_any(fields or {})[0]), "fields")
        return tuple(found)


class _Walk:
    """One pass over a value. Values without a secret are given back as they are, the same objects.

    Args:
        redactor: whose rules hold.
        found: where findings are put down instead of asking the callback and counting.
    """

    def __init__(self, redactor: Redactor, found: list[Redaction] | None = None) -> None:
        self._redactor = redactor
        self._names = redactor._names
        self._patterns = redactor._patterns
        self._full = redactor._full
        self._found = found

    def value(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind is str:
            return self.text(value, path)
        if kind is dict:
            return self._dict(value, path)
        if kind is list or kind is tuple:
            return self._list(value, path)
        return value

    def _dict(self, value: dict[Any, Any], path: str) -> dict[Any, Any]:
        pair = self._rule_of_pair(value) if "value" in value else None
        redacted = {}
        changed = False
        for name, item in value.items():
            rule = self._names.rule_of(name) if type(name) is str else None
            shown = self.text(name, f"{path}: a name") if type(name) is str and rule is None else name
            where = f"{path}.{shown}"
            if rule is None and pair is not None and name == "value":
                rule = pair
            new = self.value(item, where) if rule is None else self._secret(item, rule, where, str(shown))
            changed = changed or new is not item or shown is not name
            redacted[shown] = new
        return redacted if changed else value

    def _rule_of_pair(self, value: dict[Any, Any]) -> KeyRule | None:
        names = [value[key] for key in _NAMERS if type(value.get(key)) is str]
        return next((rule for rule in map(self._names.rule_of, names) if rule is not None), None)

    def _list(self, value: Sequence[Any], path: str) -> Sequence[Any]:
        if len(value) == 2 and (rule := self._rule_of_header(value[0])) is not None:
            second = self._secret(value[1], rule, f"{path}[1]", value[0])
            return value if second is value[1] else [value[0], second]
        redacted = [self.value(item, f"{path}[{index}]") for index, item in enumerate(value)]
        return value if all(map(_is_same, redacted, value)) else redacted

    def _rule_of_header(self, name: Any) -> KeyRule | None:
        """The rule for the first of two items: ``["authorization", "…"]`` is how servers hand over headers."""
        if type(name) is not str or not _HEADER_NAME.fullmatch(name):
            return None
        return self._names.rule_of(name)

    def _secret(self, value: Any, rule: KeyRule, path: str, name: str) -> Any:
        """The value of a field whose name says that it is a secret."""
        if value is None or value is True or value is False or value in ("", [], {}, ()) or _is_mark(value):
            return value
        if rule.numbers_stay and _holds_numbers(value):
            return value
        if type(value) is str and is_harmless(value, rule, is_field=True):
            return value
        return self._replaced(Match(path, rule.rule, f"the name {name!r}", value))

    def text(self, text: str, path: str, *, is_stack: bool = False) -> str:
        if not self._full or not text:
            return text
        if text in self._redactor._clean or not self._redactor._is_suspicious(text):
            return text
        spans = self._patterns.spans(text, is_stack=is_stack)
        if not spans:
            return text
        parts: list[str] = []
        position = 0
        try:
            for span in spans:
                parts += (text[position : span.start], self._replaced_part(text, span, path))
                position = span.end
        except _CallbackError:
            return mark(_FAILED)
        return "".join([*parts, text[position:]])

    def _replaced_part(self, text: str, span: Span, path: str) -> str:
        match = Match(path, span.rule, span.why, text[span.start : span.end])
        new = self._replaced(match, is_part=True)
        return new if type(new) is str else codec.text_of_any(new)[0]

    def _replaced(self, match: Match, *, is_part: bool = False) -> Any:
        if self._found is not None:
            self._found.append(Redaction(match.path, match.rule, match.why))
            return mark(match.rule)
        redactor = self._redactor
        if redactor._callback is not None:
            try:
                answer = redactor._callback(match)
                if answer is match.value:
                    return answer
                if answer is not None:
                    answer = codec.canonical(codec.pack_any({"value": answer})[0])["value"]
            except Exception as error:
                redactor.errors += 1
                if is_part:
                    raise _CallbackError from error
                return mark(_FAILED)
            if answer is not None:
                redactor.counts[match.rule] += 1
                return answer
        redactor.counts[match.rule] += 1
        return mark(match.rule)


class _CallbackError(Exception):
    """A callback failed on a part of a text: the whole text goes."""


def _compiled(patterns: Mapping[str, str | re.Pattern[str]]) -> dict[str, re.Pattern[str]]:
    compiled = {}
    for rule, pattern in patterns.items():
        try:
            compiled[rule] = re.compile(pattern)
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


def _is_same(one: object, other: object) -> bool:
    return one is other


def _is_mark(value: object) -> bool:
    return type(value) is str and value.startswith("[redacted: ") and value.endswith("]") and len(value) < 80


def _holds_numbers(value: Any) -> bool:
    """Whether there is nothing but numbers: ``tokens={"prompt": 12}`` is a count."""
    if type(value) is dict:
        return all(map(_holds_numbers, value.values()))
    if type(value) in (list, tuple):
        return all(map(_holds_numbers, value))
    return value is None or type(value) in (int, float, bool)
