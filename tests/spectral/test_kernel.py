"""The Gaussian process against brute force over all sets."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from spectral.known_games import and_or, planted

from raysp.explorers import r_squared
from raysp.spectral.kernel import MEAN_VARIANCE, Evidence, Prior, first_prior, local_sets, without_idle
from raysp.spectral.noise import Noise
from raysp.spectral.posterior import Posterior, learn, stand_outs
from raysp.spectral.sets import features, products

PROBABILITIES = (0.5, 0.8)


def every_set(n, order):
    return np.array(list(itertools.combinations(range(n), order)), dtype=np.int32)


def some_prior(n, keep_probability, seed=0):
    rng = np.random.default_rng(seed)
    local = local_sets(n, 4)
    spikes = (np.array([[0, 2, 3, 5]], dtype=np.int32), np.array([[1, 4]], dtype=np.int32))
    return Prior(
        rng.uniform(0.1, 0.5, n),
        local,
        rng.uniform(0.1, 1, len(local)),
        Noise(0.1, 0.3, (0.7, 1.4)),
        tail_variance=0.6,
        reach=1.3,
        spikes=spikes,
        spike_variances=(np.array([0.4]), np.array([0.7])),
        keep_probability=keep_probability,
    )


def brute_variances(prior):
    """Every set with its prior variance, by the formula in the module's docstring."""
    found = {}
    odds = prior.reach * prior.relevances
    strengths = odds / (1 + odds)
    for order in range(prior.n + 1):
        for members in itertools.combinations(range(prior.n), order):
            weight = np.prod(prior.relevances[list(members)])
            scale = sum(b for block, b in zip(prior.local, prior.local_scales, strict=True) if list(members) in block.tolist())
            own = sum(
                v
                for block, values in zip(prior.spikes, prior.spike_variances, strict=True)
                for row, v in zip(block.tolist(), values, strict=True)
                if row == list(members)
            )
            tail = prior.tail_variance * np.prod(strengths[list(members)]) / np.prod(1 + strengths)
            found[members] = weight * scale + tail + own
    return found


def random_masks(n, count, keep_probability, seed=0):
    return np.random.default_rng(seed).random((count, n)) < keep_probability


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_kernel_is_the_sum_over_all_sets(p):
    prior = some_prior(7, p)
    signals = features(random_masks(7, 12, p), p)
    expected = np.full((12, 12), MEAN_VARIANCE)
    for members, variance in brute_variances(prior).items():
        column = signals[:, list(members)].prod(axis=1)
        expected += variance * np.outer(column, column)
    assert np.allclose(prior.matrix(signals, signals), expected)


def test_variances_of_a_block_follow_the_formula():
    prior = some_prior(7, 0.5)
    expected = brute_variances(prior)
    for order in range(1, 6):
        block = every_set(7, order)
        assert np.allclose(prior.variances(block), [expected[tuple(row)] for row in block.tolist()])


@pytest.mark.parametrize("step", [-80.0, 40.0, 400.0, 800.0])
def test_a_step_that_is_far_too_long_is_worse_than_any_and_overflows_nothing(step):
    """Smooth functions of few components can make the first step of the search for hyperparameters that long."""
    rng = np.random.default_rng(1)
    signals, values = features(random_masks(8, 40, 0.5), 0.5), rng.normal(size=40)
    evidence = Evidence(signals, values, first_prior(signals, values, 4, 0.5))
    value, slopes = evidence(evidence.centre + step)
    assert value > 1e6 * evidence(evidence.centre)[0]
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_gradient_of_the_evidence_is_its_slope(p, monkeypatch):
    monkeypatch.setattr("raysp.spectral.kernel.STRIP", 500)  # several strips
    rng = np.random.default_rng(1)
    signals, values = features(random_masks(8, 40, p), p), rng.normal(size=40)
    prior = replace(first_prior(signals, values, 4, p), spikes=(np.array([[0, 3]], dtype=np.int32),), spike_variances=(np.array([0.3]),))
    evidence = Evidence(signals, values, prior)
    point = evidence.centre + 0.3 * rng.normal(size=len(evidence.centre))
    slope = evidence(point)[1]
    steps = 1e-5 * np.eye(len(point))
    measured = np.array([(evidence(point + step)[0] - evidence(point - step)[0]) / 2e-5 for step in steps])
    assert np.allclose(slope, measured, atol=1e-5 * np.abs(slope).max())


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_posterior_is_that_of_a_linear_model_on_all_sets(p):
    prior, masks = some_prior(6, p), random_masks(6, 30, p)
    values = np.random.default_rng(2).normal(size=30) * 3 + 5
    posterior = Posterior(prior, masks, values)
    variances = brute_variances(prior)
    columns = np.stack([features(masks, p)[:, list(members)].prod(axis=1) for members in variances], axis=1)
    weights = np.array([*variances.values()])
    weights[0] += MEAN_VARIANCE
    targets = (values - values.mean()) / values.std()
    noise = np.diag(1 / prior.noises(features(masks, p)))
    precision = np.diag(1 / np.where(weights > 0, weights, 1e-30)) + columns.T @ noise @ columns
    covariance = np.linalg.inv(precision)
    means = covariance @ columns.T @ noise @ targets
    place = {members: row for row, members in enumerate(variances)}
    for block in (every_set(6, 1), every_set(6, 2), every_set(6, 3), prior.spikes[0]):
        rows = [place[tuple(row)] for row in block.tolist()]
        found, spread = posterior.moments(block)
        assert np.allclose(found, values.std() * means[rows], atol=1e-6)
        assert np.allclose(spread, values.std() * np.sqrt(np.diag(covariance)[rows]), atol=1e-6)
    assert np.allclose(posterior.predict(masks), values.mean() + values.std() * (columns @ means), atol=1e-6)


def test_held_out_rows_are_predicted_as_if_never_seen():
    prior, masks = some_prior(6, 0.5), random_masks(6, 40, 0.5)
    values = and_or(masks) + np.random.default_rng(0).normal(size=40)
    whole = Posterior(prior, masks, values)
    rows = np.array([0, 7, 21])
    found = whole.held_out([rows])
    kept = np.delete(np.arange(40), rows)
    covariance = prior.matrix(whole.signals[kept], whole.signals[kept]) + np.diag(prior.noises(whole.signals[kept]))
    refitted = prior.matrix(whole.signals[rows], whole.signals[kept]) @ np.linalg.solve(covariance, whole.targets[kept])
    assert np.allclose(found[rows], whole.mean + whole.scale * refitted)
    assert np.isnan(found[kept]).all()


def test_leaving_one_out_is_what_unexplained_measures():
    masks = random_masks(6, 40, 0.5)
    posterior = Posterior(some_prior(6, 0.5), masks, and_or(masks))
    alone = posterior.held_out([np.array([row]) for row in range(40)])
    assert posterior.unexplained() == pytest.approx(np.mean((alone - and_or(masks)) ** 2) / posterior.scale**2)


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_fourier_form_predicts_what_the_process_predicts(p):
    masks, fresh = random_masks(20, 300, p), random_masks(20, 200, p, 1)
    posterior = learn(masks, and_or(masks) + 0.3 * np.random.default_rng(0).normal(size=300), 4, p)
    found = posterior.surrogate(4)
    assert r_squared(posterior.predict(fresh), found.predict(fresh)) > 0.9999
    near = ~np.eye(20, dtype=bool)
    assert found.predict(near) == pytest.approx(posterior.predict(near), abs=0.1)  # sets that are left out add up where all signs agree


def test_noise_is_least_where_a_mask_removes_next_to_nothing_or_next_to_everything():
    shares = np.array([0.0, 0.05, 0.5, 0.95, 1.0])
    found = Noise(0.01, 1.0, (1.0, 2.0)).variances(shares)
    assert found == pytest.approx(0.01 + shares * (1 - shares) ** 2, abs=1e-5)
    assert Noise(0.01, 1.0).variances(shares, np.array([1, 1, 2, 1, 1.0]))[2] == pytest.approx(0.6 * (0.01 + 0.25), rel=1e-3)


def test_values_around_the_intact_input_are_followed_closely_in_spite_of_noise_far_from_it():
    """Without noise by size, the kernel would smooth over the single ablations as over all else."""
    rng = np.random.default_rng(3)
    masks = np.concatenate([np.ones((1, 20), dtype=bool), ~np.eye(20, dtype=bool), random_masks(20, 400, 0.5)])
    rough = rng.normal(size=len(masks)) * ((~masks).mean(axis=1) > 0.2)
    values = and_or(masks) + rough
    posterior = learn(masks, values, 4)
    assert np.abs(posterior.predict(masks[:21]) - values[:21]).max() < 0.1 * posterior.scale


def test_sets_that_stand_out_are_the_planted_ones():
    game = planted(25, 40, 3)
    masks = random_masks(25, 700, 0.5)
    posterior = learn(masks, game.predict(masks), 4)
    spikes = {tuple(row) for block in posterior.prior.spikes for row in block.tolist()}
    strong = {members for members, value in game.terms().items() if len(members) > 1 and abs(value) > 0.3}
    assert strong <= spikes
    assert len(spikes - game.terms().keys()) <= 2
    fresh = random_masks(25, 500, 0.5, 1)
    assert r_squared(game.predict(fresh), posterior.predict(fresh)) > 0.995


def test_nothing_stands_out_of_noise():
    masks = random_masks(30, 400, 0.5)
    for seed in range(2):
        rng = np.random.default_rng([seed, 5])
        values = masks @ rng.normal(size=30) + 2 * rng.normal(size=400)
        assert not learn(masks, values, 4, seed=seed).prior.spikes


def test_neighbours_are_learnt_to_interact():
    masks, fresh = random_masks(40, 600, 0.5), random_masks(40, 500, 0.5, 1)

    def chain(rows):
        signs = 1.0 - 2.0 * rows
        return sum(signs[:, i] * signs[:, i + 1] * (0.5 + 0.1 * (i % 5)) for i in range(39))

    noise = np.random.default_rng(0).normal(size=600) * 2
    posterior = learn(masks, chain(masks) + noise, 3)
    assert any(block.shape[1] == 2 and block[0, 1] == 1 for block in posterior.prior.local)
    assert r_squared(chain(fresh), posterior.predict(fresh)) > 0.8


def test_local_sets_have_their_shape_and_stay_within_bounds():
    for block in local_sets(30, 5):
        spans = block[:, -1] - block[:, 0]
        assert len(np.unique(spans)) == 1
        assert np.all(np.diff(block, axis=1) > 0)
        assert len(np.unique(block, axis=0)) == len(block)
    assert sum(map(len, local_sets(5000, 5))) <= 5000 + 1500
    assert [block.tolist() for block in local_sets(1, 4)] == [[[0]]]
    assert {block.shape[1] for block in local_sets(30, 2)} == {1, 2}


def test_shapes_that_explain_nothing_are_dropped():
    prior = some_prior(8, 0.5)
    scales = np.zeros(len(prior.local))
    scales[0] = 1.0
    assert len(without_idle(replace(prior, local_scales=scales)).local) == 1


def test_no_prior_is_widened_without_reason():
    masks = random_masks(10, 200, 0.5)
    posterior = learn(masks, masks[:, 0] + 0.5 * np.random.default_rng(0).normal(size=200), 3)
    assert stand_outs(posterior, 3) is None


def test_a_matrix_that_rounding_left_indefinite_is_solved_all_the_same():
    masks = np.repeat(random_masks(6, 5, 0.99), 20, axis=0)  # the same few masks again and again, hardly any noise
    values = masks[:, 0] + 0.0
    prior = replace(some_prior(6, 0.99), noise=Noise(0.0, 0.0))
    assert np.isfinite(Posterior(prior, masks, values + 1e-3 * masks[:, 1]).predict(masks)).all()


def test_products_multiply_features():
    signals = features(random_masks(5, 4, 0.3), 0.3)
    assert np.allclose(products(signals, every_set(5, 2)), np.stack([signals[:, i] * signals[:, j] for i, j in every_set(5, 2)], axis=1))
    assert products(signals, np.zeros((1, 0), dtype=np.int32)).tolist() == [[1.0]] * 4
