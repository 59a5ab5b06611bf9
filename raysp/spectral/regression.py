"""Sparse regression on parities: LASSO paths on a shared grid, terms grown along the hierarchy, and stacking.

Under the masks' own P(keep) the characters φ_S (parities, at one half) are uncorrelated with unit variance, so what a model leaves out acts as
noise on what it holds, and the correlation of a residual with a character is that term's missing coefficient.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.spectral.fourier import CHUNK, Z95, FourierSurrogate
from raysp.spectral.sets import Block, Floats, Sets, characters, features, merge, parities, positions, products

#: Points of a LASSO path, and the ratio of its smallest penalty to the one that leaves nothing.
PATH_POINTS = 30
PATH_RATIO = 1e-3
#: Coordinate-descent sweeps at most for a point of a path; the next point starts where it stopped.
PATH_SWEEPS = 100
PATH_TOLERANCE = 1e-4
#: Columns of a design up to which the products of all pairs of them are kept (128 MiB).
MOST_PRODUCTS = 4096
#: Entries of an array of scores of extensions at most.
MOST_SCORES = 1 << 24
#: Points fitted between two looks at the exam, and the rise of the error there that ends a path.
PATH_STRIDE, PATH_TURN = 5, 1.02


@dataclass(frozen=True, slots=True)
class Exam:
    """Held-out masks (bool `(m, n)`) and values (`(m,)`) that a fit is scored on, with weights (`(m,)`, None where all are alike)."""

    masks: Masks
    values: Values
    weights: Values | None = None

    def error(self, predicted: Floats) -> Floats:
        """Mean squared error of predictions `(m, points)`, `(points,)`."""
        return weighted_mean((predicted - self.values[:, None]) ** 2, self.weights)


@dataclass(frozen=True, slots=True)
class Path:
    """LASSO fits for falling penalties: `coefficients` float64 `(len(sets), points)`, order 0 being the unpenalised mean."""

    sets: Sets
    coefficients: Floats
    keep_probability: float = 0.5

    def predict(self, masks: Masks) -> Floats:
        """Values float64 `(m, points)`."""
        return characters(self.sets, masks, self.keep_probability) @ self.coefficients

    def at(self, point: int) -> FourierSurrogate:
        """The fit at one penalty, terms that are zero left out (the mean stays)."""
        chosen = self.coefficients[:, point]
        return FourierSurrogate(self.sets, chosen, keep_probability=self.keep_probability).take((chosen != 0) | (self.sets.orders == 0))


def weighted_mean(values: Floats, weights: Values | None) -> Any:
    """The mean over the rows of `(m,)` or `(m, c)`, each with its weight (`(m,)`; None: all alike)."""
    return values.mean(axis=0) if weights is None else weights @ values / weights.sum()


def weighted_variance(values: Values, weights: Values | None) -> float:
    """The variance of values (`(m,)`) around their weighted mean, rows counting by their weights (`(m,)`; None: all alike)."""
    return float(np.var(values)) if weights is None else float(weighted_mean((values - weighted_mean(values, weights)) ** 2, weights))


def by_weight(values: Values, weights: Values | None) -> Values:
    """The values (`(m,)`) times their weights, which are one on average (None: all alike)."""
    return values if weights is None else values * (weights / weights.mean())


def effective_rows(count: int, weights: Values | None) -> float:
    """The number of equally weighted rows that hold as much information as `count` weighted ones (Kish): (sum w)² / sum w²."""
    return float(count) if weights is None else float(weights.sum() ** 2 / (weights @ weights))


def penalties(values: Values, weights: Values | None = None) -> Floats:
    """A grid of penalties for these values (`(m,)`), float64 `(points,)`, falling from where nothing is left; folds share it."""
    return float(np.sqrt(weighted_variance(values, weights))) * np.geomspace(1.0, PATH_RATIO, PATH_POINTS)


def lasso_path(
    sets: Sets, masks: Masks, values: Values, grid: Floats, exam: Exam | None = None, *, keep_probability: float = 0.5, weights: Values | None = None
) -> Path:
    """LASSO on the characters of `sets` (which must hold the empty set) at every penalty of a falling grid.

    A row of weight w (`(m,)`; None: all alike) counts as w rows would. With an exam the path ends where its error there has clearly turned up; the points
    beyond repeat the last: they would be the slowest to fit, and none of them would be chosen.
    """
    design = characters(sets, masks, keep_probability)[:, 1:]
    centre, mean = weighted_mean(design, weights), float(weighted_mean(values, weights))
    design -= centre
    rest = values - mean
    if weights is not None:
        root = np.sqrt(weights / weights.mean())
        design *= root[:, None]
        rest = rest * root
    found = np.zeros((len(sets), len(grid)))
    found[0] = mean
    if not design.shape[1]:
        return Path(sets, found, keep_probability)
    # Products of all pairs of columns make a sweep fast; with very many columns they take more room than the design.
    products: tuple[Floats, Floats] | None = (design.T @ design, design.T @ rest) if design.shape[1] <= MOST_PRODUCTS else None
    held = None if exam is None else (characters(sets, exam.masks, keep_probability)[:, 1:] - centre, replace(exam, values=exam.values - mean))
    best, start = np.inf, np.zeros(design.shape[1])
    for first in range(0, len(grid), PATH_STRIDE):
        part = slice(first, first + PATH_STRIDE)
        fitted = _descend(design, rest, products, grid[part], start)
        found[1:, part], start = fitted, fitted[:, -1]
        if held is not None:
            error = float(np.min(held[1].error(held[0] @ fitted)))
            if error > best * PATH_TURN:
                found[1:, part.stop :] = start[:, None]
                break
            best = min(best, error)
    found[0] -= centre @ found[1:]
    return Path(sets, found, keep_probability)


def _descend(design: Floats, values: Values, products: tuple[Floats, Floats] | None, grid: Floats, start: Floats) -> Floats:
    """Coordinate descent from `start` down a piece of the grid: coefficients float64 `(terms, points)`.

    `products` are those of the columns with each other and with the values, where they are at hand.
    """
    from sklearn import linear_model

    fit: Any = linear_model.lasso_path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a point that has not converged is judged by cross-validation like any other
        gram, target = products or (False, None)
        _, path, _ = fit(design, values, alphas=grid, precompute=gram, Xy=target, coef_init=start.copy(), max_iter=PATH_SWEEPS, tol=PATH_TOLERANCE)
    return np.asarray(path, dtype=np.float64)


def ridge(design: Floats, values: Values, penalty: float) -> Values:
    """Coefficients `(terms,)` that minimise ||y - X b||² + penalty ||b||², by whichever of the two square matrices is smaller."""
    rows, terms = design.shape
    if terms <= rows:
        return np.asarray(np.linalg.solve(design.T @ design + penalty * np.eye(terms), design.T @ values), dtype=np.float64)
    return np.asarray(design.T @ np.linalg.solve(design @ design.T + penalty * np.eye(rows), values), dtype=np.float64)


def correlations(sets: Sets, masks: Masks, residual: Values, keep_probability: float = 0.5, weights: Values | None = None) -> Floats:
    """The mean of residual · φ_S over the masks for every set, float64 `(len(sets),)`; rows count by their weights (`(m,)`; None: all alike)."""
    residual = by_weight(residual, weights)
    result = np.zeros(len(sets))
    step = max(CHUNK // max(len(masks), 1), 1)
    for start in range(0, len(sets), step):
        rows = np.arange(start, min(start + step, len(sets)))
        some = sets.take(rows)
        if keep_probability == 0.5:
            result[rows] = residual.mean() - 2.0 * (parities(some, masks) @ residual) / len(masks)
        else:
            result[rows] = residual @ characters(some, masks, keep_probability) / len(masks)
    return result


def standard_errors(coefficients: Floats, shrunk: Floats, unexplained: float, count: float) -> Floats:
    """Standard errors, float64 `(terms,)`, of coefficients fitted to `count` random masks that leave a variance `unexplained` out of fold.

    A coefficient has variance (what is unexplained) / count; random columns not being quite orthogonal, each term estimated costs the others a degree
    of freedom. To this is added the shrinkage that is still in it, as the correlation `shrunk` of the residual with its character shows (the
    one-step correction of a debiased LASSO).
    """
    noise = np.sqrt(max(unexplained, 0.0) / count)
    estimated = int(np.sum(np.abs(coefficients) > 2 * noise))
    return noise * np.sqrt(count / max(count - estimated, count / 4)) + np.abs(shrunk) / Z95


def extensions(
    parents: Sets, residual: Values, masks: Masks, max_order: int, count: int, *, keep_probability: float = 0.5, weights: Values | None = None
) -> Sets:
    """The `count` sets S + {i}, S a parent, not parents themselves, whose character correlates most with the residual (`(m,)`, weights as `correlations`)."""
    residual = by_weight(residual, weights)
    signals = features(masks, keep_probability)
    blocks: list[Block] = []
    scores: list[Floats] = []
    for k, _, block in parents.spans():
        if k >= max_order:
            continue
        step = max(MOST_SCORES // parents.n, 1)
        for start in range(0, len(block), step):
            some = block[start : start + step]
            score = np.abs((products(signals, some) * residual[:, None]).T @ signals)
            score[np.repeat(np.arange(len(some)), k), some.ravel()] = 0.0  # S + {i} with i in S would be a smaller set
            best = np.argpartition(-score, min(count * (k + 1), score.size) - 1, axis=None)[: count * (k + 1)]
            row, added = np.divmod(best, parents.n)
            blocks.append(np.sort(np.concatenate([some[row], added[:, None].astype(np.int32)], axis=1), axis=1))
            scores.append(score.ravel()[best])
    if not blocks:
        return Sets(parents.n, ())
    found, totals = merge(parents.n, blocks, [np.stack([score, np.ones(len(score))], axis=1) for score in scores])
    score = totals[:, 0] / totals[:, 1]
    score[positions(parents, found) >= 0] = 0.0
    best = np.sort(np.argsort(-score, kind="stable")[:count])
    return found.take(best[score[best] > 0])


def stack_weights(predictions: Floats, values: Values, rows: Values | None = None) -> Floats:
    """Non-negative weights `(c,)`, adding up to one, of the columns of out-of-fold predictions `(m, c)` that together come nearest to the values.

    `rows` `(m,)` are the weights of the rows (None: all alike).
    """
    from scipy.optimize import nnls

    scale = float(np.sqrt(weighted_variance(values, rows))) * np.sqrt(len(values)) or 1.0
    strong = 1e3  # a row that holds the sum at one, as heavy as needed
    away = (predictions - values[:, None]) / scale
    away = away if rows is None else away * np.sqrt(rows / rows.mean())[:, None]
    system = np.vstack([away, np.full((1, predictions.shape[1]), strong)])
    target = np.concatenate([np.zeros(len(values)), [strong]])
    weights: NDArray[np.float64] = nnls(system, target)[0]
    return weights / weights.sum()


def r_squared(truth: Values, predicted: Values, weights: Values | None = None) -> float:
    """1 - ||y - ŷ||² / ||y - ȳ||², never clipped; NaN where the truth does not vary (there is nothing to explain). Rows count by `weights` (None: all alike)."""
    if weights is not None and np.ptp(weights) > 0:
        variance = weighted_variance(truth, weights)
        return 1.0 - float(weighted_mean((truth - predicted) ** 2, weights)) / variance if variance > 0 else float("nan")
    spread = float(np.sum((truth - truth.mean()) ** 2))
    return 1.0 - float(np.sum((truth - predicted) ** 2)) / spread if spread > 0 else float("nan")
