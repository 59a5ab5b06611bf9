"""The rounds of a ProxySPEX run: what each was for, and which of its masks were drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks

#: pilot: masks that determine P(keep); first: both ends and the single ablations; random: masks of the design; pairs: pairs at the intact input.
Role = Literal["pilot", "first", "random", "pairs"]


@dataclass
class Rounds:
    """The role of each round, and the number of its masks, the first ones, that were chosen for their uncertainty rather than drawn."""

    entries: list[tuple[Role, int]] = field(default_factory=list[tuple[Role, int]])

    def note(self, role: Role, masks: Masks, chosen: int = 0) -> Masks:
        """Record a round; returns its masks."""
        self.entries.append((role, chosen))
        return masks

    def count(self, role: Role) -> int:
        """The number of rounds with a role."""
        return sum(each == role for each, _ in self.entries)

    def until(self, role: Role) -> int:
        """The number of rounds up to the first one with a role, with that; one more than there are if none has it."""
        return next((number for number, (each, _) in enumerate(self.entries, 1) if each == role), len(self.entries) + 1)

    def sizes(self, role: Role, told: Sequence[Masks]) -> list[int]:
        """The numbers of masks `told` in the rounds with a role."""
        return [len(masks) for (each, _), masks in zip(self.entries, told, strict=False) if each == role]

    def drawn(self, told: Sequence[Masks], pilot: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the masks `told` were drawn from the distribution on which fits are scored, bool `(m,)`; `pilot` says so of the masks of a pilot."""
        found = [np.zeros(0, dtype=np.bool_)]
        for (role, chosen), masks in zip(self.entries, told, strict=False):
            rows = np.arange(len(masks))
            found.append(pilot[: len(masks)] if role == "pilot" else (rows >= chosen) & (role == "random"))
        return np.concatenate(found)
