from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from orchestrator.samplers.encoding import Encoding
from orchestrator.samplers.fitting import fit
from orchestrator.samplers.outcomes import OFFSETS, standardised, warped

ENCODING = Encoding({"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)})
POINTS = np.random.default_rng(0).random((40, 2))
WAVE = np.sin(6.0 * POINTS[:, 0]) + POINTS[:, 1]


def chosen(values: np.ndarray) -> np.ndarray:
    return fit(POINTS, values, ENCODING, clip=2.0, models=1, seed=0).y


def test_outcomes_are_standardised_after_their_bad_tail_was_cut() -> None:
    y = standardised(np.array([0.0, 1.0, 2.0, 3.0, 1e9, np.inf]), 2.0)
    assert y.mean() == pytest.approx(0.0)
    assert y.std() == pytest.approx(1.0)
    assert y[4] == y[5] == y.max()
    assert (np.diff(y[:4]) > 0.0).all()


def test_logarithms_keep_the_order_and_spread_the_best_out() -> None:
    plain, *logs = warped(np.array([0.0, 0.01, 0.1, 1.0, 2.0, 3.0, np.inf]), 2.0)
    assert len(logs) == len(OFFSETS)
    gaps = []
    for outcomes in (plain, *logs):
        assert outcomes.y.mean() == pytest.approx(0.0)
        assert outcomes.y.std() == pytest.approx(1.0)
        assert (np.diff(outcomes.y) >= 0.0).all()
        gaps.append(outcomes.y[2] - outcomes.y[0])
    assert gaps == sorted(gaps)


def test_how_much_outcomes_are_stretched_is_the_logarithm_of_the_derivative() -> None:
    values = np.array([0.0, 0.3, 1.0, 1.2, 2.0, 9.0])
    step = np.zeros(6)
    step[1] = 1e-6
    for index in range(1 + len(OFFSETS)):
        before, after = warped(values, 2.0)[index], warped(values + step, 2.0)[index]
        # The third, the best and the others hold still, up to the mean and the deviation, which are those of all.
        slope = (after.y[1] - after.y[0]) - (before.y[1] - before.y[0])
        assert np.log(slope / 1e-6 * 1.1) == pytest.approx(before.stretch[1], abs=0.5)
        assert before.stretch[5] == 0.0  # it was cut


def test_outcomes_that_span_orders_of_magnitude_are_warped_and_others_are_not() -> None:
    np.testing.assert_allclose(chosen(WAVE), standardised(WAVE, 2.0))
    steep = np.exp(4.0 * WAVE)
    assert any(np.allclose(chosen(steep), logs.y) for logs in warped(steep, 2.0)[1:])


def test_where_half_of_the_outcomes_are_the_best_nothing_is_warped() -> None:
    assert len(warped(np.array([0.0, 0.0, 0.0, 5.0]), 2.0)) == 1
    assert len(warped(np.array([3.0, 3.0]), 2.0)) == 1
