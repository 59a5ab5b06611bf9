"""Turn findings and their validation into the reported tables: every interaction with its labels, its kind and, if measured, its exact value."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from raysp.explorers.base import Findings
from raysp.explorers.candidates import measure
from raysp.game import GameInfo, labels
from raysp.runs.layer_energy import energy_by_layer
from raysp.sampling.ablations import ablations
from raysp.spectral.fourier import FourierSurrogate
from raysp.validation import ValidationResult, surrogate_kinds

# Predicting the deviation of a set takes 2^order sub-ablations, which is too expensive above this order.
MAX_ESTIMATED_ORDER = 6
# The number of interactions reported; others can be computed from the stored surrogate.
REPORTED = 500


def annotate(findings: Findings, validation: ValidationResult, info: GameInfo) -> pa.Table:
    """Return the interactions with rank, labels, kind (synergy or redundancy), the predicted deviation from additivity and, if measured, the exact one."""
    table = findings.table.slice(0, REPORTED)
    sets: list[tuple[int, ...]] = [tuple(members) for members in table["components"].to_pylist()]
    estimated = surrogate_kinds(findings.surrogate, sets)
    exact = {tuple(row["components"]): row for row in validation.table.to_pylist()}
    measured = [exact.get(members) for members in sets]
    kinds = [row["kind"] if row else kind for row, kind in zip(measured, estimated["kind"].to_pylist(), strict=True)]
    columns: dict[str, Any] = {
        "rank": pa.array(range(1, len(sets) + 1), pa.int32()),
        "labels": [labels(info.components, members) for members in sets],
        "kind": pa.array(kinds, pa.string()),
        "estimate": pa.array(_estimates(findings.surrogate, sets), pa.float64()),
        "exact": pa.array([row["exact"] if row else None for row in measured], pa.float64()),
        "verified": pa.array([row is not None for row in measured], pa.bool_()),
    }
    for name, column in columns.items():
        table = table.append_column(name, column if isinstance(column, pa.ChunkedArray) else pa.array(column))
    return table


def _estimates(surrogate: FourierSurrogate, sets: Sequence[tuple[int, ...]]) -> list[float | None]:
    """Return the deviation from additivity around the intact input that the surrogate predicts for each set."""
    wanted = {
        part for members in sets if len(members) <= MAX_ESTIMATED_ORDER for size in range(1, len(members) + 1) for part in itertools.combinations(members, size)
    }
    masks = ablations(surrogate.n, [(), *sorted(wanted)])
    found = measure(masks, surrogate.predict(masks), sorted(wanted, key=lambda part: (len(part), part)))
    return [found.get(members) for members in sets]


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
