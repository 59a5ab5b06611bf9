"""Proxies: cheap models of a game, trained on its evaluations and converted to Fourier sums.

A proxy proposes models with their out-of-fold predictions, which the fit (see `fitting`) combines. To add a proxy, write a function with the signature
of `Proxy` and add it to `PROXIES`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from raysp.explorers.hierarchical_lasso import grown
from raysp.explorers.prior_guided import guided_singles
from raysp.explorers.samples import MANY, Proposal, Proxy, Rows, Sample, constant
from raysp.explorers.slopes import sloped
from raysp.masks import Values
from raysp.sampling.draws import random_masks
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.regression import Exam, weighted_mean, weighted_variance
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    from raysp.spectral.posterior import Posterior

#: Number of mask entries (masks times components) up to which a second, deeper ensemble is tried.
DEEP_ENTRIES = 12_000
#: Depths of the shallow and the deep ensemble.
SHALLOW, DEEP = 3, 5
#: Maximum number of rows of the kernel matrices, in general and for wide samples; with more rows, a random subset is used.
KERNEL_ROWS, WIDE_ROWS = 6000, 3000
#: Share of the variance left unexplained by the kernel below which no other proxy is tried.
EXPLAINED = 1e-3
#: Share of the kernel's error that slopes must leave for trees not to be tried.
FAR_BETTER = 0.5
#: Learning rates of the trees, in general and for wide samples.
RATE, WIDE_RATE = 0.1, 0.2
#: Number of rows, in total and per component, below which relevances and scales are learnt separately in each fold.
FEW_ROWS, FEW_PER_COMPONENT = 400, 8
#: Number of sets that stand out up to which their selection is not cross-validated: the threshold for a set is high, so a few do not overfit noise.
FEW_SPIKES = 10
#: Units of the hidden layer of the network, and its weight decay.
UNITS, DECAY = 64, 1e-2
#: Number of masks on which a network is distilled into a Fourier sum.
DISTILLED = 3000

Propose = Callable[[Sample, Exam, int], FourierSurrogate]


def trees(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """Boosted trees, and a sparse refit of their strongest terms, grown along the hierarchy."""
    sample = sample.representative
    proposals, whole, held_out = _by_fold(sample, parts, boosted)
    return {"trees": Proposal(held_out, lambda: whole, optimistic_cv=True), **grown(sample, parts, proposals, whole)}


def linear(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """A sparse linear model on products of components, grown from single components."""
    sample = sample.representative
    nothing = constant(sample.n, sample.values, sample.keep_probability, sample.weights)
    return grown(sample, parts, [nothing] * len(parts), nothing)


def mlp(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """A shallow network, converted to a Fourier sum, and a sparse refit of its strongest terms."""
    sample = sample.representative
    proposals, whole, held_out = _by_fold(sample, parts, network)
    return {"mlp": Proposal(held_out, lambda: whole), **grown(sample, parts, proposals, whole)}


def kernel(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """A Gaussian process on masks (see `spectral.kernel`).

    With many evaluations, the out-of-fold predictions of all folds use a single inverse and the prior learnt from all rows. With few evaluations, such a
    prior would leak information about the held-out rows, so each fold learns its own. If many sets stand out, the full procedure is repeated from
    scratch, but only in two folds. These may find a set that the process of all rows misses: where that process is worse even with its leak, its own
    predictions count.
    """
    from raysp.spectral.posterior import Posterior, first_look, learn

    def learnt(part: Sample) -> Posterior:
        rows = _kernel_rows(part)
        return learn(part.masks[rows], part.values[rows], part.max_order, part.keep_probability, part.seed, part.weights_of(rows))

    def glanced(part: Sample) -> Posterior:
        rows = _kernel_rows(part)
        prior = first_look(part.masks, part.values, part.max_order, part.keep_probability, part.seed, part.weights)
        return Posterior(prior, part.masks[rows], part.values[rows], part.weights_of(rows))

    posterior = learnt(sample)
    surrogate = posterior.surrogate(sample.max_order)
    held_out, count = _held_out(posterior, sample, parts), len(sample.values)
    if sum(map(len, posterior.prior.spikes)) > FEW_SPIKES and count < MANY:
        relearnt = _relearnt(sample, parts[:2], learnt)
        held_out = max(relearnt, np.where(np.isnan(relearnt), np.nan, held_out), key=lambda guess: _missed(guess, sample))
    elif count < max(FEW_ROWS, FEW_PER_COMPONENT * sample.n):
        held_out = _relearnt(sample, parts if count < MANY else parts[:2], glanced)
    else:
        unseen = np.flatnonzero(sample.scored & np.isnan(held_out))
        held_out[unseen] = surrogate.predict(sample.masks[unseen])
    return {"kernel": Proposal(held_out, lambda: surrogate, partial(_refitted, posterior, sample, parts))}


def _refitted(posterior: Posterior, sample: Sample, parts: Sequence[Rows], values: Values) -> Proposal:
    """The process with its prior fitted to other values (`(m,)`) of the sample's rows."""
    refitted = posterior.fitted(values[_kernel_rows(sample)])
    return Proposal(_held_out(refitted, sample, parts), lambda: refitted.surrogate(sample.max_order))


def _held_out(posterior: Posterior, sample: Sample, parts: Sequence[Rows]) -> Values:
    """Predict the rows of each part by the process of the sample's kernel rows without them, its prior unchanged: float64 `(m,)`, NaN for other rows."""
    rows = _kernel_rows(sample)
    place, held_out = np.full(len(sample.values), -1, dtype=np.intp), np.full(len(sample.values), np.nan)
    place[rows] = np.arange(len(rows))
    held_out[rows] = posterior.held_out([place[part[place[part] >= 0]] for part in parts])
    return held_out


def _relearnt(sample: Sample, parts: Sequence[Rows], learn: Callable[[Sample], Posterior]) -> Values:
    """Predict the rows of each part by the process learnt from all other rows, float64 `(m,)`; NaN for rows in no part."""
    held_out = np.full(len(sample.values), np.nan)
    for held in parts:
        held_out[held] = learn(sample.without(held)).predict(sample.masks[held])
    return held_out


def _kernel_rows(sample: Sample) -> Rows:
    """The rows used in the kernel matrices: all, or a random subset."""
    room = WIDE_ROWS if sample.wide else KERNEL_ROWS
    return np.sort(np.random.default_rng(sample.seed).permutation(len(sample.values))[:room])


def given(surrogate: FourierSurrogate) -> Proxy:
    """Create a proxy from an estimate, such as that of a model's gradients: scaled to the values, and with its strongest terms refitted."""

    def proxy(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
        sample = sample.representative
        estimate = surrogate.rebased(sample.keep_probability)
        return {"gradient": scaled(sample, parts, estimate), **grown(sample, parts, [estimate] * len(parts), estimate)}

    return proxy


def scaled(sample: Sample, parts: Sequence[Rows], estimate: FourierSurrogate) -> Proposal:
    """Propose an estimate, in the basis of the sample's P(keep), times a factor and plus a constant that fit the values best."""
    guess = estimate.predict(sample.masks)
    held_out = np.full(len(sample.values), np.nan)
    for held in parts:
        rest = np.delete(np.arange(len(guess)), held)
        slope, level = _line(guess[rest], sample.values[rest], sample.weights_of(rest))
        held_out[held] = level + slope * guess[held]
    slope, level = _line(guess, sample.values, sample.weights)
    shift = FourierSurrogate.from_dict(sample.n, {(): level}).rebased(sample.keep_probability)
    whole = FourierSurrogate.combined([estimate, shift], [slope, 1.0])
    return Proposal(held_out, lambda: whole)


#: The end of the names of models whose single effects are guided by prior estimates.
GRADIENTS = "gradients"


@dataclass(frozen=True)
class GradientInformed:
    """The models of a proxy, single effects guided by prior estimates, and each model with guided single effects fitted to its residual.

    With too few evaluations for interactions, only the guided single effects are proposed.
    """

    inner: Proxy
    estimates: Sequence[FourierSurrogate]

    @classmethod
    def of(cls, inner: Proxy, effects: Floats) -> GradientInformed:
        """With estimates of single effects, float64 `(estimates, n)`."""
        every = [{(i,): float(effect) for i, effect in enumerate(some)} for some in effects]
        return cls(inner, [FourierSurrogate.from_deviations(effects.shape[1], 0.0, some) for some in every])

    def __call__(self, sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
        """Propose models by name; see `Proxy`."""
        known = [estimate.rebased(sample.keep_probability) for estimate in self.estimates]
        offers = self.inner(sample, parts) if sample.allows_interactions or sample.allows_slopes else {}
        sample = sample.representative
        found = {GRADIENTS: guided_singles(sample, parts, known)}
        for name, offer in offers.items():
            rest, places = sample.rest_of(offer, parts, 1)
            found[f"{name} and {GRADIENTS}"] = offer.plus(guided_singles(rest, places, known))
        return {**offers, **found}


def auto(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """The kernel and, if it leaves variance unexplained, trees and their refit; the fit stacks them.

    Very wide samples, for which the kernel is slow, use trees alone. With slopes, the process that learns from them comes first, alone and with a kernel
    on what it leaves unexplained; trees are tried unless it is far better than the kernel on values.
    """
    found = sloped(sample, parts) if sample.allows_slopes else {}
    if not sample.allows_interactions:
        return found
    if sample.wide:
        return {**found, **trees(sample, parts)}
    found |= kernel(sample, parts)
    fair = sample.representative
    least = _left(found["kernel"], fair)
    if sample.allows_slopes:
        best = min((offer for offer in found.values() if offer.sloped), key=lambda offer: _left(offer, fair))
        rest, places = sample.rest_of(best, parts, sample.max_order)
        # Slopes may be too few for predictions in more than one fold.
        several = sum(len(part) > 0 for part in places) > 1
        found |= {"slopes and kernel": best.plus(kernel(rest, places)["kernel"])} if rest.varies and several else {}
        least = min(_left(best, fair) / FAR_BETTER, least)
        if least < _left(found["kernel"], fair):
            return found
    return found if least < EXPLAINED * weighted_variance(sample.values, fair.weights) else {**found, **trees(sample, parts)}


def _left(offer: Proposal, sample: Sample) -> float:
    """The mean squared out-of-fold error of a proposal."""
    return _missed(offer.held_out, sample)


def _missed(held_out: Values, sample: Sample) -> float:
    """The mean squared error of out-of-fold predictions."""
    rows = ~np.isnan(held_out)
    return float(weighted_mean((held_out - sample.values)[rows] ** 2, sample.weights_of(rows)))


#: The proxies by name; proxy `gradient` is created by `given` from the gradient estimate of a game.
PROXIES: dict[str, Proxy] = {"auto": auto, "trees": trees, "kernel": kernel, "linear": linear, "mlp": mlp}


def boosted(sample: Sample, exam: Exam, seed: int) -> FourierSurrogate:
    """Boosted trees (LightGBM, with early stopping on the exam); if cheap, deeper trees are trained too, and those with the smaller exam error are used."""
    from raysp.spectral.trees import booster_transform, train_booster

    depths = {min(SHALLOW, sample.max_order)} | ({min(DEEP, sample.max_order)} if sample.masks.size <= DEEP_ENTRIES else set[int]())
    best: tuple[float, FourierSurrogate] | None = None
    for depth in sorted(depths):
        rate = WIDE_RATE if sample.wide else RATE
        booster, rounds = train_booster(sample.masks, sample.values, exam, weights=sample.weights, depth=depth, rate=rate, seed=seed)
        found = booster_transform(booster, sample.n, rounds)
        error = float(exam.error(found.predict(exam.masks)[:, None])[0])
        if best is None or error < best[0]:
            best = (error, found)
    assert best is not None
    return best[1].rebased(sample.keep_probability)


def network(sample: Sample, exam: Exam, seed: int) -> FourierSurrogate:
    """A network with one hidden layer (scikit-learn), distilled into a sparse Fourier sum on masks from the same distribution."""
    from sklearn.neural_network import MLPRegressor

    level, spread = float(weighted_mean(sample.values, sample.weights)), float(np.sqrt(weighted_variance(sample.values, sample.weights))) or 1.0
    counts = None if sample.weights is None else sample.weights / sample.weights.mean()
    model: Any = MLPRegressor(
        hidden_layer_sizes=(UNITS,), alpha=DECAY, early_stopping=len(sample.values) > 200, n_iter_no_change=15, max_iter=400, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network that has not converged is judged by cross-validation like any other
        model.fit(1.0 - 2.0 * sample.masks, (sample.values - level) / spread, counts)
    fresh = np.concatenate([random_masks(sample.n, DISTILLED, sample.keep_probability, np.random.default_rng(seed)), exam.masks])
    predicted = level + spread * model.predict(1.0 - 2.0 * fresh)
    pupil = Sample(fresh, predicted, sample.max_order, sample.keep_probability, seed=seed)
    if not pupil.varies:
        return constant(sample.n, predicted, sample.keep_probability)
    exam_rows = pupil.folds()[0]
    pupil = replace(pupil, drawn=np.isin(np.arange(len(predicted)), exam_rows))
    start = constant(sample.n, predicted, sample.keep_probability)
    return list(grown(pupil, [exam_rows], [start], start).values())[-1].build()


def _by_fold(sample: Sample, parts: Sequence[Rows], propose: Propose) -> tuple[list[FourierSurrogate], FourierSurrogate, Values]:
    """The proposals learnt without each fold, their average, and their out-of-fold predictions."""
    held_out = np.full(len(sample.values), np.nan)
    proposals: list[FourierSurrogate] = []
    for number, held in enumerate(parts):
        proposals.append(propose(sample.without(held), sample.exam(held), sample.seed + number))
        held_out[held] = proposals[-1].predict(sample.masks[held])
    return proposals, FourierSurrogate.combined(proposals, [1 / len(proposals)] * len(proposals)), held_out


def _line(guess: Values, values: Values, weights: Values | None) -> tuple[float, float]:
    """The slope and intercept of the weighted least-squares line through the points (`weights` None: equal)."""
    spread, middle, level = weighted_variance(guess, weights), weighted_mean(guess, weights), weighted_mean(values, weights)
    slope = float(weighted_mean((guess - middle) * (values - level), weights)) / spread if spread > 0 else 0.0
    return slope, float(level - slope * middle)
