"""The codec: every value has one canonical form, by whichever road; nothing that it raises escapes."""

import array
import asyncio
import collections
import contextlib
import datetime as dt
import decimal
import enum
import functools
import ipaddress
import json
import math
import pathlib
import re
import signal
import sys
import threading
import time
import types
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace.core import codec
from asynctrace.core.codec import Limits
from asynctrace.errors import ConfigurationError

PLUS_TWO = dt.timezone(dt.timedelta(hours=2))


def slow(value: object) -> Any:
    """The form of a value by way of pack_any."""
    payload, interrupt = codec.pack_any({"value": value})
    assert interrupt is None
    fields = codec.canonical(payload)
    assert_canonical(fields)
    return fields["value"]


def fast(value: object) -> Any:
    """The form of a value that the C encoder takes."""
    fields = codec.canonical(codec.pack({"value": value}))
    assert_canonical(fields)
    return fields["value"]


def assert_canonical(value: object) -> None:
    """Only the types, ranges and characters that every store keeps; and JSON gives it back equal."""
    assert_types(value)
    assert json.loads(codec.to_json(value)) == value
    assert msgspec.json.decode(codec.to_json(value)) == value


def assert_types(value: object) -> None:
    if type(value) is dict:
        for key, part in value.items():
            assert type(key) is str
            key.encode()
            assert_types(part)
    elif type(value) is list:
        for part in value:
            assert_types(part)
    elif type(value) is str:
        value.encode()
    elif type(value) is float:
        assert math.isfinite(value)
    elif type(value) is int:
        assert -(2**63) <= value < 2**64
    else:
        assert value is None or type(value) is bool


@contextlib.contextmanager
def limited(**limits: int) -> Iterator[None]:
    before = codec.limits()
    codec.set_limits(Limits(**limits))
    try:
        yield
    finally:
        codec.set_limits(before)


# What each kind of value becomes.


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise ValueError


class Whole(int):
    def __index__(self) -> int:
        raise ValueError

    __int__ = __repr__ = __str__ = __index__  # type: ignore[assignment]


class Real(float):
    def __float__(self) -> float:
        raise ValueError

    __repr__ = __str__ = __float__  # type: ignore[assignment]


class Table(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise ValueError

    __iter__ = keys = values = __len__ = __getitem__ = items


class Row(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        raise ValueError

    __len__ = __getitem__ = __iter__


class Stamp(dt.datetime):
    pass


class Day(dt.date):
    pass


class Clock(dt.time):
    pass


class Span(dt.timedelta):
    pass


class Money(decimal.Decimal):
    pass


class Colour(enum.Enum):
    RED = "red"
    HUGE = 2**70
    PAIR = (1, 2)


class Name(str, enum.Enum):  # noqa: UP042  # not the same: str() of a StrEnum is its value
    A = "a"


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Pair(NamedTuple):
    left: int
    right: object


@dataclass
class Order:
    number: int
    items: object = ()
    note: str = field(default="", repr=False)
    later: object = field(init=False)


@dataclass(frozen=True, slots=True)
class Point:
    x: object
    y: int = 0


class Event(msgspec.Struct, tag="e", rename="camel", omit_defaults=True):
    event_id: object
    size: int = 0
    parts: list[int] = []
    owner: object = msgspec.UNSET


class Vector(msgspec.Struct, array_like=True):
    x: object
    y: int = 2


class Account(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    name: str
    key: pydantic.SecretStr = pydantic.SecretStr("hunter2")
    extra: object = None


class Headers(Mapping[str, str]):
    def __init__(self, **headers: str) -> None:
        self._headers = headers

    def __getitem__(self, key: str) -> str:
        return self._headers[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __len__(self) -> int:
        return len(self._headers)


class Polite:
    def __repr__(self) -> str:
        return "Polite(1)"


def function() -> None: ...


BY_BOTH_ROADS = [
    (None, None),
    (True, True),
    (2**63, 2**63),
    (-(2**63), -(2**63)),
    (2**64 - 1, 2**64 - 1),
    (-0.5, -0.5),
    (sys.float_info.max, sys.float_info.max),
    (5e-324, 5e-324),
    (math.nan, "NaN"),
    (math.inf, "Infinity"),
    (-math.inf, "-Infinity"),
    ([math.nan, {"a": -math.inf}], ["NaN", {"a": "-Infinity"}]),
    ("nul \0 é \U0001f600", "nul \0 é \U0001f600"),
    (b"bytes", "Ynl0ZXM="),
    (bytearray(b"bytes"), "Ynl0ZXM="),
    (memoryview(b"bytes"), "Ynl0ZXM="),
    ((1, "a"), [1, "a"]),
    ({5}, [5]),
    (frozenset({"a"}), ["a"]),
    (set(), []),
    ({1: "a", None: "b", 1.5: "c", False: "d"}, {"1": "a", "null": "b", "1.5": "c", "false": "d"}),
    ({(1, 2): "a", b"x": "b", math.nan: "c"}, {"[1,2]": "a", "eA==": "b", "NaN": "c"}),
    ({1: "a", "1": "b"}, {"1": "a", "1 (2)": "b"}),
    ({Point(1): "a"}, {'{"x":1,"y":0}': "a"}),
    ({dt.datetime(2024, 5, 1, tzinfo=dt.UTC): 1}, {"2024-05-01T00:00:00Z": 1}),
    (dt.datetime(2024, 5, 1, 12, tzinfo=PLUS_TWO), "2024-05-01T10:00:00Z"),
    (dt.datetime(2024, 5, 1, 12, 0, 0, 7, tzinfo=dt.UTC), "2024-05-01T12:00:00.000007Z"),
    (dt.datetime(2024, 5, 1, 12), "2024-05-01T12:00:00"),
    (dt.datetime(1, 1, 1, tzinfo=dt.UTC), "0001-01-01T00:00:00Z"),
    (dt.date(2024, 5, 1), "2024-05-01"),
    (dt.time(12, 30, tzinfo=PLUS_TWO), "12:30:00+02:00"),
    (dt.timedelta(days=1, seconds=2), "P1DT2S"),
    (-dt.timedelta(microseconds=1), "-PT0.000001S"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (decimal.Decimal("1.50"), "1.50"),
    (decimal.Decimal("sNaN"), "sNaN"),
    (Colour.RED, "red"),
    (Colour.PAIR, [1, 2]),
    (Name.A, "a"),
    (Flags.A | Flags.B, 3),
    (Pair(1, "r"), [1, "r"]),
    (Order(7, [1]), {"number": 7, "items": [1], "note": ""}),
    (Point(1, 2), {"x": 1, "y": 2}),
    (Event("e1"), {"type": "e", "eventId": "e1"}),
    (Event("e1", 3, [1]), {"type": "e", "eventId": "e1", "size": 3, "parts": [1]}),
    (Vector(1), [1, 2]),
    (Table(a=1), {"a": 1}),
    (Row([1]), [1]),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (msgspec.msgpack.Ext(5, b"x"), {"ext": 5, "data": "eA=="}),
    (msgspec.Raw(msgspec.msgpack.encode({"a": [1]})), {"a": [1]}),
]

BY_THE_WALK = [
    ("caf\udce9 \ud83d", "caf\\udce9 \\ud83d"),
    ({"\udce9": "\udce9"}, {"\\udce9": "\\udce9"}),
    (2**64, "18446744073709551616"),
    (-(2**63) - 1, "-9223372036854775809"),
    (10**5000, hex(10**5000)),
    (Text("x"), "x"),
    (Whole(3), 3),
    (Whole(2**64), "18446744073709551616"),
    (Real(1.5), 1.5),
    (Real("nan"), "NaN"),
    (memoryview(b"abcdef")[::2], "YWNl"),
    (array.array("i", [1, 2]), [1, 2]),
    (Stamp(2024, 5, 1, 12, tzinfo=PLUS_TWO), "2024-05-01T10:00:00Z"),
    (Stamp(2024, 5, 1), "2024-05-01T00:00:00"),
    (dt.datetime(1, 1, 1, tzinfo=PLUS_TWO), "0001-01-01T00:00:00+02:00"),
    (Day(2024, 5, 1), "2024-05-01"),
    (Clock(1, 2, 3), "01:02:03"),
    (Span(seconds=1), "PT1S"),
    (Money("1.50"), "1.50"),
    (Colour.HUGE, "1180591620717411303424"),
    (Pair(1, 2**64), [1, "18446744073709551616"]),
    (Order(7, 1j), {"number": 7, "items": "1j", "note": ""}),
    (Point(1j), {"x": "1j", "y": 0}),
    (Event(1j), {"type": "e", "eventId": "1j"}),
    (Event(1j, 3, owner=1), {"type": "e", "eventId": "1j", "size": 3, "owner": 1}),
    (Vector(1j), ["1j", 2]),
    (Account(name="a", extra=1j), {"name": "a", "key": "**********", "extra": "1j"}),
    (ValueError("bad"), "ValueError: bad"),
    (KeyError("k"), "KeyError: 'k'"),
    (asyncio.CancelledError(), "CancelledError"),
    (Headers(a="1"), {"a": "1"}),
    (types.MappingProxyType({1: 2}), {"1": 2}),
    (collections.ChainMap({"a": 1}, {"b": 2}), {"b": 2, "a": 1}),
    (collections.UserDict(a=1), {"a": 1}),
    (collections.UserList([1]), [1]),
    (collections.deque([1, 1j], 5), [1, "1j"]),
    ({"a": 1}.keys(), ["a"]),
    ({"a": 1}.values(), [1]),
    ({"a": 1}.items(), [["a", 1]]),
    (range(3), "range(0, 3)"),
    (1j, "1j"),
    (..., "Ellipsis"),
    (pathlib.PurePosixPath("/tmp/x"), "/tmp/x"),
    (ipaddress.ip_address("::1"), "::1"),
    (re.compile("a+"), "a+"),
    (re.compile(b"a+"), "YSs="),
    (int, "int"),
    (Polite, f"{__name__}.Polite"),
    (function, f"{__name__}.function"),
    (len, "len"),
    (Polite().__repr__, f"{__name__}.Polite.__repr__"),
    (math, "math"),
    (Polite(), "Polite(1)"),
    (list[int], "list[int]"),
    (np.float64(1.5), 1.5),
    (np.float64("nan"), "NaN"),
    (np.float32(0.5), 0.5),
    (np.int64(-3), -3),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.bytes_(b"x"), "eA=="),
    (np.datetime64("2024-05-01T12:00:00"), "2024-05-01T12:00:00"),
    (np.longdouble(1.5), "1.5"),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.array([1.5, math.inf]), [1.5, "Infinity"]),
    (np.array(7), 7),
    (np.array([object, None]), ["object", None]),
]


def shown(value: object) -> str:
    try:
        return f"{type(value).__name__}-{value!r:.30}"
    except Exception:
        return type(value).__name__


@pytest.mark.parametrize(("value", "form"), BY_BOTH_ROADS, ids=shown)
def test_both_roads_give_the_form(value: object, form: object) -> None:
    assert fast(value) == form
    assert slow(value) == form
    assert type(slow(value)) is type(form)


@pytest.mark.parametrize(("value", "form"), BY_THE_WALK, ids=shown)
def test_the_walk_gives_the_form(value: object, form: object) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  # any: the caller catches all of them
        codec.pack({"value": value})
    assert slow(value) == form
    assert type(slow(value)) is type(form)
    assert slow([{"deep": (value,)}]) == [{"deep": [form]}]


def test_a_generator_is_not_consumed() -> None:
    generator = (n for n in range(3))
    assert slow(generator).startswith("<generator object ")
    assert list(generator) == [0, 1, 2]


def test_the_same_object_twice_is_no_cycle() -> None:
    shared = [1j]
    assert slow({"a": shared, "b": [shared, shared]}) == {"a": ["1j"], "b": [["1j"], ["1j"]]}


def test_cycles_end_in_a_mark() -> None:
    row: list[object] = [1]
    row.append({"row": row})
    assert slow(row) == [1, {"row": "…[cycle]"}]
    order = Order(1)
    order.items = (order,)
    assert slow(order) == {"number": 1, "items": ["…[cycle]"], "note": ""}


def test_key_collisions_stay_distinct() -> None:
    class Key:
        def __repr__(self) -> str:
            return "key"

    form = slow({Key(): 1, Key(): 2, "key": 3, "key (2)": 4})
    assert form == {"key": 1, "key (2)": 2, "key (3)": 3, "key (2) (2)": 4}


def test_many_key_collisions_do_not_take_quadratic_time() -> None:
    class Key:
        def __repr__(self) -> str:
            return "key"

    started = time.perf_counter()
    assert len(slow({Key(): n for n in range(10_000)})) == 10_000
    assert time.perf_counter() - started < 10  # 0.1 s; quadratic would be minutes


def test_fields_that_are_no_dict() -> None:
    payload, _ = codec.pack_any(Headers(a="1"))
    assert codec.canonical(payload) == {"a": "1"}
    payload, _ = codec.pack_any(7)  # type: ignore[arg-type]
    assert codec.canonical(payload) == {"…": 7}


def test_a_raw_that_is_no_messagepack_loses_nothing() -> None:
    payload = codec.pack({"body": msgspec.Raw(b'{"a": 1}')})
    form = codec.canonical(payload)
    assert_canonical(form)
    assert form["…"] == "…[unreadable fields, as base64]"
    assert b'{"a": 1}' in __import__("base64").b64decode(form["base64"])
    assert slow(msgspec.Raw(b'{"a": 1}')) == "eyJhIjogMX0="


# Values that fight back.


class SilentError(Exception):
    def __str__(self) -> str:
        raise self

    __repr__ = __str__
    __class__ = property(__str__)  # type: ignore[assignment]


RAISED = [ValueError, RecursionError, MemoryError, StopIteration, RuntimeError, SilentError]


def hostile(error: BaseException) -> type:
    """A class whose values raise whenever anything is asked of them."""

    def fail(*_: object, **__: object) -> Any:
        raise error

    special = (
        "repr str len iter hash eq bool getattr getattribute dir format call contains getitem reduce bytes"
    )
    special += (
        " index int float next enter exit copy deepcopy sizeof instancecheck subclasscheck fspath buffer"
    )
    members: dict[str, Any] = {f"__{name}__": fail for name in special.split()}
    members |= {"__class__": property(fail), "__dict__": property(fail), "items": fail, "keys": fail}
    members |= {"model_dump": fail, "tolist": fail, "item": fail}
    return type("Hostile", (), members)


class Liar:
    @property
    def __class__(self) -> Any:
        return dict

    def __repr__(self) -> str:
        return "liar"


class BadMeta(type):
    def __hash__(cls) -> int:
        raise ValueError

    def __eq__(cls, other: object) -> bool:
        raise ValueError

    def __repr__(cls) -> str:
        raise ValueError

    def __getattribute__(cls, name: str) -> Any:
        raise ValueError(name)


class OfBadMeta(metaclass=BadMeta):
    def __repr__(self) -> str:
        return "spoken"


@pytest.mark.parametrize("error", RAISED)
def test_whatever_a_value_raises_ends_in_a_mark(error: type[Exception]) -> None:
    value = hostile(error())()
    mark = f"<Hostile object; str() raised {error.__name__}>"
    assert slow({"a": value, "b": [1, value]}) == {"a": mark, "b": [1, mark]}
    assert codec.text_of_any(value) == (mark, None)
    assert codec.text_of(value) == mark


@pytest.mark.parametrize(
    "base", [dict, list, str, int, float, tuple, set, bytes, dt.datetime, ValueError], ids=repr
)
def test_hostile_subclasses_of_what_is_built_in(base: type) -> None:
    def fail(*_: object) -> Any:
        raise ValueError

    names = (
        "__iter__ __len__ __getitem__ __str__ __repr__ items keys __eq__ __hash__ isoformat __bool__".split()  # noqa: SIM905
    )
    kind = type("Sub", (base,), dict.fromkeys(names, fail) | {"__class__": property(fail)})
    value = kind(2024, 1, 1) if base is dt.datetime else kind()
    plain = {dt.datetime: "2024-01-01T00:00:00", ValueError: "Sub: <Sub object; str() raised ValueError>"}
    assert slow([value]) == [plain.get(base, fast(base()) if base not in plain else None)]


class Broken(Headers):
    def __iter__(self) -> Iterator[str]:
        yield "a"
        raise KeyError("b")


class Endless(Headers):
    def __iter__(self) -> Iterator[str]:
        n = 0
        while True:
            n += 1
            yield str(n)

    def __getitem__(self, key: str) -> str:
        return key

    def __len__(self) -> int:
        raise ValueError


class BadZone(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise ValueError

    def tzname(self, moment: dt.datetime | None) -> str:
        raise ValueError


def test_values_that_break_while_they_are_read() -> None:
    assert slow(Broken(a="1")) == "<Broken object; reading it raised KeyError>"
    assert (
        slow(dt.datetime(2024, 1, 1, tzinfo=BadZone())) == "<datetime object; reading it raised ValueError>"
    )
    released = memoryview(bytearray(b"x"))
    released.release()
    assert slow(released) == "<memoryview object; reading it raised ValueError>"


def test_an_endless_mapping_is_cut() -> None:
    form = slow(Endless())
    assert len(form) == 10_000
    assert form["…"] == "…[cut: 2 items]"


def test_lies_are_not_believed() -> None:
    assert slow(Liar()) == "liar"
    assert slow(OfBadMeta()) == "spoken"
    assert slow(OfBadMeta) == f"{__name__}.OfBadMeta"
    assert slow(mock.Mock(spec=dict)).startswith("<Mock spec='dict'")
    assert slow(mock.MagicMock()).startswith("<MagicMock id=")
    assert slow(mock.MagicMock(spec=Account)).startswith("<MagicMock spec='Account'")


def test_a_value_is_asked_once() -> None:
    asked = []

    class Counting:
        def __repr__(self) -> str:
            asked.append("repr")
            raise ValueError

    class Told(Counting):
        def __str__(self) -> str:
            asked.append("str")
            return "told"

    slow([Counting(), Told()])
    assert asked == ["repr", "str"]


def test_a_subclass_of_str_that_str_returns_is_made_exact() -> None:
    class Odd:
        def __str__(self) -> str:
            return Text("odd")

    assert type(slow(Odd())) is str
    assert type(codec.text_of(Odd())) is str
    assert type(codec.text_of(Text("x"))) is str


class Stop:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


class StopsEverywhere(Stop):
    """Raises whatever it is asked."""

    def _stop(self, *_: object) -> Any:
        raise object.__getattribute__(self, "error")

    __str__ = __iter__ = __len__ = __bool__ = __getattribute__ = __eq__ = __int__ = __format__ = _stop
    __hash__ = _stop  # type: ignore[assignment]


def interrupted_by(*_: object) -> None:
    """A signal handler that ends the program."""
    raise SystemExit(3)


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError(), BaseException()])
def test_what_a_value_raises_is_not_handed_back(error: BaseException) -> None:
    mark = f"<Stop object; str() raised {type(error).__name__}>"
    for kind in (Stop, StopsEverywhere):
        payload, came = codec.pack_any({"a": 1, "b": [kind(error)], "c": Order(1)})
        assert came is None
        form = codec.canonical(payload)
        assert form["b"] == [mark.replace("Stop", kind.__name__)]
        assert form["c"] == {"number": 1, "items": [], "note": ""}
        assert codec.text_of(kind(error)) == mark.replace("Stop", kind.__name__)


def test_what_a_signal_handler_raises_inside_a_value_is_handed_back() -> None:
    class Signalled:
        def __repr__(self) -> str:
            signal.raise_signal(signal.SIGUSR1)
            return "asked on"

    before = signal.signal(signal.SIGUSR1, interrupted_by)
    try:
        payload, came = codec.pack_any({"a": Signalled(), "b": Order(1)})
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert type(came) is SystemExit
    assert codec.canonical(payload) == {
        "a": "<Signalled object; str() raised SystemExit>",
        "b": "<Order object>",
    }


def test_an_interrupt_is_handed_back_with_the_record() -> None:
    interrupt = KeyboardInterrupt()
    asked = []

    class Slow:
        def __repr__(self) -> str:
            asked.append(1)
            return "slow"

    payload, came = codec.pack_any(
        {"a": 1, "b": [Stop(interrupt)], "c": Slow(), "d": Order(1), "e": Headers()}
    )
    assert came is interrupt
    mark = f"<Stop object; str() raised {type(interrupt).__name__}>"
    # After an interrupt no code of a value is run.
    rest = {"c": "<Slow object>", "d": "<Order object>", "e": "<Headers object>"}
    assert codec.canonical(payload) == {"a": 1, "b": [mark]} | rest
    assert asked == []


def test_the_first_interrupt_counts_also_inside_keys_and_exceptions() -> None:
    first, second = KeyboardInterrupt(1), KeyboardInterrupt(2)
    payload, came = codec.pack_any({"keys": {Stop(first): 1}, "then": Stop(second)})
    assert came is first
    assert codec.canonical(payload)["then"] == "<Stop object>"

    class Told(ValueError):
        def __str__(self) -> str:
            raise first

    payload, came = codec.pack_any({"error": Told()})
    assert came is first
    assert codec.canonical(payload) == {"error": "Told: <Told object; str() raised KeyboardInterrupt>"}


def test_an_interrupt_while_a_value_is_read_comes_back_too() -> None:
    class Zone(dt.tzinfo):
        def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
            raise KeyboardInterrupt

    payload, came = codec.pack_any({"at": dt.datetime(2024, 1, 1, tzinfo=Zone()), "then": 1})
    assert type(came) is KeyboardInterrupt
    assert codec.canonical(payload) == {
        "at": "<datetime object; reading it raised KeyboardInterrupt>",
        "then": 1,
    }


def test_text_of_lets_an_interrupt_through_and_text_of_any_hands_it_back() -> None:
    interrupt = KeyboardInterrupt()
    mark = "<Stop object; str() raised KeyboardInterrupt>"
    assert codec.text_of_any(Stop(interrupt)) == (mark, interrupt)
    with pytest.raises(KeyboardInterrupt):
        codec.text_of(Stop(interrupt))


def test_a_caller_with_no_stack_left_still_gets_a_payload() -> None:
    outcomes = []

    def down() -> None:
        try:
            outcomes.append((codec.pack_any({"a": {"b": [1j]}}), codec.text_of_any(1j)))
            down()
        except RecursionError:
            pass

    down()
    forms = [codec.canonical(payload) for (payload, interrupt), _ in outcomes if interrupt is None]
    assert len(forms) == len(outcomes)
    assert forms[0] == {"a": {"b": ["1j"]}}
    for form in forms:
        assert_canonical(form)


def test_containers_that_another_thread_changes() -> None:
    shared: dict[str, Any] = {"table": {}, "row": [], "bag": set(), "line": collections.deque(), "odd": 1j}
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            shared["table"][f"{n % 97}"] = n
            shared["row"].append(n)
            shared["bag"].add(n % 89)
            shared["line"].append(n)
            if n % 50 == 0:
                for part in ("table", "row", "bag", "line"):
                    shared[part].clear()

    thread = threading.Thread(target=change)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        for _ in range(500):
            form = slow(shared)
            assert [type(form[part]) for part in shared] == [dict, list, list, list, str]
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)


def test_a_container_that_changes_once_is_read_again_and_one_that_always_does_is_marked() -> None:
    class Changing(Headers):
        def __init__(self, times: int) -> None:
            super().__init__(a="1")
            self.times = times

        def __iter__(self) -> Iterator[str]:
            yield "a"
            if self.times:
                self.times -= 1
                raise RuntimeError("dictionary changed size during iteration")

    assert slow(Changing(1)) == {"a": "1"}
    assert slow(Changing(99)) == "<Changing object; reading it raised RuntimeError>"


# Limits.


def nested(depth: int, inner: object = 1) -> object:
    for _ in range(depth):
        inner = [inner]
    return inner


def depth_of(form: object) -> int:
    depth = 0
    while type(form) is list:
        form, depth = form[0], depth + 1
    return depth


def test_a_value_of_a_mebibyte_survives_whole() -> None:
    text = "x" * 1_048_576
    assert fast(text) == slow(text) == text


def test_long_text_is_cut_with_a_mark_that_says_how_much() -> None:
    text = "é" * 5_000_000
    form = slow(text)
    assert form == fast(text) == codec.clean_text(text) == codec.text_of(text)
    assert len(form) <= 1_048_576
    kept, _, mark = form.partition("…")
    assert mark == f"[cut: {5_000_000 - len(kept):,} characters]"
    assert slow({text: 1}) == fast({text: 1}) == {form: 1}


def test_wide_containers_are_cut() -> None:
    form = slow(range(0))  # the text of a range, not its numbers
    assert form == "range(0, 0)"
    numbers = list(range(10_001))
    assert fast(numbers) == slow(numbers) == [*range(9_999), "…[cut: 2 items]"]
    assert fast(numbers[:-1]) == slow(numbers[:-1]) == numbers[:-1]
    table = {str(n): n for n in numbers}
    assert fast(table) == slow(table)
    assert list(fast(table).items())[-2:] == [("9998", 9998), ("…", "…[cut: 2 items]")]
    assert slow(np.arange(10_001)) == slow(array.array("l", numbers)) == slow(numbers)
    assert slow(np.zeros((10_001, 1)))[-1] == "…[cut: 2 items]"


def test_deep_values_are_cut_at_the_same_level_by_both_roads() -> None:
    for depth in (3, 4, 5, 31, 32, 100, 900):
        value = nested(depth)
        form = slow(value)
        assert fast(value) == form
        assert depth_of(form) == min(depth, 31)  # the fields are the first of 32 levels
    assert slow(nested(100_000)) == slow(nested(32))
    deepest = slow(nested(32))
    while type(deepest) is list:
        deepest = deepest[0]
    assert deepest == "…[cut: deeper than 32 levels]"


def test_what_the_c_decoder_cannot_unpack_is_read_piece_by_piece() -> None:
    value = {
        Point(1): nested(40),
        "after": [1, 2.5, "x" * 300, b"y" * 300, {"k": nested(20)}, -5, 2**40, None],
    }
    value["ext"] = msgspec.msgpack.Ext(1, b"z" * 300)
    value |= {f"n{n}": [0] * n for n in (16, 70_000)} | {"wide": {str(n): -n for n in range(20_000)}}
    assert fast(value) == slow(value)
    short = dict(list(value.items())[:2])
    deep = msgspec.msgpack.encode({"value": short})
    assert codec.canonical(b"\x81\xa5value" + b"\x91" * 100_000 + b"\xc0")["value"] == slow(nested(32))
    assert codec.canonical(deep)["value"] == slow(short)


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x81\xa1a", b"\x81\xa1a\xda", b"\x81\xa1a\xc4\x05x", b"\x80\x80"]
)
def test_a_payload_that_is_no_messagepack_is_kept_as_base64(payload: bytes) -> None:
    form = codec.canonical(payload)
    assert_canonical(form)
    assert form["…"] == "…[unreadable fields, as base64]"


def test_a_record_over_its_size_keeps_what_fits() -> None:
    fields = {f"text{n}": "x" * 1_000_000 for n in range(9)}
    form = codec.canonical(codec.pack(fields))
    assert form == codec.canonical(codec.pack_any(fields)[0])
    assert len(codec.pack(form)) <= 4_194_304
    assert form["…"] == "…[cut: record over 4,194,304 bytes]"
    whole = [name for name, text in form.items() if text == fields.get(name)]
    assert whole == ["text0", "text1", "text2", "text3"]
    assert re.fullmatch(r"x+…\[cut: [\d,]+ characters\]", form["text4"])
    assert list(form) == [*whole, "text4", "…"]
    assert codec.canonical(codec.pack(form)) == form


def test_a_huge_value_is_cut_before_it_is_built() -> None:
    table = [[0] * 10_000] * 600  # 6 million numbers
    texts = ["x" * 1_000] * 9_000
    lines = [texts] * 3  # 27 MB, more than is unpacked at once
    for value in (table, lines):
        form = codec.canonical(codec.pack({"value": value}))
        assert str(form["value"][-1][-1]).endswith(("…[cut: record over 4,194,304 bytes]", " characters]"))
        assert form["…"] == "…[cut: record over 4,194,304 bytes]"
        assert form == codec.canonical(codec.pack_any({"value": value})[0])
        assert len(codec.pack(form)) <= 4_194_304


def test_limits_can_be_set() -> None:
    with limited(max_text=100, max_items=3, max_depth=2, max_payload=4096):
        assert codec.limits().max_items == 3
        assert slow("x" * 101) == fast("x" * 101) == "x" * 40 + "…[cut: 61 characters]"
        assert slow("x" * 100) == fast("x" * 100) == "x" * 100
        assert slow([1, 2, 3, 4]) == fast([1, 2, 3, 4]) == [1, 2, "…[cut: 2 items]"]
        assert slow([[1]]) == fast([[1]]) == ["…[cut: deeper than 2 levels]"]
    with limited(max_depth=1):
        assert slow([]) == fast([]) == "…[cut: deeper than 1 levels]"
    assert fast([[1, 2, 3, 4]]) == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_text", 99),
        ("max_items", 1),
        ("max_depth", 0),
        ("max_depth", 65),
        ("max_payload", 5),
        ("max_text", True),
    ],
)
def test_a_wrong_limit_is_named(name: str, value: int) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{name}: {value} cannot be used; allowed: an integer, at least"
    ):
        Limits(**{name: value})


def test_many_payloads_at_once_give_what_each_gives() -> None:
    plain = codec.pack({"a": [1.5, None, {"b": "é"}]})
    odd = [
        codec.pack({"a": math.nan}),
        codec.pack({1: b"x"}),
        codec.pack_any({"a": 1j})[0],
        b"",
        b"\x80",
        b"\xc1",
    ]
    for payloads in ([], [b""], [plain] * 300, [plain, *odd, plain], *([plain, one] for one in odd)):
        assert codec.canonical_many(payloads)[0] == [codec.canonical(one) if one else {} for one in payloads]
    with limited(max_text=100):
        long = codec.pack({"a": "x" * 101})
        assert codec.canonical_many([plain, long, long])[0] == [
            codec.canonical(one) for one in (plain, long, long)
        ]
    assert codec.canonical_many([plain] * 20_000)[0] == [codec.canonical(plain)] * 20_000


# Properties.

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.text(st.characters(codec=None, categories=["Cs", "Cc", "L"])),
    st.binary(max_size=20),
    st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.just(PLUS_TWO)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
    st.complex_numbers(),
    st.fractions(),
    st.sampled_from([*Colour, *Name, Polite(), function, int, ValueError("x"), Liar()]),
    st.builds(Stop, st.just(ValueError())),
)
keys = st.one_of(
    st.text(), st.integers(), st.none(), st.floats(), st.binary(max_size=5), st.tuples(st.integers())
)
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=5),
        st.builds(Order, st.integers(), inner),
        st.builds(Point, inner),
        st.builds(Event, inner, st.integers()),
        st.builds(Vector, inner),
        st.builds(Pair, st.integers(), inner),
        st.builds(collections.deque, st.lists(inner, max_size=3)),
        st.builds(Account, name=st.text(), extra=inner),
        st.sets(st.integers() | st.text(), max_size=5),
        st.lists(st.integers() | st.floats() | st.text(), min_size=8, max_size=20),
    ),
    max_leaves=30,
)
small_limits = st.builds(
    dict, max_text=st.integers(100, 200), max_items=st.integers(2, 6), max_depth=st.integers(1, 6)
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.text(), values, max_size=5))
def test_every_value_has_a_canonical_form_and_both_roads_agree(fields: dict[str, Any]) -> None:
    payload, interrupt = codec.pack_any(fields)
    assert interrupt is None
    form = codec.canonical(payload)
    assert_canonical(form)
    assert codec.canonical(codec.pack(form)) == form  # canonical already: stays as it is
    try:
        directly = codec.pack(fields)
    except Exception:
        return
    # By repr: 1, 1.0 and True are equal, keys have an order.
    assert repr(codec.canonical(directly)) == repr(form)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(), values, max_size=8), small_limits)
def test_the_roads_agree_on_what_is_cut(fields: dict[str, Any], limits: dict[str, int]) -> None:
    with limited(**limits):
        form = codec.canonical(codec.pack_any(fields)[0])
        assert_canonical(form)
        assert codec.canonical(codec.pack(form)) == form
        try:
            directly = codec.pack(fields)
        except Exception:
            return
        assert repr(codec.canonical(directly)) == repr(form)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(max_size=40) | st.lists(st.integers(-(2**63), 2**64 - 1)), max_size=20),
    st.integers(1, 60),
)
def test_a_record_over_its_size_is_cut_alike_and_once(parts: list[Any], times: int) -> None:
    fields = {
        "first": [parts, "a" * 500],
        "texts": [[part, part * times] for part in parts],
        "last": "é" * 900,
    }
    with limited(max_payload=4096):
        form = codec.canonical(codec.pack(fields))
        assert form == codec.canonical(codec.pack_any(fields)[0])
        assert len(codec.pack(form)) <= 4096
        assert codec.canonical(codec.pack(form)) == form


@settings(max_examples=300, deadline=None)
@given(values)
def test_text_of_anything_is_text(value: object) -> None:
    text, interrupt = codec.text_of_any(value)
    assert interrupt is None
    assert type(text) is str
    text.encode()
    assert codec.text_of(value) == text
    assert codec.clean_text(text) == text


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_payload_makes_canonical_raise(noise: bytes) -> None:
    assert_canonical(codec.canonical(noise))
    assert_canonical(codec.canonical(codec.pack({"value": msgspec.Raw(noise)})))


def test_a_partial_and_a_lock_say_what_they_are() -> None:
    assert slow(functools.partial(function)).startswith("functools.partial(<function function at ")
    assert "lock" in slow(threading.Lock())
