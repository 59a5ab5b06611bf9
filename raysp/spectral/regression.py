"""Sparse regression on parities: LASSO paths on a shared grid, terms grown along the hierarchy, and stacking.

On uniform masks the parities are uncorrelated with unit variance, so what a model leaves out acts as noise on what it holds, and the
correlation of a residual with a parity is that parity's missing coefficient.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.game import Masks, Values
from raysp.spectral.fourier import CHUNK, FourierSurrogate
from raysp.spectral.sets import Block, Floats, Sets, characters, merge, parities, positions

#: Points of a LASSO path, and the ratio of its smallest penalty to the one that leaves nothing.
PATH_POINTS = 30
PATH_RATIO = 1e-3
#: Coordinate-descent sweeps at most for a point of a path; the next point starts where it stopped.
PATH_SWEEPS = 100
PATH_TOLERANCE = 1e-4
#: Points fitted between two looks at the exam, and the rise of the error there that ends a path.
PATH_STRIDE, PATH_TURN = 5, 1.02


@dataclass(frozen=True, slots=True)
class Path:
    """LASSO fits for falling penalties: `coefficients` float64 `(len(sets), points)`, order 0 being the unpenalised mean."""

    sets: Sets
    coefficients: Floats

    def predict(self, masks: Masks) -> Floats:
        """Values float64 `(m, points)`."""
        return characters(self.sets, masks) @ self.coefficients

    def at(self, point: int) -> FourierSurrogate:
        """The fit at one penalty, terms that are zero left out (the mean stays)."""
        chosen = self.coefficients[:, point]
        return FourierSurrogate(self.sets, chosen).take((chosen != 0) | (self.sets.orders == 0))


def penalties(values: Values) -> Floats:
    """A grid of penalties for these values (`(m,)`), float64 `(points,)`, falling from where nothing is left; folds share it."""
    return float(np.std(values)) * np.geomspace(1.0, PATH_RATIO, PATH_POINTS)


def lasso_path(sets: Sets, masks: Masks, values: Values, grid: Floats, exam: tuple[Masks, Values] | None = None) -> Path:
    """LASSO on the parities of `sets` (which must hold the empty set) at every penalty of a falling grid.

    With an exam (held-out masks and values) the path ends where its error there has clearly turned up; the points beyond repeat the last:
    they would be the slowest to fit, and nobody would choose them.
    """
    design = characters(sets, masks)[:, 1:]
    centre, mean = design.mean(axis=0), float(values.mean())
    design -= centre
    found = np.zeros((len(sets), len(grid)))
    found[0] = mean
    if not design.shape[1]:
        return Path(sets, found)
    gram, target = design.T @ design, design.T @ (values - mean)
    held = None if exam is None else (characters(sets, exam[0])[:, 1:] - centre, exam[1] - mean)
    best, start = np.inf, np.zeros(design.shape[1])
    for first in range(0, len(grid), PATH_STRIDE):
        part = slice(first, first + PATH_STRIDE)
        fitted = _descend(design, values - mean, (gram, target), grid[part], start)
        found[1:, part], start = fitted, fitted[:, -1]
        if held is not None:
            error = float(np.min(np.mean((held[0] @ fitted - held[1][:, None]) ** 2, axis=0)))
            if error > best * PATH_TURN:
                found[1:, part.stop :] = start[:, None]
                break
            best = min(best, error)
    found[0] -= centre @ found[1:]
    return Path(sets, found)


def _descend(design: Floats, values: Values, products: tuple[Floats, Floats], grid: Floats, start: Floats) -> Floats:
    """Coordinate descent from `start` down a piece of the grid: coefficients float64 `(terms, points)`."""
    from sklearn import linear_model

    fit: Any = linear_model.lasso_path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a point that has not converged is judged by cross-validation like any other
        _, path, _ = fit(design, values, alphas=grid, precompute=products[0], Xy=products[1], coef_init=start.copy(), max_iter=PATH_SWEEPS, tol=PATH_TOLERANCE)
    return np.asarray(path, dtype=np.float64)


def correlations(sets: Sets, masks: Masks, residual: Values) -> Floats:
    """The mean of residual · χ_S over the masks for every set, float64 `(len(sets),)`."""
    result = np.zeros(len(sets))
    step = max(CHUNK // max(len(masks), 1), 1)
    for start in range(0, len(sets), step):
        rows = np.arange(start, min(start + step, len(sets)))
        result[rows] = residual.mean() - 2.0 * (parities(sets.take(rows), masks) @ residual) / len(masks)
    return result


def extensions(parents: Sets, residual: Values, masks: Masks, max_order: int, count: int) -> Sets:
    """The `count` sets S + {i}, S a parent, not parents themselves, whose parity correlates most with the residual (`(m,)`)."""
    signs = 1.0 - 2.0 * masks
    blocks: list[Block] = []
    scores: list[Floats] = []
    for k, where, block in parents.spans():
        if k >= max_order:
            continue
        weighted = characters(parents.take(np.arange(where.start, where.stop)), masks) * residual[:, None]
        score = np.abs(weighted.T @ signs)
        score[np.repeat(np.arange(len(block)), k), block.ravel()] = 0.0  # S + {i} with i in S would be a smaller set
        best = np.argsort(-score, axis=None, kind="stable")[: count * (k + 1)]
        row, added = np.divmod(best, parents.n)
        blocks.append(np.sort(np.concatenate([block[row], added[:, None].astype(np.int32)], axis=1), axis=1))
        scores.append(score.ravel()[best])
    if not blocks:
        return Sets(parents.n, ())
    found, totals = merge(parents.n, blocks, [np.stack([score, np.ones(len(score))], axis=1) for score in scores])
    score = totals[:, 0] / totals[:, 1]
    score[positions(parents, found) >= 0] = 0.0
    best = np.sort(np.argsort(-score, kind="stable")[:count])
    return found.take(best[score[best] > 0])


def stack_weights(predictions: Floats, values: Values) -> Floats:
    """Non-negative weights `(c,)`, adding up to one, of the columns of out-of-fold predictions `(m, c)` that together come nearest to the values."""
    from scipy.optimize import nnls

    scale = float(np.std(values)) * np.sqrt(len(values)) or 1.0
    strong = 1e3  # a row that holds the sum at one, as heavy as needed
    system = np.vstack([(predictions - values[:, None]) / scale, np.full((1, predictions.shape[1]), strong)])
    target = np.concatenate([np.zeros(len(values)), [strong]])
    weights: NDArray[np.float64] = nnls(system, target)[0]
    return weights / weights.sum()
