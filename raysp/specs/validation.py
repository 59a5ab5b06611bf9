"""Options of the validation: how many evaluations a run spends on checking its answer."""

from math import comb

from pydantic import ConfigDict, Field

from raysp.specs.base import Spec
from raysp.specs.limits import MOST_COUNT

#: The largest order whose 2^order sub-ablations are all measured.
MAX_EXACT_ORDER = 4


class Validation(Spec):
    """Number of evaluations or interactions in each check; a check set to 0 is skipped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heldout: int = Field(default=200, ge=0, le=MOST_COUNT, description="Held-out random masks on which the surrogate is scored.")
    near: int = Field(
        default=60, ge=0, le=MOST_COUNT, description="Held-out masks that remove two to five components, on which the surrogate is scored at the intact input."
    )
    top: int = Field(
        default=10,
        ge=0,
        le=MOST_COUNT,
        description="Leading interactions of the answer (significant ones first) that are measured by exact ablation.",
    )
    random: int = Field(default=10, ge=0, le=MOST_COUNT, description="Other reported interactions, drawn at random, that are measured by exact ablation.")
    low_pairs: int = Field(
        default=20, ge=0, le=MOST_COUNT, description="Random pairs of low-impact components that are measured exactly, as a check on what screening misses."
    )

    def planned(self, n: int, max_order: int = 2) -> int:
        """Upper bound on the evaluations of the validation for n components (most sub-ablations are shared or already stored)."""
        sub = sum(comb(min(max_order, MAX_EXACT_ORDER, n), size) for size in range(2, min(max_order, MAX_EXACT_ORDER, n) + 1))
        checked = self.top + self.random
        singles = min(n, checked * min(max_order, MAX_EXACT_ORDER) + 2 * self.low_pairs)
        total = 1 + singles + checked * sub + min(self.low_pairs, comb(n, 2)) + self.heldout + self.near
        return min(total, 1 << min(n, 62))
