"""Ablations around the intact input: all components are kept but those of a set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks


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


def pair_ablations(n: int, pairs: NDArray[np.intp]) -> Masks:
    """The intact mask without each pair (intp `(k, 2)`), bool `(k, n)`."""
    masks = np.ones((len(pairs), n), dtype=np.bool_)
    np.put_along_axis(masks, pairs, values=False, axis=1)
    return masks
