"""The tail of the prior of `kernel`: interactions of all orders at once, as a product over components.

    k(m, m') = variance · prod_i (1 + τ_i φ_i φ'_i) / (1 + τ_i)

gives every set S the prior variance `variance` · prod_{i in S} τ_i / prod_i (1 + τ_i). A factor depends only on whether the two masks keep the component: it is
1 + τ (1 - p) / p if both do, 1 + τ p / (1 - p) if neither does, and 1 - τ otherwise, over 1 + τ. The logarithm is therefore bilinear in the indicators r of
removed components, and one matrix product computes the kernel of all pairs of masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysp.spectral.sets import Block, Floats

#: Initial variance, and initial sum of τ / (1 - τ) over the components if relevances sum to one.
FIRST_VARIANCE, FIRST_REACH = 0.8, 1.5


@dataclass(frozen=True)
class Tail:
    """A tail with a `variance`, and strengths τ / (1 - τ) = `reach` · ρ that grow with the `relevances` ρ of the components, float64 `(n,)`."""

    variance: float
    reach: float
    relevances: Floats
    keep_probability: float

    @property
    def strengths(self) -> Floats:
        """τ, float64 `(n,)`, between 0 and 1."""
        odds = self.reach * self.relevances
        return odds / (1 + odds)

    def factors(self) -> tuple[Floats, Floats, Floats]:
        """The factor of each component if both masks keep it, if one does, and if neither does, float64 `(n,)` each."""
        strengths, (kept, gone) = self.strengths, self._odds
        whole = 1 + strengths
        return (1 + strengths * kept) / whole, (1 - strengths) / whole, (1 + strengths * gone) / whole

    def variances(self, block: Block) -> Floats:
        """The prior variances of the sets of a block, float64 `(len(block),)`."""
        strengths = self.strengths
        return self.variance * np.exp(-np.log1p(strengths).sum()) * strengths[block].prod(axis=1)

    def matrix(self, left: Floats, right: Floats) -> Floats:
        """The covariance between two lists of masks, given by the indicators of their removed components (float64 `(m, n)`), float64 `(m, m')`."""
        strengths, (kept, gone) = self.strengths, self._odds
        by_kept, by_mixed = np.log1p(strengths * kept), np.log1p(-strengths)
        both, one = np.log1p(strengths * gone) + by_kept - 2 * by_mixed, by_mixed - by_kept
        exponent = (left * both) @ right.T
        exponent += (left @ one + float((by_kept - np.log1p(strengths)).sum()))[:, None]
        exponent += right @ one
        np.exp(exponent, out=exponent)
        exponent *= self.variance
        return exponent

    def gradient(self, left: Floats, right: Floats, weighted: Floats) -> Floats:
        """The sum of `weighted`, the covariance `(m, m')` times a weight, differentiated in the logarithm of each component's τ / (1 - τ), float64 `(n,)`."""
        strengths, (kept, gone) = self.strengths, self._odds
        by_kept, by_mixed = kept / (1 + strengths * kept), -1 / (1 - strengths)
        both, one = gone / (1 + strengths * gone) + by_kept - 2 * by_mixed, by_mixed - by_kept
        removed = left.T @ weighted.sum(axis=1) + right.T @ weighted.sum(axis=0)
        found = (by_kept - 1 / (1 + strengths)) * float(weighted.sum()) + one * removed + both * np.einsum("mi,mi->i", left, weighted @ right)
        return found * strengths * (1 - strengths)

    @property
    def _odds(self) -> tuple[float, float]:
        """φ² of a kept and of a removed component."""
        p = self.keep_probability
        return (1 - p) / p, p / (1 - p)


def removed(signals: Floats) -> Floats:
    """The indicators of removed components, float64 `(m, n)`, of masks given by their `features`, which are positive where a component is removed."""
    return np.asarray(signals > 0, dtype=np.float64)
