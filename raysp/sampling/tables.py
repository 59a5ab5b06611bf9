"""The Arrow tables that explorers return."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def singles_table(values: Floats, errors: Floats, methods: list[str]) -> pa.Table:
    """Tabulate single effects with their standard errors, float64 `(n,)` each.

    Columns: component int32, value, lo and hi double (95% interval), method string.
    """
    import pyarrow as pa

    return pa.table(
        {
            "component": pa.array(np.arange(len(values)), pa.int32()),
            "value": pa.array(values, pa.float64()),
            "lo": pa.array(values - Z95 * errors, pa.float64()),
            "hi": pa.array(values + Z95 * errors, pa.float64()),
            "method": pa.array(methods, pa.string()),
        }
    )


def removed_effects(masks: Masks, values: Values) -> Floats | None:
    """Δ(i) = v(all) - v(all without i) for every component, float64 `(n,)`, or None unless all of these masks were measured."""
    rows = lookup_removed(masks)
    return None if np.any(rows < 0) else values[rows[0]] - values[rows[1:]]


def removed_table(effects: Floats) -> pa.Table:
    """Tabulate exactly measured single effects, as in `singles_table`."""
    return singles_table(effects, np.zeros(len(effects)), ["removed"] * len(effects))


def banzhaf_effects(surrogate: FourierSurrogate, method: str) -> pa.Table:
    """Tabulate the mean effect of keeping each component over contexts like those the surrogate was fitted on (zero for components without a term).

    These are Banzhaf values if masks keep each component with probability one half, and weighted Banzhaf values (`wbii`) otherwise, as values at one half
    would then be an extrapolation.
    """
    sets, found, errors = surrogate.index("bv") if surrogate.keep_probability == UNIFORM else surrogate.index("wbii", 1, 1)
    values, widths = np.zeros(surrogate.n), np.zeros(surrogate.n)
    if len(found):
        members = sets.blocks[1][:, 0]
        values[members], widths[members] = found, errors
    return singles_table(values, widths, [method] * surrogate.n)
