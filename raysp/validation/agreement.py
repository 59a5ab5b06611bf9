"""Compare single effects with other attribution methods: a cross-check reported beside the answer, on which the verdict does not depend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from raysp.gradients import GradientReport
from raysp.masks import Values
from raysp.spectral.regression import rank_correlation
from raysp.validation.verdicts import Figures, Reason

if TYPE_CHECKING:
    import pyarrow as pa

#: Number of strongest components whose overlap is reported.
STRONGEST = 5

#: The source of the single effects used for comparison: all measured exactly, only those measured exactly, or all from the surrogate.
Source = Literal["removed", "some_removed", "surrogate"]

NOTHING = Reason("cross_check_missing", {}, "Cross-check: this game has no gradients or attentions to compare single effects with.")


@dataclass(frozen=True)
class Agreement:
    """The agreement of attribution methods with the single effects.

    `metrics` has for each method `spearman`, its rank correlation with the single effects (None if either does not vary), and `top`, the share of the five
    strongest components that they have in common. `table` has columns method string, component int32, value double. `reasons` report these figures; `missing`
    are the reasons about methods that are not available.
    """

    metrics: dict[str, dict[str, float | None]]
    table: pa.Table
    reasons: tuple[Reason, ...]
    missing: tuple[Reason, ...]


def compare_attributions(report: GradientReport, singles: pa.Table) -> Agreement:
    """Compare a report's effects on the value with the single effects of a `Findings.singles` table.

    Only effects measured exactly count if there are any; otherwise the surrogate's. Unsigned methods are compared with the effects' sizes.
    """
    found = {method: report.singles(method) for method in report.effects}
    rows, source = _effects(singles)
    effects = np.asarray(singles["value"].to_numpy(), dtype=np.float64)[rows]
    left_out = tuple(Reason("cross_check_missing", {}, f"Cross-check: {note}.") for note in report.notes)
    metrics: dict[str, dict[str, float | None]] = {}
    reasons: list[Reason] = []
    for method, values in found.items():
        truth = np.abs(effects) if method in report.unsigned else effects
        count = min(STRONGEST, len(truth))
        shared = len(_strongest(truth, count) & _strongest(values[rows], count))
        correlation = rank_correlation(truth, values[rows])
        metrics[method] = {"spearman": correlation, "top": shared / count}
        figures: Figures = {"method": method, "top": shared / count, "compared": len(rows), "source": source}
        figures |= {} if correlation is None else {"spearman": correlation}
        ranked = _ranked(method, correlation, unsigned=method in report.unsigned)
        reasons.append(Reason("cross_check", figures, f"Cross-check: {ranked} (top {count}: {shared} shared){_explained(source, len(rows))}."))
    missing = left_out if found or left_out else (NOTHING,)
    return Agreement(metrics, _table(found), (*reasons, *missing), missing)


def _ranked(method: str, correlation: float | None, *, unsigned: bool) -> str:
    name, compared = method.replace("_", " "), "the sizes of single effects" if unsigned else "single effects"
    if correlation is None:
        return f"{name} cannot be compared with {compared}, because one of the two does not vary"
    return f"{name} {'rank' if name.endswith('s') else 'ranks'} {compared} with correlation {correlation:+.2f}"


def _effects(singles: pa.Table) -> tuple[NDArray[np.intp], Source]:
    """The rows whose effects are compared, and their source."""
    exact = np.flatnonzero([method == "removed" for method in singles["method"].to_pylist()])
    if len(exact):
        return exact, "removed" if len(exact) == singles.num_rows else "some_removed"
    return np.arange(singles.num_rows), "surrogate"


def _explained(source: Source, count: int) -> str:
    match source:
        case "removed":
            return ""
        case "some_removed":
            return f", among the {count} components whose single effect was measured"
        case "surrogate":
            return ", by the surrogate's single effects, because none were measured exactly"


def _strongest(values: Values, count: int) -> set[int]:
    return set(np.argsort(-np.abs(values), kind="stable")[:count].tolist())


def _table(found: dict[str, Values]) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {
            "method": pa.array([method for method, values in found.items() for _ in values], pa.string()),
            "component": pa.array([number for values in found.values() for number in range(len(values))], pa.int32()),
            "value": pa.array([float(value) for values in found.values() for value in values], pa.float64()),
        }
    )
