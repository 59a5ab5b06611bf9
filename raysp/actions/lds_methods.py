"""Attribution methods compared by how well they predict retraining on unseen subsets.

Pure: methods and trainings are given as arrays. Outputs are oriented so that higher is better. The single scores are in `raysp.validation.data_scores`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, lookup
from raysp.sampling.ablations import ablations
from raysp.sampling.matching import distinct
from raysp.sampling.tables import banzhaf_effects
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.selection import best_subset
from raysp.spectral.sets import Floats
from raysp.validation import data_scores as scores
from raysp.validation.data_scores import Correlation, Estimate

Metric = Literal[
    "lds",
    "lds_floor",
    "ceiling_halves",
    "ceiling_averaged",
    "ceiling_attainable",
    "leave_one_out",
    "leave_one_out_pearson",
    "mislabel_auc",
    "mislabel_auc_own_label",
    "brittleness_drop",
    "flip_rate",
]
#: Random removals compared with those that a method chooses.
RANDOM_REMOVALS = 8
#: Time limit in seconds for finding the set that a surrogate predicts to be most helpful to a query.
SOLVING = 2.0


@dataclass(frozen=True)
class Score:
    """One figure of a method (None: of the trainings themselves), for one query or averaged over queries; `k` is the number of components removed, if any.

    `lo` and `hi` bound a 95% interval, if there is one.
    """

    metric: Metric
    method: str | None
    value: float
    lo: float | None = None
    hi: float | None = None
    query: int | None = None
    k: int | None = None
    note: str | None = None


class Method(ABC):
    """A method that predicts the outputs of `q` queries for masks over `n` components."""

    name: str

    @abstractmethod
    def predict(self, masks: Masks) -> Floats:
        """Predicted outputs of masks (bool `(m, n)`), float64 `(m, q)`, up to a constant per query."""

    @abstractmethod
    def removed(self) -> Floats:
        """The effect of removing each component alone, v(all) - v(all without it): float64 `(n, q)`."""

    @abstractmethod
    def average(self) -> Floats:
        """The effect of each component averaged over subsets of the others, float64 `(n, q)`."""

    def without_most_helpful(self, k: int) -> Masks:
        """One mask per query, without the k components whose removal lowers its output most: bool `(q, n)`."""
        return scores.without_most_helpful(self.removed(), k)


class Surrogates(Method):
    """One Fourier surrogate per query."""

    def __init__(self, name: str, surrogates: Sequence[FourierSurrogate]) -> None:
        self.name, self.surrogates = name, tuple(surrogates)

    def predict(self, masks: Masks) -> Floats:
        """As `Method.predict`, constants included."""
        return np.stack([surrogate.predict(masks) for surrogate in self.surrogates], axis=1)

    def removed(self) -> Floats:
        """As `Method.removed`."""
        return np.stack([surrogate.single_effects() for surrogate in self.surrogates], axis=1)

    def average(self) -> Floats:
        """As `Method.average`: Banzhaf values."""
        return np.stack([banzhaf_effects(surrogate)[0] for surrogate in self.surrogates], axis=1)

    def without_most_helpful(self, k: int) -> Masks:
        """As `Method.without_most_helpful`, with the set chosen jointly by the exact solver, so that components which substitute for each other go together."""
        masks = np.ones((len(self.surrogates), self.surrogates[0].n), dtype=np.bool_)
        for mask, surrogate in zip(masks, self.surrogates, strict=True):
            mask[list(best_subset(surrogate, k, mode="decrease", time_limit=SOLVING).components)] = False
        return masks


class Effects(Method):
    """Additive effects of removal, float64 `(n, q)`, such as those estimated from gradients."""

    def __init__(self, name: str, effects: Floats) -> None:
        self.name, self.effects = name, effects

    def predict(self, masks: Masks) -> Floats:
        """As `Method.predict`: minus the effects of what is removed."""
        return scores.additive_predictions(self.effects, masks)

    def removed(self) -> Floats:
        """As `Method.removed`."""
        return self.effects

    def average(self) -> Floats:
        """As `Method.average`: additive effects are the same in every subset."""
        return self.effects


# ---- what to train


@dataclass(frozen=True)
class Plan:
    """Subsets to train on: those to score on (bool `(m, n)`), components to leave out one at a time, and removals by (method, k).

    The removals of a method are one mask per query, bool `(q, n)`; those of None are random, bool `(RANDOM_REMOVALS, n)`, and shared by all queries.
    """

    heldout: Masks
    singles: NDArray[np.intp]
    removals: dict[tuple[str | None, int], Masks]

    def masks(self) -> Masks:
        """All distinct masks of the plan, bool `(m, n)`."""
        n = self.heldout.shape[1]
        intact = np.ones((1 if len(self.singles) or self.removals else 0, n), dtype=np.bool_)
        return distinct(np.concatenate([self.heldout, intact, self._without(), *self.removals.values()]))

    def _without(self) -> Masks:
        return ablations(self.heldout.shape[1], [(i,) for i in self.singles.tolist()])


def removals(methods: Sequence[Method], ks: Sequence[int], n: int, rng: np.random.Generator) -> dict[tuple[str | None, int], Masks]:
    """The masks whose components the brittleness test removes, as in `Plan`: the k most helpful of each method, and k random ones."""
    found: dict[tuple[str | None, int], Masks] = {}
    for k in ks:
        for method in methods:
            found[method.name, k] = method.without_most_helpful(k)
        found[None, k] = scores.held_out_subsets(n, n - k, RANDOM_REMOVALS, rng, np.zeros((0, n), dtype=np.bool_))
    return found


@dataclass(frozen=True)
class Trained:
    """Outputs of retrained models, float64 `(seeds, m, q)`, on masks (bool `(m, n)`)."""

    masks: Masks
    outputs: Floats

    def by_seed(self, masks: Masks) -> Floats:
        """The outputs on these masks, float64 `(seeds, len(masks), q)`; ValueError for a mask that was not trained on."""
        rows = lookup(self.masks, masks)
        if np.any(rows < 0):
            raise ValueError(f"{int((rows < 0).sum())} of {len(masks)} masks were not trained on")
        return self.outputs[:, rows]

    def mean(self, masks: Masks) -> Floats:
        """The mean over seeds, float64 `(len(masks), q)`."""
        return self.by_seed(masks).mean(axis=0)


# ---- scores


def score(methods: Sequence[Method], plan: Plan, trained: Trained, *, margins: bool, seed: int = 0) -> list[Score]:
    """Every score of the methods on a plan's trainings. `margins` states that an output below zero is a wrong answer."""
    rows = linear_scores(methods, plan.heldout, trained, seed=seed)
    if len(plan.singles):
        rows += leave_one_out_scores(methods, plan.singles, trained, seed=seed)
    intact = np.ones((1, plan.heldout.shape[1]), dtype=np.bool_)
    for (name, k), masks in plan.removals.items():
        after = trained.mean(masks)
        after = after if name is None else np.diagonal(after)[None]
        found = scores.brittleness(trained.mean(intact)[0], after, seed=seed)
        note = None if name else f"{len(masks)} random removals"
        rows.append(_row("brittleness_drop", name or "random", found.fall, k=k, note=note))
        if margins and found.flipped is not None:
            rows.append(_row("flip_rate", name or "random", found.flipped, k=k, note=note))
    return rows


def linear_scores(methods: Sequence[Method], masks: Masks, trained: Trained, *, seed: int = 0) -> list[Score]:
    """The linear datamodeling score of each method, overall and by query, with its floor and, given at least two seeds, its ceiling."""
    actual = trained.mean(masks)
    rows: list[Score] = []
    for method in methods:
        rows += _rows("lds", method.name, scores.lds(method.predict(masks), actual, seed=seed))
        floor = scores.random_floor(method.predict, masks, actual, seed=seed)
        rows.append(_row("lds_floor", method.name, floor, note=f"mean of {scores.SHUFFLES} permutations of the components"))
    if len(trained.outputs) > 1:
        found = scores.ceiling(trained.by_seed(masks), seed=seed)
        half = found.seeds // 2
        rows += _rows("ceiling_halves", None, found.halves, note=f"means over {half} training seeds against means over {half} others")
        rows.append(_row("ceiling_averaged", None, found.averaged, note=f"means over {found.seeds} seeds against {found.seeds} others, by Spearman-Brown"))
        rows.append(_row("ceiling_attainable", None, found.attainable, note=f"the expected output against the mean over {found.seeds} seeds"))
    return rows


def leave_one_out_scores(methods: Sequence[Method], singles: NDArray[np.intp], trained: Trained, *, seed: int = 0) -> list[Score]:
    """Correlation of predicted and exact effects of removing these components one at a time."""
    outputs = trained.mean(ablations(trained.masks.shape[1], [(), *((i,) for i in singles.tolist())]))
    exact = outputs[0] - outputs[1:]
    rows: list[Score] = []
    for method in methods:
        predicted = method.removed()[singles]
        rows += _rows("leave_one_out", method.name, scores.leave_one_out(predicted, exact, seed=seed))
        rows += _rows("leave_one_out_pearson", method.name, scores.leave_one_out(predicted, exact, "pearson", seed=seed))
    return rows


def mislabel_scores(
    methods: Sequence[Method],
    component_of: NDArray[np.int64],
    mislabelled: NDArray[np.bool_],
    own: NDArray[np.bool_] | None = None,
    *,
    seed: int = 0,
) -> list[Score]:
    """AUC of the estimated harm as a detector of mislabelled examples, given the component of each example and its mark, both `(examples,)`.

    The harm of an example is minus the average effect of its component over all queries and, if `own` (bool `(examples, q)`) is given, over those with its label.
    """
    rows: list[Score] = []
    for method in methods:
        effects = method.average()[component_of]
        rows.append(_row("mislabel_auc", method.name, scores.mislabel_auc(effects.mean(axis=1), mislabelled, seed=seed)))
        if own is None:
            continue
        with_queries = own.any(axis=1)
        if not mislabelled[with_queries].all() and mislabelled[with_queries].any():
            of_own = np.where(own, effects, 0.0).sum(axis=1)[with_queries] / own.sum(axis=1)[with_queries]
            rows.append(_row("mislabel_auc_own_label", method.name, scores.mislabel_auc(of_own, mislabelled[with_queries], seed=seed)))
    return rows


def _rows(metric: Metric, method: str | None, found: Correlation, note: str | None = None) -> list[Score]:
    left = f"{len(found.left_out)} of {len(found.by_query)} queries are left out because their outputs do not vary" if found.left_out else None
    note = "; ".join(part for part in (note, left) if part) or None
    each = [Score(metric, method, value, query=q) for q, value in enumerate(found.by_query.tolist()) if q not in found.left_out]
    return [_row(metric, method, found.mean, note=note), *each]


def _row(metric: Metric, method: str | None, found: Estimate, *, k: int | None = None, note: str | None = None) -> Score:
    return Score(metric, method, found.value, found.lo, found.hi, k=k, note=note)
