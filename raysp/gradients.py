"""Gradient-based estimates of the effects of a game's components, computed once per game, stored, and used by explorers, cross-checks and actions.

All of them are approximations at the cost of a few evaluations; no result relies on them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Values
from raysp.spectral.fourier import FourierSurrogate

Floats = NDArray[np.float64]

#: The largest order of terms that gradients can estimate.
MOST = 2


@dataclass(frozen=True)
class PairTerms:
    """Second-order terms of the value around the intact input.

    `components` int64 `(k, 2)`, the smaller index first; `deviations` float64 `(k,)` from additivity; `singles` float64 `(n,)`, the matching single
    effects.
    """

    components: NDArray[np.int64]
    deviations: Values
    singles: Values


@dataclass(frozen=True)
class GradientReport:
    """Effects by method, and second-order terms if requested.

    `effects` maps each method to float64 `(queries, n)`: approximations of v(all) - v(all without i), or scores that should rank components in the same
    way; one row for a game without queries. Methods in `unsigned` measure the importance of a component but not the sign of its effect. `leading` is the
    method used to estimate the values of all masks (None if there is none), and `intact` is the corresponding value of the intact input. `priors` are the
    methods recommended as priors for a fit. `max_order` is the order up to which terms were computed, 0 if only the priors were. `notes` explain what is
    missing. `seconds` is the time taken.
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
        """The effects on the value by a method, averaged over the queries, float64 `(n,)`."""
        return self.effects[method].mean(axis=0)

    def prior_effects(self) -> Floats | None:
        """The effects by the methods in `priors`, float64 `(methods, queries, n)`, or None if there are none."""
        return np.stack([self.effects[method] for method in self.priors]) if self.priors else None

    def surrogate(self, max_order: int = 1) -> FourierSurrogate | None:
        """Estimate the values of all masks from terms up to `max_order`, as far as they were computed; None without a leading method."""
        if self.leading is None or self.intact is None:
            return None
        pairs = self.pairs if max_order > 1 else None
        effects = self.singles(self.leading) if pairs is None else pairs.singles
        terms: dict[tuple[int, ...], float] = {(i,): float(effect) for i, effect in enumerate(effects)}
        if pairs is not None:
            terms |= {(i, j): deviation for (i, j), deviation in zip(pairs.components.tolist(), pairs.deviations.tolist(), strict=True)}
        return FourierSurrogate.from_deviations(len(effects), self.intact, terms)
