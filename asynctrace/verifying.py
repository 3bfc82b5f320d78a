"""Proving that a store holds what it should: ``averify`` and ``verify``."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

from asynctrace.core.account import Account, ProducerAccount
from asynctrace.core.query import EVERYTHING, Query
from asynctrace.core.record import Kind, Status
from asynctrace.pipeline.loop_thread import loop_thread
from asynctrace.ports import CandidReader, Reader
from asynctrace.reading import open_reader
from asynctrace.sinks import registry

_STRUCTURE = Query(level=1_000)
"""Above every level: of a run, only its structural records."""

_UNSURE = (Status.RUNNING, Status.INTERRUPTED)


class Verdict(Enum):
    """What a verification comes to."""

    COMPLETE = "complete"
    """Every number of every producer is accounted for."""

    UNPROVEN = "unproven"
    """Nothing is known to be lost, but something may be: a writer was killed, still runs, or left no marks."""

    LOSS = "loss"
    """Records that were in the store, by its own marks, are not there."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What a store can prove about itself.

    Args:
        store: the store, without secrets.
        producers: an account for each producer, in the order of their ids.
        problems: what could not be read (a torn line), in words.
    """

    store: str
    producers: tuple[ProducerAccount, ...]
    problems: tuple[str, ...] = ()

    @property
    def stored(self) -> int:
        """Records in the store, each counted once."""
        return sum(account.stored for account in self.producers)

    @property
    def lost(self) -> int:
        """Records that the marks promise and the store does not hold."""
        return sum(account.lost for account in self.producers)

    @property
    def doubles(self) -> int:
        """Copies beyond the first. No loss: readers pass over them, and file sinks may leave some."""
        return sum(account.doubles for account in self.producers)

    @property
    def verdict(self) -> Verdict:
        """The worst of all producers; a store without any numbered record proves nothing."""
        if self.lost:
            return Verdict.LOSS
        if self.producers and all(account.proven for account in self.producers):
            return Verdict.COMPLETE
        return Verdict.UNPROVEN


async def averify(store: str | Reader | None = None) -> Verification:
    """Hold what a store contains against the marks that its writers left there.

    Reads the number of every record, not the records. What a writer had not yet handed to the store when it was
    killed cannot be seen from the store; its runs without an end are told instead. While somebody prunes the store,
    what goes between two looks may seem lost.

    Args:
        store: the URL of a store, or a reader; by default the first readable store of the process default.

    Raises:
        StoreError: the store is not there, or holds something else.
        ConfigurationError: the store cannot be read back.
    """
    reader, owned = open_reader(store)
    try:
        accounts: dict[str, Account] = {}

        def account(producer: str) -> Account:
            if producer not in accounts:
                accounts[producer] = Account(producer)
            return accounts[producer]

        # The marks first: they follow their records into the store, so those of all marks seen are there by now.
        async for mark in reader.marks():
            account(mark.producer).mark(mark)
        async for producer, first, last in reader.numbers():
            account(producer).add(first, last)
        unfinished, problems = await _unfinished(reader)
        if isinstance(reader, CandidReader):
            problems = tuple(dict.fromkeys((*problems, *reader.problems())))
    finally:
        if owned:
            await reader.aclose()
    return Verification(
        store=registry.shown(store) if isinstance(store, str) else str(reader),
        producers=tuple(
            accounts[producer].balance(unfinished.get(producer, ())) for producer in sorted(accounts)
        ),
        problems=problems,
    )


def verify(store: str | Reader | None = None) -> Verification:
    """As :func:`averify`, for code without an event loop; blocks the calling thread.

    Example:
        >>> import tempfile
        >>> from asynctrace import Trace
        >>> url = f"sqlite:{tempfile.mkdtemp()}/t.db"
        >>> with Trace("run-1", sinks=[url]) as trace:
        ...     trace.info("hello")
        >>> verify(url).verdict
        <Verdict.COMPLETE: 'complete'>
    """
    return loop_thread.wait_for(averify(store))


async def _unfinished(reader: Reader) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """By producer, the runs of which an attempt has no end; and what could not be read."""
    suspects: list[str] = []
    problems: dict[str, None] = {}
    async for summary in reader.runs(EVERYTHING):
        problems.update(dict.fromkeys(summary.problems))
        # The status is that of the newest attempt; one before may have been killed.
        if summary.status in _UNSURE or summary.attempts > 1:
            suspects.append(summary.run_id)
    unfinished: dict[str, list[str]] = defaultdict(list)
    for run_id in suspects:
        attempts = await _attempts(reader, run_id, _STRUCTURE) or await _attempts(reader, run_id, EVERYTHING)
        for producer in set().union(*(attempt.producers for attempt in attempts if not attempt.ended)):
            unfinished[producer].append(run_id)
    return unfinished, tuple(problems)


@dataclass(slots=True)
class _Attempt:
    producers: set[str] = field(default_factory=set)
    ended: bool = False


async def _attempts(reader: Reader, run_id: str, query: Query) -> list[_Attempt]:
    attempts: dict[str, _Attempt] = defaultdict(_Attempt)
    async for record in reader.records(run_id, query):
        attempt = attempts[record.context.run.attempt]
        attempt.producers.add(record.producer)
        attempt.ended = attempt.ended or record.kind is Kind.RUN_END
    return list(attempts.values())
