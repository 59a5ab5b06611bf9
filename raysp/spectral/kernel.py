"""A Gaussian process on masks with a prior on Fourier coefficients, and its marginal likelihood.

Every coefficient F(S) has an independent normal prior with mean zero and variance

    v(S) = b_shape(S) · prod_{i in S} ρ_i + c · prod_{i in S} τ_i / prod_i (1 + τ_i) + t_S

with a relevance ρ_i for every component (which builds in a hierarchy: a set is likely to matter if its members do), a scale b for every shape of *local*
sets (single components, and neighbouring ones, because adjacent words interact more), a *tail* of all orders (see `tail`), and an individual variance t_S for
the few sets that stand out. The kernel is sum_S v(S) φ_S(m) φ_S(m'). Since the tail contains every set, the process can learn any function. Relevances, scales
and noise (see `noise`) maximise the marginal likelihood.

φ_i(m) = (p - m_i) / sqrt(p (1 - p)) is the Fourier basis under P(keep) = p; at p = 1/2 it is (-1)^{m_i}.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from raysp.masks import Values
from raysp.spectral.noise import Noise
from raysp.spectral.sets import Block, Floats, products
from raysp.spectral.tail import FIRST_REACH, FIRST_VARIANCE, Tail, removed

#: Shapes of local sets beside single components, as (order, last - first component); later shapes are omitted if there would be too many sets.
SHAPES = ((2, 1), (2, 2), (3, 2), (2, 3), (3, 3), (4, 3), (3, 4), (5, 4), (4, 4))
#: Maximum number of local sets beside single components.
MOST_LOCAL = 1500
#: Prior variance of the mean, in units of the variance of the values; the sample mean is subtracted first.
MEAN_VARIANCE = 1.0
#: Standard deviations, in natural logarithms, of the priors on relevances around their common value, and on all else around their initial values.
RELEVANCE_SPREAD, SCALE_SPREAD = 0.6, 2.0
#: The farthest that any logarithm may be from where it starts, where no exponential overflows, and the objective beyond, or where a matrix is singular.
FARTHEST, WORST = 15.0, 1e10
#: Initial shares of the variance: of single components, and of each other shape of local sets.
FIRST_SINGLES, FIRST_LOCAL = 0.3, 0.003
#: Share of the variance below which a shape of local sets is dropped after the scales have been learnt.
LEAST_LOCAL = 0.003
#: Entries of one strip of the kernel matrix, chosen to fit into the cache, and its least number of rows, so that its products are fast.
STRIP, STRIP_ROWS = 1 << 16, 128
#: Rows mirrored per block.
MIRRORED = 256


@dataclass(frozen=True)
class Prior:
    """The prior on the coefficients, for values with mean zero and variance one.

    `relevances` `(n,)`; `local` blocks of sets with one scale each in `local_scales`; `spikes` blocks of sets that stand out, with the variances of their
    sets in `spike_variances`; `tail_variance` and `reach` as in `Tail`.
    """

    relevances: Floats
    local: tuple[Block, ...]
    local_scales: Floats
    noise: Noise
    tail_variance: float = 0.0
    reach: float = FIRST_REACH
    spikes: tuple[Block, ...] = ()
    spike_variances: tuple[Floats, ...] = ()
    keep_probability: float = 0.5

    @property
    def n(self) -> int:
        """Number of components."""
        return len(self.relevances)

    @property
    def tail(self) -> Tail:
        """The sets of all orders."""
        return Tail(self.tail_variance, self.reach, self.relevances, self.keep_probability)

    def variances(self, block: Block) -> Floats:
        """The prior variances v(S) of the sets of a block (all of one order), float64 `(len(block),)`, including local and individual variances."""
        order = block.shape[1]
        weight = self.relevances[block].prod(axis=1)
        scale, own = np.zeros(len(block)), np.zeros(len(block))
        spans = block[:, -1] - block[:, 0] if order else np.zeros(len(block))
        for sets, local in zip(self.local, self.local_scales, strict=True):
            if sets.shape[1] == order:
                scale += local * (spans == sets[0, -1] - sets[0, 0])
        for sets, variances in zip(self.spikes, self.spike_variances, strict=True):
            if sets.shape[1] == order:
                place = {tuple(row): value for row, value in zip(sets.tolist(), variances.tolist(), strict=True)}
                own += np.array([place.get(tuple(row), 0.0) for row in block.tolist()])
        return weight * scale + self.tail.variances(block) + own

    def noises(self, signals: Floats, weights: Values | None = None) -> Values:
        """The noise variances of masks given by their `features`, float64 `(m,)`, with weights as in `Noise.variances`."""
        return self.noise.variances(removed(signals).mean(axis=1), weights)

    def matrix(self, left: Floats, right: Floats) -> Floats:
        """The prior covariance between the values of two lists of masks, given by their `features`, float64 `(m, m')`."""
        blocks = self._explicit()
        first = _beside([products(left, block) * weights for block, weights in blocks], len(left))
        second = _beside([products(right, block) for block, _ in blocks], len(right))
        tail, gone, gone_too = self.tail, removed(left), removed(right)
        result = np.empty((len(left), len(right)))
        for rows in _strips(*result.shape):
            result[rows] = MEAN_VARIANCE + tail.matrix(gone[rows], gone_too) + first[rows] @ second.T
        return result

    def covariance(self, signals: Floats) -> Floats:
        """`matrix` of masks with themselves, float64 `(m, m)`, of which only the lower triangle is computed."""
        blocks = self._explicit()
        plain = _beside([products(signals, block) for block, _ in blocks], len(signals))
        return _lower(self.tail, removed(signals), plain, [weights for _, weights in blocks])

    def _explicit(self) -> list[tuple[Block, Floats]]:
        """The sets that enter the kernel individually, with their variances."""
        local = [(sets, scale * self.relevances[sets].prod(axis=1)) for sets, scale in zip(self.local, self.local_scales, strict=True)]
        return local + list(zip(self.spikes, self.spike_variances, strict=True))


def local_sets(n: int, max_order: int) -> tuple[Block, ...]:
    """Single components, and sets of neighbouring ones, one block per shape, for as many shapes as fit into `MOST_LOCAL` sets; empty blocks are omitted."""
    found: list[Block] = []
    for order, span in SHAPES:
        inner = list(itertools.combinations(range(1, span), order - 2))
        count = (n - span) * len(inner)
        if order > max_order or count <= 0 or count + sum(map(len, found)) > MOST_LOCAL:
            continue
        offsets = np.array([(0, *middle, span) for middle in inner], dtype=np.int32)
        found.append((np.arange(n - span, dtype=np.int32)[:, None, None] + offsets).reshape(-1, order))
    return (np.arange(n, dtype=np.int32)[:, None], *found)


def _beside(columns: Sequence[Floats], rows: int) -> Floats:
    """Arrays of columns side by side, `(rows, all columns)`; there may be none."""
    return np.concatenate([np.zeros((rows, 0)), *columns], axis=1)


def _strips(rows: int, columns: int) -> Iterator[slice]:
    """The strips of rows of a matrix with so many rows and columns that fit into the cache, one after the other."""
    step = max(STRIP // max(columns, 1), STRIP_ROWS)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _lower(tail: Tail, gone: Floats, plain: Floats, weights: Sequence[Floats]) -> Floats:
    """The lower triangle of the prior covariance of masks, from their removed components and the columns of the sets that enter with `weights`."""
    size, weighted = len(gone), plain * np.concatenate([np.zeros(0), *weights])
    result = np.empty((size, size))
    for rows in _strips(size, size):
        columns = slice(0, rows.stop)
        result[rows, columns] = MEAN_VARIANCE + tail.matrix(gone[rows], gone[columns]) + weighted[rows] @ plain[columns].T
    return result


# ---- marginal likelihood


class Evidence:
    """The negative log posterior of the hyperparameters given a sample, with its gradient.

    The arguments are the logarithms of relevances, local scales, the two parameters of the tail and the four of the noise. Only the priors determine the
    common factor of relevances and scales; they keep relevances around 1 / n. All matrices are symmetric, and only their lower triangles are computed, one
    strip of rows at a time.
    """

    def __init__(self, signals: Floats, values: Values, start: Prior, weights: Values | None = None) -> None:
        self.signals, self.values, self.start, self.weights = signals, values, start, weights
        self.removed = removed(signals)
        self.shares = self.removed.mean(axis=1)
        self.local = [products(signals, block) for block in start.local]
        self.spikes = [(products(signals, block), weights) for block, weights in zip(start.spikes, start.spike_variances, strict=True)]
        own = np.concatenate([start.relevances, start.local_scales, [start.tail_variance, start.reach]])
        self.centre = np.concatenate([np.log(own), start.noise.logarithms])

    def unpack(self, point: Floats) -> Prior:
        """The prior with the hyperparameters at `point`."""
        n, found = self.start.n, np.exp(point[: -len(self.start.noise.logarithms)])
        return replace(
            self.start,
            relevances=found[:n],
            local_scales=found[n:-2],
            tail_variance=float(found[-2]),
            reach=float(found[-1]),
            noise=Noise.of(point[len(found) :]),
        )

    def __call__(self, point: Floats) -> tuple[float, Floats]:
        """Return the objective and its gradient at `point`."""
        if np.abs(point - self.centre).max() > FARTHEST:  # the line search's first step may be far too long
            return WORST, np.zeros_like(point)
        prior = self.unpack(point)
        weights = [scale * prior.relevances[block].prod(axis=1) for block, scale in zip(prior.local, prior.local_scales, strict=True)]
        solved = invert(self._covariance(prior, weights), self.values)
        if solved is None:
            return WORST, np.zeros_like(point)
        inverse, alpha, log_determinant = solved
        away = point - self.centre
        away[: prior.n] = point[: prior.n] + np.log(prior.n)
        spread = np.full(len(point), SCALE_SPREAD)
        spread[: prior.n] = RELEVANCE_SPREAD
        value = 0.5 * float(self.values @ alpha) + 0.5 * log_determinant + 0.5 * float(((away / spread) ** 2).sum())
        return value, self._gradient(prior, weights, inverse, alpha) + away / spread**2

    def _covariance(self, prior: Prior, weights: list[Floats]) -> Floats:
        """The lower triangle of the covariance of the values."""
        explicit = [*zip(self.local, weights, strict=True), *self.spikes]
        plain = _beside([columns for columns, _ in explicit], len(self.values))
        result = _lower(prior.tail, self.removed, plain, [weight for _, weight in explicit])
        result[np.diag_indices(len(result))] += prior.noise.variances(self.shares, self.weights)
        return result

    def _gradient(self, prior: Prior, weights: list[Floats], inverse: Floats, alpha: Values) -> Floats:
        """The gradient with respect to the arguments.

        The derivative of the objective with respect to the covariance is (K^-1 - α αᵀ) / 2; entries below the diagonal count twice.
        """
        by_relevance, by_tail, diagonal = np.zeros(prior.n), np.zeros(2), np.zeros(len(alpha))
        tail, plain = prior.tail, _beside(self.local, len(alpha))
        by_set = np.zeros(plain.shape[1])
        for rows in _strips(len(alpha), len(alpha)):
            columns = slice(0, rows.stop)
            slope = inverse[rows, columns] - np.outer(alpha[rows], alpha[columns])
            corner = slope[:, rows.start :]
            diagonal[rows] = 0.5 * np.diag(corner)
            corner[np.triu_indices(len(corner), 1)] = 0.0
            corner[np.diag_indices(len(corner))] *= 0.5
            weighted = slope * tail.matrix(self.removed[rows], self.removed[columns])
            by_strength = tail.gradient(self.removed[rows], self.removed[columns], weighted)
            by_tail += [float(weighted.sum()), float(by_strength.sum())]
            by_relevance += by_strength
            by_set += np.einsum("ms,ms->s", plain[rows], slope @ plain[columns])
        each = np.split(by_set, np.cumsum([len(weight) for weight in weights])[:-1]) if weights else []
        by_local = np.zeros(len(weights))
        for row, (block, share, weight) in enumerate(zip(prior.local, each, weights, strict=True)):
            by_local[row] = float(share @ weight)
            for column in range(block.shape[1]):
                by_relevance += np.bincount(block[:, column], weights=share * weight, minlength=prior.n)
        return np.concatenate([by_relevance, by_local, by_tail, prior.noise.gradient(self.shares, diagonal, self.weights)])


def invert(covariance: Floats, values: Values) -> tuple[Floats, Values, float] | None:
    """Return the inverse, its product with the values and the log determinant, or None if the matrix is not positive definite.

    Only the lower triangle is read, and only the lower triangle of the inverse is valid. The matrix is overwritten.
    """
    from scipy.linalg import get_lapack_funcs

    potrf, potri, potrs = cast("Any", get_lapack_funcs(("potrf", "potri", "potrs"), (covariance,)))
    # LAPACK is column-major: the transposed view is passed without a copy, and its upper triangle is our lower one.
    factor, info = potrf(covariance.T, lower=0, overwrite_a=1, clean=0)
    if info:
        return None
    log_determinant = 2.0 * float(np.log(np.diag(factor)).sum())
    alpha, _ = potrs(factor, values, lower=0)
    inverse, _ = potri(factor, lower=0, overwrite_c=1)
    return cast("Floats", inverse.T), np.asarray(alpha, dtype=np.float64).reshape(-1), log_determinant


def mirror(lower: Floats) -> Floats:
    """Fill in the upper triangle from the lower one, in place."""
    for start in range(0, len(lower), MIRRORED):
        rows = slice(start, start + MIRRORED)
        corner = np.tril(lower[rows, rows])
        lower[rows, rows] = corner + np.tril(corner, -1).T
        lower[rows, rows.stop :] = lower[rows.stop :, rows].T
    return lower


def first_prior(signals: Floats, values: Values, max_order: int, keep_probability: float = 0.5, weights: Values | None = None) -> Prior:
    """The initial prior, with relevances from the correlations of single components with the values (`(m,)`, mean zero, variance one)."""
    n = signals.shape[1]
    strength = (signals.T @ (values if weights is None else values * (weights / weights.mean())) / len(values)) ** 2
    share = (strength + strength.mean() + 1e-12) / (strength + strength.mean() + 1e-12).sum()
    relevances, local = 0.5 * share + 0.5 / n, local_sets(n, max_order)
    shares = [FIRST_SINGLES if block.shape[1] == 1 else FIRST_LOCAL for block in local]
    local_scales = np.array([first / relevances[block].prod(axis=1).sum() for first, block in zip(shares, local, strict=True)])
    return Prior(relevances, local, local_scales, Noise(), FIRST_VARIANCE, keep_probability=keep_probability)


def without_idle(prior: Prior) -> Prior:
    """The prior without the shapes of local sets that explain a negligible share of the variance."""
    used = [scale * prior.relevances[block].prod(axis=1).sum() > LEAST_LOCAL for block, scale in zip(prior.local, prior.local_scales, strict=True)]
    return replace(
        prior,
        local=tuple(block for block, here in zip(prior.local, used, strict=True) if here),
        local_scales=prior.local_scales[np.array(used, dtype=np.bool_)],
    )


def train(signals: Floats, values: Values, start: Prior, steps: int, weights: Values | None = None) -> Prior:
    """Maximise the marginal likelihood of the values (`(m,)`, mean zero, variance one) with at most `steps` iterations of L-BFGS.

    `weights` (`(m,)`; None: equal) are the numbers of measurements that each value is the mean of.
    """
    from scipy.optimize import minimize

    evidence = Evidence(signals, values, start, weights)
    found: Any = minimize(evidence, evidence.centre, jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 20})
    return evidence.unpack(np.asarray(found.x, dtype=np.float64))
