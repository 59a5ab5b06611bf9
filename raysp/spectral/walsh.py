"""Dense transforms on tables over all 2^n masks, for small numbers of components.

A mask is numbered by the integer whose bit i is set if component i is kept; a set is numbered in the same way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks
from raysp.spectral.sets import Floats, Sets

#: Maximum number of components for which a dense table is built.
MAX_DENSE = 20


def walsh_hadamard(table: Floats) -> Floats:
    """Compute sum_m table[m] (-1)^{|m ∩ S|} for every S with n 2^n additions.

    The transform is its own inverse up to a factor of 2^n. Columns, if any, are transformed separately.
    """
    result = np.array(table, dtype=np.float64)
    half = 1
    while half < len(result):
        pairs = result.reshape(-1, 2, half, *result.shape[1:])
        pairs[:, 0], pairs[:, 1] = pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]
        half *= 2
    return result


def superset_sums(table: Floats) -> Floats:
    """Compute sum_{R ⊇ T} table[R] for every T (a fast zeta transform)."""
    result = np.array(table, dtype=np.float64)
    half = 1
    while half < len(result):
        pairs = result.reshape(-1, 2, half, *result.shape[1:])
        pairs[:, 0] += pairs[:, 1]
        half *= 2
    return result


def numbers(masks: Masks) -> NDArray[np.int64]:
    """The number of each mask, int64 `(m,)`, for at most 62 components."""
    return masks.astype(np.int64) @ (np.int64(1) << np.arange(masks.shape[1], dtype=np.int64))


def all_masks(n: int, start: int = 0, stop: int | None = None) -> Masks:
    """The masks numbered `start` to `stop` (exclusive; None: 2^n), bool `(stop - start, n)`."""
    every = np.arange(start, 1 << n if stop is None else stop, dtype=np.int64)
    return ((every[:, None] >> np.arange(n, dtype=np.int64)) & 1).astype(np.bool_)


def set_numbers(sets: Sets) -> NDArray[np.int64]:
    """The number of each set, int64 `(len,)`."""
    result = np.zeros(len(sets), dtype=np.int64)
    for _, where, block in sets.spans():
        result[where] = (np.int64(1) << block.astype(np.int64)).sum(axis=1)
    return result


def numbered_sets(n: int, chosen: NDArray[np.int64]) -> tuple[Sets, NDArray[np.intp]]:
    """The sets with the distinct numbers `chosen`, and the position in `chosen` of each of them, intp `(len(chosen),)`."""
    orders = np.bitwise_count(chosen).astype(np.intp)
    blocks: list[NDArray[np.int32]] = []
    places: list[NDArray[np.intp]] = []
    for k in range(int(orders.max(initial=0)) + 1):
        where = np.flatnonzero(orders == k)
        bits = ((chosen[where, None] >> np.arange(n, dtype=np.int64)) & 1).astype(np.bool_)
        rows = np.nonzero(bits)[1].astype(np.int32).reshape(len(where), k)
        order = np.lexsort(rows.T[::-1]) if k else np.arange(len(where))
        blocks.append(rows[order])
        places.append(where[order])
    return Sets(n, tuple(blocks)), np.concatenate(places)
