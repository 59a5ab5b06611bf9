"""Designs of masks for the two readings of an answer: at the intact input, and on average over contexts.

Masks that keep half of the components say little about the intact input, and masks around it little about other contexts. A design draws masks of many sizes, and
keeps a share of the budget for pairs at the intact input, which are chosen once a first fit shows where strong deviations are to be expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from raysp.explorers.changes import Changes, estimated
from raysp.explorers.fitting import Fit
from raysp.explorers.near import MOST, REMOVED, followed
from raysp.masks import Masks, Values
from raysp.sampling.balance import balanced
from raysp.sampling.draws import random_masks, uniform_masks
from raysp.sampling.strata import allocated, binomial_shares, log_numbers, sized_masks, spread_shares
from raysp.specs.explorers import Focus
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import UNIFORM
from raysp.spectral.points import Points

#: Share of the budget, after the ends and the single ablations, that measures pairs at the intact input.
PAIR_SHARES: dict[Focus, float] = {"average": 0.0, "both": 0.35, "intact": 0.6}
#: Indices that weigh all sizes of contexts, and need masks of all sizes.
ALL_SIZES = frozenset({"sv", "sii", "stii", "fsii"})
#: Share of the random masks whose sizes are spread from the empty to the intact mask, if the design is for more than the average over contexts; and for such indices.
SPREAD_SHARE, SPREAD_FOR_ALL = 0.5, 0.9
#: Number of components up to which sizes are spread: a budget for more has hardly a mask of each size.
MOST_SPREAD = 2000
#: Maximum importance of a row: a size that is drawn far less often than it should be must not decide a fit.
MOST_IMPORTANCE = 3.0


@dataclass(frozen=True)
class Design:
    """How the masks of a run on `n` components are drawn, given P(keep), the focus and the index that is reported."""

    n: int
    keep_probability: float
    focus: Focus
    index: str

    @property
    def spread(self) -> bool:
        """Whether sizes are spread beyond those that P(keep) gives; not if P(keep) was chosen so that the game keeps working."""
        return self.keep_probability == UNIFORM and self.writes and self.n <= MOST_SPREAD

    @property
    def writes(self) -> bool:
        """Whether measured values are written into the surrogate: not if only averages over contexts are wanted, to which single values hardly matter."""
        return self.focus != "average" or self.index in ALL_SIZES

    def pairs(self, budget: int) -> int:
        """The number of pairs to measure, of a budget without the ends and the single ablations."""
        return min(round(PAIR_SHARES[self.focus] * budget), comb(self.n, 2))

    def draw(self, count: int, rng: np.random.Generator, known: Masks, drawn: Masks, *, all_masks: bool) -> Masks:
        """Up to `count` distinct random masks, not among those `known`, given the ones `drawn` in earlier rounds; if `all_masks` are affordable, uniform ones.

        They are `balanced`, so that they differ as much as their sizes allow.
        """
        if all_masks:
            return uniform_masks(self.n, count, rng, known)
        return balanced(self._independent(count, rng, known, drawn), rng, known, drawn)

    def _independent(self, count: int, rng: np.random.Generator, known: Masks, drawn: Masks) -> Masks:
        """Masks that differ by chance alone."""
        if not self.spread:
            uniform = self.keep_probability == UNIFORM
            return uniform_masks(self.n, count, rng, known) if uniform else random_masks(self.n, count, self.keep_probability, rng, known)
        sizes = np.bincount(drawn.sum(axis=1), minlength=self.n + 1)
        # Later rounds make up for what earlier ones drew too often or too rarely.
        wanted = np.maximum((count + len(drawn)) * self._shares / self._shares.sum() - sizes, 0.0)
        return sized_masks(self.n, allocated(self.n, count, wanted, known), rng, known)

    def importance(self, drawn: Masks) -> Values:
        """How often P(keep) draws masks of the sizes of `drawn`, relative to how often these are among them, float64 `(len(drawn),)`."""
        if not self.spread:
            return np.ones(len(drawn))
        sizes = drawn.sum(axis=1)
        there = np.bincount(sizes, minlength=self.n + 1)
        return np.minimum(binomial_shares(self.n, self.keep_probability)[sizes] * len(drawn) / there[sizes], MOST_IMPORTANCE)

    def written(
        self, found: Fit, masks: Masks, values: Values, drawn: NDArray[np.bool_], importance: Values, *, changes: Changes | None = None
    ) -> FourierSurrogate:
        """The surrogate of a fit with the measured values (`(m,)`) written in, and what it missed around the intact input followed to masks not measured.

        `drawn` marks the random ones among the masks (bool `(m,)`); `importance` (`(m,)`) is how much each counts as such. `changes` estimate pairs that
        were not measured.
        """
        inclusion = np.ones(len(values))
        inclusion[drawn] = self.inclusion(masks[drawn])
        guessed, surrogate, left = found.surrogate.predict(masks), found.surrogate, values - found.held_out
        if self.focus != "average":
            room = MOST - int(((~masks).sum(axis=1) <= REMOVED).sum())
            guesses = estimated(changes, masks, values, surrogate.predict, room) if changes is not None and changes.agree and room > 0 else None
            surrogate = followed(surrogate, masks, values - guessed, left, importance, estimates=guesses)
        predicted = surrogate.predict(masks)
        return surrogate.with_points(Points.of(masks, values - predicted, left - (predicted - guessed), inclusion))

    def inclusion(self, drawn: Masks) -> Values:
        """The share of all masks of its size that are among the `drawn` ones, for each of these, float64 `(len(drawn),)`."""
        sizes = drawn.sum(axis=1)
        there = np.bincount(sizes, minlength=self.n + 1)
        return np.exp(np.minimum(np.log(np.maximum(there, 1)) - log_numbers(self.n), 0.0))[sizes]

    @property
    def _shares(self) -> Values:
        spread = spread_shares(self.n)
        # The empty and the intact mask, and the single ablations, are measured anyway.
        spread[[0, self.n - 1, self.n]] = 0.0
        share = SPREAD_FOR_ALL if self.index in ALL_SIZES else SPREAD_SHARE
        return (1 - share) * binomial_shares(self.n, UNIFORM) + share * spread / max(spread.sum(), 1e-300)
