"""The prior of `slopes.SlopePosterior`, learnt from values and slopes.

Relevances, scales and noise are learnt from the slopes, each component's as a process of its own: the product of their marginal likelihoods needs a single
eigendecomposition, whatever the number of components. The rate of the slopes and how far they are doubted are those with which the slopes of some masks best
predict the values of others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from raysp.masks import Masks, Values
from raysp.spectral.noise import LEAST_NOISE, noise_shares
from raysp.spectral.regression import moments, weighted_mean, weighted_variance
from raysp.spectral.sets import Floats, features
from raysp.spectral.slopes import ORDERS, Covariance, SlopePosterior, SlopePrior, credible, sloped

#: Standard deviations, in natural logarithms, of the priors on relevances, on scales and on the noise of slopes around their initial values.
RELEVANCE_SPREAD, SCALE_SPREAD, NOISE_SPREAD = 1.0, 1.0, 1.5
#: Initial share of the mean square of a component's slopes that is noise.
FIRST_SLOPE_NOISE = 0.3
#: The same at least, of all components.
LEAST_SLOPE_NOISE = 1e-3
#: Iterations of L-BFGS, and how many standard deviations of the priors it may go from the initial values.
STEPS, FURTHEST = 40, 4.0
#: Masks from which the prior is learnt: mask entries (masks times components), and at least and at most so many masks.
LEARNT_ENTRIES, LEARNT_LEAST, LEARNT_MOST = 40_000, 50, 200
#: Masks that decide the scale and the doubt, as above, and their folds.
JUDGED_ENTRIES, JUDGED_LEAST, JUDGED_MOST, JUDGED_FOLDS = 20_000, 40, 120, 4
#: Variances tried: of a slope's own process relative to the derivative, and of what the process leaves unexplained relative to the values.
DOUBTS, NOISES = (0.01, 0.1, 1.0, 3.0), (0.003, 0.01, 0.03, 0.1, 0.3, 0.7)
#: Centre of the prior on the unexplained variance and its standard deviation in natural logarithms.
USUAL_NOISE, USUAL_SPREAD = 0.03, 1.0
#: Bounds of the values' effects relative to slopes, and the prior on it: a standard deviation around one.
LEAST_RATE, MOST_RATE, RATE_SPREAD = 0.1, 10.0, 0.2
#: The most rows: masks squared times components of those with slopes, and masks in all.
MOST_WORK, MOST_ROWS = 30_000_000, 2000


class SlopeEvidence:
    """The negative log posterior of relevances, scales and slope noise given slopes (`(m, n)`, in the unit of the values), with its gradient.

    The arguments are logarithms: relevances `(n,)`, scales `(orders,)`, noise `(n,)`. Each component's slopes are treated as a process of their own with
    covariance s² ρ_i (a_1 + a_2 e_1 + a_3 e_2) plus noise: the product of their likelihoods needs one eigendecomposition.
    """

    def __init__(self, signals: Floats, slopes: Floats, orders: int, keep_probability: float) -> None:
        self.signals, self.slopes, self.orders = signals, slopes, orders
        self.square = 1 / (keep_probability * (1 - keep_probability))
        power = (slopes**2).mean(axis=0)
        #: The noise that every component has at least: slopes without any would be of infinite evidence.
        self.least = LEAST_SLOPE_NOISE * float(power.mean()) + np.finfo(np.float64).eps
        power = power + self.least
        scale = (1 - FIRST_SLOPE_NOISE) * power.sum() / self.square / orders
        self.centre = np.log(np.concatenate([power / power.sum(), np.full(orders, scale), FIRST_SLOPE_NOISE * power]))
        n = signals.shape[1]
        self.spread = np.repeat([RELEVANCE_SPREAD, SCALE_SPREAD, NOISE_SPREAD], [n, orders, n])

    def __call__(self, point: Floats) -> tuple[float, Floats]:
        """The negative log posterior up to a constant, and its gradient."""
        n, signals = self.signals.shape[1], self.signals
        relevances, scales, noise = np.split(np.exp(point), [n, n + self.orders])
        first = (signals * relevances) @ signals.T
        second = (signals**2 * relevances**2) @ (signals**2).T
        shapes = [np.ones_like(first), first, (first * first - second) / 2][: self.orders]
        eigenvalues, vectors = np.linalg.eigh(sum(scale * shape for scale, shape in zip(scales, shapes, strict=True)))
        eigenvalues = np.maximum(eigenvalues, 0.0)[:, None]
        turned, rates = vectors.T @ self.slopes, self.square * relevances
        variance = rates * eigenvalues + noise + self.least
        error = turned**2 / variance
        away = (point - self.centre) / self.spread
        total = 0.5 * float((np.log(variance) + error).sum() + (away**2).sum())
        steep = 0.5 * (1 - error) / variance
        inner = turned * np.sqrt(rates) / variance
        shape = vectors @ (np.diag(0.5 * (rates / variance).sum(axis=1)) - 0.5 * inner @ inner.T) @ vectors.T
        by_relevance = (steep * eigenvalues).sum(axis=0) * rates
        if self.orders > 1:
            factor = scales[1] + (scales[2] * first if self.orders > 2 else 0.0)
            by_relevance += relevances * np.einsum("mi,mi->i", signals, (shape * factor) @ signals)
        if self.orders > 2:
            by_relevance -= scales[2] * relevances**2 * np.einsum("mi,mi->i", signals**2, shape @ signals**2)
        by_scale = np.array([float(np.vdot(shape, one)) for one in shapes]) * scales
        return total, np.concatenate([by_relevance, by_scale, steep.sum(axis=0) * noise]) + away / self.spread


def learn(  # noqa: PLR0917
    masks: Masks, values: Values, slopes: Floats, orders: int, keep_probability: float = 0.5, seed: int = 0, weights: Values | None = None
) -> SlopePosterior:
    """Train a process with orders up to `orders`, at most three, on masks (bool `(m, n)`), values (`(m,)`) that vary, and slopes (`(m, n)`, NaN where unknown).

    Deterministic in `seed`. `weights` are as in `posterior.learn`. If there are too many masks, a random subset of them is used.
    """
    n, order = masks.shape[1], np.random.default_rng(seed).permutation(len(values))
    slopes = credible(slopes, values)
    kept = order[sloped(slopes)[order]][: max(int(np.sqrt(MOST_WORK / n)), LEARNT_LEAST)]
    rows = np.sort(np.concatenate([kept, np.setdiff1d(order, kept, assume_unique=True)[: max(MOST_ROWS - len(kept), 0)]]))
    some = kept[: int(np.clip(LEARNT_ENTRIES // n, LEARNT_LEAST, LEARNT_MOST))]
    scale = moments(values, weights)[1]
    prior = first_look(masks[some], slopes[some] / scale, orders, keep_probability)
    judged = np.sort(kept[: int(np.clip(JUDGED_ENTRIES // n, JUDGED_LEAST, JUDGED_MOST))])
    prior = _Trial(masks[judged], values[judged], slopes[judged], None if weights is None else weights[judged]).judged(prior)
    # Of the other rows, only the values are used.
    used = np.where(np.isin(rows, kept)[:, None], slopes[rows], np.nan)
    return SlopePosterior(prior, masks[rows], values[rows], used, None if weights is None else weights[rows])


def first_look(masks: Masks, slopes: Floats, orders: int, keep_probability: float) -> SlopePrior:
    """The prior learnt from slopes alone (`(m, n)`, in units of the standard deviation of the values): as if they were exactly the values' derivatives."""
    from scipy.optimize import minimize

    n, signals, known = masks.shape[1], features(masks, keep_probability), np.isfinite(slopes)
    means = np.where(known, slopes, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    measured = np.where(known, slopes, means)
    bends = _bends(signals, measured)
    evidence = SlopeEvidence(signals, measured - bends * signals, orders, keep_probability)
    bounds = np.stack([evidence.centre - FURTHEST * evidence.spread, evidence.centre + FURTHEST * evidence.spread], axis=1)
    found: Any = minimize(evidence, evidence.centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS, "maxcor": 20})
    relevances, scales, noise = np.split(np.exp(np.asarray(found.x, dtype=np.float64)), [n, n + orders])
    padded, noise = np.concatenate([scales, np.zeros(ORDERS - orders)]), noise + evidence.least
    return SlopePrior(relevances, padded, noise, bends**2 + noise / len(masks), keep_probability=keep_probability)


def _bends(signals: Floats, slopes: Floats) -> Floats:
    """The least-squares coefficient of φ_i in the slopes of component i, beside a constant, `(n,)`."""
    centred = signals - signals.mean(axis=0)
    square = (centred**2).sum(axis=0)
    varies = square > np.finfo(np.float64).eps * (signals**2).sum(axis=0)
    return np.where(varies, (centred * slopes).sum(axis=0) / np.where(varies, square, 1.0), 0.0)


class _Trial:
    """Masks, values, slopes and weights on which priors are tried, by predicting the values of some of the masks from the others."""

    def __init__(self, masks: Masks, values: Values, slopes: Floats, weights: Values | None) -> None:
        self.masks, self.values, self.slopes, self.weights = masks, values, slopes, weights
        self.mean, self.scale = moments(values, weights)
        self.targets = (values - self.mean) / self.scale
        self.parts = [np.arange(start, len(values), JUDGED_FOLDS) for start in range(JUDGED_FOLDS)]

    def judged(self, prior: SlopePrior) -> SlopePrior:
        """The prior with the doubt that predicts best, the rate of the slopes and the variance that remains unexplained."""
        rated = prior.rated(self._rate(prior))
        tried = [replace(rated, doubt=doubt) for doubt in DOUBTS]
        errors = [weighted_variance(self.targets - self._held_out(prior), self.weights) for prior in tried]
        best = tried[int(np.argmin(errors))]
        return replace(best, noise=_unexplained(best, features(self.masks, best.keep_probability), self.targets, self.weights))

    def _held_out(self, prior: SlopePrior) -> Values:
        guess, everything = np.zeros(len(self.values)), np.arange(len(self.values))
        for held in self.parts:
            rest = np.delete(everything, held)
            counts = None if self.weights is None else self.weights[rest]
            posterior = SlopePosterior(prior, self.masks[rest], self.values[rest], self.slopes[rest], counts)
            guess[held] = (posterior.predict(self.masks[held]) - self.mean) / self.scale
        return guess

    def _rate(self, prior: SlopePrior) -> float:
        """The slopes relative to derivatives: the regression of the values on what slopes alone predict, with a normal prior around one."""
        # Values as noisy as that count for nothing.
        guess = self._held_out(replace(prior, noise=1 / LEAST_NOISE))
        guess -= float(weighted_mean(guess, self.weights))
        left = max(weighted_variance(self.targets - guess, self.weights), LEAST_NOISE)
        certainty = left / (len(self.values) * RATE_SPREAD**2)
        ratio = (float(weighted_mean(guess * self.targets, self.weights)) + certainty) / (weighted_variance(guess, self.weights) + certainty)
        return float(1 / np.clip(ratio, LEAST_RATE, MOST_RATE))


def _unexplained(prior: SlopePrior, signals: Floats, targets: Values, weights: Values | None) -> float:
    """The variance of the values that the process leaves unexplained, of those tried the one with the largest marginal likelihood of the values."""
    eigenvalues, vectors = np.linalg.eigh(Covariance(prior, signals, signals).values)
    turned, repeated = vectors.T @ targets, float(np.mean(noise_shares(weights)))
    scores: list[float] = []
    for noise in NOISES:
        variance = np.maximum(eigenvalues, 0.0) + noise * repeated
        away = np.log(noise / USUAL_NOISE) / USUAL_SPREAD
        scores.append(float((np.log(variance) + turned**2 / variance).sum() + away**2))
    return NOISES[int(np.argmin(scores))]
