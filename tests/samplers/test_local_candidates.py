from __future__ import annotations

import numpy as np
from sampler_spaces import SPACE

from orchestrator.samplers.candidates import Box, near
from orchestrator.samplers.encoding import Array, Encoding

OPEN = Encoding({name: distribution for name, distribution in SPACE.items() if not distribution.single()})
NUMERIC = np.array(OPEN.choices) == 0


def around(z: Array, reach: float) -> Array:
    box = Box.around(OPEN, z, reach)
    return near(OPEN, z, box, 300, np.random.default_rng(0))


def centre() -> Array:
    middle: Array = OPEN.snap(np.full((1, len(OPEN)), 0.5))[0]
    return middle


def test_points_near_another_are_points_of_the_space_and_no_further_than_the_reach_and_half_a_step() -> None:
    Z = around(centre(), 0.1)
    np.testing.assert_allclose(OPEN.snap(Z), Z, atol=1e-12)
    widest = np.array(
        [0.0 if smooth else np.diff(OPEN.steps(column)).max() for column, smooth in enumerate(OPEN.smooth)]
    )
    assert (np.abs(Z - centre()) <= 0.1 + widest / 2 + 1e-9)[:, NUMERIC].all()


def test_every_number_moves_to_either_side_and_choices_change_in_a_minority() -> None:
    moved = around(centre(), 0.3) - centre()
    assert (moved[:, NUMERIC].min(axis=0) < 0.0).all()
    assert (moved[:, NUMERIC].max(axis=0) > 0.0).all()
    share = (moved[:, ~NUMERIC] != 0.0).mean()
    assert 0.01 < share < 0.2


def test_a_box_at_the_edge_of_the_space_ends_there() -> None:
    box = Box.around(OPEN, OPEN.snap(np.zeros((1, len(OPEN))))[0], 0.2)
    assert (box.low >= 0.0).all()
    assert (box.high[NUMERIC] <= 0.2 + 1e-9).all()
    assert (box.high[~NUMERIC] == 1.0).all()
