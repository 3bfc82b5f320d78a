"""The account of one producer: what explains a gap and what does not."""

import random

import pytest

from asynctrace import Loss, Mark, ProducerAccount, Unproven
from asynctrace.core.account import Account
from asynctrace.core.numbers import Numbers, in_ranges

P = "p"


def balance(stored: list[int], *marks: Mark, unfinished: list[str] | None = None) -> ProducerAccount:
    account = Account(P)
    for _, first, last in in_ranges((P, seq) for seq in stored):
        account.add(first, last)
    for mark in marks:
        account.mark(mark)
    return account.balance(unfinished or [])


def test_all_there_is_proven() -> None:
    found = balance([*range(1, 11)], Mark(P, 1, 10, 10))

    assert found == ProducerAccount(P, 1, 10, 10, 0, 0, 0, (), ())
    assert found.proven


def test_what_a_mark_promises_and_nothing_explains_is_lost_to_the_record() -> None:
    found = balance([1, 2, 4, 7, 8, 9], Mark(P, 1, 10, 10))

    assert found.losses == (Loss(1, 10, 4, ((3, 3), (5, 6), (10, 10))),)
    assert found.losses[0].exact
    assert found.lost == 4
    assert not found.proven


def test_filtered_and_dropped_numbers_are_explained() -> None:
    assert balance([1, 5, 9], Mark(P, 1, 10, 3, filtered=5, dropped=2)).proven


def test_a_loss_among_filtered_numbers_is_counted_but_not_named() -> None:
    (loss,) = balance([1, 5], Mark(P, 1, 10, 3, filtered=7)).losses

    assert (loss.records, loss.exact) == (1, False)
    assert loss.missing == ((2, 4), (6, 10))


def test_a_loss_in_one_range_is_not_made_good_by_another() -> None:
    found = balance([*range(2, 11), *range(11, 21)], Mark(P, 1, 10, 10), Mark(P, 11, 20, 9, dropped=1))

    assert found.losses == (Loss(1, 10, 1, ((1, 1),)),)


def test_pruned_numbers_are_explained_wherever_they_lie_in_their_mark() -> None:
    stored = [1, 2, 8, 9, 13, 14, 20]
    ranges = (Mark(P, 1, 10, 10), Mark(P, 11, 20, 10))

    assert balance(stored, *ranges, Mark(P, 3, 19, 0, pruned=13)).proven
    assert balance(stored, *ranges, Mark(P, 3, 19, 0, pruned=12)).lost == 1


def test_what_was_pruned_elsewhere_explains_nothing_here() -> None:
    found = balance([*range(2, 11)], Mark(P, 1, 10, 10), Mark(P, 11, 20, 10), Mark(P, 11, 20, 0, pruned=10))

    assert found.losses == (Loss(1, 10, 1, ((1, 1),)),)


def test_credits_that_expire_first_are_used_first() -> None:
    found = balance(
        [],
        Mark(P, 1, 10, 10),
        Mark(P, 11, 20, 10),
        Mark(P, 1, 20, 0, pruned=10),
        Mark(P, 1, 10, 0, pruned=10),
    )

    assert found.lost == 0


def test_a_correction_explains_what_was_rejected_after_its_mark() -> None:
    marks = (Mark(P, 1, 10, 10), Mark(P, 11, 20, 10), Mark(P, 11, 10, -2, dropped=2))
    found = balance([*range(1, 9), *range(11, 21)], *marks)

    assert found.proven
    assert found.dropped == 2
    # It reaches back, not forward.
    assert balance([*range(1, 11), *range(13, 21)], *marks).lost == 2


def test_a_rejected_record_that_is_there_all_the_same_does_no_harm() -> None:
    assert balance([*range(1, 11)], Mark(P, 1, 10, 10), Mark(P, 11, 10, -3, dropped=3)).proven


def test_numbers_behind_the_last_mark_are_unproven() -> None:
    found = balance([*range(1, 13), 15], Mark(P, 1, 10, 10))

    assert found.losses == ()
    assert found.unproven == (Unproven(11, 15, 3, "no mark has come behind them"),)
    assert found.unproven[0].missing == 2


def test_without_any_mark_everything_is_unproven() -> None:
    assert balance([5, 6]).unproven == (Unproven(5, 6, 2, "no mark has come behind them"),)


def test_a_hole_between_marks_is_unproven_unless_it_is_full() -> None:
    marks = Mark(P, 1, 10, 10), Mark(P, 21, 30, 10)

    assert balance([*range(1, 31)], *marks).proven
    (part,) = balance([*range(1, 15), *range(21, 31)], *marks).unproven
    assert (part.first, part.last, part.stored, part.missing) == (11, 20, 4, 6)


def test_a_lane_that_came_later_owes_nothing_from_before() -> None:
    assert balance([*range(51, 61)], Mark(P, 51, 60, 10)).proven


def test_a_mark_told_again_together_with_the_next_is_the_last_word() -> None:
    told_again = Mark(P, 1, 20, 10, dropped=10)

    assert balance([*range(11, 21)], Mark(P, 1, 10, 10), told_again).proven
    assert balance([*range(1, 21)], Mark(P, 1, 10, 10), told_again).proven
    assert balance([*range(12, 21)], Mark(P, 1, 10, 10), told_again).lost == 1


def test_marks_that_contradict_each_other_prove_nothing() -> None:
    marks = Mark(P, 1, 10, 10), Mark(P, 5, 15, 11)

    assert balance([*range(1, 16)], *marks).proven
    assert balance([*range(1, 15)], *marks).unproven == (
        Unproven(1, 15, 14, "the marks contradict each other"),
    )


def test_doubles_are_counted_and_are_no_loss() -> None:
    found = balance([1, 2, 3, 2, 3, 2], Mark(P, 1, 3, 3), Mark(P, 1, 3, 3))

    assert (found.stored, found.doubles, found.proven) == (3, 3, True)


def test_a_run_without_an_end_is_unproven() -> None:
    found = balance([1], Mark(P, 1, 1, 1), unfinished=["run-1"])

    assert found.unfinished == ("run-1",)
    assert not found.proven


def test_the_marks_of_a_pruned_store_are_enough() -> None:
    found = balance([], Mark(P, 1, 10, 10), Mark(P, 1, 10, 0, pruned=10))

    assert (found.first, found.last, found.stored, found.pruned, found.proven) == (1, 10, 0, 10, True)


@pytest.mark.parametrize("seed", range(20))
def test_every_record_that_is_taken_away_is_missed(seed: int) -> None:
    draw = random.Random(seed)
    marks, stored, filtered, start = [], [], 0, 1
    for _ in range(20):
        end = start + draw.randrange(1, 50)
        kept = [seq for seq in range(start, end) if draw.random() < 0.8]
        marks.append(Mark(P, start, end - 1, len(kept), filtered=end - start - len(kept)))
        filtered += end - start - len(kept)
        stored += kept
        start = end
    taken = set(draw.sample(stored, draw.randrange(1, 20)))
    left = [seq for seq in stored if seq not in taken]
    draw.shuffle(left)

    found = balance(left, *marks)

    assert found.lost == len(taken)
    assert (found.stored, found.filtered) == (len(left), filtered)
    for loss in found.losses:
        named = {seq for low, high in loss.missing for seq in range(low, high + 1)}
        here = {seq for seq in taken if loss.first <= seq <= loss.last}
        assert len(here) == loss.records
        assert here <= named
        assert loss.exact == (here == named)
    assert balance(stored, *marks).proven


def test_ranges_of_keys() -> None:
    assert list(in_ranges([])) == []
    assert list(in_ranges([("p", 1), ("p", 2), ("q", 3), ("q", 2), ("q", 3)])) == [
        Numbers("p", 1, 2),
        Numbers("q", 3, 3),
        Numbers("q", 2, 3),
    ]
