"""Exhaustive evaluation of all masks: exact for small numbers of components, and the reference for the other explorers."""

from __future__ import annotations

from raysp.errors import UserError
from raysp.explorers.base import Explorer, Findings
from raysp.masks import Masks, Values
from raysp.sampling.matching import distinct
from raysp.sampling.tables import effects_table, removed_effects
from raysp.specs.explorers import ExhaustiveOptions
from raysp.spectral.fourier import FourierSurrogate, is_complete
from raysp.spectral.walsh import all_masks

#: Maximum number of components for which all 2^n masks are evaluated.
MAX_COMPONENTS = 16
#: Masks per round.
ROUND = 4096


class Exhaustive(Explorer[ExhaustiveOptions]):
    """Measure all 2^n masks, for at most 16 components; every index is then exact."""

    Options = ExhaustiveOptions

    def least_budget(self, n: int) -> int:
        """All 2^n masks. Raises UserError if n is too large."""
        if n > MAX_COMPONENTS:
            remedy = f"use proxyspex or screen, or a coarser unit (at most {MAX_COMPONENTS} components)"
            raise UserError("explorer", self.name, f"would need 2^{n} evaluations for {n} components", remedy)
        return 1 << n

    def planned(self, n: int) -> int:
        """The same as `least_budget`, as the result is exact only if every mask is measured."""
        return self.least_budget(n)

    def _next(self) -> Masks | None:
        n, told = self._started_n, len(self.masks)
        total = self.least_budget(n)
        return all_masks(n, told, min(told + ROUND, total)) if told < total else None

    def result(self) -> Findings:
        """The exact transform. Raises ValueError unless all masks have been measured."""
        return self._explained(self.values)

    def query_result(self, query: int) -> Findings:
        """The exact transform of one query."""
        return self._explained(self.outputs[:, query])

    def _explained(self, values: Values) -> Findings:
        masks = self.masks
        if not is_complete(masks):
            raise ValueError(f"masks have shape {masks.shape} with {len(distinct(masks))} distinct; {self.name} needs all {1 << masks.shape[1]} once each")
        surrogate = FourierSurrogate.from_values(masks, values)
        effects = removed_effects(masks, values)
        assert effects is not None
        return Findings(
            surrogate,
            effects_table(surrogate, effects),
            surrogate.interactions(self.options.index, min_order=2),
            self.options.index,
            ("Every mask was measured, so all values are exact.",),
        )
