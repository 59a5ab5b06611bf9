"""Predict the value of unmeasured masks from a run's surrogate, with intervals from measured masks to which it was not fitted. Needs no model.

The intervals are split-conformal (Lei et al. 2018): residuals on measured masks that the surrogate was not fitted to bound its error on other masks. Only masks
that remove a similar number of components are used, because the error depends on the distance from the intact input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.explorers.candidates import measure
from raysp.game import base_label
from raysp.masks import Masks, Values, lookup
from raysp.sampling.ablations import ablations
from raysp.spectral.fourier import ROUNDING, FourierSurrogate, is_complete
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.explorers.base import Explorer
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

    @classmethod
    def with_checks(cls, explorer: "Explorer", masks: Masks, values: Values) -> Self:
        """An explorer's evaluations and those of a validation, masks bool `(m, n)` with values `(m,)`, without the ones that the explorer had."""
        fresh = lookup(explorer.masks, masks) < 0
        fitted = np.concatenate([explorer.fitted_rows, np.zeros(int(fresh.sum()), dtype=np.bool_)])
        return cls(np.concatenate([explorer.masks, masks[fresh]]), np.concatenate([explorer.values, values[fresh]]), fitted)


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
    values, written = surrogate.predict(masks), surrogate.written(masks)
    # A value that is written in is the measured one, but for rounding.
    values = np.where(written & np.isclose(values, measured, rtol=ROUNDING, atol=0.0), measured, values)
    sizes, place = np.unique((~masks).sum(axis=1), return_inverse=True)
    by_size = bounds(surrogate, known, sizes)
    found: list[Prediction] = []
    for mask, value, at, exact, sure in zip(masks, values.tolist(), place.tolist(), measured.tolist(), written.tolist(), strict=True):
        bound, removed = EXACT if sure else by_size[at], tuple(np.flatnonzero(~mask).tolist())
        lo, hi = (None, None) if bound.half_width is None else (value - bound.half_width, value + bound.half_width)
        said = None if np.isnan(exact) else exact
        found.append(Prediction(removed, tuple(labels[i] for i in removed), value, lo, hi, bound.coverage, bound.compared, bound.extrapolated, said))
    return found


@dataclass(frozen=True)
class Bound:
    """The interval of a prediction, which depends on its mask only through how many components that removes: value ± `half_width`, None if there is none.

    `coverage`, `compared` and `extrapolated` are as in `Prediction`.
    """

    half_width: float | None
    coverage: float | None
    compared: int
    extrapolated: bool


#: The bound of a value that was measured and is written into the surrogate, and of every value if all masks were measured.
EXACT = Bound(0.0, 1.0, 0, extrapolated=False)


def caution(found: Bound | Prediction) -> str | None:
    """What a reader must know of an interval or its absence; None if it holds as it should."""
    if found.coverage is None:
        return "There are no intervals: the run measured no subsets but those that its surrogate was fitted to."
    if found.extrapolated:
        return "Some subsets are larger or smaller than any that the run measured beside the fit: their intervals may be too narrow."
    if found.coverage < LEVEL:
        return f"Intervals come from {found.compared} subsets, which is enough for {found.coverage:.0%} coverage only."
    return None


def bounds(surrogate: FourierSurrogate, known: Measured, removed: NDArray[np.intp] | None = None) -> list[Bound]:
    """The bound of masks that remove so many components (integers, `(k,)`; 0 to n if None): a quantile of residuals on masks outside the fit.

    The residuals used are those of the `COMPARED` masks that remove the most similar numbers. A surrogate fitted to all masks is exact.
    """
    wanted = np.arange(known.masks.shape[1] + 1) if removed is None else removed
    if is_complete(known.masks[known.fitted]):
        return [EXACT] * len(wanted)
    rows = np.flatnonzero(~known.fitted)
    if not len(rows) or not len(wanted):
        return [Bound(None, None, 0, extrapolated=False)] * len(wanted)
    sizes = (~known.masks[rows]).sum(axis=1)
    order = np.argsort(sizes, kind="stable")
    rows, sizes = rows[order], sizes[order]
    # In this order the masks compared for one number are neighbours.
    starts, stops = _nearest(sizes, wanted)
    used = np.flatnonzero(np.cumsum(np.bincount(starts, minlength=len(rows) + 1) - np.bincount(stops, minlength=len(rows) + 1))[:-1])
    residuals = np.zeros(len(rows))
    residuals[used] = np.abs(known.values[rows[used]] - surrogate.predict(known.masks[rows[used]]))
    widths = {(start, stop): _quantile(residuals[start:stop]) for start, stop in set(zip(starts.tolist(), stops.tolist(), strict=True))}
    outside = (wanted < sizes[starts]) | (wanted > sizes[stops - 1])
    return [
        Bound(*widths[start, stop], stop - start, extrapolated)
        for start, stop, extrapolated in zip(starts.tolist(), stops.tolist(), outside.tolist(), strict=True)
    ]


def _nearest(sizes: NDArray[np.intp], wanted: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each wanted size the half-open range of ascending sizes that are the `COMPARED` nearest, with all that tie with the last of them."""
    few, most = np.full(len(wanted), -1), np.full(len(wanted), int(max(sizes[-1], wanted.max())))
    while (most - few > 1).any():  # bisection: within `most` lie enough, within `few` too few
        middle = (few + most) // 2
        enough = np.searchsorted(sizes, wanted + middle, "right") - np.searchsorted(sizes, wanted - middle, "left") >= min(COMPARED, len(sizes))
        few, most = np.where(enough, few, middle), np.where(enough, middle, most)
    return np.searchsorted(sizes, wanted - most, "left"), np.searchsorted(sizes, wanted + most, "right")


def _quantile(residuals: Floats) -> tuple[float, float]:
    """The conformal quantile of absolute residuals and its guaranteed coverage: `LEVEL`, or less if there are too few residuals."""
    count = len(residuals)
    rank = min(ceil((count + 1) * LEVEL), count)
    return float(np.partition(residuals, rank - 1)[rank - 1]), min(LEVEL, count / (count + 1))


def deviations(surrogate: FourierSurrogate, known: Measured, sets: Sequence[tuple[int, ...]]) -> tuple[Floats, Floats]:
    """Deviations from additivity around the intact input that a surrogate predicts for sets, and the half-widths of their intervals, float64 `(len(sets),)` each.

    A deviation is a sum of values without parts of the set, up to signs. The half-widths of those that were predicted add up; those written into the surrogate are
    certain. NaN if there are no masks outside the fit to learn half-widths from. The deviation of a single component is its effect.
    """
    parts = {part: None for members in sets for size in range(1, len(members) + 1) for part in combinations(sorted(members), size)}
    ordered = [(), *sorted(parts, key=lambda part: (len(part), part))]
    masks = ablations(surrogate.n, ordered)
    found = measure(masks, surrogate.predict(masks), ordered[1:])
    sizes = np.arange(max(map(len, ordered)) + 1)
    by_size = np.array([np.nan if bound.half_width is None else bound.half_width for bound in bounds(surrogate, known, sizes)])
    unsure = np.where(surrogate.written(masks), 0.0, by_size[[len(part) for part in ordered]])
    width = dict(zip(ordered, unsure.tolist(), strict=True))
    subsets = [[part for size in range(len(members) + 1) for part in combinations(sorted(members), size)] for members in sets]
    return np.array([found[tuple(sorted(members))] for members in sets]), np.array([sum(width[part] for part in of_set) for of_set in subsets])


# ---- from the store


def predict_stored(store: "ActionStore | StoreReader", run_id: str, masks: Masks, query: int | None = None) -> list[Prediction]:
    """Predictions of a stored run, or of one of its queries, for masks (bool, `(k, n)`). UserError for a run without a surrogate and for an unknown query."""
    row = store.run_row(run_id)
    surrogate = store.surrogate(run_id, query)
    measured = store.known(row["game_id"], masks) if query is None else store.outputs(row["game_id"], masks)[:, query]
    labels = [component.label for component in store.components(row["game_id"])]
    return predict(surrogate, measured_by(store, run_id, query), masks, labels, measured)


def measured_by(store: "ActionStore | StoreReader", run_id: str, query: int | None = None) -> Measured:
    """The evaluations of a stored run with its values, or with those of one of its queries."""
    rows = store.run_evaluations(run_id)
    return Measured.of(rows, rows["value"].to_numpy() if query is None else store.run_outputs(run_id)[:, query])


def as_json(found: Prediction) -> dict[str, Any]:
    """A prediction as a JSON-serialisable dict."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(found).items()}
