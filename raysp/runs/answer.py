"""Turn findings and their validation into the reported tables: every interaction with its labels, its kind and, if measured, its exact value."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raysp.explorers.base import Findings
from raysp.game import GameInfo, labels
from raysp.runs.layer_energy import energy_by_layer
from raysp.runs.prediction import Measured, deviations
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import Floats
from raysp.validation import ValidationResult, surrogate_kinds

# Predicting the deviation of a set takes 2^order sub-ablations, which is too expensive above this order.
MAX_ESTIMATED_ORDER = 6
# The number of interactions reported; others can be computed from the stored surrogate.
REPORTED = 500


def annotate(findings: Findings, validation: ValidationResult, info: GameInfo, known: Measured) -> pa.Table:
    """Return the interactions with rank, labels, kind (synergy or redundancy), the predicted deviation from additivity and, if measured, the exact one.

    The intervals of predicted deviations come from the evaluations `known` to the run.
    """
    table = findings.table.slice(0, REPORTED)
    sets: list[tuple[int, ...]] = [tuple(members) for members in table["components"].to_pylist()]
    estimated = surrogate_kinds(findings.surrogate, sets)
    exact = {tuple(row["components"]): row for row in validation.table.to_pylist()}
    measured = [exact.get(members) for members in sets]
    estimates, widths = _estimates(findings.surrogate, known, sets)
    kinds = [row["kind"] if row else kind for row, kind in zip(measured, estimated["kind"].to_pylist(), strict=True)]
    columns: dict[str, Any] = {
        "rank": pa.array(range(1, len(sets) + 1), pa.int32()),
        "labels": [labels(info.components, members) for members in sets],
        "kind": pa.array(kinds, pa.string()),
        "estimate": pa.array(estimates, pa.float64(), from_pandas=True),
        "estimate_lo": pa.array(estimates - widths, pa.float64(), from_pandas=True),
        "estimate_hi": pa.array(estimates + widths, pa.float64(), from_pandas=True),
        "exact": pa.array([row["exact"] if row else None for row in measured], pa.float64()),
        "verified": pa.array([row is not None for row in measured], pa.bool_()),
    }
    for name, column in columns.items():
        table = table.append_column(name, column if isinstance(column, pa.ChunkedArray) else pa.array(column))
    return table


def _estimates(surrogate: FourierSurrogate, known: Measured, sets: Sequence[tuple[int, ...]]) -> tuple[Floats, Floats]:
    """The deviation from additivity that the surrogate predicts for each set, and the half-width of its interval, float64 `(len(sets),)`; NaN for large sets."""
    found = np.full((2, len(sets)), np.nan)
    rows = [row for row, members in enumerate(sets) if len(members) <= MAX_ESTIMATED_ORDER]
    found[:, rows] = deviations(surrogate, known, [sets[row] for row in rows])
    return found[0], found[1]


def summarise(findings: Findings, validation: ValidationResult, info: GameInfo, *, intact: float, empty: float) -> dict[str, Any]:
    """Return the run's summary: the intact and empty values, the surrogate's R² beside that of single effects, and the verdict."""
    metrics = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in validation.metrics.items()}
    return {
        "value_intact": intact,
        "value_empty": empty,
        "index": findings.index,
        "verdict": validation.verdict,
        "reasons": [reason.row() for reason in validation.reasons],
        **{key: metrics.get(key) for key in ("r2", "r2_lo", "r2_hi", "r2_singles")},
        "metrics": metrics,
        "diagnostics": findings.diagnostics | _by_layer(findings, info),
    }


def _by_layer(findings: Findings, info: GameInfo) -> dict[str, Any]:
    """Return how the surrogate's energy is distributed over the model's layers, if its components belong to layers."""
    found = energy_by_layer(findings.surrogate, info.components)
    return {} if found is None else {"by_layer": found}
