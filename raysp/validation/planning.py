"""What to measure so that a finding can be trusted, or not."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import comb
from typing import cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from raysp.explorers.base import Findings
from raysp.game import Masks
from raysp.sampling.draws import ablations, distinct, random_masks, uniform_masks

#: The largest order whose 2^order sub-ablations are all measured.
MAX_EXACT_ORDER = 4
#: P(keep) that is drawn as plain uniform masks.
UNIFORM = 0.5

Members = tuple[int, ...]


class Validation(BaseModel):
    """How much is spent on checking; a part set to 0 is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heldout: int = Field(default=200, ge=0, description="Fresh random masks on which the surrogate is scored.")
    top: int = Field(default=10, ge=0, description="First interactions of the answer (significant, then strongest) measured by exact ablation.")
    random: int = Field(default=10, ge=0, description="Other reported interactions, drawn at random, measured by exact ablation.")
    low_pairs: int = Field(default=20, ge=0, description="Random pairs of low-impact components measured exactly: what a screening would have missed.")

    def planned(self, n: int, max_order: int = 2) -> int:
        """The most evaluations that a plan for n components asks for (most sub-ablations are shared, or known to the store)."""
        sub = sum(comb(min(max_order, MAX_EXACT_ORDER, n), size) for size in range(2, min(max_order, MAX_EXACT_ORDER, n) + 1))
        checked = self.top + self.random
        singles = min(n, checked * min(max_order, MAX_EXACT_ORDER) + 2 * self.low_pairs)
        total = 1 + singles + checked * sub + min(self.low_pairs, comb(n, 2)) + self.heldout
        return min(total, 1 << min(n, 62))


@dataclass(frozen=True)
class ValidationPlan:
    """What is to be measured and what for. `masks` bool `(m, n)`, distinct; the sets and held-out masks refer to them by their content."""

    findings: Findings
    n: int
    masks: Masks
    top: tuple[Members, ...]
    random: tuple[Members, ...]
    low_pairs: tuple[Members, ...]
    low_total: int
    heldout: Masks
    keep_probability: float


def plan(  # noqa: PLR0917  the order in which a run loop has them
    findings: Findings, n: int, options: Validation, keep_probability: float, rng: np.random.Generator, known: Masks | None = None
) -> ValidationPlan:
    """The exact ablations and held-out masks that check these findings.

    `known` are the masks that the surrogate was fitted on; none of them is held out (`judge` leaves them out of the score in any case). Interactions above order 4 are not measured.
    """
    reported = [tuple(cast("list[int]", members)) for members in findings.table.column("components").to_pylist()]
    measurable = [members for members in reported if 2 <= len(members) <= MAX_EXACT_ORDER]
    top, rest = measurable[: options.top], measurable[options.top :]
    drawn = sorted(rng.choice(len(rest), min(options.random, len(rest)), replace=False).tolist()) if rest else []
    low = low_impact(findings, n)
    pairs = _random_pairs(low, options.low_pairs, rng)
    heldout = _heldout(n, options.heldout, keep_probability, rng, known)
    chosen = [rest[row] for row in drawn]
    sets: dict[Members, None] = {(): None}
    for members in [*top, *chosen, *pairs]:
        sets.update((part, None) for size in range(1, len(members) + 1) for part in itertools.combinations(members, size))
    masks = distinct(np.concatenate([ablations(n, sets), heldout]))
    return ValidationPlan(findings, n, masks, tuple(top), tuple(chosen), tuple(pairs), comb(len(low), 2), heldout, keep_probability)


def _heldout(n: int, count: int, keep_probability: float, rng: np.random.Generator, known: Masks | None) -> Masks:
    if keep_probability == UNIFORM:
        return uniform_masks(n, count, rng, known)
    return random_masks(n, count, keep_probability, rng, known)


def low_impact(findings: Findings, n: int) -> list[int]:
    """The components whose interactions nobody looked for: those below the screening's cut, or with a single effect below the median."""
    kept = findings.diagnostics.get("kept")
    if kept is not None:
        return sorted(set(range(n)) - {int(i) for i in kept})
    effects = np.abs(np.asarray(findings.singles.column("value").to_numpy(), dtype=np.float64))
    return sorted(np.argsort(effects, kind="stable")[: n // 2].tolist())


def _random_pairs(low: list[int], count: int, rng: np.random.Generator) -> list[Members]:
    """Distinct pairs of these components, all alike likely."""
    total = comb(len(low), 2)
    chosen = rng.choice(total, min(count, total), replace=False) if total else np.zeros(0, dtype=np.intp)
    first, second = np.triu_indices(len(low), 1)
    return sorted((low[first[row]], low[second[row]]) for row in chosen.tolist())
