"""Proxies: cheap models of a game, trained on its evaluations and handed over as Fourier sums.

A proxy offers models with their out-of-fold predictions; the fit (see `fitting`) keeps of them what predicts held-out masks. To add one, write a
function with the signature of `Proxy` and enter it in `PROXIES`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raysp.explorers.hierarchical_lasso import grown
from raysp.explorers.prior_guided import guided_singles
from raysp.explorers.samples import MANY, Proposal, Proxy, Rows, Sample, constant
from raysp.masks import Values
from raysp.sampling.draws import random_masks
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.regression import Exam, weighted_mean, weighted_variance

if TYPE_CHECKING:
    from raysp.spectral.posterior import Posterior

#: Masks times components up to which a second, deeper ensemble is tried.
DEEP_ENTRIES = 12_000
#: Depths of the shallow and the deep ensemble.
SHALLOW, DEEP = 3, 5
#: Rows of the kernel's matrices at most, also for wide samples; beyond, a random part is learnt from.
KERNEL_ROWS, WIDE_ROWS = 6000, 3000
#: Share of the variance that the kernel may leave for nothing else to be tried.
EXPLAINED = 1e-3
#: Learning rates of the trees, the second for wide samples.
RATE, WIDE_RATE = 0.1, 0.2
#: Rows, in all and a component, below which each fold learns relevances and scales of its own.
FEW_ROWS, FEW_PER_COMPONENT = 400, 8
#: Sets that may stand out without having their choice cross-validated: the bar for a set is high, and so few fit no noise.
FEW_SPIKES = 10
#: Units of the network's layer, and its strength of weight decay.
UNITS, DECAY = 64, 1e-2
#: Masks on which a network is turned into a Fourier sum.
DISTILLED = 3000

Propose = Callable[[Sample, Exam, int], FourierSurrogate]


def trees(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """Boosted trees and the sparse refit of their strongest terms, grown along the hierarchy."""
    proposals, whole, held_out = _by_fold(sample, parts, boosted)
    return {"trees": Proposal(held_out, lambda: whole, optimistic_cv=True), **grown(sample, parts, proposals, whole)}


def linear(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """A sparse linear model on products of components, grown from the single ones."""
    nothing = constant(sample.n, sample.values, sample.keep_probability, sample.weights)
    return grown(sample, parts, [nothing] * len(parts), nothing)


def mlp(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """A shallow network, written as a Fourier sum, and the sparse refit of its strongest terms."""
    proposals, whole, held_out = _by_fold(sample, parts, network)
    return {"mlp": Proposal(held_out, lambda: whole), **grown(sample, parts, proposals, whole)}


def kernel(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """A Gaussian process on masks (see `spectral.kernel`).

    Where evaluations are many, its out-of-fold predictions come from one inverse, the prior being that of all rows. Where they are few, such a prior
    knows too much of what is held out: each fold learns its own, and where many sets stood out two folds do, from the beginning.
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
    surrogate = posterior.surrogate()
    count = len(sample.values)
    if sum(map(len, posterior.prior.spikes)) > FEW_SPIKES and count < MANY:
        held_out = _relearnt(sample, parts[:2], learnt)
    elif count < max(FEW_ROWS, FEW_PER_COMPONENT * sample.n):
        held_out = _relearnt(sample, parts if count < MANY else parts[:2], glanced)
    else:
        rows = _kernel_rows(sample)
        place = np.full(count, -1, dtype=np.intp)
        place[rows] = np.arange(len(rows))
        held_out = np.full(count, np.nan)
        held_out[rows] = posterior.held_out([place[part[place[part] >= 0]] for part in parts])
        unseen = np.flatnonzero(sample.scored & np.isnan(held_out))
        held_out[unseen] = surrogate.predict(sample.masks[unseen])
    return {"kernel": Proposal(held_out, lambda: surrogate)}


def _relearnt(sample: Sample, parts: Sequence[Rows], learn: Callable[[Sample], Posterior]) -> Values:
    """What is predicted for each part's rows by what is learnt from all others; NaN for rows in no part."""
    held_out = np.full(len(sample.values), np.nan)
    for held in parts:
        held_out[held] = learn(sample.without(held)).predict(sample.masks[held])
    return held_out


def _kernel_rows(sample: Sample) -> Rows:
    """The rows that the kernel's matrices have room for: all, or a random part."""
    room = WIDE_ROWS if sample.wide else KERNEL_ROWS
    return np.sort(np.random.default_rng(sample.seed).permutation(len(sample.values))[:room])


def given(surrogate: FourierSurrogate) -> Proxy:
    """The proxy that starts from an estimate, such as that of a model's gradients: scaled to the values, its strongest terms refitted."""

    def proxy(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
        estimate = surrogate.rebased(sample.keep_probability)
        guess = estimate.predict(sample.masks)
        held_out = np.full(len(sample.values), np.nan)
        for held in parts:
            rest = np.delete(np.arange(len(guess)), held)
            slope, level = _line(guess[rest], sample.values[rest], sample.weights_of(rest))
            held_out[held] = level + slope * guess[held]
        slope, level = _line(guess, sample.values, sample.weights)
        shift = FourierSurrogate.from_dict(sample.n, {(): level}).rebased(sample.keep_probability)
        whole = FourierSurrogate.combined([estimate, shift], [slope, 1.0])
        return {"gradient": Proposal(held_out, lambda: whole), **grown(sample, parts, [estimate] * len(parts), estimate)}

    return proxy


@dataclass(frozen=True)
class GradientInformed:
    """A proxy's models, single effects guided by prior estimates, and the same guided effects fitted to what each model leaves unexplained.

    Where evaluations are too few for interactions, guided single effects are all that is offered.
    """

    inner: Proxy
    estimates: Sequence[FourierSurrogate]

    def __call__(self, sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
        """As `Proxy`."""
        known = [estimate.rebased(sample.keep_probability) for estimate in self.estimates]
        offers = self.inner(sample, parts) if sample.allows_interactions else {}
        found = {"gradients": guided_singles(sample, parts, known)}
        for name, offer in offers.items():
            rows = np.flatnonzero(~np.isnan(offer.held_out))
            place = np.full(len(sample.values), -1, dtype=np.intp)
            place[rows] = np.arange(len(rows))
            left = (sample.values - offer.held_out)[rows]
            rest = Sample(sample.masks[rows], left, 1, sample.keep_probability, seed=sample.seed, weights=sample.weights_of(rows))
            more = guided_singles(rest, [place[part[place[part] >= 0]] for part in parts], known)
            held_out = np.full(len(sample.values), np.nan)
            held_out[rows] = offer.held_out[rows] + more.held_out
            found[f"{name} and gradients"] = Proposal(held_out, _sum_of(offer.build, more.build), offer.optimistic_cv)
        return {**offers, **found}


def _sum_of(*builds: Callable[[], FourierSurrogate]) -> Callable[[], FourierSurrogate]:
    return lambda: FourierSurrogate.combined([build() for build in builds], [1.0] * len(builds))


def auto(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """The kernel, and where it leaves something to explain, trees and their refit: the fit takes whichever combination predicts best.

    Very wide samples, where the kernel is slow, get trees alone.
    """
    if sample.wide:
        return trees(sample, parts)
    found = kernel(sample, parts)
    rows = ~np.isnan(found["kernel"].held_out)
    left = weighted_mean((found["kernel"].held_out - sample.values)[rows] ** 2, sample.weights_of(rows))
    return found if left < EXPLAINED * weighted_variance(sample.values, sample.weights) else {**found, **trees(sample, parts)}


#: The proxies by name; `gradient` is made by `given` from what a game knows of itself.
PROXIES: dict[str, Proxy] = {"auto": auto, "trees": trees, "kernel": kernel, "linear": linear, "mlp": mlp}


def boosted(sample: Sample, exam: Exam, seed: int) -> FourierSurrogate:
    """Boosted trees (LightGBM, early stopping on the exam); deeper ones too where they cost little, whichever predicts the exam better."""
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
    """A network with one hidden layer (scikit-learn), written as the sparse sum that reproduces it on masks of the same kind."""
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
    """A proposal from each fold's other rows, their average, and the out-of-fold predictions."""
    held_out = np.full(len(sample.values), np.nan)
    proposals: list[FourierSurrogate] = []
    for number, held in enumerate(parts):
        proposals.append(propose(sample.without(held), sample.exam(held), sample.seed + number))
        held_out[held] = proposals[-1].predict(sample.masks[held])
    return proposals, FourierSurrogate.combined(proposals, [1 / len(proposals)] * len(proposals)), held_out


def _line(guess: Values, values: Values, weights: Values | None) -> tuple[float, float]:
    """Slope and level of the least-squares line through these points, which count by their weights (None: all alike)."""
    spread, middle, level = weighted_variance(guess, weights), weighted_mean(guess, weights), weighted_mean(values, weights)
    slope = float(weighted_mean((guess - middle) * (values - level), weights)) / spread if spread > 0 else 0.0
    return slope, float(level - slope * middle)
