from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import norm

from orchestrator.samplers.acquisition import Feasibility, LogEI, log_improvement
from orchestrator.samplers.gp import Evidence, Posterior, Prior, cholesky
from orchestrator.samplers.kernel import Kernel, roots

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.samplers.encoding import Array

GROUP = np.array([0, 1, 1, 2])  # the middle parameter has two columns
RNG = np.random.default_rng(3)
X = RNG.random((14, 4))
Y = np.sin(4.0 * X[:, 0]) + X[:, 3] + 0.1 * RNG.standard_normal(14)
THETAS = Prior.of(3).mean + 0.3 * RNG.standard_normal((2, 6))
THETAS[:, 4] = -3.0
QUERY = RNG.random((5, 4))


def covariance(a: Array, b: Array, theta: Array) -> float:
    """The kernel as one would write it for two points."""
    lengths = np.exp(theta[:3])
    apart = [abs(a[0] - b[0]), math.hypot(a[1] - b[1], a[2] - b[2]), abs(a[3] - b[3])]
    scaled = [math.sqrt(5.0) * d / length for d, length in zip(apart, lengths, strict=True)]

    def matern(r: float) -> float:
        return (1.0 + r + r * r / 3.0) * math.exp(-r)

    joint = matern(math.sqrt(sum(r * r for r in scaled)))
    return math.exp(theta[5]) * joint + math.exp(theta[3]) * sum(map(matern, scaled)) / 3.0


def matrix(A: Array, B: Array, theta: Array) -> Array:
    return np.array([[covariance(a, b, theta) for b in B] for a in A])


def slopes(function: Callable[[Array], float], x: Array, step: float = 1e-5) -> Array:
    return np.array([(function(x + step * e) - function(x - step * e)) / (2.0 * step) for e in np.eye(len(x))])


def test_the_kernel_is_the_formula() -> None:
    found = Kernel(THETAS).matrix(roots(QUERY, X, GROUP))
    for model, theta in enumerate(THETAS):
        np.testing.assert_allclose(found[model], matrix(QUERY, X, theta), rtol=1e-12)


def test_the_evidence_is_the_normal_density_and_the_priors() -> None:
    evidence = Evidence(X, Y, GROUP, Prior.of(3))
    theta = THETAS[0]
    K = matrix(X, X, theta) + math.exp(theta[4]) * np.eye(14)
    density = -0.5 * Y @ np.linalg.solve(K, Y) - 0.5 * np.linalg.slogdet(K)[1]
    prior = -0.5 * (((theta - Prior.of(3).mean) / Prior.of(3).deviation) ** 2).sum()
    assert evidence.likelihood(theta) == pytest.approx(density)
    assert evidence.loss(theta)[0] == pytest.approx(-density - prior)


@pytest.mark.parametrize("theta", THETAS, ids=["first", "second"])
def test_the_gradient_of_the_evidence_is_its_finite_difference(theta: Array) -> None:
    evidence = Evidence(X, Y, GROUP, Prior.of(3))
    np.testing.assert_allclose(evidence.loss(theta)[1], slopes(lambda t: evidence.loss(t)[0], theta), atol=1e-6)


def test_the_posterior_is_the_textbook_formula() -> None:
    posterior = Posterior(X, np.stack([Y, 2.0 * Y], axis=1), THETAS, GROUP)
    means, variances = posterior.predict(QUERY)
    joint_means, covariances = posterior.joint(QUERY)
    for model, theta in enumerate(THETAS):
        K = matrix(X, X, theta) + math.exp(theta[4]) * np.eye(14)
        cross = matrix(QUERY, X, theta)
        expected = matrix(QUERY, QUERY, theta) - cross @ np.linalg.solve(K, cross.T)
        np.testing.assert_allclose(means[model, :, 0], cross @ np.linalg.solve(K, Y), atol=1e-9)
        np.testing.assert_allclose(means[model, :, 1], 2.0 * means[model, :, 0], atol=1e-9)
        np.testing.assert_allclose(covariances[model], expected, atol=1e-9)
        np.testing.assert_allclose(variances[model], np.diag(expected), atol=1e-9)
    np.testing.assert_allclose(joint_means, means)


def test_the_fit_finds_what_matters_and_does_not_end_uphill() -> None:
    evidence = Evidence(X, (Y - Y.mean()) / Y.std(), GROUP, Prior.of(3))
    theta = evidence.fit(evaluations=60)
    assert evidence.loss(theta)[0] < evidence.loss(Prior.of(3).mean)[0]
    assert theta[1] > theta[0]  # the middle parameter does nothing: its length scale is long


def test_draws_of_hyperparameters_follow_the_prior_where_the_data_say_nothing() -> None:
    evidence = Evidence(X[:1], np.zeros(1), GROUP, Prior.of(3))
    draws = evidence.draws(Prior.of(3).mean, 400, thin=1, rng=np.random.default_rng(0))[:, :3]
    standard = (draws - Prior.of(3).mean[:3]) / Prior.of(3).deviation[:3]
    assert np.abs(standard.mean(axis=0)).max() < 0.3
    assert np.abs(standard.std(axis=0) - 1.0).max() < 0.2


def test_the_log_of_the_improvement_is_exact_near_and_finite_far() -> None:
    z = np.linspace(-6.0, 6.0, 49)
    np.testing.assert_allclose(log_improvement(z), np.log(norm.pdf(z) + z * norm.cdf(z)), rtol=1e-6)
    far = log_improvement(np.array([-30.0, -999.0, -1001.0, -1e6]))
    assert np.isfinite(far).all()
    assert (np.diff(far) < 0.0).all()
    # pdf(z) / z^2 (1 - 3 / z^2 + ...), Abramowitz and Stegun 26.2.12
    assert far[0] == pytest.approx(norm.logpdf(-30.0) - 2.0 * math.log(30.0) - 3.0 / 900.0, abs=1e-4)


def test_without_pending_trials_and_with_one_model_it_is_expected_improvement() -> None:
    surface = LogEI(X, Y, np.empty((0, 4)), THETAS[:1], GROUP, fantasies=3, rng=np.random.default_rng(0))
    posterior = Posterior(X, Y[:, None], THETAS[:1], GROUP)
    best = posterior.predict(X)[0].min()
    means, variances = posterior.predict(QUERY)
    spread = np.sqrt(variances[0])
    z = (best - means[0, :, 0]) / spread
    np.testing.assert_allclose(np.exp(surface(QUERY)), spread * (z * norm.cdf(z) + norm.pdf(z)), rtol=1e-6)


@pytest.mark.parametrize("pending", [0, 3])
@pytest.mark.parametrize("failures", [False, True])
def test_the_gradient_of_the_acquisition_is_its_finite_difference(pending: int, failures: bool) -> None:
    feasibility = Feasibility(X, Y > 1.0, THETAS[1], GROUP) if failures else None
    surface = LogEI(
        X, Y, X[:pending] * 0.9, THETAS, GROUP, fantasies=4, rng=np.random.default_rng(0), feasibility=feasibility
    )
    values, gradient = surface.gradient(QUERY)
    np.testing.assert_allclose(values, surface(QUERY))
    for row, x in enumerate(QUERY):
        np.testing.assert_allclose(
            gradient[row], slopes(lambda q: float(surface(q[None, :])[0]), x), atol=1e-4, rtol=1e-4
        )


def test_a_pending_point_is_hardly_worth_asking_again() -> None:
    here = X[:1] * 0.5
    alone = LogEI(X, Y, np.empty((0, 4)), THETAS, GROUP, fantasies=8, rng=np.random.default_rng(0))
    beside = LogEI(X, Y, here, THETAS, GROUP, fantasies=8, rng=np.random.default_rng(0))
    assert beside(here)[0] < alone(here)[0] - 1.0


def test_success_is_likely_where_trials_succeeded_and_unlikely_where_they_failed() -> None:
    points = np.column_stack([np.linspace(0.0, 1.0, 20), np.full((20, 3), 0.5)])
    theta = Evidence(points, np.where(points[:, 0] > 0.7, 0.7, -0.3), GROUP, Prior.of(3)).fit(evaluations=60)
    success = np.exp(Feasibility(points, points[:, 0] > 0.7, theta, GROUP).log_probability(points))
    assert success[:10].min() > 0.9
    assert success[-4:].max() < 0.1


def test_a_covariance_that_is_not_quite_positive_is_mended() -> None:
    twice = np.ones((3, 3))
    assert np.abs(cholesky(twice) @ cholesky(twice).T - twice).max() < 1e-8


def test_a_covariance_with_nan_is_refused() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        cholesky(np.full((2, 2), np.nan))
