"""Handlers: for each kind of value, how it is read on the way to its canonical form.

No optional package is imported: a value of a numpy or pydantic class can only exist when that is loaded.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import sys
import types
from array import array
from collections import UserList, deque
from collections.abc import Callable, Iterable, Mapping, Set, ValuesView
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import msgspec

from asynctrace.core.text import class_name
from asynctrace.core.wire import WireArray, WireMap

if TYPE_CHECKING:
    from asynctrace.core.canonical import Form, Walk

Handler: TypeAlias = "Callable[[Walk, Any], Form]"

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

# Asked of `type` itself: a metaclass may have its own idea of them, or raise.
_module_of = type.__dict__["__module__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__
_members_of = type.__dict__["__dict__"].__get__
_bases_of = type.__dict__["__mro__"].__get__


def handler_of(kind: type, walk: Walk) -> Handler:
    """The handler for values of exactly that class."""
    exact = _EXACT.get(id(kind))  # by identity: a metaclass may have its own __hash__ and __eq__
    if exact is not None:
        return exact
    # Not by issubclass, which would ask an abstract base class, and that the metaclass.
    bases = set(map(id, _bases_of(kind)))
    for base, handler in _SUBCLASSES:
        if id(base) in bases:
            return handler
    if walk.interrupt is not None:
        return _told  # what follows runs code of the value
    return _by_members(kind) or _by_package(bases) or _by_protocol(kind) or _told


def _told(walk: Walk, value: object) -> Form:
    return walk.told(value)


# Values that the C encoder takes by itself, and their subclasses, which it does not.


def _atom(walk: Walk, value: bool | None) -> Form:
    return walk.leaf(value)


def _str(walk: Walk, value: str) -> Form:
    return walk.text(value if type(value) is str else str.__str__(value))


def _int(walk: Walk, value: int) -> Form:
    return walk.integer(value if type(value) is int else int.__index__(value))


def _float(walk: Walk, value: float) -> Form:
    return walk.real(value if type(value) is float else float.__float__(value))


def _binary(walk: Walk, value: Any) -> Form:
    return walk.binary(value)


def _native(walk: Walk, value: object) -> Form:
    """One that the C encoder gives a text or a timestamp."""
    try:
        wire = _unpack(_pack(value))
    except OverflowError:  # in UTC it would be before the year 1 or after 9999
        return walk.text(value.isoformat() if isinstance(value, datetime.datetime) else str(value))
    return _moment(walk, wire) if type(wire) is datetime.datetime else walk.text(wire)


def _moment(walk: Walk, moment: datetime.datetime) -> Form:
    return walk.text(moment.replace(tzinfo=None).isoformat() + "Z")


def _datetime(walk: Walk, value: datetime.datetime) -> Form:
    if type(value) is datetime.datetime:
        return _native(walk, value)
    date = value.year, value.month, value.day
    time = value.hour, value.minute, value.second, value.microsecond
    return _native(walk, datetime.datetime(*date, *time, value.tzinfo, fold=value.fold))


def _date(walk: Walk, value: datetime.date) -> Form:
    return walk.text(datetime.date.isoformat(value))


def _time(walk: Walk, value: datetime.time) -> Form:
    parts = value.hour, value.minute, value.second, value.microsecond, value.tzinfo
    return _native(walk, datetime.time(*parts, fold=value.fold))


def _timedelta(walk: Walk, value: datetime.timedelta) -> Form:
    return _native(walk, datetime.timedelta(value.days, value.seconds, value.microseconds))


def _decimal(walk: Walk, value: Decimal) -> Form:
    return _native(walk, Decimal(value))


def _enum(walk: Walk, value: Enum) -> Form:
    return walk.form(value._value_)


def _dict(walk: Walk, value: dict[Any, Any]) -> Form:
    return walk.mapping(value, walk.first(partial(dict.items, value)), dict.__len__(value))


def _items(kind: Any) -> Handler:
    def handler(walk: Walk, value: Any) -> Form:
        return walk.array(value, walk.first(partial(kind.__iter__, value)), kind.__len__(value))

    return handler


# Values with named fields.


def _fields(walk: Walk, value: object, names: Iterable[tuple[str, str]], head: Mapping[str, Any]) -> Form:
    pairs = list(head.items())
    for name, attribute in names:
        try:
            part = getattr(value, attribute)
        except Exception:  # not set; the C encoder leaves it out too
            continue
        if part is not msgspec.UNSET:
            pairs.append((name, part))
    return walk.mapping(value, pairs, len(pairs))


def _dataclass(walk: Walk, value: Any) -> Form:
    # As the C encoder has it: a default that stands in the class only is not part of the value.
    own = getattr(value, "__dict__", ())
    names = [
        field.name
        for field in dataclasses.fields(type(value))
        if field.name in own or hasattr(type(_static(type(value), field.name)), "__get__")
    ]
    return _fields(walk, value, zip(names, names, strict=True), {})


def _static(kind: type, name: str) -> object:
    return next((members[name] for base in _bases_of(kind) if name in (members := _members_of(base))), None)


def _attrs(walk: Walk, value: Any) -> Form:
    names = dict.fromkeys(attribute.name for attribute in type(value).__attrs_attrs__)
    names |= dict.fromkeys(getattr(value, "__dict__", ()))
    public = [name for name in names if not name.startswith("_")]
    return _fields(walk, value, zip(public, public, strict=True), {})


def _struct(walk: Walk, value: Any) -> Form:
    kind, config = type(value), value.__struct_config__
    head = {} if config.tag is None else {config.tag_field: config.tag}
    if config.array_like:
        parts = [*head.values(), *(getattr(value, name) for name in kind.__struct_fields__)]
        return walk.array(value, parts, len(parts))
    names = list(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    if config.omit_defaults:
        defaults = kind.__struct_defaults__
        required = len(names) - len(defaults)
        names = names[:required] + [
            name
            for name, default in zip(names[required:], defaults, strict=True)
            if not _is_default(getattr(value, name[1]), default)
        ]
    return _fields(walk, value, names, head)


def _is_default(value: Any, default: Any) -> bool:
    # As the C encoder tells it: the same object, or an empty list, dict or set made by a factory.
    return value is default or (
        type(value) in (list, dict, set) and not value and getattr(default, "factory", None) is type(value)
    )


def _ext(walk: Walk, value: msgspec.msgpack.Ext) -> Form:
    return walk.mapping(value, [("ext", value.code), ("data", value.data)], 2)


def _raw(walk: Walk, value: msgspec.Raw) -> Form:
    try:
        return walk.form(_unpack(value))
    except msgspec.DecodeError:
        return walk.binary(value)


# Values that the C encoder refuses.


def _exception(walk: Walk, value: BaseException) -> Form:
    if walk.interrupt is not None:
        return walk.told(value)
    text = walk.ask(value)
    return walk.text(f"{class_name(value)}: {text}" if text else class_name(value))


def _class(walk: Walk, value: type) -> Form:
    module = _module_of(value)
    name = _qualname_of(value)
    return walk.text(name if module == "builtins" else f"{module}.{name}")


def _function(walk: Walk, value: Any) -> Form:
    function = value.__func__ if type(value) is types.MethodType else value
    module, name = getattr(function, "__module__", None), function.__qualname__
    return walk.text(name if module in (None, "builtins") else f"{module}.{name}")


def _module(walk: Walk, value: types.ModuleType) -> Form:
    return walk.text(types.ModuleType.__getattribute__(value, "__name__"))


def _pattern(walk: Walk, value: re.Pattern[Any]) -> Form:
    return walk.form(value.pattern)


def _array(walk: Walk, value: array[Any]) -> Form:
    return walk.array(value, value[: walk.limits.max_items].tolist(), len(value))


def _user_list(walk: Walk, value: UserList[Any]) -> Form:
    return walk.form(value.data)


def _mapping(walk: Walk, value: Mapping[Any, Any]) -> Form:
    pairs = walk.first(lambda: ((key, part) for key, part in value.items()))
    return walk.mapping(value, pairs, _total(walk, pairs, value))


def _collection(walk: Walk, value: Any) -> Form:
    items = walk.first(lambda: iter(value))
    return walk.array(value, items, _total(walk, items, value))


def _total(walk: Walk, items: list[Any], value: Any) -> int:
    # What __len__ says counts only where more is cut than was read, and may be a lie or infinite.
    if len(items) <= walk.limits.max_items:
        return len(items)
    try:
        return max(len(items), len(value))
    except Exception:
        return len(items)


def _model(walk: Walk, value: Any) -> Form:
    return walk.mapping(value, (fields := value.model_dump()).items(), len(fields))


def _model_v1(walk: Walk, value: Any) -> Form:
    return walk.mapping(value, (fields := value.dict()).items(), len(fields))


def _numpy_scalar(walk: Walk, value: Any) -> Form:
    plain = value.item()
    # A longdouble has no Python twin and gives itself.
    return walk.told(value) if type(plain) is type(value) else walk.form(plain)


def _numpy_array(walk: Walk, value: Any) -> Form:
    if value.ndim == 0:
        return walk.form(value[()])
    kept = value[: walk.limits.max_items]
    return walk.array(value, kept.tolist() if value.ndim == 1 else kept, len(value))


def _wire_array(walk: Walk, node: WireArray) -> Form:
    form = walk.array(node, node.items(), node.count)
    if not walk.full:
        node.finish()
    return form


def _wire_map(walk: Walk, node: WireMap) -> Form:
    form = walk.mapping(node, node.pairs(), node.count)
    if not walk.full:
        node.finish()
    return form


_SUBCLASSES: list[tuple[type, Handler]] = [  # the first that fits; in the order in which the C encoder asks
    (Enum, _enum),
    (str, _str),
    (int, _int),
    (float, _float),
    (bytes, _binary),
    (bytearray, _binary),
    (dict, _dict),
    (list, _items(list)),
    (tuple, _items(tuple)),
    (set, _items(set)),
    (frozenset, _items(frozenset)),
    (datetime.datetime, _datetime),
    (datetime.date, _date),
    (datetime.time, _time),
    (datetime.timedelta, _timedelta),
    (Decimal, _decimal),
    (UUID, _native),
    (msgspec.Struct, _struct),
    (deque, _items(deque)),
    (array, _array),
    (type, _class),
    (types.ModuleType, _module),
    (BaseException, _exception),
]

_ONLY: list[tuple[type, Handler]] = [  # classes that have no subclasses, or none of this kind
    (type(None), _atom),
    (bool, _atom),
    (memoryview, _binary),
    (msgspec.msgpack.Ext, _ext),
    (msgspec.Raw, _raw),
    (types.FunctionType, _function),
    (types.BuiltinFunctionType, _function),
    (types.MethodType, _function),
    (re.Pattern, _pattern),
    (WireArray, _wire_array),
    (WireMap, _wire_map),
]

_EXACT: dict[int, Handler] = {id(kind): handler for kind, handler in reversed(_SUBCLASSES + _ONLY)}


_PACKAGES: list[tuple[str, str, Handler]] = [
    ("pydantic.main", "BaseModel", _model),
    ("pydantic.v1.main", "BaseModel", _model_v1),
    ("numpy", "generic", _numpy_scalar),
    ("numpy", "ndarray", _numpy_array),
]


_PROTOCOLS: list[tuple[type, Handler]] = [
    (UserList, _user_list),
    (Mapping, _mapping),
    (Set, _collection),
    (ValuesView, _collection),
]


def _by_members(kind: type) -> Handler | None:
    for base in _bases_of(kind):
        members = _members_of(base)
        if "__dataclass_fields__" in members:
            return _dataclass
        if "__attrs_attrs__" in members:
            return _attrs
    return None


def _by_package(bases: set[int]) -> Handler | None:
    for package, name, handler in _PACKAGES:
        base = getattr(sys.modules.get(package), name, None)
        if id(base) in bases:
            return handler
    return None


def _by_protocol(kind: type) -> Handler | None:
    try:
        return next((handler for base, handler in _PROTOCOLS if issubclass(kind, base)), None)
    except Exception:  # out of the metaclass; abstract base classes ask it for a hash
        return None
