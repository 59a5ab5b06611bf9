"""ProxySPEX: a proxy model trained on random masks, its exact Fourier form, and a refit to the evaluations (Butler et al., NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, log2
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.explorers.around import Around
from raysp.explorers.base import Explorer, Findings
from raysp.explorers.changes import Changes
from raysp.explorers.designs import Design
from raysp.explorers.fitting import Fit, fit_proxy
from raysp.explorers.history import Answers, Remembering
from raysp.explorers.proxies import PROXIES, GradientInformed, given
from raysp.explorers.purchases import Purchases
from raysp.explorers.remarks import about_design, about_ends, about_fit, about_given, about_gradients, affordable_proxy
from raysp.explorers.rounds import Rounds
from raysp.explorers.samples import Proxy, Sample, kept_share, random_rows
from raysp.explorers.singles import default_budget
from raysp.masks import Masks, Values
from raysp.sampling.matching import distinct
from raysp.sampling.tables import effects_table, removed_effects
from raysp.specs.explorers import Focus, Keep, ProxySPEXOptions
from raysp.spectral.diagnostics import diagnose
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import UNIFORM
from raysp.spectral.regression import weighted_mean
from raysp.threads import one_thread

if TYPE_CHECKING:
    from raysp.gradients import GradientReport
    from raysp.spectral.sets import Floats

#: Maximum number of rows in the interactions table; the surrogate contains the rest.
REPORTED = 2000
#: Share of the random budget in the first round and in each later one, and the share of a later round that is chosen rather than drawn.
FIRST_SHARE, ROUND_SHARE, CHOSEN_SHARE = 0.4, 0.15, 0.5
#: Minimum number of masks per round.
LEAST_ROUND = 32
#: Number of rounds in which pairs are measured: what the first ones show leads to the others.
PAIR_ROUNDS = 2
#: Number of strongest interactions whose intervals `until_width` checks.
WATCHED = 10


class ProxySPEX(Explorer[ProxySPEXOptions]):
    """Interactions from a proxy model trained on random masks.

    With `keep="auto"`, a pilot of about fifty masks first determines P(keep). Next come the intact and the empty mask and, if they take at most a quarter of the
    budget (half with a focus on the intact input), all n single ablations (step 3 of the guide), with slopes where the game has them. Random masks follow, by the
    `Design` of the focus, at once, or in rounds if `adaptive`, `until_r2` or `until_width` is set. With a focus on the intact input, the pairs come last whose
    deviations from additivity are expected to be strongest. Every value enters the fit; scores and all that assumes masks drawn with P(keep) use the random ones,
    weighted by their importance.
    """

    Options = ProxySPEXOptions

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._rounds = Rounds()
        self._estimate: FourierSurrogate | None = None
        self._priors: Floats | None = None
        self._found: tuple[int, Findings] | None = None
        self._purchases: Purchases | None = None
        self._history: Answers | None = None

    @property
    def keep_probability(self) -> float:
        """P(keep) of the random masks: one half until a pilot has determined it, or estimated from the masks if they were passed to `fit`."""
        if self._was_given and self.options.keep in (None, "auto"):
            return kept_share(self.masks, self.weights, exactly=self.options.keep == "auto")
        if self.options.keep != "auto":
            return self.options.keep or UNIFORM
        rounds = self._rounds.until("pilot")
        if rounds > len(self._outputs):
            return UNIFORM
        from raysp.explorers.choosing import resembling

        pilot = np.concatenate(self._outputs[:rounds]).mean(axis=1)
        return resembling(self._pilot_of(self._started_n)[1][: len(pilot)], pilot)

    @property
    def _was_given(self) -> bool:
        """Whether masks were told without being requested, as in `fit`."""
        return len(self._rounds.entries) < len(self._masks)

    @property
    def gradient_order(self) -> int | None:
        """Priors for proxy `auto`; up to order 2 for proxy `gradient`, as gradients have no terms of higher order."""
        return min(self.options.max_order, 2) if self.requires_gradients else 0 if self.options.proxy == "auto" else None

    @property
    def requires_gradients(self) -> bool:
        """Whether the proxy is `gradient`."""
        return self.options.proxy == "gradient"

    def with_gradients(self, report: GradientReport) -> Self:
        """Add gradients as in `Explorer.with_gradients`.

        Proxy `gradient` starts from the estimate of the report; proxy `auto` uses its effects as prior guesses, with fitted weights.
        """
        if self.requires_gradients:
            self._estimate = report.surrogate(min(self.options.max_order, 2))
        elif self.gradient_order is not None:
            self._priors = report.prior_effects()
        self._proxy()
        return self

    @property
    def uses_slopes(self) -> bool:
        """By the option `slopes`; only proxy `auto` learns from them."""
        return self.options.slopes != "off" and self.options.proxy == "auto" and self.options.max_order > 1

    @property
    def asks_slopes(self) -> bool:
        """Whether the masks of the pending round are to be measured with slopes."""
        return self._purchases is not None and len(self._masks) in self._purchases.rounds | self._purchases.around

    def with_slopes(self, price: float) -> Self:
        """Offer slopes as in `Explorer.with_slopes`. They are bought for random masks."""
        if self.uses_slopes:
            self._purchases = Purchases(self.options.slopes, price)
        return self

    def with_history(self, earlier: Callable[[], Sequence[FourierSurrogate]]) -> Self:
        """Use earlier answers as in `Explorer.with_history`, with proxy `auto`, unless the option `no_prior` is set."""
        if not self.options.no_prior and self.options.proxy == "auto" and self.options.max_order > 1:
            self._history = Answers.of(earlier(), self.options.max_order)
        return self

    def least_budget(self, n: int) -> int:
        """2 log2(n + 1) evaluations, at least 16, plus those of a pilot; at most 2^n without the pilot."""
        pilot = len(self._pilot_of(n)[0]) if self.options.keep == "auto" else 0
        return min(1 << min(n, 62), max(16, ceil(2 * log2(n + 1))) + pilot)

    def planned(self, n: int) -> int:
        """The budget, or 4 n log2 n by default; at most 2^n."""
        return min(self.options.budget or max(default_budget(n), self.least_budget(n)), 1 << min(n, 62))

    def resolved(self, labels: Sequence[str], keep: Keep | None, focus: Focus | None) -> ProxySPEXOptions:  # noqa: ARG002  no option refers to component labels
        """The options with the P(keep) and the focus of the game if none was chosen."""
        chosen = {"keep": keep, "focus": focus}
        return self.options.model_copy(update={name: value for name, value in chosen.items() if value is not None and getattr(self.options, name) is None})

    def check(self) -> None:
        """Raise UserError if `until_width` is set although no interactions are fitted."""
        if self.options.until_width is not None and self.options.max_order < 2:
            raise UserError("until_width", self.options.until_width, "applies to interactions, but max_order is 1", "raise max_order or omit until_width")

    # ---- choice of masks

    def _next(self) -> Masks | None:
        n = self._started_n
        left = self.planned(n) - ceil(self._spent())
        if not self._rounds.entries:
            self._proxy()  # a proxy that is not available fails here, before any evaluation
        if self.options.keep == "auto" and not self._rounds.count("pilot") and (self._rounds.entries or not self._around.sloped):
            return self._rounds.note("pilot", self._pilot_of(n)[0][len(self.masks) :][:left])
        missing, sloped = self._around.first(self.masks, self._changes())
        if len(missing := missing[:left]):
            if sloped and self._purchases:
                self._purchases.around.add(len(self._rounds.entries))
            return self._rounds.note("first", missing)
        if left <= 0 or self._satisfied():
            return None
        pairs = self._pairs_left()
        masks = self._next_random(left - pairs) if left > pairs else None
        if masks is None and pairs and len(suspected := self._pairs(min(left, pairs))):
            return self._rounds.note("pairs", suspected)
        return masks if masks is not None or not pairs else self._next_random(left)

    def _changes(self, query: int | None = None) -> Changes | None:
        """The changes of slopes around the intact input, of a query (None: of the mean over queries)."""
        return Changes.of(self.masks, self.slopes_of(query))

    def _next_random(self, left: int) -> Masks | None:
        """The next round of random masks."""
        paid, sloped = self._purchases.masks(left, self._sample_of) if self._purchases else (left, False)
        masks, chosen = self._round(paid)
        if sloped and self._purchases and len(masks):
            self._purchases.rounds.add(len(self._rounds.entries))
        return self._rounds.note("random", masks, chosen) if len(masks) else None

    def _spent(self) -> float:
        """The evaluations that the measured masks count as: those with slopes by their price."""
        return self._purchases.cost(list(map(len, self._masks))) if self._purchases else len(self.masks)

    def certain_masks(self) -> Masks:
        """See `Explorer.certain_masks`: all masks, unless rounds or P(keep) depend on values."""
        first = self.ask()
        if self.options.keep == "auto" or self._purchases or self._in_rounds:
            others = self._pilot_of(self._started_n)[0] if self.options.keep == "auto" else self._around.ends_and_singles
            return np.concatenate([first, distinct(others, first)])[: self.planned(self._started_n)]
        count = self.planned(self._started_n) - len(first) - self._pairs_left()
        return np.concatenate([first, self._random(count, np.random.default_rng(self.random_state), first)])

    @property
    def _in_rounds(self) -> bool:
        """Whether random masks are requested in rounds, because values determine what to measure or when to stop."""
        return self.options.adaptive or self.options.until_r2 is not None or self.options.until_width is not None

    def _round(self, left: int) -> tuple[Masks, int]:
        """The masks of the next round (all that are left, if there are no rounds), and the number of its first masks that were chosen."""
        sizes = self._rounds.sizes("random", self._masks)
        rng = np.random.default_rng([self.random_state, len(sizes)] if sizes else self.random_state)
        if not self._in_rounds:
            return self._random(left, rng, self.masks), 0
        count = min(left, max(LEAST_ROUND, round((left + sum(sizes)) * (ROUND_SHARE if sizes else FIRST_SHARE))))
        count = left if left - count < LEAST_ROUND else count
        if not self.options.adaptive or not sizes:
            return self._random(count, rng, self.masks), 0
        chosen = self._chosen(int(count * CHOSEN_SHARE), rng)
        known = np.concatenate([self.masks, chosen])
        return np.concatenate([chosen, self._random(count - len(chosen), rng, known)]), len(chosen)

    def _random(self, count: int, rng: np.random.Generator, known: Masks) -> Masks:
        """Random masks; if the budget covers all 2^n masks, they are drawn uniformly from those that remain."""
        n = self._started_n
        return self._design.draw(count, rng, known, self.masks[self._drawn], all_masks=self.planned(n) >= 1 << min(n, 62))

    def _chosen(self, count: int, rng: np.random.Generator) -> Masks:
        """The masks whose values are most uncertain under a kernel fitted to the measurements so far; none if the values do not vary."""
        sample = self._sample_of()
        if not sample.varies:
            return np.zeros((0, self._started_n), dtype=np.bool_)
        from raysp.explorers.choosing import LEARNT, learnt, most_telling

        with one_thread():
            return most_telling(learnt(sample, rng.permutation(len(sample.values))[:LEARNT]), count, rng, self.masks)

    @property
    def _design(self) -> Design:
        return Design(self._started_n, self.keep_probability, self.options.focus or "both", self.options.index)

    @property
    def _focus(self) -> Focus:
        """The focus of the findings: measurements passed to `fit` say nothing of the intact input."""
        return "average" if self._was_given else self.options.focus or "both"

    @property
    def _around(self) -> Around:
        return Around(self._design, self.planned(self._started_n), self._purchases)

    def _pairs_left(self) -> int:
        """The number of evaluations kept for pairs at the intact input."""
        if self._rounds.count("pairs") == PAIR_ROUNDS:
            return 0
        extra = self._purchases.around_extra(list(map(len, self._masks))) if self._purchases else 0
        return max(self._around.pairs - sum(self._rounds.sizes("pairs", self._masks)) - ceil(extra), 0)

    def _pairs(self, count: int) -> Masks:
        """The next of `count` pairs at the intact input whose deviations are expected to be strongest, as ablations; none if the values do not vary."""
        from raysp.explorers.choosing import next_pairs

        wanted = -(-count // (PAIR_ROUNDS - self._rounds.count("pairs")))
        return next_pairs(self._sample_of(), removed_effects(self.masks, self.values), self._changes(), wanted, self.masks)

    def _satisfied(self) -> bool:
        """Whether the current findings meet `until_r2` and `until_width`."""
        if not self._rounds.count("random") or (self.options.until_r2 is None and self.options.until_width is None):
            return False
        findings = self.result()
        if self.options.until_r2 is not None and not findings.diagnostics.get("r2_cv", 1.0) >= self.options.until_r2:
            return False
        if self.options.until_width is None:
            return True
        top = findings.table.slice(0, WATCHED)
        return top.num_rows > 0 and float(np.max(top["hi"].to_numpy() - top["lo"].to_numpy())) <= self.options.until_width

    def _pilot_of(self, n: int) -> tuple[Masks, Floats]:
        from raysp.explorers.choosing import pilot_masks

        return pilot_masks(n, np.random.default_rng([self.random_state, 3]))

    # ---- findings

    def result(self) -> Findings:
        """The surrogate fitted to all measurements; exact if all masks were measured."""
        masks, values = self.masks, self.values
        if self._found is not None and self._found[0] == len(values):
            return self._found[1]
        # In measurements passed to `fit`, a difference of two values may be mostly noise, so it is reported only for a complete table.
        effects = removed_effects(masks, values) if not self._was_given or self.complete else None
        notes: list[str] = []
        diagnostics: dict[str, Any] = {"keep_probability": self.keep_probability}
        if self.complete:
            surrogate = FourierSurrogate.from_values(masks, values)
            notes.append("Every mask was measured, so all values are exact.")
        else:
            sample = self._sample_of()
            found = fit_proxy(sample, self._proxy())
            surrogate = self._written(found, values, self._changes())
            notes += about_fit(found, values, int(sample.scored.sum()))
            diagnostics |= {"r2_cv": found.r2, "r2_cv_singles": found.r2_singles, "weights": found.weights, "rows": len(sample.values)}
        seen = diagnose(surrogate, r2=diagnostics.get("r2_cv"), r2_singles=diagnostics.get("r2_cv_singles"))
        notes += seen.sentences() if len(surrogate) > 1 and not np.isnan(diagnostics.get("r2_cv", 0.0)) else ()
        notes += self._about_masks() + about_ends(surrogate, self._index(), masks, values)
        if self._purchases:
            notes += self._purchases.notes(list(map(len, self._masks)), diagnostics.get("weights", {}))
            diagnostics["slopes"] = {"price": self._purchases.price, "spent": self._spent(), "worthwhile": self._purchases.verdict}
        if self._priors is not None and "weights" in diagnostics:
            notes.append(about_gradients(diagnostics["weights"]))
        if self._history is not None and "weights" in diagnostics:
            notes.append(self._history.note(diagnostics["weights"]))
        diagnostics |= {"terms": len(surrogate), "hierarchy": seen.as_dict(), "energy": surrogate.energy().tolist()}
        singles = effects_table(surrogate, effects)
        table = surrogate.interactions(self._index(), self.options.max_order, 2).slice(0, REPORTED)
        self._found = (len(values), Findings(surrogate, singles, table, self._index(), tuple(notes), diagnostics, self._focus))
        return self._found[1]

    def query_result(self, query: int) -> Findings:
        """The surrogate of one query, with a proxy that is affordable for the number of queries."""
        values = self.outputs[:, query]
        if self.complete:
            surrogate = FourierSurrogate.from_values(self.masks, values)
        else:
            proxy, _ = affordable_proxy(self.options.proxy, *self.outputs.shape)
            surrogate = self._written(fit_proxy(self._sample_of(query), self.proxy_for(query, proxy)), values, self._changes(query))
        table = surrogate.interactions(self._index(), self.options.max_order, 2).slice(0, REPORTED)
        effects = removed_effects(self.masks, values) if not self._was_given or self.complete else None
        return Findings(surrogate, effects_table(surrogate, effects), table, self._index(), focus=self._focus)

    def _written(self, found: Fit, values: Values, changes: Changes | None) -> FourierSurrogate:
        """The surrogate of a fit with the measured values written in, if the design is for more than averages over contexts."""
        if self._was_given or not self._design.writes:
            return found.surrogate
        return self._design.written(found, self.masks, values, self._drawn, self.importance, changes=changes)

    def query_notes(self) -> tuple[str, ...]:
        """A note if queries are fitted with a proxy other than that of the run."""
        note = affordable_proxy(self.options.proxy, *self.outputs.shape)[1]
        return (note,) if note else ()

    def _about_masks(self) -> list[str]:
        """Notes on the masks."""
        if not self._was_given:
            pairs = sum(self._rounds.sizes("pairs", self._masks))
            return about_design(self._design, self.masks[self._drawn], pairs, self._changes(), chosen=self.options.keep == "auto")
        if self.options.keep is not None or self.keep_probability == UNIFORM or not len(self.masks):
            return []
        return [about_given(float(weighted_mean(self.masks.mean(axis=1), self.weights)))]

    def _index(self) -> str:
        """The requested index, with weighted Banzhaf interactions in place of `bii` if P(keep) is not one half."""
        return "wbii" if self.options.index == "bii" and self.keep_probability != UNIFORM else self.options.index

    def proxy_for(self, query: int | None = None, name: str | None = None) -> Proxy:
        """The proxy `name` (None: that of the options) for a query (None: the mean over queries), with prior effects if available."""
        inner = PROXIES[name or self.options.proxy]
        if self._history is not None and query is None and (name or "auto") == "auto":
            inner = Remembering(inner, self._history.mean)
        if self._priors is None:
            return inner
        return GradientInformed.of(inner, self._priors.mean(axis=1) if query is None else self._priors[:, query])

    def _proxy(self) -> Proxy:
        if self.options.proxy != "gradient":
            return self.proxy_for()
        if self._estimate is None:
            raise UserError("proxy", self.options.proxy, "needs the model's gradients, but this game has none", "use proxy auto")
        return given(self._estimate)

    def sample(self) -> Sample:
        """The rows used for fitting, and which of them were drawn at random."""
        return super().sample() if self.complete else self._sample_of()

    def _sample_of(self, query: int | None = None) -> Sample:
        """The sample with the values of a query (None: their mean) of all measured masks, and its slopes at those drawn at random, if they were measured."""
        values, slopes = self.values if query is None else self.outputs[:, query], self.slopes_of(query)
        # Slopes around the intact input say little about other contexts, and `changes` uses them.
        slopes = None if slopes is None else np.where(self._drawn[:, None], slopes, np.nan)
        # Masks chosen for their uncertainty come from the same pool as the random ones, and count as much.
        importance = np.maximum(self.importance, float(self.options.adaptive))
        given_importance = None if not len(importance) or np.ptp(importance) == 0 else importance
        order, p, seed = self.options.max_order, self.keep_probability, self.random_state
        return Sample(self.masks, values, order, p, self._drawn, seed, self.weights, slopes, given_importance)

    @property
    def importance(self) -> Values:
        """See `Explorer.importance`."""
        found, drawn = np.zeros(len(self.masks)), self._drawn
        found[drawn] = 1.0 if self._was_given else self._design.importance(self.masks[drawn])
        return found

    @property
    def _drawn(self) -> NDArray[np.bool_]:
        """The measured masks that were drawn at random, bool `(m,)`."""
        if self._was_given:
            return random_rows(self.masks, self.keep_probability, self.weights)
        pilot = self._pilot_of(self._started_n)[1] if self._rounds.count("pilot") else np.zeros(0)
        # The intact input, the pilot's first mask, may have been measured in a round before.
        return self._rounds.drawn(self._masks, (pilot == self.keep_probability)[self._rounds.until("pilot") - 1 :])
