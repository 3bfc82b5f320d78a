"""Which scheme of a sink URL means which class, and what to install for it.

Third parties add schemes by the entry-point group ``asynctrace.sinks``: the name is the scheme, the object a
class or function whose first argument is the URL's target and whose other arguments are its query parameters.
"""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from asynctrace.errors import ConfigurationError, MissingExtraError
from asynctrace.ports import LocalSink, Reader, Sink

_GROUP = "asynctrace.sinks"


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a scheme stands for.

    Args:
        sink: ``module:name`` of the sink class.
        reader: ``module:name`` of the reader class, if the store can be read back.
        takes_path: whether the target is a path (else there is none).
        extra: the extra of asynctrace that brings the driver, if it is optional.
    """

    sink: str
    reader: str | None = None
    takes_path: bool = True
    extra: str | None = None


_FILE = Scheme("asynctrace.sinks.file:FileSink", "asynctrace.sinks.file:FileReader")
_JSONL = Scheme("asynctrace.sinks.jsonl:JsonLinesSink", "asynctrace.sinks.jsonl:JsonLinesReader")

SCHEMES: dict[str, Scheme] = {
    "file": _FILE,
    "sqlite": Scheme("asynctrace.sinks.sqlite:SQLiteSink", "asynctrace.sinks.sqlite:SQLiteReader"),
    "console": Scheme("asynctrace.sinks.console:ConsoleSink", takes_path=False),
    "memory": Scheme("asynctrace.sinks.memory:MemorySink", takes_path=False),
}
_EXAMPLES = "sqlite:./traces.db, file:./logs, console:, memory:"


def sink_from_url(url: str, defaults: Mapping[str, Any] | None = None) -> Sink | LocalSink:
    """The sink that the URL names; its query parameters are the sink's keyword arguments.

    Args:
        url: scheme, target, parameters.
        defaults: keyword arguments for sinks that know them, unless the URL says otherwise.

    Raises:
        ConfigurationError: the scheme or a parameter is unknown, or a value cannot be used.
        MissingExtraError: the sink's driver is not installed.

    Example:
        >>> sink_from_url("memory:?max_records=10")
        <MemorySink of 0 records>
    """
    parts = _parse(url)
    scheme = _scheme(parts)
    if scheme is None:
        factory, arguments = _third_party(parts), [parts.target]
    else:
        factory = _load(scheme.sink, parts.scheme, scheme.extra)
        arguments = [parts.target] if scheme.takes_path else []
    known = _keywords(factory, len(arguments))
    keywords = {name: value for name, value in (defaults or {}).items() if name in known}
    return typing.cast("Sink | LocalSink", factory(*arguments, **{**keywords, **_typed(parts, known)}))


@lru_cache(maxsize=256)  # only successes are kept
def check_url(url: str) -> None:
    """Raise what :func:`sink_from_url` would; a sink does nothing before it is opened."""
    sink_from_url(url)


def reader_from_url(url: str) -> Reader:
    """The reader of the store that the URL names.

    Raises:
        ConfigurationError: the scheme is unknown, or that sink keeps nothing that can be read back.
    """
    parts = _parse(url)
    scheme = _scheme(parts)
    if scheme is None or scheme.reader is None:
        readable = sorted(name for name, scheme in SCHEMES.items() if scheme.reader)
        raise ConfigurationError("store", shown(url), f"a store that can be read back: {', '.join(readable)}")
    return typing.cast("Reader", _load(scheme.reader, parts.scheme, scheme.extra)(parts.target))


def is_readable(url: str) -> bool:
    """Whether the store of that URL can be read back."""
    scheme = _scheme(_parse(url))
    return scheme is not None and scheme.reader is not None


def path_of(url: str) -> str | None:
    """The absolute path that the URL writes to; None when that is no place in the file system."""
    parts = _parse(url)
    scheme = _scheme(parts)
    return os.path.abspath(parts.target) if scheme is not None and scheme.takes_path else None


def canonical_url(url: str) -> str:
    """The same text for URLs that mean the same sink; the key under which pipelines are shared."""
    parts = _parse(url)
    scheme = _scheme(parts)
    target = os.path.abspath(parts.target) if scheme is not None and scheme.takes_path else parts.target
    return f"{parts.scheme}:{target}?{sorted(parts.parameters)}"


def url_of(scheme: str, path: str | os.PathLike[str]) -> str:
    """The URL of that scheme for a path with any characters.

    >>> url_of("file", "logs/100% #1?")
    'file:logs/100%25%20%231%3F'
    """
    text = os.fspath(path)
    return f"{scheme}:{'//' if text.startswith('//') else ''}{quote(text)}"


_SECRET = re.compile(r"key|token|secret|pass|pwd|auth|credential|signature", re.IGNORECASE)


def shown(url: str) -> str:
    """The URL without secrets, for errors and logs.

    >>> shown("redis://user:hunter2@host/0?api_key=abc&ttl=60")
    'redis://***@host/0?api_key=***&ttl=60'
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES:  # ours take paths, which may hold an @
        url = re.sub(r"(?<=:)(/*).*@", r"\1***@", url, count=1, flags=re.DOTALL)
    return re.sub(
        r"(?<=[?&])([^=&]*)=([^&]*)",
        lambda match: f"{match[1]}=***" if _SECRET.search(match[1]) else match[0],
        url,
    )


# -- taking a URL apart --------------------------------------------------------------------------------------


class _Parts(NamedTuple):
    scheme: str
    target: str
    parameters: list[tuple[str, str]]
    url: str  # without secrets


def _parse(url: str) -> _Parts:
    """SQLite paths follow SQLAlchemy: three slashes relative, four absolute."""
    _refuse_several(url)
    try:
        parts = urlsplit(url, allow_fragments=False)  # a # belongs to the path: dropping it would be silent
    except ValueError as error:
        raise ConfigurationError("sink", shown(url), f"a URL such as {_EXAMPLES}") from error
    if not parts.scheme:
        raise ConfigurationError("sink", shown(url), f"a URL such as {_EXAMPLES}")
    path = unquote(parts.path)
    if parts.scheme == "sqlite" and parts.netloc == "" and url[len("sqlite:") :].startswith("//"):
        target = path.removeprefix("/")
    elif parts.scheme == "file" and parts.netloc == "localhost":
        target = path
    else:
        target = parts.netloc + path
    return _Parts(parts.scheme, target, parse_qsl(parts.query, keep_blank_values=True), shown(url))


_SEPARATOR = re.compile(r"[,;\s]\s*(?=([a-z][a-z0-9+.-]*):(//)?)|[,;]\s*$", re.IGNORECASE)


def _refuse_several(url: str) -> None:
    """Two URLs in the place of one would be one store with a long name."""
    found = [
        match
        for match in _SEPARATOR.finditer(url)
        if match[1] is None or match[2] or match[1].lower() in SCHEMES
    ]
    if found:
        starts, ends = [0, *(match.end() for match in found)], [*(match.start() for match in found), len(url)]
        each = [shown(url[start:end]) for start, end in zip(starts, ends, strict=True)]
        told = "".join(f"{part}{match[0]}" for part, match in zip(each, found, strict=False)) + each[-1]
        allowed = "URLs separated by whitespace; a comma or semicolon within one is written %2C or %3B"
        raise ConfigurationError("sink", told, allowed)


def _scheme(parts: _Parts) -> Scheme | None:
    known = SCHEMES.get(parts.scheme)
    if known is None:
        return None
    if known.takes_path and not parts.target:
        raise ConfigurationError(
            "sink", parts.url, f"{parts.scheme}: and a path, for example {parts.scheme}:./traces"
        )
    if not known.takes_path and parts.target:
        raise ConfigurationError("sink", parts.url, f"{parts.scheme}: without a path")
    return _JSONL if known is _FILE and parts.target.endswith(".jsonl") else known


def _load(where: str, scheme: str, extra: str | None) -> Callable[..., Any]:
    module, name = where.split(":")
    try:
        return typing.cast("Callable[..., Any]", getattr(import_module(module), name))
    except ImportError as error:
        if extra is None:
            raise
        raise MissingExtraError(f"{scheme}:", error.name or "?", extra) from error


def _third_party(parts: _Parts) -> Callable[..., Any]:
    for entry_point in entry_points(group=_GROUP, name=parts.scheme):
        try:
            return typing.cast("Callable[..., Any]", entry_point.load())
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                "sink", parts.url, f"a scheme whose entry point {entry_point.value} can be loaded"
            ) from error
    near = get_close_matches(parts.scheme, SCHEMES, n=1)
    hint = f"; did you mean {near[0]}:?" if near else ""
    raise ConfigurationError("sink", parts.url, f"one of the schemes {', '.join(sorted(SCHEMES))}{hint}")


# -- parameters ----------------------------------------------------------------------------------------------


def _keywords(factory: Callable[..., Any], positional: int) -> dict[str, Any]:
    """The keyword arguments that the factory takes, with their annotations; ``str`` where there is none."""
    parameters = list(inspect.signature(factory).parameters.values())[positional:]
    try:
        hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError):  # names imported for type checkers only; a callable without annotations
        hints = {}
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    keywords = {each.name: hints.get(each.name, str) for each in parameters if each.kind in named}
    return {name: hint for name, hint in keywords.items() if _is_text(hint)}


def _is_text(hint: Any) -> bool:
    """Whether a text in a URL can stand for a value of the annotated type."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(map(_is_text, typing.get_args(hint)))
    if origin is typing.Literal or hint in (str, int, float, bool, Any):
        return True
    return inspect.isclass(hint) and issubclass(hint, os.PathLike)


def _typed(parts: _Parts, known: Mapping[str, Any]) -> dict[str, Any]:
    typed = {}
    for name, value in parts.parameters:
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise ConfigurationError(
                f"{parts.url}: parameter", name, f"one of {allowed}" if allowed else "no parameters at all"
            )
        try:
            typed[name] = convert(f"{parts.url}: {name}", value, known[name])
        except ConfigurationError as error:
            if not _SECRET.search(name):
                raise
            raise ConfigurationError(error.name, "***", error.allowed) from None
    return typed


TRUTHS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def convert(name: str, value: str, hint: Any) -> Any:
    """The text as a value of the annotated type.

    Raises:
        ConfigurationError: the text is no such value; it names what is allowed.
    """
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choices = {str(choice): choice for choice in typing.get_args(hint)}
        if value in choices:
            return choices[value]
        raise ConfigurationError(name, value, f"one of {', '.join(choices)}")
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if _is_text(kind)]
        return convert(name, value, kinds[0])
    if hint is bool:
        if value.lower() in TRUTHS:
            return TRUTHS[value.lower()]
        raise ConfigurationError(name, value, f"one of {', '.join(TRUTHS)}")
    if hint in (int, float):
        try:
            return hint(value)
        except ValueError as error:
            allowed = "a whole number" if hint is int else "a number"
            raise ConfigurationError(name, value, allowed) from error
    return value
