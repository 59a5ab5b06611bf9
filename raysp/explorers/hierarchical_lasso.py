"""A LASSO on proposed terms, grown along the hierarchy from its residual: the refit that follows a proxy.

Per fold the proposal's strongest terms and all singles go through a LASSO path; the terms kept, and those of their extensions by one component that
correlate most with the residual, go through the next, as long as the out-of-fold error falls.
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

#: Terms of the proxy that become candidates, terms kept from a fit as parents, and terms added, in one growth step.
CANDIDATES, PARENTS, GROWN = 400, 250, 300
#: Growth steps tried at most, and the share by which one must lower the out-of-fold error for another to be tried.
STEPS, PROGRESS = 8, 0.03
#: Entries of a design (rows times terms) above which terms are fewer, so that a fit stays a matter of seconds.
MOST_ENTRIES = 3_000_000
#: Single components that go into every fit, at most.
MOST_SINGLES = 300


@dataclass
class _Stage:
    """One LASSO over the folds: out-of-fold predictions `(m, points)` by penalty, filled in fold by fold, and the penalty chosen."""

    predictions: Floats
    point: int = 0

    def choose(self, sample: Sample) -> Values:
        """Settle on the penalty with the least out-of-fold error; its predictions `(m,)`."""
        rows = sample.scored
        self.point = int(np.argmin(sample.exam(np.flatnonzero(rows)).error(self.predictions[rows])))
        return self.predictions[:, self.point]


def singles(sample: Sample, parts: Sequence[Rows]) -> Proposal:
    """The LASSO on single components, its penalty cross-validated. Those that are zero stay, so that each has an interval."""
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
    """The refit of each fold's proposal, and every growth step until one gains too little; `whole` is the proposal for the fit on everything.

    In each fold a step grows from the fit that does best on the fold's own held-out part. That choice, one number a step, is the only use made of
    its values, apart from where the proxy stopped.
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
    """The growth repeated on everything, at the penalties chosen for each step."""
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
    """The single components that go into every fit: all, or those that correlate most with the values."""
    every = singletons(sample.n)
    if sample.n <= MOST_SINGLES:
        return every
    away = sample.values - weighted_mean(sample.values, sample.weights)
    strength = np.abs(correlations(every, sample.masks, away, sample.keep_probability, sample.weights))
    strength[0] = np.inf
    return every.take(np.sort(np.argsort(-strength, kind="stable")[: MOST_SINGLES + 1]))


def _room(sample: Sample, wanted: int) -> int:
    """As many of the terms wanted as keep a design within bounds."""
    return min(wanted, max(MOST_ENTRIES // max(len(sample.values), 1) - min(sample.n, MOST_SINGLES), wanted // 8))


def _first_sets(proposal: FourierSurrogate, sample: Sample) -> Sets:
    """The proposal's strongest terms and all singles."""
    sets = union(proposal.strongest(_room(sample, CANDIDATES), always=0).sets, _alone(sample))
    return sets.take(sets.orders <= sample.max_order)


def _grown_sets(sample: Sample, path: Path, point: int) -> Sets:
    """The terms that a fit uses, all singles, and the extensions of these by one component that correlate most with the residual."""
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
