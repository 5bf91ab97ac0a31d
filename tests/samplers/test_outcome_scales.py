from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from orchestrator.samplers.bo import standardised
from orchestrator.samplers.encoding import Array, Encoding
from orchestrator.samplers.fitting import fit
from orchestrator.samplers.gp import Evidence, Prior
from orchestrator.samplers.warping import scales

PLANE = Encoding({"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)})


def plane(points: int = 30) -> Array:
    return np.random.default_rng(1).random((points, 2))


def outputs(X: Array, y: Array) -> tuple[Array, Array]:
    """The outcomes as they are, and on the scale that was chosen."""
    standard = standardised(y, 2.0)
    return standard, fit(X, standard, np.zeros(len(y), dtype=bool), PLANE, models=1, seed=0, rescale=True).outputs


def test_outcomes_over_orders_of_magnitude_are_seen_as_logarithms() -> None:
    X = plane()
    as_they_are, chosen = outputs(X, np.exp(12.0 * ((X - 0.4) ** 2).sum(axis=1) ** 0.5))
    best = np.argsort(as_they_are)[:6]
    assert np.ptp(chosen[best]) > 3.0 * np.ptp(as_they_are[best])
    assert (np.argsort(chosen, kind="stable") == np.argsort(as_they_are, kind="stable")).all()


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_outcomes_that_a_process_foretells_well_are_seen_as_they_are(noise: float) -> None:
    X = plane()
    y = np.sin(5.0 * X[:, 0]) + np.cos(4.0 * X[:, 1]) + noise * np.random.default_rng(2).standard_normal(len(X))
    as_they_are, chosen = outputs(X, y)
    assert (chosen == as_they_are).all()


@pytest.mark.parametrize(
    "y", [np.zeros(20), np.arange(7.0), np.repeat([0.0, 1.0], [11, 9])], ids=["equal", "few", "tied"]
)
def test_what_says_nothing_of_its_scale_is_seen_as_it_is(y: Array) -> None:
    assert len(scales(standardised(y, 2.0))) == 1


def test_densities_on_two_scales_compare_as_densities_of_the_same_outcomes() -> None:
    y = standardised(np.random.default_rng(3).random(40) ** 3, 1e9)  # none is cut
    logarithms = scales(y)[1:]
    assert len(logarithms) > 1
    for scale in logarithms:
        order = np.argsort(y)
        slopes = np.diff(scale.outputs[order]) / np.diff(y[order])
        between = np.exp(scale.log_slopes[order])
        assert scale.outputs.mean() == pytest.approx(0.0, abs=1e-9)
        assert scale.outputs.std() == pytest.approx(1.0)
        assert ((between[1:] <= slopes * (1.0 + 1e-9)) & (slopes <= between[:-1] * (1.0 + 1e-9))).all()


def test_an_outcome_left_out_is_foretold_as_if_it_had_never_been_seen() -> None:
    X = plane(8)
    y = standardised(X.sum(axis=1), 2.0)
    theta = Prior.of(2).mean
    evidence = Evidence(X, y, PLANE.group, Prior.of(2))
    found = evidence.left_out(theta)
    for index in range(len(y)):
        others = np.delete(np.arange(len(y)), index)
        rest = Evidence(X[others], y[others], PLANE.group, Prior.of(2))
        # The density of all outcomes over that of the others; likelihoods lack the factor of each outcome.
        expected = evidence.likelihood(theta) - rest.likelihood(theta) - 0.5 * np.log(2.0 * np.pi)
        assert found[index] == pytest.approx(expected, abs=1e-8)
