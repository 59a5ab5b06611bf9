"""The process with slopes: against finite differences of the multilinear function, brute force over all sets, and functions that are planted."""

import itertools

import numpy as np
import pytest
from spectral.known_games import exact_slopes

from raysp.explorers import r_squared
from raysp.spectral import slopes as slopes_module
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.kernel import MEAN_VARIANCE
from raysp.spectral.sets import features
from raysp.spectral.slope_evidence import SlopeEvidence, first_look, learn
from raysp.spectral.slopes import Covariance, SlopePosterior, SlopePrior, credible

PROBABILITIES = (0.5, 0.8)
N = 6


def some_prior(keep_probability, orders=3, doubt=0.0, seed=0):
    rng = np.random.default_rng(seed)
    scales = np.array([0.6, 0.8, 1.2]) * (np.arange(3) < orders)
    return SlopePrior(rng.uniform(0.1, 0.5, N), scales, rng.uniform(0.05, 0.3, N), rng.uniform(0.1, 0.4, N), 0.1, doubt, 1.0, keep_probability)


def drawn(count, keep_probability=0.5, n=N, seed=0):
    return np.random.default_rng(seed).random((count, n)) < keep_probability


def every_set(n=N):
    return [members for order in range(4) for members in itertools.combinations(range(n), order)]


def multilinear(members, gates, keep_probability):
    """φ_S at real gates, `(m, n)`: where they are 0 or 1, the basis of masks."""
    signals = (keep_probability - gates) / np.sqrt(keep_probability * (1 - keep_probability))
    return signals[:, list(members)].prod(axis=1)


def rows_of(masks, keep_probability, step=1e-4):
    """Every φ_S at masks, `(m, sets)`, and its derivatives by central differences, `(m, n, sets)`."""
    gates = masks.astype(np.float64)
    sets = every_set(masks.shape[1])
    values = np.stack([multilinear(s, gates, keep_probability) for s in sets], axis=1)
    moved = np.zeros((*masks.shape, len(sets)))
    for i in range(masks.shape[1]):
        away = step * (np.arange(masks.shape[1]) == i)
        for number, s in enumerate(sets):
            ahead, behind = multilinear(s, gates + away, keep_probability), multilinear(s, gates - away, keep_probability)
            moved[:, i, number] = (ahead - behind) / (2 * step)
    return values, moved


def brute_variances(prior):
    return np.array([MEAN_VARIANCE if not s else prior.scales[len(s) - 1] * prior.relevances[list(s)].prod() for s in every_set()])


@pytest.mark.parametrize("orders", [2, 3])
@pytest.mark.parametrize("p", PROBABILITIES)
def test_covariances_are_those_of_finite_differences_of_every_multilinear_term(p, orders):
    prior, left, right = some_prior(p, orders), drawn(5, p), drawn(4, p, seed=1)
    variances, rng = brute_variances(prior), np.random.default_rng(2)
    (values, moved), (other, other_moved) = rows_of(left, p), rows_of(right, p)
    found, by_value, by_slope = Covariance(prior, features(left, p), features(right, p)), rng.normal(size=4), rng.normal(size=(4, N))
    coefficients = variances * (by_value @ other), variances * np.einsum("mi,mis->s", by_slope, other_moved)
    np.testing.assert_allclose(found.of_values(by_value, None), values @ coefficients[0], rtol=1e-9)
    np.testing.assert_allclose(found.of_values(None, by_slope), values @ coefficients[1], rtol=1e-6)
    np.testing.assert_allclose(found.of_slopes_with_values(by_value), moved @ coefficients[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.of_slopes(by_slope), moved @ coefficients[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_posterior_is_that_of_the_whole_covariance_matrix(p, monkeypatch):
    monkeypatch.setattr(slopes_module, "TOLERANCE", 1e-10)
    prior, masks, fresh, rng = some_prior(p, doubt=0.3), drawn(7, p), drawn(9, p, seed=1), np.random.default_rng(3)
    values, slopes = rng.normal(size=7), rng.normal(size=(7, N))
    slopes[2] = np.nan  # not measured
    slopes[4, 1] = np.nan  # not credible
    weights = rng.uniform(0.5, 2, 7)
    (rows, moved), (wanted, _) = rows_of(masks, p), rows_of(fresh, p)
    known, signals = np.isfinite(slopes), features(masks, p)
    mean, scale = np.average(values, weights=weights), np.sqrt(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights))
    variances, shares = brute_variances(prior), weights.mean() / weights
    design = np.concatenate([rows, moved[known]])
    covariance = design * variances @ design.T
    column = np.broadcast_to(np.arange(N), slopes.shape)[known]
    row = np.broadcast_to(np.arange(7)[:, None], slopes.shape)[known]
    same = column[:, None] == column
    bent = same * prior.curvature[column] * signals[row, column][:, None] * signals[row, column]
    covariance[7:, 7:] += prior.doubt * same * covariance[7:, 7:] + bent + np.diag(prior.slope_noise[column] * shares[row])
    covariance[:7, :7] += np.diag((prior.noise + 1e-6) * shares)
    solved = np.linalg.solve(covariance, np.concatenate([(values - mean), slopes[known]]) / scale)
    coefficients = scale * variances * (solved @ design)
    posterior = SlopePosterior(prior, masks, values, slopes, weights)
    np.testing.assert_allclose(posterior.predict(fresh), mean + wanted @ coefficients, rtol=1e-5, atol=1e-6)
    terms = posterior.surrogate().terms()
    coefficients[0] += mean
    strong = [(s, c) for s, c in zip(every_set(), coefficients, strict=True) if abs(c) > 0.05]
    assert {s: terms.get(s) for s, _ in strong} == pytest.approx(dict(strong), rel=1e-3)


@pytest.mark.parametrize("orders", [2, 3])
@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_gradient_of_the_evidence_is_that_of_finite_differences(p, orders):
    rng = np.random.default_rng(0)
    evidence = SlopeEvidence(features(drawn(12, p), p), rng.normal(size=(12, N)), orders, p)
    point = evidence.centre + 0.3 * rng.normal(size=len(evidence.centre))
    steps = 1e-6 * np.eye(len(point))
    expected = [(evidence(point + step)[0] - evidence(point - step)[0]) / 2e-6 for step in steps]
    np.testing.assert_allclose(evidence(point)[1], expected, rtol=1e-5, atol=1e-6)


def pairwise(n, active, count, seed=0):
    """A function of `active` of n components and of `count` pairs of these."""
    rng = np.random.default_rng(seed)
    members = sorted(int(i) for i in rng.choice(n, active, replace=False))
    pairs = list(itertools.combinations(members, 2))
    chosen = [pairs[i] for i in rng.choice(len(pairs), count, replace=False)]
    return FourierSurrogate.from_dict(n, {(): 1.0, **{(i,): rng.normal() for i in members}, **{s: rng.normal() for s in chosen}})


def test_exact_slopes_of_a_pairwise_function_recover_it_from_a_quarter_as_many_masks_as_components():
    n, game = 80, pairwise(80, 14, 40)
    masks, fresh = drawn(n // 4, n=n), drawn(500, n=n, seed=1)
    posterior = learn(masks, game.predict(masks), exact_slopes(game, masks), 2)
    assert r_squared(game.predict(fresh), posterior.predict(fresh)) > 0.95
    assert posterior.surrogate().predict(fresh) == pytest.approx(posterior.predict(fresh), abs=0.2)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_rate_of_slopes_is_learnt(factor):
    n, game = 20, pairwise(20, 10, 20)
    masks, fresh = drawn(80, n=n), drawn(300, n=n, seed=1)
    posterior = learn(masks, game.predict(masks), factor * exact_slopes(game, masks), 2)
    assert posterior.prior.rate == pytest.approx(factor, rel=0.15)
    assert r_squared(game.predict(fresh), posterior.predict(fresh)) > 0.97


def test_slopes_beyond_the_range_of_the_values_are_left_out():
    values, slopes = np.array([0.0, 1.0, 4.0]), np.full((3, 10), 0.5)
    slopes[1, 2], slopes[2, 3] = 50.0, -4.5
    left_out = np.isnan(credible(slopes, values))
    assert set(zip(*np.nonzero(left_out), strict=True)) == {(1, 2), (2, 3)}
    # Slopes in another unit are not left out for that.
    assert np.isnan(credible(1000 * slopes, values)).mean() <= 0.1


def test_a_component_that_was_never_removed_does_no_harm():
    n, game = 10, pairwise(10, 6, 5)
    masks = drawn(20, 0.9, n=n)
    masks[:, 3] = True
    prior = first_look(masks, exact_slopes(game, masks), 3, 0.9)
    assert all(np.isfinite(each).all() for each in (prior.relevances, prior.scales, prior.slope_noise, prior.curvature))
    assert prior.curvature.max() < 1e3


def test_slopes_that_are_all_zero_say_nothing():
    game = pairwise(10, 6, 5)
    masks, fresh = drawn(100, n=10), drawn(300, n=10, seed=1)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        posterior = learn(masks, game.predict(masks), np.zeros((100, 10)), 2)
    assert posterior.predict(fresh) == pytest.approx(game.predict(masks).mean())
