"""Descriptions of charts as plain data, which `templates/charts.js` draws.

A chart is a dict that JSON can hold. `kind` decides what else it has; numbers may be None where there is none:

- `bars`: a horizontal bar for each of `labels`, of `values`, with an interval from `lo` to `hi` where these are given; `x` is the title of the axis. `beside`
  has a `name` and `values` of its own, drawn as marks over the bars, which have the name `name` then.
- `points`: `series` of points over axes titled `x` and `y`. With `diagonal` both axes have the same range and a line where they are equal; with `zero` each
  axis has a line at 0. A series may have `texts`, one a point, shown in the tooltip before its coordinates.
- `curves`: `series` of points in ascending order of x, joined by lines, with error bars from `lo` to `hi` where given. `reference` is a name and a value, drawn
  as a line across; `suffix` follows the numbers of the x axis. `tips` of a series replace the tooltips.
- `dumbbells`: a line for each of `labels` between the `values` of two or more `series`; `x` is the title of the axis.

A series has a `name`, a `look` (one of `LOOKS`: the colour, as a class of `charts.css`), a `symbol` (circle, square, diamond or cross, hollow with `-open`), a
`dash` (solid, dash or dot) if lines join its points, and `x` and `y`, or `values`.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from raysp.report import pruning
from raysp.report.numbers import number
from raysp.report.readings import ON_AVERAGE, both
from raysp.report.words import shortened
from raysp.runs.singles import Single

Chart = dict[str, Any]
TableRows = Sequence[Mapping[str, Any]]

LOOKS = ("ink", "muted", "faint", "pos", "neg", "syn", "red")
BARS = 25
"""Single effects in a chart."""
VERIFIED = 1000
"""Measured sets in a chart."""
DIGITS = 4
"""Significant digits of the numbers of a chart."""
CURVES = (
    ("ink", "circle", "solid"), ("muted", "circle-open", "dash"), ("pos", "square", "solid"), ("pos", "square-open", "dash"),
    ("neg", "diamond", "dash"), ("faint", "cross", "dot"),
)  # fmt: skip
"""Look, symbol and dash of the curves, in the order of the methods."""
APART = 0.5
"""Horizontal offset between the points of two curves, in percent of components, so that their intervals do not overlap."""


def single_effects(singles: Sequence[Single], place: str) -> Chart | None:
    """A bar for each of the strongest single effects, with its interval, and a mark where it is at the intact input, called `place`, if it is known there too.

    `singles` are in the order of their strength.
    """
    rows = singles[:BARS]
    if not rows:
        return None
    chart: Chart = {
        "kind": "bars", "x": "single effect", "labels": [shortened(row.label, 120) for row in rows], "values": _rounded(row.effect for row in rows),
    }  # fmt: skip
    if any(row.estimated for row in rows):
        chart |= {"lo": _rounded(row.interval[0] for row in rows), "hi": _rounded(row.interval[1] for row in rows)}
    if both(rows):
        chart |= {"name": ON_AVERAGE, "beside": {"name": place, "values": _rounded(row.beside for row in rows)}}
    return chart


def heldout_scatter(heldout: TableRows) -> Chart | None:
    """Predicted against exact values of the held-out ablations, with and without interactions."""
    if not heldout:
        return None
    exact = [row["exact"] for row in heldout]
    series: list[Chart] = []
    if all(row["predicted_singles"] is not None for row in heldout):
        series.append(_points("single effects alone", "faint", "circle-open", exact, [row["predicted_singles"] for row in heldout]))
    series.append(_points("with interactions", "ink", "circle", exact, [row["predicted"] for row in heldout]))
    return {"kind": "points", "x": "exact value", "y": "predicted value", "diagonal": True, "series": series}


def verified_scatter(validations: TableRows) -> Chart | None:
    """Predicted against exact deviations from additivity of the sets that were measured, the `VERIFIED` with the largest ones."""
    largest = sorted((row for row in validations if row["estimate"] is not None), key=lambda row: -abs(row["exact"]))[:VERIFIED]
    series: list[Chart] = []
    for kind, look, symbol in (("synergy", "syn", "circle"), ("redundancy", "red", "diamond"), ("additive", "faint", "cross")):
        rows = [row for row in largest if (row["kind"] or "additive") == kind]
        if rows:
            points = _points(kind, look, symbol, [row["exact"] for row in rows], [row["estimate"] for row in rows])
            series.append(points | {"texts": [shortened(row["labels"], 120) for row in rows]})
    return {"kind": "points", "x": "exact deviation", "y": "predicted deviation", "diagonal": True, "series": series} if series else None


def pruning_curves(prunings: TableRows) -> Chart | None:
    """The value by share of components kept, a curve for each method, with the intact model as a line across."""
    methods = pruning.methods(prunings)
    if not methods:
        return None
    series: list[Chart] = []
    for at, method in enumerate(methods):
        rows = sorted((row for row in prunings if row["method"] == method and pruning.score(row) is not None), key=lambda row: row["keep"])
        if rows:
            series.append(_curve(method, rows, at, APART * (at - (len(methods) - 1) / 2)))
    chart: Chart = {"kind": "curves", "x": "share of components kept", "y": "value", "suffix": " %", "series": series}
    whole = pruning.intact(prunings)
    if whole is not None and (value := pruning.score(whole)) is not None:
        chart["reference"] = {"name": "intact model", "value": value}
    return chart


def _curve(method: str, rows: list[Mapping[str, Any]], at: int, shift: float) -> Chart:
    look, symbol, dash = CURVES[min(at, len(CURVES) - 1)]
    title, scores = pruning.title(method), [pruning.score(row) or 0.0 for row in rows]
    curve = _points(title, look, symbol, [100 * row["keep"] + shift for row in rows], scores) | {"dash": dash}
    curve["tips"] = [f"{title}: {number(score, signed=False)} with {row['kept']} kept" for row, score in zip(rows, scores, strict=True)]
    if all(row["lo"] is not None and row["hi"] is not None for row in rows):
        curve |= {"lo": _rounded(row["lo"] for row in rows), "hi": _rounded(row["hi"] for row in rows)}
    return curve


def attributions(rows: TableRows, measured: Sequence[float], against: str) -> Chart | None:
    """Attributions by a method against the measured single effects; `against` is the title of that axis."""
    if not rows:
        return None
    points = _points("", "ink", "circle", measured, [row["value"] for row in rows]) | {"texts": [shortened(row["label"], 80) for row in rows]}
    return {"kind": "points", "x": against, "y": "attributed", "zero": True, "series": [points]}


def fits_of_runs(rows: TableRows) -> Chart | None:
    """Held-out R² of each run of a set next to that of single effects alone."""
    return _gains([(row["title"], row["r2_singles"], row["r2"]) for row in rows if row["r2"] is not None], "held-out R²")


def fits_of_queries(scores: TableRows) -> Chart | None:
    """The linear datamodeling score of each query next to that of single effects alone."""
    return _gains([(row["label"], row["lds_singles"], row["lds"]) for row in scores if row["lds"] is not None], "LDS")


def _gains(rows: Sequence[tuple[str, float | None, float]], title: str) -> Chart | None:
    """A line for each row, from the score of single effects alone to the score with interactions."""
    if not rows:
        return None
    names, alone, full = zip(*rows, strict=True)
    series = [
        {"name": "single effects alone", "look": "faint", "symbol": "circle-open", "values": _rounded(alone)},
        {"name": "with interactions", "look": "ink", "symbol": "circle", "values": _rounded(full)},
    ]
    return {"kind": "dumbbells", "x": title, "labels": [shortened(name, 120) for name in names], "series": series}


def _points(name: str, look: str, symbol: str, x: Sequence[float], y: Sequence[float]) -> Chart:
    return {"name": name, "look": look, "symbol": symbol, "x": _rounded(x), "y": _rounded(y)}


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None or not isfinite(value) else float(f"{value:.{DIGITS}g}") for value in values]
