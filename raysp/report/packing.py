"""Columns of numbers for a page's script: typed arrays in base64, a third of the size of digits and exact."""

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, pack
from raysp.report.layout import Effects
from raysp.report.readings import ON_AVERAGE
from raysp.report.words import KINDS, shortened
from raysp.runs.prediction import Bound, bounds, caution, measured_by
from raysp.spectral.fourier import FourierSurrogate

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.game import Component
    from raysp.store.reading import StoreReader

Packed = dict[str, str]
LABEL = 120
"""Characters of a label that the script has."""
MOST_TERMS = 20_000
"""Terms of the largest surrogate that a page holds: more would make it too large to send around."""
MOST_MASKS = 700_000
"""Characters of the measured masks of the largest surrogate that a page holds: 2,000 masks of 2,000 components."""
FIGURES = ("value", "lo", "hi", "estimate", "estimate_lo", "estimate_hi", "exact")


def packed(values: NDArray[Any], kind: str) -> Packed:
    """An array as `raysp.unpacked` of `base.js` reads it; `kind` is a NumPy type such as float32."""
    return {"type": kind, "base64": base64.b64encode(np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<")).tobytes()).decode()}


def components(parts: "Sequence[Component]", effects: Effects) -> dict[str, Any]:
    """The labels of the components, shortened, and their single effects (NaN where there is none): those by which they are ranked, and `beside` the other reading."""

    def column(values: Mapping[int, float]) -> Packed:
        return packed(np.array([values.get(component.index, np.nan) for component in parts]), "float32")

    told = {"labels": [shortened(component.label, LABEL) for component in parts], "effects": column(effects.values), "largest": effects.largest}
    return told | ({"beside": column(effects.beside), "readings": [ON_AVERAGE, effects.place]} if effects.beside else {})


def interactions(table: "pa.Table", index: str | None, n: int) -> dict[str, Any]:
    """All interactions of a run over `n` components in the order of their ranks, by column; `members` holds those of one set after those of another."""
    kinds = [*KINDS]
    figures = {name: packed(_floats(table[name]), "float32") for name in FIGURES}
    return {
        "count": table.num_rows,
        "index": index,
        "orders": packed(table["order"].to_numpy(), "uint8"),
        "members": packed(table["components"].combine_chunks().flatten().to_numpy(), _indices(n)),
        "kinds": kinds,
        "kind": packed(np.array([kinds.index(kind) if kind in kinds else kinds.index("additive") for kind in table["kind"].to_pylist()]), "uint8"),
        "weak": packed(np.array([flag is False for flag in table["significant"].to_pylist()]), "uint8"),
        **figures,
    }


def what_if(store: "StoreReader", run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The surrogate of a run as the page evaluates it, with the bounds of its predictions; None if it has none, and only its sizes if it is too large.

    `orders` counts the terms of each order, `components` are their members in that sequence, and `coefficients` theirs without those of the tails. `tails` are sums
    of products around the masks of `centres`, and `points` masks with the residuals of their measured values; see `FourierSurrogate`. `bounds` has an entry where
    they change as the number of components removed grows: that number, half-width, coverage, masks compared, and the place of what to tell the reader in
    `cautions`, or None.
    """
    if not store.has_surrogate(run["run_id"]):
        return None
    surrogate = store.surrogate(run["run_id"])
    centres, tails = _tails(surrogate)
    nowhere = np.zeros((0, surrogate.n), dtype=np.bool_)
    written = packed_masks(nowhere if surrogate.points is None else surrogate.points.masks)
    around = [packed_masks(masks) for masks in centres]
    sizes = {"terms": len(surrogate), "masks": sum(each["count"] for each in (*around, written))}
    if len(surrogate) > MOST_TERMS or sum(len(column["base64"]) for each in (*around, written) for column in each["columns"].values()) > MOST_MASKS:
        return sizes
    blocks = surrogate.sets.blocks
    steps, cautions = _steps(bounds(surrogate, measured_by(store, run["run_id"])))
    return sizes | {
        "basis": surrogate.keep_probability,
        "intact": run["value_intact"],
        "orders": [len(block) for block in blocks],
        "components": packed(np.concatenate([np.zeros(0, np.int32), *(block.ravel() for block in blocks)]), _indices(surrogate.n)),
        "coefficients": packed(surrogate.apart, "float64"),
        "centres": around,
        "tails": tails,
        "points": written | {"residuals": packed(np.zeros(0) if surrogate.points is None else surrogate.points.residuals, "float64")},
        "bounds": steps,
        "cautions": cautions,
    }


def packed_masks(masks: Masks) -> dict[str, Any]:
    """Masks (bool, `(m, n)`) as `whatif.js` reads them: their number, and in `columns` either their bits, or how many components each removes and which."""
    count, n = masks.shape
    rows, which = np.nonzero(~masks)
    bits, gone = -(-n // 8) * count, 4 * count + np.dtype(_indices(n)).itemsize * len(which)
    if bits <= gone:
        return {"count": count, "columns": {"bits": packed(pack(masks), "uint8")}}
    return {"count": count, "columns": {"sizes": packed(np.bincount(rows, minlength=count), "uint32"), "removed": packed(which, _indices(n))}}


def _tails(surrogate: FourierSurrogate) -> tuple[list[Masks], list[dict[str, Any]]]:
    """The tails of a surrogate, and the lists of centres that they refer to by number: several tails may have the same ones.

    The factors of a component are given by their logarithms: if mask and centre keep it, if one of them does, and if neither does.
    """
    centres: list[Masks] = []
    tails: list[dict[str, Any]] = []
    for each in surrogate.tails:
        place = next((number for number, masks in enumerate(centres) if np.array_equal(masks, each.centres)), len(centres))
        if place == len(centres):
            centres.append(each.centres)
        kept, mixed, gone = (packed(np.log(factor), "float64") for factor in each.tail.factors())
        tails.append({"centres": place, "weights": packed(each.tail.variance * each.weights, "float64"), "kept": kept, "mixed": mixed, "gone": gone})
    return centres, tails


def _steps(every: Sequence[Bound]) -> tuple[list[list[Any]], list[str]]:
    cautions: list[str] = []
    steps: list[list[Any]] = []
    for removed, bound in enumerate(every):
        told = caution(bound)
        if told and told not in cautions:
            cautions.append(told)
        step = [removed, bound.half_width, bound.coverage, bound.compared, cautions.index(told) if told else None]
        if not steps or steps[-1][1:] != step[1:]:
            steps.append(step)
    return steps, cautions


def _indices(n: int) -> str:
    """The type that holds indices of so many components."""
    return "uint16" if n <= 1 << 16 else "uint32"


def _floats(column: "pa.ChunkedArray") -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in column.to_pylist()], dtype=np.float64)
