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

from raysp.masks import Masks, Values
from raysp.spectral.indices import UNIFORM, mobius_weight
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
        for order, where, block in sets.spans():
            weights = index_weights(index, k, order, self.masks.shape[1], keep_probability)
            added[where] = self._sums(block, weights, self.residuals)
            if not order:
                continue
            correction, variance = self.correction(block, weights)
            left = 1 - float(variance.sum()) / max(float(correction @ correction), 1e-300)
            if left > LEAST_SHARE:
                added[where] += left * correction
                errors[where] = left * np.sqrt(variance)
        return added, errors

    def correction(self, block: Block, weights: Floats) -> tuple[Floats, Floats]:
        """The residual correction of an index with these `weights` (as from `index_weights`) for the sets of a block, and its variance, float64 `(len(block),)` each."""
        drawn = (self.inclusion < 1) & ~np.isnan(self.held_out) & (self.masks.shape[1] <= CORRECTED)
        missing = np.where(drawn, (1 - self.inclusion) / self.inclusion, 0.0)
        missed = np.where(drawn, self.held_out, 0.0)
        return self._sums(block, weights, missed * missing), self._sums(block, weights**2, missed**2 * missing / self.inclusion, signed=False)

    def _sums(self, block: Block, weights: Floats, amounts: Values, *, signed: bool = True) -> Floats:
        """The sums over points of weight times amount (`(k,)`) for each set of a block, float64 `(len(block),)`, with the sign of the point if `signed`."""
        masks = self.masks.astype(np.float32)
        sizes = masks.sum(axis=1).astype(np.intp)
        found, step = np.zeros(len(block)), max(CHUNK // max(len(masks), 1), 1)
        for start in range(0, len(block), step):
            some = block[start : start + step]
            members = np.zeros((len(some), masks.shape[1]), dtype=np.float32)
            np.put_along_axis(members, some.astype(np.intp), 1.0, axis=1)
            missing = block.shape[1] - (members @ masks.T).astype(np.intp)
            signs = 1.0 - 2.0 * (missing % 2) if signed else 1.0
            found[start : start + step] = (weights[missing + sizes] * signs) @ amounts
        return found


@lru_cache(maxsize=256)
def index_weights(index: str, k: int, order: int, n: int, keep_probability: float) -> Floats:
    """The weight of a residual by the size u of T ∪ m, float64 `(n + 1,)`."""
    found = np.zeros(n + 1)
    if index == "additivity":
        # v(all without R) enters the deviations of the supersets of R alone.
        found[n] = -((-1.0) ** order)
        return found
    sizes = range(order, n + 1)
    if index in {"bii", "bv", "wbii", "fourier"}:
        # The probability of the rest of the mask as a context.
        q = keep_probability if index == "wbii" else UNIFORM
        factor = (-0.5) ** order if index == "fourier" else 1.0
        found[order:] = [factor * q ** (u - order) * (1 - q) ** (n - u) for u in sizes]
        return found
    by_size = [mobius_weight(index, k, size, order) for size in sizes]
    for u in sizes:
        found[u] = float(sum(((-1) ** a * comb(n - u, a) * by_size[u + a - order] for a in range(n - u + 1)), Fraction(0)))
    return found
