"""A weighted sum of tails of a kernel around measured masks: the part of a process' mean that no sparse sum holds, in closed form.

Each summand is a product over components, whose factor depends on whether the mask and the centre keep the component (see `tail`). The discrete derivative of a
product in the components of a set T, averaged over contexts that keep each other component with probability q, is a product again, D_T(q). Every index here is a
mean of D_T over q: at 1/2 (Banzhaf), over all q (Shapley, Shapley-Taylor), at 0 (Möbius) or at 1 (deviations from additivity).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from raysp.masks import Masks, Values
from raysp.spectral.indices import UNIFORM
from raysp.spectral.sets import Block, Floats, Sets
from raysp.spectral.tail import Tail

#: Nodes of the quadrature over q at most; it is exact for half as many components, and converges fast beyond.
NODES = 48
#: Entries of the largest array of products of centres and sets, or of centres and masks.
CHUNK = 1 << 23
#: Indices in closed form at all orders.
CLOSED = frozenset({"fourier", "mobius", "bii", "sii", "stii", "sv", "bv", "wbii", "additivity"})


@dataclass(frozen=True)
class TailSum:
    """sum_j weights_j k(m, centres_j) for a tail k: centres bool `(k, n)`, weights float64 `(k,)`."""

    tail: Tail
    centres: Masks
    weights: Values

    def scaled(self, factor: float) -> TailSum:
        """The sum times a factor."""
        return replace(self, weights=self.weights * factor)

    def predict(self, masks: Masks) -> Values:
        """The values (float64, `(m,)`) of masks (bool, `(m, n)`)."""
        gone = (~self.centres).astype(np.float64)
        found, step = np.zeros(len(masks)), max(CHUNK // max(len(gone), 1), 1)
        for start in range(0, len(masks), step):
            found[start : start + step] = self.tail.matrix((~masks[start : start + step]).astype(np.float64), gone) @ self.weights
        return found

    def coefficients(self, sets: Sets, keep_probability: float) -> Floats:
        """The Fourier coefficients of `sets` in the basis of P(keep), float64 `(len(sets),)`."""
        spread = sqrt(keep_probability * (1 - keep_probability))
        return self._derivatives(sets, keep_probability) * (-spread) ** sets.orders

    def index(self, index: str, sets: Sets, k: int, keep_probability: float) -> Floats:
        """The value of every set in one of the `CLOSED` indices, of order `k`, float64 `(len(sets),)`. `keep_probability` is that of `wbii`."""
        orders = sets.orders
        if index in {"bii", "bv", "fourier"}:
            return self._derivatives(sets, UNIFORM) * ((-0.5) ** orders if index == "fourier" else 1.0)
        if index == "wbii":
            return self._derivatives(sets, keep_probability)
        if index == "additivity":
            return -self._derivatives(sets, 1.0) * (-1.0) ** orders
        if index == "mobius":
            return self._derivatives(sets, 0.0)
        nodes, weights = np.polynomial.legendre.leggauss(min(len(self.tail.relevances) // 2 + 1, NODES))
        nodes, weights = (nodes + 1) / 2, weights / 2
        if index in {"sii", "sv"}:
            return np.asarray(sum(weight * self._derivatives(sets, float(q)) for q, weight in zip(nodes, weights, strict=True)))
        top = np.asarray(sum(k * (1 - q) ** (k - 1) * weight * self._derivatives(sets, float(q)) for q, weight in zip(nodes, weights, strict=True)))
        return np.where(orders == k, top, self._derivatives(sets, 0.0))

    def _derivatives(self, sets: Sets, q: float) -> Floats:
        """D_T(q) of every set T, float64 `(len(sets),)`."""
        kept, mixed, gone = self.tail.factors()
        # The factor of a mask that keeps the component, and of one that removes it, by what the centre does.
        with_it, without = np.where(self.centres, kept, mixed), np.where(self.centres, mixed, gone)
        mean = q * with_it + (1 - q) * without
        logarithms = np.log(mean).sum(axis=1)
        scale = self.tail.variance * self.weights * np.exp(logarithms)
        ratios = (with_it - without) / mean
        found = np.zeros(len(sets))
        for order, where, block in sets.spans():
            found[where] = _sums(ratios, scale, block) if order else scale.sum()
        return found


def _sums(ratios: Floats, scale: Values, block: Block) -> Floats:
    """sum_j scale_j prod_{i in T} ratios_ji for every set T of a block, float64 `(len(block),)`."""
    if block.shape[1] == 1:
        return (scale @ ratios)[block[:, 0]]
    if block.shape[1] == 2 and len(block) > ratios.shape[1]:
        return (ratios.T @ (ratios * scale[:, None]))[block[:, 0], block[:, 1]]
    found, step = np.zeros(len(block)), max(CHUNK // max(len(ratios), 1), 1)
    for start in range(0, len(block), step):
        some = block[start : start + step]
        product = ratios[:, some[:, 0]]
        for column in range(1, some.shape[1]):
            product = product * ratios[:, some[:, column]]
        found[start : start + step] = scale @ product
    return found
