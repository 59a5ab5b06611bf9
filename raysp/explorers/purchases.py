"""What a run buys if its game can measure slopes: values, or values with slopes, which cost more.

The first random masks are a trial, measured with slopes. If its slopes predict held-out values better than more values for the same price would, the rest of
the budget buys slopes as well. Slopes around the intact input estimate the deviations of pairs, and are paid from what measures these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb, inf, sqrt

import numpy as np

from raysp.explorers.hierarchical_lasso import singles
from raysp.explorers.proxies import kernel
from raysp.explorers.samples import Sample
from raysp.explorers.slopes import SLOPED, learnt
from raysp.masks import Values
from raysp.spectral.regression import Exam
from raysp.spectral.slopes import sloped

#: The trial: the share of the budget that is lost if slopes turn out to be useless, the share of the masks that it has, and the least number of masks.
LOST_SHARE, TRIAL_SHARE, LEAST_TRIAL = 0.08, 0.15, 20
#: The error with slopes, relative to that without, from which a trial is clear, and the most trials if it is not.
CLEAR, TRIALS = 1.1, 2
#: The share of the budget that a trial may lose; if that of the least trial is larger, there is none.
MOST_LOST = 0.2
#: The highest price at which slopes are bought without a trial, if the budget is too small for one.
UNTRIED_PRICE = 3.0
#: The share of the evaluations for pairs at the intact input that slopes at single ablations may take, and the fewest that are measured with slopes, if any.
AROUND_SHARE, FEWEST_AROUND = 0.5, 8


@dataclass
class Purchases:
    """The purchases of a run: `rounds` of random masks in which slopes are measured, the `price` of a value with slopes (in values without), and the `verdict` of the trial.

    `wanted` is the option: auto or on. `around` are the rounds around the intact input in which slopes are measured.
    """

    wanted: str
    price: float
    rounds: set[int] = field(default_factory=set[int])
    verdict: bool | None = None
    around: set[int] = field(default_factory=set[int])

    def cost(self, sizes: Sequence[int]) -> float:
        """The price of rounds with these numbers of masks, in values."""
        return sum(sizes) + self._extra(sizes, self.rounds | self.around)

    def around_extra(self, sizes: Sequence[int]) -> float:
        """What slopes around the intact input cost beyond the values there, in values."""
        return self._extra(sizes, self.around)

    def _extra(self, sizes: Sequence[int], rounds: set[int]) -> float:
        return (self.price - 1) * sum(size for number, size in enumerate(sizes) if number in rounds)

    def affordable_around(self, n: int, pairs: int) -> int:
        """The number of single ablations that are measured with slopes if `pairs` evaluations are kept for pairs of `n` components: none if all of these fit.

        The intact input is measured with slopes as well if there are any.
        """
        if not 0 < pairs < comb(n, 2):
            return 0
        affordable = n if self.price <= 1 else min(n, int(AROUND_SHARE * pairs / (self.price - 1)))
        return affordable if affordable >= FEWEST_AROUND else 0

    def masks(self, left: float, trial: Callable[[], Sample]) -> tuple[int, bool]:
        """The number of masks that `left` evaluations pay for, or that make up the trial, and whether slopes are measured.

        The verdict is reached after the trial, whose rows `trial` returns, or after another one.
        """
        affordable = int(left / self.price)
        if self.rounds and self.verdict is None:
            self.verdict = True if self.wanted == "on" else self._judged(relative_error(trial()))
        if self.verdict is not None or self.wanted == "on":
            return (affordable, True) if self.verdict is not False else (int(left), False)
        size = self._trial(left)
        if affordable >= 2 * size and (self.price - 1) * size <= MOST_LOST * left:
            return size, True
        if self.rounds:  # not clear, and too little is left for another trial
            self.verdict = False
        return (affordable, True) if self.price <= UNTRIED_PRICE and not self.rounds else (int(left), False)

    def _judged(self, error: float) -> bool | None:
        """The verdict on an error with slopes relative to that without, at equal numbers of masks; None if another trial is needed.

        More values for the price of slopes are not there to compare with: they are taken to lower the error with the root of their number.
        """
        if error < 1 / sqrt(self.price):
            return True
        return False if error >= CLEAR or len(self.rounds) >= TRIALS else None

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
            why = ": in a trial, they predicted held-out values better than more values for the same price would"
        elif self.verdict is False:
            why = ", as a trial: they did not predict held-out values better than more values for the same price would, so no more were measured"
        share = sum(weight for name, weight in weights.items() if name.startswith(SLOPED))
        part = f"Models that learn from slopes make up {share:.0%} of the surrogate." if share else "The surrogate uses values alone."
        which = "random masks" if self.around else "masks"
        return [f"Slopes were measured at {count:,} {which}, each of which counts as {self.price:.1f} evaluations{why}.", part]


def relative_error(sample: Sample) -> float:
    """The mean squared error of held-out values predicted from values and slopes, relative to that from values alone; infinite without slopes or variation."""
    if not (sample.allows_slopes and sample.varies):
        return inf
    assert sample.slopes is not None
    sample = sample.without(np.flatnonzero(~sloped(sample.slopes)))
    parts, found = sample.folds(), np.full(len(sample.values), np.nan)
    for held in parts:
        found[held] = learnt(sample.without(held)).predict(sample.masks[held])
    alone = [singles(sample, parts).held_out] + ([kernel(sample, parts)["kernel"].held_out] if sample.allows_interactions else [])
    rows = np.flatnonzero(~np.isnan(np.stack([found, *alone])).any(axis=0))
    exam = Exam(sample.masks[rows], sample.values[rows], sample.weights_of(rows))

    def error(predicted: Values) -> float:
        return float(exam.error(predicted[rows, None])[0])

    least = min(error(each) for each in alone)
    return error(found) / least if least > 0 else inf
