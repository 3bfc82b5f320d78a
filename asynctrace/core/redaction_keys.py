"""Which names of fields stand for secrets: read word by word, ``token_count`` is none, ``apiToken`` is one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

_KNOWN = 10_000  # names remembered; programs that make up names must not grow this for ever
_LONGEST = 200  # characters of a name that are looked at; the end says what it is
_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")


def word_set(text: str) -> frozenset[str]:
    """The words of the text."""
    return frozenset(text.split())


_PASSWORDS = ("password", "passwords", "passwd", "passphrase", "passcode", "passkey", "pwd")
_PASS_OF = word_set(
    "admin auth db database email ftp http imap ldap login mail mysql pg proxy redis root smtp user"
)
_PASS_WORDS = frozenset(f"{owner}pass" for owner in _PASS_OF)
_KEY_OF = word_set(
    "access account admin aes anthropic api app application auth client consumer decryption deploy "
    "encryption gpg hmac integration jwt license master openai pgp private rsa sas secret server service "
    "session shared signing ssh storage stripe subscription webhook"
)
_KEY_WORDS = ("apikey", "apikeys", "accesskey", "secretkey", "encryptionkey", "signingkey", "masterkey")
_CODE_OF = word_set("auth authorization mfa otp")
_COOKIES = word_set("cookie cookies setcookie sessionid sessid phpsessid jsessionid")
_MAY_BE_CARDS = word_set("pan pans card cards cc debit credit")
_CARDS = word_set("creditcard debitcard cardnumber cardno ccnumber ccnum cvv cvc cvn")
_PLURALS = ("tokens", "keys", "cookies", "passwords", "secrets", "credentials", "creds")

# Behind the word for a secret, these say that the field is *about* the secret.
_ABOUT = word_set(
    "action age alg algorithm allowed arn at attempt attempts audience banner bucket budget bytes change "
    "changed changes chars checked class consent cost count counter counts created date disabled domain "
    "enabled endpoint entropy error errors event exists expiration expire expired expires expiry failed "
    "failure failures field fields file filename flow form format free has help hint id ids index invalid "
    "is issuer kind label len length less level lifetime limit limits link managed manager match matches "
    "max method min minimum maximum mismatch missing mode model modified name names ok page path per "
    "policies policy position present price prompt protected provider rate ratio ref reference required "
    "reset resets rotated rotation rules scheme scope scopes score screen server service size source "
    "state status step store storage strength suffix template time timestamp total tries ttl type types "
    "updated uri url usage used uses valid validation validity verified version view"
)
# Behind a word that often means something else ("token", "cookie"), only these leave it a secret.
_VALUE = word_set(
    "b64 backup base base64 bytes confirm confirmation current data dev digest hash header hex jar live "
    "new old plain previous primary prod production raw secondary secret staging str string test text "
    "value values"
)

# Of these, one at least is in every name that stands for a secret; they are looked for before any name is read.
_HUBS = tuple(
    b"pass pw secret token jwt srf otp key auth mfa security cookie "
    b"sessid sessionid cred card ccn cc-n cv ssn bearer \xa3pan".split()
)


class KeyRule(Struct, frozen=True):
    """What a name says about its value.

    Args:
        rule: the name of the rule.
        numbers_stay: whether a value that is only numbers is a count, not a secret.
    """

    rule: str
    numbers_stay: bool = False


class KeyNames:
    """Decides by the name of a field whether its value is a secret.

    Args:
        extra: further names that are; spelling, case and separators do not matter.
        safe: names that never are.

    >>> names = KeyNames(safe=["pwd"])
    >>> names.rule_of("X-Api-Key").rule, names.rule_of("token_count"), names.rule_of("pwd")
    ('api key', None, None)
    """

    def __init__(self, *, extra: Iterable[str] = (), safe: Iterable[str] = ()) -> None:
        self._extra = {"".join(words_of(name)): name for name in extra}
        self._extra.pop("", None)
        self._safe = {"".join(words_of(name)) for name in safe}
        self._known: dict[str, KeyRule | None] = {}
        self._known_of_cards: dict[str, bool] = {}

    @property
    def hubs(self) -> tuple[bytes, ...]:
        """Texts in lower case of which at least one is in every name that has a rule, however it is spelled."""
        own = (max(words_of(name), key=len, default="") for name in self._extra.values())
        return (*_HUBS, *(hub.encode() for hub in own if hub))

    def rule_of(self, name: str) -> KeyRule | None:
        """The rule that makes a value of that name a secret, or None."""
        try:
            return self._known[name]
        except KeyError:
            rule = self._rule_of_words(words_of(name[-_LONGEST:]))
        if len(self._known) < _KNOWN and len(name) <= _LONGEST:
            self._known[name] = rule
        return rule

    def may_name_card(self, name: str) -> bool:
        """Whether an integer of that name that looks like a card number is one, rather than an id.

        One 16-digit number in ten has a valid checksum, so that a name has to say it: ``pan``, ``card``.

        >>> names = KeyNames()
        >>> [names.may_name_card(name) for name in ("pan", "cardOfPayer", "card_id", "order", "company")]
        [True, True, False, False, False]
        """
        try:
            return self._known_of_cards[name]
        except KeyError:
            words = words_of(name[-_LONGEST:])
        may = (
            not _MAY_BE_CARDS.isdisjoint(words)
            and words[-1] not in _ABOUT
            and "".join(words) not in self._safe
        )
        if len(self._known_of_cards) < _KNOWN and len(name) <= _LONGEST:
            self._known_of_cards[name] = may
        return may

    def _rule_of_words(self, words: list[str]) -> KeyRule | None:
        joined = "".join(words)
        if joined in self._safe:
            return None
        if joined in self._extra:
            return KeyRule(self._extra[joined])
        for index, word in enumerate(words):
            before = words[index - 1] if index else ""
            found = _rule_of_word(word, before, words[index + 1 :], is_only=len(words) == 1)
            if found is not None:
                return KeyRule(found, word.endswith(_PLURALS) or word in ("pass", "pw", "auth"))
        return None


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, without the numbers behind them.

    >>> words_of("dbPassword2-OLD")
    ['db', 'password', 'old']
    """
    words = (word.lower().rstrip("0123456789") or word for word in _BOUNDARY.split(name) if word)
    return [word for word in words if not word.isdigit()]


def _rule_of_word(word: str, before: str, rest: list[str], *, is_only: bool) -> str | None:
    is_end = all(later in _VALUE for later in rest)
    is_key = word in ("key", "keys")
    is_not_about = _ABOUT.isdisjoint(rest)
    if word.endswith(_PASSWORDS) or (word.startswith("password") and word.removeprefix("password") in _VALUE):
        return "password" if is_not_about else None
    if word in _PASS_WORDS or (word in ("pass", "pw") and (before in _PASS_OF or is_only)):
        return "password" if is_end else None
    if word.endswith(("secret", "secrets")):
        return "secret" if is_not_about else None
    if word.endswith(("token", "tokens")) or word in ("jwt", "csrf", "xsrf", "otp", "totp", "bearer"):
        return "token" if is_end else None
    if word.startswith("token") and word.removeprefix("token") in ("value", "secret", "hash"):
        return "token"
    if word.endswith(("privatekey", "sshkey")) or (is_key and before in ("private", "ssh", "rsa")):
        return "private key" if is_end else None
    if word.endswith(_KEY_WORDS) or (is_key and before in _KEY_OF):
        return "api key" if is_end else None
    if word == "code" and before in _CODE_OF:
        return "token" if is_end else None
    if word in ("authorization", "auth"):
        return "authorization" if is_end else None
    if word in _COOKIES:
        return "cookie" if is_end else None
    if word in ("credential", "credentials", "creds"):
        return "credential" if is_not_about else None
    if word in _CARDS or (word == "card" and before in ("credit", "debit")):
        return "credit card" if is_end else None
    if (word in ("number", "no", "num") and before in ("card", "cc")) or (before, word) == (
        "security",
        "code",
    ):
        return "credit card" if is_end else None
    if word == "ssn" or ((before, word) == ("social", "security") and rest in ([], ["number"])):
        return "social security"
    return None
