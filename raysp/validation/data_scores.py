"""Scores of data attribution: how well a method predicts the outputs of models retrained on other subsets. Operates on numpy arrays.

Pure: predictions and outputs are arrays with one row per subset (or component) and one column per query. Conventions: higher outputs are better, an effect is
that of removal, v(all) - v(all without it), and correlations are Spearman's unless stated otherwise.

Sources: the linear datamodeling score (Park et al. 2023, TRAK, definition 2.4; Ilyas et al. 2022, Datamodels), counterfactual brittleness (ibid., section 5.2),
the Spearman-Brown formula and the correction for attenuation (Spearman 1904, 1910).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks

Floats = NDArray[np.float64]
Kind = Literal["spearman", "pearson"]

#: The number of resamples for an interval.
RESAMPLES = 1000
#: The largest number of resampled ranks held in memory at once.
CHUNK = 1 << 22
#: Differences below this share of a column's range are rounding errors and count as ties.
ROUNDING = 1e-10
#: The largest number of ways in which the training seeds are split into halves.
SPLITS = 10
#: The number of permutations of the components from which a floor is computed.
SHUFFLES = 20
#: The quantiles that bound an interval.
QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Correlation:
    """One correlation per query, float64 `(q,)`, NaN for the queries `left_out` because their outputs do not vary; and the mean over the others."""

    by_query: Floats
    mean: Estimate
    left_out: tuple[int, ...]


@dataclass(frozen=True)
class Ceiling:
    """The reliability of retraining across seeds, which limits every score.

    `halves` is the correlation between the means over two disjoint halves of the seeds; `averaged` is the expected correlation between two means over `seeds` seeds
    each (Spearman-Brown); `attainable`, its square root, is the score against such a mean of a method that knows the expected output.
    """

    seeds: int
    halves: Correlation
    averaged: Estimate
    attainable: Estimate


@dataclass(frozen=True)
class Fall:
    """The effect of removing k components: the mean fall of the outputs, and the share of queries whose output turned from positive to negative.

    `flipped` is None if no query's output was positive.
    """

    fall: Estimate
    flipped: Estimate | None


def lds(predicted: Floats, actual: Floats, *, draws: int = RESAMPLES, seed: int = 0) -> Correlation:
    """The linear datamodeling score: Spearman's correlation between predicted and actual outputs (float64 `(m, q)` each) by query, and the mean over queries.

    The interval comes from resampling queries and subsets with replacement. Both are samples: the subsets, drawn once for all queries as these share the
    trainings, and the queries, as the mean is meant to generalise to similar ones. Queries whose outputs do not vary are left out; a constant prediction scores 0.
    """
    return correlate([(predicted, actual)], "spearman", draws=draws, seed=seed)


def leave_one_out(predicted: Floats, exact: Floats, kind: Kind = "spearman", *, draws: int = RESAMPLES, seed: int = 0) -> Correlation:
    """Correlation by query between predicted and exact effects of removing single components, float64 `(components, q)` each; intervals as in `lds`."""
    return correlate([(predicted, exact)], kind, draws=draws, seed=seed)


def ceiling(outputs: Floats, *, draws: int = RESAMPLES, seed: int = 0) -> Ceiling:
    """The ceiling of scores, from outputs on the same subsets with several training seeds, float64 `(seeds, m, q)`; ValueError for fewer than two seeds.

    Negative correlations are set to zero before applying the Spearman-Brown formula, which is exact for Pearson correlations and approximate for ranks.
    """
    seeds = len(outputs)
    if seeds < 2:
        raise ValueError("the outputs are for one seed; at least two are required")
    halves = [(outputs[list(one)].mean(axis=0), outputs[list(other)].mean(axis=0)) for one, other in _halves(seeds)]
    found, drawn, chosen = _resampled(halves, "spearman", draws, seed)
    ratio = seeds / (seeds // 2)

    def averaged(correlations: Floats) -> Floats:
        least = np.maximum(correlations, 0.0)
        return ratio * least / (1.0 + (ratio - 1.0) * least)

    return Ceiling(
        seeds,
        _correlation(found, drawn, chosen),
        _estimate(averaged(found), averaged(drawn), chosen),
        _estimate(np.sqrt(averaged(found)), np.sqrt(averaged(drawn)), chosen),
    )


def random_floor(predict: Callable[[Masks], Floats], masks: Masks, actual: Floats, *, shuffles: int = SHUFFLES, seed: int = 0) -> Estimate:
    """The score of predictions (`predict`: bool `(m, n)` to float64 `(m, q)`) after randomly permuting the components.

    Returns the mean and the 95% range over permutations: the chance level for predictions with this distribution.
    """
    rng = np.random.default_rng(seed)
    shuffled = [_correlations([(predict(masks[:, rng.permutation(masks.shape[1])]), actual)], "spearman") for _ in range(shuffles)]
    scores = [float(found[~np.isnan(found)].mean()) if not np.isnan(found).all() else float("nan") for found in shuffled]
    lo, hi = np.quantile(scores, QUANTILES)
    return Estimate(float(np.mean(scores)), float(lo), float(hi))


def mislabel_auc(effects: Floats, mislabelled: NDArray[np.bool_], *, draws: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Area under the ROC curve: how often a mislabelled example has a lower effect (float64 `(n,)`), and so ranks as more harmful, than a correct one.

    Ties count half. The interval comes from resampling mislabelled and correct examples separately. ValueError unless there are both.
    """
    if mislabelled.all() or not mislabelled.any():
        raise ValueError("all examples are mislabelled, or none is; an AUC needs both kinds")
    bad, good = effects[mislabelled], effects[~mislabelled]
    wins = (bad[:, None] < good).astype(np.float64) + 0.5 * (bad[:, None] == good)
    rng = np.random.default_rng(seed)
    one = rng.multinomial(len(bad), np.full(len(bad), 1 / len(bad)), draws) / len(bad)
    other = rng.multinomial(len(good), np.full(len(good), 1 / len(good)), draws) / len(good)
    lo, hi = np.quantile(((one @ wins) * other).sum(axis=1), QUANTILES)
    return Estimate(float(wins.mean()), float(lo), float(hi))


def brittleness(intact: Floats, after: Floats, *, draws: int = RESAMPLES, seed: int = 0) -> Fall:
    """Compare each query's output with all components, float64 `(q,)`, and without some, float64 `(repeats, q)` (one row per removal).

    The intervals come from resampling queries.
    """
    rng = np.random.default_rng(seed)
    fall = _spread((intact - after).mean(axis=0), draws, rng)
    decided = intact > 0
    flipped = _spread((after[:, decided] < 0).mean(axis=0), draws, rng) if decided.any() else None
    return Fall(fall, flipped)


def without_most_helpful(effects: Floats, k: int) -> Masks:
    """One mask per query without the k components with the highest effects (float64 `(n, q)`): bool `(q, n)`."""
    masks = np.ones(effects.T.shape, dtype=np.bool_)
    np.put_along_axis(masks, np.argsort(-effects.T, axis=1, kind="stable")[:, :k], values=False, axis=1)
    return masks


def additive_predictions(effects: Floats, masks: Masks) -> Floats:
    """Outputs of masks (bool `(m, n)`) predicted from additive removal effects (float64 `(n, q)`), up to a constant per query: float64 `(m, q)`."""
    return -(~masks).astype(np.float64) @ effects


def paired_difference(one: Floats, others: Floats, *, draws: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of `one` (float64 `(seeds, q)`) minus that of `others` (`(repeats, seeds, q)`, same seeds and queries); the interval resamples all three axes."""
    rng = np.random.default_rng(seed)
    repeats, seeds, queries = others.shape
    drawn = [rng.integers(0, size, (draws, size)) for size in (repeats, seeds, queries)]
    of_one = _gathered(one[None], [np.zeros((draws, 1), dtype=np.intp), *drawn[1:]])
    lo, hi = np.quantile(of_one - _gathered(others, drawn), QUANTILES)
    return Estimate(float(one.mean() - others.mean()), float(lo), float(hi))


def _gathered(array: Floats, drawn: Sequence[NDArray[np.intp]]) -> Floats:
    """The mean over the drawn entries along each of three axes, float64 `(draws,)`."""
    repeats, seeds, queries = drawn
    return array[repeats[:, :, None, None], seeds[:, None, :, None], queries[:, None, None, :]].mean(axis=(1, 2, 3))


# ---- correlations and their resamples

Pairs = Sequence[tuple[Floats, Floats]]


def correlate(pairs: Pairs, kind: Kind, *, draws: int = RESAMPLES, seed: int = 0) -> Correlation:
    """Correlations by column of each pair of arrays `(m, q)`, averaged over the pairs; a pair is (predicted, actual)."""
    return _correlation(*_resampled(pairs, kind, draws, seed))


def _resampled(pairs: Pairs, kind: Kind, draws: int, seed: int) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """The correlations `(q,)`, those on resampled rows `(draws, q)`, and the queries resampled in each draw, intp `(draws, used)`."""
    rows = len(pairs[0][0])
    found = _correlations(pairs, kind)
    used = np.flatnonzero(~np.isnan(found))
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(rows, np.full(rows, 1 / rows), draws).astype(np.float64)
    drawn = np.mean([_weighted(one, other, counts, kind) for one, other in pairs], axis=0)
    return found, drawn, used[rng.integers(0, max(len(used), 1), (draws, len(used)))] if len(used) else np.zeros((draws, 0), dtype=np.intp)


def _correlations(pairs: Pairs, kind: Kind) -> Floats:
    """Correlations averaged over the pairs, float64 `(q,)`; NaN where the actual outputs do not vary."""
    return np.mean([_weighted(one, other, np.ones((1, len(one))), kind)[0] for one, other in pairs], axis=0)


def _weighted(predicted: Floats, actual: Floats, counts: Floats, kind: Kind) -> Floats:
    """Correlations by column with rows repeated `counts[draw]` times: float64 `(draws, q)`. 0 where predictions do not vary, NaN where outputs do not."""
    if predicted.shape != actual.shape:
        raise ValueError(f"predictions have shape {predicted.shape} but outputs {actual.shape}; the shapes must be equal")
    result = np.empty((len(counts), actual.shape[1]))
    size = max(1, CHUNK // max(actual.size, 1))
    for start in range(0, len(counts), size):
        some = counts[start : start + size]
        one, other = (_ranks(_levelled(array), some) if kind == "spearman" else _levelled(array)[None] for array in (predicted, actual))
        result[start : start + size] = _pearson(one, other, some)
    return result


def _pearson(one: Floats, other: Floats, counts: Floats) -> Floats:
    weights = counts[:, :, None] / counts.sum(axis=1)[:, None, None]
    one, other = (array - (weights * array).sum(axis=1, keepdims=True) for array in (one, other))
    spreads = [np.sqrt((weights * array**2).sum(axis=1)) for array in (one, other)]
    scales = [np.abs(array).max(axis=1) for array in (one, other)]
    varies = [spread > ROUNDING * scale for spread, scale in zip(spreads, scales, strict=True)]
    product = np.where(varies[0] & varies[1], spreads[0] * spreads[1], 1.0)
    found = np.clip((weights * one * other).sum(axis=1) / product, -1.0, 1.0)
    return np.where(varies[1], np.where(varies[0], found, 0.0), np.nan)


def _levelled(array: Floats) -> Floats:
    """Columns scaled to [0, 1] and rounded, so that values equal up to rounding errors become ties; 0 for constant columns."""
    low, high = array.min(axis=0), array.max(axis=0)
    varies = high - low > ROUNDING * np.maximum(np.abs(low), np.abs(high))
    return np.where(varies, np.round((array - low) / np.where(varies, high - low, 1.0), 10), 0.0)


def _ranks(array: Floats, counts: Floats) -> Floats:
    """Ranks by column of rows repeated `counts[draw]` times, averaged over ties: float64 `(draws, m, q)`."""
    ranks = np.empty((len(counts), *array.shape))
    for column, values in enumerate(array.T):
        _, group = np.unique(values, return_inverse=True)
        sizes = counts @ (group[:, None] == np.arange(group.max() + 1)).astype(np.float64)
        ranks[:, :, column] = (np.cumsum(sizes, axis=1) - sizes / 2)[:, group]
    return ranks


def _correlation(found: Floats, drawn: Floats, chosen: NDArray[np.intp]) -> Correlation:
    return Correlation(found, _estimate(found, drawn, chosen), tuple(np.flatnonzero(np.isnan(found)).tolist()))


def _estimate(found: Floats, drawn: Floats, chosen: NDArray[np.intp]) -> Estimate:
    """Mean over the queries that vary, and its interval from resampled rows and queries; NaN if none varies."""
    if not chosen.shape[1]:
        return Estimate(float("nan"), float("nan"), float("nan"))
    taken = np.take_along_axis(drawn, chosen, axis=1)
    there = ~np.isnan(taken)  # in a draw of few rows, all outputs may be equal
    means = np.where(there, taken, 0.0).sum(axis=1)[there.any(axis=1)] / there.sum(axis=1)[there.any(axis=1)]
    lo, hi = np.quantile(means, QUANTILES)
    return Estimate(float(np.nanmean(found)), float(lo), float(hi))


def _spread(values: Floats, draws: int, rng: np.random.Generator) -> Estimate:
    """Mean of values by query, with an interval from resampled queries."""
    lo, hi = np.quantile(values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1), QUANTILES)
    return Estimate(float(values.mean()), float(lo), float(hi))


def _halves(seeds: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs of disjoint halves of the seeds, each pair once; with an odd number of seeds, each pair omits one."""
    half = seeds // 2
    count = comb(seeds, half) * comb(seeds - half, half) // 2
    if count <= SPLITS:
        ways = itertools.product(itertools.combinations(range(seeds), half), repeat=2)
        return [(one, other) for one, other in ways if one < other and not {*one} & {*other}]
    rng, found = np.random.default_rng(seeds), dict[tuple[tuple[int, ...], tuple[int, ...]], None]()
    while len(found) < SPLITS:
        order = rng.permutation(seeds).tolist()
        one, other = sorted((tuple(sorted(order[:half])), tuple(sorted(order[half : 2 * half]))))
        found[one, other] = None
    return list(found)


# ---- subsets to score on


def held_out_subsets(n: int, kept: int, count: int, rng: np.random.Generator, excluded: Masks) -> Masks:
    """`count` distinct masks that keep exactly `kept` components and are not among `excluded` (bool `(m, n)`); fewer if that many do not exist."""
    seen = {row.tobytes() for row in np.packbits(excluded, axis=1)}
    room = comb(n, kept)
    if room <= 4 * (count + len(seen)):
        every = np.zeros((room, n), dtype=np.bool_)
        for row, members in enumerate(itertools.combinations(range(n), kept)):
            every[row, members] = True
        every = every[[row.tobytes() not in seen for row in np.packbits(every, axis=1)]]
        return every[rng.permutation(len(every))[:count]]
    found: list[Masks] = []
    while len(found) < count:
        mask = np.zeros(n, dtype=np.bool_)
        mask[rng.choice(n, kept, replace=False)] = True
        key = np.packbits(mask).tobytes()
        if key not in seen:
            seen.add(key)
            found.append(mask)
    return np.array(found, dtype=np.bool_).reshape(-1, n)
