"""A verification as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import asynctrace
from asynctrace.cli import screen
from asynctrace.cli.words import count, one_line

if TYPE_CHECKING:
    from asynctrace import ProducerAccount, Verification
    from asynctrace.cli.screen import RenderableType

_SHOWN_GAPS = 5  # of one range


def draw(found: Verification, limit: int | None) -> list[RenderableType]:
    """The parts to print below each other.

    Args:
        found: the verification.
        limit: at most so many findings; those of the worst kind first.
    """
    parts: list[RenderableType] = [_verdict(found)]
    if found.producers:
        parts += [screen.Text(""), _accounts(found.producers[:limit])]
        parts += _more(len(found.producers), limit, "producer")
    findings = [*_losses(found), *_open_ends(found)]
    if findings:
        parts.append(screen.Text(""))
        parts += findings[:limit]
        parts += _more(len(findings), limit, "finding")
    if found.doubles:
        parts.append(
            screen.Text(f"{_copies(found.doubles)}: no loss, readers pass over what they have seen", "yellow")
        )
    for problem in found.problems:
        parts.append(screen.Text(f"not all could be read: {one_line(problem)}", "bold yellow"))
    return parts


def _verdict(found: Verification) -> screen.Text:
    store = one_line(found.store)
    if found.verdict is asynctrace.Verdict.COMPLETE:
        return screen.Text(
            f"complete: {count(found.stored, 'record')} in {store}, every gap explained", "green"
        )
    if found.verdict is asynctrace.Verdict.LOSS:
        return screen.Text(f"LOSS: {count(found.lost, 'record')} lost from {store}", "bold red")
    why = "" if found.producers else ", it holds no numbered record"
    return screen.Text(f"unproven: nothing is known to be lost from {store}{why}", "bold yellow")


def _accounts(accounts: Sequence[ProducerAccount]) -> RenderableType:
    headers = ["PRODUCER", "NUMBERS", "STORED", "FILTERED", "DROPPED", "PRUNED", "LOST", "DOUBLES"]
    rows: list[list[screen.Text | str]] = [
        [
            one_line(account.producer),
            f"{account.first}-{account.last}",
            f"{account.stored:,}",
            f"{account.filtered:,}",
            screen.Text(f"{account.dropped:,}", "yellow" if account.dropped else ""),
            f"{account.pruned:,}",
            screen.Text(f"{account.lost:,}", "bold red" if account.lost else ""),
            f"{account.doubles:,}",
        ]
        for account in accounts
    ]
    return screen.table(headers, rows, right=headers[1:])


def _losses(found: Verification) -> Iterator[screen.Text]:
    for account in found.producers:
        for loss in account.losses:
            gaps = [f"{a}" if a == b else f"{a}-{b}" for a, b in loss.missing[:_SHOWN_GAPS]]
            if len(loss.missing) > _SHOWN_GAPS:
                gaps.append("…")
            where = (
                ", ".join(gaps)
                if loss.exact
                else f"among {', '.join(gaps)} (the rest was filtered or dropped)"
            )
            yield screen.Text(
                f"{one_line(account.producer)}: {count(loss.records, 'record')} lost: {where}", "red"
            )


def _open_ends(found: Verification) -> Iterator[screen.Text]:
    for account in found.producers:
        for part in account.unproven:
            yield screen.Text(
                f"{one_line(account.producer)}: {part.first}-{part.last} unproven: {part.reason}; "
                f"{part.stored:,} are there, {part.missing:,} are not",
                "yellow",
            )
        for run_id in account.unfinished:
            yield screen.Text(
                f"{one_line(account.producer)}: run {one_line(run_id)} has no end: what was behind it is unknown",
                "yellow",
            )


def _more(total: int, limit: int | None, noun: str) -> list[RenderableType]:
    left = total - limit if limit is not None else 0
    return [screen.Text(f"… and {count(left, noun)} more", "dim")] if left > 0 else []


def _copies(number: int) -> str:
    return "1 record is stored twice" if number == 1 else f"{number:,} copies of records are stored"
