"""ProxySPEX: random masks, a proxy model, its exact Fourier form, refitted to the evaluations (Butler et al., NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.explorers.base import Explorer, Findings
from raysp.explorers.fitting import Fit, fit_proxy
from raysp.explorers.proxies import PROXIES, GradientInformed, given
from raysp.explorers.samples import Proxy, Sample, random_rows
from raysp.explorers.singles import default_budget
from raysp.masks import Masks, Values
from raysp.sampling.draws import distinct, random_masks, single_ablations, uniform_masks
from raysp.sampling.tables import banzhaf_effects, removed_effects, removed_table
from raysp.specs.explorers import Keep, ProxySPEXOptions
from raysp.spectral.diagnostics import diagnose
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import UNIFORM
from raysp.spectral.regression import weighted_mean
from raysp.threads import one_thread

if TYPE_CHECKING:
    from raysp.gradients import GradientReport
    from raysp.spectral.sets import Floats

#: The n + 1 single ablations are bought when they take at most this share of the budget.
SWEEP_SHARE = 0.25
#: Rows of the interactions table handed over; the surrogate holds the rest.
REPORTED = 2000
#: In rounds: share of the random budget in the first, in each that follows, and of these the part that is chosen rather than drawn.
FIRST_SHARE, ROUND_SHARE, CHOSEN_SHARE = 0.4, 0.15, 0.5
#: Masks of a round at least.
LEAST_ROUND = 32
#: Rows at most that the kernel behind a choice of masks learns from.
LEARNT = 2500
#: Distance of the share that given masks keep from one half within which P(keep) is taken to be one half; and from P(keep) that is reported.
NEAR, ASTRAY = 0.1, 0.03
#: Queries times evaluations up to which each query gets the run's own proxy: the slow ones take seconds for some hundred evaluations.
AFFORDABLE = 5000
#: The proxy beyond, which takes a second or two and predicts no query noticeably worse; and the proxies that are slow.
CHEAP, SLOW = "trees", ("auto", "kernel", "mlp")
#: Interactions whose intervals `until_width` is about.
WATCHED = 10


class ProxySPEX(Explorer[ProxySPEXOptions]):
    """A proxy model trained on random masks and turned into interactions.

    Asked for first are, with `keep="auto"`, a pilot of some fifty masks that settles P(keep); then the intact mask and, if they take at most a quarter of
    the budget, all n single ablations (the guide's step 3). The rest are distinct random masks: at once, or in rounds where `adaptive`, `until_r2` or
    `until_width` want a look at what is known. Fits learn from random and chosen masks and are scored on random ones alone; single ablations are so
    unlikely among random masks that as extra rows they would only pull a fit off the distribution it is scored on, so they are reported as measured.
    """

    Options = ProxySPEXOptions

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._rounds: list[tuple[str, int]] = []
        self._estimate: FourierSurrogate | None = None
        self._priors: Floats | None = None
        self._found: tuple[int, Findings] | None = None

    @property
    def keep_probability(self) -> float:
        """P(keep) of the random masks, one half until a pilot has settled it; of masks that were given rather than asked for, their own share."""
        if self._was_given and self.options.keep in (None, "auto"):
            return _share(self.masks, self.weights, exactly=self.options.keep == "auto")
        if self.options.keep != "auto":
            return self.options.keep or UNIFORM
        if not self._outputs:
            return UNIFORM
        from raysp.explorers.choosing import resembling

        pilot = self._outputs[0].mean(axis=1)
        return resembling(self._pilot_of(self._started_n)[1][: len(pilot)], pilot)

    @property
    def _was_given(self) -> bool:
        """Whether it was told masks without being asked: by `fit`."""
        return len(self._rounds) < len(self._masks)

    @property
    def gradient_order(self) -> int:
        """Singles for proxy auto; singles and pairs for the proxy `gradient`, as gradients have no terms of larger sets."""
        return min(self.options.max_order, 2) if self.options.proxy == "gradient" else int(self.options.proxy == "auto")

    @property
    def requires_gradients(self) -> bool:
        """For the proxy `gradient`."""
        return self.options.proxy == "gradient"

    def with_gradients(self, report: GradientReport) -> Self:
        """As `Explorer.with_gradients`: the proxy `gradient` starts from the report's estimate; proxy auto uses its effects as priors, weighted by their merit."""
        if self.requires_gradients:
            self._estimate = report.surrogate(self.gradient_order)
        elif self.gradient_order:
            self._priors = report.prior_effects()
        self._proxy()
        return self

    def least_budget(self, n: int) -> int:
        """As many as singles would need, at least 16; with a pilot, these on top; all masks when that is less."""
        pilot = len(self._pilot_of(n)[0]) if self.options.keep == "auto" else 0
        return min(1 << min(n, 62), max(16, ceil(2 * log2(n + 1))) + pilot)

    def planned(self, n: int) -> int:
        """The budget, or 4 n log2 n; never more than there are masks."""
        return min(self.options.budget or max(default_budget(n), self.least_budget(n)), 1 << min(n, 62))

    def resolved(self, labels: Sequence[str], keep: Keep | None) -> ProxySPEXOptions:  # noqa: ARG002  no option of it names components
        """The game's P(keep) where none was chosen."""
        return self.options if keep is None or self.options.keep is not None else self.options.model_copy(update={"keep": keep})

    def check(self) -> None:
        """UserError for a width of intervals of interactions when there are to be none."""
        if self.options.until_width is not None and self.options.max_order < 2:
            raise UserError("until_width", self.options.until_width, "is about interactions, and max_order is 1", "raise max_order")

    # ---- what to ask

    def _next(self) -> Masks | None:
        n = self._started_n
        left = self.planned(n) - len(self.masks)
        if not self._rounds:
            self._proxy()  # a proxy that is not available fails here, before any evaluation is bought
        if not self._rounds and self.options.keep == "auto":
            return self._noted("pilot", self._pilot_of(n)[0][:left])
        if not any(role == "first" for role, _ in self._rounds):
            sweep = single_ablations(n) if n + 1 <= self.planned(n) * SWEEP_SHARE else np.ones((1, n), dtype=np.bool_)
            sweep = distinct(sweep, self.masks)[:left] if len(self.masks) else sweep[:left]
            if len(sweep):
                return self._noted("first", sweep)
        if left <= 0 or self._satisfied():
            return None
        masks, chosen = self._round(left)
        return self._noted("random", masks, chosen) if len(masks) else None

    def certain_masks(self) -> Masks:
        """As `Explorer.certain_masks`: all masks, unless rounds or P(keep) depend on values."""
        first = self.ask()
        if self.options.keep == "auto" or self._looks:
            return first
        return np.concatenate([first, self._random(self.planned(self._started_n) - len(first), np.random.default_rng(self.random_state), first)])

    @property
    def _looks(self) -> bool:
        """Whether it asks in rounds, as values decide what to ask or when to stop."""
        return self.options.adaptive or self.options.until_r2 is not None or self.options.until_width is not None

    def _noted(self, role: str, masks: Masks, chosen: int = 0) -> Masks:
        """The masks of a round, once its role is noted, and how many of them (the first) were chosen rather than drawn."""
        self._rounds.append((role, chosen))
        return masks

    def _round(self, left: int) -> tuple[Masks, int]:
        """Random masks: all that are left, or a round of them, the first so many of it chosen."""
        sizes = [len(masks) for (role, _), masks in zip(self._rounds, self._masks, strict=True) if role == "random"]
        rng = np.random.default_rng([self.random_state, len(sizes)] if sizes else self.random_state)
        if not self._looks:
            return self._random(left, rng, self.masks), 0
        count = min(left, max(LEAST_ROUND, round((left + sum(sizes)) * (ROUND_SHARE if sizes else FIRST_SHARE))))
        count = left if left - count < LEAST_ROUND else count
        if not self.options.adaptive or not sizes:
            return self._random(count, rng, self.masks), 0
        chosen = self._chosen(int(count * CHOSEN_SHARE), rng)
        known = np.concatenate([self.masks, chosen])
        return np.concatenate([chosen, self._random(count - len(chosen), rng, known)]), len(chosen)

    def _random(self, count: int, rng: np.random.Generator, known: Masks) -> Masks:
        """Random masks; where the budget is for all there are, the rest of them."""
        n, p = self._started_n, self.keep_probability
        if p == UNIFORM or self.planned(n) >= 1 << min(n, 62):
            return uniform_masks(n, count, rng, known)
        return random_masks(n, count, p, rng, known)

    def _chosen(self, count: int, rng: np.random.Generator) -> Masks:
        """The masks whose values are least certain under a kernel trained on what is known; none while nothing can be learnt."""
        sample = self._sample_of(self.values)
        if not sample.varies:
            return np.zeros((0, self._started_n), dtype=np.bool_)
        from raysp.explorers.choosing import most_telling
        from raysp.spectral.posterior import learn

        rows = np.sort(rng.permutation(len(sample.values))[:LEARNT])
        with one_thread():
            posterior = learn(
                sample.masks[rows], sample.values[rows], self.options.max_order, sample.keep_probability, self.random_state, sample.weights_of(rows)
            )
            return most_telling(posterior, count, rng, self.masks)

    def _satisfied(self) -> bool:
        """Whether the answer meets `until_r2` and `until_width`."""
        if not any(role == "random" for role, _ in self._rounds) or (self.options.until_r2 is None and self.options.until_width is None):
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
        """The surrogate fitted on all values told; exact when they are all there are."""
        masks, values = self.masks, self.values
        if self._found is not None and self._found[0] == len(values):
            return self._found[1]
        # Of measurements that somebody else made, a difference of two is noise as much as effect, unless the whole table is there.
        effects = removed_effects(masks, values) if not self._was_given or self.complete else None
        notes: list[str] = []
        diagnostics: dict[str, Any] = {"keep_probability": self.keep_probability}
        if self.complete:
            surrogate = FourierSurrogate.from_values(masks, values)
            notes.append("Every mask was measured: all values are exact.")
        else:
            sample = self._sample_of(values)
            found = fit_proxy(sample, self._proxy())
            surrogate = found.surrogate
            notes += _remarks(found, values, len(sample.values))
            diagnostics |= {"r2_cv": found.r2, "r2_cv_singles": found.r2_singles, "weights": found.weights, "rows": len(sample.values)}
        seen = diagnose(surrogate, r2=diagnostics.get("r2_cv"), r2_singles=diagnostics.get("r2_cv_singles"))
        notes += seen.sentences() if len(surrogate) > 1 and not np.isnan(diagnostics.get("r2_cv", 0.0)) else ()
        notes += self._about_masks()
        diagnostics |= {"terms": len(surrogate), "hierarchy": seen.as_dict(), "energy": surrogate.energy().tolist()}
        singles = banzhaf_effects(surrogate, "surrogate") if effects is None else removed_table(effects)
        table = surrogate.interactions(self._index(), self.options.max_order, 2).slice(0, REPORTED)
        self._found = (len(values), Findings(surrogate, singles, table, self._index(), tuple(notes), diagnostics))
        return self._found[1]

    def query_result(self, query: int) -> Findings:
        """The surrogate of one query, with a proxy that the number of queries allows."""
        values = self.outputs[:, query]
        if self.complete:
            surrogate = FourierSurrogate.from_values(self.masks, values)
        else:
            proxy, _ = affordable_proxy(self.options.proxy, *self.outputs.shape)
            surrogate = fit_proxy(self._sample_of(values), self.proxy_for(query, proxy)).surrogate
        table = surrogate.interactions(self._index(), self.options.max_order, 2).slice(0, REPORTED)
        return Findings(surrogate, banzhaf_effects(surrogate, "surrogate"), table, self._index())

    def query_notes(self) -> tuple[str, ...]:
        """Whether another proxy than the run's own stands in for it."""
        note = affordable_proxy(self.options.proxy, *self.outputs.shape)[1]
        return (note,) if note else ()

    def _about_masks(self) -> list[str]:
        """Remarks on the masks' P(keep)."""
        p, sample = self.keep_probability, self._sample_of(self.values)
        masks, weights = (self.masks, self.weights) if self._was_given else (sample.masks, None)
        share = float(weighted_mean(masks.mean(axis=1), weights)) if len(sample.masks) else p
        if self._was_given and self.options.keep is None:
            about = f"The masks keep {share:.0%} of the components on average: effects and their intervals are those over such masks."
            return [about] if p != UNIFORM else []
        if abs(share - p) > ASTRAY:
            # Masks are never asked twice, and few components have few masks that keep nearly all.
            return [f"Distinct masks that keep each component with probability {p:g} are few; those asked keep {share:.0%} of the components on average."]
        return [f"Masks keep each component with probability {p:g}."] if self.options.keep == "auto" else []

    def _index(self) -> str:
        """The index asked for; where masks keep other than half, Banzhaf interactions over such masks stand for those over all."""
        return "wbii" if self.options.index == "bii" and self.keep_probability != UNIFORM else self.options.index

    def proxy_for(self, query: int | None = None, name: str | None = None) -> Proxy:
        """The proxy `name` (its own without one) for one of the queries or, without a number, their mean, with prior effects of it if there are any."""
        inner = PROXIES[name or self.options.proxy]
        if self._priors is None:
            return inner
        effects = self._priors.mean(axis=1) if query is None else self._priors[:, query]
        return GradientInformed(inner, [_additive(some) for some in effects])

    def _proxy(self) -> Proxy:
        if self.options.proxy != "gradient":
            return self.proxy_for()
        if self._estimate is None:
            raise UserError("proxy", self.options.proxy, "needs the model's gradients, and this game has none", "take proxy auto")
        return given(self._estimate)

    @property
    def fitted_rows(self) -> NDArray[np.bool_]:
        """As `Explorer.fitted_rows`: all of a complete table, otherwise the rows of `sample`, which leaves single ablations out."""
        return np.ones(len(self.masks), dtype=np.bool_) if self.complete else self._learnable()[0]

    def sample(self) -> Sample:
        """The rows to learn from, with what is known of how they came about."""
        return super().sample() if self.complete else self._sample_of(self.values)

    def _sample_of(self, values: Values) -> Sample:
        """The same with these values (`(m,)`) of all masks told."""
        used, drawn = self._learnable()
        masks, weights = self.masks[used], self.weights[used]
        return Sample(masks, values[used], self.options.max_order, self.keep_probability, drawn[used], self.random_state, weights)

    def _learnable(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of the masks told a fit learns from, and which of them were drawn at random, bool `(m,)` each."""
        if self._was_given:
            rows = random_rows(self.masks, self.keep_probability, self.weights)
            return rows, rows
        count = len(self.masks)
        used, drawn = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
        start = 0
        for (role, chosen), told in zip(self._rounds, self._masks, strict=False):
            rows = slice(start, start + len(told))
            start += len(told)
            if role == "pilot":
                used[rows] = drawn[rows] = self._pilot_of(self._started_n)[1][: len(told)] == self.keep_probability
            elif role == "random":
                used[rows], drawn[rows] = True, np.arange(len(told)) >= chosen
            else:  # one intact mask is as good as drawn, a sweep is not
                used[rows] = drawn[rows] = len(told) == 1
        return used, drawn


def affordable_proxy(proxy: str, evaluations: int, queries: int) -> tuple[str, str | None]:
    """The proxy that each of so many queries is fitted with, and a sentence where it is not the run's own."""
    if proxy == "gradient":
        return CHEAP, f"Queries are fitted with proxy {CHEAP} each: the gradient estimate is of their mean."
    if proxy in SLOW and queries * evaluations > AFFORDABLE:
        return CHEAP, f"Queries are fitted with proxy {CHEAP} each, as {queries:,} queries of {evaluations:,} evaluations each are too many for {proxy}."
    return proxy, None


def _additive(effects: Floats) -> FourierSurrogate:
    """The game in which removing components takes these effects away, and nothing else happens."""
    return FourierSurrogate.from_deviations(len(effects), 0.0, {(i,): float(effect) for i, effect in enumerate(effects)})


def _share(masks: Masks, weights: Values, *, exactly: bool) -> float:
    """The P(keep) of given masks, estimated by the share of components that they keep; one half if that is near and `exactly` is not asked for."""
    if not masks.size:
        return UNIFORM
    kept = masks.mean(axis=1)
    everywhere = float(np.clip(weighted_mean(kept, weights), 0.01, 0.99))
    rows = random_rows(masks, everywhere, weights)
    share = float(np.clip(weighted_mean(kept[rows], weights[rows]), 0.01, 0.99))
    return round(share, 2) if exactly or abs(share - UNIFORM) > NEAR else UNIFORM


def _remarks(found: Fit, values: Values, learnt: int) -> list[str]:
    if np.isnan(found.r2) and not np.ptp(values) > 0:
        return ["The value does not change whatever is removed: there is nothing to explain."]
    if np.isnan(found.r2):
        return [f"The {learnt:,} random masks all have the same value, though others have not: nothing was learnt. Keep more of the components (keep auto)."]
    if set(found.weights) == {"singles"}:
        return [f"Interactions do not help: single effects alone predict as well (cross-validated R² {found.r2_singles:.3f})."]
    return [f"Cross-validated R² {found.r2:.3f}; single effects alone {found.r2_singles:.3f}."]
