"""Who goes on at a rung, by what all have reported: pure decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestrator.search.halving import Halving, Standing, crosses

FOUR = Halving(min_step=1, factor=4, max_step=64, maximize=False)


def at_first_rung(*values: float, paused: bool = True) -> dict[int, Standing]:
    return {number: Standing(steps={1: value}, paused=paused) for number, value in enumerate(values)}


@pytest.mark.parametrize(
    ("after", "step", "due"),
    [(-1, 1, True), (1, 2, False), (1, 3, False), (3, 4, True), (1, 16, True), (4, 15, False), (-1, 0, False)],
)
def test_a_trial_is_judged_at_its_first_report_at_or_beyond_a_rung(after: int, step: int, due: bool) -> None:
    assert crosses(1, 4, after=after, step=step) is due


def test_while_fewer_than_a_whole_group_have_come_to_a_rung_none_goes_on() -> None:
    trials = at_first_rung(0.1, 0.2, 0.3)
    assert FOUR.promotable(trials) is None
    assert FOUR.why_paused(0, trials) == "at step 1: 0.1 is number 1 of 3 so far, and one goes on of every 4"


def test_of_every_four_the_best_one_goes_on() -> None:
    trials = at_first_rung(0.4, 0.2, 0.3, 0.5)
    assert FOUR.promotable(trials) == 1
    assert FOUR.why_paused(1, trials) == ""
    assert FOUR.why_paused(2, trials) == "at step 1: 0.3 is number 2 of 4 so far, and the best one goes on"


def test_where_more_is_better_the_largest_goes_on() -> None:
    assert replace(FOUR, maximize=True).promotable(at_first_rung(0.4, 0.2, 0.3, 0.5)) == 3


def test_a_place_that_a_trial_has_taken_is_not_given_again() -> None:
    trials = at_first_rung(0.4, 0.2, 0.3, 0.5)
    assert FOUR.promotable({**trials, 1: replace(trials[1], paused=False)}) is None
    more = {**at_first_rung(0.4, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9), 1: replace(trials[1], paused=False)}
    assert FOUR.promotable(more) == 2


def test_the_highest_rung_comes_first() -> None:
    high = {10 + number: Standing(steps={1: 0.0, 4: value}, paused=True) for number, value in enumerate([4, 3, 2, 1])}
    low = at_first_rung(*[-1.0] * 8)
    assert FOUR.promotable({**low, **high}) == 13


def test_once_no_new_trials_come_the_best_goes_on_alone() -> None:
    closing = replace(FOUR, least=1)
    trials = at_first_rung(0.3, 0.2)
    assert FOUR.promotable(trials) is None
    assert closing.promotable(trials) == 1


def test_there_is_no_rung_at_the_last_step() -> None:
    whole = {0: Standing(steps={64: 9.0}), **at_first_rung(*[0.0] * 4)}
    assert FOUR.why_paused(0, whole) == ""
    learned = replace(FOUR, max_step=None)
    ended = {5: Standing(steps={1: 0.0, 10: 0.0}, complete=True)}
    assert learned.why_paused(0, {**ended, 0: Standing(steps={1: 5.0, 10: 9.0})}) == ""
    assert learned.why_paused(0, {0: Standing(steps={1: 5.0, 10: 9.0})}) != ""


def test_a_value_that_is_no_number_is_the_worst() -> None:
    trials = at_first_rung(math.nan, 0.2, 0.3, 0.5)
    assert "number 4 of 4" in FOUR.why_paused(0, trials)
    assert FOUR.promotable(trials) == 1


@pytest.mark.parametrize("steps", [{1: 0.5, 2: 0.0, 3: 0.0}, {3: 0.5, 2: 0.1, 1: 0.5}])
def test_what_counts_at_a_rung_is_the_first_report_there_and_not_a_later_one(steps: Mapping[int, float]) -> None:
    trials = {**at_first_rung(0.4, 0.3, 0.2), 3: Standing(steps=steps, paused=True)}
    assert FOUR.promotable(trials) == 2
