"""Refit of a proxy's terms by a LASSO whose candidate terms are grown along the hierarchy.

In each fold, a LASSO path is fitted to the strongest terms of the proposal and all single components. The selected terms, together with the extensions
of them by one component that correlate most with the residual, are the candidates of the next path, as long as the out-of-fold error decreases.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from raysp.explorers.samples import Proposal, Rows, Sample
from raysp.masks import Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.regression import Exam, Path, correlations, extensions, lasso_path, weighted_mean
from raysp.spectral.sets import Floats, Sets, singletons, union

#: Number of proxy terms used as candidates, of terms kept as parents in a growth step, and of terms added in a growth step.
CANDIDATES, PARENTS, GROWN = 400, 250, 300
#: Maximum number of growth steps, and the relative decrease of the out-of-fold error required to try another one.
STEPS, PROGRESS = 8, 0.03
#: Entries of a design (rows times terms) above which the number of terms is reduced, so that a fit takes only seconds.
MOST_ENTRIES = 3_000_000
#: Maximum number of single components in every fit.
MOST_SINGLES = 300


@dataclass
class _Stage:
    """One cross-validated LASSO: out-of-fold predictions `(m, points)` by penalty, filled in fold by fold, and the index of the chosen penalty."""

    predictions: Floats
    point: int = 0

    def choose(self, sample: Sample) -> Values:
        """Choose the penalty with the smallest out-of-fold error and return its predictions `(m,)`."""
        rows = sample.scored
        self.point = int(np.argmin(sample.exam(np.flatnonzero(rows)).error(self.predictions[rows])))
        return self.predictions[:, self.point]


def singles(sample: Sample, parts: Sequence[Rows]) -> Proposal:
    """Fit a LASSO on single components with a cross-validated penalty. Zero coefficients are kept, so that every component has an interval."""
    stage, grid = _stage(sample), sample.penalties
    for held in parts:
        rest = sample.without(held)
        stage.predictions[held] = _path(singletons(sample.n), rest, grid).predict(sample.masks[held])
    held_out = stage.choose(sample)

    def build() -> FourierSurrogate:
        path = _path(singletons(sample.n), sample, grid[: stage.point + 1])
        return FourierSurrogate(path.sets, path.coefficients[:, stage.point], keep_probability=sample.keep_probability)

    return Proposal(held_out, build, additive=True)


def grown(sample: Sample, parts: Sequence[Rows], proposals: Sequence[FourierSurrogate], whole: FourierSurrogate) -> dict[str, Proposal]:
    """Refit the proposal of each fold and grow it until a step gains too little; `whole` is the proposal for the fit to all rows.

    In each fold, a step grows from the fit that predicts the held-out part of that fold best. This choice of one number per step, and the early stopping
    of the proxy, are the only uses of the held-out values.
    """
    grid = sample.penalties
    stages: list[_Stage] = []
    found: dict[str, Proposal] = {}
    sets = [_first_sets(proposal, sample) for proposal in proposals]
    best = np.inf
    for step in range(STEPS + 1):
        stages.append(_stage(sample))
        for number, held in enumerate(parts):
            rest, exam = sample.without(held), sample.exam(held)
            path = _path(sets[number], rest, grid, exam)
            predicted = path.predict(exam.masks)
            stages[-1].predictions[held] = predicted
            if step < STEPS:
                sets[number] = _grown_sets(rest, path, int(np.argmin(exam.error(predicted))))
        held_out = stages[-1].choose(sample)
        found[f"grown {step}" if step else "refit"] = Proposal(held_out, partial(_grow, sample, whole, [stage.point for stage in stages]), optimistic_cv=True)
        error = float(sample.exam(np.flatnonzero(sample.scored)).error(held_out[sample.scored, None])[0])
        if step and error > best * (1 - PROGRESS):
            break
        best = min(best, error)
    return found


def _grow(sample: Sample, whole: FourierSurrogate, points: Sequence[int]) -> FourierSurrogate:
    """Repeat the growth on all rows, with the penalties chosen for each step."""
    sets, grid = _first_sets(whole, sample), sample.penalties
    path = _path(sets, sample, grid[: points[0] + 1])
    for before, point in itertools.pairwise(points):
        sets = _grown_sets(sample, path, before)
        path = _path(sets, sample, grid[: point + 1])
    return path.at(points[-1])


def _stage(sample: Sample) -> _Stage:
    return _Stage(np.full((len(sample.values), len(sample.penalties)), np.nan))


def _path(sets: Sets, sample: Sample, grid: Floats, exam: Exam | None = None) -> Path:
    return lasso_path(sets, sample.masks, sample.values, grid, exam, keep_probability=sample.keep_probability, weights=sample.weights)


def _alone(sample: Sample) -> Sets:
    """The single components included in every fit: all of them, or those that correlate most with the values."""
    every = singletons(sample.n)
    if sample.n <= MOST_SINGLES:
        return every
    away = sample.values - weighted_mean(sample.values, sample.weights)
    strength = np.abs(correlations(every, sample.masks, away, sample.keep_probability, sample.weights))
    strength[0] = np.inf
    return every.take(np.sort(np.argsort(-strength, kind="stable")[: MOST_SINGLES + 1]))


def _room(sample: Sample, wanted: int) -> int:
    """The number of terms, at most `wanted`, that keeps the design within `MOST_ENTRIES`."""
    return min(wanted, max(MOST_ENTRIES // max(len(sample.values), 1) - min(sample.n, MOST_SINGLES), wanted // 8))


def _first_sets(proposal: FourierSurrogate, sample: Sample) -> Sets:
    """The strongest terms of the proposal and the single components."""
    sets = union(proposal.strongest(_room(sample, CANDIDATES), always=0).sets, _alone(sample))
    return sets.take(sets.orders <= sample.max_order)


def _grown_sets(sample: Sample, path: Path, point: int) -> Sets:
    """The terms used by a fit, the single components, and the extensions of both by one component that correlate most with the residual."""
    fit = path.at(point)
    parents = union(fit.strongest(_room(sample, PARENTS), always=0).sets, _alone(sample))
    residual = sample.values - fit.predict(sample.masks)
    return union(
        parents,
        extensions(
            union(parents, singletons(sample.n)),
            residual,
            sample.masks,
            sample.max_order,
            _room(sample, GROWN),
            keep_probability=sample.keep_probability,
            weights=sample.weights,
        ),
    )
