"""Training recipes compared: which are tried, what is measured of each, and the cheapest under which the queries' answers respond to the training set.

Under a poor recipe the answers hardly depend on what was trained on, or depend on the training seed as much, and every attribution is noise. So the same random
subsets are trained on from several seeds, and the outputs are split as in an analysis of variance: their *spread* is the standard deviation between subsets, their
*noise* that between trainings of one subset. Pure: operates on arrays, and knows neither models nor Ray.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks
from raysp.sampling.draws import random_masks
from raysp.specs.lenses import DataLens

Floats = NDArray[np.float64]
Outcome = Literal["responds", "does not learn", "mostly noise", "stopped early", "diverged"]

#: What is searched. The scale of an adapter, alpha / rank, stays that of the spec.
LEARNING_RATES, EPOCHS, RANKS, LAYERS = (2e-4, 5e-2), (1, 2, 3, 4, 6), (2, 4, 8, 16), (1, 2, 4, 8)
#: Training seeds, and subsets: a step measures its share of them, after which a poor recipe can be stopped.
SEEDS, SUBSETS, STEPS = 2, 16, 2
#: The share of the components that a subset keeps if the spec does not state it.
KEEP = 0.5
#: The answers respond if their spread is at least this many times the noise, and larger than noise alone would make it at this level.
RESPONDS, LEVEL = 1.0, 0.05
#: Recipes that cost at most this many times as much as the cheapest one count as equally cheap: times on a busy machine vary by as much.
AS_CHEAP = 1.2
#: The smallest ratio of spread and noise that makes a difference to the score.
LEAST_RATIO = 0.05
#: The weight of what is missing against the logarithm of the seconds: the logarithm of a ratio below `RESPONDS`, and for a loss that does not fall
#: `NOT_LEARNING` and its relative rise.
PENALTY, NOT_LEARNING = 10.0, 0.5
#: The score of a recipe that diverges, and seconds below which a training is not cheaper.
WORST, LEAST_SECONDS = -1e9, 1e-6


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe to try: what of the lens's recipe the search changes."""

    learning_rate: float
    epochs: int
    rank: int
    adapted_layers: str

    @classmethod
    def of(cls, lens: DataLens) -> Candidate:
        """The lens's own recipe."""
        return cls(lens.learning_rate, lens.epochs, lens.rank, lens.adapted_layers)

    def fields(self, lens: DataLens) -> dict[str, float | int | str]:
        """The fields of the lens that the recipe sets; `alpha` follows the rank, so that the adapters keep their scale."""
        alpha = float(f"{lens.alpha / lens.rank * self.rank:.6g}")
        return {"learning_rate": self.learning_rate, "epochs": self.epochs, "rank": self.rank, "alpha": alpha, "adapted_layers": self.adapted_layers}

    def changes(self, lens: DataLens) -> dict[str, float | int | str]:
        """Those of `fields` in which the lens differs."""
        return {name: value for name, value in self.fields(lens).items() if getattr(lens, name) != value}

    def applied(self, lens: DataLens) -> DataLens:
        """The lens with this recipe."""
        return lens.model_copy(update=self.fields(lens))

    def within(self, layers: int) -> Candidate:
        """The recipe for a model with so many layers, of which the last at most all are adapted."""
        asked = int(self.adapted_layers.removeprefix("last:")) if self.adapted_layers.startswith("last:") else 0
        return replace(self, adapted_layers=f"last:{layers}") if asked > layers else self

    def __str__(self) -> str:
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        return f"learning rate {self.learning_rate:g}, {epochs}, rank {self.rank}, layers {self.adapted_layers}"


def candidates(lens: DataLens, count: int, seed: int) -> list[Candidate]:
    """The lens's own recipe and distinct others, `count` in all.

    The others are a Latin hypercube sample (McKay, Beckman and Conover 1979): every learning rate, however few are tried, is near one of them.
    """
    from scipy.stats import qmc

    found = [Candidate.of(lens)]
    low, high = (math.log(rate) for rate in LEARNING_RATES)
    for draw in qmc.LatinHypercube(4, rng=np.random.default_rng(seed)).random(max(count - 1, 0)):
        rate = math.exp(low + draw[0] * (high - low))
        epochs, rank, depth = (choices[int(place * len(choices))] for choices, place in zip((EPOCHS, RANKS, LAYERS), draw[1:], strict=True))
        found.append(Candidate(float(f"{rate:.2g}"), epochs, rank, f"last:{depth}"))
    return list(dict.fromkeys(found))


def subsets(n: int, keep: float | None, seed: int) -> list[Masks]:
    """The subsets of each step, bool `(m, n)`: distinct, the same for all recipes, fewer than `SUBSETS` together where there are not so many."""
    ends = np.array([[True] * n, [False] * n])
    drawn = random_masks(n, SUBSETS, keep or KEEP, np.random.default_rng([seed, n]), excluded=ends)
    return [part for part in np.array_split(drawn, STEPS) if len(part)]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What has been measured of a recipe.

    `outputs` are the queries' scores, float64 `(subsets, seeds, queries)`; `loss` is the queries' mean negative log-probability per token after training on
    everything, `untrained_loss` before training; `seconds` is the price of a training, measured on `trainings` of them. `shared`: trainings with the same seed share it, so that it cancels in
    differences between subsets. `diverged` states why a training failed.
    """

    candidate: Candidate
    outputs: Floats
    loss: float = math.nan
    untrained_loss: float = math.nan
    seconds: float = math.nan
    trainings: int = 0
    shared: bool = True
    complete: bool = False
    diverged: str | None = None

    @property
    def spread(self) -> float:
        """Standard deviation of the outputs between subsets, with the noise in it removed; in the queries' mean standard deviations."""
        return math.sqrt(max(self._variances()[0], 0.0))

    @property
    def noise(self) -> float:
        """Standard deviation of an output between trainings of the same subset, in the same unit."""
        return math.sqrt(self._variances()[1])

    @property
    def ratio(self) -> float:
        """Spread over noise: infinite without noise, 0 if the outputs do not vary at all, NaN if nothing was measured."""
        if self.outputs.shape[0] < 2:
            return math.nan
        spread, noise = self.spread, self.noise
        return spread / noise if noise > 0 else (math.inf if spread > 0 else 0.0)

    @property
    def is_above_noise(self) -> bool:
        """Whether noise alone would give so large a spread in fewer than one of 1 / `LEVEL` cases, by the F test of one query, as queries are correlated."""
        from scipy.stats import f

        between, within, degrees = self._mean_squares()
        if within <= 0:
            return between > 0
        return bool(between / within >= f.ppf(1 - LEVEL, *degrees))

    @property
    def learns(self) -> bool:
        """Whether training on everything lowers the queries' loss."""
        return self.loss < self.untrained_loss

    @property
    def responds(self) -> bool:
        """Whether the answers depend on what was trained on more than on the training seed."""
        return self.ratio >= RESPONDS and self.is_above_noise

    @property
    def outcome(self) -> Outcome:
        """What became of the recipe."""
        if self.diverged is not None:
            return "diverged"
        if not self.complete:
            return "stopped early"
        if not self.responds:
            return "mostly noise"
        return "responds" if self.learns else "does not learn"

    @property
    def score(self) -> float:
        """Larger is better: minus the logarithm of the seconds, less what is missing to a recipe under which answers respond, so that price decides among those."""
        if self.diverged is not None or math.isnan(self.ratio):
            return WORST
        noisy = max(0.0, -math.log(max(self.ratio, LEAST_RATIO) / RESPONDS))
        harmful = 0.0 if self.learns else NOT_LEARNING + max(0.0, self.loss / self.untrained_loss - 1.0)
        return -math.log(max(self.seconds, LEAST_SECONDS)) - PENALTY * (noisy + harmful)

    def _mean_squares(self) -> tuple[float, float, tuple[int, int]]:
        """Mean squares between subsets and within them, with their degrees of freedom, averaged over queries scaled to variance one."""
        count, seeds, _ = self.outputs.shape
        scale = self.outputs.std(axis=(0, 1))
        varied = scale > 0
        if count < 2 or seeds < 2 or not varied.any():
            return 0.0, 0.0, (1, 1)
        scaled = self.outputs[:, :, varied] / scale[varied]
        scaled = scaled - scaled.mean(axis=(0, 1))
        means = scaled.mean(axis=1)
        residual = scaled - means[:, None]
        degrees = count * (seeds - 1)
        if self.shared:
            residual, degrees = residual - residual.mean(axis=0), (count - 1) * (seeds - 1)
        between = seeds * (means**2).sum(axis=0) / (count - 1)
        within = (residual**2).sum(axis=(0, 1)) / degrees
        return float(between.mean()), float(within.mean()), (count - 1, degrees)

    def _variances(self) -> tuple[float, float]:
        """Variance components: between subsets (negative where noise alone explains more), and within them."""
        between, within, _ = self._mean_squares()
        return (between - within) / max(self.outputs.shape[1], 1), within


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The recipe chosen of those tried, whether the queries' answers respond to the training set under it, and why it was chosen, in a sentence."""

    evidence: Evidence
    responds: bool
    sentence: str


def choose(found: Sequence[Evidence]) -> Choice | None:
    """The cheapest recipe under which the answers respond and training lowers the loss; where there is none, the best found. None if every recipe diverged."""
    usable = [each for each in found if each.score > WORST]
    if not usable:
        return None
    measured = [each for each in usable if each.complete] or usable
    if responding := [each for each in measured if each.outcome == "responds"]:
        bound = AS_CHEAP * min(each.seconds for each in responding)
        chosen = max((each for each in responding if each.seconds <= bound), key=lambda each: each.ratio)
        return Choice(chosen, True, _why(chosen, len(responding), len(found)))
    chosen = max(measured, key=lambda each: each.score)
    return Choice(chosen, False, _why_not(chosen, len(found)))


def _why(chosen: Evidence, responding: int, tried: int) -> str:
    among = "the only one" if responding == 1 else f"the cheapest of {responding}"
    return (
        f"{chosen.candidate}: {among} of the {tried} recipes tried under which the answers respond to the training set; the choice of examples moves an answer "
        f"{times(chosen.ratio)} as much as the training seed does, and training on everything lowers the queries' loss from {chosen.untrained_loss:.3g} to {chosen.loss:.3g}."
    )


def _why_not(chosen: Evidence, tried: int) -> str:
    none = f"Under none of the {tried} recipes tried do the answers respond to the training set. The best found is {chosen.candidate}: "
    moved = f"the choice of examples moves an answer {times(chosen.ratio)} as much as the training seed does"
    if chosen.responds:
        return f"{none}{moved}, but training on everything does not lower the queries' loss ({chosen.loss:.3g}, untrained {chosen.untrained_loss:.3g})."
    if not chosen.complete:
        return f"{none}{moved}, as far as it was measured; allow more time."
    if chosen.ratio >= RESPONDS:
        return f"{none}{moved}, which {len(chosen.outputs)} subsets cannot tell from noise; give more components."
    if chosen.ratio > LEAST_RATIO:
        enough = math.ceil(chosen.ratio**-2)
        return f"{none}{moved}; {enough} seeds averaged for each subset (seeds: {enough}) would make up for it, as would more examples in a component."
    return f"{none}{moved}, so attributions would be noise; check that the queries are about what the training set teaches."


def times(ratio: float) -> str:
    """A ratio in words."""
    return "infinitely" if math.isinf(ratio) else f"{ratio:.2g} times"


def unmeasured(candidate: Candidate, reason: str) -> Evidence:
    """The evidence of a recipe whose training diverged."""
    return Evidence(candidate, np.empty((0, SEEDS, 0)), diverged=reason)


def extended(evidence: Evidence, outputs: Floats, seconds: float, trainings: int) -> Evidence:
    """The evidence with more subsets, whose trainings took so many seconds together."""
    before = 0.0 if math.isnan(evidence.seconds) else evidence.seconds * evidence.trainings
    total = evidence.trainings + trainings
    joined = outputs if not len(evidence.outputs) else np.concatenate([evidence.outputs, outputs])
    return replace(evidence, outputs=joined, seconds=(before + seconds) / total, trainings=total)
