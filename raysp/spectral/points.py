"""What a surrogate misses at the masks that were measured, and what that adds to its predictions and to every interaction index.

A measured value is *written into* a surrogate as a function that is zero but at one mask, where it holds the residual. Such a function has a closed form in every
index. With n components, a set T of order t, and an index whose weight of the Möbius coefficient of S ⊇ T is w(|S|, t), a residual r at mask m adds

    r · (-1)^{|T - m|} · sum_a (-1)^a C(n - u, a) w(u + a, t),  u = |T ∪ m|.

So the ends, the single ablations and the verified sets enter every index exactly: Shapley values add up to v(all) - v(empty).

Masks of the same size are measured with the same known probability, so residuals of masks that a fit has not seen estimate what it misses at the masks that were
not measured either (Horvitz and Thompson 1952). This *residual correction* is unbiased but noisy; it is shrunk by its own estimated variance (James and Stein
1961), to nothing if the variance explains all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.spectral.indices import mobius_weight
from raysp.spectral.sets import Block, Floats, Sets

#: Entries of the largest array of overlaps of masks and sets.
CHUNK = 1 << 24
#: Probability of being measured below which residuals of a size are not written in: such a mask weighs next to nothing in any index.
LEAST_INCLUSION = 0.01
#: Up to this many components, all residuals are kept, and the residual correction is made.
CORRECTED = 20
#: Share of a residual correction that its variance must leave over for it to be made at all.
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Points:
    """Residuals of a surrogate at measured masks.

    `masks` bool `(k, n)`; `residuals` float64 `(k,)` of the surrogate itself; `held_out` float64 `(k,)` of predictions by fits that did not see the mask (NaN
    for masks that every fit has seen); `inclusion` float64 `(k,)`, the probability with which a mask of its size was measured.
    """

    masks: Masks
    residuals: Values
    held_out: Values
    inclusion: Values

    @classmethod
    def of(cls, masks: Masks, residuals: Values, held_out: Values, inclusion: Values) -> Points:
        """Keep the points that matter: all with few components, otherwise those of sizes of which a notable share was measured."""
        kept = np.flatnonzero((inclusion >= LEAST_INCLUSION) | (masks.shape[1] <= CORRECTED))
        return cls(masks[kept], residuals[kept], held_out[kept], inclusion[kept])

    def __len__(self) -> int:
        return len(self.masks)

    def index(self, index: str, sets: Sets, k: int, keep_probability: float) -> tuple[Floats, Floats]:
        """What the points add to an index of order `k` for every set, and the standard error of the residual correction in it, float64 `(len(sets),)` each.

        `keep_probability` is that of `wbii`.
        """
        added, errors = np.zeros(len(sets)), np.zeros(len(sets))
        corrected = self._corrected()
        for order, where, block in sets.spans():
            weights = _weights(index, k, order, self.masks.shape[1], keep_probability)
            found = self._sums(block, weights, self.residuals[:, None])
            added[where] = found[:, 0]
            if corrected is None or not order:
                continue
            rows, estimate = corrected
            correction, variance = self._sums(block, weights, estimate, rows).T
            left = 1 - float(variance.sum()) / max(float(correction @ correction), 1e-300)
            if left > LEAST_SHARE:
                added[where] += left * correction
                errors[where] = left * np.sqrt(variance)
        return added, errors

    def _corrected(self) -> tuple[NDArray[np.intp], Floats] | None:
        """The rows of the residual correction with what each adds to it and to its variance per unit of weight, float64 `(rows, 2)`; None if there is none."""
        rows = np.flatnonzero((self.inclusion < 1) & ~np.isnan(self.held_out))
        if self.masks.shape[1] > CORRECTED or not len(rows):
            return None
        missed, inclusion = self.held_out[rows], self.inclusion[rows]
        return rows, np.stack([missed * (1 - inclusion) / inclusion, missed**2 * (1 - inclusion) / inclusion**2], axis=1)

    def _sums(self, block: Block, weights: Floats, amounts: Floats, rows: NDArray[np.intp] | None = None) -> Floats:
        """The sums over points of weight times amount (`(rows, c)`) for each set of a block, `(len(block), c)`; a second column has squared weights."""
        masks = (self.masks if rows is None else self.masks[rows]).astype(np.float32)
        sizes = masks.sum(axis=1).astype(np.intp)
        found = np.zeros((len(block), amounts.shape[1]))
        order, step = block.shape[1], max(CHUNK // max(len(masks), 1), 1)
        for start in range(0, len(block), step):
            some = block[start : start + step]
            members = np.zeros((len(some), masks.shape[1]), dtype=np.float32)
            np.put_along_axis(members, some.astype(np.intp), 1.0, axis=1)
            missing = order - (members @ masks.T).astype(np.intp)
            weight = weights[missing + sizes] * (1.0 - 2.0 * (missing % 2))
            found[start : start + step, 0] = weight @ amounts[:, 0]
            if amounts.shape[1] > 1:
                found[start : start + step, 1] = weight**2 @ amounts[:, 1]
        return found


@lru_cache(maxsize=256)
def _weights(index: str, k: int, order: int, n: int, keep_probability: float) -> Floats:
    """The weight of a residual by the size u of T ∪ m, float64 `(n + 1,)`."""
    found = np.zeros(n + 1)
    if index == "additivity":
        # v(all without R) enters the deviations of the supersets of R alone.
        found[n] = -((-1.0) ** order)
        return found
    by_size = [mobius_weight(index, k, max(size, order), order, keep_probability) for size in range(n + 1)]
    for u in range(order, n + 1):
        found[u] = float(sum(((-1) ** a * comb(n - u, a) * by_size[u + a] for a in range(n - u + 1)), Fraction(0)))
    return found
