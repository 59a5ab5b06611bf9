"""Evaluations to learn from, how they are split for cross-validation, and what a proxy makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import UNIFORM
from raysp.spectral.regression import Exam, penalties, weighted_mean
from raysp.spectral.sets import Floats, singletons

#: Folds of the cross-validation; fewer where evaluations are many, as each fold then leaves enough.
FOLDS_FEW, FOLDS_MANY, MANY = 5, 4, 1500
#: Masks times components above which a sample is wide: every step that can be is then made cheaper, and there are but three folds.
WIDE, FOLDS_WIDE = 2_000_000, 3

#: Fewer evaluations than this are fitted by singles alone.
LEAST_FOR_INTERACTIONS = 30
#: Fewer rows than this without the single ablations are no sample of their own.
LEAST_RANDOM = 8

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Sample:
    """Masks (bool, `(m, n)`) with values (`(m,)`), drawn with `keep_probability`; terms up to `max_order` are wanted.

    `drawn` marks the rows drawn at random: all without it. The others were chosen for what they teach; fits learn from them and are never
    scored on them, so that every score is one on random masks. `weights` float64 `(m,)` are the numbers of measurements that the values are means of;
    None where all are alike.
    """

    masks: Masks
    values: Values
    max_order: int = 1
    keep_probability: float = 0.5
    drawn: NDArray[np.bool_] | None = None
    seed: int = 0
    weights: Values | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and (not len(self.weights) or np.ptp(self.weights) == 0):
            object.__setattr__(self, "weights", None)

    @property
    def n(self) -> int:
        """Number of components."""
        return self.masks.shape[1]

    @property
    def wide(self) -> bool:
        """Whether there are so many masks and components that speed comes before the last thousandth."""
        return self.masks.size > WIDE

    @property
    def allows_interactions(self) -> bool:
        """Whether interactions are wanted, and the evaluations enough to look for them."""
        return self.max_order > 1 and self.n > 1 and len(self.values) >= LEAST_FOR_INTERACTIONS

    @property
    def penalties(self) -> Floats:
        """The grid of penalties that all LASSO fits share."""
        return penalties(self.values, self.weights)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """The rows on which fits are scored, bool `(m,)`."""
        return np.ones(len(self.values), dtype=np.bool_) if self.drawn is None else self.drawn

    @property
    def varies(self) -> bool:
        """Whether there is anything to explain, and something to score it on."""
        return int(self.scored.sum()) > 1 and bool(np.ptp(self.values[self.scored]) > 0)

    def folds(self) -> list[Rows]:
        """The held-out rows of each fold."""
        rows = np.flatnonzero(self.scored)
        return [np.sort(rows[part]) for part in folds(len(rows), self.seed, FOLDS_WIDE if self.wide else None)]

    def without(self, held: Rows) -> Sample:
        """All other rows."""
        weights = None if self.weights is None else np.delete(self.weights, held)
        return replace(self, masks=np.delete(self.masks, held, axis=0), values=np.delete(self.values, held), drawn=None, weights=weights)

    def exam(self, held: Rows) -> Exam:
        """These rows, to score a fit on."""
        return Exam(self.masks[held], self.values[held], self.weights_of(held))

    def weights_of(self, rows: Rows | NDArray[np.bool_]) -> Values | None:
        """The weights of these rows."""
        return None if self.weights is None else self.weights[rows]


@dataclass(frozen=True)
class Proposal:
    """A model on offer: what it predicts out of fold (float64, `(m,)`, NaN for rows never held out), and the model fitted on everything, once asked for.

    `additive` is one of single effects alone. `optimistic_cv` is one that was stopped from growing where it predicts each fold best: out of fold it looks better than it is, the more so the fewer rows there are.
    """

    held_out: Values
    build: Callable[[], FourierSurrogate]
    optimistic_cv: bool = False
    additive: bool = False


#: What a proxy does: models by name, from a sample and its folds.
Proxy = Callable[[Sample, Sequence[Rows]], dict[str, Proposal]]


def folds(m: int, random_state: int, count: int | None = None) -> list[Rows]:
    """The held-out rows of each fold, at random."""
    order = np.random.default_rng(random_state).permutation(m)
    wanted = count or (FOLDS_MANY if m >= MANY else FOLDS_FEW)
    return [np.sort(part) for part in np.array_split(order, min(m, wanted))]


def random_rows(masks: Masks, keep_probability: float = UNIFORM, weights: Values | None = None) -> NDArray[np.bool_]:
    """The rows that look randomly drawn, bool `(m,)`; `weights` (`(m,)`) are how often each was given, once without.

    All rows, or if single ablations are more than chance would draw and enough other rows are there, those with more than one component removed.
    """
    near, n = (~masks).sum(axis=1) <= 1, masks.shape[1]
    counts = np.ones(len(masks)) if weights is None else weights
    expected = counts.sum() * keep_probability**n * (1 + n * (1 - keep_probability) / keep_probability)
    sweep = counts[near].sum() > max(n, 2 * expected) and counts[~near].sum() >= LEAST_RANDOM
    return cast("NDArray[np.bool_]", ~near) if sweep else np.ones(len(masks), dtype=np.bool_)


def constant(n: int, values: Values, keep_probability: float = 0.5, weights: Values | None = None) -> FourierSurrogate:
    """The mean of the values, for games that do not change and samples too small to learn from."""
    mean = np.array([weighted_mean(values, weights) if len(values) else 0.0])
    return FourierSurrogate(singletons(n).take(np.array([0])), mean, keep_probability=keep_probability)
