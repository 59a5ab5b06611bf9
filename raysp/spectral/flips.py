"""The change in a Fourier sum when components are flipped, starting from the intact or the empty mask.

Starting from the intact mask components are removed; starting from the empty mask they are kept. In both cases a choice x in {0, 1}^n of components
changes the value by g(x) = sum_S w(S) [|x ∩ S| is odd] with w(S) = -2 F(S) χ_S(start), because each term either changes its sign or does not. This
module is independent of solvers.
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
    """Nonempty `sets` with their weights w, float64 `(len(sets),)`; with `keep` the starting point is the empty mask instead of the intact one."""

    sets: Sets
    weights: Floats
    keep: bool

    @classmethod
    def of(cls, surrogate: FourierSurrogate, *, keep: bool, sign: float = 1.0) -> Flips:
        """The flips of `sign` times the surrogate's value, for a surrogate in any basis."""
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
        """The masks that correspond to the choices `chosen` (bool `(m, n)`)."""
        return chosen if self.keep else ~chosen

    @cached_property
    def incidence(self) -> Any:
        """The incidence matrix of sets and components, a scipy CSR array of 0.0 and 1.0, `(len(sets), n)`."""
        from scipy.sparse import csr_array

        members = np.concatenate([block.ravel() for block in self.sets.blocks]) if len(self.sets) else np.zeros(0, dtype=np.int32)
        ends = np.concatenate([[0], np.cumsum(self.sets.orders)])
        return csr_array((np.ones(len(members)), members, ends), shape=(len(self.sets), self.n))

    def turned(self, chosen: Masks) -> Floats:
        """The weights after the choice (bool `(n,)`): the gain in g from each set when one of its members is flipped, float64 `(len(sets),)`."""
        return self.weights * (1.0 - 2.0 * ((self.incidence @ chosen.astype(np.float64)) % 2))

    def moves(self, chosen: Masks, among: NDArray[np.intp] | None = None) -> Floats:
        """The gain in g when components a and b of the choice (bool `(n,)`) are both flipped, float64 `(n + 1, n + 1)`.

        The last row and column stand for no component, so they hold the gains of single flips. A set that contains both a and b is unaffected. With
        `among`, only these k components are considered, and the result is `(k + 1, k + 1)`.
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

        Single terms are linear. A larger term with positive weight contributes at most its weight times the number of chosen members (first bound), or
        at most its weight (second bound). A larger term with negative weight contributes at most 0.
        """
        single = self.sets.orders == 1
        positive = np.where(single, 0.0, np.maximum(self.weights, 0.0))
        linear = self.incidence.T @ np.where(single, self.weights, 0.0)
        return [(linear + self.incidence.T @ positive, 0.0), (linear, float(positive.sum()))]
