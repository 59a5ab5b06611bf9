"""What kind of function a surrogate is: how its variance lies over the orders, and whether its terms form a hierarchy.

ProxySPEX (Butler et al., NeurIPS 2025) grows terms from their subsets. A function whose strong terms stand alone, a peak such as a parity, gives it
nothing to grow from; this module reports it where a fit shows it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.spectral.fourier import ROUNDING, FourierSurrogate
from raysp.spectral.sets import Block, Sets, from_tuples, positions, subsets, union

#: Share of the variance that the strongest terms must hold to stand for the function, where their number is not given.
HELD = 0.95
#: The strongest terms looked at, at most.
MOST = 1000
#: A term of order 3 or more stands alone when every direct subset is weaker than this part of it (pairs do not count: every pair is tried).
SHADOW = 0.1
#: Share of the variance in terms that stand alone from which a hierarchy is missing.
ALONE = 0.2
#: Out-of-fold R² that explains nothing.
NOTHING = 0.1

MEND = "take explorer spex, which needs no hierarchy"


@dataclass(frozen=True)
class Diagnostics:
    """What a surrogate looks like.

    `energy` holds the shares of its variance (over masks of its own P(keep)) in orders 1, 2, ...; `singles_share` is the first of them and `effective_components` the number of equal
    components that would spread the variance as thinly. The rest is about its strongest `terms`, the empty set always among them:
    `direct_subset_rate`, `staircase_rate` and `alone_share`, the share of the variance in those of order 3 and more whose direct subsets all have less
    than a tenth of their coefficient. NaN where there is nothing to divide. `r2` and `r2_singles` are out-of-fold, if known. `warning` is for people, None if all is well.
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
        """The fields as plain values for JSON, NaN as None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def sentences(self) -> tuple[str, ...]:
        """The same in words, the warning last."""
        if not self.energy:
            return ("The surrogate is constant: there is nothing to explain.", *([self.warning] if self.warning else []))
        orders = ", ".join(f"{share:.0%} in order {k}" for k, share in enumerate(self.energy, start=1) if share >= 0.005)
        told = [f"Of the surrogate's variance {orders}; it is spread as if over {self.effective_components:.1f} equal components."]
        if self.singles_share < 1 - ROUNDING:
            told.append(
                f"Hierarchy of the {self.terms} strongest terms: {self.direct_subset_rate:.0%} of their direct subsets are among them, "
                f"{self.staircase_rate:.0%} are reached one component at a time."
            )
        return (*told, *([self.warning] if self.warning else []))


def diagnose(surrogate: FourierSurrogate, top: int | None = None, r2: float | None = None, r2_singles: float | None = None) -> Diagnostics:
    """The diagnostics of a surrogate over its `top` strongest terms (those that hold 95 % of its variance, at most 1,000, without a number).

    `r2` and `r2_singles` are out-of-fold R² of the surrogate and of single effects alone, on values that vary (NaN counts as not known).
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
    """Over the sets of a family, the mean share of their direct subsets S - {i} that are in it too.

    The empty set has none to miss and counts as 1, which makes {∅, {1}, {2}, {1, 3}} come to 7/8 as in the paper; leaving it out would give 5/6.
    It counts as a subset only where the family holds it. NaN for an empty family.
    """
    return float(_direct_rates(family).mean()) if len(family) else math.nan


def staircase_rate(family: Sets) -> float:
    """The share of the sets of a family that are reached from ∅ by adding one component at a time through sets that are all in it.

    ∅ reaches itself where the family holds it, and nothing is reached where not. NaN for an empty family.
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
    """By order: the numbers in the family of every set's direct subsets, intp `(sets, k)`, -1 where one is not there."""
    result: list[tuple[int, slice, NDArray[np.intp]]] = []
    for k, where, block in family.spans():
        found = positions(family, _of_order(family.n, subsets(block, k - 1))) if k else np.zeros(0, dtype=np.intp)
        result.append((k, where, found.reshape(len(block), k)))
    return result


def _strongest(surrogate: FourierSurrogate, variance: float, top: int | None) -> tuple[Sets, NDArray[np.float64]]:
    """∅ and the strongest other terms, `top` in all, with their F(S)² (0 for ∅); terms as strong as the last come with it."""
    squares = np.where(surrogate.sets.orders > 0, surrogate.coefficients**2, 0.0)
    ranked = np.sort(squares)[::-1]
    count = int(np.searchsorted(np.cumsum(ranked), HELD * variance)) + 1 if top is None else top - 1
    count = min(max(count, 0), MOST, len(ranked))
    least = ranked[count - 1] * (1 - ROUNDING) if count else np.inf
    chosen = (squares >= least) & (squares > 0)
    family = surrogate.sets.take(chosen)
    whole = union(family, from_tuples(surrogate.n, [()]))  # ∅ is number 0, and the others keep their order
    return whole, np.concatenate([[0.0], squares[chosen]])


def _alone(surrogate: FourierSurrogate, family: Sets, squares: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The sets of order 3 and more none of whose direct subsets has a coefficient to speak of, bool `(len(family),)`."""
    sizes = np.append(np.abs(surrogate.coefficients), 0.0)  # number -1: not there
    alone = np.zeros(len(family), dtype=np.bool_)
    for k, where, block in family.spans():
        if k >= 3:
            below = sizes[positions(surrogate.sets, _of_order(family.n, subsets(block, k - 1)))].reshape(len(block), k)
            alone[where] = below.max(axis=1) < SHADOW * np.sqrt(squares[where])
    return alone


def _of_order(n: int, block: Block) -> Sets:
    """One block as sets, which may occur more than once."""
    return Sets(n, (*(np.zeros((0, size), dtype=np.int32) for size in range(block.shape[1])), block))


def _effective(surrogate: FourierSurrogate) -> float:
    """(sum e)² / sum e² of the components' shares e of the variance, each term's F(S)² divided equally among its members."""
    energy = np.zeros(surrogate.n)
    for k, where, block in surrogate.sets.spans():
        if k:
            energy += np.bincount(block.ravel(), np.repeat(surrogate.coefficients[where] ** 2 / k, k), surrogate.n)
    return float(energy.sum() ** 2 / (energy**2).sum())


def _unexplained(r2: float | None) -> str | None:
    """A fit that predicts nothing out of fold is no evidence about hierarchy: it may have missed a function that has none."""
    if r2 is None or r2 >= NOTHING:
        return None
    cause = "the values may be noise, the evaluations too few, or the function a peak without hierarchy (such as a parity)"
    return f"Nothing is explained (cross-validated R² {r2:.2f}) although the values vary: {cause}; for a peak {MEND}."


def _without_hierarchy(alone: float) -> str | None:
    if alone < ALONE:
        return None
    found = f"{alone:.0%} of the variance is in terms of order 3 and more whose subsets are all weak or absent"
    return f"The function shows no hierarchy: {found}. Other terms like these may have been missed; {MEND}."
