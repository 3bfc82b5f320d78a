"""Slices: what is read without making records is what the records say."""

import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asynctrace import Batch, Level, Mark, Record
from asynctrace.core import codec
from asynctrace.core.context import SpanContext
from asynctrace.core.decoding import RecordDecoder
from asynctrace.core.encoding import json_block, json_lines, json_lines_with_ends
from asynctrace.core.exceptions import catch
from asynctrace.core.record import Detail, Kind, RawRecord
from asynctrace.core.redaction import Redactor
from asynctrace.core.run import Run
from asynctrace.core.slice import SLICE, Slice
from asynctrace.core.status import Status
from asynctrace.pipeline.backlog import Backlog
from asynctrace.pipeline.finisher import Finisher
from asynctrace.pipeline.options import LaneOptions
from asynctrace.pipeline.tally import Tally
from asynctrace.sinks._sqlite_insert import Inserter, Rows
from asynctrace.sinks._template import Template
from asynctrace.sinks.sqlite import SQLiteSink
from asynctrace.testing.records import START_NS, make_context

pytestmark = pytest.mark.anyio

PLAIN = make_context("plain")
BOUND = make_context("bound é", fields={"user_id": "u1", "shard": 7})
COLUMN = make_context("column", fields={"tenant_id": "t1"}, parent_run_id="job", name="nightly")
NOW = START_NS + 987_654_321
FIELDS: list[dict[str, Any]] = [
    {"order_id": 1, "user": "u1", "ms": 1.5},
    {},
    {"a\nb": 'x"y\\z', "é": "ü\u2028😀", "none": None, "yes": True},
    {"big": 2**63, "small": -(2**63), "tiny": 5e-324},
]


def place(run: Run, name: str, span_id: int, parent: SpanContext | None) -> SpanContext:
    made = SpanContext()
    made.run, made.name, made.span_id, made.parent = run, name, span_id, parent
    return made


def raw(number: int = 0, **changes: Any) -> RawRecord:
    values: dict[str, Any] = {
        "time_ns": NOW + number * 1_001,
        "level": Level.INFO,
        "run": PLAIN,
        "span": None,
        "message": "order placed",
        "fields": codec.pack(FIELDS[0]),
        "code": sys._getframe().f_code,
        "lasti": 2 * number % 6,
        "thread": 140_000_000_000_000,
        "kind": 0,
    }
    return RawRecord(**{**values, **changes})


def finished(raws: list[RawRecord], redactor: Redactor | None = None) -> Slice:
    part = Finisher("0" * 20, redactor=redactor).finish(raws)
    assert isinstance(part, Slice)
    return part


def any_raws(chosen: random.Random) -> list[RawRecord]:
    """Up to a slice of raw records of all sorts."""
    parent = place(PLAIN.run, "outer", 11, None)
    foreign = place(make_context("other").run, "elsewhere", 13, parent)
    spans = [None, parent, place(PLAIN.run, "inner", 12, parent), foreign]
    try:
        raise ValueError("caught")
    except ValueError as error:
        odd = Detail(codec.pack({"n": 1}), exception=catch(error)[0])
    ended = place(PLAIN.run, "ended", 14, parent)
    ended.duration_ns, ended.status, ended.caught, ended.task = 1_500_000, Status.OK, None, None
    contexts = chosen.choice([[PLAIN], [BOUND], [PLAIN, PLAIN, BOUND, COLUMN]])
    raws = [
        raw(
            number,
            level=chosen.choice(list(Level)),
            run=chosen.choice(contexts),
            span=chosen.choice(spans),
            message=chosen.choice(["order placed", "x\ny", "", "ü\ud800" if chosen.random() < 0.1 else "z"]),
            fields=codec.pack(chosen.choice(FIELDS)) if chosen.random() < 0.9 else None,
            thread=chosen.choice([1, 140_000_000_000_000]),
            time_ns=NOW + chosen.randrange(-(10**9), 10**9),
        )
        for number in range(chosen.randrange(1, SLICE))
    ]
    if chosen.random() < 0.3:
        raws[chosen.randrange(len(raws))] = raw(fields=odd, run=chosen.choice([PLAIN, BOUND]))
    if chosen.random() < 0.6:
        raws[chosen.randrange(len(raws))] = raw(kind=Kind.SPAN_START.value, span=ended)
        raws[chosen.randrange(len(raws))] = raw(kind=Kind.SPAN_END.value, span=ended)
    return raws


def test_lines_of_a_slice_are_those_of_its_records() -> None:
    chosen = random.Random(4)
    for _ in range(60):
        part = finished(any_raws(chosen))

        with_ends = json_lines_with_ends(part)
        block, lines = json_block(part), json_lines(part)
        assert b"".join(with_ends) == block
        assert not part.is_made

        assert block == b"".join(line + b"\n" for line in lines)
        decoder = RecordDecoder()
        assert [decoder.from_json(line) for line in lines] == list(part)
        assert [decoder.from_json(line) for line in json_lines(list(part))] == list(part)
        assert [decoder.from_json(line).time_ns for line in lines] == [record.time_ns for record in part]


async def test_rows_of_a_slice_are_those_of_its_records(tmp_path: Path) -> None:
    chosen = random.Random(6)
    made_of_slices, made_of_records = SQLiteSink(tmp_path / "slices.db"), SQLiteSink(tmp_path / "records.db")
    await made_of_slices.open()
    await made_of_records.open()
    finisher = Finisher("0" * 20)
    for _ in range(40):
        parts = [finisher.finish(any_raws(chosen)) for _ in range(chosen.randrange(1, 4))]
        await made_of_slices.write(Batch.of_parts(parts))
        await made_of_records.write(Batch([record for part in parts for record in part]))
    await made_of_slices.aclose()
    await made_of_records.aclose()

    for table in ("traces", "trace_events"):
        slices, records = (_all_rows(tmp_path / name, table) for name in ("slices.db", "records.db"))
        assert len(slices) > 20
        assert slices == records


def _all_rows(path: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()


async def test_rows_of_most_slices_are_put_together_without_making_records() -> None:
    bound = make_context("bound", fields={"shard": 7, "user_id": "u1"})
    span = place(PLAIN.run, "ended", 14, None)
    span.duration_ns, span.status, span.caught, span.task = 1_500_000, Status.OK, None, None
    part = finished(
        [raw(1), raw(2, run=bound), raw(3, kind=Kind.SPAN_END.value, span=span), raw(4, fields=None)]
    )

    Inserter().add(Rows(()), part)

    assert not part.is_made


@pytest.mark.parametrize(
    "changes",
    [
        {"time_ns": 999_999_999_999_999},
        {"time_ns": 10**19 + 7},
        {"fields": codec.pack({"user_id": "mine"}), "run": BOUND},
        {"fields": codec.pack({"shard": 8}), "run": BOUND},
        {"fields": codec.pack({"password": "hunter2"})},
    ],
    ids=["before 2001", "after 2286", "a column", "a bound name", "a secret"],
)
def test_what_needs_a_closer_look_gets_it(changes: dict[str, Any]) -> None:
    part = finished([raw(1), raw(2, **changes), raw(3)])

    decoder = RecordDecoder()
    assert [decoder.from_json(line) for line in json_block(part).splitlines()] == list(part)
    assert b"hunter2" not in json_block(part)


def test_a_part_of_a_slice_is_one_too_and_keeps_numbers_and_what_is_special() -> None:
    raws = [raw(number) for number in range(10)]
    raws[6] = raw(fields=Detail(codec.pack({"n": 6}), status=Status.ERROR))
    whole = finished(raws)
    part = whole[5:8]
    assert isinstance(part, Slice)
    assert not whole.is_made

    assert json_lines(part) == json_lines(whole)[5:8]
    assert [record.seq for record in part] == [6, 7, 8]
    assert [record.status for record in part] == [None, Status.ERROR, None]
    assert list(whole[::4]) == [whole[0], whole[4], whole[8]]
    assert whole[-1].seq == 10


def test_secrets_are_out_of_a_slice_whose_records_nobody_has_made() -> None:
    bound = make_context("secret", fields={"api_key": "k-12345678"})
    part = finished([raw(1), raw(2, message="password=hunter2", run=bound), raw(3)])

    block = json_block(part)

    assert b"hunter2" not in block
    assert b"k-12345678" not in block
    assert block.count(b"[redacted: ") == 2


def test_a_batch_of_parts_is_a_batch_of_their_records() -> None:
    parts = [finished([raw(number) for number in range(count)]) for count in (SLICE, 3)]
    batch = Batch.of_parts(parts, [Mark("0" * 20, 1, 3, 3)])
    assert len(batch) == SLICE + 3
    assert batch.ends == (("0" * 20, 1), ("0" * 20, 3))
    assert batch.times_ns == [NOW + number * 1_001 for number in (*range(SLICE), *range(3))]
    assert not parts[0].is_made

    assert batch.records == (*parts[0], *parts[1])
    assert batch[0].seq == 1
    assert Batch(batch.records).ends == batch.ends
    assert Batch(()).ends is None


def test_a_backlog_gives_out_parts_of_slices_and_takes_them_apart_only_when_it_is_full() -> None:
    options = LaneOptions(max_records=100, short=100, capacity=1_000, when_full="drop_oldest")
    backlog = Backlog(options, Tally("0" * 20, 1))
    finisher = Finisher("0" * 20)
    for _ in range(3):
        backlog.extend(finisher.finish([raw(number) for number in range(250)]))
        assert not backlog.held

    given = backlog.cut().batch
    assert [record.seq for record in given] == [*range(1, 65)]  # the largest power of two

    urgent = finisher.finish([raw(number, level=Level.ERROR) for number in range(350)])
    backlog.extend(urgent)
    assert backlog.waiting + backlog.held == 1_036
    dropped: list[Record] = backlog.press()
    assert [record.seq for record in dropped] == [*range(65, 65 + len(dropped))]
    assert backlog.waiting == 1_000

    rest: list[Record] = []
    while backlog:
        rest += backlog.cut().batch
    assert [record.seq for record in rest] == [*range(65 + len(dropped), 1_101)]


@pytest.mark.parametrize(
    "format",
    [
        "{datetime} ({process:5d}, {thread:5d}) {message}",
        "100% {message!r} {level:>8} {cut_id}",
        "{message} {run_id} {mode} {datetime}",
        "{thread} {{%s}}",
        "{filename}:{lineno} {message}",
        "{user_id} {message}",
    ],
)
def test_text_of_a_slice_is_that_of_its_records(format: str) -> None:
    chosen = random.Random(5)
    template = Template(format)
    for messages in (["order placed", "50 % off %s"], ["order placed", "two\nlines", "\x1b[2J"]):
        raws = [
            raw(
                number,
                level=chosen.choice(list(Level)),
                run=chosen.choice([PLAIN, COLUMN, make_context("odd % \x1b"), make_context("even %d")]),
                message=chosen.choice(messages),
                thread=chosen.choice([1, 140_000_000_000_000]),
                time_ns=NOW + chosen.randrange(-(10**9), 10**9),
            )
            for number in range(100)
        ]

        assert template.fill_slice(finished(raws)) == [
            template.fill(item).encode() for item in finished(raws)
        ]
    assert template.fill_slice(finished([raw(time_ns=7)])) == [
        template.fill(finished([raw(time_ns=7)])[0]).encode()
    ]


@pytest.mark.parametrize("fields", [FIELDS, [{"nested": [1, {"a": 2}]}, {"bytes": b"x"}]])
@pytest.mark.parametrize("is_shared", [False, True])
async def test_fields_are_the_same_after_the_slice_has_let_go_of_them(
    fields: list[dict[str, Any]], is_shared: bool
) -> None:
    raws = [raw(n, fields=codec.pack_any(fields[n % len(fields)])[0]) for n in range(20)]
    raws += [raw(20, fields=None), raw(21, kind=1, fields=Detail(codec.pack({"task": 1}), task="t"))]
    part = finished(raws)
    part.is_shared = is_shared
    before, names = part.fields, part.names
    expected = json_lines(list(part[:]))
    assert json_block(part) == b"\n".join([*expected, b""])
    assert (part.fields is before) == (is_shared or fields is not FIELDS)
    assert list(part.fields) == list(before)
    part.let_go_of_fields()
    half = part[10:]
    assert isinstance(half, Slice)
    assert half.names | part[:10].records[0].own_fields.keys() <= names
    assert json_lines(half) == expected[10:]
    assert [record.own_fields for record in part] == list(before)


@pytest.mark.parametrize("first", [1, 900, 999, 1_000, 1_744, 1_745, 9_999, 999_900, 2**40 - 7])
@pytest.mark.parametrize("levels", [[Level.INFO], [Level.INFO, Level.INFO, Level.ERROR]])
async def test_lines_have_the_numbers_of_their_records(first: int, levels: list[Level]) -> None:
    finisher = Finisher("0" * 20)
    finisher.skip(first - 1)
    raws = [raw(n, lasti=0, level=levels[n % len(levels)]) for n in range(SLICE)]
    raws[0].kind = raws[-1].kind = int(Kind.RUN_START)
    part = finisher.finish(raws)
    with_ends = json_lines_with_ends(part)
    assert b"".join(with_ends) == json_block(part)
    lines = json_block(part).splitlines()
    assert lines == [line[:-1] for line in with_ends]
    assert [RecordDecoder().from_json(line).seq for line in lines] == list(range(first, first + SLICE))
    for record in part:
        record.json = None
    assert lines == json_lines(list(part))
