"""Whatever is passed works, or is refused where it is written: with its name, its value and what is allowed."""

import re
from collections.abc import Callable
from dataclasses import fields
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from asynctrace import ConfigurationError, Kind, LaneOptions, Level, Redactor, RetryPolicy, Trace, find_trace
from asynctrace.pipeline.breaker import CircuitBreaker
from asynctrace.sinks.console import ConsoleSink
from asynctrace.sinks.file import FileReader, FileSink
from asynctrace.sinks.jsonl import JsonLinesSink
from asynctrace.sinks.memory import MemorySink
from asynctrace.sinks.sqlite import SQLiteReader, SQLiteSink


class Odd:
    """A value that nothing takes, and that compares with nothing."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("neither true nor false")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Odd()"


ODD = Odd()
NO_NUMBER = ["1", b"1", True, nan, -1, [1], ODD, 10**400]
NO_TEXT = ["loud", b"wait", 5, True, ["wait"], ODD]

NO_COUNT = [*NO_NUMBER[:-1], inf, 1.0, 0]

LANE: dict[str, list[Any]] = {
    "linger": [*NO_NUMBER, inf, None],
    "patience": [*NO_NUMBER, inf, None],
    "breaker_cooldown": [*NO_NUMBER, inf, None, 0],
    "spool_max_age": [*NO_NUMBER, None, 0],
    "write_timeout": [*NO_NUMBER, inf, 0],
    "spool_fsync": [*NO_NUMBER, inf],
    "trigger": [*NO_COUNT, None],
    "max_records": [*NO_COUNT, None],
    "max_bytes": [*NO_COUNT, None],
    "short": [*NO_COUNT, None],
    "surprises": [*NO_COUNT, None],
    "mark_every": [*NO_COUNT, None],
    "high_water": NO_COUNT,
    "high_water_bytes": NO_COUNT,
    "capacity": NO_COUNT,
    "capacity_bytes": NO_COUNT,
    "breaker_failures": NO_COUNT,
    "spool_max_bytes": [*NO_NUMBER[:-1], inf, 1.0, None],
    "when_full": [*NO_TEXT, None],
    "safety": NO_TEXT,
    "retry": [5, None, "never", RetryPolicy, ODD],
    "admit": [3, "errors", ODD],
    "level": ["loud", "", b"error", -1, 1.5, True, ["error"], ODD],
}
RETRY: dict[str, list[Any]] = {
    "base": [*NO_NUMBER, inf, None],
    "ceiling": [*NO_NUMBER, inf, None],
    "attempts": [*NO_NUMBER[:-1], inf, 1.0, 0],
    "total": [*NO_NUMBER, 0],
}
REDACTOR: dict[str, list[Any]] = {
    "mode": [*NO_TEXT, None],
    "names": [5, None, "secret", b"secret", [5], [b"x"], [None], True, ODD],
    "safe_names": [5, None, "secret", b"secret", [5], [b"x"], [None], True, ODD],
    "patterns": [5, 0, "x", ["x"], {5: "x"}, ODD],
    "callback": [3, 0, "mask", ODD],
}
ROTATING: dict[str, list[Any]] = {
    "durability": [*NO_TEXT, None],
    "rotate_bytes": [*NO_NUMBER[:-1], 0, 1.5],
    "rotate_every": [*NO_NUMBER, 0, inf],
    "keep": [*NO_NUMBER[:-1], 1.5],
    "compress": [*NO_TEXT, None],
}
PATHS: list[Any] = ["", "a\0b", b"a", 5, None, True, ["a"], ODD]


def of_path(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **arguments: make(**{"path": "t", **arguments})


CASES = [
    (owner, make, name, value)
    for owner, make, arguments in (
        ("LaneOptions", LaneOptions, LANE),
        ("RetryPolicy", RetryPolicy, RETRY),
        (
            "CircuitBreaker",
            lambda **wrong: CircuitBreaker(**{"failures": 1, "cooldown": 1.0, **wrong}),
            {"failures": LANE["breaker_failures"], "cooldown": LANE["breaker_cooldown"]},
        ),
        ("Redactor", Redactor, REDACTOR),
        (
            "FileSink",
            of_path(FileSink),
            ROTATING
            | {"path": PATHS, "format": [5, b"{message}", None, ODD], "max_open_files": [0, "9", ODD]},
        ),
        ("JsonLinesSink", of_path(JsonLinesSink), ROTATING | {"path": PATHS}),
        (
            "SQLiteSink",
            of_path(SQLiteSink),
            {
                "path": PATHS,
                "synchronous": [*NO_TEXT, None],
                "busy_timeout": [*NO_NUMBER, 86_401, None],
                "cache_size": [*NO_NUMBER[:-1], 2048.0, 1023, None],
            },
        ),
        ("SQLiteReader", of_path(SQLiteReader), {"path": PATHS, "busy_timeout": [*NO_NUMBER, None]}),
        ("FileReader", of_path(FileReader), {"path": PATHS}),
        ("MemorySink", MemorySink, {"max_records": [*NO_NUMBER[:-1], 0, 1.5]}),
        ("ConsoleSink", ConsoleSink, {"color": [*NO_TEXT, None], "stream": [5, "stderr", b"", ODD]}),
    )
    for name, values in arguments.items()
    for value in values
]


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [pytest.param(*case[1:], id=f"{case[0]}-{case[2]}-{case[3]!r:.12}") for case in CASES],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(
    make: Callable[..., Any], name: str, value: object
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(**{name: value})
    error = caught.value
    known_as = "redact" if name == "mode" else name
    assert re.search(rf"\b{known_as}\b", error.name)
    assert f"{value!r:.1000}" in str(error) or name == "patterns"
    assert error.allowed


def test_no_option_of_a_lane_is_left_unchecked() -> None:
    assert {field.name for field in fields(LaneOptions)} == LANE.keys()
    assert {field.name for field in fields(RetryPolicy)} == RETRY.keys()


@pytest.mark.parametrize("level", ["error", " Error", Level.ERROR, 40, 45, "fatal"])
def test_a_lane_takes_a_level_as_everything_else_does(level: Level | str | int, tmp_path: Path) -> None:
    options = LaneOptions(level=level)
    assert options.level is Level.parse(level)
    assert options == LaneOptions(level=Level.parse(level)), "two that mean the same share a pipeline"
    store = f"sqlite:{tmp_path}/t.db"
    with Trace("r", sinks=[(store, options)], level="critical") as trace:
        trace.error("error")
        trace.critical("critical")
    messages = [record.message for record in find_trace("r", store) if record.kind is Kind.LOG]
    assert messages == (["critical"] if level == "fatal" else ["error", "critical"])


def test_a_lane_refuses_a_level_that_nobody_knows() -> None:
    with pytest.raises(ConfigurationError) as caught:
        LaneOptions(level="loud")
    assert str(caught.value) == (
        "LaneOptions.level: 'loud' cannot be used; allowed: debug, info, warning, error, critical "
        "or a number from 0, or None"
    )


@pytest.mark.parametrize(
    "names", [["a", "b"], ("a", "b"), {"a", "b"}, frozenset("ab"), {"a": 1, "b": 2}.keys()]
)
def test_names_may_be_in_any_collection(names: Any) -> None:
    assert Redactor(safe_names=names, names=names).redact_fields({"c": 1}) == {"c": 1}


def test_a_pattern_for_bytes_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigurationError, match=r"patterns\['x'\]: re.compile\(b'a'\) cannot be used"):
        Redactor(patterns={"x": re.compile(b"a")})  # type: ignore[dict-item]
