"""Random masks, distinct and in no order: uniform, or with another probability of keeping a component."""

from __future__ import annotations

import numpy as np

from raysp.masks import Masks
from raysp.sampling.matching import distinct
from raysp.spectral.walsh import all_masks

#: Up to this many components, distinct masks are drawn from the enumeration of all masks.
NUMBERED = 20
#: Entries of one strip of masks when drawing: its random numbers stay in a processor's cache.
STRIP = 1 << 15
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
        drawn = _drawn(count, n, keep_probability, rng)
        found = distinct(np.concatenate([found, drawn]) if len(found) else drawn, excluded)
    return found[:count]


def _drawn(count: int, n: int, keep_probability: float, rng: np.random.Generator) -> Masks:
    """Draw random masks with repetitions, one strip of rows at a time, as the random numbers take eight times the memory of the masks."""
    masks = np.empty((count, n), dtype=np.bool_)
    step = max(STRIP // max(n, 1), 1)
    numbers = np.empty((step, n))
    for start in range(0, count, step):
        rows = masks[start : start + step]
        np.less(rng.random(out=numbers[: len(rows)]), keep_probability, out=rows)
    return masks
