"""The Arrow tables that explorers return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raysp.masks import Masks, Values
from raysp.sampling.matching import lookup_removed
from raysp.spectral.fourier import Z95, FourierSurrogate
from raysp.spectral.indices import UNIFORM
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa


#: The method of a single effect that was neither measured nor estimated.
UNMEASURED = "unmeasured"


def singles_table(values: Floats, errors: Floats, methods: list[str], average: tuple[Floats, Floats] | None = None) -> pa.Table:
    """Tabulate single effects with their standard errors, float64 `(n,)` each; `average` are the mean effects over contexts with theirs.

    Columns: component int32, value, lo and hi double (95% interval), method string, and average, average_lo and average_hi double (null without `average`,
    and where it or its standard error is NaN).
    """
    import pyarrow as pa

    return pa.table(
        {
            "component": pa.array(np.arange(len(values)), pa.int32()),
            "value": pa.array(values, pa.float64()),
            "lo": pa.array(values - Z95 * errors, pa.float64()),
            "hi": pa.array(values + Z95 * errors, pa.float64()),
            "method": pa.array(methods, pa.string()),
            **{name: pa.array(column, pa.float64(), from_pandas=True) for name, column in _averages(len(values), average).items()},
        }
    )


def _averages(n: int, average: tuple[Floats, Floats] | None) -> dict[str, Any]:
    if average is None:
        return dict.fromkeys(("average", "average_lo", "average_hi"), [None] * n)
    mean, errors = average
    return {"average": mean, "average_lo": mean - Z95 * errors, "average_hi": mean + Z95 * errors}


def removed_effects(masks: Masks, values: Values) -> Floats | None:
    """Δ(i) = v(all) - v(all without i) for every component, float64 `(n,)`, or None unless all of these masks were measured."""
    rows = lookup_removed(masks)
    return None if np.any(rows < 0) else values[rows[0]] - values[rows[1:]]


def effects_table(surrogate: FourierSurrogate, removed: Floats | None, method: str = "surrogate") -> pa.Table:
    """Tabulate single effects in both readings: at the intact input, if they were measured (`removed`, `(n,)`), and on average over contexts.

    Without measured ones, the averages stand in both places, as effects at the intact input would be an extrapolation.
    """
    values, errors = banzhaf_effects(surrogate)
    if removed is None:
        return singles_table(values, errors, [method] * surrogate.n, (values, errors))
    return singles_table(removed, np.zeros(surrogate.n), ["removed"] * surrogate.n, (values, errors))


def banzhaf_effects(surrogate: FourierSurrogate) -> tuple[Floats, Floats]:
    """The mean effect of keeping each component over contexts like those the surrogate was fitted on, and its standard error, float64 `(n,)` each.

    These are Banzhaf values if masks keep each component with probability one half, and weighted Banzhaf values (`wbii`) otherwise, as values at one half
    would then be an extrapolation.
    """
    sets, found, errors = surrogate.index("bv") if surrogate.keep_probability == UNIFORM else surrogate.index("wbii", 1, 1)
    values, widths = np.zeros(surrogate.n), np.zeros(surrogate.n)
    if len(found):
        members = sets.blocks[1][:, 0]
        values[members], widths[members] = found[-len(members) :], errors[-len(members) :]
    return values, widths
