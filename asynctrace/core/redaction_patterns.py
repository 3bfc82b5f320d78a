"""Secrets inside text: found by shape (keys, cards, URLs), or by the name in front of them (``password=…``).

:class:`TextPatterns` answers two questions. ``suspicious`` looks for short literals and serves hundreds of texts in
one call; ``spans`` says where the secrets of one text are. No pattern backtracks: runs are possessive or bounded.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from asynctrace.core.redaction_assignments import assignments
from asynctrace.core.redaction_keys import KeyNames

_FOLDED = str.maketrans(
    string.ascii_uppercase + string.digits + "_ ", string.ascii_lowercase + "0" * 10 + "--"
)
_TABLE = bytes(_FOLDED.get(code, code) for code in range(256))


class Span(Struct, frozen=True):
    """A secret in a text.

    Args:
        start: index of its first character.
        end: index behind its last one.
        rule: the name of the rule.
        why: what gave it away, in words.
    """

    start: int
    end: int
    rule: str
    why: str


Finder = Callable[[str], Iterator[tuple[int, int]]]

# -- by shape ------------------------------------------------------------------------------------------------

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{5,}+\.[\w-]{5,}+(?:\.[\w-]*+){0,3}", re.ASCII)
_AWS = re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])")
# What services issue, by the prefixes that they document. Lengths are lower bounds: services make their keys longer.
_ISSUED = (
    r"gh[opsur]_\w{20,255}+",  # github.blog/changelog/2021-03-31-authentication-token-format-updates: up to 255
    r"github_pat_\w{20,255}+",  # docs.github.com: GitHub's token formats
    r"glpat-[\w-]{16,300}+(?:\.[0-9a-z]{2,9}){0,2}",  # docs.gitlab.com/security/tokens: token prefixes; dots: routable
    r"xox[a-z](?:\.xox[a-z])?-(?=[A-Za-z-]{0,60}\d)[A-Za-z0-9-]{10,300}+",  # docs.slack.dev/authentication/tokens
    r"xapp-(?=[A-Za-z-]{0,60}\d)[A-Za-z0-9-]{10,300}+",  # the same page
    r"hf_[A-Za-z0-9]{30,255}+",  # huggingface.co/docs/hub/security-tokens; 34 characters
    r"npm_[A-Za-z0-9]{30,255}+",  # github.blog/2021-09-23-announcing-npms-new-access-token-format; 36 characters
    r"AIza[\w-]{30,255}+",  # cloud.google.com/docs/authentication/api-keys; 35 characters
    r"sk_(?:live|test)_[A-Za-z0-9]{10,255}+",  # docs.stripe.com/keys
    r"sk-(?=[A-Za-z_-]{0,30}\d)[\w-]{20,255}+",  # OpenAI, Anthropic and others that follow them
)
_VENDOR = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_ISSUED)})", re.ASCII)
_BEARER = re.compile(r"\bbearer[ \t]{1,3}+([\w.~+/=-]{6,}+)", re.IGNORECASE | re.ASCII)
_BASIC = re.compile(r"\bbasic[ \t]{1,3}+([A-Za-z0-9+/_-]{4,}+={0,2})", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]?[a-z-]{0,22}[.]?")  # an English word, as in "bearer authentication"
_CARD = re.compile(
    r"(?<![0-9A-Za-z.])"
    r"(?:[0-9]{13,19}+|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}+|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5}+)"
    r"(?![0-9A-Za-z])(?!\.[0-9])"
)
_BRAND = re.compile(  # the digits that each brand's cards have: first ones and how many
    r"4(?:.{12}|.{15}|.{18})|(?:5[1-5]|222[1-9]|22[3-9].|2[3-6]..|27[01].|2720).*(?<=^.{16})|3[47].{13}"
    r"|3(?:0[0-5]|[68].).{11}|(?:6011|65..|64[4-9].|35[2-8].).{12}|62.{14,17}"
)
_AUTHORITY = re.compile(r"[^\s\"'<>`\\]{1,1024}+")
_PORT = re.compile(r"[0-9]{1,5}(?:[/?#]|$)")
_ENDS_AUTHORITY = re.compile(r"[/?#]")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]{0,40}$", re.ASCII)
_TOKEN_USER = re.compile(r"(?=[\w.~-]*[0-9])[\w.~-]{16,}")


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    position = 0
    while begin := _PEM.search(text, position):
        end = _PEM_END.search(text, begin.end())
        position = end.end() if end else len(text)  # torn: all that follows is the key
        yield begin.start(), position


def _jwts(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _JWT.finditer(text))


def _aws_keys(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _AWS.finditer(text))


def _vendor_keys(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _VENDOR.finditer(text))


def _bearers(text: str) -> Iterator[tuple[int, int]]:
    for match in _BEARER.finditer(text):
        if not _WORD.fullmatch(match[1]):
            yield match.span(1)


def _basics(text: str) -> Iterator[tuple[int, int]]:
    for match in _BASIC.finditer(text):
        try:
            decoded = base64.b64decode(match[1].rstrip("=") + "==", altchars=b"-_").decode()
        except ValueError:  # no base64 of a text, so no credentials
            continue
        if ":" in decoded and decoded.isprintable():
            yield match.span(1)


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        digits = match[0].replace(" ", "").replace("-", "")
        if is_card(digits):
            yield match.span()


def is_card(digits: str) -> bool:
    """Whether the digits are those of a payment card: a brand's first digits and length, and the Luhn checksum.

    >>> is_card("4111111111111111"), is_card("4111111111111112"), is_card("1700000000000000")
    (True, False, False)
    """
    if not 13 <= len(digits) <= 19 or not _BRAND.fullmatch(digits):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _passwords_in_urls(text: str) -> Iterator[tuple[int, int]]:
    position = text.find("://")
    while position >= 0 and text.find("@", position) >= 0:
        start = position + 3
        found = _AUTHORITY.match(text, start)
        secret = (
            _userinfo(found[0]) if found and _SCHEME.search(text[max(0, position - 41) : position]) else None
        )
        if secret is not None:
            yield start + secret[0], start + secret[1]
            start += secret[1]
        position = text.find("://", start)


def _userinfo(rest: str) -> tuple[int, int] | None:
    """Where the secret is in what follows ``scheme://``."""
    separator = _ENDS_AUTHORITY.search(rest)
    authority = rest[: separator.start()] if separator else rest
    end = authority.rfind("@")
    colon = rest.find(":")
    if rest[0] == "[":  # an IPv6 address
        return None
    if end < 0 and separator and 0 <= colon < separator.start() and not _PORT.match(rest, colon + 1):
        end = rest.rfind("@")  # the password holds a slash that was not encoded
    if end < 0:
        return None
    if 0 <= colon < end:
        return (colon + 1, end) if colon + 1 < end else None
    return (0, end) if _TOKEN_USER.fullmatch(rest[:end]) else None


# -- all together --------------------------------------------------------------------------------------------

_SHAPES: tuple[tuple[str, str, Finder], ...] = (
    ("private key", "a PEM private key", _private_keys),
    ("connection string", "a password in a URL", _passwords_in_urls),
    ("token", "a JSON Web Token", _jwts),
    ("aws key", "an AWS access key", _aws_keys),
    ("api key", "a key of a known service", _vendor_keys),
    ("authorization", "a bearer token", _bearers),
    ("authorization", "basic credentials", _basics),
    ("credit card", "a card number with a valid checksum", _cards),
)


_has_scheme_word = re.compile(rb"b(?:earer|asic)-").search  # in folded text
_has_secret_key = re.compile(rb"sk(?:-|_live_|_test_)").search
# By their separators, which are rarer than the letters before them; the first look behind settles nearly all.
_has_token = re.compile(
    rb"_(?<=[hpa][fmoprstu]_)(?:(?<=gh[opsur]_)|(?<=npm_)|(?<=hf_)|(?<=github_pat_))"
).search
_has_dashed_token = re.compile(rb"-(?<=[apx][a-z]-)(?:(?<=glpat-)|(?<=xapp-)|(?<=xox[a-z]-))").search
_has_jwt = re.compile(rb"eyJ").search
_has_key_id = re.compile(rb"A(?:KIA|SIA|Iza)").search
_has_url = re.compile(rb"://").search


class TextPatterns:
    """Finds secrets inside text.

    Args:
        names: which names stand for secrets.
        extra: further patterns by the name of their rule; what a pattern matches is the secret.

    >>> found = TextPatterns(KeyNames()).spans("login failed: password=hunter2")
    >>> [(span.start, span.end, span.rule) for span in found]
    [(23, 30, 'password')]
    """

    def __init__(self, names: KeyNames, extra: Mapping[str, re.Pattern[str]] | None = None) -> None:
        self._names = names
        self._hubs = [re.compile(pattern).search for pattern in _by_first_byte(names.hubs)]
        self._extra = dict(extra or {})

    def has_name(self, folded: bytes) -> bool:
        """Whether the folded text may hold the name of a secret; False is certain."""
        return any(search(folded) is not None for search in self._hubs)

    def has_shape(self, raw: bytes, folded: bytes) -> bool:
        """Whether one of the texts may hold a secret that shows by its shape; False is certain.

        Args:
            raw: any number of texts, joined by line ends.
            folded: the same after :func:`fold`.
        """
        # Most calls look at 250 texts: a literal of one byte is found at once, a long one soon, and one that is short
        # at half the time by a pattern that begins with a letter.
        return (
            b"0000000000000" in folded
            or b"0000-0000" in folded
            or b"PRIVATE KEY" in raw
            or _has_scheme_word(folded) is not None
            or _has_secret_key(raw) is not None
            or _has_token(raw) is not None
            or _has_dashed_token(raw) is not None
            or _has_jwt(raw) is not None
            or _has_key_id(raw) is not None
            or (b"@" in raw and _has_url(raw) is not None)
        )

    def suspicious(self, text: str) -> bool:
        """Whether the text may hold a secret; False is certain."""
        raw = text.encode("utf-8", "surrogatepass")
        folded = fold(raw)
        if self._extra or self.has_shape(raw, folded):
            return True
        return is_assigning(text) and self.has_name(folded)

    @property
    def has_extra(self) -> bool:
        """Whether there are extra patterns."""
        return bool(self._extra)

    def spans(self, text: str, *, is_stack: bool = False) -> list[Span]:
        """Where the secrets of the text are, from left to right, without overlaps.

        Args:
            text: any text.
            is_stack: whether it is a traceback: in its source lines ``password=password`` is a name, not a secret.
        """
        found = [
            Span(start, end, rule, why)
            for rule, why, find in _SHAPES
            for start, end in find(text)
            if start < end
        ]
        found += [
            Span(start, end, rule, f"the name {name!r} in front")
            for start, end, rule, name in assignments(text, self._names, is_stack=is_stack)
        ]
        for rule, pattern in self._extra.items():
            found += [
                Span(match.start(), match.end(), rule, f"the pattern {pattern.pattern!r}")
                for match in pattern.finditer(text)
                if match[0]
            ]
        return _merged(found)


def _by_first_byte(literals: Iterable[bytes]) -> list[bytes]:
    """One pattern for all literals with the same first byte, which the search then goes by: it is three times as
    quick as one pattern for all."""
    groups: dict[bytes, list[bytes]] = {}
    for literal in literals:
        groups.setdefault(literal[:1], []).append(re.escape(literal[1:]))
    return [b"%b(?:%b)" % (re.escape(first), b"|".join(rest)) for first, rest in groups.items()]


def is_assigning(text: str) -> bool:
    """Whether a value may stand behind a name in the text."""
    return "=" in text or ":" in text or "--" in text


def fold(raw: bytes) -> bytes:
    """The bytes in the form that literals are looked for: lower case, digits as 0, underscores and spaces as -."""
    return raw.translate(_TABLE)


def _merged(found: list[Span]) -> list[Span]:
    found.sort(key=lambda span: (span.start, -span.end))
    merged: list[Span] = []
    for span in found:
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            if span.end > last.end:
                merged[-1] = Span(last.start, span.end, last.rule, last.why)
        else:
            merged.append(span)
    return merged
