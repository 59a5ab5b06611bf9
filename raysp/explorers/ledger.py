"""What a screening has asked so far: the values of ablations by the set that they remove, and what is left of the budget.

A screening decides anew from its first round whenever it is asked, so that all it decides follows from its options and the values told. The ledger counts
what was asked on the way, whether or not more masks were told.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np

from raysp.explorers.candidates import Members
from raysp.masks import Masks, Values
from raysp.spectral.sets import Floats


class Ledger:
    """The values told (masks bool `(m, n)`, values `(m,)`), the sets asked for by `afford`, and the room left of the budget (None: no limit)."""

    def __init__(self, masks: Masks, values: Values, budget: int | None) -> None:
        self.n = masks.shape[1]
        self._values: dict[Members, float] = {}
        gone, members = np.nonzero(~masks)
        parts = np.split(members, np.cumsum(np.bincount(gone, minlength=len(masks)))[:-1]) if len(masks) else []
        for removed, value in zip(parts, values.tolist(), strict=True):
            self._values.setdefault(tuple(removed.tolist()), value)
        self._budget = sys.maxsize if budget is None else budget
        self.asked: dict[Members, None] = {}
        self.pairs: dict[Members, float] = {}

    @property
    def room(self) -> int:
        """How many more ablations the budget allows."""
        return self._budget - len(self.asked)

    def afford(self, sets: Iterable[Members], most: int | None = None) -> list[Members]:
        """Ask for those of the sets (ascending) that were not asked for yet, in order, up to `most` and to the room that is left; returns them."""
        limit = self.room if most is None else min(most, self.room)
        fresh = dict.fromkeys(members for members in sets if members not in self.asked)
        chosen = list(fresh)[: max(limit, 0)]
        self.asked.update(dict.fromkeys(chosen))
        return chosen

    def has(self, members: Members) -> bool:
        """Whether the ablation of this set was asked for."""
        return members in self.asked

    def effect(self, members: Members) -> float:
        """v(all) - v(all without the set)."""
        return self._values[()] - self._values[members]

    def effects(self) -> Floats:
        """The single effects, float64 `(n,)`; zero where they were not asked for."""
        return np.array([self.effect((i,)) if (i,) in self.asked else 0.0 for i in range(self.n)])

    def note_pairs(self) -> None:
        """Bring `pairs`, the deviations from additivity of the measured pairs, up to date with what was asked for."""
        for members in self.asked:
            if len(members) == 2 and members not in self.pairs and members in self._values and all((i,) in self._values for i in members):
                self.pairs[members] = self.effect(members) - self.effect(members[:1]) - self.effect(members[1:])

    @property
    def scale(self) -> float:
        """The largest absolute value told."""
        return max((abs(value) for value in self._values.values()), default=0.0)
