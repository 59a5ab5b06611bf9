"""Rows have weights: a value that is the mean of w measurements counts as w measurements, in every fit. All numbers are float64."""

from dataclasses import replace

import numpy as np
import pytest
from spectral.known_games import and_or, planted

from raysp.explorers import SPEX, Exhaustive, ProxySPEX, Screen, Singles, fit_singles, r_squared
from raysp.explorers.prior_guided import _Guesses
from raysp.explorers.samples import Sample, random_rows
from raysp.sampling.matching import averaged, distinct
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.kernel import Evidence, first_prior
from raysp.spectral.posterior import Posterior
from raysp.spectral.regression import correlations, lasso_path, penalties, stack_weights, standard_errors
from raysp.spectral.sets import features, singletons
from raysp.spectral.trees import train_booster
from raysp.spectral.walsh import all_masks

PROXIES = ["trees", "kernel", "linear", "mlp", "auto"]


def repeated(n=12, rows=150, seed=0):
    """Distinct masks, how often each was measured, the mean of its measurements; and all measurements one by one, in random order."""
    rng = np.random.default_rng(seed)
    masks = distinct(rng.random((rows, n)) < 0.5)
    counts = rng.integers(1, 6, len(masks))
    place = np.repeat(np.arange(len(masks)), counts)
    rng.shuffle(place)
    values = and_or(masks[place]) + rng.normal(size=len(place))
    first = np.unique(place, return_index=True)[1]
    order = place[np.sort(first)]  # in the order in which measurements name them
    means = np.bincount(place, values) / counts
    return masks[order], means[order], counts[order].astype(np.float64), masks[place], values


def test_averaging_keeps_how_often_each_mask_was_measured():
    masks, means, counts, each, values = repeated()
    found = averaged(each, values)
    assert np.array_equal(found[0], masks)
    assert np.allclose(found[1], means, rtol=1e-12)
    assert np.array_equal(found[2], counts)


def test_averaging_averages_by_weight_and_every_query_apart():
    masks = np.array([[True, False], [False, True], [True, False]])
    _, values, weights = averaged(masks, np.array([[1.0, 0.0], [5.0, 6.0], [4.0, 3.0]]), np.array([1.0, 1.0, 2.0]))
    assert values.tolist() == [[3.0, 2.0], [5.0, 6.0]]
    assert weights.tolist() == [3.0, 1.0]


# ---- every piece: repeating a row and weighting it are the same


def test_a_lasso_of_weighted_rows_is_that_of_repeated_rows():
    masks, means, counts, _, values = repeated()
    sets = singletons(masks.shape[1])
    grid = penalties(values)
    assert penalties(means, counts).shape == grid.shape
    # The repeated rows differ in their values; a fit sees only their means.
    again = np.repeat(means, counts.astype(int))
    expected = lasso_path(sets, np.repeat(masks, counts.astype(int), axis=0), again, grid)
    found = lasso_path(sets, masks, means, grid, weights=counts)
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-10)
    plain = lasso_path(sets, masks, means, grid)
    assert np.abs(plain.coefficients - expected.coefficients).max() > 1e-3


def test_correlations_and_stacks_of_weighted_rows_are_those_of_repeated_rows():
    masks, means, counts, *_ = repeated()
    often = counts.astype(int)
    sets = singletons(masks.shape[1])
    expected = correlations(sets, np.repeat(masks, often, axis=0), np.repeat(means, often))
    np.testing.assert_allclose(correlations(sets, masks, means, weights=counts), expected, atol=1e-12)
    columns = np.column_stack([masks[:, 0] * 2.0, masks[:, 2] * 3.0, means + 1.0])
    expected = stack_weights(np.repeat(columns, often, axis=0), np.repeat(means, often))
    np.testing.assert_allclose(stack_weights(columns, means, counts), expected, atol=1e-9)
    assert r_squared(means, columns[:, 0], counts) == pytest.approx(r_squared(np.repeat(means, often), np.repeat(columns[:, 0], often)), rel=1e-12)


def test_a_process_that_saw_a_mean_of_w_measurements_predicts_as_one_that_saw_them_all():
    masks, means, counts, each, values = repeated(rows=60)
    signals = features(each, 0.5)
    prior = first_prior(signals, (values - values.mean()) / values.std(), 3)
    everything = Posterior(prior, each, values)
    # The noise of a row of mean weight is the mean weight's share of the noise of one measurement; the scale of the values is given by all of them.
    factor = (values.std() / _spread(means, counts)) ** 2
    same, careless = (
        Posterior(
            replace(
                prior,
                local_scales=prior.local_scales * factor,
                tail_variance=prior.tail_variance * factor,
                noise=prior.noise.scaled(factor / divided),
            ),
            masks,
            means,
            weights,
        )
        for divided, weights in ((counts.mean(), counts), (counts.mean(), None))
    )
    fresh = np.random.default_rng(9).random((50, masks.shape[1])) < 0.5
    near, far = (np.abs(posterior.predict(fresh) - everything.predict(fresh)).max() for posterior in (same, careless))
    assert near < 1e-3 * values.std()  # what is left is the prior of the mean, which is taken relative to the spread of the values
    assert far > 30 * near


def _spread(values, weights):
    return float(np.sqrt(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)))


def test_the_gradient_of_the_evidence_is_right_for_weighted_rows():
    masks, means, counts, *_ = repeated(n=6, rows=30)
    signals, targets = features(masks, 0.5), (means - means.mean()) / means.std()
    evidence = Evidence(signals, targets, first_prior(signals, targets, 3, weights=counts), counts)
    point = evidence.centre + 0.1 * np.random.default_rng(0).normal(size=len(evidence.centre))
    _, gradient = evidence(point)
    steps = 1e-6 * np.eye(len(point))
    numeric = [(evidence(point + step)[0] - evidence(point - step)[0]) / 2e-6 for step in steps]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5)


def test_a_booster_weighs_rows():
    masks, means, counts, *_ = repeated(rows=400)
    often = counts.astype(int)
    fresh = all_masks(12)[:500].astype(np.float32)
    plain, weighted, twice = (
        train_booster(rows, told, None, weights=weights, rounds=30)[0].predict(fresh)
        for rows, told, weights in ((masks, means, None), (masks, means, counts), (np.repeat(masks, often, axis=0), np.repeat(means, often), None))
    )
    assert np.abs(weighted - twice).mean() < np.abs(plain - twice).mean()


def test_guided_single_effects_of_weighted_rows_are_those_of_repeated_rows():
    masks, means, counts, *_ = repeated(rows=60)
    often = counts.astype(int)
    known = _Guesses.of(Sample(masks, means), [FourierSurrogate.from_deviations(12, 0.0, {(i,): 1.0 for i in range(6)})])
    signals = features(masks, 0.5)
    expected = known.fit(np.repeat(signals, often, axis=0), np.repeat(means, often), (0.3, 1.0))
    # Weights are relative to their mean, and so is the variance of the effects to that of the noise.
    found = known.fit(signals, means, (0.3 * counts.mean(), 1.0), counts)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-3)
    assert np.abs(known.fit(signals, means, (0.3 * counts.mean(), 1.0))[1] - expected[1]).max() > 0.05


def test_the_interval_of_a_shrunk_coefficient_is_wider_than_its_correction():
    errors = standard_errors(np.ones(2), np.array([0.0, -0.5]), 1.0, 50)
    assert 1.96 * (errors[1] - errors[0]) > 1.5 * 0.5


def test_standard_errors_of_equally_weighted_rows_are_those_of_as_many_rows():
    assert np.array_equal(standard_errors(np.ones(3), np.zeros(3), 1.0, 50), standard_errors(np.ones(3), np.zeros(3), 1.0, 50.0))


# ---- the whole


@pytest.mark.parametrize("proxy", PROXIES)
def test_fitting_repeated_rows_is_fitting_weighted_distinct_rows(proxy):
    masks, means, counts, each, values = repeated()
    apart = ProxySPEX(proxy=proxy, max_order=2, random_state=1).fit(each, values)
    together = ProxySPEX(proxy=proxy, max_order=2, random_state=1).fit(masks, means, counts)
    fresh = all_masks(12)[::37]
    np.testing.assert_allclose(together.predict(fresh), apart.predict(fresh), rtol=1e-8, atol=1e-8)
    assert together.findings.diagnostics["r2_cv"] == pytest.approx(apart.findings.diagnostics["r2_cv"], rel=1e-8)


@pytest.mark.parametrize("proxy", PROXIES)
def test_weights_that_are_all_alike_change_nothing(proxy):
    masks, means, *_ = repeated()
    plain = ProxySPEX(proxy=proxy, max_order=2).fit(masks, means).interactions("fourier", min_order=0)
    for weight in (1.0, 7.5):
        assert plain.equals(ProxySPEX(proxy=proxy, max_order=2).fit(masks, means, np.full(len(means), weight)).interactions("fourier", min_order=0))


@pytest.mark.parametrize("proxy", PROXIES)
def test_rows_measured_often_are_trusted_more(proxy):
    """Half of the rows are means of 400 measurements, half are single ones with much noise: counts tell a fit which is which."""
    game, rng = planted(16, 20, 3, max_order=2), np.random.default_rng(1)
    masks = distinct(rng.random((300, 16)) < 0.5)
    counts = np.where(np.arange(len(masks)) % 2, 400.0, 1.0)
    values = game.predict(masks) + rng.normal(size=len(masks)) * 6 / np.sqrt(counts)
    fresh = rng.random((500, 16)) < 0.5
    weighted, plain = (ProxySPEX(proxy=proxy, max_order=2).fit(masks, values, weights).score(fresh, game.predict(fresh)) for weights in (counts, None))
    assert weighted > plain


def test_singles_weigh_rows_too():
    masks, means, counts, each, values = repeated()
    for apart, together in ((fit_singles(each, values), fit_singles(masks, means, weights=counts)),):
        np.testing.assert_allclose(together.coefficients, apart.coefficients, atol=1e-9)
    apart, together = Singles().fit(each, values), Singles().fit(masks, means, counts)
    np.testing.assert_allclose(together.predict(masks), apart.predict(masks), atol=1e-9)


@pytest.mark.parametrize("explorer", [Exhaustive(), Screen(top_k=5)], ids=repr)
def test_a_table_measured_several_times_is_explained_by_its_means(explorer):
    masks = all_masks(5)
    often = np.arange(32) % 3 + 1
    values = np.repeat(masks @ np.arange(1.0, 6.0), often) + np.random.default_rng(0).normal(size=often.sum())
    means = np.bincount(np.repeat(np.arange(32), often), values) / often
    found = type(explorer)(**explorer.options.model_dump(exclude={"kind"})).fit(np.repeat(masks, often, axis=0), values)
    full = masks.sum(axis=1) >= 3  # a screening measures sets of up to two removed
    np.testing.assert_allclose(found.predict(masks[full]), means[full], atol=1e-9)


def test_the_transform_of_spex_refuses_rows_of_different_weight():
    started = SPEX(b=4, max_order=2).start(40)
    masks = started.ask()
    with pytest.raises(ValueError, match=r"weights: range from 1 to 2.*use proxyspex"):
        SPEX(b=4, max_order=2).fit(masks, np.arange(len(masks)), np.where(np.arange(len(masks)) % 2, 1.0, 2.0))


@pytest.mark.parametrize("wrong", [np.zeros(4), np.full(4, -1.0), np.array([1, 1, 1, np.nan]), np.ones(3), np.ones((4, 1))])
def test_weights_that_are_no_counts_are_refused(wrong):
    with pytest.raises(ValueError, match="weights"):
        Singles().fit(np.eye(4, dtype=bool), np.arange(4.0), wrong)


def test_repeats_count_where_random_rows_are_told_from_a_sweep():
    masks = distinct(np.random.default_rng(0).random((400, 8)) < 0.9)
    often = np.ones(len(masks))
    assert random_rows(masks, 0.9, often).all() == random_rows(masks, 0.9).all()
