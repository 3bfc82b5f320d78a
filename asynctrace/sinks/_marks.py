"""Many marks in few: what they say of the numbers of each producer together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from asynctrace.core.batch import Mark


def merged(marks: Iterable[Mark], producers: int | None = None) -> Iterator[Mark]:
    """Marks that say the same of the numbers of each producer together, as few as will do.

    Args:
        marks: in the order in which they were stored.
        producers: of how many it is told, those heard of last; None: of all.
    """
    covering: dict[str, list[Mark]] = {}
    pruned: dict[str, Mark] = {}
    for mark in dict.fromkeys(marks):
        told = covering.setdefault(mark.producer, [])
        covering[mark.producer] = covering.pop(mark.producer)  # heard of last
        if mark.pruned:
            before = pruned.get(mark.producer, mark)
            pruned[mark.producer] = Mark(
                mark.producer,
                min(before.first, mark.first),
                max(before.last, mark.last),
                admitted=0,
                pruned=mark.pruned + (before.pruned if before is not mark else 0),
            )
        elif told and (both := told[-1].joined(mark)) is not None:
            told[-1] = both
        else:
            told.append(mark)
    for producer in list(covering)[-producers if producers else 0 :]:
        yield from covering[producer]
        if producer in pruned:
            yield pruned[producer]


def pruned_marks(keys: Iterable[tuple[str, int]]) -> Iterator[Mark]:
    """Marks that explain removed records: one a producer, over the range of its numbers that went."""
    numbers: dict[str, list[int]] = {}
    for producer, seq in keys:
        numbers.setdefault(producer, []).append(seq)
    for producer, gone in numbers.items():
        yield Mark(producer, min(gone), max(gone), admitted=0, pruned=len(gone))
