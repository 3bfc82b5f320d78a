"""Size: what a record counts where a bound is in bytes.

The bytes of its message in UTF-8, those of its packed fields and of its stack, and a constant for everything else.
Nothing is encoded to find it out; on a wire or in a store a record may be larger or smaller.
"""

from __future__ import annotations

from asynctrace.core.record import Detail, RawRecord

RAW_BYTES = 200
"""A raw record without message and fields: the structure, its place in the queue, time and thread."""

RECORD_BYTES = 512
"""A finished record without message and fields: about what it takes in memory, and as a line of JSON."""


def text_size(text: str) -> int:
    """Bytes of the text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def raw_size(raw: RawRecord) -> int:
    """What a raw record counts on its way to the writer."""
    fields = raw.fields
    if isinstance(fields, Detail):
        fields = fields.payload
    return RAW_BYTES + text_size(raw.message) + (len(fields) if fields else 0)
