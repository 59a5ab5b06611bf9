"""A Gaussian process on masks with a prior on Fourier coefficients, and its marginal likelihood.

Every coefficient F(S) has an independent normal prior with mean zero and variance

    v(S) = (a_|S| + b_shape(S)) · prod_{i in S} ρ_i + c · prod_{i in S} τ_i / prod_i (1 + τ_i) + t_S

with a relevance ρ_i for every component (which builds in a hierarchy: a set is likely to matter if its members do), a scale a_k for every low order, a
scale b for every shape of *local* sets (neighbouring components, because adjacent words interact more), a *tail* of all orders (see `tail`), and an
individual variance t_S for the few sets that stand out. The kernel is sum_S v(S) φ_S(m) φ_S(m'). The sum over all sets of one order is an elementary
symmetric polynomial in ρ_i φ_i φ'_i, which Newton's identities compute from power sums with a few matrix products, whatever the number of sets. Since the tail
contains every set, the process can learn any function. Relevances, scales and noise (see `noise`) maximise the marginal likelihood.

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

#: Shapes of local sets, as (order, last - first component); later shapes are omitted if there would be too many sets.
SHAPES = ((2, 1), (2, 2), (3, 2), (2, 3), (3, 3), (4, 3), (3, 4), (5, 4), (4, 4))
#: Maximum number of local sets.
MOST_LOCAL = 1500
#: The largest order with a scale of its own; the tail covers the others as accurately, and at less cost.
DENSE_ORDER = 1
#: Prior variance of the mean, in units of the variance of the values; the sample mean is subtracted first.
MEAN_VARIANCE = 1.0
#: Standard deviations, in natural logarithms, of the priors on relevances around their common value, and on all else around their initial values.
RELEVANCE_SPREAD, SCALE_SPREAD = 0.6, 2.0
#: Initial values: scales by order, and share of the variance for each shape of local sets.
FIRST_SCALES, FIRST_LOCAL = (0.3,), 0.003
#: Share of the variance below which a shape of local sets is dropped after the scales have been learnt.
LEAST_LOCAL = 0.003
#: Entries of one strip of the kernel matrix, chosen to fit into the cache.
STRIP = 1 << 16
#: Rows mirrored per block.
MIRRORED = 256


@dataclass(frozen=True)
class Prior:
    """The prior on the coefficients, for values with mean zero and variance one.

    `relevances` `(n,)`; `scales` `(orders,)` for orders 1 and higher; `local` blocks of sets with one scale each in `local_scales`; `spikes` blocks of
    sets that stand out, with the variances of their sets in `spike_variances`; `tail_variance` and `reach` as in `Tail`.
    """

    relevances: Floats
    scales: Floats
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
        scale = np.full(len(block), self.scales[order - 1] if 1 <= order <= len(self.scales) else 0.0)
        own = np.zeros(len(block))
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
        first = [products(left, block) * weights for block, weights in blocks]
        second = [products(right, block) for block, _ in blocks]
        tail, gone, gone_too = self.tail, removed(left), removed(right)
        result = np.empty((len(left), len(right)))
        for rows, _, powers in _strips(left, right, self.relevances, len(self.scales), self.keep_probability):
            part = MEAN_VARIANCE + sum(scale * e for scale, e in zip(self.scales, _elementary(powers)[1:], strict=True))
            part = part + tail.matrix(gone[rows], gone_too)
            for weighted, plain in zip(first, second, strict=True):
                part = part + weighted[rows] @ plain.T
            result[rows] = part
        return result

    def _explicit(self) -> list[tuple[Block, Floats]]:
        """The sets that enter the kernel individually, with their variances."""
        local = [(sets, scale * self.relevances[sets].prod(axis=1)) for sets, scale in zip(self.local, self.local_scales, strict=True)]
        return local + list(zip(self.spikes, self.spike_variances, strict=True))


def local_sets(n: int, max_order: int) -> tuple[Block, ...]:
    """Sets of neighbouring components, one block per shape, for as many shapes as fit into `MOST_LOCAL` sets; empty blocks are omitted."""
    found: list[Block] = []
    for order, span in SHAPES:
        inner = list(itertools.combinations(range(1, span), order - 2))
        count = (n - span) * len(inner)
        if order > max_order or count <= 0 or count + sum(map(len, found)) > MOST_LOCAL:
            continue
        offsets = np.array([(0, *middle, span) for middle in inner], dtype=np.int32)
        found.append((np.arange(n - span, dtype=np.int32)[:, None, None] + offsets).reshape(-1, order))
    return tuple(found)


def _strips(
    left: Floats, right: Floats, relevances: Floats, orders: int, keep_probability: float, *, triangle: bool = False
) -> Iterator[tuple[slice, slice, list[Any]]]:
    """Yield the power sums sum_i (ρ_i φ_i φ'_i)^j, j = 1 .. orders, one strip of rows at a time; at p = 1/2 those of even j are constant.

    Each item also contains the rows and columns of the strip: all columns, or with `triangle` those up to its last row.
    """
    uniform = keep_probability == 0.5
    sides = [(left**j * relevances**j, (right**j).T) if j % 2 or not uniform else None for j in range(1, orders + 1)]
    totals = [float((relevances**j).sum()) for j in range(1, orders + 1)]
    step = max(STRIP // max(len(right), 1), 1)
    for start in range(0, len(left), step):
        rows = slice(start, min(start + step, len(left)))
        columns = slice(0, rows.stop if triangle else len(right))
        yield rows, columns, [total if side is None else side[0][rows] @ side[1][:, columns] for side, total in zip(sides, totals, strict=True)]


def _elementary(powers: Sequence[Any]) -> list[Any]:
    """Compute the elementary symmetric polynomials of orders 0 .. k from the power sums 1 .. k (Newton's identities)."""
    found: list[Any] = [1.0]
    for k in range(1, len(powers) + 1):
        total: Any = 0.0
        for j in range(1, k + 1):
            term = found[k - j] * powers[j - 1]
            total = total + term if j % 2 else total - term
        found.append(total / k)
    return found


# ---- marginal likelihood


class Evidence:
    """The negative log posterior of the hyperparameters given a sample, with its gradient.

    The arguments are the logarithms of relevances, scales, local scales, the two parameters of the tail and the four of the noise. Only the priors determine the common factor of relevances and scales;
    they keep relevances around 1 / n. All matrices are symmetric, and only their lower triangles are computed, one strip of rows at a time.
    """

    def __init__(self, signals: Floats, values: Values, start: Prior, weights: Values | None = None) -> None:
        self.signals, self.values, self.start, self.weights = signals, values, start, weights
        self.removed = removed(signals)
        self.shares = self.removed.mean(axis=1)
        self.local = [products(signals, block) for block in start.local]
        self.spikes = [(products(signals, block), weights) for block, weights in zip(start.spikes, start.spike_variances, strict=True)]
        own = np.concatenate([start.relevances, start.scales, start.local_scales, [start.tail_variance, start.reach]])
        self.centre = np.concatenate([np.log(own), start.noise.logarithms])

    def unpack(self, point: Floats) -> Prior:
        """The prior with the hyperparameters at `point`."""
        n, orders = self.start.n, len(self.start.scales)
        found = np.exp(point[: -len(self.start.noise.logarithms)])
        return replace(
            self.start,
            relevances=found[:n],
            scales=found[n : n + orders],
            local_scales=found[n + orders : -2],
            tail_variance=float(found[-2]),
            reach=float(found[-1]),
            noise=Noise.of(point[len(found) :]),
        )

    def __call__(self, point: Floats) -> tuple[float, Floats]:
        """Return the objective and its gradient at `point`."""
        prior = self.unpack(point)
        weights = [scale * prior.relevances[block].prod(axis=1) for block, scale in zip(prior.local, prior.local_scales, strict=True)]
        solved = invert(self._covariance(prior, weights), self.values)
        if solved is None:
            return 1e10, np.zeros_like(point)
        inverse, alpha, log_determinant = solved
        away = point - self.centre
        away[: prior.n] = point[: prior.n] + np.log(prior.n)
        spread = np.full(len(point), SCALE_SPREAD)
        spread[: prior.n] = RELEVANCE_SPREAD
        value = 0.5 * float(self.values @ alpha) + 0.5 * log_determinant + 0.5 * float(((away / spread) ** 2).sum())
        return value, self._gradient(prior, weights, inverse, alpha) + away / spread**2

    def _covariance(self, prior: Prior, weights: list[Floats]) -> Floats:
        """The lower triangle of the covariance of the values."""
        size = len(self.values)
        result = np.empty((size, size))
        explicit = [*zip(self.local, weights, strict=True), *self.spikes]
        plain = np.concatenate([np.zeros((size, 0)), *(columns for columns, _ in explicit)], axis=1)
        weighted = plain * np.concatenate([np.zeros(0), *(weight for _, weight in explicit)])
        tail = prior.tail
        for rows, columns, powers in _strips(self.signals, self.signals, prior.relevances, len(prior.scales), prior.keep_probability, triangle=True):
            part = MEAN_VARIANCE + sum(scale * e for scale, e in zip(prior.scales, _elementary(powers)[1:], strict=True))
            result[rows, columns] = part + tail.matrix(self.removed[rows], self.removed[columns]) + weighted[rows] @ plain[columns].T
        result[np.diag_indices(size)] += prior.noise.variances(self.shares, self.weights)
        return result

    def _gradient(self, prior: Prior, weights: list[Floats], inverse: Floats, alpha: Values) -> Floats:
        """The gradient with respect to the arguments.

        The derivative of the objective with respect to the covariance is (K^-1 - α αᵀ) / 2; entries below the diagonal count twice.
        """
        n, orders, signals = prior.n, len(prior.scales), self.signals
        by_scale, by_relevance, by_tail, diagonal = np.zeros(orders), np.zeros(n), np.zeros(2), np.zeros(len(alpha))
        tail = prior.tail
        plain = np.concatenate([np.zeros((len(alpha), 0)), *self.local], axis=1)
        by_set = np.zeros(plain.shape[1])
        for rows, columns, powers in _strips(signals, signals, prior.relevances, orders, prior.keep_probability, triangle=True):
            slope = inverse[rows, columns] - np.outer(alpha[rows], alpha[columns])
            corner = slope[:, rows.start :]
            diagonal[rows] = 0.5 * np.diag(corner)
            corner[np.triu_indices(len(corner), 1)] = 0.0
            corner[np.diag_indices(len(corner))] *= 0.5
            elementary = _elementary(powers)
            by_scale += [float(np.vdot(slope, e)) for e in elementary[1:]]
            for j in range(1, orders + 1):
                # d e_k / d p_j = (-1)^(j-1) e_(k-j) / j
                part = slope * (sum(prior.scales[k - 1] * elementary[k - j] for k in range(j, orders + 1)) * ((-1) ** (j - 1) / j))
                flat = isinstance(powers[j - 1], float)
                total = float(part.sum()) if flat else np.einsum("mi,mi->i", signals[rows] ** j, part @ signals[columns] ** j)
                by_relevance += total * j * prior.relevances**j
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
                by_relevance += np.bincount(block[:, column], weights=share * weight, minlength=n)
        return np.concatenate([by_relevance, by_scale * prior.scales, by_local, by_tail, prior.noise.gradient(self.shares, diagonal, self.weights)])


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
    local_scales = np.array([FIRST_LOCAL / relevances[block].prod(axis=1).sum() for block in local])
    scales = np.array(FIRST_SCALES[: min(max_order, DENSE_ORDER)])
    return Prior(relevances, scales, local, local_scales, Noise(), FIRST_VARIANCE, keep_probability=keep_probability)


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
