"""SPEX: coded masks, a sparse Walsh-Hadamard transform, peeling, and a refit (Kang et al., ICML 2025)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysp.errors import UserError
from raysp.explorers.base import Explorer, Findings
from raysp.explorers.exhaustive import ROUND as TABLE_ROUND
from raysp.explorers.fitting import fit_singles
from raysp.explorers.proxyspex import REPORTED
from raysp.explorers.refit import LEAST_BLOCKS, Refit, refit
from raysp.explorers.remarks import about_ends
from raysp.explorers.samples import CONSTANT_VALUE, constant
from raysp.masks import Masks, Values
from raysp.sampling.tables import effects_table, removed_effects
from raysp.specs.explorers import MAX_B, SPEXOptions
from raysp.spectral.codes import bch, parity_length
from raysp.spectral.diagnostics import diagnose
from raysp.spectral.fourier import FourierSurrogate, is_complete
from raysp.spectral.peeling import Peeled, Spectrum, peel, transform
from raysp.spectral.queries import MATRICES, Design, design
from raysp.spectral.walsh import MAX_DENSE, all_masks

#: Default maximum order and default b (2^b bins), unless given or limited by the budget, and the smallest b tried.
DEFAULT_ORDER, DEFAULT_B, LEAST_B = 5, 8, 3
#: All masks are measured instead of a design if the budget allows or, without a budget, if they are at most this many times as many.
TABLE_FACTOR = 4 / 3
#: Approximate number of masks per round (whole blocks), so that several evaluators can work in parallel.
ROUND = 2048
#: Maximum number of evaluations used by a preview.
PREVIEWED = 2000


@dataclass(frozen=True)
class Size:
    """The size of a run: blocks of 2^b masks for a code that corrects t errors; `b` is None if all masks are measured."""

    evaluations: int
    b: int | None = None
    t: int = 0


class SPEX(Explorer[SPEXOptions]):
    """Sparse interactions of any structure, without assuming a hierarchy, from masks designed with an error-correcting code.

    A run takes 3 · 2^b · (P + 1) evaluations, where P is the number of parity bits of a code that corrects `max_order` errors on n components. Blocks are
    requested matrix by matrix: any number of them gives a result, and a third of them gives the first decoded terms. If all 2^n masks are hardly more,
    they are measured instead.
    """

    Options = SPEXOptions

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._made: Design | None = None

    # ---- budgets

    def least_budget(self, n: int) -> int:
        """The size of the smallest design with the given b and order, if any; at most 2^n."""
        least = _evaluations(n, self.options.b or LEAST_B, min(self.options.max_order or 1, n))
        return min(least, 1 << n) if n <= MAX_DENSE else least

    def planned(self, n: int) -> int:
        """The number of masks in the design (an upper bound, as repeated masks are requested only once)."""
        return self.size(n).evaluations

    def size(self, n: int) -> Size:
        """The design for n components: the largest order that fits the budget, then the largest b. Raises UserError if the budget is too small."""
        table = 1 << n if n <= MAX_DENSE else None
        limit = self.options.budget if table is None else min(table, self.options.budget or table)
        orders = [self.options.max_order] if self.options.max_order else [DEFAULT_ORDER] if self.options.budget is None else range(DEFAULT_ORDER, 0, -1)
        widths = [self.options.b] if self.options.b else range(min(MAX_B, n) if self.options.budget else DEFAULT_B, LEAST_B - 1, -1)
        sizes = (Size(_evaluations(n, b, min(order, n)), b, min(order, n)) for order in orders for b in widths)
        fitting = next((size for size in sizes if limit is None or size.evaluations <= limit), None)
        if table is not None and table <= (self.options.budget or table):
            hardly_more = self.options.b is None and (self.options.budget is not None or fitting is None or table <= fitting.evaluations * TABLE_FACTOR)
            if fitting is None or hardly_more:
                return Size(table)
        if fitting is not None:
            return fitting
        least = self.least_budget(n)
        raise UserError("budget", self.options.budget, f"is too small for {self.name} on {n} components", f"give at least {least}")

    # ---- ask / tell

    def _next(self) -> Masks | None:
        n, told = self._started_n, len(self.masks)
        if self.size(n).b is None:
            total = 1 << n
            return all_masks(n, told, min(told + TABLE_ROUND, total)) if told < total else None
        made = self._design()
        first = int(np.searchsorted(made.ends, told, side="right"))
        if first >= made.blocks:
            return None
        last = int(np.searchsorted(made.ends, told + max(ROUND, 1 << made.b), side="right"))
        return made.fresh(first, max(last, first + 1))

    def preview(self, masks: object, values: object) -> float | None:
        """See `Explorer.preview`; uses a random subset of the evaluations."""
        array, told = np.asarray(masks), np.asarray(values)
        chosen = np.sort(np.random.default_rng(self.random_state).permutation(len(told))[:PREVIEWED])
        return super().preview(array[chosen], told[chosen])

    def result(self) -> Findings:
        """The findings from the blocks measured so far. Raises ValueError unless the masks are the first ones of the design, with equal weights."""
        return self._explained(self.values)

    def query_result(self, query: int) -> Findings:
        """The findings for one query."""
        return self._explained(self.outputs[:, query])

    def _explained(self, values: Values) -> Findings:
        masks, weights = self.masks, self.weights
        if len(weights) and np.ptp(weights) > 0 and not is_complete(masks):
            raise ValueError(f"weights: range from {weights.min():g} to {weights.max():g}, but the transform of spex needs equal weights; use proxyspex")
        notes: list[str] = []
        if is_complete(masks):
            surrogate, diagnostics = FourierSurrogate.from_values(masks, values), dict[str, Any](rows=len(values))
            notes.append("Every mask was measured, so all values are exact.")
            return self._findings_of(surrogate, surrogate, removed_effects(masks, values), notes, diagnostics)
        size = self.size(masks.shape[1])
        diagnostics: dict[str, Any] = {"b": size.b, "t": size.t, "rows": len(values)}
        if size.b is None:
            _check_queries(masks, [all_masks(masks.shape[1])], size)
            notes.append(f"{len(values):,} of {size.evaluations:,} masks were measured, too few for a transform; single effects were fitted instead.")
            surrogate = singles = fit_singles(masks, values, self.random_state)
        else:
            surrogate, singles = self._solve(masks, values, notes, diagnostics)
        notes += about_ends(surrogate, self.options.index, masks, values)
        return self._findings_of(surrogate, singles, removed_effects(masks, values), notes, diagnostics)

    # ---- decoding

    def _design(self) -> Design:
        """The design, constructed once."""
        if self._made is None:
            size = self.size(self._started_n)
            assert size.b is not None
            self._made = design(bch(self._started_n, size.t), size.b, self.random_state)
        return self._made

    def _solve(self, masks: Masks, values: Values, notes: list[str], diagnostics: dict[str, Any]) -> tuple[FourierSurrogate, FourierSurrogate]:
        """The surrogate from an incomplete table, and one with a term for every single component."""
        made = self._design()
        _check_queries(masks, (made.fresh(block, block + 1) for block in range(made.blocks)), self.size(made.n))
        spectrum = transform(made, values)
        blocks = int(spectrum.told.sum())
        diagnostics |= {"delays": made.delays, "blocks": blocks, "blocks_planned": made.blocks, "matrices": int(spectrum.complete.sum())}
        if blocks < made.blocks:
            notes.append(_part_told(spectrum))
        if len(values) < 2 or not np.ptp(values) > 0:
            notes.append(CONSTANT_VALUE)
            flat = constant(made.n, values)
            return flat, flat
        if blocks < LEAST_BLOCKS:
            notes.append("There are too few blocks to find interactions; single effects were fitted instead.")
            fitted = fit_singles(masks, values, self.random_state)
            return fitted, fitted
        peeled = peel(spectrum, self.options.decoder)
        found = refit(spectrum, peeled.sets, values, self.random_state)
        notes.extend(_remarks(spectrum, peeled, found))
        diagnostics |= {
            "terms_decoded": len(peeled.sets),
            "noise": peeled.noise,
            "rounds": peeled.rounds,
            "bins_unresolved": peeled.unresolved,
            "refit": found.method,
            "r2_cv": found.r2,
            "residual_share": found.residual,
        }
        return found.surrogate, found.singles

    def _findings_of(
        self, surrogate: FourierSurrogate, singles: FourierSurrogate, removed: Values | None, notes: list[str], diagnostics: dict[str, Any]
    ) -> Findings:
        table = effects_table(singles, removed)
        diagnostics |= {"terms": len(surrogate), "hierarchy": diagnose(surrogate).as_dict(), "energy": surrogate.energy().tolist()}
        interactions = surrogate.interactions(self.options.index, self.options.max_order or diagnostics.get("t"), 2).slice(0, REPORTED)
        return Findings(surrogate, table, interactions, self.options.index, tuple(notes), diagnostics)


def _evaluations(n: int, b: int, t: int) -> int:
    return MATRICES * (parity_length(n, t) + 1) << b


def _check_queries(masks: Masks, queries: Iterable[Masks], size: Size) -> None:
    """Raise ValueError unless the masks equal the queries (given in pieces), or a leading part of them, row by row."""
    row = 0
    for piece in queries:
        part = masks[row : row + len(piece)]
        wrong = np.flatnonzero((part != piece[: len(part)]).any(axis=1))
        row += int(wrong[0]) if len(wrong) else len(part)
        if len(wrong):
            break
        if row == len(masks):
            return
    design_of = "all 2^n masks" if size.b is None else f"its coded masks (b = {size.b}, t = {size.t})"
    raise ValueError(
        f"masks: row {row} is not the mask that spex requests there (shape {masks.shape}); expected {design_of} for n = {masks.shape[1]} and this "
        f"random_state, at most {size.evaluations:,}, in the order of ask(), or a leading part of them; use proxyspex for other masks"
    )


def _part_told(spectrum: Spectrum) -> str:
    matrices = int(spectrum.complete.sum())
    decoded = f"the bins of {matrices} of {MATRICES} matrices could be decoded" if matrices else "none can be decoded yet; single effects were fitted"
    return f"{int(spectrum.told.sum())} of {spectrum.told.size} blocks were measured: {decoded}."


def _remarks(spectrum: Spectrum, peeled: Peeled, found: Refit) -> list[str]:
    notes: list[str] = []
    if spectrum.complete.any():
        noise = f"the noise per evaluation is about {peeled.noise:.3g}" if peeled.noise else "no noise was detected"
        left = f"{peeled.unresolved} of {spectrum.values.shape[2] * int(spectrum.complete.sum())} bins still hold more than noise"
        notes.append(f"{len(peeled.sets)} terms decoded from {int(spectrum.told.sum())} blocks; {noise}; {left if peeled.unresolved else 'all bins resolved'}.")
    refitted = "by least squares" if found.method == "least squares" else "by LASSO with all single effects"
    notes.append(f"Refitted {refitted}: {len(found.surrogate)} terms, cross-validated R² {found.r2:.3f}.")
    return notes
