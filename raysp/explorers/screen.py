"""Screening, the guide's variant of SPEX: rank components by single effect, keep the top k, and measure deviations from additivity of their pairs.

With a budget and without a fixed k, `spending` decides what is measured, and `covered` looks for components that are weak alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from math import ceil, comb
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from raysp.errors import UserError
from raysp.explorers import candidates, spending
from raysp.explorers.around import sweep
from raysp.explorers.base import Explorer, Findings
from raysp.explorers.candidates import Deviations, Members
from raysp.explorers.changes import Changes
from raysp.explorers.ledger import Ledger
from raysp.explorers.purchases import Purchases
from raysp.explorers.remarks_of_screen import leftover, measured_sets
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


class Screen(Explorer[ScreenOptions]):
    """Single ablations, followed by ablations of pairs (and triples) of the most important components.

    A budget is spent entirely unless `top_k` is given: on all pairs if they fit, otherwise on those of as many components as possible and on a search for
    components that are weak alone but covered for by others; what is left after all pairs, on triples. If the game has slopes, the single ablations are measured with
    these, and the pairs that they suggest instead.

    All reported effects are measured exactly; everything not measured is assumed to be additive. The surrogate is accurate near the intact input and is
    therefore scored at P(keep) = 0.9.
    """

    Options = ScreenOptions

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._given: Floats | None = None
        self._purchases: Purchases | None = None

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
        """The budget, or what there is to measure if that is less; with a fixed or no limit, an upper bound, as k depends on the single effects."""
        if self._spends and self.options.budget is not None:
            return min(self.options.budget, spending.everything(n, self._largest_order))
        kept = self._most_kept(n)
        singles = n if self.options.scores is None else kept
        pairs = comb(kept, 2)
        total = 2 + singles + pairs + (self._triples_wanted(kept) if self.options.order == 3 else 0)
        return min(total, self.options.budget or total, 1 << min(n, 62))

    @property
    def _spends(self) -> bool:
        """Whether k is what the budget allows."""
        return self.options.budget is not None and isinstance(self.options.top_k, str)

    @property
    def _largest_order(self) -> int:
        """The largest order of sets that are reported."""
        return self.options.order or (3 if self._spends else 2)

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
    def gradient_order(self) -> int | None:
        """Order 1 for the scores `gradient`."""
        return 1 if self.requires_gradients else None

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

    @property
    def uses_slopes(self) -> bool:
        """By the option `slopes`, if a budget decides what is measured and the single ablations are."""
        return self.options.slopes != "off" and self._spends and self.options.scores is None

    @property
    def asks_slopes(self) -> bool:
        """Whether the masks of the pending round are to be measured with slopes."""
        return self._purchases is not None and len(self._masks) in self._purchases.around

    def with_slopes(self, price: float) -> Self:
        """Offer slopes as in `Explorer.with_slopes`. They are bought for single ablations."""
        if self.uses_slopes:
            self._purchases = Purchases(self.options.slopes, price)
        return self

    def _next(self) -> Masks | None:
        told = self.masks
        ledger = Ledger(told, self.values, None if self.options.budget is None else self.options.budget - self._extra)
        for number, sets in enumerate(self._rounds(ledger)):
            missing = distinct(ablations(self._started_n, sets), told)
            if len(missing):
                return missing if number else self._sweep(missing)
        return None

    def certain_masks(self) -> Masks:
        """See `Explorer.certain_masks`: the ends and the single ablations, in whatever rounds."""
        first = self.ask()
        return np.concatenate([first, distinct(ablations(self._started_n, self._first_round()), first)]) if len(first) else first

    def _sweep(self, missing: Masks) -> Masks:
        """The next of the ends and single ablations that are `missing`."""
        if self._purchases is None:
            return missing
        n = self._started_n
        masks, sloped = sweep(missing, self._changes, self._purchases, self.planned(n) - n - 2)
        if sloped:
            self._purchases.around.add(len(self._masks))
        return masks

    @property
    def _changes(self) -> Changes | None:
        return Changes.of(self.masks, self.slopes_of(None))

    @property
    def _extra(self) -> int:
        """What slopes cost beyond the values, in evaluations."""
        return ceil(self._purchases.around_extra(list(map(len, self._masks)))) if self._purchases else 0

    def _rounds(self, ledger: Ledger) -> Generator[list[Members], None, None]:
        """All rounds from the first, as sets to be removed; each may use the values of those before it."""
        if ledger.n == 0:
            return
        if sets := ledger.afford(self._first_round()):
            yield sets
        if self._spends:
            order, included, changes = self._largest_order, self._included(), self._changes
            suspected = [(i, j) for i, j in changes.ranked.tolist()] if changes is not None and changes.agree else None
            yield from spending.spend(ledger, self._given_scores(), included, order, reserve=self.options.order == 3, suspected=suspected)
        else:
            yield from self._rounds_of_kept(ledger)

    def _first_round(self) -> list[Members]:
        """The intact mask, the empty mask, and the single ablations that are needed whatever else is, as sets to be removed."""
        n = self._started_n
        ends = [(), tuple(range(n))]
        if self._given_scores() is None:
            return ends + [(i,) for i in range(n)]
        return ends if self._spends else ends + [(i,) for i in self._kept().tolist()]

    def _rounds_of_kept(self, ledger: Ledger) -> Generator[list[Members], None, None]:
        """Pairs, then triples of the kept components; what triples leave of their share of a budget goes to pairs."""
        kept, effects = self._kept(), self._effects()
        triples = self._triples_wanted(len(kept)) if self.options.order == 3 and len(kept) > 2 else 0
        share = int(ledger.room * spending.TRIPLE_SHARE) if triples and self.options.budget is not None else 0
        most = min(max(ledger.room - share, min(ledger.room, 1)), comb(len(kept), 2))
        if sets := ledger.afford(candidates.ranked_pairs(kept, effects, most)):
            yield sets
        before = -1
        while triples and ledger.room not in {0, before}:
            before = ledger.room
            yield from spending.more_triples(ledger, triples - sum(len(members) == 3 for members in ledger.asked))
            if sets := ledger.afford(candidates.ranked_pairs(kept, effects, min(ledger.room, comb(len(kept), 2)) + most)):
                most += len(sets)
                yield sets

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
        if self._spends:
            return np.array(spending.kept(len(effects), effects, self._included(), self._pairs()), dtype=np.intp)
        count = candidates.automatic(effects) if isinstance(self.options.top_k, str) else candidates.counted(self.options.top_k, len(effects))
        wanted = [*self._included(), *np.argsort(-effects, kind="stable")[:count].tolist()]
        return np.array(sorted(list(dict.fromkeys(wanted))[: self._room(len(effects))]), dtype=np.intp)

    def _pairs(self) -> Deviations:
        """The deviations of all measured pairs."""
        found = self._deviations(candidates.removed_sets(self.masks, 2), self.values)
        return {members: value for members, value in found.items() if len(members) == 2}

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
        singles = self._singles(values, found, np.zeros(self._started_n) if given is None else given)
        n = self._started_n
        surrogate = candidates.surrogate(n, self.masks, values, found)
        return Findings(surrogate, singles, candidates.table(n, found), "additivity", self._notes(kept, found), diagnostics)

    def query_result(self, query: int) -> Findings:
        """The findings for one query, with the components chosen by the mean value; only measured single effects are included."""
        n, values = self._started_n, self.outputs[:, query]
        kept, found = self._measured(values)
        singles = self._singles(values, found, None)
        return Findings(
            candidates.surrogate(n, self.masks, values, found), singles, candidates.table(n, found), "additivity", diagnostics={"kept": kept.tolist()}
        )

    def _measured(self, values: Values) -> tuple[np.ndarray, Deviations]:
        """The kept components, intp `(k,)`, and the deviations of all measured sets."""
        n = self._started_n
        self._rows(distinct(ablations(n, self._first_round())))
        kept = self._kept()
        found = self._deviations([members for order in range(2, self._largest_order + 1) for members in candidates.removed_sets(self.masks, order)], values)
        if n > 1 and not any(len(members) > 1 for members in found):
            effects = self._effects()
            strongest = kept if len(kept) > 1 else np.argsort(-np.abs(effects), kind="stable")[:2]
            self._rows(ablations(n, candidates.ranked_pairs(strongest, effects, 1)))
        return kept, found

    def _empty_value(self) -> float:
        return float(self.values[self._rows(np.zeros((1, self._started_n), dtype=np.bool_))[0]])

    def _singles(self, values: Values, found: Deviations, fallback: Floats | None) -> pa.Table:
        """Tabulate the measured single effects; the others are from `fallback` (`(n,)`), or zero with the method 'unmeasured'.

        The means over contexts are those that the deviations predict for masks that keep components with P(keep); they have no intervals.
        """
        n = self._started_n
        rows = lookup_removed(self.masks)
        measured = rows[1:] >= 0
        effects = np.where(measured, values[rows[0]] - values[rows[1:]], np.zeros(n) if fallback is None else fallback)
        otherwise = UNMEASURED if fallback is None else self._ranked_by()
        average = np.where(measured, candidates.mean_effects(n, found, 1 - self.keep_probability), np.nan)
        methods = ["removed" if here else otherwise for here in measured]
        return singles_table(effects, np.zeros(n), methods, (average, np.full(n, np.nan)))

    def _ranked_by(self) -> str:
        return "gradient" if self.options.scores == GRADIENT else "given"

    def _notes(self, kept: np.ndarray, found: Deviations) -> tuple[str, ...]:
        n, spends = self._started_n, self._spends
        notes = measured_sets(n, kept.tolist(), found, self._largest_order, spends=spends)
        if (changes := self._changes) is not None:
            notes.append(changes.note() + (" The pairs with the strongest estimates were measured." if changes.agree else ""))
        blocks = self._blocks(found) if spends else 0
        if blocks:
            notes.append(
                f"{blocks} more ablations removed blocks of weak components, alone and with others, to locate components that are weak alone "
                "because others cover for them; they are not part of the surrogate."
            )
        if isinstance(self.options.top_k, str) and not spends:
            notes.append(candidates.AUTOMATIC_RULE)
        if self._given_scores() is not None:
            ranked = "the model's gradients" if self.options.scores == GRADIENT else "the given scores"
            single = sum(len(members) == 1 for members in found)
            which = f"{single} components" if spends else f"the {len(kept)} kept components"
            notes.append(
                f"Components were ranked by {ranked}. Single effects were measured for {which}; the others are assumed to have no effect."
                + (" No search was made for components that the scores rank low." if spends and single < n else "")
            )
        notes.extend(leftover(self.options, len(self.masks) + self._extra, n))
        return tuple(notes)

    def _blocks(self, found: Deviations) -> int:
        """The number of measured masks that are neither the intact or the empty one nor among the deviations."""
        gone = (~self.masks).sum(axis=1)
        return int(((gone > 0) & (gone < self._started_n)).sum()) - sum(len(members) < self._started_n for members in found)
