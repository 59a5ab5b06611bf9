"""Adaptive design: the most informative masks, and the smallest P(keep) at which values still resemble the intact value."""

from __future__ import annotations

import numpy as np

from raysp.explorers.changes import Changes
from raysp.explorers.samples import Rows, Sample
from raysp.masks import Masks, Values
from raysp.sampling.ablations import pair_ablations
from raysp.sampling.draws import random_masks
from raysp.sampling.matching import distinct
from raysp.spectral.posterior import Posterior, learn
from raysp.spectral.sets import Floats, features
from raysp.threads import one_thread

#: Size of the pool of random masks from which the most informative are chosen: a multiple of the number wanted, with a minimum and a maximum.
POOL_FACTOR, POOL_LEAST, POOL_MOST = 8, 500, 3000
#: Maximum number of rows from which the kernel that chooses masks is learnt.
LEARNT = 2500
#: Standard deviations that are added to the expected deviation of a pair.
UNCERTAIN = 2.0
#: Maximum number of pairs compared by their expected deviation, and of pairs whose uncertainty is computed, as a multiple of the number wanted.
MOST_PAIRS, EXAMINED = 20_000, 4
#: The values of P(keep) tried by a pilot, and the number of masks for each.
PILOT_GRID, PILOT_MASKS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95), 8
#: Share of the distance from the empty to the intact value that the median value must cover to resemble the intact one.
RESEMBLING = 0.5


def learnt(sample: Sample, rows: Rows) -> Posterior:
    """The kernel learnt from some rows of a sample."""
    kept = np.sort(rows)
    return learn(sample.masks[kept], sample.values[kept], sample.max_order, sample.keep_probability, sample.seed, sample.weights_of(kept))


def most_telling(posterior: Posterior, count: int, rng: np.random.Generator, known: Masks) -> Masks:
    """Choose `count` masks, not among `known`, whose values are jointly most uncertain under the process (bool, `(count, n)`; fewer if the pool is small).

    The choice is greedy: the mask with the largest posterior variance is selected, and the variances of the others are conditioned on its value.
    """
    prior = posterior.prior
    wanted = int(np.clip(POOL_FACTOR * count, POOL_LEAST, POOL_MOST))
    pool = random_masks(prior.n, wanted, prior.keep_probability, rng, known)
    if len(pool) <= count:
        return pool
    signals = features(pool, prior.keep_probability)
    seen = prior.matrix(signals, posterior.signals)
    solved = seen @ posterior.inverse
    variance = np.array([prior.matrix(row[None], row[None])[0, 0] for row in signals]) - np.einsum("ij,ij->i", solved, seen)
    noises = prior.noises(signals)
    learnt: Floats = np.zeros((len(pool), count))
    chosen: list[int] = []
    for step in range(count):
        best = int(np.argmax(variance))
        covariance = prior.matrix(signals, signals[best][None])[:, 0] - solved @ seen[best] - learnt[:, :step] @ learnt[best, :step]
        learnt[:, step] = covariance / np.sqrt(max(float(covariance[best]), 0.0) + noises[best])
        variance = variance - learnt[:, step] ** 2
        chosen.append(best)
        variance[chosen] = -np.inf
    return pool[np.sort(chosen)]


def next_pairs(sample: Sample, effects: Values | None, changes: Changes | None, count: int, known: Masks) -> Masks:
    """The next `count` pairs to measure, as ablations not among `known`: by the changes of slopes if there are some that agree, otherwise by a kernel.

    `effects` `(n,)` are the measured single effects. Fewer if there are fewer; none if there are no effects, or the values of the sample do not vary.
    """
    if changes is not None and changes.agree and len(changed := changed_pairs(changes, count, known)):
        return changed
    if not sample.varies or effects is None:
        return known[:0]
    fixed = np.flatnonzero(~sample.scored)
    # Drawn, as masks come in order of their sizes.
    others = np.random.default_rng(sample.seed).permutation(np.flatnonzero(sample.scored))[: max(LEARNT - len(fixed), 0)]
    rows = np.concatenate([fixed, others])
    with one_thread():
        return suspected_pairs(learnt(sample, rows), effects, count, known)


def changed_pairs(changes: Changes, count: int, known: Masks) -> Masks:
    """The `count` pairs whose deviation from additivity is estimated to be strongest, as ablations not among `known`, bool `(count, n)`; fewer if there are fewer."""
    ranked = changes.ranked[: count + len(known)]
    return distinct(pair_ablations(len(changes.intact), ranked), known)[:count]


def suspected_pairs(posterior: Posterior, effects: Values, count: int, known: Masks) -> Masks:
    """The `count` pairs whose deviation from additivity may be strongest, as ablations not among `known`, bool `(count, n)`; fewer if there are fewer.

    `effects` are the measured single effects, float64 `(n,)`, so a deviation is as uncertain as the value without the pair. Pairs are ranked by the size of the
    expected deviation plus two standard deviations. Among very many components, only the pairs of the most relevant ones are compared.
    """
    n = len(effects)
    first, second = np.triu_indices(n, 1)
    if len(first) > MOST_PAIRS:
        among = np.sort(np.argsort(-posterior.prior.relevances, kind="stable")[: int(np.sqrt(2 * MOST_PAIRS))])
        first, second = (among[rows] for rows in np.triu_indices(len(among), 1))
    masks = pair_ablations(n, np.stack([first, second], axis=1))
    intact = float(posterior.predict(np.ones((1, n), dtype=np.bool_))[0])
    size = np.abs(intact - posterior.predict(masks) - effects[first] - effects[second])
    widest = posterior.scale * np.sqrt(posterior.prior.variances(np.stack([first, second], axis=1).astype(np.int32)))
    examined = np.sort(np.argsort(-(size + 4 * widest), kind="stable")[: max(EXAMINED * count, POOL_LEAST)])
    strength = size[examined] + UNCERTAIN * posterior.deviations(masks[examined])
    ranked = masks[examined[np.argsort(-strength, kind="stable")]]
    return distinct(ranked, known)[:count]


def pilot_masks(n: int, rng: np.random.Generator) -> tuple[Masks, Floats]:
    """Distinct masks of a pilot: the intact one, the empty one, and `PILOT_MASKS` for each P(keep) of the grid.

    Returns the masks, bool `(m, n)`, and their P(keep), float64 `(m,)` (1 and 0 for the first two).
    """
    masks = [np.ones((1, n), dtype=np.bool_), np.zeros((1, n), dtype=np.bool_)]
    kept = [1.0, 0.0]
    for keep_probability in PILOT_GRID:
        fresh = random_masks(n, PILOT_MASKS, keep_probability, rng, distinct(np.concatenate(masks)))
        masks.append(fresh)
        kept += [keep_probability] * len(fresh)
    return np.concatenate(masks), np.array(kept)


def resembling(kept: Floats, values: Values) -> float:
    """The smallest P(keep) of a pilot at which values resemble the intact one.

    That is, the median distance to the intact value is at most half of the largest distance, which is that of the empty mask or the largest median over
    the grid. If no P(keep) qualifies, the largest one is returned.
    """
    intact, empty = float(values[0]), float(values[1])
    away = {p: np.abs(values[kept == p] - intact) for p in PILOT_GRID if np.any(kept == p)}
    furthest = max(abs(intact - empty), *(float(np.median(each)) for each in away.values()))
    good = [p for p, each in away.items() if furthest == 0 or np.median(each) <= (1 - RESEMBLING) * furthest]
    return min(good) if good else PILOT_GRID[-1]
