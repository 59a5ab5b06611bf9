"""Sparse regression on parities: LASSO paths on a shared grid, growth of terms along the hierarchy, and stacking.

Under the P(keep) of the masks, the characters φ_S (parities, at one half) are uncorrelated with unit variance. The terms missing from a model therefore
act as noise on those it contains, and the correlation of the residual with a character estimates the missing coefficient of that term.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.spectral.fourier import CHUNK, FourierSurrogate
from raysp.spectral.sets import Block, Floats, Sets, characters, features, merge, parities, positions, products

#: Points of a LASSO path, and the ratio of its smallest to its largest penalty, at which all coefficients vanish.
PATH_POINTS = 30
PATH_RATIO = 1e-3
#: Maximum number of coordinate-descent sweeps per point of a path; each point is warm-started from the previous one.
PATH_SWEEPS = 100
PATH_TOLERANCE = 1e-4
#: Number of columns of a design up to which its Gram matrix is precomputed (128 MiB).
MOST_PRODUCTS = 4096
#: Maximum number of entries of an array of extension scores.
MOST_SCORES = 1 << 24
#: The mean size of a normal variable relative to its standard deviation.
MEAN_SIZE = np.sqrt(2 / np.pi)
#: Points fitted between two evaluations on the exam, and the relative increase of the error there that ends a path.
PATH_STRIDE, PATH_TURN = 5, 1.02


@dataclass(frozen=True, slots=True)
class Exam:
    """Held-out masks (bool `(m, n)`) and values (`(m,)`) on which a fit is scored, with weights (`(m,)`; None: equal)."""

    masks: Masks
    values: Values
    weights: Values | None = None

    def error(self, predicted: Floats) -> Floats:
        """The mean squared error `(points,)` of predictions `(m, points)`."""
        return weighted_mean((predicted - self.values[:, None]) ** 2, self.weights)


@dataclass(frozen=True, slots=True)
class Path:
    """LASSO fits for decreasing penalties: `coefficients` float64 `(len(sets), points)`; order 0 is the unpenalised mean."""

    sets: Sets
    coefficients: Floats
    keep_probability: float = 0.5

    def predict(self, masks: Masks) -> Floats:
        """Predict the values of masks (bool, `(m, n)`) at every penalty, float64 `(m, points)`."""
        found = np.empty((len(masks), self.coefficients.shape[1]))
        step = max(CHUNK // len(self.sets), 1)
        for start in range(0, len(masks), step):
            rows = slice(start, start + step)
            found[rows] = characters(self.sets, masks[rows], self.keep_probability) @ self.coefficients
        return found

    def at(self, point: int) -> FourierSurrogate:
        """The fit at one penalty without its zero terms; the mean is always kept."""
        chosen = self.coefficients[:, point]
        return FourierSurrogate(self.sets, chosen, keep_probability=self.keep_probability).take((chosen != 0) | (self.sets.orders == 0))


def weighted_mean(values: Floats, weights: Values | None) -> Any:
    """The weighted mean over the rows of an array `(m,)` or `(m, c)`, with weights `(m,)` (None: equal)."""
    return values.mean(axis=0) if weights is None else weights @ values / weights.sum()


def weighted_variance(values: Values, weights: Values | None) -> float:
    """The weighted variance of values `(m,)` around their weighted mean, with weights `(m,)` (None: equal)."""
    return float(np.var(values)) if weights is None else float(weighted_mean((values - weighted_mean(values, weights)) ** 2, weights))


def moments(values: Values, weights: Values | None) -> tuple[float, float]:
    """The weighted mean and standard deviation of values `(m,)`, with weights `(m,)` (None: equal); the latter is 1 if the values do not vary."""
    return float(weighted_mean(values, weights)), float(np.sqrt(weighted_variance(values, weights))) or 1.0


def by_weight(values: Values, weights: Values | None) -> Values:
    """The values `(m,)` multiplied by their weights, scaled to a mean of one (None: equal)."""
    return values if weights is None else values * (weights / weights.mean())


def effective_rows(count: int, weights: Values | None) -> float:
    """The effective sample size (sum w)² / sum w² of `count` weighted rows (Kish)."""
    return float(count) if weights is None else float(weights.sum() ** 2 / (weights @ weights))


def penalties(values: Values, weights: Values | None = None) -> Floats:
    """A decreasing grid of penalties for values `(m,)`, float64 `(points,)`, starting where all coefficients vanish; it is shared by all folds."""
    return float(np.sqrt(weighted_variance(values, weights))) * np.geomspace(1.0, PATH_RATIO, PATH_POINTS)


class Design:
    """The characters of `sets` but the empty one on masks (bool `(m, n)`), centred and weighted (`(m,)`; None: equal), in strips of rows that fit into memory."""

    def __init__(self, sets: Sets, masks: Masks, keep_probability: float, weights: Values | None) -> None:
        self._sets, self._masks, self._keep_probability = sets, masks, keep_probability
        step = max(CHUNK // len(sets), 1)
        self._strips = [slice(start, start + step) for start in range(0, max(len(masks), 1), step)]
        self._only = self._characters(self._strips[0]) if len(self._strips) == 1 else None
        #: The roots of the weights, with a mean weight of one: `(m,)`.
        self.root = np.ones(len(masks)) if weights is None else np.sqrt(weights / weights.mean())
        counts = self.root**2
        #: The weighted mean of each column, `(terms,)`.
        self.centre = sum(counts[rows] @ self._of(rows) for rows in self._strips) / counts.sum()

    def _characters(self, rows: slice) -> Floats:
        return characters(self._sets, self._masks[rows], self._keep_probability)[:, 1:]

    def _of(self, rows: slice) -> Floats:
        return self._characters(rows) if self._only is None else self._only

    def centred(self) -> Iterator[Floats]:
        """The strips, float64 `(rows, terms)`, each less the centre and multiplied by the roots of the weights."""
        for rows in self._strips:
            yield (self._of(rows) - self.centre) * self.root[rows, None]

    def products(self, values: Values) -> tuple[Floats, Floats]:
        """The products of all columns with each other, `(terms, terms)`, and with values `(m,)`."""
        gram, target = np.zeros((len(self._sets) - 1,) * 2), np.zeros(len(self._sets) - 1)
        for rows, strip in zip(self._strips, self.centred(), strict=True):
            gram += strip.T @ strip
            target += strip.T @ values[rows]
        return gram, target


def lasso_path(
    sets: Sets, masks: Masks, values: Values, grid: Floats, exam: Exam | None = None, *, keep_probability: float = 0.5, weights: Values | None = None
) -> Path:
    """Fit a LASSO on the characters of `sets` (which must contain the empty set) at every penalty of a decreasing grid.

    A row of weight w (`weights` `(m,)`; None: equal) counts as w rows. With an exam, the path ends once its error on the exam has clearly increased; the
    remaining points, which would be the slowest to fit and would not be chosen, repeat the last one.
    """
    design = Design(sets, masks, keep_probability, weights)
    mean = float(weighted_mean(values, weights))
    rest = (values - mean) * design.root
    found = np.zeros((len(sets), len(grid)))
    found[0] = mean
    columns = len(sets) - 1
    if not columns:
        return Path(sets, found, keep_probability)
    # A precomputed Gram matrix makes sweeps fast and takes the rows strip by strip, but with very many columns it takes more memory than the design.
    products = design.products(rest) if columns <= MOST_PRODUCTS else None
    read = np.broadcast_to(0.0, (len(masks), columns)) if products else np.asfortranarray(np.concatenate(list(design.centred())))
    held = None if exam is None else (characters(sets, exam.masks, keep_probability)[:, 1:] - design.centre, replace(exam, values=exam.values - mean))
    best, start = np.inf, np.zeros(columns)
    for first in range(0, len(grid), PATH_STRIDE):
        part = slice(first, first + PATH_STRIDE)
        fitted = _descend(read, rest, products, grid[part], start)
        found[1:, part], start = fitted, fitted[:, -1]
        if held is not None:
            error = float(np.min(held[1].error(held[0] @ fitted)))
            if error > best * PATH_TURN:
                found[1:, part.stop :] = start[:, None]
                break
            best = min(best, error)
    found[0] -= design.centre @ found[1:]
    return Path(sets, found, keep_probability)


def _descend(design: Floats, values: Values, products: tuple[Floats, Floats] | None, grid: Floats, start: Floats) -> Floats:
    """Run coordinate descent from `start` along a part of the grid; returns coefficients, float64 `(terms, points)`. The design is in Fortran order.

    `products` are the products of the columns with each other and with the values, or None if they are not precomputed. With them, no more of the design is
    read than its shape.
    """
    from sklearn import linear_model

    fit: Any = linear_model.lasso_path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a point that has not converged is judged by cross-validation like any other
        gram, target = products or (False, None)
        # A path is called for many short parts of the grid: checks of the same arrays would take most of the time of a small question.
        arrays = {"precompute": gram, "Xy": target, "coef_init": start.copy(), "check_input": False}
        _, path, _ = fit(design, values, alphas=grid, max_iter=PATH_SWEEPS, tol=PATH_TOLERANCE, **arrays)
    return np.asarray(path, dtype=np.float64)


def ridge(design: Floats, values: Values, penalty: float) -> Values:
    """Coefficients `(terms,)` that minimise ||y - X b||² + penalty ||b||², from the smaller of the primal and dual systems."""
    rows, terms = design.shape
    if terms <= rows:
        return np.asarray(np.linalg.solve(design.T @ design + penalty * np.eye(terms), design.T @ values), dtype=np.float64)
    return np.asarray(design.T @ np.linalg.solve(design @ design.T + penalty * np.eye(rows), values), dtype=np.float64)


def correlations(sets: Sets, masks: Masks, residual: Values, keep_probability: float = 0.5, weights: Values | None = None) -> Floats:
    """The mean of residual · φ_S over the masks for every set, float64 `(len(sets),)`, with weights `(m,)` (None: equal)."""
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
    """Standard errors, float64 `(terms,)`, of coefficients fitted to `count` random masks with out-of-fold variance `unexplained`.

    A coefficient has variance `unexplained` / count; because random columns are not exactly orthogonal, each estimated term costs the others a degree of
    freedom. The remaining shrinkage of a coefficient is added, as measured by the correlation `shrunk` of the residual with its character (the one-step
    correction of the debiased LASSO). The correlation is measured on the rows of the fit and has an error of its own, so it counts as the standard deviation
    of a normal bias, whose mean size is `MEAN_SIZE` of it.
    """
    noise = np.sqrt(max(unexplained, 0.0) / count)
    estimated = int(np.sum(np.abs(coefficients) > 2 * noise))
    return noise * np.sqrt(count / max(count - estimated, count / 4)) + MEAN_SIZE * np.abs(shrunk)


def extensions(
    parents: Sets, residual: Values, masks: Masks, max_order: int, count: int, *, keep_probability: float = 0.5, weights: Values | None = None
) -> Sets:
    """The `count` extensions S + {i} of parents S whose characters correlate most with the residual `(m,)`.

    Extensions that are themselves parents are excluded. `weights` are as in `correlations`.
    """
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
    """Non-negative weights `(c,)` that sum to one and minimise the squared error of the weighted out-of-fold predictions `(m, c)`.

    `rows` `(m,)` are the weights of the rows (None: equal).
    """
    from scipy.optimize import nnls

    scale = float(np.sqrt(weighted_variance(values, rows))) * np.sqrt(len(values)) or 1.0
    strong = 1e3  # weight of the extra row that constrains the sum to one
    away = (predictions - values[:, None]) / scale
    away = away if rows is None else away * np.sqrt(rows / rows.mean())[:, None]
    system = np.vstack([away, np.full((1, predictions.shape[1]), strong)])
    target = np.concatenate([np.zeros(len(values)), [strong]])
    weights: NDArray[np.float64] = nnls(system, target)[0]
    return weights / weights.sum()


def rank_correlation(one: Values, other: Values) -> float | None:
    """Spearman's correlation, None if either does not vary."""
    from scipy.stats import rankdata

    if not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return None
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def r_squared(truth: Values, predicted: Values, weights: Values | None = None) -> float:
    """The coefficient of determination 1 - ||y - ŷ||² / ||y - ȳ||², not clipped, with row `weights` `(m,)` (None: equal).

    NaN if the true values do not vary, as there is nothing to explain.
    """
    if weights is not None and np.ptp(weights) > 0:
        variance = weighted_variance(truth, weights)
        return 1.0 - float(weighted_mean((truth - predicted) ** 2, weights)) / variance if variance > 0 else float("nan")
    spread = float(np.sum((truth - truth.mean()) ** 2))
    return 1.0 - float(np.sum((truth - predicted) ** 2)) / spread if spread > 0 else float("nan")
