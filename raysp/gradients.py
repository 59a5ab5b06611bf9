"""What a model's gradients say about the components of a game: one object, computed once a game, stored, and read by explorers, cross-checks and actions.

Everything in it is an approximation that costs a handful of evaluations; no answer rests on it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Values
from raysp.spectral.fourier import FourierSurrogate

Floats = NDArray[np.float64]

#: The largest sets that gradients say anything about.
MOST = 2


@dataclass(frozen=True)
class PairTerms:
    """Second-order terms of the value, around the intact input.

    `components` int64 `(k, 2)`, the smaller first; `deviations` float64 `(k,)` from additivity; `singles` float64 `(n,)`, the single effects that go with them.
    """

    components: NDArray[np.int64]
    deviations: Values
    singles: Values


@dataclass(frozen=True)
class GradientReport:
    """Effects by method, and second-order terms where they were asked for.

    `effects` holds by method float64 `(queries, n)`: approximations of v(all) - v(all without i), or scores that should rank like it; one row for a game
    without queries. Methods in `unsigned` tell how much a component matters, but not in which direction. `leading` is the method that an estimate of all
    masks is built on (None if there is none), and `intact` the value that goes with it. `priors` are the methods worth telling a fit about. `max_order`
    is the order up to which this is all that gradients say. `notes` explain what is missing. `seconds` is what it cost.
    """

    effects: Mapping[str, Floats] = field(default_factory=dict)
    unsigned: frozenset[str] = frozenset()
    leading: str | None = None
    intact: float | None = None
    priors: tuple[str, ...] = ()
    pairs: PairTerms | None = None
    max_order: int = MOST
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def singles(self, method: str) -> Values:
        """A method's effects on the value, the mean over the queries: float64 `(n,)`."""
        return self.effects[method].mean(axis=0)

    def prior_effects(self) -> Floats | None:
        """The effects by the methods in `priors`, float64 `(methods, queries, n)`; None if there are none."""
        return np.stack([self.effects[method] for method in self.priors]) if self.priors else None

    def surrogate(self, max_order: int = 1) -> FourierSurrogate | None:
        """The estimate of every mask, with terms of order 1 or, if they were computed, up to 2; None without a leading method."""
        if self.leading is None or self.intact is None:
            return None
        pairs = self.pairs if max_order > 1 else None
        effects = self.singles(self.leading) if pairs is None else pairs.singles
        terms: dict[tuple[int, ...], float] = {(i,): float(effect) for i, effect in enumerate(effects)}
        if pairs is not None:
            terms |= {(i, j): deviation for (i, j), deviation in zip(pairs.components.tolist(), pairs.deviations.tolist(), strict=True)}
        return FourierSurrogate.from_deviations(len(effects), self.intact, terms)
