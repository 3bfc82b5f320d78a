"""Redaction: what is a secret goes, whatever it is wrapped in; what is none stays, to the character."""

import base64
import json
import pickle
import re
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrace import ConfigurationError, Record
from asynctrace.core import codec
from asynctrace.core.redaction import Redactor
from asynctrace.core.redaction_keys import KeyNames
from asynctrace.core.redaction_match import Match, mark
from asynctrace.core.redaction_patterns import fold
from asynctrace.pipeline.screen import Screen
from asynctrace.testing.records import make_record

SECRET = "hunter2Zq9xV7"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\nMIIE{SECRET}\nabc\n-----END RSA PRIVATE KEY-----"
JWT = f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}"
BASIC = base64.b64encode(f"ann:{SECRET}".encode()).decode()

SECRET_NAMES = [
    *("password", "PASSWORD", "db_password", "userPassword", "password2", "new-password", "passwd", "pwd"),
    *("passphrase", "passcode", "mysql_pwd", "dbpass", "db_pass", "password_hash", "passwordConfirmation"),
    *("secret", "client_secret", "clientSecret", "SECRET_KEY", "secret_key_base", "aws_secret_access_key"),
    *("token", "access_token", "accessToken", "refresh_token", "id_token", "authtoken", "csrf_token", "jwt"),
    *("csrfmiddlewaretoken", "X-CSRF-Token", "xsrf", "otp", "bearer", "token_value", "auth_code", "tokens"),
    *("api_key", "apiKey", "APIKEY", "api-key", "X-Api-Key", "access_key", "private_key", "privateKey"),
    *("encryption_key", "signing_key", "ssh_key", "session_key", "api_keys", "OPENAI_API_KEY"),
    *("authorization", "Authorization", "Proxy-Authorization", "auth", "basic_auth", "x-auth-token"),
    *("cookie", "cookies", "Set-Cookie", "session_cookie", "sessionid", "PHPSESSID", "JSESSIONID"),
    *("credentials", "aws_credentials", "creds", "credit_card", "creditCard", "card_number", "cardNumber"),
    *("credit_card_number", "cvv", "cvc", "cc_number", "ccnum", "security_code", "ssn"),
    *("social_security_number",),
]

HARMLESS_NAMES = [
    *("token_count", "tokens_used", "max_tokens_per_run", "token_type", "token_expires_at", "tokenizer"),
    *(
        "password_reset",
        "password_length",
        "password_policy",
        "password_changed_at",
        "passwordless",
        "passed",
    ),
    *("author", "authors", "authority", "authenticated", "authorized", "auth_type", "authorization_url"),
    *(
        "monkey",
        "key",
        "keys",
        "keyboard",
        "cache_key",
        "primary_key",
        "foreign_key",
        "public_key",
        "sort_key",
    ),
    *("cookie_banner", "cookie_consent", "cookie_policy", "session", "session_id", "session_count"),
    *(
        "secretary",
        "secret_name",
        "secret_version",
        "passenger",
        "compass",
        "bypass",
        "pass_rate",
        "first_pass",
    ),
    *("card", "cardinality", "discard", "wildcard", "credit", "credits", "accredited", "credit_card_type"),
    *(
        "option",
        "footprint",
        "postcode",
        "error_code",
        "status_code",
        "classname",
        "upward",
        "number",
        "",
        "x",
    ),
    *("api_key_id", "access_key_id", "bearing", "assassination", "idempotency_key", "user_id", "trace_id"),
]

SECRET_TEXTS = [
    f"password={SECRET}",
    f"password = '{SECRET}'",
    f'connect(password="{SECRET}")',
    f"login failed, password: {SECRET}",
    f'{{"password": "{SECRET}"}}',
    f'{{"user": "ann", "pass_word": 1, "nested": {{"apiKey":"{SECRET}"}}}}',
    json.dumps(json.dumps({"password": SECRET})),
    json.dumps(json.dumps(json.dumps({"headers": {"Authorization": f"Bearer {SECRET}"}}))),
    f'{{"password":\n    "{SECRET}"}}',
    f'{{"tokens": ["{SECRET}", "b"]}}',
    f'{{"credentials": {{"user": "ann", "key": "{SECRET}"}}}}',
    f"{{'secret': b'{SECRET}'}}",
    f"Server=db;User Id=sa;Password={SECRET};Pooling=true",
    f"Driver=x;UID=sa;PWD={{{SECRET}}};",
    f"https://example.com/?user=ann&api_key={SECRET}&page=2",
    f"curl -H 'Authorization: Bearer {SECRET}' https://example.com",
    f"Authorization: Basic {BASIC}",
    f'Authorization: Digest username="ann", response="{SECRET}"',
    f"Cookie: a=1; session={SECRET}; theme=dark",
    f"Set-Cookie: sid={SECRET}; HttpOnly",
    f"psql --password {SECRET} -h db",
    f"deploy --api-key={SECRET}",
    f"api key: {SECRET}",
    f"os.environ['AWS_SECRET_ACCESS_KEY'] = '{SECRET}'",
    f"export GITHUB_TOKEN={SECRET}",
    f"headers: X-Api-Key => {SECRET}",
    f"postgres://ann:{SECRET}@db.example.com:5432/app",
    f"could not connect to redis://:{SECRET}@cache/0: timed out",
    f"postgresql+asyncpg://ann:{SECRET}/x@db/app",
    f"amqp://ann:p@{SECRET}@mq//",
    f"https://{SECRET}{SECRET}@github.com/a/b.git",
    f"Bearer {SECRET}",
    f"sent header bearer {SECRET}.",
    f"Basic {BASIC}",
    f"got {JWT} back",
    PEM,
    PEM.replace("\n", "\\n"),
    PEM[: PEM.index("-----END")],
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}",
]

SHAPED = {
    "AKIAIOSFODNN7EXAMPLE": "aws key",
    "ASIAIOSFODNN7EXAMPLE": "aws key",
    "4111 1111 1111 1111": "credit card",
    "4111-1111-1111-1111": "credit card",
    "4111111111111111": "credit card",
    "5555555555554444": "credit card",
    "378282246310005": "credit card",
    "3782 822463 10005": "credit card",
    "6011111111111117": "credit card",
    "30569309025904": "credit card",
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc": "api key",
    "sk-proj-abcDEF0123456789abcDEF": "api key",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345": "api key",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv": "api key",
}

HARMLESS_TEXTS = [
    "session started, session=5, session: open",
    '  File "app/session.py", line 3, in session\n    session = Session(token)\n',
    "token_count=5 password_reset=True tokens_used: 7 author=ann monkey=1 cookie_banner=on",
    "max_tokens=1200, tokens: 45, total_tokens=1,234",
    'usage: {"tokens": {"prompt": 12, "completion": 30}}',
    "the password is wrong; password: wrong; password=None; token: expired; secret: missing",
    "password=*** password=[redacted: password] token=${TOKEN} secret=%s api_key='' cookie=",
    "bearer authentication required, basic understanding, Basic authentication failed, Bearer tokens",
    "auth=basic, auth: oauth2",
    "http://localhost:8080/path/@user https://example.com:443/@x http://[::1]:80/a@b s3://bucket/a:b@c",
    "git clone ssh://git@github.com/a/b and mail bob@example.com",
    "12:30:45.123456 2026-11-22 1700000000000000000 0.4111111111111111 550e8400-e29b-41d4-a716-446655440000",
    "order 4111111111111112, phone 0049 1234 5678 9012",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----",
    "std::token::value and a->token::b",
    "task-1 risk-averse disk-usage eyJ AKIA sk- ghp_",
    "the secret of the monkey, the key to the cookie: none",
    "Ein Schlüssel für Änderungen — 日本語: テスト=1 \udce9",
]


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


def record_with(message: str = "x", fields: dict[str, Any] | None = None) -> Record:
    return make_record(1, message=message, fields=fields or {})


# -- what goes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_value_of_a_secret_name_goes(redactor: Redactor, name: str) -> None:
    assert SECRET not in repr(redactor.redact_fields({name: SECRET}))
    assert SECRET not in repr(redactor.redact_fields({"a": [{"b": {name: [SECRET]}}]}))
    assert SECRET not in redactor.redact_text(json.dumps({"a": {name: SECRET}}))
    assert SECRET not in redactor.redact_text(f"failed with {name}={SECRET}")


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_every_secret_name_is_seen_by_the_search_over_many_texts(name: str) -> None:
    names = KeyNames()

    assert any(hub in fold(name.encode()) for hub in names.hubs)


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_secret_in_text_goes(redactor: Redactor, text: str) -> None:
    redacted = redactor.redact_text(text)

    assert SECRET not in redacted
    assert BASIC not in redacted
    assert "[redacted: " in redacted
    assert redactor.redact_text(redacted) == redacted


@pytest.mark.parametrize(("secret", "rule"), SHAPED.items())
def test_secret_that_shows_by_its_shape_goes(redactor: Redactor, secret: str, rule: str) -> None:
    assert redactor.redact_text(f"got {secret}, really") == f"got {mark(rule)}, really"
    assert redactor.redact_fields({"note": secret}) == {"note": mark(rule)}


def test_pairs_of_name_and_value_are_understood(redactor: Redactor) -> None:
    fields = {
        "headers": [["authorization", "abc"], ["accept", "*/*"]],
        "env": [{"name": "DB_PASSWORD", "value": "abc"}, {"name": "HOME", "value": "/root"}],
    }

    assert redactor.redact_fields(fields) == {
        "headers": [["authorization", mark("authorization")], ["accept", "*/*"]],
        "env": [{"name": "DB_PASSWORD", "value": mark("password")}, {"name": "HOME", "value": "/root"}],
    }


def test_secret_used_as_a_name_goes(redactor: Redactor) -> None:
    assert "AKIAIOSFODNN7EXAMPLE" not in repr(redactor.redact_fields({"AKIAIOSFODNN7EXAMPLE": 1}))


def test_literals_in_source_lines_go_and_names_stay(redactor: Redactor) -> None:
    stack = (
        "Traceback (most recent call last):\n"
        '  File "app.py", line 3, in main\n'
        f'    connect(user, password=password, token="{SECRET}")\n'
        '  File "app.py", line 9, in connect\n'
        f'    raise ValueError("password={SECRET}")\n'
        f"ValueError: password={SECRET}\n"
    )

    assert redactor.redact_text(stack, is_stack=True) == (
        "Traceback (most recent call last):\n"
        '  File "app.py", line 3, in main\n'
        f'    connect(user, password=password, token="{mark("token")}")\n'
        '  File "app.py", line 9, in connect\n'
        f'    raise ValueError("password={mark("password")}")\n'
        f"ValueError: password={mark('password')}\n"
    )


def raise_in_code_without_source() -> None:
    exec(
        compile("def f(password):\n    raise ValueError(f'password={password}')", "<string>", "exec"),
        found := {},
    )
    found["f"](SECRET)


def raise_group() -> None:
    try:
        raise_in_code_without_source()
    except ValueError as error:
        raise ExceptionGroup("several", [error, ValueError(f"api_key={SECRET}")]) from error


@pytest.mark.parametrize("fail", [raise_in_code_without_source, raise_group])
def test_what_follows_a_frame_without_source_is_no_source(
    redactor: Redactor, fail: Callable[[], None]
) -> None:
    with pytest.raises((ValueError, ExceptionGroup)) as caught:
        fail()

    told = redactor.redact_text("".join(traceback.format_exception(caught.value)), is_stack=True)

    assert SECRET not in told
    assert f"ValueError: password={mark('password')}" in told


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLANTED = st.sampled_from(
    [{name: SECRET} for name in SECRET_NAMES]
    + [{name: {"x": [SECRET]}} for name in SECRET_NAMES[:8]]
    + SECRET_TEXTS
)


@st.composite
def nested_secrets(draw: st.DrawFn) -> dict[str, Any]:
    value: Any = draw(PLANTED)
    for _ in range(draw(st.integers(0, 5))):
        match draw(st.sampled_from(["dict", "list", "json"])):
            case "dict":
                name = draw(st.text("abcdefgh_", max_size=6))
                value = {"first": draw(JSON_VALUES), name: value, "last": draw(JSON_VALUES)}
            case "list":
                value = [draw(JSON_VALUES), value, draw(JSON_VALUES)]
            case "json":
                value = json.dumps(value)
    return {"n": draw(JSON_VALUES), "field": value}


@given(st.lists(nested_secrets(), min_size=1, max_size=4))
def test_planted_secrets_never_survive(planted: list[dict[str, Any]]) -> None:
    records = [record_with("plain", {}) for _ in planted]
    for record, fields in zip(records, planted, strict=True):
        record.own_fields = fields

    Redactor().redact(records)

    assert SECRET not in repr([record.to_dict() for record in records])
    for fields in planted:
        payload = Screen(Redactor()).clean_payload(msgspec.msgpack.encode(fields))
        assert SECRET.encode() not in payload


# -- what stays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_harmless_name_stays(redactor: Redactor, name: str) -> None:
    fields = {name: "words", "nested": {name: [5]}}

    assert redactor.redact_fields(fields) == fields
    assert redactor.redact_text(f"seen {name}=words and {name}: 5") == f"seen {name}=words and {name}: 5"


@pytest.mark.parametrize("text", HARMLESS_TEXTS)
def test_harmless_text_stays(redactor: Redactor, text: str) -> None:
    assert redactor.redact_text(text, is_stack="File" in text) == text


@pytest.mark.parametrize("value", [None, True, False, "", [], {}])
def test_value_that_can_be_no_secret_stays(redactor: Redactor, value: object) -> None:
    assert redactor.redact_fields({"password": value}) == {"password": value}


def test_counts_of_plural_names_stay(redactor: Redactor) -> None:
    fields = {"tokens": {"prompt": 12, "completion": 30}, "max_tokens": 4096, "cookies": 3, "keys": ["a"]}

    assert redactor.redact_fields(fields) is not fields
    assert redactor.redact_fields(fields) == fields


PLAIN_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="=:@-"), max_size=60).filter(
    lambda text: not re.search(r"\d{4}|bearer|basic|eyj|sk|private|ghp|akia|asia|aiza", text, re.IGNORECASE)
)


@given(st.text(max_size=200) | st.lists(st.sampled_from(HARMLESS_TEXTS), max_size=4).map("\n".join))
def test_text_without_the_marks_of_a_secret_is_the_same_object(text: str) -> None:
    hidden = re.search(
        r"\d{12}|pass|pw|secret|token|key|auth|cookie|card|cred|otp|ssn|cv|jwt|srf|sess|@", text, re.I
    )

    if not hidden:
        assert Redactor().redact_text(text) is text


@given(
    st.dictionaries(PLAIN_TEXT.filter(lambda name: not KeyNames().rule_of(name)), PLAIN_TEXT | st.integers())
)
def test_fields_without_secrets_are_the_same_object(fields: dict[str, Any]) -> None:
    record = record_with("plain")
    record.own_fields = fields
    payload = (
        msgspec.msgpack.encode(fields)
        if all(-(2**63) <= v < 2**64 for v in fields.values() if type(v) is int)
        else b""
    )

    Redactor().redact([record])

    assert record.own_fields is fields
    assert codec.canonical(Screen(Redactor()).clean_payload(payload)) == codec.canonical(payload)


# -- many records at once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_hand", [True, False])
def test_one_secret_among_many_records_is_found(at_hand: bool) -> None:
    texts = [*SECRET_TEXTS, *(f"{name}={SECRET}" for name in SECRET_NAMES)]
    for text in texts:
        redactor = Redactor()
        for _ in range(2):  # the second time the harmless ones are known
            records = [
                record_with(f"step {number}", {"rows": number, "table": "orders"}) for number in range(40)
            ]
            records[7] = record_with("x", {"note": text, "rows": 1})
            records[23] = record_with(text, {"rows": 1})
            payloads = [msgspec.msgpack.encode(record.own_fields) for record in records] if at_hand else None

            redactor.redact(records, payloads, nested=False if at_hand else None)

            assert SECRET not in repr([record.to_dict() for record in records])
            assert [record.message for record in records[:7]] == [f"step {number}" for number in range(7)]


def test_line_that_was_encoded_before_is_encoded_again(redactor: Redactor) -> None:
    record = record_with("x", {"password": SECRET})
    record.json = b"{...}"

    redactor.redact([record])

    assert record.json is None
    assert record.own_fields == {"password": mark("password")}


def test_payload_of_a_secret_is_packed_again(redactor: Redactor) -> None:
    payload = msgspec.msgpack.encode({"rows": 1, "db": {"password": SECRET}})

    assert msgspec.msgpack.decode(Screen(redactor).clean_payload(payload)) == {
        "rows": 1,
        "db": {"password": mark("password")},
    }


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x93\x01", b"password=x", msgspec.msgpack.encode(["token", 1])]
)
def test_payload_that_holds_no_fields_raises_nothing(redactor: Redactor, payload: bytes) -> None:
    assert isinstance(Screen(redactor).clean_payload(payload), bytes)


# -- modes, lists, callbacks ---------------------------------------------------------------------------------


def test_keys_mode_looks_at_names_only() -> None:
    record = record_with(f"password={SECRET}", {"a": {"token": "abc"}, "note": f"password={SECRET}"})
    Redactor("keys").redact([record])

    assert record.own_fields == {"a": {"token": mark("token")}, "note": f"password={SECRET}"}
    assert record.message == f"password={SECRET}"


def test_off_leaves_everything() -> None:
    record = record_with(f"password={SECRET}", {"password": SECRET})
    redactor = Redactor("off")
    redactor.redact([record])

    assert (record.message, record.own_fields) == (f"password={SECRET}", {"password": SECRET})
    assert redactor.redact_text(f"password={SECRET}") == f"password={SECRET}"
    assert redactor.redact_fields({"password": SECRET}) == {"password": SECRET}
    assert redactor.explain(f"password={SECRET}") == ()


def test_users_names_and_patterns_are_secrets_and_safe_names_are_none() -> None:
    redactor = Redactor(names=["Badge-No"], safe_names=["session_key"], patterns={"badge": r"\bB-\d{6}\b"})

    assert redactor.redact_fields({"badge_no": "x", "badgeNo": "x", "session_key": "abc"}) == {
        "badge_no": mark("Badge-No"),
        "badgeNo": mark("Badge-No"),
        "session_key": "abc",
    }
    record = record_with("seen B-123456", {"note": "B-123456"})
    redactor.redact([record])
    assert (record.message, record.own_fields) == (f"seen {mark('badge')}", {"note": mark("badge")})


def test_callback_decides() -> None:
    asked: list[Match] = []

    def callback(match: Match) -> object:
        asked.append(match)
        return {"a": match.value, "b": "**", "c": None}.get(match.path[-1], match.value)

    fields = Redactor(callback=callback).redact_fields({"x": {"token": "1"}, "pw": "abc"})

    assert fields == {"x": {"token": "1"}, "pw": "abc"}
    assert [(match.path, match.rule, match.value) for match in asked] == [
        ("fields.x.token", "token", "1"),
        ("fields.pw", "password", "abc"),
    ]
    replaced = Redactor(callback=lambda match: "**")
    assert replaced.redact_text("password=abc token=def") == "password=** token=**"
    assert replaced.counts == {"password": 1, "token": 1}
    assert Redactor(callback=lambda match: None).redact_text("password=abc") == f"password={mark('password')}"


def test_callback_that_fails_costs_the_whole_value_and_is_counted() -> None:
    def callback(match: Match) -> object:
        raise RuntimeError(match.value)

    redactor = Redactor(callback=callback)
    record = record_with(f"before password={SECRET} after", {"token": SECRET, "rows": 1})
    redactor.redact([record])

    assert (record.message, record.own_fields) == (mark("error"), {"token": mark("error"), "rows": 1})
    assert redactor.errors == 2


def test_explain_tells_what_and_why_without_the_secret(redactor: Redactor) -> None:
    found = redactor.explain(
        f"password={SECRET}", {"db": [{"url": f"postgres://a:{SECRET}@b/c"}], "pwd": SECRET}
    )

    assert [(each.path, each.rule, each.why) for each in found] == [
        ("message", "password", "the name 'password' in front"),
        ("fields.db[0].url", "connection string", "a password in a URL"),
        ("fields.pwd", "password", "the name 'pwd'"),
    ]
    assert SECRET not in repr(found)
    assert not redactor.counts


def test_counts_say_how_many_by_rule(redactor: Redactor) -> None:
    redactor.redact_fields({"password": "a", "x": ["password=b", {"token": "c"}]})

    assert redactor.counts == {"password": 2, "token": 1}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"mode": "some"}, "redact"),
        ({"names": "password"}, "names"),
        ({"safe_names": "password"}, "safe_names"),
        ({"patterns": {"badge": "("}}, "patterns['badge']"),
    ],
)
def test_argument_that_cannot_be_used_is_an_error(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Redactor(**arguments)

    assert caught.value.name == name
    assert pickle.loads(pickle.dumps(caught.value)).allowed == caught.value.allowed


def test_record_whose_fields_are_broken_raises_nothing(redactor: Redactor) -> None:
    class Hostile(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError(SECRET)

    record = record_with("x")
    record.own_fields = {"password": Hostile(a=1), "token": object(), "y": {1: {"secret": SECRET}}}
    redactor.redact([record])

    assert record.own_fields == {
        "password": mark("password"),
        "token": mark("token"),
        "y": {1: {"secret": mark("secret")}},
    }


# -- hostile texts -------------------------------------------------------------------------------------------

HOSTILE = [
    *("a", "1", "4111 ", "4111111111111111 ", "=", ":", "@", '"', "'", "\\", "{", "[", "-", ".", " ", "\n"),
    *(
        "://",
        "a://b:c",
        "a://b:c@",
        "://@",
        "eyJ",
        "eyJa.",
        "-eyJ-",
        "eyJaaaaa.bbbbb.",
        "AKIA",
        "sk-",
        "Bearer ",
    ),
    *(
        "basic QQ==",
        "password",
        "password=",
        "password:",
        "password='",
        'password="\\"',
        "password={",
        "tokens=[",
    ),
    *(
        "tokens={1,",
        'token\\\\"',
        "--password ",
        "-----BEGIN RSA PRIVATE KEY-----",
        "cookie: ",
        "authorization: ",
    ),
    *(
        'File "x"\n',
        "a.b-c_",
        "password=a.",
        "key: ",
        "api key: ",
        "a\\",
        "password=\\",
        "1-1 ",
        "4111-1111-",
        '\\"password\\":',
    ),
]


@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_hostile_text_takes_time_in_proportion(piece: str) -> None:
    text = (piece * (2**16 // len(piece))) + " password=x @://"

    start = time.process_time()
    Redactor().redact_text(text, is_stack=True)

    # Linear work takes a fraction of a second; what backtracks, or follows a tail twice, takes minutes.
    assert time.process_time() - start < 5


@pytest.mark.parametrize("piece", ["a://b:c@", "eyJa.", "password='", "tokens=[", "1-1 ", "a.b-c_"])
def test_hostile_text_of_a_megabyte_takes_time_in_proportion(piece: str) -> None:
    text = (piece * (2**20 // len(piece))) + " password=x @://"

    start = time.process_time()
    Redactor().redact_text(text, is_stack=True)

    assert time.process_time() - start < 30


def test_names_with_a_secret_in_them_lose_it_and_stay_apart() -> None:
    redactor = Redactor()
    fields = {"args": {"password=hunter2": 1, "password=hunter3": 2, "retries": 3}}
    (args,) = redactor.redact_fields(fields).values()
    assert list(args) == ["password=[redacted: password]", "password=[redacted: password] (2)", "retries"]
    assert args["retries"] == 3


VENDOR_KEYS = [
    *(
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_11ABCDEFG0_",
        "glpat-",
        "xoxb-1234567890-",
        "xoxp-12-",
    ),
    *("xapp-1-A02-", "xoxe.xoxp-1-", "hf_", "npm_", "AIza", "sk_live_", "sk_test_", "sk-proj-1"),
]


@pytest.mark.parametrize("prefix", VENDOR_KEYS)
def test_keys_of_services_go_wherever_they_stand(prefix: str) -> None:
    key = prefix + "Zq9xV7hunter2Zq9xV7hunter2Zq9xV7hunter"
    redactor = Redactor()
    for text in (key, f"sent {key} to it", f'{{"note": "{key}"}}', f"https://x/{key}/y"):
        assert redactor.redact_text(text) == text.replace(key, "[redacted: api key]")
        record = make_record(1, fields={"note": text})
        redactor.redact([record])
        assert key not in repr(record.own_fields)
        assert not Screen(redactor).passes(text, {})


@pytest.mark.parametrize(
    "text",
    [
        *(
            "last_login_of_the_user_was_long_ago_indeed",
            "xoxo-hugs-and-kisses-to-everybody",
            "ghs_is_a_prefix",
        ),
        *(
            "npm_config_registry",
            "hf_transfer enabled",
            "high_path_app_has_format_hf_x",
            "the github_pat_ prefix",
        ),
        *("glpat- is how they begin", "xapp-lication-settings-file", "AIza", "a sk_live_ key"),
    ],
)
def test_what_only_begins_like_a_key_of_a_service_stays(text: str) -> None:
    assert Redactor().redact_text(text) == text


CARD = 4111111111111111


def test_a_card_number_that_is_an_integer_goes_where_its_name_says_so() -> None:
    fields = {
        "pan": CARD,
        "cards": [CARD, 17, [CARD]],
        "nested": [{"cc": CARD, "PAN": CARD}],
        "card": 5500000000000004,
    }
    mark = "[redacted: credit card]"
    for mode in ("full", "keys"):
        record = make_record(1, fields=fields)
        redactor = Redactor(mode)  # type: ignore[arg-type]
        redactor.redact([record])
        assert record.own_fields["pan"] == record.own_fields["card"] == mark
        assert record.own_fields["cards"][:2] == [mark, 17]
        assert record.own_fields["nested"] == [{"cc": mark, "PAN": mark}]
        for alone in ({"pan": CARD}, {"nested": [{"pan": CARD}]}):
            record = make_record(1, fields=alone)
            redactor.redact([record])
            assert str(CARD) not in str(record.own_fields)
            assert str(CARD).encode() not in Screen(redactor).clean_payload(codec.pack(alone))


@pytest.mark.parametrize(
    "fields",
    [
        {"order_id": CARD, "id": CARD, "ids": [CARD], "card_id": CARD, "company": CARD, "span": CARD},
        {"pan": 4111111111111112, "card": 1234567890123456, "cards": [17, 4_000_000_000_000]},
        {"card_created_at": 1700000000000000003, "pan": 1700000000003, "cc": 1700000000000000009},
    ],
)
def test_an_integer_that_may_be_an_id_or_a_time_stays(fields: dict[str, Any]) -> None:
    record = make_record(1, fields=fields)
    Redactor().redact([record])
    assert record.own_fields == fields


def test_what_follows_the_option_of_a_secret_goes() -> None:
    argv = [
        "run",
        "--user",
        "ann",
        "--password",
        SECRET,
        "--token=" + SECRET,
        "-api-key",
        SECRET,
        "--password",
    ]
    mark_of = {"password": mark("password"), "token": mark("token"), "key": mark("api key")}
    assert Redactor().redact_fields({"argv": argv})["argv"] == [
        *("run", "--user", "ann", "--password", mark_of["password"], f"--token={mark_of['token']}"),
        *("-api-key", mark_of["key"], "--password"),
    ]
    innocent = [
        "--password",
        "--verbose",
        "--no-password",
        "host",
        "--password-file",
        "/etc/x",
        "--author",
        "ann",
    ]
    assert Redactor().redact_fields({"argv": innocent})["argv"] == innocent


BYTES = {
    "headers": [
        (b"host", b"x"),
        (b"authorization", f"Bearer {SECRET}".encode()),
        ("Cookie", f"a={SECRET}".encode()),
    ],
    "lists": [[b"x-api-key", SECRET.encode()], [b"accept", b"*/*"]],
    "by name": {b"password": SECRET.encode(), b"user": b"ann", "token": SECRET.encode()},
    "pair": {"name": b"Authorization", "value": SECRET.encode()},
    "body": f'{{"user": "ann", "password": "{SECRET}"}}'.encode(),
    "view": memoryview(f"postgres://u:{SECRET}@h/db".encode()),
    "array": bytearray(f"token={SECRET}".encode()),
    "argv": [b"run", b"--password", SECRET.encode(), f"--token={SECRET}".encode()],
    "key": {f"password={SECRET}".encode(): 1},
    "long": b"x" * 2_000_000 + f" password={SECRET}".encode(),
}


class Odd:
    """What the C encoder does not take: the caller's side takes the long way."""


def decoded(value: Any) -> str:
    """All text in it, base64 of text in clear."""
    if isinstance(value, dict):
        return " ".join([*map(decoded, value), *map(decoded, value.values())])
    if isinstance(value, list | tuple):
        return " ".join(map(decoded, value))
    try:
        return f"{value} {base64.b64decode(str(value), validate=True).decode()}"
    except ValueError:
        return str(value)


@pytest.mark.parametrize("beside", [{}, {"odd": Odd()}], ids=["C", "Python"])
@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_text_are_searched(name: str, beside: dict[str, Any]) -> None:
    payload = codec.pack_any({name: BYTES[name], **beside})[0] if beside else codec.pack({name: BYTES[name]})
    redactor = Redactor()
    journaled = Screen(redactor).clean_payload(payload)
    assert SECRET.encode() not in journaled
    for form in (codec.canonical(payload, redactor.text_of_bytes), codec.canonical(journaled)):
        record = record_with(fields=form)
        redactor.redact([record])
        assert SECRET not in decoded(record.own_fields)
    assert sum(redactor.counts.values()) > 0
    assert all(found.path.startswith("fields") for found in Redactor().explain(fields={name: BYTES[name]}))
    assert Redactor().explain(fields={name: BYTES[name]})


def test_what_is_left_of_bytes_is_base64_of_it() -> None:
    redactor = Redactor()
    body = b'{"user": "ann", "password": "' + SECRET.encode() + b'"}'
    left = base64.b64decode(redactor.text_of_bytes(body))
    assert left == b'{"user": "ann", "password": "[redacted: password]"}'
    for harmless in (b"", b"ann", b"session", b"\x00\xff", b"password\xff", "é".encode(), b"token_count"):
        assert redactor.text_of_bytes(harmless) == base64.b64encode(harmless).decode()
    assert Redactor("off").text_of_bytes(body) == base64.b64encode(body).decode()
    assert base64.b64decode(Redactor("keys").text_of_bytes(body)) == body
    assert Redactor("keys").text_of_bytes(b"Authorization") == "Authorization"
    assert Redactor(safe_names=["pwd"]).text_of_bytes(b"pwd") == "cHdk"
