"""What a run buys if its game can measure slopes: values, or values with slopes, which cost more.

The first random masks are a trial, measured with slopes. If held-out values of the trial are predicted better from a share of its masks with slopes than from the
values of all of them, for the same price, the rest of the budget buys slopes as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from raysp.explorers.hierarchical_lasso import singles
from raysp.explorers.proxies import kernel
from raysp.explorers.samples import Sample
from raysp.explorers.slopes import SLOPED, learnt
from raysp.masks import Values
from raysp.spectral.regression import Exam
from raysp.spectral.slopes import sloped

#: The trial: the share of the budget that is lost if slopes turn out to be useless, the share of the masks that it has, and the least number of masks.
LOST_SHARE, TRIAL_SHARE, LEAST_TRIAL = 0.08, 0.15, 16
#: The highest price at which slopes are bought without a trial, if the budget is too small for one.
UNTRIED_PRICE = 3.0
#: The least number of masks with slopes from which values are predicted in a trial.
LEAST_LEARNT = 5


@dataclass
class Purchases:
    """The purchases of a run: `rounds` in which slopes are measured, the `price` of a value with slopes (in values without), and the `verdict` of the trial.

    `wanted` is the option: auto or on.
    """

    wanted: str
    price: float
    rounds: set[int] = field(default_factory=set[int])
    verdict: bool | None = None

    def cost(self, sizes: Sequence[int]) -> float:
        """The price of rounds with these numbers of masks, in values."""
        return sum(size * (self.price if number in self.rounds else 1.0) for number, size in enumerate(sizes))

    def masks(self, left: float, trial: Callable[[], Sample]) -> tuple[int, bool]:
        """The number of masks that `left` evaluations pay for, or that make up the trial, and whether slopes are measured.

        The verdict is reached once, after the trial, whose rows `trial` returns.
        """
        affordable = int(left / self.price)
        if self.rounds and self.verdict is None:
            self.verdict = self.wanted == "on" or worthwhile(trial(), self.price)
        if self.verdict is not None or self.wanted == "on":
            return (affordable, True) if self.verdict is not False else (int(left), False)
        size = self._trial(left)
        if affordable >= 2 * size:
            return size, True
        return (affordable, True) if self.price <= UNTRIED_PRICE else (int(left), False)

    def _trial(self, left: float) -> int:
        lost = LOST_SHARE * left / max(self.price - 1, LOST_SHARE)
        return max(LEAST_TRIAL, round(min(lost, TRIAL_SHARE * left / self.price)))

    def notes(self, sizes: Sequence[int], weights: Mapping[str, float]) -> list[str]:
        """Sentences on what was bought in rounds with these numbers of masks, and on its part in the surrogate, whose models have these weights."""
        count = sum(size for number, size in enumerate(sizes) if number in self.rounds)
        if not count:
            return []
        why = ""
        if self.verdict and self.wanted == "auto":
            why = ": in a trial, they predicted held-out values better than values alone for the same price"
        elif self.verdict is False:
            why = ", as a trial: values alone predicted held-out values as well for the same price, so no more were measured"
        share = sum(weight for name, weight in weights.items() if name.startswith(SLOPED))
        part = f"Models that learn from slopes make up {share:.0%} of the surrogate." if share else "The surrogate uses values alone."
        return [f"Slopes were measured at {count:,} masks, each of which counts as {self.price:.1f} evaluations{why}.", part]


def worthwhile(sample: Sample, price: float) -> bool:
    """Whether values of held-out masks are predicted better from slopes than from values alone for the same price: from 1 / `price` as many masks."""
    if not (sample.allows_slopes and sample.varies):
        return False
    assert sample.slopes is not None
    sample = sample.without(np.flatnonzero(~sloped(sample.slopes)))
    parts, order = sample.folds(), np.random.default_rng(sample.seed).permutation(len(sample.values))
    found = np.full(len(sample.values), np.nan)
    for held in parts:
        rest = np.setdiff1d(order, held, assume_unique=True)
        kept = rest[: max(int(len(rest) / price), LEAST_LEARNT)]
        found[held] = learnt(sample.without(np.setdiff1d(order, kept))).predict(sample.masks[held])
    alone = [singles(sample, parts).held_out] + ([kernel(sample, parts)["kernel"].held_out] if sample.allows_interactions else [])
    rows = np.flatnonzero(~np.isnan(np.stack([found, *alone])).any(axis=0))
    exam = Exam(sample.masks[rows], sample.values[rows], sample.weights_of(rows))

    def error(predicted: Values) -> float:
        return float(exam.error(predicted[rows, None])[0])

    return error(found) < min(error(each) for each in alone)
