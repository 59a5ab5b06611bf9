"""Columns of numbers for a page's script: typed arrays in base64, a third of the size of digits and exact."""

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raysp.report.layout import Effects
from raysp.report.readings import ON_AVERAGE
from raysp.report.words import KINDS, shortened
from raysp.runs.prediction import Bound, bounds, caution, measured_by

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.game import Component
    from raysp.store.reading import StoreReader

Packed = dict[str, str]
LABEL = 120
"""Characters of a label that the script has."""
MOST_TERMS = 20_000
"""Terms of the largest surrogate that a page holds: more would make it too large to send around."""
FIGURES = ("value", "lo", "hi", "estimate", "exact")


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
    """The surrogate of a run as the page evaluates it, with the bounds of its predictions; None if it has none, and only `terms` if these are too many.

    `orders` counts the terms of each order, `components` are their members in that sequence, and `bounds` has an entry where they change as the number of
    components removed grows: that number, half-width, coverage, masks compared, and the place of what to tell the reader in `cautions`, or None.
    """
    if not store.has_surrogate(run["run_id"]):
        return None
    surrogate = store.surrogate(run["run_id"])
    if len(surrogate) > MOST_TERMS:
        return {"terms": len(surrogate)}
    blocks = surrogate.sets.blocks
    steps, cautions = _steps(bounds(surrogate, measured_by(store, run["run_id"])))
    return {
        "terms": len(surrogate),
        "basis": surrogate.keep_probability,
        "intact": run["value_intact"],
        "orders": [len(block) for block in blocks],
        "components": packed(np.concatenate([np.zeros(0, np.int32), *(block.ravel() for block in blocks)]), _indices(surrogate.n)),
        "coefficients": packed(surrogate.coefficients, "float64"),
        "bounds": steps,
        "cautions": cautions,
    }


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
