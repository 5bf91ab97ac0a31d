from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from workloads.metrics.candidates import Candidate, find_candidates
from workloads.metrics.froc import froc, partial_area
from workloads.metrics.matching import Matching, MatchRule, label_lesions, match

SPACING = (1.0, 1.0, 2.0)


def two_lesions() -> NDArray[np.bool_]:
    mask = np.zeros((12, 12, 6), dtype=bool)
    mask[1:4, 1:4, 1] = True  # centre (2, 2, 1)
    mask[8:11, 8:11, 4] = True  # centre (9, 9, 4)
    return mask


def at(*points: tuple[int, int, int]) -> list[Candidate]:
    return [Candidate(index=point, score=1.0 - 0.1 * rank) for rank, point in enumerate(points)]


def hits(points: list[Candidate], matching: Matching) -> list[int]:
    return [int(hit) for hit in match("a", points, two_lesions(), SPACING, matching).lesions]


def test_inside_means_in_the_mask_to_the_voxel() -> None:
    assert hits(at((3, 3, 1), (4, 3, 1), (8, 10, 4)), Matching()) == [1, 0, 2]


def test_a_tolerance_is_measured_in_mm_and_not_in_voxels() -> None:
    near = Matching(rule=MatchRule.INSIDE, length=1.0)
    assert hits(at((4, 3, 1), (2, 2, 2)), near) == [1, 0]  # one voxel in x is 1 mm, one in z is 2 mm
    assert hits(at((2, 2, 2)), Matching(rule=MatchRule.INSIDE, length=2.0)) == [1]


def test_the_centre_rule_counts_from_the_centre_of_mass_in_mm() -> None:
    rule = Matching(rule=MatchRule.CENTRE, length=2.0)
    assert hits(at((4, 2, 1), (5, 2, 1), (9, 9, 5), (9, 10, 5)), rule) == [1, 0, 2, 0]


def test_a_candidate_near_two_lesions_counts_for_the_nearer_one_alone() -> None:
    assert hits(at((5, 5, 2)), Matching(rule=MatchRule.CENTRE, length=50.0)) == [1]


def test_a_candidate_between_two_lesions_hits_neither_and_with_a_tolerance_the_nearer_one() -> None:
    mask = np.zeros((12, 4, 4), dtype=bool)
    mask[1:3, 1, 1] = mask[8:10, 1, 1] = True  # from 2 to 8 there are 6 mm
    between = at((5, 1, 1), (2, 1, 1))  # the better one 3 mm from either, the other one in the first lesion
    found = match("a", between, mask, SPACING, Matching())
    assert found.lesions.tolist() == [0, 1]
    # One false positive comes first, then one of two lesions: 0 up to 1 a case, then 1/2 up to 3: (2 * 1/2) / 3.
    assert partial_area(froc([found]), 3.0) == pytest.approx(1 / 3)
    near = match("a", at((6, 1, 1)), mask, SPACING, Matching(rule=MatchRule.INSIDE, length=3.0))
    assert near.lesions.tolist() == [2]


def test_a_lesion_of_one_voxel_is_hit_within_the_tolerance_along_each_axis() -> None:
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[3, 3, 3] = True
    around = at((3, 3, 3), (4, 3, 3), (3, 3, 4), (4, 4, 3))  # 0, 1, 2 and 1.41 mm away
    hit = {
        length: match("a", around, mask, SPACING, Matching(rule=MatchRule.INSIDE, length=length)).lesions.tolist()
        for length in (0.0, 1.0, 1.5, 2.0)
    }
    assert hit == {0.0: [1, 0, 0, 0], 1.0: [1, 1, 0, 0], 1.5: [1, 1, 0, 1], 2.0: [1, 1, 1, 1]}
    centre = match("a", around, mask, SPACING, Matching(rule=MatchRule.CENTRE, length=1.0))
    assert centre.lesions.tolist() == [1, 1, 0, 0]


def test_the_rules_differ_and_say_so() -> None:
    crescent = np.zeros((9, 9, 3), dtype=bool)
    crescent[:, 0, 1] = crescent[:, 8, 1] = crescent[0, :, 1] = True  # its centre of mass lies outside of it
    centre = at((3, 4, 1))
    inside = match("a", centre, crescent, SPACING, Matching())
    around = match("a", centre, crescent, SPACING, Matching(rule=MatchRule.CENTRE, length=2.0))
    assert (inside.lesions.tolist(), around.lesions.tolist()) == ([0], [1])
    assert Matching().describe() != Matching(rule=MatchRule.CENTRE, length=2.0).describe()


def test_voxels_that_touch_by_a_corner_are_one_lesion() -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert label_lesions(mask)[1] == 1


def test_a_normal_case_has_only_false_positives() -> None:
    found = match("n", at((1, 1, 1)), np.zeros((4, 4, 4), dtype=bool), SPACING, Matching())
    assert (found.n_lesions, found.lesions.tolist()) == (0, [0])


def test_candidates_are_the_local_maxima_best_first() -> None:
    scores = np.zeros((16, 16, 16))
    scores[3, 3, 3], scores[12, 12, 12] = 0.6, 0.9
    found = find_candidates(scores, (1.0, 1.0, 1.0), limit=2)
    assert [candidate.index for candidate in found] == [(12, 12, 12), (3, 3, 3)]
    assert found[0].score == 0.9


def test_of_two_maxima_closer_than_the_distance_the_higher_one_stays() -> None:
    scores = np.zeros((16, 4, 4))
    scores[4, 2, 2], scores[7, 2, 2] = 0.6, 0.9
    for spacing, expected in [(0.5, [7]), (1.0, [7, 4])]:  # 1.5 mm and 3 mm apart
        found = find_candidates(scores, (spacing, spacing, spacing), distance=2.0)
        assert [candidate.index[0] for candidate in found if candidate.score > 0] == expected


def test_smoothing_prefers_a_broad_hill_to_a_lone_spike() -> None:
    scores = np.zeros((20, 20, 20))
    scores[4, 4, 4] = 1.0
    scores[12:16, 12:16, 12:16] = 0.8
    sharp = find_candidates(scores, (1.0, 1.0, 1.0), limit=1)[0]
    smooth = find_candidates(scores, (1.0, 1.0, 1.0), smoothing=1.5, limit=1)[0]
    assert sharp.index == (4, 4, 4)
    assert min(smooth.index) >= 12


@pytest.mark.parametrize("value", [float("nan"), 0.5])
def test_a_map_that_diverged_or_is_constant_has_no_candidates(value: float) -> None:
    assert find_candidates(np.full((4, 4, 4), value), (1.0, 1.0, 1.0)) == []
