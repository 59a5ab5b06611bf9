"""Sets grown along the hierarchy: the strongest extensions of given sets by one component, and sums without their weakest terms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from raysp.spectral.sets import Block, Floats, Reals, Sets, unique_rows

#: Extensions kept per batch of parents, and maximum number of entries of an array over the parents of a batch.
KEPT, CHUNK = 50_000, 1 << 24


def strongest_extensions(parents: Block, evidence: Callable[[Block], Reals], rows: int, relevances: Reals, most: int = KEPT) -> tuple[Block, Floats]:
    """The strongest extensions S + {i} of `parents` S (int32 `(k, order)`) by one component, with their evidence.

    `evidence` computes it for a batch of parents and all components, `(k, n)`, from arrays of so many `rows`. Strength is its size times the relevances
    (`(n,)`) of the set. Of a batch, `most` are kept; a set counts once for each of its parents.
    """
    order, count = parents.shape[1], len(relevances)
    blocks: list[Block] = []
    found: list[Reals] = []
    step = max(CHUNK // max(rows, count), 1)
    for start in range(0, len(parents), step):
        chosen = parents[start : start + step]
        every = evidence(chosen)
        score = np.abs(every) * relevances[chosen].prod(axis=1)[:, None] * relevances
        score[np.repeat(np.arange(len(chosen)), order), chosen.ravel()] = -1.0  # S + {i} with i in S is not a set of the next order
        best = np.argpartition(-score, min(most, score.size - 1), axis=None)[:most]
        row, added = np.divmod(best[score.ravel()[best] >= 0], count)
        blocks.append(np.sort(np.concatenate([chosen[row], added[:, None].astype(np.int32)], axis=1), axis=1))
        found.append(every[row, added])
    unique, inverse = unique_rows(np.concatenate(blocks), count)
    values = np.zeros(len(unique))
    values[inverse] = np.concatenate(found)
    return unique, values


def strong_terms(sets: Sets, coefficients: Floats, omitted: float) -> NDArray[np.intp]:
    """The terms that remain, in their order, if the weakest ones of order two and higher are omitted that hold this share of the variance."""
    energy = np.where(sets.orders > 1, coefficients**2, np.inf)
    weakest = np.argsort(energy, kind="stable")
    dropped = np.cumsum(energy[weakest]) <= omitted * float((coefficients[sets.orders > 0] ** 2).sum())
    return np.sort(weakest[~dropped])
