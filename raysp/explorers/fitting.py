"""From evaluations on uniform masks to a Fourier surrogate, every choice made by cross-validation.

Per fold a proxy is trained; its strongest terms, all singles, and terms grown along the hierarchy from the residual go through a LASSO
path. The out-of-fold predictions of each stage (singles alone, candidates, grown candidates, the proxy itself) are then stacked: the
answer is the stack, unless one stage alone, singles first, does as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from raysp.explorers.base import r_squared
from raysp.explorers.proxies import Proxy
from raysp.game import Masks, Values
from raysp.spectral.fourier import Z95, FourierSurrogate
from raysp.spectral.regression import Path, correlations, extensions, lasso_path, penalties, stack_weights
from raysp.spectral.sets import Floats, Sets, singletons, union

#: Folds of the cross-validation; fewer where evaluations are many, as each fold then leaves enough.
FOLDS_FEW, FOLDS_MANY, MANY = 5, 4, 1500
#: Fewer evaluations than this are fitted by singles alone.
LEAST_FOR_INTERACTIONS = 30
#: Terms of the proxy that become candidates, terms kept from a fit as parents, and terms added, in one growth step.
CANDIDATES, PARENTS, GROWN = 400, 250, 300
#: Growth steps tried at most, and the share by which one must lower the out-of-fold error for another to be tried.
STEPS, PROGRESS = 8, 0.03
#: Rows, learning rate and rounds of the quick estimate of R².
QUICK_LEAST, QUICK_RATE, QUICK_ROUNDS = 40, 0.2, 60
#: Standard errors by which the stack must predict better than singles alone to be preferred to them.
MARGIN = 2.0


#: Stages that weigh less than this in the stack are left out of it.
LEAST_WEIGHT = 0.02

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Fit:
    """A fitted surrogate; `r2` and `r2_singles` are out-of-fold, `weights` says which stages it is made of."""

    surrogate: FourierSurrogate
    r2: float
    r2_singles: float
    weights: dict[str, float] = field(default_factory=dict)


@dataclass
class _Stage:
    """One stage over the folds: out-of-fold predictions `(m, points)` by penalty, filled in fold by fold, and the penalty chosen."""

    predictions: Floats
    point: int = 0

    def choose(self, values: Values) -> Values:
        """Settle on the penalty with the least out-of-fold error; its predictions `(m,)`."""
        self.point = int(np.argmin(np.mean((self.predictions - values[:, None]) ** 2, axis=0)))
        return self.predictions[:, self.point]


@dataclass(frozen=True)
class _Sample:
    """Evaluations to fit, with the penalties and the largest order that all fits of them share."""

    masks: Masks
    values: Values
    grid: Floats
    max_order: int = 1

    @property
    def n(self) -> int:
        return self.masks.shape[1]

    def without(self, held: Rows) -> _Sample:
        """The evaluations of the other folds."""
        return replace(self, masks=np.delete(self.masks, held, axis=0), values=np.delete(self.values, held))

    def stage(self, points: int | None = None) -> _Stage:
        return _Stage(np.zeros((len(self.values), len(self.grid) if points is None else points)))


def fit_singles(masks: Masks, values: Values, random_state: int = 0) -> FourierSurrogate:
    """The LASSO on single components, its penalty cross-validated: the baseline that interactions have to beat.

    Masks bool `(m, n)` drawn uniformly, values `(m,)`.
    """
    if len(values) < 2 or not np.ptp(values) > 0:
        return constant(masks.shape[1], values)
    sample = _Sample(masks, values, penalties(values))
    return _settle(sample, _singles_stage(sample, folds(len(values), random_state)))


def fit_proxy(masks: Masks, values: Values, proxy: Proxy, max_order: int, random_state: int = 0) -> Fit:
    """The surrogate that predicts best out of fold, of terms up to `max_order`. Deterministic in `random_state`."""
    if len(values) < 2 or not np.ptp(values) > 0:
        return Fit(constant(masks.shape[1], values), float("nan"), float("nan"))
    sample = _Sample(masks, values, penalties(values), max_order)
    parts = folds(len(values), random_state)
    singles = _singles_stage(sample, parts)
    if max_order < 2 or len(values) < LEAST_FOR_INTERACTIONS or sample.n < 2:
        r2 = r_squared(values, singles.choose(values))
        return Fit(_settle(sample, singles), r2, r2, {"singles": 1.0})
    return _fit_stages(sample, parts, singles, proxy, random_state)


def quick_r2(masks: Masks, values: Values, random_state: int = 0) -> float | None:
    """Held-out R² of a small booster on a ridge regression, on four fifths and one fifth; None for fewer than 40 rows or values that do not vary."""
    from raysp.spectral.trees import train_booster

    near = (~masks).sum(axis=1) <= 1
    masks, values = masks[~near], values[~near]
    if len(values) < QUICK_LEAST:
        return None
    held = folds(len(values), random_state, FOLDS_FEW)[0]
    kept = np.delete(np.arange(len(values)), held)
    if not (np.ptp(values[held]) > 0 and np.ptp(values[kept]) > 0):
        return None
    signs, mean = 1.0 - 2.0 * masks, values[kept].mean()
    system = signs[kept].T @ signs[kept] + np.sqrt(len(kept)) * np.eye(masks.shape[1])
    linear = signs @ np.linalg.solve(system, signs[kept].T @ (values[kept] - mean)) + mean
    rest = values - linear
    booster, rounds = train_booster(masks[kept], rest[kept], (masks[held], rest[held]), rate=QUICK_RATE, rounds=QUICK_ROUNDS, seed=random_state)
    predicted = linear[held] + booster.predict(masks[held].astype(np.float32), num_iteration=rounds)
    return r_squared(values[held], predicted)


def _fit_stages(sample: _Sample, parts: Sequence[Rows], singles: _Stage, proxy: Proxy, seed: int) -> Fit:
    """Every stage cross-validated, weighed, and those that count fitted on everything."""
    values = sample.values
    proposed = sample.stage(1)
    proposals: list[FourierSurrogate] = []
    for number, held in enumerate(parts):
        rest, exam = sample.without(held), (sample.masks[held], values[held])
        proposals.append(proxy(rest.masks, rest.values, exam, sample.max_order, seed + number))
        proposed.predictions[held, 0] = proposals[-1].predict(exam[0])
    steps = _growth_stages(sample, parts, proposals)
    names = ["candidates", *(f"grown {step}" for step in range(1, len(steps)))]
    weights, r2 = _weigh({"singles": singles, **dict(zip(names, steps, strict=True)), "proxy": proposed}, values)
    fitted = {"proxy": FourierSurrogate.combined(proposals, [1 / len(proposals)] * len(proposals))}
    if "singles" in weights:
        fitted["singles"] = _settle(sample, singles)
    last = max((step for step, name in enumerate(names) if name in weights), default=-1)
    points = [stage.point for stage in steps[: last + 1]]
    fitted |= dict(zip(names, _grow(sample, fitted["proxy"], points), strict=False))
    surrogate = FourierSurrogate.combined([fitted[name] for name in weights], list(weights.values()))
    return Fit(_with_error(surrogate, sample, r2), r2, r_squared(values, singles.choose(values)), weights)


def _grow(sample: _Sample, proposal: FourierSurrogate, points: Sequence[int]) -> list[FourierSurrogate]:
    """The fit of every growth step at the penalties chosen for each."""
    fits: list[FourierSurrogate] = []
    sets = _first_sets(proposal, sample.max_order)
    for step, point in enumerate(points):
        path = lasso_path(sets, sample.masks, sample.values, sample.grid[: point + 1])
        fits.append(path.at(point))
        if step + 1 < len(points):
            sets = _grown_sets(sample, path, point)
    return fits


def _growth_stages(sample: _Sample, parts: Sequence[Rows], proposals: Sequence[FourierSurrogate]) -> list[_Stage]:
    """The candidates, and every growth step until one gains too little, over the folds.

    In each fold a step grows from the fit that does best on the fold's own held-out part. That choice, one number a step, is the only use made of
    its values, apart from where the proxy stopped.
    """
    stages: list[_Stage] = []
    sets = [_first_sets(proposal, sample.max_order) for proposal in proposals]
    best = np.inf
    for step in range(STEPS + 1):
        stages.append(sample.stage())
        for number, held in enumerate(parts):
            rest, exam = sample.without(held), (sample.masks[held], sample.values[held])
            path = lasso_path(sets[number], rest.masks, rest.values, sample.grid, exam)
            predicted = path.predict(exam[0])
            stages[-1].predictions[held] = predicted
            if step < STEPS:
                sets[number] = _grown_sets(rest, path, int(np.argmin(np.mean((predicted - exam[1][:, None]) ** 2, axis=0))))
        error = float(np.mean((stages[-1].choose(sample.values) - sample.values) ** 2))
        if step and error > best * (1 - PROGRESS):
            break
        best = min(best, error)
    return stages


def _first_sets(proposal: FourierSurrogate, max_order: int) -> Sets:
    """The proposal's strongest terms and all singles."""
    sets = union(proposal.strongest(CANDIDATES).sets, singletons(proposal.n))
    return sets.take(sets.orders <= max_order)


def _grown_sets(sample: _Sample, path: Path, point: int) -> Sets:
    """The terms that a fit uses, all singles, and the extensions of these by one component that correlate most with the residual."""
    fit = path.at(point)
    parents = union(fit.strongest(PARENTS).sets, singletons(sample.n))
    residual = sample.values - fit.predict(sample.masks)
    return union(parents, extensions(parents, residual, sample.masks, sample.max_order, GROWN))


def _weigh(stages: dict[str, _Stage], values: Values) -> tuple[dict[str, float], float]:
    """Weights of the stages that the answer is made of, and its out-of-fold R².

    Singles stay alone unless the stack does better by more than chance would have it: it had more to choose from.
    """
    columns = np.stack([stage.choose(values) for stage in stages.values()], axis=1)
    weights = stack_weights(columns, values)
    weights = np.where(weights < LEAST_WEIGHT, 0.0, weights)
    weights /= weights.sum()
    gains = (columns[:, 0] - values) ** 2 - (columns @ weights - values) ** 2
    if gains.mean() <= MARGIN * gains.std() / np.sqrt(len(gains)):
        weights = np.eye(len(weights))[0]
    chosen = {name: float(weight) for name, weight in zip(stages, weights, strict=True) if weight > 0}
    return chosen, r_squared(values, columns @ weights)


def _singles_stage(sample: _Sample, parts: Sequence[Rows]) -> _Stage:
    stage = sample.stage()
    for held in parts:
        rest = sample.without(held)
        stage.predictions[held] = lasso_path(singletons(sample.n), rest.masks, rest.values, sample.grid).predict(sample.masks[held])
    return stage


def _settle(sample: _Sample, singles: _Stage) -> FourierSurrogate:
    """The singles fitted on everything at the penalty chosen; those that are zero stay, so that each has an interval."""
    r2 = r_squared(sample.values, singles.choose(sample.values))
    path = lasso_path(singletons(sample.n), sample.masks, sample.values, sample.grid[: singles.point + 1])
    surrogate = FourierSurrogate(path.sets, path.coefficients[:, singles.point])
    return _with_error(surrogate, sample, r2)


def _with_error(surrogate: FourierSurrogate, sample: _Sample, r2: float) -> FourierSurrogate:
    """With standard errors.

    On uniform masks a coefficient has variance (what is unexplained out of fold) / m. To this is added the shrinkage that is still in it, as
    the correlation of the residual with its parity shows (the one-step correction of a debiased LASSO).
    """
    values, count = sample.values, len(sample.values)
    noise = np.sqrt(float(np.var(values)) * max(1.0 - r2, 0.0) / count)
    shrunk = np.abs(correlations(surrogate.sets, sample.masks, values - surrogate.predict(sample.masks)))
    return surrogate.with_error(noise + shrunk / Z95)


def constant(n: int, values: Values) -> FourierSurrogate:
    """The mean of the values, for games that do not change and samples too small to say how."""
    return FourierSurrogate(singletons(n).take(np.array([0])), np.array([values.mean() if len(values) else 0.0]))


def folds(m: int, random_state: int, count: int | None = None) -> list[Rows]:
    """The held-out rows of each fold, at random."""
    order = np.random.default_rng(random_state).permutation(m)
    wanted = count or (FOLDS_MANY if m >= MANY else FOLDS_FEW)
    return [np.sort(part) for part in np.array_split(order, min(m, wanted))]
