"""Explain evaluations from a file of arrays: read, split, fit and score. Does not depend on models, Ray or the store."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.home import local_path
from raysp.masks import Masks, Values, first_of_each, pack

if TYPE_CHECKING:
    from raysp.explorers import ProxySPEX

#: The fewest rows to learn from; the fewest held-out rows that make a score meaningful (with fewer, none are held out).
LEAST_ROWS, LEAST_HELD_OUT = 8, 20
#: Standard errors by which interactions must predict better than singles to count as helpful.
CLEAR = 1.96


@dataclass(frozen=True)
class Measurements:
    """Masks bool `(m, n)`, their values float64 `(m,)`, and a label for each component."""

    masks: Masks
    values: Values
    labels: tuple[str, ...]

    @property
    def n(self) -> int:
        """The number of components."""
        return self.masks.shape[1]

    def take(self, rows: NDArray[np.bool_]) -> Measurements:
        """The rows where True."""
        return Measurements(self.masks[rows], self.values[rows], self.labels)


@dataclass(frozen=True)
class Explanation:
    """A fitted explorer and its scores: numbers of rows fitted and held out, R² on the held-out rows beside that of single effects alone (None without such rows), and sentences."""

    model: ProxySPEX
    fitted: int
    held_out: int
    r2: float | None
    r2_singles: float | None
    sentences: tuple[str, ...]
    diagnostics: dict[str, Any]


def read_measurements(path: str) -> Measurements:
    """Read the arrays `masks`, `values` and, if present, `labels` from an npz file. Raises UserError for missing arrays, wrong shapes, types and values."""
    arrays = _arrays(path)
    for name in ("masks", "values"):
        if name not in arrays:
            raise UserError(
                path, None, f"has no array {name!r}, only {', '.join(sorted(arrays)) or 'nothing'}", "save it with numpy.savez(masks=..., values=...)"
            )
    masks, values = _masks(arrays["masks"]), _values(arrays["values"])
    if len(values) != len(masks):
        raise UserError("values", None, f"have shape {values.shape}, masks {masks.shape}", "give one value per mask")
    if len(values) < LEAST_ROWS:
        raise UserError("masks", None, f"have shape {masks.shape}, {len(masks)} rows", f"give at least {LEAST_ROWS} evaluations")
    labels = arrays.get("labels", np.array([f"x{i}" for i in range(masks.shape[1])]))
    if labels.shape != (masks.shape[1],):
        raise UserError("labels", None, f"have shape {labels.shape}, masks {masks.shape}", "give one label per component (column of masks)")
    named = (str(label).strip() or f"x{i}" for i, label in enumerate(labels.tolist()))
    return Measurements(masks, values, tuple(named))


def held_out_rows(measured: Measurements, share: float, seed: int) -> NDArray[np.bool_]:
    """Choose the rows to hold out, bool `(m,)`: all evaluations of that share of the distinct masks, or none if they would be too few."""
    if not 0 <= share < 1:
        raise UserError("heldout", share, "is not a share of the rows", "give a number of at least 0 and below 1, such as 0.2")
    distinct, number = first_of_each(pack(measured.masks))
    count = round(share * len(distinct))
    everything = measured.n < 63 and len(distinct) == 1 << measured.n
    if count < LEAST_HELD_OUT or everything:
        return np.zeros(len(measured.values), dtype=np.bool_)
    chosen = np.random.default_rng(seed).permutation(len(distinct)) < count
    return chosen[number]


def explain(measured: Measurements, explorer: ProxySPEX, share: float = 0.2) -> Explanation:
    """Fit on most rows, score on the rest beside the best model of single effects, and describe the result."""
    from raysp.explorers import fit_singles, r_squared

    told: list[str] = []
    held = held_out_rows(measured, share, explorer.random_state)
    rest, exam = measured.take(~held), measured.take(held)
    if len(rest.values) < LEAST_ROWS:
        raise UserError("heldout", share, f"leaves {len(rest.values)} of {len(measured.values)} rows to fit", "hold out a smaller share, such as 0.2")
    model = explorer.fit(rest.masks, rest.values)
    r2 = r2_singles = None
    if held.any():
        predicted = model.predict(exam.masks)
        singles = fit_singles(rest.masks, rest.values, explorer.random_state, model.findings.diagnostics["keep_probability"]).predict(exam.masks)
        r2, r2_singles = r_squared(exam.values, predicted), r_squared(exam.values, singles)
        told += _scored(r2, r2_singles, (exam.values - singles) ** 2 - (exam.values - predicted) ** 2)
    else:
        told.append("No rows were held out: the figures are cross-validated, or exact if every mask was measured.")
    told += model.findings.notes
    return Explanation(model, len(rest.values), len(exam.values), r2, r2_singles, tuple(told), dict(model.findings.diagnostics))


def _scored(r2: float, r2_singles: float, gains: Values) -> list[str]:
    """Describe the scores on held-out rows. `gains` are the reductions of each squared error by interactions."""
    if np.isnan(r2):
        return ["The held-out values do not vary, so there is nothing to explain."]
    told = [f"Held-out R² {r2:.3f} on {len(gains):,} rows; single effects alone {r2_singles:.3f}."]
    if gains.mean() <= CLEAR * gains.std() / np.sqrt(len(gains)):
        told.append("Interactions do not help: single effects alone predict these rows as well.")
    return told


def _arrays(path: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of an npz file by name."""
    remedy = "write it with numpy.savez(masks=..., values=...)"
    place = local_path("file", path)
    if not place.is_file():
        raise UserError("file", path, "does not exist", "give the path of an npz file")
    try:
        archive = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile):
        raise UserError("file", path, "is not an npz file", remedy) from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError("file", path, f"holds a single unnamed array of shape {archive.shape}", remedy)
    found: dict[str, NDArray[Any]] = {}
    with archive:
        for name in archive.files:
            try:
                array = archive[name]
            except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
                pickled = "Object arrays" in str(error)
                problem = "is an array of Python objects, which can run code when read" if pickled else f"cannot be read ({error})"
                raise UserError(name, None, problem, "save plain numbers, and labels as text (dtype str)" if pickled else remedy) from None
            if hasattr(array, "dtype"):  # a member that is not an array is returned as bytes
                found[name] = array
    return found


def _masks(array: NDArray[Any]) -> Masks:
    if array.ndim != 2:
        raise UserError("masks", None, f"have shape {array.shape}", "give shape (m, n): one row per evaluation, one column per component")
    if array.shape[1] < 2:
        raise UserError("masks", None, f"have shape {array.shape}, {array.shape[1]} components", "give at least 2 components (columns)")
    if array.dtype.kind not in "buif":
        raise UserError("masks", None, f"have type {array.dtype}", "give bool, or numbers 0 and 1")
    other = (array != 0) & (array != 1)
    if other.any():
        raise UserError(
            "masks", None, f"hold {int(other.sum()):,} entries that are neither 0 nor 1, the first {array[other][0]}", "write 1 for kept and 0 for removed"
        )
    return array.astype(np.bool_)


def _values(array: NDArray[Any]) -> Values:
    if array.ndim != 1:
        raise UserError("values", None, f"have shape {array.shape}", "give shape (m,): one number per evaluation")
    if array.dtype.kind not in "buif":
        raise UserError("values", None, f"have type {array.dtype}", "give numbers")
    values = array.astype(np.float64)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise UserError("values", None, f"hold {bad:,} of {len(values):,} that are NaN or infinite", "remove those rows")
    return values
