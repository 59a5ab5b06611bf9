"""Which masks to draw: uniform ones, biased ones, and ablations around the intact input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from raysp.masks import Masks, Values, pack
from raysp.spectral.walsh import all_masks

#: Up to this many components distinct masks are drawn by number.
NUMBERED = 20
#: Fresh draws tried for masks that are hard to find anew before settling for fewer.
ATTEMPTS = 50


def uniform_masks(n: int, count: int, rng: np.random.Generator, excluded: Masks | None = None) -> Masks:
    """`count` distinct masks, every component kept with probability one half, none of them `excluded`; fewer only when there are no more."""
    if n <= NUMBERED:
        free = distinct(all_masks(n), excluded) if excluded is not None else all_masks(n)
        return free[rng.choice(len(free), min(count, len(free)), replace=False)]
    return random_masks(n, count, 0.5, rng, excluded)


def random_masks(n: int, count: int, keep_probability: float, rng: np.random.Generator, excluded: Masks | None = None) -> Masks:
    """`count` distinct masks, every component kept with `keep_probability`, none of them `excluded`; fewer when they cannot be found."""
    found = np.zeros((0, n), dtype=np.bool_)
    for _ in range(ATTEMPTS):
        if len(found) >= count:
            break
        drawn = rng.random((count, n)) < keep_probability
        found = distinct(np.concatenate([found, drawn]), excluded)
    return found[:count]


def distinct(masks: Masks, excluded: Masks | None = None) -> Masks:
    """The masks without repetitions and without the excluded ones, first occurrence first."""
    if masks.shape[1] == 0 or not len(masks):
        return masks[:1]
    skip = 0 if excluded is None else len(excluded)
    together = masks if excluded is None else np.concatenate([excluded, masks])
    _, first = np.unique(keys(together), return_index=True)
    return together[np.sort(first[first >= skip])]


def averaged(masks: Masks, values: Values) -> tuple[Masks, Values]:
    """Distinct masks, first occurrence first, each with the mean of its values: rows of one mask on both sides of a split would score a fit on what it has seen."""
    _, first, place = np.unique(keys(masks), return_index=True, return_inverse=True)
    if len(first) == len(masks):
        return masks, values
    means = np.bincount(place, values) / np.bincount(place)
    order = np.argsort(first)
    return masks[first[order]], means[order]


def keys(masks: Masks) -> np.ndarray:
    """One comparable value a mask, `(m,)`."""
    packed = np.ascontiguousarray(pack(masks))
    return packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)


def ablations(n: int, removed: Iterable[Sequence[int]]) -> Masks:
    """The intact mask with each of these sets removed, bool `(m, n)`."""
    sets = list(removed)
    masks = np.ones((len(sets), n), dtype=np.bool_)
    for row, members in enumerate(sets):
        masks[row, list(members)] = False
    return masks


def single_ablations(n: int) -> Masks:
    """The intact mask, then every component removed alone: bool `(n + 1, n)`."""
    return np.concatenate([np.ones((1, n), dtype=np.bool_), ~np.eye(n, dtype=np.bool_)])


def lookup(masks: Masks, wanted: Masks) -> np.ndarray:
    """The first row of `masks` equal to each wanted mask, intp `(len(wanted),)`; -1 where there is none."""
    if not len(masks):
        return np.full(len(wanted), -1, dtype=np.intp)
    unique, first = np.unique(keys(masks), return_index=True)
    sought = keys(wanted)
    place = np.minimum(np.searchsorted(unique, sought), len(unique) - 1)
    return np.where(unique[place] == sought, first[place], -1)
