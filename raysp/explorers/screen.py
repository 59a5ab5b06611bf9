"""The guide's SPEX: rank components by their single effect, keep the top, ablate pairs of them, and look for deviations from additivity."""

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
from raysp.masks import Masks, Values
from raysp.sampling.draws import ablations, distinct, lookup, lookup_removed, single_ablations
from raysp.sampling.tables import UNMEASURED, singles_table
from raysp.specs.explorers import GRADIENT, Keep, ScreenOptions
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.gradients import GradientReport

#: Share of what is left after the singles that triples may take.
TRIPLE_SHARE = 1 / 3


class Screen(Explorer[ScreenOptions]):
    """Single ablations, then pair (and on request triple) ablations among the components that matter most.

    Everything reported is measured exactly; what is not measured is taken to be additive. Right near the intact input, so scored at P(keep) = 0.9.
    """

    Options = ScreenOptions

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._given: Floats | None = None

    @property
    def keep_probability(self) -> float:
        """Near the intact input, where the ablations were made."""
        return 0.9

    def resolved(self, labels: Sequence[str], keep: Keep | None) -> ScreenOptions:  # noqa: ARG002  a screening always asks near the intact input
        """Labels in `always_include` replaced by indices; UserError for one that no component has."""
        if not labels:
            return self.options
        known: dict[str, list[int]] = {}
        for number, label in enumerate(labels):
            known.setdefault(label, []).append(number)
        chosen: list[int] = []
        for name in self.options.always_include:
            if isinstance(name, str) and name not in known and not name.lstrip("-").isdigit():
                raise UserError("always_include", name, "is no component", f"give an index or a label such as {', '.join(list(known)[:5])}")
            chosen.extend(known[name] if isinstance(name, str) and name in known else [int(name)])
        return self.options.model_copy(update={"always_include": tuple(dict.fromkeys(chosen))})

    # ---- budgets

    def least_budget(self, n: int) -> int:
        """Intact, empty, every single and one pair; with precomputed scores intact, empty, two singles and their pair. Fewer for one or two components."""
        singles = min(n, max(2, len(self.options.always_include))) if self.options.scores is not None else n
        return 2 if n == 1 else 2 + singles + (1 if n > 2 else 0)

    def planned(self, n: int) -> int:
        """An upper bound: the count kept automatically is known only after the singles."""
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

    def preview(self, masks: object, values: object) -> float | None:  # noqa: ARG002  nothing is held out: all that is measured is used
        """None: a screening measures what it reports."""
        return None

    # ---- ask / tell

    def check(self) -> None:
        """UserError for scores or components that do not fit the number of components."""
        if self.options.scores != GRADIENT:  # these come after the start
            self._given_scores()
        self._included()

    @property
    def gradient_order(self) -> int:
        """Singles, for the scores `gradient`."""
        return int(self.options.scores == GRADIENT)

    @property
    def requires_gradients(self) -> bool:
        """For the scores `gradient`."""
        return self.options.scores == GRADIENT

    def with_gradients(self, report: GradientReport) -> Self:
        """As `Explorer.with_gradients`: the scores `gradient` are the single effects of the report's leading method."""
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
        """Intact, empty, and the single ablations that are needed."""
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

    # ---- what is known

    def _given_scores(self) -> Floats | None:
        if self.options.scores == GRADIENT and self._given is None:
            mend = "leave scores out, to have the single effects measured"
            raise UserError("scores", self.options.scores, "needs the model's gradients, and this game has none", mend)
        if self.options.scores is not None and self._given is None:
            read = load_scores(self.options.scores) if isinstance(self.options.scores, str) else np.array(self.options.scores, dtype=np.float64)
            self._given = check_scores(read, self._started_n, self.options.scores)
        return self._given

    def _included(self) -> list[int]:
        """The components always kept; UserError for a label not resolved or an index out of range."""
        n = self._started_n
        for name in self.options.always_include:
            if isinstance(name, str) or not 0 <= name < n:
                raise UserError("always_include", name, f"is no component of {n}", f"give an index from 0 to {n - 1}, or a component's label")
        return [int(i) for i in self.options.always_include]

    def _effects(self) -> Floats:
        """The single effects that rank: given, or measured."""
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
            raise ValueError(f"{int((rows < 0).sum())} of {len(wanted)} masks that {self.name} needs are not among those given; the first remove {removed}")
        return rows

    def _kept(self) -> np.ndarray:
        """The components whose pairs are ablated, intp `(k,)`, ascending."""
        effects = np.abs(self._effects())
        count = candidates.automatic(effects) if isinstance(self.options.top_k, str) else candidates.counted(self.options.top_k, len(effects))
        wanted = [*self._included(), *np.argsort(-effects, kind="stable")[:count].tolist()]
        return np.array(sorted(list(dict.fromkeys(wanted))[: self._room(len(effects))]), dtype=np.intp)

    def _room(self, n: int) -> int:
        """How many components can be kept: with scores, as many as the budget has single ablations for, beside intact, empty and a pair."""
        return n if self.options.scores is None or self.options.budget is None else max(self.options.budget - 3, min(n, 2))

    def _deviations(self, sets: Sequence[tuple[int, ...]], values: Values) -> Deviations:
        """The deviations of these sets (ascending in order) and of all singles, as far as they were measured."""
        single = np.flatnonzero(lookup_removed(self.masks)[1:] >= 0)
        return candidates.measure(self.masks, values, [(i,) for i in single.tolist()] + list(sets))

    # ---- result

    def result(self) -> Findings:
        """Exact deviations from additivity of every set measured; ValueError when the masks for it were not told."""
        values, given = self.values, self._given_scores()
        kept, found = self._measured(values)
        diagnostics = {"kept": kept.tolist(), "measured": len([members for members in found if len(members) > 1]), "empty": self._empty_value()}
        singles = self._singles(values, np.zeros(self._started_n) if given is None else given)
        n = self._started_n
        surrogate = candidates.surrogate(n, self.masks, values, found)
        return Findings(surrogate, singles, candidates.table(n, found), "additivity", self._notes(kept, found), diagnostics)

    def query_result(self, query: int) -> Findings:
        """The same of one query, for the components that the value kept; single effects are those measured."""
        n, values = self._started_n, self.outputs[:, query]
        kept, found = self._measured(values)
        singles = self._singles(values, None)
        return Findings(
            candidates.surrogate(n, self.masks, values, found), singles, candidates.table(n, found), "additivity", diagnostics={"kept": kept.tolist()}
        )

    def _measured(self, values: Values) -> tuple[np.ndarray, Deviations]:
        """The components kept, intp `(k,)`, and the deviations of all sets measured."""
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
        """Single effects measured, and for the other components those of `fallback` (`(n,)`), or zero by the method 'unmeasured'."""
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
        notes = [f"{pairs} of the {comb(k, 2)} pairs among the {k} strongest of {n} components were measured; pairs with a weaker component were not."]
        if isinstance(self.options.top_k, str):
            notes.append(candidates.AUTOMATIC_RULE)
        if self._given_scores() is not None:
            ranked = "what the model's gradients say" if self.options.scores == GRADIENT else "the scores given"
            notes.append(
                f"Components were ranked by {ranked}; the single effects of the {k} kept were measured, as deviations need them; the others are taken to have none."
            )
        if self.options.order == 3:
            triples = sum(len(members) == 3 for members in found)
            notes.append(f"{triples} of the {comb(k, 3)} triples were measured, those whose pairs deviate most.")
        return tuple(notes)
