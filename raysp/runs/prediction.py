"""What a run's surrogate predicts for masks that nobody measured, with intervals from measured masks that it was not fitted to. Needs no model.

Intervals are split-conformal (Lei et al. 2018): the residuals of the surrogate on measured masks that it has not seen bound its error on others. They are
taken from the masks that remove nearly as many components, as a surrogate errs differently near the intact input and far from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.masks import Masks, Values
from raysp.spectral.fourier import FourierSurrogate, is_complete
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.store import Store

#: The share of masks whose value an interval should hold.
LEVEL = 0.95
#: Measured masks that an interval is taken from: these, and those that remove just as many as the last of them.
COMPARED = 60


@dataclass(frozen=True)
class Prediction:
    """What a surrogate predicts without some components: `value`, an interval, and the measured value where the store has one.

    `removed` are numbers of components. `coverage` is the probability at which `[lo, hi]` holds the value of a mask like those it was taken from, of which there
    are `compared`; all None or 0 if none were measured. `extrapolated` says that none of those removes as many, or as few.
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
        """From a run's evaluations (as `Store.run_evaluations`) and their values in that order; one requested in several phases counts once."""
        _, first = np.unique(rows["evaluation_id"].to_numpy(), return_index=True)
        masks = rows["mask"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, -1)
        return cls(masks[first], values[first], rows["fitted"].to_numpy()[first])


def read_subset(text: str, labels: Sequence[str]) -> list[int]:
    """The components named in a text: numbers or labels with commas between them, or one label that holds commas. [] for an empty text.

    Raises UserError for a name that no component has, and for a label that several have.
    """
    names = [name.strip() for name in text.split(",")]
    if not text.strip():
        return []
    if text in labels and any(name not in labels and not name.isdigit() for name in names):
        names = [text]
    return component_numbers(names, labels)


def component_numbers(names: Sequence[int | str], labels: Sequence[str]) -> list[int]:
    """The numbers of components named by number or by label, ascending. UserError as `read_subset`."""
    return sorted({_number(name, labels) for name in names})


def _number(name: int | str, labels: Sequence[str]) -> int:
    if not isinstance(name, str) or (name.isdigit() and int(name) < len(labels)):
        if not 0 <= int(name) < len(labels):
            raise UserError("components", name, "is not a component of this run", f"give a number from 0 to {len(labels) - 1}, or a label")
        return int(name)
    places = [number for number, label in enumerate(labels) if name == label] or [number for number, label in enumerate(labels) if name == label.strip()]
    if len(places) > 1:
        raise UserError("components", name, f"is the label of components {', '.join(map(str, places))}", "give their numbers instead")
    if not places:
        raise UserError("components", name, "is not a component of this run", f"give a number from 0 to {len(labels) - 1}, or a label")
    return places[0]


def mask_of(labels: Sequence[str], removed: Sequence[int | str] | None, kept: Sequence[int | str] | None) -> Masks:
    """The mask without the components `removed`, or with those `kept` alone: bool `(1, n)`. ValueError unless exactly one is given; UserError as `read_subset`."""
    if (removed is None) == (kept is None):
        raise ValueError("give either removed or kept")
    mask = np.full((1, len(labels)), kept is None)
    mask[0, component_numbers(removed if removed is not None else kept or [], labels)] = kept is not None
    return mask


def predict(surrogate: FourierSurrogate, known: Measured, masks: Masks, labels: Sequence[str], measured: Values) -> list[Prediction]:
    """Predictions for masks (bool, `(k, n)`), with their measured values (float64, `(k,)`, NaN where there is none)."""
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
    """A surrogate of all masks there are errs nowhere."""
    return [_Bound(0.0, 1.0, 0, extrapolated=False)] * len(values)


def _bounds(surrogate: FourierSurrogate, known: Measured, masks: Masks) -> list[_Bound]:
    """What to add to and subtract from each prediction: a quantile of the residuals on the masks most like it that the surrogate was not fitted to."""
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
    """The conformal quantile of absolute residuals, and the coverage that it guarantees: `LEVEL`, or what so few can."""
    count = len(residuals)
    rank = min(ceil((count + 1) * LEVEL), count)
    return float(np.partition(residuals, rank - 1)[rank - 1]), min(LEVEL, count / (count + 1))


# ---- from the store


def predict_stored(store: "Store", run_id: str, masks: Masks, query: int | None = None) -> list[Prediction]:
    """Predictions of a stored run, or of one of its queries, for masks (bool, `(k, n)`). UserError for a run without a surrogate and for a query it has not."""
    row = store.run_row(run_id)
    surrogate = store.surrogate(run_id, query)
    rows = store.run_evaluations(run_id)
    known = Measured.of(rows, rows["value"].to_numpy() if query is None else store.run_outputs(run_id)[:, query])
    measured = store.known(row["game_id"], masks) if query is None else store.outputs(row["game_id"], masks)[:, query]
    return predict(surrogate, known, masks, [component.label for component in store.components(row["game_id"])], measured)


def as_json(found: Prediction) -> dict[str, Any]:
    """A prediction as JSON has it."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(found).items()}
