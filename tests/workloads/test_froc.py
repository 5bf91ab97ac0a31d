from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from reference_masks import detections

from workloads.metrics.froc import (
    CaseDetections,
    fps_at,
    froc,
    partial_area,
    partial_area_interval,
    sensitivity_at,
)


def case(*candidates: tuple[float, int], lesions: int, name: str = "a") -> CaseDetections:
    """A case from (score, lesion) pairs."""
    scores = np.array([score for score, _ in candidates], dtype=float)
    hits = np.array([hit for _, hit in candidates], dtype=np.int64)
    return CaseDetections(case=name, scores=scores, lesions=hits, n_lesions=lesions)


def random_cases(seed: int, n: int = 30) -> list[CaseDetections]:
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(n):
        lesions = int(rng.integers(0, 3))
        hits = np.concatenate([np.arange(1, lesions + 1), np.zeros(int(rng.integers(1, 6)), dtype=int)])
        scores = rng.normal(size=hits.size) + 1.0 * (hits > 0)
        cases.append(CaseDetections(case=str(index), scores=scores, lesions=hits.astype(np.int64), n_lesions=lesions))
    return cases


def test_the_area_worked_out_by_hand_is_eleven_twelfths() -> None:
    # Two cases, two lesions. Points: (0, 1/2), (1/2, 1/2), (1/2, 1), then flat to 3.
    # Area = 1/2 * 1/2 + 5/2 * 1 = 11/4; divided by 3: 11/12.
    cases = [case((0.9, 1), (0.8, 0), lesions=1), case((0.7, 1), lesions=1)]
    assert partial_area(froc(cases), 3.0) == pytest.approx(0.9166666667)


def test_the_points_of_the_curve_are_those_worked_out_by_hand() -> None:
    curve = froc([case((0.9, 1), (0.8, 0), lesions=1), case((0.7, 1), lesions=1)])
    assert curve.fps_per_case.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert curve.sensitivity.tolist() == [0.0, 0.5, 0.5, 1.0]
    assert curve.thresholds.tolist() == [np.inf, 0.9, 0.8, 0.7]


def test_what_a_sensitivity_costs_is_where_the_curve_first_reaches_it() -> None:
    curve = froc([case((0.9, 1), (0.8, 0), lesions=1), case((0.7, 1), lesions=1)])
    assert [fps_at(curve, sensitivity) for sensitivity in (0.0, 0.5, 0.75, 1.0)] == [0.0, 0.0, 0.5, 0.5]
    # A tie of a hit and a false positive is a slanted step, along which the curve is linear.
    tied = froc([case((0.9, 1), (0.9, 0), lesions=1)])
    assert fps_at(tied, 0.5) == pytest.approx(0.5)
    assert fps_at(froc([case((0.9, 1), lesions=3)]), 0.5) == np.inf


def test_normal_cases_dilute_false_positives() -> None:
    # A third, normal case without candidates: the false positive is now 1/3 per case.
    cases = [case((0.9, 1), (0.8, 0), lesions=1), case((0.7, 1), lesions=1), case(lesions=0)]
    assert partial_area(froc(cases), 3.0) == pytest.approx((1 / 3 * 0.5 + 8 / 3) / 3)


def test_false_positives_of_normal_cases_count() -> None:
    quiet = [case((0.5, 1), lesions=1), case(lesions=0)]
    loud = [case((0.5, 1), lesions=1), case((0.9, 0), lesions=0)]
    assert partial_area(froc(quiet), 1.0) == 1.0
    assert partial_area(froc(loud), 1.0) == pytest.approx(0.5)


def test_several_hits_on_a_lesion_count_once_with_the_highest_score() -> None:
    once = [case((0.9, 1), (0.8, 0), lesions=2)]
    often = [case((0.9, 1), (0.85, 1), (0.1, 1), (0.8, 0), lesions=2)]
    assert froc(often).sensitivity.tolist() == froc(once).sensitivity.tolist() == [0.0, 0.5, 0.5]
    assert froc(often).fps_per_case.tolist() == [0.0, 0.0, 1.0]


def test_a_curve_that_ends_early_is_extended_flat() -> None:
    curve = froc([case((0.9, 1), lesions=2)])
    assert partial_area(curve, 3.0) == 0.5
    assert sensitivity_at(curve, 100.0) == 0.5


def test_a_case_without_candidates_still_has_its_lesions_missed() -> None:
    assert partial_area(froc([case((0.9, 1), lesions=1), case(lesions=3)]), 3.0) == 0.25


def test_equal_scores_are_one_step_whatever_their_order() -> None:
    # The tie goes from (0, 0) to (1, 1) in a straight line: half of the area of [0, 1].
    for candidates in [((0.5, 1), (0.5, 0)), ((0.5, 0), (0.5, 1))]:
        curve = froc([case(*candidates, lesions=1)])
        assert curve.fps_per_case.tolist() == [0.0, 1.0]
        assert partial_area(curve, 1.0) == 0.5


def test_the_limit_cuts_a_sloping_segment_where_it_lies() -> None:
    curve = froc([case((0.5, 1), (0.5, 0), (0.5, 0), lesions=1)])  # (0, 0) to (2, 1)
    assert sensitivity_at(curve, 1.0) == 0.5
    assert partial_area(curve, 1.0) == 0.25


def test_a_vertical_step_at_the_limit_adds_no_area() -> None:
    curve = froc([case((0.9, 0), (0.8, 1), lesions=1)])  # (0, 0), (1, 0), (1, 1)
    assert sensitivity_at(curve, 1.0) == 1.0
    assert partial_area(curve, 1.0) == 0.0


def test_without_any_lesion_there_is_no_curve() -> None:
    with pytest.raises(ValueError, match="at least one lesion"):
        froc([case((0.9, 0), lesions=0)])
    with pytest.raises(ValueError, match="at least one lesion"):
        froc([])


def test_a_detector_that_finds_nothing_scores_zero() -> None:
    assert partial_area(froc([case(lesions=1), case(lesions=0)]), 3.0) == 0.0


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="case a: a score is not finite"):
        case((float("nan"), 0), lesions=1)


def test_a_lesion_number_that_the_case_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not in 0\.\.1"):
        case((0.3, 2), lesions=1)


def test_with_all_lesions_found_the_area_to_the_last_false_positive_is_the_roc_area() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    positive = rng.random(40) < 0.4
    scores = np.round(rng.normal(size=40) + positive, 1)  # rounded: with ties
    hits = np.where(positive, np.cumsum(positive), 0)
    one = CaseDetections(case="a", scores=scores, lesions=hits.astype(np.int64), n_lesions=int(positive.sum()))
    false = int((~positive).sum())
    assert partial_area(froc([one]), false) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_the_partial_area_is_sklearns_raw_one_and_not_mcclishs() -> None:
    from sklearn.metrics import auc, roc_auc_score, roc_curve

    rng = np.random.default_rng(4)
    positive = rng.random(60) < 0.3
    scores = rng.normal(size=60) + 0.8 * positive
    hits = np.where(positive, np.cumsum(positive), 0)
    one = CaseDetections(case="a", scores=scores, lesions=hits.astype(np.int64), n_lesions=int(positive.sum()))
    false = int((~positive).sum())
    limit = 6.0
    x, y, _ = roc_curve(positive, scores, drop_intermediate=False)
    inside = x <= limit / false
    raw = auc(np.append(x[inside], limit / false), np.append(y[inside], np.interp(limit / false, x, y)))
    ours = partial_area(froc([one]), limit)
    assert ours == pytest.approx(raw / (limit / false), abs=1e-12)
    assert abs(ours - roc_auc_score(positive, scores, max_fpr=limit / false)) > 0.05


def test_the_interval_holds_the_value_and_shrinks_with_more_cases() -> None:
    few, many = random_cases(1, 20), random_cases(1, 20) * 16
    narrow, wide = partial_area_interval(many, 3.0, seed=1), partial_area_interval(few, 3.0, seed=1)
    assert wide.low <= partial_area(froc(few), 3.0) <= wide.high
    assert (narrow.high - narrow.low) < 0.5 * (wide.high - wide.low)


def test_a_resample_by_counts_is_the_curve_of_the_repeated_cases() -> None:
    cases = random_cases(2, 4)
    seen: list[float] = []
    rng = np.random.default_rng(0)
    counts = rng.multinomial(4, np.full(4, 0.25), size=500)
    for row in counts:
        drawn = [one for one, count in zip(cases, row, strict=True) for _ in range(count)]
        if any(one.n_lesions for one in drawn):
            seen.append(partial_area(froc(drawn), 3.0))
    interval = partial_area_interval(cases, 3.0, resamples=500, seed=0)
    assert interval.used == len(seen)
    assert interval.low == pytest.approx(np.percentile(seen, 2.5))
    assert interval.high == pytest.approx(np.percentile(seen, 97.5))


def test_resamples_without_a_lesion_are_left_out_and_counted() -> None:
    interval = partial_area_interval([case((0.9, 1), lesions=1), case(lesions=0)], 3.0, resamples=200)
    assert 0 < interval.used < interval.asked == 200


def test_monai_finds_the_same_points_of_the_curve() -> None:
    """Its curve, as recorded: the highest sensitivity at each number of false positives."""
    found = [
        CaseDetections(
            case=str(number), scores=np.array(scores), lesions=np.array(hits, dtype=np.int64), n_lesions=lesions
        )
        for number, (scores, hits, lesions) in enumerate(detections())
    ]
    recorded = json.loads(Path(__file__).with_name("reference_values.json").read_text())["monai"]["values"]["froc"]
    assert len(recorded) == 40
    for fps_per_case, sensitivity in recorded.items():
        assert sensitivity_at(froc(found), float(fps_per_case)) == pytest.approx(sensitivity, abs=1e-6)
