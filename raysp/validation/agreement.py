"""How other attributions rank single effects: a cross-check beside the answer, which the verdict does not rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raysp.game import Attributions
from raysp.masks import Values

if TYPE_CHECKING:
    import pyarrow as pa

#: Of so many strongest components it is said how many are shared.
STRONGEST = 5

NOTHING = "Cross-check: this game has no gradients or attentions to compare_attributions single effects with."


@dataclass(frozen=True)
class Agreement:
    """What a run says of its cross-checks.

    `metrics` holds by method `spearman`, the rank correlation with the single effects (None where one of the two does not vary), and `top`, the share of
    the five strongest components that both have. `table` has columns method string, component int32, value double. `sentences` say it all in
    words, `notes` are those of them on what is missing.
    """

    metrics: dict[str, dict[str, float | None]]
    table: pa.Table
    sentences: tuple[str, ...]
    notes: tuple[str, ...]


def compare_attributions(found: Mapping[str, Values], singles: pa.Table) -> Agreement:
    """Attributions by method (float64 `(n,)`) against the single effects of a `Findings.singles` table.

    Against those measured exactly, where there are any; otherwise against those that the surrogate has. Methods without a sign are compared with sizes.
    """
    rows, source = _effects(singles)
    effects = np.asarray(singles["value"].to_numpy(), dtype=np.float64)[rows]
    unsigned = found.unsigned if isinstance(found, Attributions) else frozenset[str]()
    left_out = tuple(f"Cross-check: {note}." for note in found.notes) if isinstance(found, Attributions) else ()
    metrics: dict[str, dict[str, float | None]] = {}
    sentences: list[str] = []
    for method, values in found.items():
        truth = np.abs(effects) if method in unsigned else effects
        count = min(STRONGEST, len(truth))
        shared = len(_strongest(truth, count) & _strongest(values[rows], count))
        correlation = _spearman(truth, values[rows])
        metrics[method] = {"spearman": correlation, "top": shared / count}
        what = "the sizes of single effects" if method in unsigned else "single effects"
        name = method.replace("_", " ")
        ranks = f"{'rank' if name.endswith('s') else 'ranks'} {what} with correlation"
        told = f"{ranks} {correlation:+.2f}" if correlation is not None else f"cannot be compared with {what}, as one of the two does not vary"
        sentences.append(f"Cross-check: {name} {told} (top {count}: {shared} shared){source}.")
    notes = left_out if found or left_out else (NOTHING,)
    return Agreement(metrics, _table(found), (*sentences, *notes), notes)


def _effects(singles: pa.Table) -> tuple[NDArray[np.intp], str]:
    """The rows whose effects are compared with, and words on where these come from."""
    exact = np.flatnonzero([method == "removed" for method in singles["method"].to_pylist()])
    if len(exact) == singles.num_rows:
        return exact, ""
    if len(exact):
        return exact, f", among the {len(exact)} components whose single effect was measured"
    return np.arange(singles.num_rows), ", by the surrogate's single effects, as none were measured exactly"


def _strongest(values: Values, count: int) -> set[int]:
    return set(np.argsort(-np.abs(values), kind="stable")[:count].tolist())


def _spearman(one: Values, other: Values) -> float | None:
    from scipy.stats import rankdata

    if not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return None
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def _table(found: Mapping[str, Values]) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {
            "method": pa.array([method for method, values in found.items() for _ in values], pa.string()),
            "component": pa.array([number for values in found.values() for number in range(len(values))], pa.int32()),
            "value": pa.array([float(value) for values in found.values() for value in values], pa.float64()),
        }
    )
