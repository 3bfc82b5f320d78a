"""Which scheme of a sink URL means which class, and what to install for it.

Third parties add schemes by the entry-point group ``asynctrace.sinks``: the name is the scheme, the object a class or
function whose first argument is the URL's target and whose keyword arguments are its query parameters.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

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
    factory, arguments, keywords = _resolve(url)
    known = inspect.signature(factory).parameters
    for name, value in (defaults or {}).items():
        if name in known:
            keywords.setdefault(name, value)
    return typing.cast("Sink | LocalSink", factory(*arguments, **keywords))


def check_url(url: str) -> None:
    """Raise what :func:`sink_from_url` would, and make nothing."""
    _resolve(url)


def _resolve(url: str) -> tuple[Callable[..., Any], list[str], dict[str, Any]]:
    scheme, target, parameters = _parse(url)
    known = _scheme(scheme, target, url)
    if known is None:
        factory, arguments = _third_party(scheme, url), [target]
    else:
        factory, arguments = _load(known.sink, scheme, known.extra), [target] if known.takes_path else []
    return factory, arguments, _typed(factory, parameters, url)


def reader_from_url(url: str) -> Reader:
    """The reader of the store that the URL names.

    Raises:
        ConfigurationError: the scheme is unknown, or that sink keeps nothing that can be read back.
    """
    scheme, target, _ = _parse(url)
    known = _scheme(scheme, target, url)
    if known is None or known.reader is None:
        readable = sorted(name for name, known in SCHEMES.items() if known.reader)
        raise ConfigurationError("store", url, f"a store that can be read back: {', '.join(readable)}")
    return typing.cast("Reader", _load(known.reader, scheme, known.extra)(target))


def is_readable(url: str) -> bool:
    """Whether the store of that URL can be read back."""
    scheme, target, _ = _parse(url)
    known = _scheme(scheme, target, url)
    return known is not None and known.reader is not None


def canonical_url(url: str) -> str:
    """The same text for URLs that mean the same sink; the key under which pipelines are shared."""
    scheme, target, parameters = _parse(url)
    return f"{scheme}:{target}?{sorted(parameters)}"


def _parse(url: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Scheme, target, parameters. SQLite paths follow SQLAlchemy: three slashes relative, four absolute."""
    parts = urlsplit(url)
    if not parts.scheme:
        raise ConfigurationError("sink", url, f"a URL such as {', '.join(_examples())}")
    path = unquote(parts.path)
    if parts.scheme == "sqlite" and url.startswith("sqlite://"):
        target = parts.netloc + (path if parts.netloc else path.removeprefix("/"))
    elif parts.scheme == "file" and parts.netloc in ("", "localhost"):
        target = path
    else:
        target = parts.netloc + path
    return parts.scheme, target, parse_qsl(parts.query, keep_blank_values=True)


def _examples() -> list[str]:
    return ["sqlite:./traces.db", "file:./logs", "console:", "memory:"]


def _scheme(scheme: str, target: str, url: str) -> Scheme | None:
    known = SCHEMES.get(scheme)
    if known is None:
        return None
    if known.takes_path and not target:
        raise ConfigurationError("sink", url, f"{scheme}: and a path, for example {scheme}:./traces")
    return _JSONL if known is _FILE and target.endswith(".jsonl") else known


def _load(where: str, scheme: str, extra: str | None) -> Callable[..., Any]:
    module, name = where.split(":")
    try:
        return typing.cast("Callable[..., Any]", getattr(import_module(module), name))
    except ImportError as error:
        if extra is None:
            raise
        raise MissingExtraError(f"{scheme}:", error.name or "?", extra) from error


def _third_party(scheme: str, url: str) -> Callable[..., Any]:
    found = entry_points(group=_GROUP, name=scheme)
    for entry_point in found:
        return typing.cast("Callable[..., Any]", entry_point.load())
    near = get_close_matches(scheme, SCHEMES, n=1)
    hint = f"; did you mean {near[0]}:?" if near else ""
    raise ConfigurationError("sink", url, f"one of the schemes {', '.join(sorted(SCHEMES))}{hint}")


def _typed(factory: Callable[..., Any], parameters: list[tuple[str, str]], url: str) -> dict[str, Any]:
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    known = {
        name: hints.get(name, str)
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    typed = {}
    for name, value in parameters:
        if name not in known:
            raise ConfigurationError(
                f"{url}: parameter", name, f"one of {', '.join(sorted(known)) or 'no parameters at all'}"
            )
        typed[name] = convert(f"{url}: {name}", value, known[name])
    return typed


_TRUTHS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


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
        choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return convert(name, value, choices[0])
    if hint is bool:
        if value.lower() in _TRUTHS:
            return _TRUTHS[value.lower()]
        raise ConfigurationError(name, value, f"one of {', '.join(_TRUTHS)}")
    if hint in (int, float):
        try:
            return hint(value)
        except ValueError as error:
            allowed = "a whole number" if hint is int else "a number"
            raise ConfigurationError(name, value, allowed) from error
    return value
