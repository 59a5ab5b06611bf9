"""Choose the masks that validate an explorer's findings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import comb, isqrt
from typing import cast

import numpy as np

from raysp.explorers.base import Findings
from raysp.masks import Masks
from raysp.sampling.ablations import ablations
from raysp.sampling.draws import random_masks, uniform_masks
from raysp.sampling.matching import distinct
from raysp.sampling.strata import allocated, sized_masks
from raysp.specs.validation import MAX_EXACT_ORDER, Validation

#: The P(keep) at which masks are drawn uniformly.
UNIFORM = 0.5

Members = tuple[int, ...]

#: Numbers of components that held-out masks around the intact input remove.
NEAR = range(2, 6)


@dataclass(frozen=True)
class ValidationPlan:
    """What to measure and why. `masks` (bool `(m, n)`, distinct) include every ablation of the sets, and the held-out masks."""

    findings: Findings
    n: int
    masks: Masks
    top: tuple[Members, ...]
    random: tuple[Members, ...]
    low_pairs: tuple[Members, ...]
    low_total: int
    heldout: Masks
    keep_probability: float
    near: Masks


def plan(  # noqa: PLR0917  in the order in which a run produces them
    findings: Findings, n: int, options: Validation, keep_probability: float, rng: np.random.Generator, known: Masks | None = None
) -> ValidationPlan:
    """The exact ablations and held-out masks that validate these findings.

    `known` are the masks that the surrogate was fitted on; none of them is held out (`judge` leaves them out of the score in any case). Interactions above order 4 are not measured.
    """
    reported = [tuple(cast("list[int]", members)) for members in findings.table.column("components").to_pylist()]
    measurable = [members for members in reported if 2 <= len(members) <= MAX_EXACT_ORDER]
    top, rest = measurable[: options.top], measurable[options.top :]
    drawn = sorted(rng.choice(len(rest), min(options.random, len(rest)), replace=False).tolist()) if rest else []
    low = low_impact(findings, n)
    pairs = _random_pairs(low, options.low_pairs, rng)
    heldout = _heldout(n, options.heldout, keep_probability, rng, known)
    near = _near(n, options.near, rng, known) if findings.focus != "average" else np.zeros((0, n), dtype=np.bool_)
    chosen = [rest[row] for row in drawn]
    sets: dict[Members, None] = {(): None}
    for members in [*top, *chosen, *pairs]:
        sets.update((part, None) for size in range(1, len(members) + 1) for part in itertools.combinations(members, size))
    masks = distinct(np.concatenate([ablations(n, sets), heldout, near]))
    return ValidationPlan(findings, n, masks, tuple(top), tuple(chosen), tuple(pairs), comb(len(low), 2), heldout, keep_probability, near)


def _heldout(n: int, count: int, keep_probability: float, rng: np.random.Generator, known: Masks | None) -> Masks:
    if keep_probability == UNIFORM:
        return uniform_masks(n, count, rng, known)
    return random_masks(n, count, keep_probability, rng, known)


def _near(n: int, count: int, rng: np.random.Generator, known: Masks | None) -> Masks:
    """Distinct masks, not among those `known`, that remove as many components as `NEAR` says, each number as often, bool `(m, n)`; fewer if there are fewer."""
    counts = np.zeros(n + 1, dtype=np.intp)
    sizes = [n - removed for removed in NEAR if removed < n]
    shares = np.zeros(n + 1)
    shares[sizes] = 1.0
    there = sum(comb(n, size) for size in sizes) - (0 if known is None else int(np.isin(known.sum(axis=1), sizes).sum()))
    counts = allocated(n, max(min(count, there), 0), shares, known)
    return sized_masks(n, counts, rng, known)


def low_impact(findings: Findings, n: int) -> list[int]:
    """The components among which interactions are assumed absent: those rejected by screening, or those with a single effect below the median."""
    kept = findings.diagnostics.get("kept")
    if kept is not None:
        return sorted(set(range(n)) - {int(i) for i in kept})
    effects = np.abs(np.asarray(findings.singles.column("value").to_numpy(), dtype=np.float64))
    return sorted(np.argsort(effects, kind="stable")[: n // 2].tolist())


def _random_pairs(low: list[int], count: int, rng: np.random.Generator) -> list[Members]:
    """Distinct pairs of these components, drawn uniformly."""
    total = comb(len(low), 2)
    chosen = rng.choice(total, min(count, total), replace=False) if total else np.zeros(0, dtype=np.intp)
    return sorted((low[first], low[second]) for first, second in (numbered_pair(row, len(low)) for row in chosen.tolist()))


def numbered_pair(number: int, n: int) -> tuple[int, int]:
    """The pair i < j < n with this number (from 0) in the order (0, 1), (0, 2), …, (n - 2, n - 1), without listing them all."""
    behind = comb(n, 2) - 1 - number  # the number of pairs after it
    row = (isqrt(8 * behind + 1) - 1) // 2  # complete rows after it: the last has one pair, the one before two
    return n - 2 - row, n - 1 - (behind - row * (row + 1) // 2)
