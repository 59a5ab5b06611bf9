"""Equal masks: distinct ones, rows merged or looked up by their mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values, first_of_each, pack


def distinct(masks: Masks, excluded: Masks | None = None) -> Masks:
    """The distinct masks that are not in `excluded`, in order of first occurrence."""
    if masks.shape[1] == 0 or not len(masks):
        return masks[:1]
    skip = 0 if excluded is None else len(excluded)
    together = masks if excluded is None else np.concatenate([excluded, masks])
    first, _ = first_of_each(pack(together))
    return masks if len(first) == len(together) else together[np.sort(first[first >= skip])]


def averaged(masks: Masks, values: NDArray[np.float64], weights: Values | None = None) -> tuple[Masks, NDArray[np.float64], Values]:
    """Merge rows with equal masks, so that no mask is on both sides of a cross-validation split.

    Returns the distinct masks in order of first occurrence, the weighted mean of the values of each (`(m,)` or `(m, queries)`), and the sum of its
    weights (`(m,)`). Without weights, every row counts once.
    """
    counts = np.ones(len(masks)) if weights is None else weights
    first, place = first_of_each(pack(masks))
    if len(first) == len(masks):
        return masks, values, counts
    order = np.argsort(first)
    number = np.argsort(order)[place]
    total = np.asarray(np.bincount(number, counts), dtype=np.float64)
    sums = np.zeros((len(first), *values.shape[1:]))
    np.add.at(sums, number, (values.T * counts).T)
    return masks[first[order]], (sums.T / total).T, total


def lookup_removed(masks: Masks) -> np.ndarray:
    """The first row of `masks` that is intact, then for each component the first row that removes it alone, intp `(n + 1,)`; -1 if there is none."""
    n = masks.shape[1]
    found = np.full(n + 1, -1, dtype=np.intp)
    gone = n - masks.sum(axis=1)
    intact, near = np.flatnonzero(gone == 0), np.flatnonzero(gone == 1)
    found[0] = intact[0] if len(intact) else -1
    component = np.argmin(masks[near], axis=1)
    found[1 + component[::-1]] = near[::-1]  # of several rows, the first is written last and prevails
    return found
