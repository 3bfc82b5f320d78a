"""Wire: MessagePack read piece by piece, for payloads that are too deep or too big for the C decoder.

The C decoder refuses what nests deeper than the stack allows and maps whose keys are maps, and builds
everything before anything can be cut. Format: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

_decode = msgspec.msgpack.Decoder().decode

# By first byte: how many bytes tell the length that follows.
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXT = frozenset((0xC7, 0xC8, 0xC9))  # have one more byte, the type
_FIXED = {
    **{0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8},
    **{0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8},
    **{0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17},
}
_COUNTED = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


class MalformedError(BaseException):
    """The payload is not MessagePack. No Exception, so that no handler for a broken *value* takes it."""


class WireArray:
    """An array of which nothing has been read yet."""

    __slots__ = ("_unread", "_wire", "count")

    def __init__(self, wire: Wire, count: int) -> None:
        self._wire = wire
        self._unread = self.count = count

    def items(self) -> Iterator[Any]:
        """The items in order; each must be read to its end before the next is asked for."""
        while self._unread:
            self._unread -= 1
            yield self._wire.read()

    def finish(self) -> None:
        """Pass over what was not read."""
        self._wire.skip(self._unread)
        self._unread = 0


class WireMap(WireArray):
    """A map of which nothing has been read yet."""

    __slots__ = ()

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values in order; each value must be read to its end before the next pair is asked for."""
        while self._unread:
            self._unread -= 1
            yield self._wire.cut_out().read(), self._wire.read()

    def finish(self) -> None:
        """Pass over what was not read."""
        self._unread *= 2
        super().finish()


class Wire:
    """A place in a payload.

    Args:
        payload: one MessagePack value.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._position = 0

    @property
    def payload(self) -> bytes:
        """All of it, whatever has been read."""
        return self._payload

    @property
    def ended(self) -> bool:
        """Whether everything has been read or passed over."""
        return self._position == len(self._payload)

    def read(self) -> Any:
        """The next value; a container is given as :class:`WireArray` or :class:`WireMap`.

        Raises:
            MalformedError: there is no value here.
        """
        start = self._position
        count, is_map = self._step()
        if is_map is None:
            try:
                return _decode(memoryview(self._payload)[start : self._position])
            except Exception as error:
                raise MalformedError from error
        return WireMap(self, count) if is_map else WireArray(self, count)

    def skip(self, values: int) -> None:
        """Pass over that many values, however deep.

        Raises:
            MalformedError: there are fewer.
        """
        while values:
            count, is_map = self._step()
            values += (2 * count if is_map else count) - 1

    def cut_out(self) -> Wire:
        """The next value as a wire of its own, passed over here.

        Raises:
            MalformedError: there is no value here.
        """
        start = self._position
        self.skip(1)
        return Wire(self._payload[start : self._position])

    def _step(self) -> tuple[int, bool | None]:
        """Pass over a scalar (0, None) or the head of a container (its count, whether it is a map)."""
        payload, start = self._payload, self._position
        if start >= len(payload):
            raise MalformedError
        code, body = payload[start], start + 1
        count, is_map = 0, None
        if code <= 0x7F or code >= 0xE0:
            pass
        elif code <= 0x9F:
            count, is_map = code & 0x0F, code <= 0x8F
        elif code <= 0xBF:
            body += code & 0x1F
        elif code in _COUNTED:
            body += _COUNTED[code]
            count, is_map = int.from_bytes(payload[start + 1 : body], "big"), code >= 0xDE
        elif code in _SIZED:
            body += _SIZED[code]
            body += int.from_bytes(payload[start + 1 : body], "big") + (code in _EXT)
        elif code in _FIXED:
            body += _FIXED[code]
        else:
            raise MalformedError
        self._position = body
        return count, is_map
