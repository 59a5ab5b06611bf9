"""Families of sets of components as arrays, grouped by order.

Sets are enumerated, merged and evaluated without a Python loop over them. This module is independent of coefficients and values.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks

if TYPE_CHECKING:
    import pyarrow as pa

Block = NDArray[np.int32]
Floats = NDArray[np.float64]
#: Numbers in double or single precision.
Reals = NDArray[np.floating[Any]]

#: Bits of a 64-bit key that can hold the components of a set.
KEY_BITS = 62


@dataclass(frozen=True, slots=True)
class Sets:
    """Distinct sets over `n` components: `blocks[k]` holds those of order k, int32 `(m_k, k)`, each row ascending, rows in lexicographic order.

    Sets are numbered in this sequence: by order first, then lexicographically.
    """

    n: int
    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return sum(len(block) for block in self.blocks)

    @property
    def orders(self) -> NDArray[np.int32]:
        """The order of each set, int32 `(len,)`."""
        return np.repeat(np.arange(len(self.blocks), dtype=np.int32), [len(block) for block in self.blocks])

    @property
    def max_order(self) -> int:
        """The largest order present, 0 if there are no sets."""
        return max((k for k, block in enumerate(self.blocks) if len(block)), default=0)

    def tuples(self) -> list[tuple[int, ...]]:
        """The sets as tuples of Python integers."""
        return [tuple(row) for block in self.blocks for row in block.tolist()]

    def spans(self) -> list[tuple[int, slice, Block]]:
        """`(order, slice into the numbering, block)` for every order that has sets."""
        ends = np.cumsum([len(block) for block in self.blocks]).tolist()
        return [(k, slice(end - len(block), end), block) for k, (block, end) in enumerate(zip(self.blocks, ends, strict=True)) if len(block)]

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Sets:
        """The sets with the ascending numbers `rows`, or where a bool `(len,)` is True."""
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.asarray(rows)
        blocks = list(self.blocks)
        for k, where, block in self.spans():
            blocks[k] = block[chosen[(chosen >= where.start) & (chosen < where.stop)] - where.start]
        return Sets(self.n, tuple(blocks))

    def to_arrow(self, rows: NDArray[np.intp]) -> pa.Array:
        """The sets numbered `rows`, in that order, as list<int32>."""
        import pyarrow as pa

        flat = np.concatenate([block.ravel() for block in self.blocks]) if self.blocks else np.zeros(0, dtype=np.int32)
        orders = self.orders.astype(np.int64)
        starts = np.cumsum(orders) - orders
        lengths = orders[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        picked = np.repeat(starts[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat[picked], pa.int32()), type=pa.list_(pa.int32()))


def from_tuples(n: int, sets: Iterable[Sequence[int]]) -> Sets:
    """Build the family of distinct sets. Raises ValueError for a component outside 0..n-1 or repeated within a set."""
    by_order: dict[int, list[tuple[int, ...]]] = {}
    for members in {tuple(sorted(int(i) for i in members)) for members in sets}:
        if len(set(members)) != len(members) or (members and not 0 <= members[0] <= members[-1] < n):
            raise ValueError(f"sets: {members} is not a set of distinct components from 0 to {n - 1}; correct or remove it")
        by_order.setdefault(len(members), []).append(members)
    return Sets(
        n, tuple(np.array(sorted(by_order.get(k, [])), dtype=np.int32).reshape(len(by_order.get(k, [])), k) for k in range(max(by_order, default=0) + 1))
    )


def singletons(n: int) -> Sets:
    """The empty set and every single component."""
    return Sets(n, (np.zeros((1, 0), dtype=np.int32), np.arange(n, dtype=np.int32)[:, None]))


def merge(n: int, blocks: Sequence[Block], values: Sequence[Floats]) -> tuple[Sets, Floats]:
    """Merge equal sets and sum their values: rows of `blocks` (in any order, each ascending) with matching `values` (`(m,)` or `(m, c)`)."""
    merged: list[Block] = []
    sums: list[Floats] = []
    columns = values[0].shape[1:] if values else ()
    for k in range(max((block.shape[1] for block in blocks), default=-1) + 1):
        rows = [(block, value) for block, value in zip(blocks, values, strict=True) if block.shape[1] == k and len(block)]
        if not rows:
            merged.append(np.zeros((0, k), dtype=np.int32))
            continue
        unique, inverse = unique_rows(np.concatenate([block for block, _ in rows]), n)
        merged.append(unique)
        sums.append(group_sum(np.concatenate([value for _, value in rows]), inverse, len(unique)))
    return Sets(n, tuple(merged)), np.concatenate(sums) if sums else np.zeros((0, *columns))


def union(first: Sets, second: Sets) -> Sets:
    """The union of two families of sets."""
    blocks = [*first.blocks, *second.blocks]
    return merge(first.n, blocks, [np.zeros(len(block)) for block in blocks])[0]


def positions(family: Sets, wanted: Sets) -> NDArray[np.intp]:
    """The number within `family` of each set of `wanted`, intp `(len(wanted),)`, -1 if absent."""
    found = np.full(len(wanted), -1, dtype=np.intp)
    there = {k: (where, block) for k, where, block in family.spans()}
    for k, where, block in wanted.spans():
        if k not in there:
            continue
        offset, rows = there[k]
        unique, inverse = unique_rows(np.concatenate([rows, block]), family.n)
        number = np.full(len(unique), -1, dtype=np.intp)
        number[inverse[: len(rows)]] = np.arange(len(rows)) + offset.start
        found[where] = number[inverse[len(rows) :]]
    return found


def unique_rows(rows: Block, n: int) -> tuple[Block, NDArray[np.intp]]:
    """The distinct rows in lexicographic order, and for each row its index among them, intp `(len(rows),)`."""
    k = rows.shape[1]
    if k == 0:
        return rows[: min(len(rows), 1)], np.zeros(len(rows), dtype=np.intp)
    bits = max(int(n - 1).bit_length(), 1)
    if bits * k > KEY_BITS:
        unique, inverse = np.unique(rows, axis=0, return_inverse=True)
        return unique, inverse.reshape(-1)
    keys = np.zeros(len(rows), dtype=np.int64)
    for column in range(k):
        keys = (keys << bits) | rows[:, column]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return rows[first], inverse.reshape(-1)


def group_sum(values: Floats, groups: NDArray[np.intp], count: int) -> Floats:
    """Sum `values` (`(m,)` or `(m, c)`) by group number; returns `(count,)` or `(count, c)`."""
    if values.ndim == 1:
        return np.bincount(groups, weights=values, minlength=count).astype(np.float64)
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(count))
    return np.add.reduceat(values[order], starts, axis=0)


def subset_columns(order: int, size: int) -> NDArray[np.intp]:
    """All combinations of `size` out of `order` columns, intp `(C(order, size), size)`."""
    return np.array(list(itertools.combinations(range(order), size)), dtype=np.intp).reshape(comb(order, size), size)


def subsets(block: Block, size: int) -> Block:
    """All subsets of the given size of every set, int32 `(len(block) * C(order, size), size)`, grouped by set in the sequence of `subset_columns`."""
    columns = subset_columns(block.shape[1], size)
    return block[:, columns].reshape(len(block) * len(columns), size)


def parities(sets: Sets, masks: Masks) -> NDArray[np.uint8]:
    """|m ∩ S| mod 2 for each set and mask, uint8 `(len(sets), m)`."""
    columns = np.ascontiguousarray(masks.T).view(np.uint8)
    result = np.zeros((len(sets), len(masks)), dtype=np.uint8)
    for k, where, block in sets.spans():
        for column in range(k):
            result[where] ^= columns[block[:, column]]
    return result


def characters(sets: Sets, masks: Masks, keep_probability: float = 0.5) -> Floats:
    """φ_S(m) for each mask and set, float64 `(m, len(sets))`: the design matrix of a regression on Fourier coefficients under P(keep).

    φ_S is the product of (p - m_i) / sqrt(p (1 - p)) over the set; at p = 1/2 that is (-1)^{|m ∩ S|}.
    """
    if keep_probability == 0.5:
        return np.asarray(1.0 - 2.0 * parities(sets, masks).T, dtype=np.float64)
    signals = features(masks, keep_probability)
    result = np.ones((len(masks), len(sets)))
    for _, where, block in sets.spans():
        result[:, where] = products(signals, block)
    return result


def features(masks: Masks, keep_probability: float = 0.5) -> Floats:
    """φ_i of each mask and component, float64 `(m, n)` in column-major order: mean zero and variance one under P(keep)."""
    return np.asfortranarray((keep_probability - masks) / np.sqrt(keep_probability * (1 - keep_probability)))


@overload
def products(signals: Floats, block: Block) -> Floats: ...
@overload
def products(signals: Reals, block: Block) -> Reals: ...
def products(signals: Reals, block: Block) -> Reals:
    """φ_S for each row of `features` and each set of a block, `(m, len(block))` in the precision of the features."""
    if not block.shape[1]:
        return np.ones((len(signals), len(block)), signals.dtype)
    rows = np.ascontiguousarray(signals.T)  # rows are gathered several times faster than columns; `features` is column-major, so this does not copy
    result = rows[block[:, 0]]
    for column in range(1, block.shape[1]):
        result *= rows[block[:, column]]
    return result.T
