"""Diagnostics of a surrogate: how its variance is distributed over orders, and whether its terms form a hierarchy.

ProxySPEX (Butler et al., NeurIPS 2025) grows terms from their subsets. A function whose strong terms are isolated, such as a parity, offers nothing to
grow from; this module warns about such functions when the fit reveals them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.spectral.fourier import ROUNDING, FourierSurrogate
from raysp.spectral.sets import Block, Sets, from_tuples, positions, subsets, union

#: Share of the variance that the strongest terms must hold to represent the function, if their number is not given.
HELD = 0.95
#: Maximum number of strongest terms examined.
MOST = 1000
#: A term of order 3 or more is isolated if every direct subset is weaker than this fraction of it (pairs are exempt, as every pair is tried).
SHADOW = 0.1
#: Share of the variance in isolated terms at or above which a missing hierarchy is reported.
ALONE = 0.2
#: Out-of-fold R² below which a fit is reported to explain nothing.
NOTHING = 0.1

REMEDY = "use explorer spex, which does not rely on a hierarchy"


@dataclass(frozen=True)
class Diagnostics:
    """Summary statistics of a surrogate.

    `energy` holds the shares of its variance (over masks drawn with its own P(keep)) in orders 1, 2, ...; `singles_share` is the first of them.
    `effective_components` is the number of equal components over which the variance would be spread as evenly. The remaining statistics describe its
    `terms` strongest terms, which always include the empty set: `direct_subset_rate`, `staircase_rate`, and `alone_share`, the share of the variance in
    terms of order 3 and higher whose direct subsets all have less than a tenth of their coefficient. Undefined ratios are NaN. `r2` and `r2_singles` are
    out-of-fold R², or None if unknown. `warning` is a sentence for the user, or None.
    """

    energy: tuple[float, ...]
    singles_share: float
    effective_components: float
    terms: int
    direct_subset_rate: float
    staircase_rate: float
    alone_share: float
    r2: float | None = None
    r2_singles: float | None = None
    warning: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON-compatible values, with NaN as None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def sentences(self) -> tuple[str, ...]:
        """The diagnostics as sentences, the warning last."""
        if not self.energy:
            return ("The surrogate is constant; there is nothing to explain.", *([self.warning] if self.warning else []))
        orders = ", ".join(f"{share:.0%} in order {k}" for k, share in enumerate(self.energy, start=1) if share >= 0.005)
        told = [f"Variance of the surrogate: {orders}; spread over an effective {self.effective_components:.1f} components."]
        if self.singles_share < 1 - ROUNDING:
            told.append(
                f"Hierarchy of the {self.terms} strongest terms: {self.direct_subset_rate:.0%} of their direct subsets are among them, and "
                f"{self.staircase_rate:.0%} can be reached by adding one component at a time."
            )
        return (*told, *([self.warning] if self.warning else []))


def diagnose(surrogate: FourierSurrogate, top: int | None = None, r2: float | None = None, r2_singles: float | None = None) -> Diagnostics:
    """Compute the diagnostics of a surrogate over its `top` strongest terms (None: those that hold 95% of its variance, at most 1,000).

    `r2` and `r2_singles` are the out-of-fold R² of the surrogate and of single effects alone, on values that vary; NaN is treated as unknown.
    """
    energy = surrogate.energy()
    variance = float(energy[1:].sum())
    known, known_singles = (None if score is None or math.isnan(score) else float(score) for score in (r2, r2_singles))
    if not variance > (ROUNDING * float(np.abs(surrogate.coefficients).max(initial=0.0))) ** 2:
        nan = math.nan
        return Diagnostics((), nan, nan, 1, 1.0, 1.0, 0.0, known, known_singles, _unexplained(known))
    family, squares = _strongest(surrogate, variance, top)
    rates = _direct_rates(family)
    alone = float(squares[_alone(surrogate, family, squares)].sum()) / variance
    shares = tuple((energy[1:] / variance).tolist())
    rate = float(rates.mean())
    warning = _unexplained(known) or _without_hierarchy(alone)
    return Diagnostics(shares, shares[0], _effective(surrogate), len(family), rate, staircase_rate(family), alone, known, known_singles, warning)


def direct_subset_rate(family: Sets) -> float:
    """The mean, over the sets S of a family, of the share of their direct subsets S - {i} that are also in the family.

    The empty set has no direct subsets and counts as 1, so {∅, {1}, {2}, {1, 3}} has a rate of 7/8 as in the paper; excluding it would give 5/6. As a
    subset it counts as present only if the family contains it. NaN for an empty family.
    """
    return float(_direct_rates(family).mean()) if len(family) else math.nan


def staircase_rate(family: Sets) -> float:
    """The share of the sets of a family that can be reached from ∅ by adding one component at a time through sets of the family.

    ∅ is reached if the family contains it; if it does not, no set is reached. NaN for an empty family.
    """
    if not len(family):
        return math.nan
    reached = np.zeros(len(family), dtype=np.bool_)
    for k, where, found in _direct_subsets(family):
        reached[where] = True if k == 0 else np.any((found >= 0) & reached[found], axis=1)
    return float(reached.mean())


def _direct_rates(family: Sets) -> NDArray[np.float64]:
    """The share of each set's direct subsets that are in the family, float64 `(len(family),)`; 1 for ∅."""
    rates = np.ones(len(family))
    for k, where, found in _direct_subsets(family):
        if k:
            rates[where] = (found >= 0).mean(axis=1)
    return rates


def _direct_subsets(family: Sets) -> list[tuple[int, slice, NDArray[np.intp]]]:
    """For each order k: the positions in the family of each set's direct subsets, intp `(sets, k)`, -1 for those absent."""
    result: list[tuple[int, slice, NDArray[np.intp]]] = []
    for k, where, block in family.spans():
        found = positions(family, _of_order(family.n, subsets(block, k - 1))) if k else np.zeros(0, dtype=np.intp)
        result.append((k, where, found.reshape(len(block), k)))
    return result


def _strongest(surrogate: FourierSurrogate, variance: float, top: int | None) -> tuple[Sets, NDArray[np.float64]]:
    """∅ and the strongest other terms, `top` in total, with their F(S)² (0 for ∅). Terms tied with the last are included."""
    squares = np.where(surrogate.sets.orders > 0, surrogate.coefficients**2, 0.0)
    ranked = np.sort(squares)[::-1]
    count = int(np.searchsorted(np.cumsum(ranked), HELD * variance)) + 1 if top is None else top - 1
    count = min(max(count, 0), MOST, len(ranked))
    least = ranked[count - 1] * (1 - ROUNDING) if count else np.inf
    chosen = (squares >= least) & (squares > 0)
    family = surrogate.sets.take(chosen)
    whole = union(family, from_tuples(surrogate.n, [()]))  # ∅ comes first, and the others keep their order
    return whole, np.concatenate([[0.0], squares[chosen]])


def _alone(surrogate: FourierSurrogate, family: Sets, squares: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The isolated sets: order 3 or more and only weak direct subsets (see `SHADOW`), bool `(len(family),)`."""
    sizes = np.append(np.abs(surrogate.coefficients), 0.0)  # position -1 marks an absent set
    alone = np.zeros(len(family), dtype=np.bool_)
    for k, where, block in family.spans():
        if k >= 3:
            below = sizes[positions(surrogate.sets, _of_order(family.n, subsets(block, k - 1)))].reshape(len(block), k)
            alone[where] = below.max(axis=1) < SHADOW * np.sqrt(squares[where])
    return alone


def _of_order(n: int, block: Block) -> Sets:
    """One block as `Sets`; the rows need not be distinct."""
    return Sets(n, (*(np.zeros((0, size), dtype=np.int32) for size in range(block.shape[1])), block))


def _effective(surrogate: FourierSurrogate) -> float:
    """The participation ratio (sum e)² / sum e², where e is a component's share of the variance: each term's F(S)² is split equally among its members."""
    energy = np.zeros(surrogate.n)
    for k, where, block in surrogate.sets.spans():
        if k:
            energy += np.bincount(block.ravel(), np.repeat(surrogate.coefficients[where] ** 2 / k, k), surrogate.n)
    return float(energy.sum() ** 2 / (energy**2).sum())


def _unexplained(r2: float | None) -> str | None:
    """The warning for a fit that predicts nothing out of fold: it is not evidence of a hierarchy, as a function without one may have been missed."""
    if r2 is None or r2 >= NOTHING:
        return None
    cause = "the values may be noise, there may be too few evaluations, or the function may be a peak without hierarchy (such as a parity)"
    return f"Nothing is explained (cross-validated R² {r2:.2f}) although the values vary: {cause}; for a peak, {REMEDY}."


def _without_hierarchy(alone: float) -> str | None:
    if alone < ALONE:
        return None
    found = f"{alone:.0%} of the variance is in terms of order 3 and higher whose subsets are all weak or absent"
    return f"The function shows no hierarchy: {found}. Similar terms may have been missed; {REMEDY}."
