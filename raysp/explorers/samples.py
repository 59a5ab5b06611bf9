"""Samples of evaluations, their cross-validation folds, and the proposals of proxies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values, first_of_each, pack
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import UNIFORM
from raysp.spectral.regression import Exam, penalties, weighted_mean
from raysp.spectral.sets import Floats, singletons

#: Number of cross-validation folds for few and for many evaluations, and the number of evaluations considered many.
FOLDS_FEW, FOLDS_MANY, MANY = 5, 4, 1500
#: Number of mask entries (masks times components) above which a sample is wide and cheaper variants are used, and its number of folds.
WIDE, FOLDS_WIDE = 2_000_000, 3

#: The weight, relative to others, of rows that masks drawn at random would hardly ever hold.
LEAST_IMPORTANCE = 1e-3
#: Minimum number of evaluations for fitting interactions; with fewer, only single effects are fitted.
LEAST_FOR_INTERACTIONS = 30
#: Minimum number of rows with slopes for learning from these.
LEAST_WITH_SLOPES = 10
#: Deviation of the kept share of given masks from one half up to which P(keep) is set to one half.
NEAR = 0.1
#: Minimum number of rows other than single ablations for which the single ablations are excluded.
LEAST_RANDOM = 8

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Sample:
    """Masks (bool, `(m, n)`) drawn with `keep_probability`, and their values (`(m,)`), to be fitted with terms up to `max_order`.

    `drawn` marks the rows drawn at random (None: all). The others were chosen for their information; they are used for fitting but never for scoring, so
    that every score refers to random masks. `weights` float64 `(m,)` are the numbers of measurements that the values are means of (None: equal).
    `importance` float64 `(m,)` says how often a mask of this size is drawn with `keep_probability`, relative to how often it is in the sample (None: equally).
    `slopes` float64 `(m, n)` are the derivatives of the value in the gates of the components, NaN in rows where they were not measured (None: in none).
    """

    masks: Masks
    values: Values
    max_order: int = 1
    keep_probability: float = 0.5
    drawn: NDArray[np.bool_] | None = None
    seed: int = 0
    weights: Values | None = None
    slopes: Floats | None = None
    importance: Values | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and (not len(self.weights) or np.ptp(self.weights) == 0):
            object.__setattr__(self, "weights", None)

    @property
    def n(self) -> int:
        """Number of components."""
        return self.masks.shape[1]

    @property
    def wide(self) -> bool:
        """Whether the sample is so large that speed takes precedence over the last bit of accuracy."""
        return self.masks.size > WIDE

    @property
    def allows_interactions(self) -> bool:
        """Whether interactions are requested and there are enough evaluations to fit them."""
        return self.max_order > 1 and self.n > 1 and len(self.values) >= LEAST_FOR_INTERACTIONS

    @property
    def allows_slopes(self) -> bool:
        """Whether interactions are requested and there are enough rows with slopes to learn from these."""
        return self.max_order > 1 and self.n > 1 and self.slopes is not None and int(np.isfinite(self.slopes).all(axis=1).sum()) >= LEAST_WITH_SLOPES

    @property
    def penalties(self) -> Floats:
        """The grid of penalties shared by all LASSO fits."""
        return penalties(self.values, self.weights)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """The rows on which fits are scored, bool `(m,)`."""
        return np.ones(len(self.values), dtype=np.bool_) if self.drawn is None else self.drawn

    @cached_property
    def representative(self) -> Sample:
        """The same rows with weights that make them stand for masks drawn with `keep_probability`; for fits and scores that assume such masks."""
        if self.importance is None:
            return self
        shares = np.maximum(self.importance, LEAST_IMPORTANCE)
        return replace(self, weights=shares if self.weights is None else self.weights * shares, importance=None)

    @property
    def varies(self) -> bool:
        """Whether the scored values vary, so that there is something to explain."""
        return int(self.scored.sum()) > 1 and bool(np.ptp(self.values[self.scored]) > 0)

    def folds(self) -> list[Rows]:
        """The held-out rows of each fold. A mask and its complement are in one fold: what a model misses at one is, but for its sign, what it misses at the other."""
        rows = np.flatnonzero(self.scored)
        masks = self.masks[rows]
        first, number = first_of_each(pack(masks ^ masks[:, :1]))
        # With one component or two rows there may be a single pair, of which something must be left to learn from.
        pair = np.argsort(np.argsort(first))[number] if len(first) > 1 else np.arange(len(rows))
        held = folds(len(np.unique(pair)), self.seed, FOLDS_WIDE if self.wide else None)
        return [rows[np.isin(pair, part)] for part in held]

    def without(self, held: Rows) -> Sample:
        """The sample without the held-out rows."""
        weights, slopes, importance = (None if each is None else np.delete(each, held, axis=0) for each in (self.weights, self.slopes, self.importance))
        masks, values = np.delete(self.masks, held, axis=0), np.delete(self.values, held)
        return replace(self, masks=masks, values=values, drawn=None, weights=weights, slopes=slopes, importance=importance)

    def rest_of(self, offer: Proposal, parts: Sequence[Rows], max_order: int) -> tuple[Sample, list[Rows]]:
        """What a proposal leaves unexplained out of fold, as a sample without slopes, of the rows that it predicts, and the held-out rows of each fold in it."""
        rows = np.flatnonzero(~np.isnan(offer.held_out))
        place = np.full(len(self.values), -1, dtype=np.intp)
        place[rows] = np.arange(len(rows))
        left = (self.values - offer.held_out)[rows]
        drawn, importance = None if self.drawn is None else self.drawn[rows], None if self.importance is None else self.importance[rows]
        rest = Sample(self.masks[rows], left, max_order, self.keep_probability, drawn, self.seed, self.weights_of(rows), importance=importance)
        return rest, [place[part[place[part] >= 0]] for part in parts]

    def exam(self, held: Rows) -> Exam:
        """The held-out rows, as an exam."""
        return Exam(self.masks[held], self.values[held], self.weights_of(held))

    def weights_of(self, rows: Rows | NDArray[np.bool_]) -> Values | None:
        """The weights of the given rows."""
        return None if self.weights is None else self.weights[rows]


@dataclass(frozen=True)
class Proposal:
    """A proposed model: its out-of-fold predictions (float64, `(m,)`, NaN for rows never held out), and `build`, which fits it to all rows.

    `rebuild`, if there is one, proposes it for other values (float64, `(m,)`) of all rows, with everything learnt so far.
    `additive` marks a model of single effects alone. `optimistic_cv` marks a model whose growth was stopped where it predicts each held-out fold best, so
    that its out-of-fold error is biased downwards, more so with fewer rows. `sloped` marks a model that learns from slopes.
    """

    held_out: Values
    build: Callable[[], FourierSurrogate]
    rebuild: Callable[[Values], Proposal] | None = None
    optimistic_cv: bool = False
    additive: bool = False
    sloped: bool = False

    def plus(self, more: Proposal) -> Proposal:
        """Add a model of what this one leaves unexplained (see `Sample.rest_of`)."""
        held_out = self.held_out.copy()
        held_out[~np.isnan(held_out)] += more.held_out

        def build() -> FourierSurrogate:
            return FourierSurrogate.combined([self.build(), more.build()], [1.0, 1.0])

        return Proposal(held_out, build, optimistic_cv=self.optimistic_cv or more.optimistic_cv, sloped=self.sloped or more.sloped)


#: A proxy: a function that proposes models by name, given a sample and its folds.
Proxy = Callable[[Sample, Sequence[Rows]], dict[str, Proposal]]


def folds(m: int, random_state: int, count: int | None = None) -> list[Rows]:
    """The held-out rows of each fold of a random partition of `m` rows."""
    order = np.random.default_rng(random_state).permutation(m)
    wanted = count or (FOLDS_MANY if m >= MANY else FOLDS_FEW)
    return [np.sort(part) for part in np.array_split(order, min(m, wanted))]


def random_rows(masks: Masks, keep_probability: float = UNIFORM, weights: Values | None = None) -> NDArray[np.bool_]:
    """The rows that appear to be drawn at random, bool `(m,)`; `weights` (`(m,)`) are the number of times each row was given (None: once).

    These are all rows, or, if there are more single ablations than expected by chance and enough other rows, those with more than one component removed.
    """
    near, n = (~masks).sum(axis=1) <= 1, masks.shape[1]
    counts = np.ones(len(masks)) if weights is None else weights
    expected = counts.sum() * keep_probability**n * (1 + n * (1 - keep_probability) / keep_probability)
    sweep = counts[near].sum() > max(n, 2 * expected) and counts[~near].sum() >= LEAST_RANDOM
    return cast("NDArray[np.bool_]", ~near) if sweep else np.ones(len(masks), dtype=np.bool_)


def kept_share(masks: Masks, weights: Values, *, exactly: bool) -> float:
    """Estimate the P(keep) of given masks by the share of components they keep; rounded to one half if close to it and not `exactly`."""
    if not masks.size:
        return UNIFORM
    kept = masks.mean(axis=1)
    everywhere = float(np.clip(weighted_mean(kept, weights), 0.01, 0.99))
    rows = random_rows(masks, everywhere, weights)
    share = float(np.clip(weighted_mean(kept[rows], weights[rows]), 0.01, 0.99))
    return round(share, 2) if exactly or abs(share - UNIFORM) > NEAR else UNIFORM


#: The sentence about a game whose value no mask changes, in notes and verdicts alike.
CONSTANT_VALUE = "The value is the same for all masks, so there is nothing to attribute."


def constant(n: int, values: Values, keep_probability: float = 0.5, weights: Values | None = None) -> FourierSurrogate:
    """A surrogate that is constant at the mean of the values, for games that do not vary and samples too small for a fit."""
    mean = np.array([weighted_mean(values, weights) if len(values) else 0.0])
    return FourierSurrogate(singletons(n).take(np.array([0])), mean, keep_probability=keep_probability)
