"""``asynctrace dead``: what sinks rejected for good."""

from __future__ import annotations

from itertools import islice

import asynctrace
from asynctrace.cli import options
from asynctrace.cli.documents import to_json
from asynctrace.cli.words import moment, one_line
from asynctrace.errors import ConfigurationError


def dead(
    action: options.DeadAction = "ls",
    lane: options.Lane = None,
    limit: options.Limit = 50,
    as_json: options.Json = False,
    no_pager: options.NoPager = False,
) -> None:
    """List, show, deliver again or delete the records that a sink rejected for good.

    A replay moves them to the spool: ``asynctrace spool replay``, or the next start, delivers them.
    """
    if action == "ls":
        _list(lane, limit or None, as_json, no_pager)
    elif action == "show":
        _show(lane, limit or None, as_json, no_pager)
    elif action == "replay":
        _say("moved to the spool", asynctrace.replay_dead_letters(lane), as_json)
    elif action == "purge":
        _say("purged", asynctrace.purge_dead_letters(lane), as_json)
    else:
        raise ConfigurationError("ACTION", action, "ls, show, replay, purge")


def _list(lane: str | None, limit: int | None, as_json: bool, no_pager: bool) -> None:
    from asynctrace.cli import screen  # here, for --help does without rich

    counts: dict[tuple[str, str, str], int] = {}
    for letter in asynctrace.dead_letters(lane):
        key = (letter.lane, letter.sink, letter.reason)
        counts[key] = counts.get(key, 0) + 1
    most = sorted(counts.items(), key=lambda item: -item[1])[:limit]
    if as_json:
        names = ("lane", "sink", "reason")
        found = [dict(zip(names, key, strict=True)) | {"records": number} for key, number in most]
        screen.write(to_json(found))
        return
    if not most:
        screen.write("no dead letters\n")
        return
    rows = [(key[0], f"{number:,}", one_line(key[1]), one_line(key[2])) for key, number in most]
    headers = ["LANE", "RECORDS", "SINK", "REASON"]
    screen.Screen(pager=not no_pager).show(screen.table(headers, rows, right=["RECORDS"]))


def _show(lane: str | None, limit: int | None, as_json: bool, no_pager: bool) -> None:
    from asynctrace.cli import screen

    letters = islice(asynctrace.dead_letters(lane), limit)
    if as_json:
        names = ("lane", "sink", "time_ns", "reason", "traceback")
        screen.write(
            to_json(
                [
                    {name: getattr(letter, name) for name in names} | {"record": letter.record.to_dict()}
                    for letter in letters
                ]
            )
        )
        return
    rows = [
        (
            moment(letter.time_ns),
            letter.record.run_id,
            one_line(letter.record.message),
            one_line(letter.reason),
        )
        for letter in letters
    ]
    headers = ["REJECTED", "RUN", "MESSAGE", "REASON"]
    screen.Screen(pager=not no_pager).show(screen.table(headers, rows, right=[]))


def _say(what: str, number: int, as_json: bool) -> None:
    from asynctrace.cli import screen

    screen.write(to_json({"records": number}) if as_json else f"{number:,} {what}\n")
