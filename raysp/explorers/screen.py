"""Screening, the guide's variant of SPEX: rank components by single effect, keep the top k, and measure deviations from additivity of their pairs."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from raysp.errors import UserError
from raysp.explorers import candidates
from raysp.explorers.base import Explorer, Findings
from raysp.explorers.candidates import Deviations
from raysp.explorers.scores import check_scores, load_scores
from raysp.masks import Masks, Values, lookup
from raysp.sampling.ablations import ablations, single_ablations
from raysp.sampling.matching import distinct, lookup_removed
from raysp.sampling.tables import UNMEASURED, singles_table
from raysp.specs.explorers import GRADIENT, Focus, Keep, ScreenOptions
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.gradients import GradientReport

#: Share of the budget left after single ablations that is reserved for triples.
TRIPLE_SHARE = 1 / 3


class Screen(Explorer[ScreenOptions]):
    """Single ablations, followed by pair (and optionally triple) ablations among the most important components.

    All reported effects are measured exactly; everything not measured is assumed to be additive. The surrogate is accurate near the intact input and is
    therefore scored at P(keep) = 0.9.
    """

    Options = ScreenOptions

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._given: Floats | None = None

    @property
    def keep_probability(self) -> float:
        """0.9: near the intact input, where the ablations are measured."""
        return 0.9

    def resolved(self, labels: Sequence[str], keep: Keep | None, focus: Focus | None) -> ScreenOptions:  # noqa: ARG002  a screening always measures near the intact input
        """The options with labels in `always_include` replaced by indices. Raises UserError for an unknown label."""
        if not labels:
            return self.options
        known: dict[str, list[int]] = {}
        for number, label in enumerate(labels):
            known.setdefault(label, []).append(number)
        chosen: list[int] = []
        for name in self.options.always_include:
            if isinstance(name, str) and name not in known and not name.lstrip("-").isdigit():
                raise UserError("always_include", name, "is not a component", f"give an index or a label such as {', '.join(list(known)[:5])}")
            chosen.extend(known[name] if isinstance(name, str) and name in known else [int(name)])
        return self.options.model_copy(update={"always_include": tuple(dict.fromkeys(chosen))})

    # ---- budgets

    def least_budget(self, n: int) -> int:
        """The intact and the empty mask, every single ablation and one pair; with precomputed scores, only two single ablations and their pair.

        One or two components require fewer.
        """
        singles = min(n, max(2, len(self.options.always_include))) if self.options.scores is not None else n
        return 2 if n == 1 else 2 + singles + (1 if n > 2 else 0)

    def planned(self, n: int) -> int:
        """An upper bound, as the number of components kept automatically is known only after the single ablations."""
        kept = self._most_kept(n)
        singles = n if self.options.scores is None else kept
        pairs = comb(kept, 2)
        total = 2 + singles + pairs + (self._triples_wanted(kept) if self.options.order == 3 else 0)
        return min(total, self.options.budget or total, 1 << min(n, 62))

    def _most_kept(self, n: int) -> int:
        most = candidates.most_automatic(n) if isinstance(self.options.top_k, str) else candidates.counted(self.options.top_k, n)
        return min(n, most + len(self.options.always_include), self._room(n))

    def _triples_wanted(self, kept: int) -> int:
        return min(comb(kept, 3), comb(kept, 2))

    def preview(self, masks: object, values: object) -> float | None:  # noqa: ARG002  nothing is held out, as every measurement is used
        """None, as a screening reports exact measurements."""
        return None

    # ---- ask / tell

    def check(self) -> None:
        """Raise UserError if scores or included components do not match the number of components."""
        if self.options.scores != GRADIENT:  # gradients are added after the start
            self._given_scores()
        self._included()

    @property
    def gradient_order(self) -> int:
        """Order 1 for the scores `gradient`."""
        return int(self.options.scores == GRADIENT)

    @property
    def requires_gradients(self) -> bool:
        """Whether the scores are `gradient`."""
        return self.options.scores == GRADIENT

    def with_gradients(self, report: GradientReport) -> Self:
        """Add gradients as in `Explorer.with_gradients`; the scores `gradient` are the single effects by the leading method of the report."""
        if self.requires_gradients:
            self._given = None if report.leading is None else report.singles(report.leading)
            self._given_scores()
        return self

    def _next(self) -> Masks | None:
        n = self._started_n
        told = self.masks
        wanted = self._first_round()
        if len(told) and not (missing := distinct(wanted, told)).size:
            wanted = self._pairs_round()
            missing = distinct(wanted, told)
            if not len(missing) and self.options.order == 3:
                missing = distinct(self._triples_round(), told)
            return missing if len(missing) else None
        return distinct(wanted, told if len(told) else None)[: self.options.budget] if n else None

    def _first_round(self) -> Masks:
        """The intact mask, the empty mask, and the single ablations that are needed."""
        n = self._started_n
        measured = range(n) if self._given_scores() is None else self._kept().tolist()
        return distinct(ablations(n, [(), range(n), *((i,) for i in measured)]))

    def _pairs_round(self) -> Masks:
        kept, effects = self._kept(), self._effects()
        limit = None
        if self.options.budget is not None:
            left = self.options.budget - len(self._first_round())
            limit = left - int(left * TRIPLE_SHARE) if self.options.order == 3 and len(kept) > 2 else left
            limit = max(limit, min(left, 1), 0)
        return ablations(self._started_n, candidates.ranked_pairs(kept, effects, limit))

    def _triples_round(self) -> Masks:
        done = len(self._first_round()) + len(self._pairs_round())
        room = self._triples_wanted(len(self._kept()))
        if self.options.budget is not None:
            room = min(room, self.options.budget - done)
        pairs = self._deviations(candidates.ranked_pairs(self._kept(), self._effects()), self.values)
        return ablations(self._started_n, candidates.ranked_triples(pairs)[: max(room, 0)])

    # ---- measurements

    def _given_scores(self) -> Floats | None:
        if self.options.scores == GRADIENT and self._given is None:
            remedy = "omit scores to measure the single effects"
            raise UserError("scores", self.options.scores, "needs the model's gradients, but this game has none", remedy)
        if self.options.scores is not None and self._given is None:
            read = load_scores(self.options.scores) if isinstance(self.options.scores, str) else np.array(self.options.scores, dtype=np.float64)
            self._given = check_scores(read, self._started_n, self.options.scores)
        return self._given

    def _included(self) -> list[int]:
        """The components that are always kept. Raises UserError for an unresolved label or an index out of range."""
        n = self._started_n
        for name in self.options.always_include:
            if isinstance(name, str) or not 0 <= name < n:
                raise UserError("always_include", name, f"is not one of the {n} components", f"give an index from 0 to {n - 1}, or the label of a component")
        return [int(i) for i in self.options.always_include]

    def _effects(self) -> Floats:
        """The single effects used for ranking: given or measured."""
        given = self._given_scores()
        if given is not None:
            return given
        rows, values = lookup_removed(self.masks), self.values
        if np.any(rows < 0):
            self._rows(single_ablations(self._started_n))
        return values[rows[0]] - values[rows[1:]]

    def _rows(self, wanted: Masks) -> np.ndarray:
        rows = lookup(self.masks, wanted)
        if np.any(rows < 0):
            removed = [np.flatnonzero(~mask).tolist() for mask in wanted[rows < 0][:3]]
            raise ValueError(f"masks: {int((rows < 0).sum())} of {len(wanted)} masks that {self.name} needs are missing; add those that remove {removed}")
        return rows

    def _kept(self) -> np.ndarray:
        """The components whose pairs are ablated, intp `(k,)`, ascending."""
        effects = np.abs(self._effects())
        count = candidates.automatic(effects) if isinstance(self.options.top_k, str) else candidates.counted(self.options.top_k, len(effects))
        wanted = [*self._included(), *np.argsort(-effects, kind="stable")[:count].tolist()]
        return np.array(sorted(list(dict.fromkeys(wanted))[: self._room(len(effects))]), dtype=np.intp)

    def _room(self, n: int) -> int:
        """The maximum number of components to keep; with scores, the budget minus the intact mask, the empty mask and one pair."""
        return n if self.options.scores is None or self.options.budget is None else max(self.options.budget - 3, min(n, 2))

    def _deviations(self, sets: Sequence[tuple[int, ...]], values: Values) -> Deviations:
        """The deviations of all single components and the given sets (ascending in order), as far as they were measured."""
        single = np.flatnonzero(lookup_removed(self.masks)[1:] >= 0)
        return candidates.measure(self.masks, values, [(i,) for i in single.tolist()] + list(sets))

    # ---- result

    def result(self) -> Findings:
        """The exact deviations from additivity of every measured set. Raises ValueError if required masks are missing."""
        values, given = self.values, self._given_scores()
        kept, found = self._measured(values)
        diagnostics = {"kept": kept.tolist(), "measured": len([members for members in found if len(members) > 1]), "empty": self._empty_value()}
        singles = self._singles(values, np.zeros(self._started_n) if given is None else given)
        n = self._started_n
        surrogate = candidates.surrogate(n, self.masks, values, found)
        return Findings(surrogate, singles, candidates.table(n, found), "additivity", self._notes(kept, found), diagnostics)

    def query_result(self, query: int) -> Findings:
        """The findings for one query, with the components chosen by the mean value; only measured single effects are included."""
        n, values = self._started_n, self.outputs[:, query]
        kept, found = self._measured(values)
        singles = self._singles(values, None)
        return Findings(
            candidates.surrogate(n, self.masks, values, found), singles, candidates.table(n, found), "additivity", diagnostics={"kept": kept.tolist()}
        )

    def _measured(self, values: Values) -> tuple[np.ndarray, Deviations]:
        """The kept components, intp `(k,)`, and the deviations of all measured sets."""
        n = self._started_n
        self._rows(self._first_round())
        kept = self._kept()
        found = self._deviations([members for order in range(2, self.options.order + 1) for members in candidates.removed_sets(self.masks, order)], values)
        if len(kept) > 1 and not any(len(members) > 1 for members in found):
            self._rows(ablations(n, candidates.ranked_pairs(kept, self._effects(), 1)))
        return kept, found

    def _empty_value(self) -> float:
        return float(self.values[self._rows(np.zeros((1, self._started_n), dtype=np.bool_))[0]])

    def _singles(self, values: Values, fallback: Floats | None) -> pa.Table:
        """Tabulate the measured single effects; the others are from `fallback` (`(n,)`), or zero with the method 'unmeasured'."""
        n = self._started_n
        rows = lookup_removed(self.masks)
        measured = rows[1:] >= 0
        effects = np.where(measured, values[rows[0]] - values[rows[1:]], np.zeros(n) if fallback is None else fallback)
        otherwise = UNMEASURED if fallback is None else self._ranked_by()
        return singles_table(effects, np.zeros(n), ["removed" if here else otherwise for here in measured])

    def _ranked_by(self) -> str:
        return "gradient" if self.options.scores == GRADIENT else "given"

    def _notes(self, kept: np.ndarray, found: Deviations) -> tuple[str, ...]:
        n, k = self._started_n, len(kept)
        among = {int(i) for i in kept}
        pairs = sum(len(members) == 2 and among.issuperset(members) for members in found)
        notes = [f"{pairs} of the {comb(k, 2)} pairs among the {k} strongest of {n} components were measured; pairs with weaker components were not."]
        if isinstance(self.options.top_k, str):
            notes.append(candidates.AUTOMATIC_RULE)
        if self._given_scores() is not None:
            ranked = "the model's gradients" if self.options.scores == GRADIENT else "the given scores"
            notes.append(
                f"Components were ranked by {ranked}. Single effects were measured for the {k} kept components; the others are assumed to have no effect."
            )
        if self.options.order == 3:
            triples = sum(len(members) == 3 for members in found)
            notes.append(f"{triples} of the {comb(k, 3)} triples were measured: those whose pairs deviate most from additivity.")
        return tuple(notes)
