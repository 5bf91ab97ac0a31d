"""A whole study over connections that are cut: each trial is accounted for, none runs twice, the budget is exact."""

from __future__ import annotations

import pytest
from login_node import Cut
from ssh_study import MakeStudy

pytestmark = pytest.mark.system

CUTS: dict[str, tuple[Cut, ...]] = {
    "submit": (("submit", 1, "during"), ("submit", 3, "after"), ("submit", 5, "half"), ("submit", 8, "before")),
    "poll": (("look", 1, "before"), ("look", 2, "during"), ("look", 3, "after"), ("look", 4, "half")),
    "transfer": (("put", 1, "before"), ("put", 2, "during"), ("put", 3, "after"), ("get", 1, "half")),
    "look-up": (("submit", 1, "before"), ("run", 1, "half")),
}


@pytest.mark.parametrize("point", CUTS)
async def test_a_connection_that_is_cut_costs_no_trial_and_runs_none_twice(
    make_study: MakeStudy, emulated_environment: dict[str, str], point: str
) -> None:
    trials = 8 if point == "submit" else 4
    study, node = make_study(emulated_environment, trials=trials, parallel=3, seconds="0.2")
    node.cut_at(*CUTS[point])
    record = await study.drive()
    study.assert_each_trial_ran_once(trials)
    assert record.state == "done"
    assert node.have_come(CUTS[point])
    assert node.logins >= len(CUTS[point])
