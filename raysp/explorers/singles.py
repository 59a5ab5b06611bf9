"""Single effects by LASSO on random masks: the baseline for interactions."""

from __future__ import annotations

from math import ceil, log2

import numpy as np

from raysp.explorers.base import Explorer, Findings
from raysp.explorers.fitting import fit_singles
from raysp.masks import Masks, Values
from raysp.sampling.balance import balanced
from raysp.sampling.draws import uniform_masks
from raysp.sampling.tables import effects_table
from raysp.specs.explorers import SinglesOptions

__all__ = ["Singles", "default_budget", "fit_singles"]

#: Minimum number of evaluations of a run without a budget.
LEAST_DEFAULT = 64


def default_budget(n: int, factor: float = 4.0) -> int:
    """The default of factor · n · log2 n evaluations (ProxySPEX, step 1), at least 64 and at most 2^n."""
    wanted = max(LEAST_DEFAULT, round(factor * n * log2(n)) if n > 1 else 0)
    return min(wanted, 1 << n) if n < 63 else wanted


class Singles(Explorer[SinglesOptions]):
    """One effect per component, without interactions: a LASSO on masks that keep each component with probability one half."""

    Options = SinglesOptions

    def least_budget(self, n: int) -> int:
        """2 log2(n + 1) evaluations, at least 8 and at most 2^n."""
        return min(1 << min(n, 62), max(8, ceil(2 * log2(n + 1))))

    def planned(self, n: int) -> int:
        """The budget, or 4 n log2 n by default; at most 2^n."""
        return min(self.options.budget or default_budget(n), 1 << min(n, 62))

    def _next(self) -> Masks | None:
        if len(self.masks):
            return None
        rng, none = np.random.default_rng(self.random_state), self.masks
        return balanced(uniform_masks(self._started_n, self.planned(self._started_n), rng), rng, none, none)

    def result(self) -> Findings:
        """The LASSO on all measurements."""
        return self._explained(self.values)

    def query_result(self, query: int) -> Findings:
        """The LASSO on one query."""
        return self._explained(self.outputs[:, query])

    def _explained(self, values: Values) -> Findings:
        surrogate = fit_singles(self.masks, values, self.random_state, weights=self.weights)
        return Findings(surrogate, effects_table(surrogate, None, "lasso"), surrogate.interactions("bii", min_order=2), "bii")
