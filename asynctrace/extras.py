"""Extras: what the source documents' ``get_trace(extras=…)`` configures, in the terms of this package."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from asynctrace.errors import ConfigurationError
from asynctrace.pipeline.options import LOCAL, LaneOptions
from asynctrace.settings import SinkLike
from asynctrace.settings_table import DEFAULT_STORE, truth_of
from asynctrace.sinks import registry

_STORES = {"file": "file:./logs", "sqlite": DEFAULT_STORE, "console": "console:", "memory": "memory:"}
"""What each type of handler means when no path is given."""

_TYPES = f"multi with handlers, or one of {', '.join(_STORES)}"
_ON_DISK = ("file", "sqlite")
_KEYS = ("type", "path", "buffer_size", "flush_interval")


def split_extras(extras: Mapping[str, Any]) -> tuple[dict[str, Any], list[SinkLike] | None, bool]:
    """The fields among the extras, the sinks they name (None: the process default), and ``fail_silently``.

    Configuration never becomes a field: it may hold passwords.

    Raises:
        ConfigurationError: a key that configures has a value that cannot be used.
    """
    if not isinstance(extras, Mapping):
        raise ConfigurationError("extras", type(extras).__name__, "a mapping of names to values")
    fields = dict(extras)
    kind, handlers = fields.pop("trace_type", None), fields.pop("handlers", None)
    fail_silently = truth_of("fail_silently", fields.pop("fail_silently", True))
    write = truth_of("enable_write_log", fields.pop("enable_write_log", True))
    if kind is not None and not (isinstance(kind, str) and kind in (*_STORES, "multi")):
        raise ConfigurationError("trace_type", kind, _TYPES)
    if handlers is None and kind in _ON_DISK:  # the one handler's own keys stand beside its type
        handlers = [{"type": kind, **{key: fields.pop(key) for key in _KEYS if key in fields}}]
    return fields, _sinks(kind, handlers) if write else [], fail_silently


def _sinks(kind: str | None, handlers: Any) -> list[SinkLike] | None:
    if handlers is None:
        if kind == "multi":
            raise ConfigurationError("trace_type", kind, _TYPES)
        return None if kind is None else [_STORES[kind]]
    if isinstance(handlers, (str, bytes, Mapping)) or not isinstance(handlers, Iterable):
        raise ConfigurationError("handlers", type(handlers).__name__, "a list of handlers, URLs or sinks")
    return [_sink(handler) if isinstance(handler, Mapping) else handler for handler in handlers]


def _sink(handler: Mapping[str, Any]) -> SinkLike:
    kind = handler.get("type")
    if not isinstance(kind, str) or kind not in _STORES:
        raise ConfigurationError("handler type", kind, f"one of {', '.join(_STORES)}")
    for key in handler:
        if key not in _KEYS:
            raise ConfigurationError(f"key of the {kind} handler", key, f"one of {', '.join(_KEYS)}")
    path = handler.get("path")
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise ConfigurationError(f"path of the {kind} handler", path, "a path")
    url = _STORES[kind] if path is None else registry.url_of(kind, path)
    options = _options(kind, handler)
    return (url, options) if options != LOCAL else url


def _options(kind: str, handler: Mapping[str, Any]) -> LaneOptions:
    """``flush_interval`` in seconds. ``buffer_size`` counts records for databases; for files it counts bytes,
    of which none are held back here.
    """
    interval = _number(kind, handler, "flush_interval", float)
    size = _number(kind, handler, "buffer_size", int)
    if not interval:
        return LOCAL
    return replace(LOCAL, linger=interval, trigger=size if size and kind == "sqlite" else LOCAL.short)


def _number(kind: str, handler: Mapping[str, Any], key: str, make: Callable[[Any], Any]) -> Any:
    value = handler.get(key)
    try:
        number = None if value is None else make(value)
        if number is not None and not 0 <= number < float("inf"):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(f"{key} of the {kind} handler", value, "a number from 0") from error
    return number
