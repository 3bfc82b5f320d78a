"""Values of any kind to the canonical form, and the canonical form to bytes.

The caller packs its fields with :func:`pack`: one C call that copies everything the values hold, so a later
mutation cannot rewrite a record. What the C encoder refuses goes to :func:`pack_any`, which takes every
Python value. The writer unpacks: the result holds only ``None, bool, int, float, str, list, dict[str, …]``
(no NaN, no lone surrogate, nothing over-long), which every store gives back equal.

Formats: MessagePack (between caller and writer), JSON as RFC 8259 (in the stores).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from asynctrace.core.canonical import MORE, Copying, Tell, Walk
from asynctrace.core.limits import Limits, cut_text
from asynctrace.core.text import clean, describe, is_interrupt
from asynctrace.core.wire import MalformedError, Wire

__all__ = [
    "EMPTY",
    "Limits",
    "canonical",
    "canonical_many",
    "clean_text",
    "limits",
    "pack",
    "pack_any",
    "set_limits",
    "text_of",
    "text_of_any",
    "to_json",
    "to_json_lines",
]

pack = msgspec.msgpack.Encoder().encode
"""Fields of plain values to a payload, in one C call.

Raises:
    BaseException: a value that it does not take; :func:`pack_any` does. No Exception but an interrupt when
        one arrives while a time zone computes its offset.
"""

_unpack = msgspec.msgpack.Decoder().decode
_json = msgspec.json.Encoder().encode
_json_lines = msgspec.json.Encoder().encode_lines

EMPTY = pack({})
"""The payload of no fields."""

_UNPACKED = 4  # times max_payload: up to there a payload is unpacked at once and then cut, which is quicker
_NESTED_AHEAD = 15  # slices that are not tried with the flat decoder when one was nested
_TYPED_DEPTH = 4  # levels that the typed decoders know; what is deeper takes the walk


def pack_any(fields: Mapping[str, Any]) -> tuple[bytes, BaseException | None]:
    """Fields of any values to a payload; raises nothing that comes out of a value.

    Returns:
        the payload, and the interrupt (KeyboardInterrupt, or what a signal handler raised to end the program)
        that came out of a value's ``__repr__`` or its like: the caller raises it when the record is kept.

    >>> payload, interrupt = pack_any({"ratio": float("nan"), "names": {1: b"x"}})
    >>> canonical(payload), interrupt
    ({'ratio': 'NaN', 'names': {'1': 'eA=='}}, None)
    """
    walk: Walk | None = None
    try:
        walk = Copying(_limits)
        return pack(walk.fields(fields)), walk.interrupt
    except BaseException as error:  # no stack or memory left even for marks, or an interrupt in our own code
        interrupt = walk.interrupt if walk is not None else None
        if interrupt is None and is_interrupt(error):
            interrupt = error
        return _LOST, interrupt


_LOST = pack({MORE: "…[lost: no stack or memory left to read the fields]"})


def canonical(payload: bytes, tell: Tell | None = None) -> dict[str, Any]:
    """The fields that a payload holds, in canonical form.

    Args:
        payload: what :func:`pack` or :func:`pack_any` made. If it is no MessagePack (a ``msgspec.Raw`` among
            the fields held something else) the result is a mark and the payload's base64.
        tell: gives the text that stands for bytes; base64 by default.
    """
    try:
        # A payload of few bytes can hold nothing over-long, so that its decoder need not look.
        if len(payload) <= _small:
            return _decode_small(payload)
        if len(payload) <= _limits.max_payload:
            return _decode_large(payload)
    except Exception:  # over-long, not canonical, or no MessagePack: the walk tells
        pass
    return _walk(payload, tell)


def canonical_many(payloads: Sequence[bytes], tell: Tell | None = None) -> tuple[list[dict[str, Any]], bool]:
    """The fields that each payload holds, in canonical form; one call of the C decoder where it can be.

    Args:
        payloads: an empty one stands for no fields.
        tell: as of :func:`canonical`.

    Returns:
        the fields, and whether a list or dict may be among their values.
    """
    global _nested_ahead
    joined = b"".join(payloads if all(payloads) else [payload or EMPTY for payload in payloads])
    if len(joined) <= _small or max(map(len, payloads), default=0) <= _small:
        array = b"\xdd%b%b" % (len(payloads).to_bytes(4, "big"), joined)
        if not _nested_ahead:
            try:
                return _decode_flat(array), False
            except Exception:  # not flat, or one of them needs a closer look
                _nested_ahead = _NESTED_AHEAD
        else:
            _nested_ahead -= 1
        try:
            return _decode_many(array), True
        except Exception:  # one of them needs a closer look
            pass
    return [canonical(payload, tell) if payload else {} for payload in payloads], True


def to_json(value: Any) -> bytes:
    """A canonical value as JSON; never fails on one.

    >>> to_json({"rows": [1, None, "é"]}).decode()
    '{"rows":[1,null,"é"]}'
    """
    return _json(value)


def to_json_lines(values: Sequence[Any]) -> bytes:
    """Canonical values as JSON, each with a line end behind it."""
    return _json_lines(values)


def text_of_any(value: object) -> tuple[str, BaseException | None]:
    """The canonical text of a message or a name of any type; raises nothing that comes out of the value.

    A str is kept; anything else is asked by ``str()``, then by ``repr()``.

    Returns:
        the text, and the interrupt that came out of the value, as with :func:`pack_any`.

    >>> text_of_any(42)
    ('42', None)
    """
    try:
        text, interrupt = describe(value)
        return clean(text, _limits.max_text), interrupt
    except BaseException as error:  # no stack or memory left, or an interrupt in our own code
        return "<object>", error if is_interrupt(error) else None


def text_of(value: object) -> str:
    """The same for callers that can let an interrupt through at once.

    Raises:
        BaseException: an interrupt (never an Exception) that struck while the value was asked.

    >>> text_of("caf\\udce9")
    'caf\\\\udce9'
    """
    text, interrupt = text_of_any(value)
    if interrupt is not None:
        raise interrupt
    return text


def clean_text(text: str) -> str:
    """A str in canonical form: lone surrogates as escapes, cut where it is over-long."""
    return clean(text, _limits.max_text)


def limits() -> Limits:
    """The limits in force in this process."""
    return _limits


def set_limits(limits: Limits) -> None:
    """Set how much of over-long values this process keeps, from the next record on."""
    global _limits, _small, _decode_small, _decode_large, _decode_many, _decode_flat
    _small = 0  # whoever decodes meanwhile takes the decoder that checks everything
    _limits = limits
    depth = min(_TYPED_DEPTH, limits.max_depth - 1)
    _decode_small = msgspec.msgpack.Decoder(_form(depth, None)).decode
    _decode_large = msgspec.msgpack.Decoder(_form(depth, limits)).decode
    _decode_many = msgspec.msgpack.Decoder(list[_form(depth, None)]).decode  # type: ignore[misc]
    _decode_flat = msgspec.msgpack.Decoder(list[_form(0, None)]).decode  # type: ignore[misc]
    _small = min(limits.max_text, limits.max_items, limits.max_payload)


def _form(depth: int, limits: Limits | None) -> Any:
    """The type of canonical fields for a C decoder, and with limits of those within them."""
    finite = Meta(ge=-sys.float_info.max, le=sys.float_info.max)
    text: Any = str
    container = Meta()
    if limits is not None:
        text = Annotated[str, Meta(max_length=limits.max_text)]
        container = Meta(max_length=limits.max_items)
    # Keys with a limit bypass the decoder's cache of keys, at nearly twice the time; hence two decoders.
    scalar: Any = bool | int | Annotated[float, finite] | text | None
    form: Any = scalar  # not a type to the type checker: it is built at run time
    for _ in range(depth):
        form = scalar | Annotated[list[form], container] | Annotated[dict[text, form], container]
    return Annotated[dict[text, form], container]


def _walk(payload: bytes, tell: Tell | None) -> dict[str, Any]:
    walk = Walk(_limits, tell=tell)
    try:
        if len(payload) <= _UNPACKED * _limits.max_payload:
            try:
                return walk.fields(_unpack(payload))
            except Exception:  # nested too deep for the C decoder, a map as a key, or no MessagePack
                pass
        return _walk_wire(walk, payload)
    except MalformedError:
        shown = cut_text(walk.tell(payload), _limits.max_text)
        return {MORE: "…[unreadable fields, as base64]", "base64": shown}


def _walk_wire(walk: Walk, payload: bytes) -> dict[str, Any]:
    wire = Wire(payload)
    fields = walk.fields(wire.read())
    if not walk.full and not wire.ended:
        raise MalformedError
    return fields


_limits: Limits
_small: int  # bytes
_decode_small: Callable[[bytes], dict[str, Any]]
_decode_large: Callable[[bytes], dict[str, Any]]
_decode_many: Callable[[bytes], list[dict[str, Any]]]
_decode_flat: Callable[[bytes], list[dict[str, Any]]]
_nested_ahead = 0  # so many slices are expected to be nested, as one lately was
set_limits(Limits())
