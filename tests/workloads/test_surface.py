"""Surface distances: worked out by hand, and what MONAI, medpy and surface-distance say where they mean the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from reference_masks import SPACING, pairs

from workloads.metrics.overlap import count
from workloads.metrics.surface import surface, surface_distances

REFERENCES: dict[str, Any] = json.loads(Path(__file__).with_name("reference_values.json").read_text())
NAMES = list(pairs())
Mask = NDArray[np.bool_]


def point(*place: int) -> Mask:
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[place] = True
    return mask


def said(program: str, name: str) -> Any:
    return REFERENCES[program]["values"][name]


def test_two_points_are_as_far_apart_as_their_places_in_mm() -> None:
    found = surface_distances(point(1, 2, 3), point(4, 2, 5), (1.0, 1.0, 2.0))
    assert found.hausdorff() == found.hausdorff(95) == found.average == pytest.approx(5.0)  # 3 and 2 x 2 mm
    assert (found.dice(4.9), found.dice(5.0)) == (0.0, 1.0)


def test_the_surface_is_what_touches_background_by_a_face() -> None:
    cube = np.zeros((5, 5, 5), dtype=bool)
    cube[1:4, 1:4, 1:4] = True
    assert np.count_nonzero(surface(cube)) == 26
    assert np.count_nonzero(surface(np.ones((3, 3, 3), dtype=bool))) == 26  # the border is surface too
    assert np.array_equal(surface(point(0, 0, 0)), point(0, 0, 0))


def test_an_outlier_moves_the_maximum_and_not_the_95th_percentile() -> None:
    row = np.zeros((1, 1, 200), dtype=bool)
    row[..., :40] = True
    far = row.copy()
    far[..., 140] = True
    found = surface_distances(far, row, (1.0, 1.0, 0.5))
    assert found.hausdorff() == pytest.approx((140 - 39) * 0.5)
    assert found.hausdorff(95) == 0.0
    assert found.average == pytest.approx(50.5 / 81)
    assert found.dice(1.0) == pytest.approx(80 / 81)


def test_two_definitions_of_hd95_differ_by_millimetres_on_the_same_masks() -> None:
    line = np.zeros((1, 1, 30), dtype=bool)
    line[..., :20] = True
    found = surface_distances(line[...], point_of(line, 0), (1.0, 1.0, 1.0))
    # Directed: of 20 voxels 0 to 19 mm away the 95th percentile is 18.05; pooled with the one at 0 it is 18.0.
    assert found.hausdorff(95) == pytest.approx(18.05)
    assert found.pooled_percentile(95) == pytest.approx(18.0)
    assert found.average == pytest.approx(190 / 21)


def point_of(like: Mask, place: int) -> Mask:
    mask = np.zeros_like(like)
    mask[..., place] = True
    return mask


def test_an_empty_prediction_is_infinitely_far_and_two_empty_masks_have_no_distance() -> None:
    empty, one = np.zeros((9, 9, 9), dtype=bool), point(1, 1, 1)
    for found in (surface_distances(empty, one, (1, 1, 1)), surface_distances(one, empty, (1, 1, 1))):
        measures = [found.hausdorff(), found.hausdorff(95), found.pooled_percentile(95), found.average]
        assert measures == [math.inf] * 4
        assert found.dice(1e9) == 0.0
    both = surface_distances(empty, empty, (1, 1, 1))
    assert all(map(math.isnan, (both.hausdorff(), both.average, both.dice(1.0))))


def test_the_order_of_the_masks_does_not_matter() -> None:
    for one, other in pairs().values():
        there, back = surface_distances(one, other, SPACING), surface_distances(other, one, SPACING)
        assert there.hausdorff(95) == back.hausdorff(95)
        assert there.average == pytest.approx(back.average)
        assert there.dice(1.0) == back.dice(1.0)


@pytest.mark.parametrize("name", NAMES)
def test_monai_says_the_same(name: str) -> None:
    theirs, ours = said("monai", name), surface_distances(*pairs()[name], SPACING)
    assert ours.hausdorff() == pytest.approx(theirs["hausdorff"], rel=1e-5)
    assert ours.hausdorff(95) == pytest.approx(theirs["hausdorff 95"], rel=1e-5)
    assert ours.average == pytest.approx(theirs["average"], rel=1e-5)
    assert float(ours.to_truth.mean()) == pytest.approx(theirs["directed average"], rel=1e-5)
    assert ours.dice(1.0) == pytest.approx(theirs["surface dice at 1 mm"], rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_medpy_says_the_same_under_its_own_definitions(name: str) -> None:
    theirs, pair = said("medpy", name), pairs()[name]
    ours, counts = surface_distances(*pair, SPACING), count(*pair)
    assert ours.hausdorff() == pytest.approx(theirs["hausdorff"])
    assert ours.pooled_percentile(95) == pytest.approx(theirs["pooled 95"])
    assert ours.average == pytest.approx(theirs["average"])
    for measure in ("dice", "jaccard", "precision", "sensitivity", "specificity"):
        assert getattr(counts, measure) == pytest.approx(theirs[measure])


@pytest.mark.parametrize("name", NAMES)
def test_surface_distance_measures_elsewhere_and_comes_near(name: str) -> None:
    """Between surface elements, half a voxel outwards of the voxels' centres: no more than a voxel's diagonal apart."""
    theirs, ours = said("surface-distance", name), surface_distances(*pairs()[name], SPACING)
    assert abs(ours.hausdorff() - theirs["hausdorff"]) <= np.linalg.norm(SPACING)


def test_masks_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="different shape"):
        surface_distances(point(1, 1, 1), np.zeros((9, 9, 8), dtype=bool), (1, 1, 1))
    with pytest.raises(ValueError, match="2 voxel sizes for masks of 3 dimensions"):
        surface_distances(point(1, 1, 1), point(1, 1, 1), (1, 1))
