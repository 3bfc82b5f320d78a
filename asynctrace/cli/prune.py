"""``asynctrace prune``: old runs leave a store."""

from __future__ import annotations

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import to_json
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

    if store is not None and named is not None:
        raise ConfigurationError("--store", named, f"nothing, for STORE says {store} already")
    if not days and not max_bytes:
        raise ConfigurationError("--days", days, "a number above 0, or --max-bytes")
    removed = asyncio.run(asynctrace.aprune(store or named, days=days, max_bytes=max_bytes))
    text = f"{removed:,} record{'' if removed == 1 else 's'} removed\n"
    screen.write(to_json({"removed": removed}) if as_json else text)
