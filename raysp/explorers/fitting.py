"""From evaluations on uniform masks to a Fourier surrogate, every choice made by cross-validation.

Per fold a proxy is trained; its strongest terms, all singles, and terms grown along the hierarchy from the residual go through a LASSO
path. The out-of-fold predictions of each stage (singles alone, candidates, grown candidates, the proxy itself) are then stacked: the
answer is the stack, unless one stage alone, singles first, does as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raysp.explorers.proxies import Proxy
from raysp.game import Masks, Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.regression import Path, extensions, lasso_path, penalties, stack_weights
from raysp.spectral.sets import Floats, Sets, singletons, union

#: Folds of the cross-validation; fewer where evaluations are many, as each fold then leaves enough.
FOLDS_FEW, FOLDS_MANY, MANY = 5, 4, 1500
#: Fewer evaluations than this are fitted by singles alone.
LEAST_FOR_INTERACTIONS = 30
#: Terms of the proxy that become candidates, terms kept from a fit as parents, and terms added, in one growth step.
CANDIDATES, PARENTS, GROWN = 400, 250, 300
#: Growth steps tried at most.
STEPS = 3
#: Share of the singles' error by which a richer stage must do better to be preferred over it.
MARGIN = 0.005


@dataclass(frozen=True)
class Fit:
    """A fitted surrogate; `r2` and `r2_singles` are out-of-fold, `weights` says which stages it is made of."""

    surrogate: FourierSurrogate
    r2: float
    r2_singles: float
    weights: dict[str, float] = field(default_factory=dict)


@dataclass
class _Stage:
    """One stage over the folds: squared errors and predictions by penalty, filled in fold by fold."""

    predictions: Floats
    point: int = 0

    def choose(self, values: Values) -> Floats:
        """Settle on the penalty with the least out-of-fold error; its predictions."""
        self.point = int(np.argmin(np.mean((self.predictions - values[:, None]) ** 2, axis=0)))
        return self.predictions[:, self.point]


def fit_singles(masks: Masks, values: Values, random_state: int = 0) -> FourierSurrogate:
    """The LASSO on single components, its penalty cross-validated: the baseline that interactions have to beat.

    Masks bool `(m, n)` drawn uniformly, values `(m,)`.
    """
    if len(values) < 2 or not np.ptp(values) > 0:
        return constant(masks.shape[1], values)
    return _settle(_singles_stage(masks, values, folds(len(values), random_state)), masks, values)


def fit_proxy(masks: Masks, values: Values, proxy: Proxy, max_order: int, random_state: int = 0) -> Fit:
    """The surrogate that predicts best out of fold, of terms up to `max_order`. Deterministic in `random_state`."""
    if len(values) < 2 or not np.ptp(values) > 0:
        return Fit(constant(masks.shape[1], values), float("nan"), float("nan"))
    parts = folds(len(values), random_state)
    singles = _singles_stage(masks, values, parts)
    if max_order < 2 or len(values) < LEAST_FOR_INTERACTIONS or masks.shape[1] < 2:
        surrogate = _settle(singles, masks, values)
        r2 = _r2(values, singles.choose(values))
        return Fit(surrogate, r2, r2, {"singles": 1.0})
    return _fit_stages(masks, values, parts, singles, proxy, max_order, random_state)


def _fit_stages(
    masks: Masks, values: Values, parts: Sequence[NDArray[np.intp]], singles: _Stage, proxy: Proxy, max_order: int, seed: int
) -> Fit:
    grid = penalties(masks, values)
    proposals: list[FourierSurrogate] = []
    steps = [_Stage(np.zeros((len(values), len(grid)))) for _ in range(STEPS + 1)]
    trees = _Stage(np.zeros((len(values), 1)))
    for number, held in enumerate(parts):
        kept = np.setdiff1d(np.arange(len(values)), held)
        fold = (masks[kept], values[kept], masks[held], values[held])
        proposal = proxy(fold[0], fold[1], fold[2:], max_order, seed + number)
        proposals.append(proposal)
        trees.predictions[held, 0] = proposal.predict(fold[2])
        for step, path in enumerate(_grow(proposal, fold[0], fold[1], grid, max_order, fold[2:], None)):
            steps[step].predictions[held] = path.predict(fold[2])
    stages = {"singles": singles, **{f"grown {step}" if step else "candidates": stage for step, stage in enumerate(steps)}, "proxy": trees}
    weights, r2 = _weigh(stages, values)
    points = [steps[step].point for step in range(STEPS + 1)]
    average = FourierSurrogate.combined(proposals, [1 / len(proposals)] * len(proposals))
    wanted = [step for step in range(STEPS + 1) if weights.get(f"grown {step}" if step else "candidates")]
    fitted: dict[str, FourierSurrogate] = {"proxy": average}
    if "singles" in weights:
        fitted["singles"] = _settle(singles, masks, values)
    if wanted:
        paths = _grow(average, masks, values, grid, max_order, None, points[: max(wanted) + 1])
        fitted |= {f"grown {step}" if step else "candidates": paths[step].at(points[step]) for step in wanted}
    surrogate = FourierSurrogate.combined([fitted[name] for name in weights], list(weights.values()))
    penalty = sum(weights.get(f"grown {step}" if step else "candidates", 0.0) * float(grid[points[step]]) for step in wanted)
    return Fit(_with_error(surrogate, values, r2, penalty), r2, _r2(values, singles.choose(values)), weights)


def _grow(
    proposal: FourierSurrogate, masks: Masks, values: Values, grid: Floats, max_order: int, held_out: tuple[Masks, Values] | None, points: Sequence[int] | None
) -> list[Path]:
    """LASSO paths on the proposal's strongest terms, then on terms grown from each fit's residual, step by step.

    The fit whose residual is grown from is the one at the given point of each step, or the best on the held-out part.
    """
    sets = union(proposal.strongest(CANDIDATES).sets, singletons(masks.shape[1]))
    sets = sets.take(sets.orders <= max_order)
    paths: list[Path] = []
    for step in range(STEPS + 1 if points is None else len(points)):
        path = lasso_path(sets, masks, values, grid)
        paths.append(path)
        if step == STEPS:
            break
        if points is None:
            assert held_out is not None
            point = int(np.argmin(np.mean((path.predict(held_out[0]) - held_out[1][:, None]) ** 2, axis=0)))
        else:
            point = points[step]
        sets = _grown(path, point, masks, values, max_order)
    return paths


def _grown(path: Path, point: int, masks: Masks, values: Values, max_order: int) -> Sets:
    """The terms that a fit uses, and those that extend them by one component and correlate most with its residual."""
    chosen = path.coefficients[:, point]
    residual = values - path.predict(masks)[:, point]
    strength = np.where(path.sets.orders <= 1, np.inf, np.abs(chosen))
    keep = np.sort(np.argsort(-strength, kind="stable")[: PARENTS + masks.shape[1] + 1])
    parents = path.sets.take(keep[strength[keep] > 0])
    return union(parents, extensions(parents, residual, masks, max_order, GROWN))


def _weigh(stages: dict[str, _Stage], values: Values) -> tuple[dict[str, float], float]:
    """Weights of the stages that the answer is made of, and its out-of-fold R².

    Singles stay alone unless the stack does better by a margin, as the stack had more to choose from.
    """
    columns = np.stack([stage.choose(values) for stage in stages.values()], axis=1)
    errors = np.mean((columns - values[:, None]) ** 2, axis=0)
    weights = stack_weights(columns, values)
    weights = np.where(weights < 0.02, 0.0, weights)
    weights /= weights.sum()
    stacked = float(np.mean((columns @ weights - values) ** 2))
    if stacked > errors[0] * (1 - MARGIN):
        weights = np.eye(len(weights))[0]
    chosen = {name: float(weight) for name, weight in zip(stages, weights, strict=True) if weight > 0}
    return chosen, _r2(values, columns @ weights)


def _singles_stage(masks: Masks, values: Values, parts: Sequence[NDArray[np.intp]]) -> _Stage:
    grid = penalties(masks, values)
    stage = _Stage(np.zeros((len(values), len(grid))))
    for held in parts:
        kept = np.setdiff1d(np.arange(len(values)), held)
        stage.predictions[held] = lasso_path(singletons(masks.shape[1]), masks[kept], values[kept], grid).predict(masks[held])
    return stage


def _settle(stage: _Stage, masks: Masks, values: Values) -> FourierSurrogate:
    """The singles fitted on everything at the penalty chosen, every one of them kept so that each has an interval."""
    r2 = _r2(values, stage.choose(values))
    grid = penalties(masks, values)
    path = lasso_path(singletons(masks.shape[1]), masks, values, grid[: stage.point + 1])
    surrogate = FourierSurrogate(path.sets, path.coefficients[:, stage.point])
    return _with_error(surrogate, values, r2, float(grid[stage.point]))


def _with_error(surrogate: FourierSurrogate, values: Values, r2: float, penalty: float) -> FourierSurrogate:
    """With standard errors: on uniform masks a coefficient has variance (what is unexplained) / m, and the penalty may shrink it by its size."""
    unexplained = float(np.var(values)) * max(1.0 - r2, 0.0)
    error = np.sqrt(unexplained / len(values) + penalty**2 / 4)
    return surrogate.with_error(np.full(len(surrogate), error))


def constant(n: int, values: Values) -> FourierSurrogate:
    """The mean of the values, for games that do not change and samples too small to say how."""
    return FourierSurrogate(singletons(n).take(np.array([0])), np.array([values.mean() if len(values) else 0.0]))


def folds(m: int, random_state: int) -> list[NDArray[np.intp]]:
    """The held-out rows of each fold, at random."""
    order = np.random.default_rng(random_state).permutation(m)
    return [np.sort(part) for part in np.array_split(order, min(m, FOLDS_MANY if m >= MANY else FOLDS_FEW))]


def _r2(values: Values, predicted: Values) -> float:
    return 1.0 - float(np.mean((values - predicted) ** 2)) / float(np.var(values))
