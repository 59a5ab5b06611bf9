"""Random masks that resemble each other as little as their sizes allow.

Among independent masks, some two components are kept or removed together far too often, and a fit mistakes the effect of one for that of the other. Exchanging
components within masks makes their columns nearly orthogonal, so that the same number of masks explains more.
"""

from __future__ import annotations

from math import exp, expm1, log1p

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values

#: The variance of all single effects together, relative to that of the constant: each component has its share, at most `MOST_SHARE`, and a set the product of those of its components.
VARIANCE, MOST_SHARE = 8.0, 0.5
#: How often every mask is visited.
SWEEPS = 3
#: Masks times the masks that each is compared with times components: about a second. More masks are balanced in blocks, unless these were smaller than `LEAST_BLOCK`.
WORK, LEAST_BLOCK, LARGEST_BLOCK = 1e8, 64, 4096
#: Entries of the masks to avoid up to which these are looked up.
AVOIDED = 10_000_000
#: The weight of two equal masks. Weights are whole numbers: their sums are exact, so that no processor chooses other masks than another.
EQUAL = 2.0**40
#: Logarithms of larger size are cut off: masks of many components can be so unlike that their weights would not be numbers.
STEEPEST = 300.0
#: P(keep) counts as at least this far from 0 and 1.
MARGIN = 0.02


def balanced(masks: Masks, rng: np.random.Generator, excluded: Masks, before: Masks) -> Masks:
    """Exchange components within distinct `masks`, bool `(m, n)`, so that they differ from each other and from those drawn `before`; their sizes stay.

    No mask becomes one of `excluded`; a mask and its complement, where both are there, remain complements. Each exchange lowers the sum of squared covariances
    between the values of two masks under a prior with independent effects of all sets: where values vary together, masks repeat each other (a Bayesian design as in
    Mitchell, Morris and Ylvisaker, Two-level fractional factorials and Bayesian prediction, 1995). All components are treated alike, so that each mask by itself is
    as random as before.
    """
    m, n = masks.shape
    block = int(min(m, WORK / max(m * n, 1), LARGEST_BLOCK)) // 2 * 2
    if block < min(LEAST_BLOCK, max(m, 2)) // 2 * 2 or excluded.size + before.size > AVOIDED:
        return masks
    together, partners = _paired(masks)
    order = rng.permutation(n)  # or the first of components would be preferred among equals
    before, rows = before[:, order], masks[together][:, order]
    taken = {mask.tobytes() for known in (excluded[:, order], before, rows) for mask in known}
    for start in range(0, m, block):
        earlier = np.concatenate([before, rows[:start]])[-block:]
        rows[start : start + block] = _balanced(rows[start : start + block], earlier, rng, taken, max(min(partners - start, block), 0))
    found = np.empty_like(masks)
    found[np.ix_(together, order)] = rows
    return found


def _paired(masks: Masks) -> tuple[NDArray[np.intp], int]:
    """The rows of masks, each directly before its complement where both are there, then the others; and the number of the former."""
    row_of = {mask.tobytes(): row for row, mask in enumerate(masks)}
    complements = [row_of.get(mask.tobytes(), -1) for mask in ~masks]
    pairs = [(row, other) for row, other in enumerate(complements) if row < other]
    single = [row for row, other in enumerate(complements) if other < 0]
    return np.array([row for pair in pairs for row in pair] + single, dtype=np.intp), 2 * len(pairs)


def _balanced(masks: Masks, earlier: Masks, rng: np.random.Generator, taken: set[bytes], paired: int) -> Masks:
    """Exchange components within masks, given `earlier` ones that do not change.

    The first `paired` are a mask and its complement in turn; `taken` holds the bytes of all masks, and of those that none may become.
    """
    rows = np.concatenate([masks, earlier]).astype(np.float64)
    likeness = _Likeness(rows)
    for _ in range(SWEEPS):
        for row in rng.permutation(len(masks)).tolist():
            new = likeness.exchanged(row)
            changes = {row: new} | ({row ^ 1: ~new} if row < paired else {})
            if taken.isdisjoint(keys := [mask.tobytes() for mask in changes.values()]):
                taken.difference_update((rows[changed] > 0).tobytes() for changed in changes)
                taken.update(keys)
                for changed, mask in changes.items():
                    rows[changed] = mask
    return rows[: len(masks)] > 0


class _Likeness:
    """Squared covariances of the values of masks, up to a factor, given as `rows` of zeros and ones, float64 `(m, n)`."""

    def __init__(self, rows: NDArray[np.float64]) -> None:
        n, p = rows.shape[1], min(max(float(rows.mean()), MARGIN), 1 - MARGIN)
        share = min(VARIANCE / n, MOST_SHARE)
        kept, removed, unlike = (2 * log1p(share * product) for product in ((1 - p) / p, p / (1 - p), -1.0))
        self._rows, self._sizes = rows, rows.sum(axis=1).astype(np.intp)
        #: What one more component that both masks keep adds to the logarithm, at equal sizes.
        self._common = kept + removed - 2 * unlike
        # By differences of -n .. n: of what both keep, and of the other mask's size, from the size of this one.
        self._by_common, self._by_size = (
            np.array([exp(max(min(slope * d, STEEPEST), -STEEPEST)) for d in range(-n, n + 1)]) for slope in (self._common, unlike - removed)
        )

    def exchanged(self, row: int) -> Masks:
        """The mask of a row after the exchanges that make it differ more from the others, bool `(n,)`."""
        rows, n, size = self._rows, self._rows.shape[1], int(self._sizes[row])
        mask, common = rows[row] > 0, rows @ rows[row]
        by_size = EQUAL * self._by_size[self._sizes - size + n]
        fewer, more = expm1(-self._common), expm1(self._common)
        rounding = 0.5 * len(rows) * (more - fewer)  # an exchange that gains no more could be undone, and made again, without end
        for _ in range(min(size, n - size)):
            weights = self._weights(common - size, by_size, row)
            less = weights @ rows
            removed = int(np.where(mask, less, -1.0).argmax())
            without = self._weights(common - rows[:, removed] - size, by_size, row)
            gains = without @ rows
            added = int(np.where(mask, np.inf, gains).argmin())
            if fewer * less[removed] + more * gains[added] >= -rounding:
                break
            mask[[removed, added]] = False, True
            common += rows[:, added] - rows[:, removed]
        return mask

    def _weights(self, difference: Values, by_size: Values, row: int) -> Values:
        """Whole numbers, float64 `(m,)`: how like the other rows are to a mask; 0 for the row itself."""
        weights = np.rint(np.minimum(self._by_common[difference.astype(np.intp) + self._rows.shape[1]] * by_size, EQUAL))
        weights[row] = 0.0
        return weights
