"""``asynctrace verify``: whether a store holds all that it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import to_json
from asynctrace.cli.exits import Exit
from asynctrace.cli.lookup import store_meant

if TYPE_CHECKING:
    from asynctrace import ProducerAccount, Verification


def verify(
    store: options.VerifiedStore = None,
    named: options.Store = None,
    once: options.Once = False,
    limit: options.Limit = 20,
    as_json: options.Json = False,
    no_pager: options.NoPager = False,
) -> None:
    """Prove that nothing is missing from a store: every gap in its records is explained by the writers' marks.

    The exit code is 0 when that is so, 5 when records were lost, 6 when it cannot be proven.
    """
    import asyncio

    found = asyncio.run(asynctrace.averify(store_meant(store, named)))

    from asynctrace.cli import screen, verdict_table  # here, for --help does without rich

    if as_json:
        screen.write(to_json(_document(found)))
    else:
        screen.Screen(pager=not no_pager).show(*verdict_table.draw(found, limit or None))
    if found.verdict is asynctrace.Verdict.LOSS or (once and found.doubles):
        raise SystemExit(Exit.LOSS)
    if found.verdict is asynctrace.Verdict.UNPROVEN:
        raise SystemExit(Exit.UNPROVEN)


def _document(found: Verification) -> dict[str, Any]:
    return {
        "store": found.store,
        "verdict": found.verdict.value,
        "stored": found.stored,
        "lost": found.lost,
        "doubles": found.doubles,
        "producers": [_account_document(account) for account in found.producers],
        "problems": list(found.problems),
    }


def _account_document(account: ProducerAccount) -> dict[str, Any]:
    return {
        "producer": account.producer,
        "proven": account.proven,
        "first": account.first,
        "last": account.last,
        "stored": account.stored,
        "filtered": account.filtered,
        "dropped": account.dropped,
        "pruned": account.pruned,
        "lost": account.lost,
        "doubles": account.doubles,
        "losses": [
            {
                "first": loss.first,
                "last": loss.last,
                "records": loss.records,
                "exact": loss.exact,
                "missing": [list(numbers) for numbers in loss.missing],
            }
            for loss in account.losses
        ],
        "unproven": [
            {
                "first": part.first,
                "last": part.last,
                "stored": part.stored,
                "missing": part.missing,
                "reason": part.reason,
            }
            for part in account.unproven
        ],
        "unfinished": list(account.unfinished),
    }
