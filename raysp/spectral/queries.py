"""The query design of SPEX: cosets of random linear codes, shifted by the parity rows of a BCH code (Kang et al. 2025, section 4).

Block (g, d) holds the masks M_g l + d for all l in {0,1}^b, where M_g is one of a few random n x b matrices over GF(2) and d is a delay. In the
transform of this block, every coefficient F(S) falls into the bin M_gᵀ S with the sign (-1)^{|d ∩ S|}. This module is independent of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks
from raysp.spectral.codes import Code
from raysp.spectral.sets import Floats, Sets, characters

#: Number of random matrices, each combined with all delays; three are enough for peeling to resolve collisions.
MATRICES = 3
#: Bits of a mask's key. Keys of masks with up to this many components are distinct; those of wider masks collide with probability 2^-64 per pair.
KEY = 64


@dataclass(frozen=True, eq=False)
class Design:
    """A query design: `rows[g]` are the rows of M_g as `b`-bit integers, int64 `(MATRICES, n)`; `words` (uint64 `(n,)`) generate the keys of masks.

    Blocks are numbered matrix by matrix and, within a matrix, delay by delay. Once all delays of a matrix have been measured, its bins can be decoded.
    """

    b: int
    code: Code
    rows: NDArray[np.int64]
    words: NDArray[np.uint64]

    @property
    def n(self) -> int:
        """The number of components."""
        return self.rows.shape[1]

    @property
    def delays(self) -> int:
        """The number of delays: the zero delay and one for each parity bit."""
        return self.code.parity_bits + 1

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return MATRICES * self.delays

    @cached_property
    def shifts(self) -> Masks:
        """The delays, bool `(delays, n)`."""
        return np.concatenate([np.zeros((1, self.n), dtype=np.bool_), self.code.parity.T.astype(np.bool_)])

    def masks(self, block: int) -> Masks:
        """The masks of a block, bool `(2^b, n)`; row l is the l-th combination of the columns of its matrix."""
        matrix, delay = divmod(block, self.delays)
        combinations = np.arange(1 << self.b, dtype=np.int64)
        odd = np.bitwise_count(combinations[:, None] & self.rows[matrix][None, :]) & 1
        return odd.astype(np.bool_) ^ self.shifts[delay]

    def bins(self, sets: Sets) -> NDArray[np.int64]:
        """The bin of each set under each matrix, int64 `(len(sets), MATRICES)`."""
        found = np.zeros((len(sets), MATRICES), dtype=np.int64)
        for _, where, members in sets.spans():
            if members.shape[1]:
                found[where] = np.bitwise_xor.reduce(self.rows[:, members], axis=2).T
        return found

    def signs(self, sets: Sets) -> Floats:
        """The sign of each set under each delay, float64 `(len(sets), delays)`."""
        return characters(sets, self.shifts).T

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """The keys of all masks, uint64 `(blocks, 2^b)`; keys are linear in the mask, so they are computed without materialising the masks."""
        keys = np.zeros((self.blocks, 1 << self.b), dtype=np.uint64)
        shifts = np.array([np.bitwise_xor.reduce(self.words[shift]) for shift in self.shifts], dtype=np.uint64)
        for matrix in range(MATRICES):
            span = np.zeros(1, dtype=np.uint64)
            for column in range(self.b):
                chosen = (self.rows[matrix] >> column & 1).astype(np.bool_)
                span = np.concatenate([span, span ^ np.bitwise_xor.reduce(self.words[chosen])])
            keys[matrix * self.delays : (matrix + 1) * self.delays] = shifts[:, None] ^ span
        return keys

    @cached_property
    def places(self) -> NDArray[np.intp]:
        """The index of each row of each block among the distinct masks, in order of first appearance, intp `(blocks, 2^b)`."""
        _, first, inverse = np.unique(self.keys, return_index=True, return_inverse=True)
        numbers = np.empty(len(first), dtype=np.intp)
        numbers[np.argsort(first)] = np.arange(len(first))
        return numbers[inverse].reshape(self.keys.shape)

    @cached_property
    def ends(self) -> NDArray[np.intp]:
        """The number of distinct masks up to the end of each block, intp `(blocks,)`."""
        return np.maximum.accumulate(self.places.max(axis=1)) + 1

    def fresh(self, first: int, last: int) -> Masks:
        """The masks of blocks `first` to `last` (exclusive) that do not appear in an earlier block or row, bool `(m, n)`."""
        parts: list[Masks] = []
        for block in range(first, last):
            start = self.ends[block - 1] if block else 0
            places, rows = np.unique(self.places[block], return_index=True)
            parts.append(self.masks(block)[rows[places >= start]])
        return np.concatenate([np.zeros((0, self.n), dtype=np.bool_), *parts])


def design(code: Code, b: int, random_state: int) -> Design:
    """Draw random n x b matrices of full rank for a code. Raises ValueError if b > n."""
    if b > code.n:
        raise ValueError(f"b: must be at most the number of components (b = {b}, n = {code.n}); lower b")
    rng = np.random.default_rng([random_state, b, code.t])
    rows = np.stack([_full_rank(code.n, b, rng) for _ in range(MATRICES)])
    exact = code.n <= KEY
    words = np.uint64(1) << np.arange(code.n, dtype=np.uint64) if exact else rng.integers(0, 1 << 63, code.n, dtype=np.uint64, endpoint=True)
    return Design(b, code, rows, words)


def _full_rank(n: int, b: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The rows of a random n x b matrix of rank b, as b-bit integers; full rank ensures that the masks of a block are distinct."""
    while True:
        rows = rng.integers(0, 1 << b, n, dtype=np.int64)
        basis: dict[int, int] = {}
        for row in rows.tolist():
            left = row
            while left and (top := left.bit_length()) in basis:
                left ^= basis[top]
            if left:
                basis[left.bit_length()] = left
            if len(basis) == b:
                return rows
