"""Active choices: the most informative masks, and the P(keep) at which values still resemble the intact value."""

from __future__ import annotations

import numpy as np

from raysp.masks import Masks, Values
from raysp.sampling.draws import distinct, random_masks
from raysp.spectral.posterior import Posterior
from raysp.spectral.sets import Floats, features

#: Random masks among which the most informative are chosen, for each one wanted; at least, and at most.
POOL_FACTOR, POOL_LEAST, POOL_MOST = 8, 500, 3000
#: P(keep) tried by a pilot, from the plain question to the gentlest, and the masks at each.
PILOT_GRID, PILOT_MASKS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95), 8
#: Share of the way from the empty to the intact value that masks must keep on average for their values to resemble the intact one's.
RESEMBLING = 0.5


def most_telling(posterior: Posterior, count: int, rng: np.random.Generator, known: Masks) -> Masks:
    """`count` masks, none of them `known`, whose values are jointly the least certain under the process (bool, `(count, n)`; fewer where there are no more).

    Greedy: the mask with the largest variance is taken, and the variances of all others fall by what its value reveals about them.
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
    learnt: Floats = np.zeros((len(pool), count))
    chosen: list[int] = []
    for step in range(count):
        best = int(np.argmax(variance))
        covariance = prior.matrix(signals, signals[best][None])[:, 0] - solved @ seen[best] - learnt[:, :step] @ learnt[best, :step]
        learnt[:, step] = covariance / np.sqrt(max(float(covariance[best]), 0.0) + prior.noise)
        variance = variance - learnt[:, step] ** 2
        chosen.append(best)
        variance[chosen] = -np.inf
    return pool[np.sort(chosen)]


def pilot_masks(n: int, rng: np.random.Generator) -> tuple[Masks, Floats]:
    """The intact mask, the empty one, and a few at each P(keep) of the grid, distinct: bool `(m, n)`, with the P(keep) of each (1 and 0 for the first two)."""
    masks = [np.ones((1, n), dtype=np.bool_), np.zeros((1, n), dtype=np.bool_)]
    kept = [1.0, 0.0]
    for keep_probability in PILOT_GRID:
        fresh = random_masks(n, PILOT_MASKS, keep_probability, rng, distinct(np.concatenate(masks)))
        masks.append(fresh)
        kept += [keep_probability] * len(fresh)
    return np.concatenate(masks), np.array(kept)


def resembling(kept: Floats, values: Values) -> float:
    """The smallest P(keep) of a pilot at which the median value has come at least half of the way from the empty to the intact one.

    Where the two are alike, values are compared by how far they stray from the intact one. The largest of the grid when none resembles it.
    """
    intact, empty = float(values[0]), float(values[1])
    away = {p: np.abs(values[kept == p] - intact) for p in PILOT_GRID if np.any(kept == p)}
    furthest = max(abs(intact - empty), *(float(np.median(each)) for each in away.values()))
    good = [p for p, each in away.items() if furthest == 0 or np.median(each) <= (1 - RESEMBLING) * furthest]
    return min(good) if good else PILOT_GRID[-1]
