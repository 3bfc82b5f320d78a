"""``asynctrace prune``: old runs leave a store."""

from __future__ import annotations

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import to_json
from asynctrace.cli.lookup import store_meant
from asynctrace.cli.words import count
from asynctrace.errors import ConfigurationError


def prune(
    store: options.VerifiedStore = None,
    named: options.Store = None,
    days: options.Days = None,
    max_bytes: options.MaxBytes = None,
    as_json: options.Json = False,
) -> None:
    """Remove the oldest runs of a store, by age or until it is small enough; `verify` explains what went."""
    import asyncio

    from asynctrace.cli import screen

    meant = store_meant(store, named)
    if not days and not max_bytes:
        raise ConfigurationError("--days", days, "a number above 0, or --max-bytes")
    removed = asyncio.run(asynctrace.aprune(meant, days=days, max_bytes=max_bytes))
    screen.write(to_json({"removed": removed}) if as_json else f"{count(removed, 'record')} removed\n")
