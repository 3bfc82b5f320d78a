"""A Walk: one pass over a value that takes the secrets out of it."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import Any

from asynctrace.core import codec
from asynctrace.core.redaction_assignments import is_harmless
from asynctrace.core.redaction_keys import KeyRule
from asynctrace.core.redaction_match import FAILED, Match, Redaction, is_mark, mark
from asynctrace.core.redaction_patterns import Span, is_card
from asynctrace.core.redaction_rules import Rules

_NAMERS = ("name", "key", "header")  # {"name": "Authorization", "value": "…"}
_OPTION = re.compile(r"--?(?!no-)[A-Za-z][\w.-]{1,100}")
_SMALLEST_CARD = 10**12
_MAY_HOLD_CARDS = (int, list, tuple)
_HEADER_NAME = re.compile(r"[\w.-]{1,100}")


class Walk:
    """One pass over a value. Values without a secret are given back as they are, the same objects.

    Args:
        rules: what counts as a secret.
        found: where findings are put down instead of asking the callback and counting.
    """

    def __init__(self, rules: Rules, found: list[Redaction] | None = None) -> None:
        self._rules = rules
        self._names = rules.names
        self._found = found

    def value(self, value: Any, path: str) -> Any:
        """The value without secrets."""
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
        redacted: dict[Any, Any] = {}
        changed = False
        for name, item in value.items():
            rule = self._names.rule_of(name) if type(name) is str else None
            shown = self.text(name, f"{path}: a name") if type(name) is str else name
            if shown is not name:
                shown = _distinct(shown, redacted)
            where = f"{path}.{shown}"
            if rule is None and pair is not None and name == "value":
                rule = pair
            if rule is not None:
                new = self._secret(item, rule, where, str(shown))
            elif (
                type(item) in _MAY_HOLD_CARDS
                and (type(item) is not int or item >= _SMALLEST_CARD)
                and type(name) is str
                and self._names.may_name_card(name)
            ):
                new = self._cards(item, where, str(shown))
            else:
                new = self.value(item, where)
            changed = changed or new is not item or shown is not name
            redacted[shown] = new
        return redacted if changed else value

    def _cards(self, value: Any, path: str, name: str) -> Any:
        """The value of a field whose name says that an integer in it may be a card number."""
        if type(value) is int:
            if value < _SMALLEST_CARD or not is_card(str(value)):
                return value
            return self._replaced(Match(path, "credit card", f"a card number under the name {name!r}", value))
        items = [
            self._cards(item, f"{path}[{index}]", name) if type(item) is int else item
            for index, item in enumerate(value)
        ]
        return self._list(value if all(map(_is_same, items, value)) else items, path)

    def _rule_of_pair(self, value: dict[Any, Any]) -> KeyRule | None:
        names = [value[key] for key in _NAMERS if type(value.get(key)) is str]
        return next((rule for rule in map(self._names.rule_of, names) if rule is not None), None)

    def _list(self, value: Sequence[Any], path: str) -> Sequence[Any]:
        if len(value) == 2 and (rule := self._rule_of_header(value[0])) is not None:
            second = self._secret(value[1], rule, f"{path}[1]", value[0])
            return value if second is value[1] else [value[0], second]
        redacted: list[Any] = []
        rule = None  # of the option before the item: ["--password", "…"] is how programs are called
        for index, item in enumerate(value):
            if rule is None or (type(item) is str and _OPTION.fullmatch(item)):
                redacted.append(self.value(item, f"{path}[{index}]"))
            else:
                redacted.append(self._secret(item, rule, f"{path}[{index}]", str(value[index - 1])))
            rule = self._rule_of_option(item) if type(item) is str and item[:1] == "-" else None
        return value if all(map(_is_same, redacted, value)) else redacted

    def _rule_of_option(self, item: str) -> KeyRule | None:
        """The rule for what follows the item, if that is an option without its value: ``--api-key``, ``-password``."""
        rule = self._names.rule_of(item) if "=" not in item else None  # nearly always None, and remembered
        return rule if rule is not None and _OPTION.fullmatch(item) else None

    def _rule_of_header(self, name: Any) -> KeyRule | None:
        """The rule for the first of two items: ``["authorization", "…"]`` is how servers hand over headers."""
        if type(name) is not str or not _HEADER_NAME.fullmatch(name):
            return None
        return self._names.rule_of(name)

    def _secret(self, value: Any, rule: KeyRule, path: str, name: str) -> Any:
        """The value of a field whose name says that it is a secret."""
        if value is None or value is True or value is False or value in ("", [], {}, ()) or is_mark(value):
            return value
        if rule.numbers_stay and _holds_numbers(value):
            return value
        if type(value) is str and is_harmless(value, rule, is_field=True):
            return value
        return self._replaced(Match(path, rule.rule, f"the name {name!r}", value))

    def text(self, text: str, path: str, *, is_stack: bool = False) -> str:
        """The text without secrets; a stack has source lines, which are code."""
        rules = self._rules
        if not rules.in_texts or not text or text in rules.harmless or not rules.is_suspicious(text):
            return text
        spans = rules.patterns.spans(text, is_stack=is_stack)
        if not spans:
            return text
        parts: list[str] = []
        position = 0
        try:
            for span in spans:
                parts += (text[position : span.start], self._replaced_part(text, span, path))
                position = span.end
        except _CallbackError:
            return mark(FAILED)
        return "".join([*parts, text[position:]])

    def _replaced_part(self, text: str, span: Span, path: str) -> str:
        match = Match(path, span.rule, span.why, text[span.start : span.end])
        new = self._replaced(match, is_part=True)
        return new if type(new) is str else codec.text_of_any(new)[0]

    def _replaced(self, match: Match, *, is_part: bool = False) -> Any:
        if self._found is not None:
            self._found.append(Redaction(match.path, match.rule, match.why))
            return mark(match.rule)
        rules = self._rules
        if rules.callback is not None:
            try:
                answer = rules.callback(match)
                if answer is match.value:
                    return answer
                if answer is not None:
                    answer = codec.canonical(codec.pack_any({"value": answer})[0])["value"]
            except Exception as error:
                rules.errors += 1
                if is_part:
                    raise _CallbackError from error
                return mark(FAILED)
            if answer is not None:
                rules.counts[match.rule] += 1
                return answer
        rules.counts[match.rule] += 1
        return mark(match.rule)


class _CallbackError(Exception):
    """A callback failed on a part of a text: the whole text goes."""


def _distinct(name: str, taken: Container[str]) -> str:
    """The name, numbered when it is taken: two names may differ in their secrets only."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name} ({number})"
    return candidate


def _is_same(one: object, other: object) -> bool:
    return one is other


def _holds_numbers(value: Any) -> bool:
    """Whether there is nothing but numbers: ``tokens={"prompt": 12}`` is a count."""
    if type(value) is dict:
        return all(map(_holds_numbers, value.values()))
    if type(value) in (list, tuple):
        return all(map(_holds_numbers, value))
    return value is None or type(value) in (int, float, bool)
