"""Refit of peeled terms to all evaluations of a SPEX design, by least squares or by a LASSO that may add single components.

The method with the smaller cross-validation error is used. Folds consist of whole blocks of the design, so that held-out data can be transformed like
the rest and the regression remains sparse.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raysp.explorers.samples import folds
from raysp.masks import Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.peeling import Spectrum, least_squares
from raysp.spectral.regression import PATH_SWEEPS, PATH_TOLERANCE, penalties, standard_errors
from raysp.spectral.sets import Floats, Sets, positions, singletons, union

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

#: Minimum number of measured blocks for cross-validation.
LEAST_BLOCKS = 8
#: Scale factor of the column of the mean that makes its penalty negligible.
FREE = 1e4
#: Share of the variance that is attributed to rounding.
ROUNDING = 1e-20


@dataclass(frozen=True)
class Refit:
    """The result of a refit.

    `surrogate` has the nonzero terms; `singles` also has all single components, so that each has an interval. `r2` is the out-of-fold R². `method` is
    'least squares' (on the peeled terms) or 'lasso' (on these and all single components). `residual` is the unexplained share of the variance on all
    samples.
    """

    surrogate: FourierSurrogate
    singles: FourierSurrogate
    r2: float
    method: str
    residual: float


@dataclass(frozen=True)
class _Problem:
    """A regression in the transform domain: sparse columns of `sets` (including all single components and ∅), and the positions of the `peeled` ones."""

    sets: Sets
    columns: csc_matrix
    targets: Values
    peeled: NDArray[np.intp]
    grid: Floats

    def least_squares(self, rows: NDArray[np.intp]) -> Floats:
        """Fit the peeled terms alone; returns coefficients `(len(sets),)`, zero for the others."""
        found = np.zeros(len(self.sets))
        found[self.peeled] = least_squares(self.columns[rows][:, self.peeled], self.targets[rows])
        return found

    def lasso(self, rows: NDArray[np.intp], points: int) -> Floats:
        """Fit all terms along the grid of penalties, leaving the mean unpenalised; returns coefficients `(len(sets), points)`."""
        from scipy.sparse import diags
        from sklearn import linear_model

        fit: Any = linear_model.lasso_path
        scale = np.ones(len(self.sets))
        scale[0] = FREE
        columns = (self.columns[rows] @ diags(scale)).tocsc()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a point that has not converged is judged by cross-validation like any other
            _, path, _ = fit(columns, self.targets[rows], alphas=self.grid[:points], precompute=False, max_iter=PATH_SWEEPS, tol=PATH_TOLERANCE)
        return np.asarray(path, dtype=np.float64) * scale[:, None]


def refit(spectrum: Spectrum, peeled: Sets, values: Values, random_state: int = 0) -> Refit:
    """Fit the peeled terms, possibly with single components, to all measured blocks, of which there must be at least `LEAST_BLOCKS`.

    The `values` `(m,)` must vary. The empty set is always included and never penalised. Deterministic in `random_state`.
    """
    problem = _problem(spectrum, peeled, values)
    blocks = len(problem.targets) // spectrum.values.shape[2]
    width, errors = spectrum.values.shape[2], np.zeros(len(problem.grid) + 1)
    for held in folds(blocks, random_state):
        exam = (held[:, None] * width + np.arange(width)).ravel()
        rest = np.delete(np.arange(len(problem.targets)), exam)
        fitted = np.column_stack([problem.least_squares(rest), problem.lasso(rest, len(problem.grid))])
        errors += np.sum((problem.columns[exam] @ fitted - problem.targets[exam][:, None]) ** 2, axis=0)
    errors /= len(problem.targets)
    best, every = int(np.argmin(errors)), np.arange(len(problem.targets))
    coefficients = problem.lasso(every, best)[:, -1] if best else problem.least_squares(every)
    variance = float(np.var(values))
    return _described(problem, coefficients, (float(errors[best]), variance), len(values), "lasso" if best else "least squares")


def _problem(spectrum: Spectrum, peeled: Sets, values: Values) -> _Problem:
    terms = union(peeled, singletons(peeled.n).take(np.array([0])))
    sets = union(terms, singletons(peeled.n))
    return _Problem(sets, spectrum.columns(sets), spectrum.targets(), positions(sets, terms), penalties(values))


def _described(problem: _Problem, coefficients: Floats, errors: tuple[float, float], count: int, method: str) -> Refit:
    """Build the result, with standard errors."""
    out_of_fold, variance = errors
    residual = problem.targets - problem.columns @ coefficients
    left = float(residual @ residual) / len(residual)
    error = standard_errors(coefficients, problem.columns.T @ residual / len(residual), out_of_fold, count)
    exact = left <= ROUNDING * max(variance, float(np.max(np.abs(coefficients))) ** 2)
    every = FourierSurrogate(problem.sets, coefficients, None if exact else error)
    terms = np.zeros(len(problem.sets), dtype=np.bool_)
    terms[problem.peeled] = True
    kept = (terms if method == "least squares" else coefficients != 0) | (problem.sets.orders == 0)
    singles = every.take(kept | (problem.sets.orders <= 1))
    return Refit(every.take(kept), singles, 1.0 - out_of_fold / variance, method, left / variance)
