"""What a fit misses around the intact input, followed from the measured ablations there to those that were not measured.

A fit to contexts of all sizes may be off by much the same at the intact input, at the single ablations and at pairs. If the measured values alone were written in, a
deviation from additivity, which is a difference of these values, would show all of what is missed at the one value that was not measured. The residuals around the
intact input are therefore taken for a Gaussian process with covariance s^d for two masks that differ in d components, which fades far from there. Its share s has the
largest marginal likelihood among those that cost no accuracy on masks drawn at random. Where slopes estimate pairs that were not measured (see `changes`), the estimates
count as noisy values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raysp.explorers.changes import Estimated
from raysp.masks import Masks, Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import UNIFORM
from raysp.spectral.regression import weighted_mean
from raysp.spectral.tail import Tail
from raysp.spectral.tail_sum import TailSum

#: Most components that a mask around the intact input removes.
REMOVED = 2
#: The fewest and the most masks around the intact input from which residuals are followed, and the most from which their process is learnt.
LEAST, MOST, LEARNT = 8, 3000, 1000
#: Correlations of residuals at masks that differ in one component, and the share of their variance that is noise.
SHARES, NOISE = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95), 0.01
#: The relative increase of the held-out error on random masks up to which residuals are followed.
COST = 0.01


def followed(
    surrogate: FourierSurrogate, masks: Masks, missed: Values, errors: Values, importance: Values, *, estimates: Estimated | None = None
) -> FourierSurrogate:
    """The surrogate with what it misses around the intact input, as far as measured masks (bool `(m, n)`) tell.

    `missed` float64 `(m,)` are values less predictions, `errors` the same for predictions by fits that did not see the mask (NaN if there are none), and `importance`
    how much each mask counts as one drawn at random. `estimates` stand for pairs that were not measured.
    """
    near = np.flatnonzero((~masks).sum(axis=1) <= REMOVED)
    drawn = (importance > 0) & ~np.isnan(errors)
    if masks.shape[1] >= MOST or len(near) < LEAST or not drawn.any() or not np.any(missed[near]):
        return surrogate
    near = near[:MOST]
    around, left, noise = masks[near], missed[near], np.full(len(near), NOISE)
    if estimates is not None:
        around, left = np.concatenate([around, estimates.masks]), np.concatenate([left, estimates.values - surrogate.predict(estimates.masks)])
        noise = np.concatenate([noise, NOISE + estimates.variances / np.mean(missed[near] ** 2)])
    least = weighted_mean(errors[drawn] ** 2, importance[drawn])
    some = np.unique(np.linspace(0, len(around) - 1, min(len(around), LEARNT)).astype(np.intp))
    for share in sorted(SHARES, key=lambda share: -_process(share, around[some], left[some], noise[some])[1]):
        tail, _ = _process(share, around, left, noise)
        cost = weighted_mean((errors[drawn] - tail.predict(masks[drawn])) ** 2, importance[drawn])
        if cost <= least * (1 + COST):
            return _with(surrogate, tail)
    return surrogate


def _process(share: float, masks: Masks, missed: Values, noise: Values) -> tuple[TailSum, float]:
    """The mean of the process with a correlation `share`, given residuals `(m,)` of masks `(m, n)`, and its log marginal likelihood at the best scale.

    `noise` `(m,)` is that of each, relative to the variance of the process.
    """
    # One factor a component, 1 where masks agree and `share` where they do not: (1 - τ) / (1 + τ) in a tail.
    tail = Tail(1.0, (1 - share) / (2 * share), np.ones(masks.shape[1]), UNIFORM)
    gone: NDArray[np.float64] = (~masks).astype(np.float64)
    factor = np.linalg.cholesky(tail.matrix(gone, gone) + np.diag(noise))
    weights = np.linalg.solve(factor.T, np.linalg.solve(factor, missed))
    evidence = -0.5 * len(missed) * float(np.log(missed @ weights)) - float(np.log(np.diag(factor)).sum())
    return TailSum(tail, masks, np.asarray(weights, dtype=np.float64)), evidence


def _with(surrogate: FourierSurrogate, tail: TailSum) -> FourierSurrogate:
    """The surrogate with a further tail, whose coefficients its terms include."""
    coefficients = surrogate.coefficients + tail.coefficients(surrogate.sets, surrogate.keep_probability)
    return FourierSurrogate(surrogate.sets, coefficients, surrogate.error, surrogate.keep_probability, surrogate.points, (*surrogate.tails, tail))
