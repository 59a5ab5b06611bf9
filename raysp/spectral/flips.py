"""A Fourier sum seen from one of its ends: what flipping components away from it does to the value.

From the intact input components are removed, from nothing they are kept; either way a choice x in {0, 1}^n of components changes the value by
g(x) = sum_S w(S) [|x ∩ S| is odd], w(S) = -2 F(S) χ_S(end), as each coefficient changes its sign or does not. Knows nothing of solvers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import Floats, Sets


@dataclass(frozen=True)
class Flips:
    """`sets` (none of them empty) with their weights w, float64 `(len(sets),)`; with `keep` the end is the empty mask, not the intact one."""

    sets: Sets
    weights: Floats
    keep: bool

    @classmethod
    def of(cls, surrogate: FourierSurrogate, *, keep: bool, sign: float = 1.0) -> Flips:
        """The change of sign times the surrogate's value, in any basis of the surrogate."""
        surrogate = surrogate.rebased()
        used = (surrogate.coefficients != 0) & (surrogate.sets.orders > 0)
        sets = surrogate.sets.take(used)
        at_end = 1.0 if keep else (-1.0) ** sets.orders
        return cls(sets, -2.0 * sign * surrogate.coefficients[used] * at_end, keep)

    @property
    def n(self) -> int:
        """The number of components."""
        return self.sets.n

    def masks(self, chosen: Masks) -> Masks:
        """The masks that these choices (bool `(m, n)`) make."""
        return chosen if self.keep else ~chosen

    @cached_property
    def incidence(self) -> Any:
        """Which set holds which component: a scipy CSR array of 0.0 and 1.0, `(len(sets), n)`."""
        from scipy.sparse import csr_array

        members = np.concatenate([block.ravel() for block in self.sets.blocks]) if len(self.sets) else np.zeros(0, dtype=np.int32)
        ends = np.concatenate([[0], np.cumsum(self.sets.orders)])
        return csr_array((np.ones(len(members)), members, ends), shape=(len(self.sets), self.n))

    def turned(self, chosen: Masks) -> Floats:
        """The weights as the choice (bool `(n,)`) has left them: what g gains when one member of each set is flipped, float64 `(len(sets),)`."""
        return self.weights * (1.0 - 2.0 * ((self.incidence @ chosen.astype(np.float64)) % 2))

    def moves(self, chosen: Masks, among: NDArray[np.intp] | None = None) -> Floats:
        """What g gains when components a and b of the choice (bool `(n,)`) are both flipped, float64 `(n + 1, n + 1)`; of some components `(k + 1, k + 1)`.

        The last row or column stands for nothing, so the last of them holds what one flip gains. A set that holds both does not notice.
        """
        turned = self.turned(chosen)
        incidence = self.incidence if among is None else self.incidence[:, among]
        one = incidence.T @ turned
        result = np.zeros((len(one) + 1, len(one) + 1))
        result[:-1, :-1] = one[:, None] + one[None, :] - 2.0 * (incidence.T @ incidence.multiply(turned[:, None])).toarray()
        result[-1, :-1] = result[:-1, -1] = one
        return result

    def linear_bounds(self) -> list[tuple[Floats, float]]:
        """Pairs (u `(n,)`, c) with g(x) <= u · x + c for every choice x.

        Single terms are linear. A larger one of weight above 0 counts for each chosen member, as it is even while none is chosen; or it counts
        whatever is chosen.
        """
        single = self.sets.orders == 1
        positive = np.where(single, 0.0, np.maximum(self.weights, 0.0))
        linear = self.incidence.T @ np.where(single, self.weights, 0.0)
        return [(linear + self.incidence.T @ positive, 0.0), (linear, float(positive.sum()))]
