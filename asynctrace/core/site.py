"""Call sites: the caller keeps (code, last instruction); file and line are worked out later, once."""

from __future__ import annotations

from types import CodeType

_CACHED_CODES = 10_000  # programs that keep making code objects must not grow this for ever


class Site:
    """Where a record was made."""

    __slots__ = ("filename", "json", "lineno")

    def __init__(self, filename: str, lineno: int) -> None:
        self.filename = filename
        self.lineno = lineno
        self.json: bytes | None = None  # filled by the encoder, once per call site


UNKNOWN_SITE = Site("", 0)


class SiteCache:
    """Turns (code, last instruction) into a :class:`Site`, reading no source file.

    Keyed by the identity of the code object, which it keeps alive: hashing a code object hashes
    all its constants.
    """

    def __init__(self) -> None:
        self._codes: dict[int, tuple[CodeType, dict[int, Site]]] = {}

    def resolve(self, code: CodeType | Site | None, lasti: int) -> Site:
        """The site of that instruction; :data:`UNKNOWN_SITE` when there was no frame."""
        if code is None:
            return UNKNOWN_SITE
        if isinstance(code, Site):  # out of a journal
            return code
        known = self._codes.get(id(code))
        if known is None:
            if len(self._codes) >= _CACHED_CODES:
                self._codes.clear()
            known = self._codes[id(code)] = (code, {})
        site = known[1].get(lasti)
        if site is None:
            site = known[1][lasti] = Site(_text(code.co_filename), _line_of(code, lasti))
        return site


def _line_of(code: CodeType, lasti: int) -> int:
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno


def _text(filename: str) -> str:
    # A path that is not valid UTF-8 reaches Python as lone surrogates, which no store can keep.
    return filename.encode("utf-8", "backslashreplace").decode("utf-8")
