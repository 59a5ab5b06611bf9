"""Predict the value of unmeasured masks from a run's surrogate, with intervals from measured masks to which it was not fitted. Needs no model.

The intervals are split-conformal (Lei et al. 2018): residuals on measured masks that the surrogate was not fitted to bound its error on other masks. Only masks
that remove a similar number of components are used, because the error depends on the distance from the intact input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.game import base_label
from raysp.masks import Masks, Values
from raysp.spectral.fourier import FourierSurrogate, is_complete
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.runs.run_store import ActionStore
    from raysp.store.reading import StoreReader

#: The nominal coverage of the intervals.
LEVEL = 0.95
#: The number of measured masks from which an interval is computed; masks tied with the last of them are included.
COMPARED = 60


@dataclass(frozen=True)
class Prediction:
    """A surrogate's prediction without some components: `value`, an interval, and the measured value if the store has it.

    `removed` are the indices of components. `coverage` is the probability that `[lo, hi]` contains the value of a mask like the `compared` ones from which the
    interval was computed; None (and `compared` 0) if there were none. `extrapolated` is True if all of those remove more components, or all remove fewer.
    """

    removed: tuple[int, ...]
    labels: tuple[str, ...]
    value: float
    lo: float | None
    hi: float | None
    coverage: float | None
    compared: int
    extrapolated: bool
    measured: float | None


@dataclass(frozen=True)
class Measured:
    """A run's evaluations: masks bool `(m, n)`, values float64 `(m,)`, and which of them the surrogate was fitted to, bool `(m,)`."""

    masks: Masks
    values: Values
    fitted: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: "pa.Table", values: Values) -> Self:
        """Build from a run's evaluations (as from `Store.run_evaluations`) and their values in that order; repeated requests count once."""
        _, first = np.unique(rows["evaluation_id"].to_numpy(), return_index=True)
        masks = rows["mask"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, -1)
        return cls(masks[first], values[first], rows["fitted"].to_numpy()[first])


def read_subset(text: str, labels: Sequence[str]) -> list[int]:
    """The components named in a text: indices or labels separated by commas, or a single label that contains commas. [] for an empty text.

    Raises UserError for a name that matches no component, and for a label that several share.
    """
    names = [name.strip() for name in text.split(",")]
    if not text.strip():
        return []
    if text in labels and any(name not in labels and not name.isdigit() for name in names):
        names = [text]
    return component_numbers(names, labels)


def component_numbers(names: Sequence[int | str], labels: Sequence[str]) -> list[int]:
    """The indices of components named by index or label, ascending. UserError as `read_subset`."""
    return sorted({_number(name, labels) for name in names})


def _number(name: int | str, labels: Sequence[str]) -> int:
    if not isinstance(name, str) or (name.isdigit() and int(name) < len(labels)):
        if not 0 <= int(name) < len(labels):
            raise UserError("components", name, "is not a component of this run", f"give an index from 0 to {len(labels) - 1}, or a label")
        return int(name)
    matches = [index for index, label in enumerate(labels) if name == label] or [index for index, label in enumerate(labels) if name == label.strip()]
    if len(matches) == 1:
        return matches[0]
    alike = matches or [index for index, label in enumerate(labels) if name == base_label(label).strip()]
    if len(alike) > 1:
        listed = ", ".join(f"{index} ({labels[index].strip()})" for index in alike)
        raise UserError("components", name, f"is ambiguous: it is the label of components {listed}", "give the index of one of them")
    raise UserError("components", name, "is not a component of this run", f"give an index from 0 to {len(labels) - 1}, or a label")


def mask_of(labels: Sequence[str], removed: Sequence[int | str] | None, kept: Sequence[int | str] | None) -> Masks:
    """The mask without the components `removed`, or with only those `kept`: bool `(1, n)`. ValueError unless exactly one is given; UserError as `read_subset`."""
    if (removed is None) == (kept is None):
        raise ValueError("give either removed or kept")
    mask = np.full((1, len(labels)), kept is None)
    mask[0, component_numbers(removed if removed is not None else kept or [], labels)] = kept is not None
    return mask


def predict(surrogate: FourierSurrogate, known: Measured, masks: Masks, labels: Sequence[str], measured: Values) -> list[Prediction]:
    """Predictions for masks (bool, `(k, n)`), given their measured values (float64, `(k,)`, NaN if unmeasured)."""
    values = surrogate.predict(masks)
    bounds = _exact(values) if is_complete(known.masks[known.fitted]) else _bounds(surrogate, known, masks)
    found: list[Prediction] = []
    for mask, value, bound, exact in zip(masks, values.tolist(), bounds, measured.tolist(), strict=True):
        removed = tuple(np.flatnonzero(~mask).tolist())
        lo, hi = (None, None) if bound.half_width is None else (value - bound.half_width, value + bound.half_width)
        said = None if np.isnan(exact) else exact
        found.append(Prediction(removed, tuple(labels[i] for i in removed), value, lo, hi, bound.coverage, bound.compared, bound.extrapolated, said))
    return found


@dataclass(frozen=True)
class _Bound:
    half_width: float | None
    coverage: float | None
    compared: int
    extrapolated: bool


def _exact(values: Floats) -> list[_Bound]:
    """Zero-width bounds, as a surrogate fitted to all masks is exact."""
    return [_Bound(0.0, 1.0, 0, extrapolated=False)] * len(values)


def _bounds(surrogate: FourierSurrogate, known: Measured, masks: Masks) -> list[_Bound]:
    """Half-widths of the intervals: a quantile of the absolute residuals on the most similar masks to which the surrogate was not fitted."""
    rows = np.flatnonzero(~known.fitted)
    if not len(rows) or not len(masks):
        return [_Bound(None, None, 0, extrapolated=False)] * len(masks)
    sizes = (~known.masks[rows]).sum(axis=1)
    wanted = (~masks).sum(axis=1)
    nearest = [_nearest(np.abs(sizes - size)) for size in wanted.tolist()]
    used = np.unique(np.concatenate(nearest))
    residuals = np.zeros(len(rows))
    residuals[used] = np.abs(known.values[rows[used]] - surrogate.predict(known.masks[rows[used]]))
    return [
        _Bound(*_quantile(residuals[near]), len(near), extrapolated=not bool(sizes[near].min() <= size <= sizes[near].max()))
        for near, size in zip(nearest, wanted.tolist(), strict=True)
    ]


def _nearest(distances: NDArray[np.intp]) -> NDArray[np.intp]:
    if len(distances) <= COMPARED:
        return np.arange(len(distances))
    return np.flatnonzero(distances <= np.partition(distances, COMPARED - 1)[COMPARED - 1])


def _quantile(residuals: Floats) -> tuple[float, float]:
    """The conformal quantile of absolute residuals and its guaranteed coverage: `LEVEL`, or less if there are too few residuals."""
    count = len(residuals)
    rank = min(ceil((count + 1) * LEVEL), count)
    return float(np.partition(residuals, rank - 1)[rank - 1]), min(LEVEL, count / (count + 1))


# ---- from the store


def predict_stored(store: "ActionStore | StoreReader", run_id: str, masks: Masks, query: int | None = None) -> list[Prediction]:
    """Predictions of a stored run, or of one of its queries, for masks (bool, `(k, n)`). UserError for a run without a surrogate and for an unknown query."""
    row = store.run_row(run_id)
    surrogate = store.surrogate(run_id, query)
    rows = store.run_evaluations(run_id)
    known = Measured.of(rows, rows["value"].to_numpy() if query is None else store.run_outputs(run_id)[:, query])
    measured = store.known(row["game_id"], masks) if query is None else store.outputs(row["game_id"], masks)[:, query]
    return predict(surrogate, known, masks, [component.label for component in store.components(row["game_id"])], measured)


def as_json(found: Prediction) -> dict[str, Any]:
    """A prediction as a JSON-serialisable dict."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(found).items()}
