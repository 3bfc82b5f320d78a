"""The walk that brings a value of any kind into canonical form (docs/reference/canonical-form.md).

What the C encoder takes by itself gets the form that it gives (a test compares the two roads); how each kind
is read is in :mod:`asynctrace.core.handlers`. Classes are asked by ``type()``, never by ``isinstance``, which
would ask the value's own ``__class__``; containers are read through the built-in type, not through what a
subclass overrides. Whatever a value raises ends in a mark in its place.
"""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from asynctrace.core.handlers import handler_of
from asynctrace.core.limits import Limits, cut_mark, cut_text
from asynctrace.core.text import class_name, clean, describe, int_text, is_interrupt
from asynctrace.core.wire import MalformedError

Form: TypeAlias = Any
"""None, bool, int, float, str, list or dict[str, Form]."""

Tell: TypeAlias = Callable[[bytes], str]
"""What stands for bytes."""

T = TypeVar("T")

CYCLE = "…[cycle]"
MORE = "…"
"""The key under which a dict says what was cut from it."""

_HEAD = 5  # bytes in front of a text, at most
_ATTEMPTS = 3  # to read a container that another thread changes
_MARKS_ROOM = 1024  # bytes kept free for the marks of a record that is cut, so that it is never cut again

pack = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode
_SCALARS = frozenset(map(id, (type(None), bool, int, float, str)))
_finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
_decode_flat = msgspec.msgpack.Decoder(list[bool | int | _finite | str | None]).decode


class Walk:
    """One walk over the fields of one record.

    Args:
        limits: what to keep.
        interrupt: a KeyboardInterrupt or its like that has already come out of the record's values.
        tell: gives the text that stands for bytes; base64 by default.

    Attributes:
        interrupt: the first one that came out. From then on no code of a value is run any more.
    """

    def __init__(
        self, limits: Limits, interrupt: BaseException | None = None, tell: Tell | None = None
    ) -> None:
        self.limits = limits
        self.interrupt = interrupt
        self.tell: Tell = tell or base64_of
        self.size = 0  # bytes of the form so far, as MessagePack
        self._path: list[list[Form] | dict[str, Form]] = []  # the containers being filled, outermost first
        self._open: set[int] = set()  # the ids of their originals
        # Where to go back to if the record turns out to be over its size: how many entries of each container
        # fit while leaving room for the marks, and what is left of a text that fits in part.
        self._fits: list[tuple[list[Form] | dict[str, Form], int]] = []
        self._part: str | None = None
        self.full = False

    def fields(self, fields: object) -> dict[str, Form]:
        """The canonical form of a record's fields."""
        form = self.form(fields)
        root: dict[str, Form] = form if type(form) is dict else {MORE: form}
        if self.full:
            self._go_back(root)
        return root

    def form(self, value: object) -> Form:
        """The canonical form of one value; raises nothing that comes out of the value."""
        try:
            return handler_of(type(value), self)(self, value)
        except MalformedError:
            raise
        except BaseException as error:
            self.note(error)
            return self.leaf(f"<{class_name(value)} object; reading it raised {class_name(error)}>")

    def note(self, error: BaseException | None) -> None:
        """Remember the first interrupt, to be raised when the record is safe."""
        if error is not None and self.interrupt is None and is_interrupt(error):
            self.interrupt = error

    # Scalars.

    def leaf(self, scalar: bool | int | float | str | None) -> Form:
        """Counts what is canonical already."""
        before = self.size
        if self._charge(len(pack(scalar))) and type(scalar) is str and self._path:
            room = self.limits.max_payload - _MARKS_ROOM - before
            self._part = cut_text(scalar, room // 4)  # a character has at most 4 bytes
            container = self._path[-1]
            self._fits[-1] = container, len(container) + 1
        return scalar

    def text(self, value: str) -> Form:
        """A text, clean and cut where it is over-long."""
        return self.leaf(clean(value, self.limits.max_text))

    def told(self, value: object) -> Form:
        """What the value says of itself; after an interrupt only what it is."""
        if self.interrupt is not None:
            return self.leaf(f"<{class_name(value)} object>")
        return self.text(self.ask(value))

    def ask(self, value: object) -> str:
        """What the value says of itself, neither cleaned nor counted; runs code of the value."""
        text, interrupt = describe(value)
        self.note(interrupt)
        return text

    def integer(self, value: int) -> Form:
        """An int, or its text where 64 bits do not hold it."""
        return self.leaf(value) if -(2**63) <= value < 2**64 else self.text(int_text(value))

    def real(self, value: float) -> Form:
        """A float, or its name where JSON has no number for it."""
        if math.isfinite(value):
            return self.leaf(value)
        return self.leaf("NaN" if value != value else "Infinity" if value > 0 else "-Infinity")

    def binary(self, value: Any) -> Form:
        """Bytes as text."""
        return self.text(self.tell(memoryview(value).tobytes()))

    # Containers.

    def mapping(self, source: object, pairs: Iterable[tuple[Any, Any]], total: int) -> Form:
        """A dict of the pairs.

        Args:
            source: the original, for finding cycles.
            pairs: read no further than the limit needs.
            total: how many there are.
        """
        out: dict[str, Form] = {}
        if (mark := self._enter(source, out, total)) is not None:
            return self.leaf(mark)
        try:
            kept = self._kept(total)
            taken: dict[str, int] = {}
            for key, value in islice(pairs, kept):
                name = _distinct(self._key(key), out, taken)
                self._charge(len(pack(name)))
                if not self.full:
                    out[name] = self.form(value)
                if self.full:
                    break
            if kept < total and not self.full:
                self._charge(len(pack(MORE)))
                out[_distinct(MORE, out, taken)] = self.leaf(cut_mark(total - kept, "item"))
        finally:
            self._leave(source)
        return out

    def array(self, source: object, items: Iterable[Any], total: int) -> Form:
        """A list of the items; the arguments are those of :meth:`mapping`."""
        if len(self._path) < self.limits.max_depth and (flat := self._flat(items, total)) is not None:
            return flat
        out: list[Form] = []
        if (mark := self._enter(source, out, total)) is not None:
            return self.leaf(mark)
        try:
            kept = self._kept(total)
            for item in islice(items, kept):
                out.append(self.form(item))
                if self.full:
                    break
            if kept < total and not self.full:
                out.append(self.leaf(cut_mark(total - kept, "item")))
        finally:
            self._leave(source)
        return out

    def _flat(self, items: Iterable[Any], total: int) -> list[Form] | None:
        """The form of many plain scalars in two C calls, where nothing of it is cut; else None."""
        if type(items) is not list or not 8 <= total == len(items) <= self.limits.max_items:
            return None
        if not _SCALARS.issuperset(map(id, map(type, items))):
            return None
        try:
            packed = pack(items)
            form: list[Form] = _decode_flat(packed)
        except Exception:  # one that needs a closer look
            return None
        if (
            self.size + len(packed) > self.limits.max_payload - _MARKS_ROOM
            or len(packed) > self.limits.max_text
        ):
            return None
        self.size += len(packed)
        return form

    def first(self, items: Callable[[], Iterable[T]]) -> list[T]:
        """As many items as a container may have and one more, read at once, again if they change meanwhile.

        One C loop without a Python step in between: another thread can hardly get in.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return list(islice(items(), self.limits.max_items + 1))
            except RecursionError:
                raise
            except RuntimeError:  # "dictionary changed size during iteration" and its like
                continue
        return list(islice(items(), self.limits.max_items + 1))

    def _kept(self, total: int) -> int:
        return total if total <= self.limits.max_items else self.limits.max_items - 1

    def _key(self, key: object) -> Any:
        if type(key) is str:
            return clean(key, self.limits.max_text)
        walk = type(self)(self.limits, self.interrupt, self.tell)
        form = walk.fields({"": key}).get("", CYCLE)
        self.note(walk.interrupt)
        return form if type(form) in (str, bytes) else clean(_to_json(form).decode(), self.limits.max_text)

    def _enter(self, source: object, out: list[Form] | dict[str, Form], total: int) -> str | None:
        if len(self._path) >= self.limits.max_depth:
            return f"…[cut: deeper than {self.limits.max_depth} levels]"
        if id(source) in self._open:
            return CYCLE
        kept = min(total, self.limits.max_items)
        self._charge(1 if kept < 16 else 3 if kept < 65_536 else 5)
        self._open.add(id(source))
        self._path.append(out)
        return None

    def _leave(self, source: object) -> None:
        self._open.discard(id(source))
        self._path.pop()

    # The size of the whole.

    def _charge(self, size: int) -> bool:
        """Counts bytes; True when they are the first that leave no room for the marks."""
        self.size += size
        self.full = self.size > self.limits.max_payload
        if self._fits or self.size <= self.limits.max_payload - _MARKS_ROOM:
            return False
        # The outer containers get one entry more: the one that is being made.
        self._fits = [(container, len(container) + 1) for container in self._path[:-1]]
        self._fits += [(container, len(container)) for container in self._path[-1:]]
        return True

    def _go_back(self, root: dict[str, Form]) -> None:
        mark = f"…[cut: record over {self.limits.max_payload:,} bytes]"
        for container, fitting in self._fits:
            is_innermost = container is self._fits[-1][0]
            if isinstance(container, dict):
                for name in list(container)[fitting:]:
                    del container[name]
                if is_innermost and self._part is not None:
                    container[next(reversed(container))] = self._part
            else:
                del container[fitting:]
                if is_innermost and self._part is not None:
                    container[-1] = self._part
                elif is_innermost:
                    container.append(mark)
        if len(root) < self.limits.max_items:
            root[_distinct(MORE, root, {})] = mark


class Copying(Walk):
    """A walk on the caller's side: bytes stay bytes, so that who knows what is secret can look into them later."""

    def binary(self, value: Any) -> Form:
        """A copy of the bytes."""
        data = memoryview(value).tobytes()
        self._charge(_HEAD + min(-(-len(data) // 3) * 4, self.limits.max_text))  # what its text will take
        return data


def base64_of(data: bytes) -> str:
    """The bytes in base64."""
    return base64.b64encode(data).decode()


def _distinct(name: str, out: dict[str, Form], taken: dict[str, int]) -> str:
    """The name, numbered when the dict has it already: 1 and "1" are two keys of a Python dict."""
    candidate = name
    while candidate in out:
        taken[name] = taken.get(name, 1) + 1
        candidate = f"{name} ({taken[name]})"
    return candidate
