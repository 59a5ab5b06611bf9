"""Sampling of masks (uniform, biased, and ablations around the intact input), and searching and merging of masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values, pack
from raysp.spectral.walsh import all_masks

#: Up to this many components, distinct masks are drawn from the enumeration of all masks.
NUMBERED = 20
#: Entries of one strip of masks when drawing.
STRIP = 1 << 20
#: Maximum number of draws when new distinct masks are rare, after which fewer are returned.
ATTEMPTS = 50


def uniform_masks(n: int, count: int, rng: np.random.Generator, excluded: Masks | None = None) -> Masks:
    """Draw `count` distinct masks, bool `(count, n)`, keeping every component with probability one half and avoiding those in `excluded`.

    Up to `NUMBERED` components, fewer are returned only if no others exist; beyond, see `random_masks`.
    """
    if n <= NUMBERED:
        free = distinct(all_masks(n), excluded) if excluded is not None else all_masks(n)
        return free[rng.choice(len(free), min(count, len(free)), replace=False)]
    return random_masks(n, count, 0.5, rng, excluded)


def random_masks(n: int, count: int, keep_probability: float, rng: np.random.Generator, excluded: Masks | None = None) -> Masks:
    """Draw `count` distinct masks, bool `(count, n)`, keeping every component with `keep_probability` and avoiding those in `excluded`.

    Fewer are returned if not enough distinct masks are found within `ATTEMPTS` draws.
    """
    found = np.zeros((0, n), dtype=np.bool_)
    for _ in range(ATTEMPTS):
        if len(found) >= count:
            break
        found = distinct(np.concatenate([found, _drawn(count, n, keep_probability, rng)]), excluded)
    return found[:count]


def _drawn(count: int, n: int, keep_probability: float, rng: np.random.Generator) -> Masks:
    """Draw random masks with repetitions, one strip of rows at a time, as the random numbers take eight times the memory of the masks."""
    masks = np.empty((count, n), dtype=np.bool_)
    step = max(STRIP // max(n, 1), 1)
    for start in range(0, count, step):
        rows = masks[start : start + step]
        rows[:] = rng.random(rows.shape) < keep_probability
    return masks


def distinct(masks: Masks, excluded: Masks | None = None) -> Masks:
    """The distinct masks that are not in `excluded`, in order of first occurrence."""
    if masks.shape[1] == 0 or not len(masks):
        return masks[:1]
    skip = 0 if excluded is None else len(excluded)
    together = masks if excluded is None else np.concatenate([excluded, masks])
    _, first = np.unique(keys(together), return_index=True)
    return together[np.sort(first[first >= skip])]


def averaged(masks: Masks, values: NDArray[np.float64], weights: Values | None = None) -> tuple[Masks, NDArray[np.float64], Values]:
    """Merge rows with equal masks, so that no mask is on both sides of a cross-validation split.

    Returns the distinct masks in order of first occurrence, the weighted mean of the values of each (`(m,)` or `(m, queries)`), and the sum of its
    weights (`(m,)`). Without weights, every row counts once.
    """
    counts = np.ones(len(masks)) if weights is None else weights
    _, first, place = np.unique(keys(masks), return_index=True, return_inverse=True)
    if len(first) == len(masks):
        return masks, values, counts
    order = np.argsort(first)
    number = np.argsort(order)[place.reshape(-1)]
    total = np.asarray(np.bincount(number, counts), dtype=np.float64)
    sums = np.zeros((len(first), *values.shape[1:]))
    np.add.at(sums, number, (values.T * counts).T)
    return masks[first[order]], (sums.T / total).T, total


def keys(masks: Masks) -> np.ndarray:
    """One comparable key per mask, `(m,)`."""
    packed = np.ascontiguousarray(pack(masks))
    return packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)


def ablations(n: int, removed: Iterable[Sequence[int]]) -> Masks:
    """One mask per set, with the components of the set removed from the intact mask, bool `(len(removed), n)`."""
    sets = list(removed)
    masks = np.ones((len(sets), n), dtype=np.bool_)
    for row, members in enumerate(sets):
        masks[row, list(members)] = False
    return masks


def single_ablations(n: int) -> Masks:
    """The intact mask, followed by the ablation of each single component, bool `(n + 1, n)`."""
    return np.concatenate([np.ones((1, n), dtype=np.bool_), ~np.eye(n, dtype=np.bool_)])


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


def lookup(masks: Masks, wanted: Masks) -> np.ndarray:
    """The first row of `masks` equal to each wanted mask, intp `(len(wanted),)`; -1 if there is none."""
    if not len(masks):
        return np.full(len(wanted), -1, dtype=np.intp)
    unique, first = np.unique(keys(masks), return_index=True)
    sought = keys(wanted)
    place = np.minimum(np.searchsorted(unique, sought), len(unique) - 1)
    return np.where(unique[place] == sought, first[place], -1)
