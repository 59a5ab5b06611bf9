"""The posterior of a Gaussian process on masks: predictions, coefficients with standard deviations, sets that stand out, and its Fourier form.

The posterior mean of a coefficient is v(S) q(S) with q(S) = sum_j α_j φ_S(m_j). A single matrix product computes q for all extensions of a set by one
component, so sets are searched along the hierarchy: all pairs, then extensions of the strongest sets of each order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from math import comb, log

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values, first_of_each, pack
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.growth import KEPT, strong_terms, strongest_extensions
from raysp.spectral.indices import UNIFORM
from raysp.spectral.kernel import MEAN_VARIANCE, Prior, first_prior, invert, mirror, train, without_idle
from raysp.spectral.regression import Exam, moments, weighted_mean
from raysp.spectral.sets import Block, Floats, Reals, features, merge, products, unique_rows
from raysp.spectral.tail import removed
from raysp.spectral.tail_sum import TailSum

#: Training schedule: maximum number of rows, and iterations of L-BFGS.
TRAINING = ((500, 12), (1000, 6))
#: Iterations after sets that stand out have received individual variances.
RETRAINING = 3
#: Maximum number of search rounds for sets that stand out, of sets added per round, and of such sets in total.
ROUNDS, MOST_A_ROUND, MOST_SPIKES = 30, 24, 300
#: Number of pairs extended, of larger sets extended, and of sets per order whose evidence is computed exactly.
PAIRS, PARENTS, EXAMINED = 10_000, 2000, 100
#: Maximum number of extensions examined per order; the final search before termination uses as many parents as this allows.
MOST_EXTENSIONS = 3_000_000
#: Rows searched for sets that stand out. If some were found, the last pass uses more: at most `SEARCHED_LAST` rows and `SEARCHED_ENTRIES` mask entries.
SEARCHED, SEARCHED_LAST, SEARCHED_ENTRIES = 1000, 2500, 500_000
#: Unexplained share of the variance (leave-one-out) below which no further rows are used, and below which no further sets are searched for.
CLEAR, NOTHING_LEFT = 1e-3, 1e-6
#: Margin by which the evidence of a set that stands out must exceed the maximum expected by chance over all sets examined.
CLEARANCE = 5.0
#: What the Fourier form may omit of the posterior mean: a share of its variance, and a share of the unexplained variance.
LEFT_OUT, LEFT_OF_UNEXPLAINED = 1e-4, 0.02
#: Maximum number of factorisation attempts, and the noise of the second one relative to the diagonal; every further attempt uses ten times as much.
ATTEMPTS, ROUNDED = 6, 1e-10
#: Maximum number of entries of an array of products.
CHUNK = 1 << 24
#: Entries of products of parents that a processor's cache holds.
CACHED = 1 << 18


class Posterior:
    """The process conditioned on masks (bool `(m, n)`), values `(m,)` and weights (`(m,)`; None: equal)."""

    def __init__(self, prior: Prior, masks: Masks, values: Values, weights: Values | None = None) -> None:
        self.prior, self.weights = prior, weights
        self.mean, self.scale = moments(values, weights)
        self.signals = features(masks, prior.keep_probability)
        self.targets = (values - self.mean) / self.scale
        self.inverse, self.alpha = self._solved()

    def _solved(self) -> tuple[Floats, Values]:
        """The inverse covariance and its product with the targets; noise is added if rounding makes the matrix indefinite."""
        noise, more, diagonal = self.prior.noises(self.signals, self.weights), 0.0, np.diag_indices(len(self.targets))
        for _ in range(ATTEMPTS):
            covariance = self.prior.covariance(self.signals)
            covariance[diagonal] += noise + more
            more = max(10 * more, ROUNDED * float(covariance[diagonal].mean()))
            solved = invert(covariance, self.targets)
            if solved is not None:
                return mirror(solved[0]), solved[1]
        raise FloatingPointError("the kernel matrix is not positive definite")

    def predict(self, masks: Masks) -> Values:
        """Posterior means (float64, `(m,)`) of the values of masks (bool, `(m, n)`)."""
        return self.mean + self.scale * (self.prior.matrix(features(masks, self.prior.keep_probability), self.signals) @ self.alpha)

    def deviations(self, masks: Masks) -> Values:
        """Posterior standard deviations (float64, `(m,)`) of the values of masks (bool, `(m, n)`), without noise."""
        signals = features(masks, self.prior.keep_probability)
        seen = self.prior.matrix(signals, self.signals)
        own = np.array([self.prior.matrix(row[None], row[None])[0, 0] for row in signals])
        return self.scale * np.sqrt(np.maximum(own - np.einsum("ij,ij->i", seen @ self.inverse, seen), 0.0))

    def held_out(self, parts: Sequence[NDArray[np.intp]]) -> Values:
        """Predict the rows of each part from all other rows, using the inverse already computed: float64 `(m,)`, NaN for rows in no part."""
        found = np.full(len(self.targets), np.nan)
        for rows in parts:
            left = self.targets[rows] - np.linalg.solve(self.inverse[np.ix_(rows, rows)], self.alpha[rows])
            found[rows] = self.mean + self.scale * left
        return found

    def unexplained(self) -> float:
        """The unexplained share of the variance when each row is predicted from all others."""
        return float(weighted_mean((self.alpha / np.diag(self.inverse)) ** 2, self.weights))

    def parities(self) -> Floats:
        """By how much chance exceeds, in q² of sets of even and of odd orders, what independent rows would show: float64 `(2,)`, at least 1.

        Sets of even orders have the same sign at a mask and its complement, sets of odd orders opposite ones. Where what is left is mostly of one kind, the two
        rows of such a pair say the same, and half as many rows have the same sum by chance.
        """
        if self.prior.keep_probability != UNIFORM:
            return np.ones(2)
        kept = self.signals > 0
        _, group = first_of_each(pack(kept ^ kept[:, :1]))
        sums = [np.bincount(group, self.alpha * sign) for sign in (np.ones(len(kept)), np.where(kept[:, 0], 1.0, -1.0))]
        return np.maximum([float(total @ total) / max(float(self.alpha @ self.alpha), 1e-300) for total in sums], 1.0)

    def evidence_of(self, block: Block) -> Floats:
        """q(S) for the sets of a block, float64 `(len(block),)`."""
        step = max(CHUNK // max(len(self.alpha), 1), 1)
        return np.concatenate([products(self.signals, block[start : start + step]).T @ self.alpha for start in range(0, max(len(block), 1), step)])

    def moments(self, block: Block) -> tuple[Floats, Floats]:
        """The posterior means and standard deviations of the coefficients of the sets of a block, float64 `(len(block),)` each."""
        prior, columns = self.prior.variances(block), products(self.signals, block)
        known = np.einsum("ms,ms->s", columns, self.inverse @ columns)
        return self.scale * prior * (columns.T @ self.alpha), self.scale * np.sqrt(np.maximum(prior - prior**2 * known, 0.0))

    def surrogate(self, orders: int) -> FourierSurrogate:
        """The posterior mean, with terms up to order `orders` beside those of local sets and spikes, without its weakest terms, and with its tail."""
        n, prior = self.prior.n, self.prior
        explicit = self._explicit()
        blocks, strengths = list(explicit), [self.evidence_of(block) for block in explicit]
        for block, strength in self.levels(orders, weighted=True):
            apart = _in_none_of(block, [other for other in explicit if other.shape[1] == block.shape[1]], n)
            blocks.append(block[apart])
            strengths.append(strength[apart])
        nothing = np.zeros((1, 0), dtype=np.int32)
        mean = self.mean + self.scale * (MEAN_VARIANCE + float(prior.tail.variances(nothing)[0])) * float(self.alpha.sum())
        values = [self.scale * prior.variances(block) * strength for block, strength in zip(blocks, strengths, strict=True)]
        sets, coefficients = merge(n, [nothing, *blocks], [np.array([mean]), *values])
        found = FourierSurrogate(sets, coefficients, keep_probability=prior.keep_probability)
        kept = found.take(strong_terms(sets, coefficients, min(LEFT_OUT, LEFT_OF_UNEXPLAINED * self.unexplained())))
        tail = TailSum(prior.tail, removed(self.signals) == 0, self.scale * self.alpha)
        return FourierSurrogate(kept.sets, kept.coefficients, keep_probability=prior.keep_probability, tails=(tail,))

    def fitted(self, values: Values) -> Posterior:
        """The process with the same prior and rows, conditioned on other values (float64, `(m,)`), whose mean and scale are taken to be 0 and those of these."""
        other = copy(self)
        other.mean, other.targets = 0.0, values / self.scale
        other.alpha = self.inverse @ other.targets
        return other

    def _explicit(self) -> list[Block]:
        """Local sets and spikes, one block per order."""
        by_order: dict[int, list[Block]] = {}
        for block in (*self.prior.local, *self.prior.spikes):
            by_order.setdefault(block.shape[1], []).append(block)
        return [unique_rows(np.concatenate(blocks), self.prior.n)[0] for _, blocks in sorted(by_order.items())]

    def levels(self, orders: int, *, weighted: bool, thorough: bool = False) -> list[tuple[Block, Floats]]:
        """The strongest sets of orders 1 to `orders`, grown along the hierarchy, with their q(S).

        Strength is |q(S)|, or if `weighted` its product with the relevances of the set. A `thorough` search extends as many parents as memory allows.
        """
        block = np.arange(self.prior.n, dtype=np.int32)[:, None]
        levels = [(block, self.evidence_of(block))]
        for _ in range(1, orders):
            levels.append(self._extended(*levels[-1], weighted=weighted, thorough=thorough))
        return levels

    def _extended(self, parents: Block, strength: Floats, *, weighted: bool, thorough: bool) -> tuple[Block, Floats]:
        """The strongest extensions S + {i} of the strongest parents S, with their q."""
        n, order, relevances = self.prior.n, parents.shape[1] + 1, self.prior.relevances
        size = np.abs(strength) * (relevances[parents].prod(axis=1) if weighted else 1.0)
        size[~_in_none_of(parents, [block for block in self.prior.spikes if block.shape[1] == order - 1], n)] = np.inf
        # Every single component is a parent, so no pair is missed. Up to about 140 components every pair is one too: a triple can stand out without its pairs.
        room = max(MOST_EXTENSIONS // n, n)
        kept = np.argsort(-size, kind="stable")[: room if thorough else min(PARENTS if order > 3 else PAIRS, room)]

        # Without weights, the sets are only ranked, and single precision is enough.
        signals, alpha = (self.signals, self.alpha) if weighted else (self.signals.astype(np.float32), self.alpha.astype(np.float32))

        def evidence(chosen: Block) -> Reals:
            found, step = np.empty((len(chosen), n), signals.dtype), max(CACHED // len(alpha), 1)
            for start in range(0, len(chosen), step):
                parts = products(signals, chosen[start : start + step])
                parts *= alpha[:, None]
                found[start : start + step] = parts.T @ signals
            return found

        # A set may stand out although none of its parents does: a thorough search keeps as many sets as it will extend.
        most = max(order * room, KEPT) if thorough else KEPT
        return strongest_extensions(parents[kept], evidence, len(alpha), relevances if weighted else np.ones(n, np.float32), most)


def learn(masks: Masks, values: Values, max_order: int, keep_probability: float = 0.5, seed: int = 0, weights: Values | None = None) -> Posterior:  # noqa: PLR0917
    """Train a process on masks (bool `(m, n)`) and values (`(m,)`) that vary, with spikes up to order `max_order`; deterministic in `seed`.

    A value of weight w (`weights` `(m,)`; None: equal) is the mean of w measurements and has 1/w of the noise variance of one. Relevances, scales and
    noise are learnt from at most 1,000 rows; the sets that stand out are found on at most `SEARCHED_LAST` rows.
    """
    order = np.random.default_rng(seed).permutation(len(values))
    rows = Exam(masks, values, weights)
    prior = first_look(masks, values, max_order, keep_probability, seed, weights)
    posterior = _searched(prior, _part(rows, order[:SEARCHED]), max_order)
    if len(values) > TRAINING[0][0] and posterior.unexplained() > CLEAR:
        count, steps = TRAINING[1]
        some = _part(rows, order[:count])
        prior = train(features(some.masks, keep_probability), _standard(some.values, some.weights), posterior.prior, steps, some.weights)
        posterior = _searched(prior, _part(rows, order[:SEARCHED]), max_order)
    if posterior.prior.spikes and len(values) > SEARCHED and posterior.unexplained() > CLEAR:
        wider = max(SEARCHED, min(SEARCHED_LAST, SEARCHED_ENTRIES // masks.shape[1]))
        posterior = _searched(posterior.prior, _part(rows, order[:wider]), max_order)
    return posterior if len(posterior.alpha) == len(values) else Posterior(posterior.prior, masks, values, weights)


def _part(rows: Exam, chosen: NDArray[np.intp]) -> Exam:
    """The chosen rows, in ascending order."""
    kept = np.sort(chosen)
    return Exam(rows.masks[kept], rows.values[kept], None if rows.weights is None else rows.weights[kept])


def _searched(prior: Prior, rows: Exam, max_order: int) -> Posterior:
    """Fit the process to the rows, adding sets that stand out until none remains."""
    posterior, fresh = Posterior(prior, rows.masks, rows.values, rows.weights), True
    # A random subset, as the order of the rows may be meaningful.
    few = _part(rows, np.random.default_rng(0).permutation(len(rows.values))[: TRAINING[0][0]])
    for _ in range(ROUNDS):
        wider = stand_outs(posterior, max_order) or (stand_outs(posterior, max_order, thorough=True) if fresh else None)
        if wider is None and fresh:
            break
        # The prior is retrained only when no further set is found under the current one.
        fresh = wider is None
        if wider is None:
            signals = features(few.masks, prior.keep_probability)
            prior = train(signals, _standard(few.values, few.weights), prior, RETRAINING, few.weights)
        else:
            prior = wider
        posterior = Posterior(prior, rows.masks, rows.values, rows.weights)
        if posterior.unexplained() < NOTHING_LEFT:
            break
    return posterior


def first_look(masks: Masks, values: Values, max_order: int, keep_probability: float = 0.5, seed: int = 0, weights: Values | None = None) -> Prior:  # noqa: PLR0917
    """The prior learnt from at most 500 rows, without spikes: the first step of `learn`."""
    count, steps = TRAINING[0]
    some = _part(Exam(masks, values, weights), np.random.default_rng(seed).permutation(len(values))[:count])
    signals, targets = features(some.masks, keep_probability), _standard(some.values, some.weights)
    return without_idle(train(signals, targets, first_prior(signals, targets, max_order, keep_probability, some.weights), steps, some.weights))


def stand_outs(posterior: Posterior, max_order: int, *, thorough: bool = False) -> Prior | None:
    """Return the prior with an individual variance for every set whose coefficient is unexpectedly large, or None if there is none.

    Adding a set with variance t raises the log marginal likelihood most at t = (q² - s) / s², by about half of q² / s. Each added set reduces the
    unexplained variance and with it the threshold for the next, so evidence is measured at the best-fitting overall scale yᵀK^-1y / m, by the parity of its order.
    """
    n, prior = posterior.prior.n, posterior.prior
    known = {tuple(row) for block in prior.spikes for row in block.tolist()}
    blocks = [
        block[np.argsort(-np.abs(q), kind="stable")[:EXAMINED]] for block, q in posterior.levels(min(max_order, n), weighted=False, thorough=thorough)[1:]
    ]
    if not blocks:
        return None
    names = [tuple(row) for block in blocks for row in block.tolist()]
    bars = np.concatenate([np.full(len(block), 2 * log(max(min(comb(n, block.shape[1]), PAIRS * n), 2)) + CLEARANCE) for block in blocks])
    bars[[name in known for name in names]] = np.inf
    columns = np.concatenate([products(posterior.signals, block) for block in blocks], axis=1)
    gram, strength = columns.T @ (posterior.inverse @ columns), columns.T @ posterior.alpha
    left, count = float(posterior.targets @ posterior.alpha), len(posterior.alpha)
    chance = posterior.parities()[[len(name) % 2 for name in names]]
    if not left > 0:
        return None  # the values do not vary, so nothing is unexpected
    found: dict[tuple[int, ...], float] = {}
    while len(found) < min(MOST_A_ROUND, MOST_SPIKES - len(known)):
        spread = np.maximum(np.diag(gram), 1e-300)
        scale = left / count
        evidence = strength**2 / (spread * scale * chance) - bars
        best = int(np.argmax(evidence))
        if evidence[best] <= 0:
            break
        variance = float((strength[best] ** 2 - scale * spread[best]) / spread[best] ** 2)
        found[names[best]] = variance
        bars[best] = np.inf
        # Rank-one update of the inverse, restricted to the candidate sets (Sherman-Morrison).
        share, row = 1.0 / variance + spread[best], gram[best].copy()
        left -= float(strength[best] ** 2 / share)
        strength = strength - row * (strength[best] / share)
        gram = gram - np.outer(row, row / share)
    return _with_spikes(prior, found, left / count) if found else None


def _with_spikes(prior: Prior, found: Mapping[tuple[int, ...], float], scale: float) -> Prior:
    """Add individual variances for the found sets, rescaling the rest of the prior to the variance they leave unexplained."""
    by_order: dict[int, list[tuple[int, ...]]] = {}
    for members in found:
        by_order.setdefault(len(members), []).append(members)
    blocks = tuple(np.array(group, dtype=np.int32) for group in by_order.values())
    variances = tuple(np.array([found[members] for members in group]) for group in by_order.values())
    return replace(
        prior,
        local_scales=prior.local_scales * scale,
        tail_variance=prior.tail_variance * scale,
        noise=prior.noise.scaled(scale),
        spikes=prior.spikes + blocks,
        spike_variances=prior.spike_variances + variances,
    )


def _standard(values: Values, weights: Values | None) -> Values:
    mean, scale = moments(values, weights)
    return (values - mean) / scale


def _in_none_of(block: Block, others: Sequence[Block], n: int) -> NDArray[np.bool_]:
    """The rows of a block that are in none of the others, bool `(len(block),)`."""
    if not others or not len(block):
        return np.ones(len(block), dtype=np.bool_)
    known = np.concatenate(others)
    unique, inverse = unique_rows(np.concatenate([known, block]), n)
    taken = np.zeros(len(unique), dtype=np.bool_)
    taken[inverse[: len(known)]] = True
    return ~taken[inverse[len(known) :]]
