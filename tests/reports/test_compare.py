from __future__ import annotations

import json

import pytest
from study_records import from_values, study

from orchestrator.errors import UsageError
from orchestrator.reports.compare import Arm, compare


def arm(sampler: str, parallel: int, repeat: int, values: list[float | None], **changes: object) -> Arm:
    label = f"{sampler}-n{parallel}-r{repeat}"
    return Arm(
        label=label, sampler=sampler, parallel=parallel, repeat=repeat, record=from_values(values, **changes)
    )  # fmt: skip


def three_repeats() -> list[Arm]:
    """Random ends at 0.4, 0.5, 0.6; bo at 0.5, 0.7, 0.9: gains 0.1, 0.2, 0.3."""
    return [
        arm("bo", 4, 0, [0.2, 0.5]),
        arm("bo", 4, 1, [0.7, 0.1]),
        arm("bo", 4, 2, [None, 0.9]),
        arm("random", 8, 0, [0.4, 0.1]),
        arm("random", 8, 1, [0.1, 0.5]),
        arm("random", 8, 2, [0.6, 0.2]),
    ]


def test_a_row_holds_the_statistics_of_its_repeats() -> None:
    result = compare(three_repeats())
    random, bo = result.rows
    assert (random.sampler, random.parallel, random.gain) == ("random", 8, None)
    assert bo.mean == pytest.approx(0.7)
    assert bo.sd == pytest.approx(0.2)
    assert (bo.median, bo.repeats) == (0.7, 3)
    assert result.trials == 2
    # Best-so-far curves 0.2 0.5, 0.7 0.7, and 0.9 0.9 with the failed start filled.
    assert bo.area == pytest.approx((0.35 + 0.7 + 0.9) / 3)


def test_trials_to_target_are_counted_to_the_baselines_mean() -> None:
    result = compare(three_repeats())
    assert result.target == pytest.approx(0.5)
    # Reached at trials 2, 1 and 2.
    assert (result.rows[1].reach, result.rows[1].reached) == (2.0, 3)


def test_the_gain_is_paired_by_repeat() -> None:
    gain = compare(three_repeats()).rows[1].gain
    assert gain is not None
    assert (gain.n, gain.wins) == (3, 3)
    assert gain.mean == pytest.approx(0.2)
    # t(0.975, 2) = 4.302653, SD of the gains 0.1: half width 4.302653 * 0.1 / sqrt(3) = 0.248414.
    assert gain.t == pytest.approx((-0.048414, 0.448414), abs=1e-6)
    # All means of three draws lie between the smallest and the largest gain; 1 in 27 is the smallest.
    assert gain.bootstrap == pytest.approx((0.1, 0.3))


def test_pairs_are_matched_by_number_not_by_order() -> None:
    shuffled = three_repeats()[::-1]
    assert compare(shuffled).rows[1].gain == compare(three_repeats()).rows[1].gain


def test_a_gain_is_positive_where_a_minimised_objective_is_lower() -> None:
    arms = [
        arm("bo", 1, 0, [0.2], directions=("minimize",)),
        arm("random", 1, 0, [0.5], directions=("minimize",)),
    ]
    gain = compare(arms).rows[1].gain
    assert gain is not None
    assert gain.mean == pytest.approx(0.3)


def test_one_repeat_has_no_interval_and_says_so() -> None:
    result = compare([arm("bo", 1, 0, [0.5]), arm("random", 1, 0, [0.4])])
    gain = result.rows[1].gain
    assert gain is not None
    assert (gain.t, gain.bootstrap) == (None, None)
    assert "one repeat: no interval" in result.to_markdown()
    assert result.rows[1].sd is None


def test_arms_are_compared_after_as_many_trials_as_all_have_ended() -> None:
    arms = [arm("bo", 1, 0, [0.1, 0.2, 0.9]), arm("random", 1, 0, [0.3, 0.4])]
    result = compare(arms)
    assert result.trials == 2
    assert result.rows[1].mean == 0.2


def test_an_arm_without_an_ended_trial_is_left_out_by_name() -> None:
    result = compare([arm("bo", 1, 0, [0.5]), arm("bo", 1, 1, []), arm("random", 1, 0, [0.4])])
    assert result.left_out == ("bo-n1-r1",)
    assert result.rows[1].repeats == 1
    assert "bo-n1-r1" in result.to_markdown()


def test_an_arm_in_which_all_failed_has_no_value_and_no_gain() -> None:
    result = compare([arm("bo", 1, 0, [None, None]), arm("random", 1, 0, [0.4, 0.4])])
    row = result.rows[1]
    assert (row.mean, row.area, row.reach, row.finals) == (None, None, None, (None,))
    assert row.gain is not None
    assert row.gain.mean is None


def test_an_arm_is_compared_with_the_baseline_of_its_own_parallelism_if_there_is_one() -> None:
    arms = [
        arm("bo", 2, 0, [0.9]), arm("random", 1, 0, [0.1]), arm("random", 2, 0, [0.5])
    ]  # fmt: skip
    gain = compare(arms).rows[-1].gain
    assert gain is not None
    assert gain.mean == pytest.approx(0.4)


def test_without_a_baseline_there_are_rows_and_no_gains() -> None:
    result = compare([arm("bo", 1, 0, [0.5]), arm("tpe", 1, 0, [0.4])])
    assert result.target is None
    assert [row.sampler for row in result.rows] == ["bo", "tpe"]
    assert [row.gain for row in result.rows] == [None, None]


def test_a_result_is_plain_json_without_nan() -> None:
    text = json.dumps(compare(three_repeats()).to_json(), allow_nan=False)
    data = json.loads(text)
    assert data["rows"][1]["band"]["mean"][0] is None
    assert data["rows"][1]["finals"] == [0.5, 0.7, 0.9]
    assert data["rows"][0]["note"] == "baseline"


def test_flat_rows_share_their_columns() -> None:
    rows = compare(three_repeats()).to_rows()
    assert rows[0].keys() == rows[1].keys()
    assert rows[0]["gain_mean"] is None
    assert rows[1]["gain_n"] == 3


def test_a_bar_in_a_samplers_name_does_not_break_the_table() -> None:
    text = compare([arm("a|b", 1, 0, [0.5])]).to_markdown()
    assert r"| a\|b | 1 |" in text


def test_studies_of_different_objectives_are_refused() -> None:
    other = Arm(label="x", sampler="x", parallel=1, repeat=0, record=study(objectives=("dice",)))
    with pytest.raises(UsageError, match=r"dice \(maximize\), pauc \(maximize\)"):
        compare([arm("bo", 1, 0, [0.5]), other])


def test_two_studies_of_one_repeat_are_refused() -> None:
    with pytest.raises(UsageError, match="second study of bo"):
        compare([arm("bo", 1, 0, [0.5]), arm("bo", 1, 0, [0.6])])


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one arm"):
        compare([])
