"""What a run measures around the intact input: the ends, the single ablations, some of them with slopes, and pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysp.explorers.changes import Changes
from raysp.explorers.designs import Design
from raysp.explorers.purchases import Purchases
from raysp.masks import Masks
from raysp.sampling.ablations import single_ablations
from raysp.sampling.matching import distinct
from raysp.specs.explorers import Focus

#: The n + 1 single ablations are evaluated if they take at most this share of the budget.
SWEEP_SHARES: dict[Focus, float] = {"average": 0.25, "both": 0.25, "intact": 0.5}
#: The number of single ablations that are measured with slopes before it is known whether both estimates of a pair agree.
TRIED = 16


@dataclass(frozen=True)
class Around:
    """What a run with a `budget` measures around the intact input by its `design`, given the `purchases` of slopes that it may make (None: none)."""

    design: Design
    budget: int
    purchases: Purchases | None = None

    @property
    def sweeps(self) -> bool:
        """Whether every single ablation is measured."""
        return self.design.n + 1 <= self.budget * SWEEP_SHARES[self.design.focus]

    @property
    def pairs(self) -> int:
        """The number of evaluations for pairs, and for slopes that estimate these."""
        n = self.design.n
        return self.design.pairs(self.budget - n - 2) if self.sweeps and self.budget < 1 << min(n, 62) else 0

    @property
    def sloped(self) -> int:
        """The number of single ablations that are measured with slopes if these turn out to be of use."""
        return self.purchases.affordable_around(self.design.n, self.pairs) if self.purchases else 0

    @property
    def ends_and_singles(self) -> Masks:
        """The ends and the single ablations that are measured, bool `(k, n)`."""
        n = self.design.n
        wanted = single_ablations(n) if self.sweeps else np.ones((1, n), dtype=np.bool_)
        return np.concatenate([wanted, np.zeros((1, n), dtype=np.bool_)]) if self.design.writes else wanted

    def first(self, masks: Masks, changes: Changes | None) -> tuple[Masks, bool]:
        """The next of the ends and single ablations that are not among the measured `masks`, none if all are, and whether they are measured with slopes."""
        missing = distinct(self.ends_and_singles, masks) if len(masks) else self.ends_and_singles
        return sweep(missing, changes, self.purchases, self.pairs)


def sweep(missing: Masks, changes: Changes | None, purchases: Purchases | None, pairs: int) -> tuple[Masks, bool]:
    """The next round of `missing` ends and single ablations (bool `(k, n)`), and whether it is measured with slopes, if `pairs` evaluations are kept for pairs.

    The slopes of the intact input tell which components are strong. As many as are affordable are removed with slopes, the strongest ones: a few first, and the
    others if estimates agree, or if slopes are wanted in any case.
    """
    affordable = purchases.affordable_around(missing.shape[1], pairs) if purchases else 0
    if purchases is None or not len(missing) or not affordable:
        return missing, False
    removed = (~missing).sum(axis=1)
    if changes is None:
        return (missing[removed == 0], True) if (removed == 0).any() else (missing, False)
    done, always = int(changes.removed.sum()), purchases.wanted == "on"
    if done >= affordable or (done >= TRIED and not always and not changes.agree):
        return missing, False
    single = np.flatnonzero(removed == 1)
    strength = np.abs(changes.intact)[np.argmin(missing[single], axis=1)]
    wanted = affordable if always or done >= TRIED else min(affordable, TRIED)
    chosen = single[np.argsort(-strength, kind="stable")[: wanted - done]]
    return (missing[np.sort(chosen)], True) if len(chosen) else (missing, False)
