"""What slopes at single ablations tell of pairs: to first order, how much more each component matters once another one is removed.

The deviation of a pair from additivity, v(all) - v(without both) - e_i - e_j with the single effects e, is what removing j does once i is removed, less what it does to
the intact input. To first order it is the slope of j without i, less that at the intact input; with the slopes without j there is a second estimate. So n + 1 backward
passes estimate all pairs, and how far both estimates are apart tells how rough they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.sampling.ablations import pair_ablations
from raysp.sampling.matching import lookup_removed
from raysp.spectral.regression import rank_correlation
from raysp.spectral.sets import Floats
from raysp.spectral.slopes import sloped

#: The fewest measured pairs to which estimates are scaled, and the most estimates that are compared with predictions.
FEWEST, COMPARED = 8, 50_000
#: Rank correlation of the sizes of both estimates from which they are trusted. A few estimates of ablated components may be enormous, and of either sign.
AGREEING = 0.3


@dataclass(frozen=True)
class Changes:
    """`table` float64 `(n, n)`: in row i the slope of each component without i, less its slope at the intact input; NaN in rows of components without slopes.

    `intact` float64 `(n,)` are the slopes at the intact input.
    """

    table: Floats
    intact: Values

    @classmethod
    def of(cls, masks: Masks, slopes: Floats | None) -> Changes | None:
        """The changes from slopes `(m, n)` of masks bool `(m, n)`, NaN in rows without slopes; None if the intact input has none."""
        if slopes is None or not len(masks):
            return None
        rows = lookup_removed(masks)
        found = np.where((rows >= 0)[:, None], slopes[rows], np.nan)
        if not sloped(found[:1]).all():
            return None
        table = found[1:] - found[0]
        np.fill_diagonal(table, np.nan)
        return cls(table, found[0])

    @cached_property
    def removed(self) -> NDArray[np.bool_]:
        """The components whose single ablations have slopes, bool `(n,)`."""
        return sloped(self.table)

    def estimates(self, pairs: NDArray[np.intp]) -> tuple[Values, Values]:
        """The estimated deviations of pairs, intp `(k, 2)`, and half the distance of both estimates, float64 `(k,)` each; NaN where there is none, or only one."""
        one, other = self.table[pairs[:, 0], pairs[:, 1]], self.table[pairs[:, 1], pairs[:, 0]]
        mean = np.where(np.isnan(one), other, np.where(np.isnan(other), one, (one + other) / 2))
        return mean, np.abs(one - other) / 2

    @cached_property
    def agree(self) -> bool:
        """Whether both estimates agree about how strong pairs are, as far as there are some."""
        known = np.flatnonzero(self.removed)
        first, second = (known[rows] for rows in np.triu_indices(len(known), 1))
        one, other = np.abs(self.table[first, second]), np.abs(self.table[second, first])
        return len(one) > 2 and (rank_correlation(one, other) or 0.0) >= AGREEING

    @property
    def ranked(self) -> NDArray[np.intp]:
        """The pairs that have an estimate, intp `(k, 2)`, by decreasing strength, of two estimates that of the larger one."""
        pairs = np.stack(np.triu_indices(len(self.intact), 1), axis=1)
        guess, apart = self.estimates(pairs)
        strength = np.abs(guess) + np.nan_to_num(apart)
        found = np.flatnonzero(strength > 0)
        return pairs[found[np.argsort(-strength[found], kind="stable")]]

    def note(self) -> str:
        """What the slopes were good for, in a sentence."""
        where = f"Slopes at the intact input and at {int(self.removed.sum()):,} single ablations"
        if not self.agree:
            return f"{where} contradict each other about what pairs do, and were not used for pairs."
        return f"{where} estimate what each pair does beyond its single effects."


@dataclass(frozen=True)
class Estimated:
    """Ablations of pairs that were not measured, bool `(k, n)`, their values by `Changes`, and the variances of these, float64 `(k,)` each."""

    masks: Masks
    values: Values
    variances: Values


def estimated(changes: Changes, masks: Masks, values: Values, predict: Callable[[Masks], Values], most: int) -> Estimated | None:
    """Up to `most` unmeasured pairs whose estimates differ most from what `predict` has, from the values `(m,)` of masks `(m, n)`, all single ablations among them.

    Estimates are scaled to the measured pairs. Their variance is proportional to their squares and to those of the distances of both estimates. None if measured pairs
    do not bear them out.
    """
    n = masks.shape[1]
    rows = lookup_removed(masks)
    if (rows < 0).any():
        return None
    intact, effects = values[rows[0]], values[rows[0]] - values[rows[1:]]
    both = np.flatnonzero((~masks).sum(axis=1) == 2)
    measured = np.nonzero(~masks[both])[1].reshape(-1, 2)
    scale = _scale(*changes.estimates(measured), intact - values[both] - effects[measured].sum(axis=1))
    if scale is None:
        return None
    rate, rough = scale
    unknown = np.triu(np.ones((n, n), dtype=np.bool_), 1)
    unknown[measured[:, 0], measured[:, 1]] = False
    pairs = np.argwhere(unknown)
    guess, apart = changes.estimates(pairs)
    chosen = np.flatnonzero(~np.isnan(guess))
    chosen = np.sort(chosen[np.argsort(-np.abs(guess[chosen]), kind="stable")[:COMPARED]])
    if not len(chosen):
        return None
    pairs, guess, apart = pairs[chosen], guess[chosen], np.nan_to_num(apart[chosen])
    ablated = pair_ablations(n, pairs)
    estimates = intact - effects[pairs].sum(axis=1) - rate * guess
    kept = np.sort(np.argsort(-np.abs(estimates - predict(ablated)), kind="stable")[:most])
    return Estimated(ablated[kept], estimates[kept], rough * (guess**2 + apart**2)[kept])


def _scale(guess: Values, apart: Values, exact: Values) -> tuple[float, float] | None:
    """The factor, at most 1, that fits estimates of measured pairs to their `exact` deviations, and the share of estimates' squares that is error; None if there is no such.

    All float64 `(k,)`; estimates are as from `Changes.estimates`.
    """
    known = ~np.isnan(guess)
    guess, apart, exact = guess[known], np.nan_to_num(apart[known]), exact[known]
    if len(guess) < FEWEST or not guess @ exact > 0:
        return None
    rate = min(float(guess @ exact / (guess @ guess)), 1.0)
    return rate, float(((exact - rate * guess) ** 2).sum() / (guess**2 + apart**2).sum())
