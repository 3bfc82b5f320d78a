"""Secrets behind their names in text: ``password=…``, ``"token": "…"``, ``--api-key …``, ``Cookie: …``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from asynctrace.core.redaction_keys import KeyNames, KeyRule, word_set

_NAME = re.compile(
    r"(?<![\w.-])([\w.-]++)"  # possessive: each run of characters is looked at once
    r"((?:\\*+[\"'])?+\]?+)"
    r"[ \t]{0,4}+(=>|:=|[!=]=|[:=])"
)
_OPTION = re.compile(r"(?<![\w.-])--([\w.-]++)[ \t]{1,4}+(?=[^\s-])")
_WORD_BEFORE = re.compile(r"([A-Za-z]{2,16})[ ]$")
_SECOND_WORDS = word_set("key keys card number code")

_SPACE = re.compile(r"[ \t]{0,8}+")
_SPACE_OF_JSON = re.compile(r"(?:\s|\\++[nrt]){0,64}+")
_QUOTE = re.compile(r"(?:[bBrRuUfF]{0,2})(\\*+)(\"\"\"|'''|[\"'`])")
_BRACKET = re.compile(r"[\[\](){}]")
_FARTHEST = 10_000  # characters that a bracketed value is followed
_PLAIN = re.compile(r"[^\s\"'`<>&;,)\]}\\|]++")
_SCHEME_AND_TOKEN = re.compile(
    r"(?:digest|aws4-hmac-\w{1,20}|signature|oauth)[ \t][^\r\n]*+"
    r"|(?:(?:bearer|basic|token|apikey|api-key|key|negotiate|ntlm|jwt|sso-key|splunk)[ \t]{1,4}+)?"
    r"[^\s\"'`<>;,)\]}\\]++",
    re.IGNORECASE,
)
_HEADER = re.compile(r"[^\r\n\"'<>\\]++")
_NUMBER = re.compile(r"[0-9][0-9.,_]{0,20}[%kKmM]?")
_MASKED = re.compile(
    r"[*.•-]++|[xX]{3,}+|%[sdr]|%\(\w{1,40}\)s|\$\{[\w.!:-]{0,40}\}?|…|\[redacted:(?: [\w -]{1,60}\]?)?"
)
_STATES = word_set(
    "a accepted an and are bad been blank bool bytes can cannot changed correct default denied disabled "
    "does empty enabled error expired failed failure false field for forbidden has http https in "
    "incorrect int invalid is malformed mismatch missing must n/a need needed needs nil no none not null of ok "
    "on optional or rejected required reset revoked should str str, string that the to too true type "
    "undefined unknown unset unused updated valid was weak were with wrong yes"
)
_NO_VALUES = word_set("true false none null undefined")
_METHODS = word_set("basic bearer digest jwt kerberos ldap none oauth oauth2 oidc saml sso token")
# Deeper than its frame: where there is no source (`python -c`, programs without it) what follows is the exception.
_SOURCE = re.compile(r"^([ |+]*+)File \"[^\n]*+\n(\1  [^\n]*+)", re.MULTILINE)
_LONG_LINE = 2_000  # characters; a longer one is taken for text

Found = tuple[int, int, str, str]


def assignments(text: str, names: KeyNames, *, is_stack: bool = False) -> Iterator[Found]:
    """Each value that stands behind the name of a secret: start, end, rule, name."""
    code = [match.span(2) for match in _SOURCE.finditer(text)] if is_stack else []
    position = 0
    while match := _NAME.search(text, position):
        position = match.end()
        rule, name = _rule_at(text, match, names)
        if rule is None or text.startswith(":", position):
            continue
        span = _value(text, match, rule, is_code=_is_code(text, match.start(1), code))
        if span is not None:
            yield *span, rule.rule, name
            position = span[1]
    for match in _OPTION.finditer(text):
        rule = names.rule_of(match[1])
        found = _PLAIN.match(text, match.end()) if rule is not None else None
        if rule is not None and found is not None and not is_harmless(found[0], rule):
            yield *found.span(), rule.rule, f"--{match[1]}"


def _rule_at(text: str, match: re.Match[str], names: KeyNames) -> tuple[KeyRule | None, str]:
    name = match[1]
    rule = names.rule_of(name)
    if rule is None and name.lower() in _SECOND_WORDS:  # "api key: …"
        before = _WORD_BEFORE.search(text[max(0, match.start() - 20) : match.start()])
        if before is not None:
            name = f"{before[1]} {name}"
            rule = names.rule_of(name)
    return rule, name


def _is_code(text: str, position: int, code: list[tuple[int, int]]) -> bool:
    """Whether the position is in a source line of a traceback, outside any string literal."""
    for start, end in code:
        if start <= position < end:
            return end - start <= _LONG_LINE and not _in_literal(text[start:position])
    return False


def _in_literal(line: str) -> bool:
    quote = ""
    escaped = False
    for character in line:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#":
            return True  # a comment is text
    return bool(quote)


def _value(text: str, match: re.Match[str], rule: KeyRule, *, is_code: bool) -> tuple[int, int] | None:
    space = _SPACE_OF_JSON if match[2] else _SPACE
    start = space.match(text, match.end()).end()  # type: ignore[union-attr]  # it matches nothing, too
    if quote := _QUOTE.match(text, start):
        return _quoted(text, quote, rule)
    if is_code:
        return None
    if text[start : start + 1] in ("[", "{", "("):
        return _bracketed(text, start, rule)
    found = _pattern_of(rule, match).match(text, start)
    if found is None:
        return None
    end = start + len(found[0].rstrip(" \t.:?!"))
    if end == start or is_harmless(text[start:end], rule):
        return None
    return start, end


def _pattern_of(rule: KeyRule, match: re.Match[str]) -> re.Pattern[str]:
    if rule.rule == "authorization":
        return _SCHEME_AND_TOKEN
    return _HEADER if rule.rule == "cookie" and match[3] == ":" and not match[2] else _PLAIN


def _quoted(text: str, quote: re.Match[str], rule: KeyRule) -> tuple[int, int] | None:
    start, closing = quote.end(), quote[1] + quote[2]
    end = text.find(closing, start)
    while end > 0 and text[end - 1] == "\\" and end > start:  # that quote is part of the value
        end = text.find(closing, end + 1)
    if end < 0:  # torn: to the end of the line
        newline = text.find("\n", start)
        end = newline if newline >= 0 else len(text)
    return None if start == end or is_harmless(text[start:end], rule) else (start, end)


def _bracketed(text: str, start: int, rule: KeyRule) -> tuple[int, int] | None:
    depth = 0
    for bracket in _BRACKET.finditer(text, start, start + _FARTHEST):
        depth += 1 if bracket[0] in "[({" else -1
        if depth == 0:
            inside = text[start + 1 : bracket.start()].strip()
            if (
                not inside
                or is_harmless(text[start : bracket.end()], rule)
                or (rule.numbers_stay and _counts(inside))
            ):
                return None
            return start, bracket.end()
    # Torn, or endless: all that follows is the value, which also means that nothing is followed twice.
    seen = text[start + 1 : start + _FARTHEST].rpartition(",")[0]
    return None if rule.numbers_stay and _counts(seen) else (start, len(text))


def _counts(inside: str) -> bool:
    """Whether what a list or dict holds is numbers: counts, not secrets."""
    values = (part.rpartition(":")[2].strip() for part in inside.split(","))
    return all(_NUMBER.fullmatch(value) for value in values)


def is_harmless(value: str, rule: KeyRule, *, is_field: bool = False) -> bool:
    """Whether the value is no secret but a word about it, a placeholder, or a count.

    Args:
        value: what stands behind the name.
        rule: what the name says.
        is_field: whether it is a field's whole value; in text more words are about a secret ("password: wrong").
    """
    word = value.lower()
    if word in (_NO_VALUES if is_field else _STATES) or _MASKED.fullmatch(value):
        return True
    if rule.rule == "authorization" and word in _METHODS:
        return True
    return rule.numbers_stay and _NUMBER.fullmatch(value) is not None
