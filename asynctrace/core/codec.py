"""Values of any kind to the canonical form, and the canonical form to bytes.

The caller packs its fields with :func:`pack`: one C call that copies everything the values hold, so a later
mutation cannot rewrite a record. What the C encoder refuses takes :func:`pack_any`, which takes every Python
value. The writer unpacks: the result holds only ``None, bool, int, float, str, list, dict[str, …]`` (no NaN, no
lone surrogate, nothing over-long), which every store gives back equal.

Formats: MessagePack (between caller and writer), JSON as RFC 8259 (in the stores).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

_packer = msgspec.msgpack.Encoder()
pack = _packer.encode
_unpack_any = msgspec.msgpack.Decoder().decode
_json = msgspec.json.Encoder().encode

# IEEE 754: an exponent of all ones is NaN or an infinity; a hit may also be chance inside a string.
NON_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")


def pack_any(fields: Mapping[str, Any]) -> bytes:
    return pack({str(k): repr(v) for k, v in fields.items()})


def unpack(payload: bytes) -> dict[str, Any]:
    return _unpack_any(payload)


def canonical(payload: bytes) -> dict[str, Any]:
    return _unpack_any(payload)


def to_json(value: Any) -> bytes:
    return _json(value)


def text_of(value: object) -> str:
    return str(value)
