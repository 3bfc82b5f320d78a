"""Every kind of secret in every channel: none of their bytes is in any store, spool, dead letter or diagnostic.

And the other way round: what only looks like a secret stays readable.
"""

import base64
import gzip
import json
import logging
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Here
from lane_kit import Remote, ScriptedSink

import asynctrace
from asynctrace import (
    BatchTooLargeError,
    DeliveryError,
    LaneOptions,
    PartialWriteError,
    PermanentSinkError,
    Rejection,
    RetryPolicy,
    Trace,
    TransientSinkError,
    find_trace,
)
from asynctrace.pipeline.diagnostics import diagnostics

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowSECRETIBAAKCAQEA\nq8wSECRETZx\n-----END RSA PRIVATE KEY-----"

# Each with SECRET where the secret stands: text as it comes in logs, with what gives the secret away.
KINDS = {
    "password": "password=SECRET",
    "password-spoken": "Password: SECRET",
    "token": "token=SECRET&page=2",
    "api-key": "X-Api-Key: SECRET",
    "client-secret": "client_secret='SECRET'",
    "bearer": "Authorization: Bearer SECRET.SECRET",
    "bearer-alone": "sent bearer SECRET0123456789",
    "basic": "Authorization: Basic dXNlcjpSECRETZw==",
    "cookie": "Cookie: theme=dark; session=SECRET",
    "set-cookie": "Set-Cookie: sid=SECRET; Path=/; HttpOnly",
    "postgres": "postgresql://ann:SECRET@db.internal:5432/app",
    "redis": "redis://:SECRET@cache/0",
    "mongodb": "mongodb+srv://ann:SECRET@cluster0.example.net/?retryWrites=true",
    "amqp": "cannot reach amqp://guest:SECRET@mq//",
    "ado": "Server=db;User Id=ann;Password=SECRET;Encrypt=true",
    "jdbc": "jdbc:postgresql://db/app?user=ann&password=SECRET",
    "dsn": "host=db user=ann password=SECRET sslmode=require",
    "query": "GET /login?user=ann&access_token=SECRET HTTP/1.1",
    "aws": "AKIASECRET",
    "aws-secret": "aws_secret_access_key = SECRET",
    "github": "ghp_SECRETSECRET",
    "github-app": "ghs_SECRETSECRET",
    "github-user": "ghu_SECRETSECRET",
    "github-oauth": "gho_SECRETSECRET",
    "github-refresh": "ghr_SECRETSECRET",
    "github-fine": "github_pat_SECRET_SECRET",
    "gitlab": "glpat-SECRETSECRET",
    "slack-bot": "xoxb-1234567890-SECRET",
    "slack-user": "xoxp-1234567890-SECRET",
    "slack-app": "xapp-1-SECRET",
    "hugging-face": "hf_SECRETSECRET",
    "npm": "npm_SECRETSECRET",
    "stripe": "sk_live_SECRET",
    "google": "AIzaSECRETSECRET",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJSECRET.SECRET",
    "private-key": PEM,
    "json": '{"user": "ann", "password": "SECRET"}',
    "json-in-json": '{"body": "{\\"token\\": \\"SECRET\\"}"}',
    "repr": "Config(user='ann', password='SECRET', port=5432)",
    "shell": "export DB_PASSWORD=SECRET",
}
CARDS = ("4111 1111 1111 1111", "5555555555554444", "3782-822463-10005")

INNOCENT = (
    "the session of the user ended",
    "token bucket refilled: 12 tokens left",
    "password must have 12 characters",
    "SessionManager.authenticate() took 12 ms",
    "authorization is checked by the gateway",
    "the secret of good coffee",
    "cookie policy accepted",
    "key 'user_id' is missing from the mapping",
    "4111 records, 1111 of them new",
    "2023-11-14 22:13:20.123456",
    "550e8400-e29b-41d4-a716-446655440000",
    "https://example.com:8080/path?page=2&sort=name",
    "primary_key=id foreign_key=order_id",
    "tokens=512 max_tokens=1024",
)


# What all secrets have in common as it shows in base64, by what stands before it modulo 3.
IN_BASE64 = [base64.b64encode(b"x" * before + b"HUNTER7XW")[4:12].decode() for before in range(3)]
MADE = re.compile(rb"ZQ\d{5}HUNTER7XW")


class Plants:
    """Makes secrets that can be told apart, and texts that hold them."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}

    def secret(self, where: str) -> str:
        # Sixteen capitals and digits, as an AWS key has; no part of it occurs by chance.
        secret = f"ZQ{len(self.made):05d}HUNTER7XW"
        assert MADE.fullmatch(secret.encode())
        self.made[secret] = where
        return secret

    def text(self, kind: str, channel: str) -> str:
        return KINDS[kind].replace("SECRET", self.secret(f"{kind} in {channel}"))

    def found_in(self, data: bytes) -> dict[str, str]:
        """What of it is there, and where it was planted."""
        # One search for what all of them have in common; one for each would read megabytes a thousand times.
        there = {made.decode() for made in MADE.findall(data)} | {
            card for card in CARDS if card.encode() in data
        }
        encoded = {text: "in base64" for text in IN_BASE64 if text.encode() in data}
        return encoded | {secret: self.made.get(secret, "not planted") for secret in there}


class Opaque:
    """An object whose repr tells too much."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<Opaque {self.text}>"


@dataclass
class Login:
    user: str
    password: str


def raise_with(text: str) -> None:
    raise ValueError(text)


def chained(text: str, cause: str, note: str) -> Exception:
    try:
        try:
            raise_with(cause)
        except ValueError as error:
            new = RuntimeError(text)
            new.add_note(note)
            raise new from error
    except RuntimeError as error:
        return error


def plant_everywhere(trace: Trace, plants: Plants) -> None:
    for kind in KINDS:

        def at(channel: str, kind: str = kind) -> str:
            return plants.text(kind, channel)

        trace.info(at("the message"))
        trace.info("arguments: %s", at("an argument"))
        trace.info("%(key)s", {"key": at("a mapping argument")})
        trace.info("a field", note=at("a field"), rows=1)
        trace.info("nested", config={"list": [{"deep": [at("a nested field")]}, (at("a tuple"),)]})
        trace.info("JSON", body=json.dumps({"outer": [at("a JSON string")]}))
        trace.info("twice", body=json.dumps({"inner": json.dumps({"text": at("JSON in JSON")})}))
        trace.info("bytes", raw=at("bytes").encode())
        trace.info("bytes", raw=at("bytes, the long way").encode(), odd=Opaque("x"))
        trace.bind(raw=at("bytes, bound").encode()).info("bytes bound")
        trace.info("an object", thing=Opaque(at("a repr")), error=ValueError(at("an exception as a field")))
        trace.info("a key", mapping={at("a key of a field"): 1})
        trace.info("arguments of a program", argv=["run", at("an argument of a program"), "-v"])
        trace.info("long", text="x" * 5_000 + " " + at("the middle of a long text") + " " + "y" * 5_000)
        trace.info(
            "columns",
            workflow_name=at("workflow_name"),
            stage_name=at("stage_name"),
            user_id=at("user_id"),
            tenant_id=at("tenant_id"),
            environment=at("environment"),
            error_code=at("error_code"),
            tags=[at("tags")],
        )
        trace.bind(context=at("a bound field")).warning("bound")
        try:
            raise chained(at("an exception"), at("its cause"), at("its note"))
        except RuntimeError:
            trace.exception("failed: %s", at("an argument beside an exception"))
        try:
            with trace.span(at("the name of a span"), detail=at("a field of a span")) as span:
                span.error(at("a message in a span"))
                raise_with(at("an exception that ends a span"))
        except ValueError:
            pass
    for name in (
        "password",
        "API_KEY",
        "accessToken",
        "Authorization",
        "cookie",
        "db-password",
        "private_key",
    ):
        trace.info("by name", **{name: plants.secret(f"{name}, a field")})
        trace.info(
            "by name",
            headers={name: plants.secret(f"{name}, nested")},
            pairs=[[name, plants.secret(f"{name}, a pair")]],
        )
        trace.info("by name", login=Login("ann", plants.secret("a dataclass")))
        trace.bind(**{name: plants.secret(f"{name}, bound")}).info("bound")
        trace.info("by name", argv=["run", f"--{name}", plants.secret(f"{name}, an option"), "-v"])
        for beside in ({}, {"odd": Opaque("x")}):
            pair = (name.encode(), plants.secret(f"{name}, a header in bytes").encode())
            key = {name.encode(): plants.secret(f"{name}, a key in bytes").encode()}
            trace.info("bytes by name", headers=[(b"host", b"x"), pair], mapping=key, **beside)
            trace.bind(headers=[pair], mapping=key, **beside).info("bytes bound")
    for card in CARDS:
        trace.info(f"paid with {card}", card=card, nested=[{"text": f"card {card} declined"}])
        plants.made[card] = "a card"


def tell_innocence(trace: Trace) -> None:
    for text in INNOCENT:
        trace.info(text, note=text)
        try:
            raise_with(text)
        except ValueError:
            trace.exception("failed")


class Refusing(ScriptedSink):
    """A remote destination whose errors and rejections repeat what they were given."""

    def __init__(self, name: str, error: Callable[[str], Exception], plants: Plants) -> None:
        super().__init__()
        self.name = name
        self.error = error
        self.plants = plants

    def __repr__(self) -> str:
        return f"<Refusing {self.name}>"

    async def write(self, batch: asynctrace.Batch) -> None:
        raise self.error(f"refused {self.plants.text('postgres', 'an error of a sink')}")


class Unspeakable(PermanentSinkError):
    """A driver's error that cannot tell what it is."""

    def __str__(self) -> str:
        raise RuntimeError("password=SECRET9")


REFUSALS = {
    "permanent": PermanentSinkError("auth failed for postgres://u:SECRET1@h/db"),
    "partial": PartialWriteError([Rejection(index, "password=SECRET2") for index in range(3)]),
    "surprise": ValueError("token=SECRET3"),
    "too large": BatchTooLargeError("api_key=SECRET4"),
    "used up": TransientSinkError("client_secret=SECRET5"),
    "unspeakable": Unspeakable(),
}


@pytest.fixture
def plants() -> Plants:
    return Plants()


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything is written."""
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "out" / "state"))
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "20")
    diagnostics._last.clear()
    return tmp_path / "out"


def all_bytes(directory: Path) -> bytes:
    parts = []
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            parts.append(str(path).encode())
            parts.append(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    return b"\n".join(parts)


STORES = (
    "sqlite:{}/t.db",
    "file:{}/t.jsonl",
    "file:{}/rotated.jsonl?rotate_bytes=200000&compress=gzip",
    "file:{}/logs",
)


def sinks_of(out: Path, plants: Plants) -> list[Any]:
    once = LaneOptions(retry=RetryPolicy(base=0.01, ceiling=0.02), max_records=1_000)
    away = LaneOptions(retry=RetryPolicy(base=0.01, ceiling=0.02), high_water=50, when_full="spill")
    return [
        *(url.format(out) for url in STORES),
        (Refusing("dead", PermanentSinkError, plants), once),
        (Refusing("away", TransientSinkError, plants), away),
        (Refusing("surprising", ZeroDivisionError, plants), once),
    ]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("durability", [None, "process"])
def test_nothing_that_is_written_holds_a_secret(
    durability: Any,
    out: Path,
    plants: Plants,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "1")
    with (
        caplog.at_level(logging.DEBUG),
        Trace(
            "run",
            name=plants.text("token", "the name of a run"),
            sinks=[*sinks_of(out, plants), "console:"],
            durability=durability,
            fields={
                "dsn": plants.text("postgres", "a field of a run"),
                "api_key": plants.secret("a field of a run"),
            },
        ) as trace,
    ):
        plant_everywhere(trace, plants)
        trace.flush(1)
        open_stores = all_bytes(out)  # the WAL among them, while it is there
    stored, told = all_bytes(out), "".join(capfd.readouterr()).encode()
    stats = repr(trace.pipeline.stats()).encode()

    assert len(plants.made) > 500
    assert b"t.db-wal" in open_stores
    assert (b"state/journal" in open_stores) is (durability is not None)
    for where in ("state/spool", "state/dead", "rotated.000001.jsonl", "logs/run_id=run/stderr.txt"):
        assert where.encode() in stored
    for data in (open_stores, stored, told, caplog.text.encode(), stats):
        assert plants.found_in(data) == {}
    assert stored.count(b"[redacted") > 3_000
    assert b"cannot reach amqp://" in stored, "what stands around a secret stays"


@pytest.mark.parametrize("error", REFUSALS.values(), ids=list(REFUSALS))
def test_what_a_sink_says_is_kept_without_its_secrets(
    error: Exception, out: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Here(capsys)
    options = LaneOptions(retry=RetryPolicy(base=0.001, ceiling=0.002, attempts=2), surprises=2)
    sink = Remote([error] * 100)
    with (
        caplog.at_level(logging.DEBUG),
        Trace("run", sinks=[(sink, options)]) as trace,
        pytest.raises(DeliveryError) as failed,
        trace.receipt(timeout=30),
    ):
        trace.info("a record")
    shown = command("dead", "ls"), command("dead", "show", "--json")
    letters = list(asynctrace.dead_letters())
    told = repr((str(failed.value), failed.value.failures, letters, shown, trace.pipeline.stats()))
    assert letters
    for text in (told, caplog.text, all_bytes(out).decode(errors="replace")):
        assert "SECRET" not in text
    if type(error) is not Unspeakable:
        assert "[redacted: " in letters[0].reason
        assert "[redacted: " in str(failed.value)


def test_what_only_looks_like_a_secret_stays(out: Path) -> None:
    urls = [url.format(out) for url in STORES]
    with Trace("run", sinks=urls, fields={"session_count": 3, "author": "ann"}) as trace:
        tell_innocence(trace)
    for url in urls:
        found = find_trace("run", url.partition("?")[0])
        assert [record.message for record in found][::2] == list(INNOCENT)
        assert [record.fields["note"] for record in list(found)[::2]] == list(INNOCENT)
        assert [record.exception.message for record in found if record.exception] == list(INNOCENT)
        assert all("raise_with(text)" in record.exception.stack for record in found if record.exception)
        assert found.records[0].fields["session_count"] == 3
    assert b"[redacted" not in all_bytes(out)
    with closing(sqlite3.connect(out / "t.db")) as database:
        (kept,) = database.execute("SELECT count(*) FROM traces WHERE message LIKE '%session%'").fetchone()
        assert kept == 2
