"""How well a method says what a training on other examples would have answered: the scores of data attribution, on numpy arrays.

Knows neither models nor stores: predictions and outputs come in as arrays, one row a subset (or a component) and one column a query. Conventions:
outputs are such that more is better, an effect is that of removal, v(all) - v(all without it), and correlations are Spearman's unless they say so.

Sources: the linear datamodeling score (Park et al. 2023, TRAK, definition 2.4; Ilyas et al. 2022, Datamodels), counterfactual brittleness (ibid. 5.2),
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

#: Resamples for an interval.
RESAMPLES = 1000
#: Entries of the largest array of resampled ranks held at once.
CHUNK = 1 << 22
#: Differences that are this small beside a column's range are rounding, and count as ties.
ROUNDING = 1e-10
#: Ways at most in which the training seeds are split into halves.
SPLITS = 10
#: Shufflings of the components behind a floor.
SHUFFLES = 20
#: What an interval spans.
QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Correlation:
    """A correlation a query, float64 `(q,)`, NaN for the queries `left_out` because their outputs do not vary; and the mean over the others."""

    by_query: Floats
    mean: Estimate
    left_out: tuple[int, ...]


@dataclass(frozen=True)
class Ceiling:
    """What trainings from other seeds say of one another.

    `halves` is the correlation between the means of two disjoint halves of the seeds; `averaged` the one to be expected between two means of all
    `seeds` (Spearman-Brown); `attainable` its square root: the score against such a mean of a method that knew what trainings do on average.
    """

    seeds: int
    halves: Correlation
    averaged: Estimate
    attainable: Estimate


@dataclass(frozen=True)
class Fall:
    """What removing k components did: how far outputs fell, and in which share of the queries decided rightly before the output went below zero.

    `flipped` is None where no query's output was above zero.
    """

    fall: Estimate
    flipped: Estimate | None


def lds(predicted: Floats, actual: Floats, *, draws: int = RESAMPLES, seed: int = 0) -> Correlation:
    """The linear datamodeling score: per query Spearman's correlation between predicted and actual outputs, float64 `(m, q)` each; their mean.

    The interval comes from resampling queries and subsets, each with repetition: subsets because another hundred of them would give other
    correlations, the same for all queries as they share the trainings; queries because the mean is meant for questions like these, not only for them.
    A query whose outputs do not vary is left out; a prediction that does not vary says nothing, and scores 0.
    """
    return correlate([(predicted, actual)], "spearman", draws=draws, seed=seed)


def leave_one_out(predicted: Floats, exact: Floats, kind: Kind = "spearman", *, draws: int = RESAMPLES, seed: int = 0) -> Correlation:
    """Correlation a query between predicted and exact effects of removing single components, float64 `(components, q)` each; interval as `lds`."""
    return correlate([(predicted, exact)], kind, draws=draws, seed=seed)


def ceiling(outputs: Floats, *, draws: int = RESAMPLES, seed: int = 0) -> Ceiling:
    """From the outputs of the same subsets trained from several seeds, float64 `(seeds, m, q)`; ValueError for fewer than two.

    A correlation below zero counts as none before Spearman-Brown, which was made for Pearson's and holds for ranks roughly.
    """
    seeds = len(outputs)
    if seeds < 2:
        raise ValueError("the outputs are of one seed; at least two are needed")
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
    """The score of predictions (`predict`: bool `(m, n)` to float64 `(m, q)`) that take the components for one another.

    Mean and 95 % range over shufflings: scores that chance alone gives a method whose predictions are spread as these are.
    """
    rng = np.random.default_rng(seed)
    shuffled = [_correlations([(predict(masks[:, rng.permutation(masks.shape[1])]), actual)], "spearman") for _ in range(shuffles)]
    scores = [float(found[~np.isnan(found)].mean()) if not np.isnan(found).all() else float("nan") for found in shuffled]
    lo, hi = np.quantile(scores, QUANTILES)
    return Estimate(float(np.mean(scores)), float(lo), float(hi))


def mislabel_auc(effects: Floats, mislabelled: NDArray[np.bool_], *, draws: int = RESAMPLES, seed: int = 0) -> Estimate:
    """How often a mislabelled example ranks as more harmful (a lower effect, float64 `(n,)`) than another one: the area under the ROC curve.

    Ties count half. Interval: resampled examples, the mislabelled among themselves. ValueError unless there are both.
    """
    if mislabelled.all() or not mislabelled.any():
        raise ValueError("all examples are mislabelled, or none is: there is nothing to tell apart")
    bad, good = effects[mislabelled], effects[~mislabelled]
    wins = (bad[:, None] < good).astype(np.float64) + 0.5 * (bad[:, None] == good)
    rng = np.random.default_rng(seed)
    one = rng.multinomial(len(bad), np.full(len(bad), 1 / len(bad)), draws) / len(bad)
    other = rng.multinomial(len(good), np.full(len(good), 1 / len(good)), draws) / len(good)
    lo, hi = np.quantile(((one @ wins) * other).sum(axis=1), QUANTILES)
    return Estimate(float(wins.mean()), float(lo), float(hi))


def brittleness(intact: Floats, after: Floats, *, draws: int = RESAMPLES, seed: int = 0) -> Fall:
    """From each query's output with all components, float64 `(q,)`, and without some, `(repeats, q)`: several random removals, or the one chosen.

    Intervals: resampled queries.
    """
    rng = np.random.default_rng(seed)
    fall = _spread((intact - after).mean(axis=0), draws, rng)
    decided = intact > 0
    flipped = _spread((after[:, decided] < 0).mean(axis=0), draws, rng) if decided.any() else None
    return Fall(fall, flipped)


def without_most_helpful(effects: Floats, k: int) -> Masks:
    """One mask a query without the k components that help it most, from effects float64 `(n, q)`: bool `(q, n)`."""
    masks = np.ones(effects.T.shape, dtype=np.bool_)
    np.put_along_axis(masks, np.argsort(-effects.T, axis=1, kind="stable")[:, :k], values=False, axis=1)
    return masks


def additive_predictions(effects: Floats, masks: Masks) -> Floats:
    """What removal effects (float64 `(n, q)`) that add up say of masks (bool `(m, n)`), up to a constant a query: float64 `(m, q)`."""
    return -(~masks).astype(np.float64) @ effects


def paired_difference(one: Floats, others: Floats, *, draws: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of one minus others: outputs float64 `(seeds, q)`, and `(repeats, seeds, q)` of the same seeds and queries; all three are resampled."""
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
    """Correlations by column of each pair of arrays `(m, q)`, averaged over the pairs; the second of a pair is what happened."""
    return _correlation(*_resampled(pairs, kind, draws, seed))


def _resampled(pairs: Pairs, kind: Kind, draws: int, seed: int) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """The correlations `(q,)`, those of resampled rows `(draws, q)`, and the queries that each draw takes `(draws, used)`."""
    rows = len(pairs[0][0])
    found = _correlations(pairs, kind)
    used = np.flatnonzero(~np.isnan(found))
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(rows, np.full(rows, 1 / rows), draws).astype(np.float64)
    drawn = np.mean([_weighted(one, other, counts, kind) for one, other in pairs], axis=0)
    return found, drawn, used[rng.integers(0, max(len(used), 1), (draws, len(used)))] if len(used) else np.zeros((draws, 0), dtype=np.intp)


def _correlations(pairs: Pairs, kind: Kind) -> Floats:
    """Averaged over the pairs, float64 `(q,)`; NaN where the second does not vary."""
    return np.mean([_weighted(one, other, np.ones((1, len(one))), kind)[0] for one, other in pairs], axis=0)


def _weighted(predicted: Floats, actual: Floats, counts: Floats, kind: Kind) -> Floats:
    """Correlations by column with rows counted `counts[draw]` times: float64 `(draws, q)`. 0 where predictions do not vary, NaN where outputs do not."""
    if predicted.shape != actual.shape:
        raise ValueError(f"predictions have shape {predicted.shape}, outputs {actual.shape}; expected the same")
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
    """Columns from 0 to 1, rounding taken for equality; 0 where they do not vary."""
    low, high = array.min(axis=0), array.max(axis=0)
    varies = high - low > ROUNDING * np.maximum(np.abs(low), np.abs(high))
    return np.where(varies, np.round((array - low) / np.where(varies, high - low, 1.0), 10), 0.0)


def _ranks(array: Floats, counts: Floats) -> Floats:
    """Mean ranks by column of rows that count `counts[draw]` times, ties sharing theirs: float64 `(draws, m, q)`."""
    ranks = np.empty((len(counts), *array.shape))
    for column, values in enumerate(array.T):
        _, group = np.unique(values, return_inverse=True)
        sizes = counts @ (group[:, None] == np.arange(group.max() + 1)).astype(np.float64)
        ranks[:, :, column] = (np.cumsum(sizes, axis=1) - sizes / 2)[:, group]
    return ranks


def _correlation(found: Floats, drawn: Floats, chosen: NDArray[np.intp]) -> Correlation:
    return Correlation(found, _estimate(found, drawn, chosen), tuple(np.flatnonzero(np.isnan(found)).tolist()))


def _estimate(found: Floats, drawn: Floats, chosen: NDArray[np.intp]) -> Estimate:
    """Mean over the queries that vary, and its interval from the draws of rows and of queries; NaN where none varies."""
    if not chosen.shape[1]:
        return Estimate(float("nan"), float("nan"), float("nan"))
    taken = np.take_along_axis(drawn, chosen, axis=1)
    there = ~np.isnan(taken)  # a draw of few rows may hold none that differ
    means = np.where(there, taken, 0.0).sum(axis=1)[there.any(axis=1)] / there.sum(axis=1)[there.any(axis=1)]
    lo, hi = np.quantile(means, QUANTILES)
    return Estimate(float(np.nanmean(found)), float(lo), float(hi))


def _spread(values: Floats, draws: int, rng: np.random.Generator) -> Estimate:
    """Mean of values by query, with the interval of resampled queries."""
    lo, hi = np.quantile(values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1), QUANTILES)
    return Estimate(float(values.mean()), float(lo), float(hi))


def _halves(seeds: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Disjoint halves of the seeds, each pair once; one seed is spared in turn where they are odd in number."""
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
    """`count` distinct masks that keep exactly `kept` components, none of them `excluded` (bool `(m, n)`); fewer where there are no more."""
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
