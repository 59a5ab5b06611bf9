"""Single effects guided by guesses: the closed forms against doing it by hand."""

import numpy as np
import pytest

from raysp.explorers.prior_guided import FREE, _Guesses, _Problem, guided_singles
from raysp.explorers.samples import MANY, Sample
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import features

SETTING = (0.3, 1.0)


def sample(m, n, p=0.5, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=n)
    masks = rng.random((m, n)) < p
    guesses = [
        FourierSurrogate.from_deviations(n, 0.0, {(i,): float(effect) for i, effect in enumerate(effects + rng.normal(size=n))}).rebased(p) for _ in range(2)
    ]
    return Sample(masks, 3.0 + masks @ effects + noise * rng.normal(size=m), 1, p), guesses


@pytest.mark.parametrize(("m", "n"), [(12, 20), (40, 10)], ids=["few rows", "many rows"])
def test_both_forms_are_ridge_regression_and_their_errors_are_those_of_leaving_rows_out(m, n):
    given, guesses = sample(m, n)
    known, signals = _Guesses.of(given, guesses), features(given.masks)
    level, coefficients = known.fit(signals, given.values, SETTING)

    def by_hand(signals, values, scale, middle):
        """The same prior as rows of data: every weight is zero, give or take its spread."""
        rest = SETTING[0] / n * (1 + SETTING[1] * known.strength) / (1 + SETTING[1])
        spread = np.sqrt(np.concatenate([rest, np.full(len(known.directions) + 1, FREE)]))
        design = np.column_stack([signals, signals @ known.directions.T, np.ones(len(signals))])
        rows, target = np.concatenate([design, np.diag(1 / spread)]), np.concatenate([(values - middle) / scale, np.zeros(len(spread))])
        weights = np.linalg.lstsq(rows, target, rcond=None)[0] * scale
        return weights[-1] + middle, weights[:n] + weights[n:-1] @ known.directions

    scale, middle = given.values.std(), given.values.mean()
    expected = by_hand(signals, given.values, scale, middle)
    assert level == pytest.approx(expected[0])
    np.testing.assert_allclose(coefficients, expected[1], atol=1e-8)
    errors = []
    for row in range(m):
        own, some = by_hand(np.delete(signals, row, axis=0), np.delete(given.values, row), scale, middle)
        errors.append((given.values[row] - own - signals[row] @ some) / scale)
    assert _Problem.of(signals, known.directions, given.values).solve(known._prior(SETTING))[1] == pytest.approx(np.mean(np.square(errors)))


@pytest.mark.parametrize("p", [0.5, 0.8])
@pytest.mark.parametrize("m", [80, MANY])
def test_what_is_predicted_out_of_fold_is_worth_what_it_says(m, p):
    given, guesses = sample(m, 30, p)
    found = guided_singles(given, given.folds(), guesses)
    assert found.additive
    left = np.mean((found.held_out - given.values) ** 2)
    # The noise's variance is a quarter.
    assert 0.2 < left < (0.6 if m == 80 else 0.3)
    unseen = np.random.default_rng(9).random((2000, 30)) < p
    truth = 3.0 + unseen @ np.random.default_rng(0).normal(size=30)
    assert np.mean((found.build().predict(unseen) - truth) ** 2) + 0.25 == pytest.approx(left, abs=0.15)


def test_guesses_of_nothing_are_none():
    given, _ = sample(50, 6)
    nothing = FourierSurrogate.from_deviations(6, 0.0, {(i,): 0.0 for i in range(6)})
    found = guided_singles(given, given.folds(), [nothing])
    assert np.mean((found.held_out - given.values) ** 2) < 0.5
