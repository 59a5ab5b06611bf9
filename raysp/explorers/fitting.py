"""Fitting of a Fourier surrogate to evaluations, with all choices made by cross-validation.

A proxy proposes models with out-of-fold predictions. They are stacked together with a model of single effects alone; the result is the stack, unless
single effects alone predict equally well. The surrogate has standard errors regardless of the models it combines.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raysp.explorers.hierarchical_lasso import singles
from raysp.explorers.history import HISTORY, Remembering
from raysp.explorers.proxies import GradientInformed
from raysp.explorers.samples import FOLDS_FEW, Proposal, Proxy, Sample, constant, folds
from raysp.masks import Masks, Values
from raysp.sampling.matching import averaged
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.regression import Exam, correlations, effective_rows, r_squared, ridge, stack_weights, standard_errors, weighted_mean, weighted_variance
from raysp.spectral.sets import Floats
from raysp.threads import one_thread

#: Minimum number of rows, learning rate and rounds of the quick estimate of R².
QUICK_LEAST, QUICK_RATE, QUICK_ROUNDS = 40, 0.2, 60
#: Standard errors by which the stack must outperform single effects alone, and the number of rows at which models with `optimistic_cv` need twice as many.
MARGIN, MARGIN_ROWS = 2.0, 25
#: The relative increase of the held-out error up to which the kernel follows what the other models leave.
COST = 0.05
#: Models with a smaller weight are removed from the stack.
LEAST_WEIGHT = 0.02


@dataclass(frozen=True)
class Fit:
    """A fitted surrogate, the out-of-fold `r2` of it and `r2_singles` of single effects alone, and the stacking `weights` of its models by name.

    `held_out` float64 `(m,)` are its out-of-fold predictions, NaN for rows that were never held out.
    """

    surrogate: FourierSurrogate
    r2: float
    r2_singles: float
    weights: dict[str, float] = field(default_factory=dict)
    held_out: Values = field(default_factory=lambda: np.zeros(0))


def fit_singles(masks: Masks, values: Values, random_state: int = 0, keep_probability: float = 0.5, weights: Values | None = None) -> FourierSurrogate:
    """Fit a LASSO on single components with a cross-validated penalty: the baseline for interactions.

    Masks are bool `(m, n)`, drawn with `keep_probability`; values are `(m,)`; weights `(m,)` are the numbers of measurements behind each value (None: one
    each).
    """
    distinct, means, counts = averaged(masks, values, weights)
    sample = Sample(distinct, means, 1, keep_probability, seed=random_state, weights=counts)
    if not sample.varies:
        return constant(sample.n, sample.values, keep_probability, sample.weights)
    with one_thread():
        alone = singles(sample, sample.folds())
        return _with_error(alone.build(), sample, _score(sample, alone.held_out), alone.held_out)


def fit_proxy(sample: Sample, proxy: Proxy) -> Fit:
    """Fit the surrogate with the best out-of-fold predictions, with terms up to the order of the sample. Deterministic in the seed of the sample."""
    if not sample.varies:
        level = constant(sample.n, sample.values, sample.keep_probability, sample.weights)
        return Fit(level, float("nan"), float("nan"), held_out=np.full(len(sample.values), np.nan))
    with one_thread():
        return _fit(sample, proxy)


def _fit(sample: Sample, proxy: Proxy) -> Fit:
    parts, fair = sample.folds(), sample.representative
    offers: dict[str, Proposal] = {"singles": singles(fair, parts)}
    if sample.allows_interactions or sample.allows_slopes or isinstance(proxy, GradientInformed | Remembering):
        offers |= proxy(sample, parts)
    weights, r2 = _weigh(offers, fair)
    surrogate = _combined(offers, weights, sample)
    held_out = np.asarray(sum(weight * offers[name].held_out for name, weight in weights.items()))
    return Fit(_with_error(surrogate, fair, r2, held_out), r2, _score(fair, offers["singles"].held_out), weights, held_out)


def _combined(offers: dict[str, Proposal], weights: dict[str, float], sample: Sample) -> FourierSurrogate:
    """The weighted sum of the models, one of which may be fitted to what the others leave.

    The kernel follows values that are nearly free of noise, such as those around the intact input, which trees and sparse sums smooth over. It does so only if that
    costs no accuracy on held-out rows.
    """
    fair = sample.representative
    last = next((name for name in weights if offers[name].rebuild is not None), None)
    others = [name for name in weights if name != last]
    parts, shares = [offers[name].build() for name in others], [weights[name] for name in others]
    rebuild = None if last is None else offers[last].rebuild
    if last is None or rebuild is None:
        return FourierSurrogate.combined(parts, shares)
    if not others:
        return offers[last].build()
    first = FourierSurrogate.combined(parts, shares)
    guessed = np.asarray(sum(weights[name] * offers[name].held_out for name in others))
    stacked, known = guessed + weights[last] * offers[last].held_out, ~np.isnan(guessed)
    missed = sample.values - np.where(known, guessed, first.predict(sample.masks))
    followed = guessed + rebuild(missed).held_out
    rows = sample.scored & ~np.isnan(stacked + followed)
    errors = fair.exam(np.flatnonzero(rows)).error(np.stack([stacked, followed], axis=1)[rows])
    if not errors[1] <= errors[0] * (1 + COST):
        return FourierSurrogate.combined([*parts, offers[last].build()], [*shares, weights[last]])
    return FourierSurrogate.combined([first, rebuild(sample.values - first.predict(sample.masks)).build()], [1.0, 1.0])


def quick_r2(masks: Masks, values: Values, random_state: int = 0) -> float | None:
    """The held-out R² of a ridge regression plus a small booster, fitted to four fifths of the rows and scored on one fifth.

    None for fewer than `QUICK_LEAST` rows or values that do not vary. Single ablations are excluded.
    """
    from raysp.spectral.trees import train_booster

    near = (~masks).sum(axis=1) <= 1
    masks, values = masks[~near], values[~near]
    if len(values) < QUICK_LEAST:
        return None
    held = folds(len(values), random_state, FOLDS_FEW)[0]
    kept = np.delete(np.arange(len(values)), held)
    if not (np.ptp(values[held]) > 0 and np.ptp(values[kept]) > 0):
        return None
    signs: Floats = 1.0 - 2.0 * masks.astype(np.float64)
    mean = values[kept].mean()
    linear = signs @ ridge(signs[kept], values[kept] - mean, float(np.sqrt(len(kept)))) + mean
    rest = values - linear
    booster, rounds = train_booster(masks[kept], rest[kept], Exam(masks[held], rest[held]), rate=QUICK_RATE, rounds=QUICK_ROUNDS, seed=random_state)
    predicted = linear[held] + booster.predict(masks[held].astype(np.float32), num_iteration=rounds)
    return r_squared(values[held], predicted)


def _weigh(offers: dict[str, Proposal], sample: Sample) -> tuple[dict[str, float], float]:
    """The weights of the models in the surrogate, and its out-of-fold R².

    Only models of single effects are used unless the stack, which has more models to choose from, outperforms them by more than chance. With slopes, models
    that learn from slopes and models of values alone are stacked together only if that outperforms the better of both stacks by more than chance. So it is for
    models that start from earlier answers: where these do not clearly help, the answer is what it would be without them.
    """
    everything = np.stack([offer.held_out for offer in offers.values()], axis=1)
    rows = sample.scored & ~np.isnan(everything).any(axis=1)
    columns, values, counts = everything[rows], sample.values[rows], sample.weights_of(rows)
    additive, sloped, optimistic_cv = np.array([[offer.additive, offer.sloped, offer.optimistic_cv] for offer in offers.values()]).T

    def errors(weights: Floats) -> Values:
        return (columns @ weights - values) ** 2

    def improved(fewer: Floats, chosen: NDArray[np.bool_]) -> Floats:
        weights = _stacked(columns, values, counts, chosen)
        return fewer if _doubtful(errors(weights), errors(fewer), counts, float(weights @ optimistic_cv)) else weights

    remembered = np.array([name.startswith(HISTORY) for name in offers])
    weights = improved(_stacked(columns, values, counts, additive), ~sloped & ~remembered)
    if remembered.any():
        weights = improved(weights, ~sloped)
    if sloped.any():
        by_slopes = _stacked(columns, values, counts, sloped)
        better = min(weights, by_slopes, key=lambda some: float(weighted_mean(errors(some), counts)))
        weights = improved(better, np.ones(len(weights), dtype=np.bool_))
    chosen = {name: float(weight) for name, weight in zip(offers, weights, strict=True) if weight > 0}
    return chosen, r_squared(values, columns @ weights, counts)


def _doubtful(left: Values, left_by_fewer: Values, counts: Values | None, optimistic_cv: float) -> bool:
    """Whether a stack with squared errors `left` (`(m,)`) may be better than one of fewer models by chance; models with `optimistic_cv` have that weight."""
    gains = left_by_fewer - left
    # If a few rows account for all of the gain, its spread does not measure chance; but a gain that halves the error is not due to chance.
    margin = MARGIN * (1 + optimistic_cv * MARGIN_ROWS / len(gains))
    chance = np.sqrt(weighted_variance(gains, counts) / effective_rows(len(gains), counts))
    return bool(weighted_mean(gains, counts) <= margin * chance and weighted_mean(left, counts) > weighted_mean(left_by_fewer, counts) / 2)


def _stacked(columns: Floats, values: Values, counts: Values | None, chosen: NDArray[np.bool_]) -> Floats:
    """The weights of the models in a stack of the chosen ones, `(models,)`."""
    weights = np.zeros(columns.shape[1])
    weights[chosen] = stack_weights(columns[:, chosen], values, counts)
    weights = np.where(weights < LEAST_WEIGHT, 0.0, weights)
    return weights / weights.sum()


def _score(sample: Sample, held_out: Values) -> float:
    return r_squared(sample.values[sample.scored], held_out[sample.scored], sample.weights_of(sample.scored))


def _with_error(surrogate: FourierSurrogate, sample: Sample, r2: float, held_out: Values) -> FourierSurrogate:
    """Add standard errors, estimated from the rows drawn at random.

    A model that follows its values closely leaves no residual: what it has shrunk a coefficient by shows on rows that it was not fitted to.
    """
    rows, unseen = sample.scored, sample.scored & ~np.isnan(held_out)

    def correlated(residual: Values, some: NDArray[np.bool_]) -> Floats:
        return correlations(surrogate.sets, sample.masks[some], residual, sample.keep_probability, sample.weights_of(some))

    counts = sample.weights_of(rows)
    unexplained = weighted_variance(sample.values[rows], counts) * (1.0 - r2)
    shrunk = correlated(sample.values[rows] - surrogate.predict(sample.masks[rows]), rows)
    errors = standard_errors(surrogate.coefficients, shrunk, unexplained, effective_rows(int(rows.sum()), counts))
    if unseen.any():
        chance = np.sqrt(max(unexplained, 0.0) / effective_rows(int(unseen.sum()), sample.weights_of(unseen)))
        errors = np.hypot(errors, np.maximum(np.abs(correlated((sample.values - held_out)[unseen], unseen)) - chance, 0.0))
    return surrogate.with_error(errors)
