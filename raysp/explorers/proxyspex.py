"""ProxySPEX: random masks, a proxy model, its exact Fourier form, refitted to the evaluations (Butler et al., NeurIPS 2025)."""

from __future__ import annotations

from math import ceil, log2
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raysp.explorers.base import Explorer, Findings
from raysp.explorers.exhaustive import IndexName
from raysp.explorers.fitting import Fit, fit_proxy
from raysp.explorers.proxies import PROXIES
from raysp.explorers.sampling import single_ablations, uniform_masks
from raysp.explorers.singles import default_budget
from raysp.explorers.tables import banzhaf_effects, removed_effects, removed_table
from raysp.game import Masks, Values
from raysp.spectral.fourier import FourierSurrogate, is_complete

#: The n + 1 single ablations are bought when they take at most this share of the budget.
SWEEP_SHARE = 0.25
#: Rows of the interactions table handed over; the surrogate holds the rest.
REPORTED = 2000


class ProxySPEX(Explorer):
    """A boosted-tree proxy trained on random masks and turned into interactions.

    Round one holds the intact mask and, if they take at most a quarter of the budget, all n single ablations (the guide's step 3); round two
    distinct uniform masks. The surrogate is fitted on the uniform ones alone: masks with one component removed are so unlikely under P(keep) = 1/2
    that as extra rows they would only pull it off the distribution it is scored on. They are reported as measured.
    """

    kind: Literal["proxyspex"] = "proxyspex"
    max_order: int = Field(default=4, ge=1, le=10, description="Largest order of the terms of the surrogate.")
    proxy: Literal["trees"] = Field(default="trees", description="The proxy model: boosted trees.")
    index: IndexName = Field(default="bii", description="The index in which interactions are reported.")

    def least_budget(self, n: int) -> int:
        """As many as singles would need, at least 16; all masks when that is less."""
        return min(1 << min(n, 62), max(16, ceil(2 * log2(n + 1))))

    def planned(self, n: int) -> int:
        """The budget, or 4 n log2 n; never more than there are masks."""
        return min(self.budget or default_budget(n), 1 << min(n, 62))

    def _next(self) -> Masks | None:
        n = self._started_n
        budget = self.planned(n)
        first = single_ablations(n) if n + 1 <= budget * SWEEP_SHARE else single_ablations(n)[:1]
        if not len(self.masks):
            return first[:budget]
        if len(self._masks) > 1:
            return None
        rest = uniform_masks(n, budget - len(first), np.random.default_rng(self.random_state), first)
        return rest if len(rest) else None

    def result(self) -> Findings:
        """The surrogate fitted on all values told; exact when they are all there are."""
        masks, values = self.masks, self.values
        effects = removed_effects(masks, values)
        notes: list[str] = []
        diagnostics: dict[str, Any] = {}
        if is_complete(masks):
            surrogate = FourierSurrogate.from_values(masks, values)
            notes.append("Every mask was measured: all values are exact.")
        else:
            surrogate, diagnostics = self._fit(masks, values, notes)
        singles = banzhaf_effects(surrogate, "surrogate") if effects is None else removed_table(effects)
        diagnostics["energy"] = surrogate.energy().tolist()
        table = surrogate.interactions(self.index, self.max_order, 2).slice(0, REPORTED)
        return Findings(surrogate, singles, table, self.index, tuple(notes), diagnostics)

    def _fit(self, masks: Masks, values: Values, notes: list[str]) -> tuple[FourierSurrogate, dict[str, Any]]:
        rows = uniform_rows(masks)
        found = fit_proxy(masks[rows], values[rows], PROXIES[self.proxy], self.max_order, self.random_state)
        notes.extend(_remarks(found))
        diagnostics = {"r2_cv": found.r2, "r2_cv_singles": found.r2_singles, "stages": found.weights, "terms": len(found.surrogate), "rows": int(rows.sum())}
        return found.surrogate, diagnostics


def uniform_rows(masks: Masks) -> NDArray[np.bool_]:
    """The rows fit for a fit under P(keep) = 1/2: all, or if every single ablation is among them, those with more than one component removed."""
    near = (~masks).sum(axis=1) <= 1
    sweep = near.sum() > masks.shape[1] and near.sum() < len(masks)
    return cast("NDArray[np.bool_]", ~near) if sweep else np.ones(len(masks), dtype=np.bool_)


def _remarks(found: Fit) -> list[str]:
    if np.isnan(found.r2):
        return ["The value does not change whatever is removed: there is nothing to explain."]
    if set(found.weights) == {"singles"}:
        return [f"Interactions do not help: single effects alone predict as well (cross-validated R² {found.r2_singles:.3f})."]
    return [f"Cross-validated R² {found.r2:.3f}; single effects alone {found.r2_singles:.3f}."]
