"""Plotly figures as plain data. Colours are names of CSS variables, which the page's script resolves for light and dark mode."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from raysp.report import pruning
from raysp.report.numbers import number
from raysp.report.words import shortened

Figure = dict[str, Any]
TableRows = Sequence[Mapping[str, Any]]

BARS = 25
CURVES = (
    ("--ink", "circle", "solid"), ("--muted", "circle-open", "dash"), ("--pos", "square", "solid"), ("--pos", "square-open", "dash"),
    ("--neg", "diamond", "dash"), ("--faint", "x", "dot"),
)  # fmt: skip
"""Colour, symbol and dash of the curves, in the order of the methods."""
APART = 0.5
"""Horizontal offset between the points of two curves, in percent of components, so that their intervals do not overlap."""


def single_effects(singles: TableRows) -> Figure | None:
    """A bar for each of the strongest single effects, with its interval."""
    rows = sorted(singles, key=lambda row: -abs(row["value"]))[:BARS][::-1]
    if not rows:
        return None
    intervals = [(row["lo"], row["hi"]) for row in rows]
    spread = all(lo is not None and hi is not None for lo, hi in intervals) and any(hi > lo for lo, hi in intervals)
    errors = {
        "type": "data", "symmetric": False, "thickness": 1, "width": 0, "color": "--faint",
        "array": [hi - row["value"] for row, (_, hi) in zip(rows, intervals, strict=True)],
        "arrayminus": [row["value"] - lo for row, (lo, _) in zip(rows, intervals, strict=True)],
    } if spread else None  # fmt: skip
    trace = {
        "type": "bar", "orientation": "h", "y": list(range(len(rows))), "x": [row["value"] for row in rows],
        "marker": {"color": ["--pos" if row["value"] >= 0 else "--neg" for row in rows]},
        "hovertext": [f"{_text(row['label'], 200)}: {number(row['value'])}" for row in rows], "hoverinfo": "text",
        **({"error_x": errors} if errors else {}),
    }  # fmt: skip
    ticks = {"tickvals": trace["y"], "ticktext": [_text(row["label"], 28) for row in rows], "ticks": ""}
    layout = _layout(height=70 + 22 * len(rows)) | {"yaxis": _axis("width") | ticks | {"showgrid": False, "range": [-0.7, len(rows) - 0.3]}, "bargap": 0.35}
    layout["xaxis"] = _axis("height", "single effect") | {"zeroline": True}
    return {"data": [trace], "layout": layout}


def heldout_scatter(heldout: TableRows) -> Figure | None:
    """Predicted against exact values of the held-out ablations, with and without interactions."""
    if not heldout:
        return None
    exact = [row["exact"] for row in heldout]
    traces: list[Figure] = []
    if all(row["predicted_singles"] is not None for row in heldout):
        traces.append(_points("single effects alone", exact, [row["predicted_singles"] for row in heldout], marker=_marker("--faint", "circle-open", 6)))
    traces.append(_points("with interactions", exact, [row["predicted"] for row in heldout], marker=_marker("--ink", "circle", 5)))
    return _scatter(traces, "exact value", "predicted value")


def verified_scatter(validations: TableRows) -> Figure | None:
    """Predicted against exact deviations from additivity of the sets that were measured."""
    traces: list[Figure] = []
    for kind, colour, symbol in (("synergy", "--syn", "circle"), ("redundancy", "--red", "diamond"), ("additive", "--faint", "x")):
        rows = [row for row in validations if (row["kind"] or "additive") == kind and row["estimate"] is not None]
        if rows:
            texts = [_text(row["labels"], 120) for row in rows]
            traces.append(_points(kind, [row["exact"] for row in rows], [row["estimate"] for row in rows], marker=_marker(colour, symbol, 8), texts=texts))
    return _scatter(traces, "exact deviation", "predicted deviation") if traces else None


def pruning_curves(prunings: TableRows) -> Figure | None:
    """The value by share of components kept, a curve for each method, with the intact model as a line across."""
    methods = pruning.methods(prunings)
    if not methods:
        return None
    traces: list[Figure] = []
    shares = [100 * row["keep"] for row in prunings if row["method"] in methods]
    ends = [min(shares) - 4, max(shares) + 4]
    whole = pruning.intact(prunings)
    if whole is not None and (value := pruning.score(whole)) is not None:
        line = {"color": "--muted", "width": 1, "dash": "dot"}
        traces.append({"type": "scatter", "mode": "lines", "name": "intact model", "x": ends, "y": [value, value], "line": line, "hoverinfo": "skip"})
    # The first method lies on top.
    for at, method in reversed(list(enumerate(methods))):
        rows = sorted((row for row in prunings if row["method"] == method and pruning.score(row) is not None), key=lambda row: row["keep"])
        if rows:
            traces.append(_curve(method, rows, at, APART * (at - (len(methods) - 1) / 2)))
    layout = _layout(height=380) | {"xaxis": _axis("height", "share of components kept") | {"range": ends, "ticksuffix": " %"}, "yaxis": _axis("width")}
    layout["legend"] |= {"traceorder": "reversed"}
    return {"data": traces, "layout": layout}


def _curve(method: str, rows: list[Mapping[str, Any]], at: int, shift: float) -> Figure:
    colour, symbol, dash = CURVES[min(at, len(CURVES) - 1)]
    scores = [pruning.score(row) or 0.0 for row in rows]
    curve = _points(pruning.title(method), [100 * row["keep"] + shift for row in rows], scores, marker=_marker(colour, symbol, 7))
    tips = [f"{pruning.title(method)}: {number(score, signed=False)} with {row['kept']} kept" for row, score in zip(rows, scores, strict=True)]
    if all(row["lo"] is not None and row["hi"] is not None for row in rows):
        curve["error_y"] = {
            "type": "data", "symmetric": False, "thickness": 1, "width": 0, "color": colour,
            "array": [row["hi"] - score for row, score in zip(rows, scores, strict=True)],
            "arrayminus": [score - row["lo"] for row, score in zip(rows, scores, strict=True)],
        }  # fmt: skip
    return curve | {"mode": "lines+markers", "line": {"color": colour, "width": 2, "dash": dash}, "hovertext": tips, "hoverinfo": "text"}


def attributions(rows: TableRows, measured: Sequence[float], against: str) -> Figure | None:
    """Attributions by a method against the measured single effects; `against` is the title of that axis."""
    if not rows:
        return None
    values = [row["value"] for row in rows]
    tips = [f"{_text(row['label'], 80)}<br>measured {number(effect)}, attributed {number(row['value'])}" for row, effect in zip(rows, measured, strict=True)]
    points = _points("", list(measured), values, marker=_marker("--ink", "circle", 6)) | {"hovertext": tips, "hoverinfo": "text"}
    across = _axis("height", against) | {"zeroline": True}
    return {"data": [points], "layout": _layout(height=260) | {"xaxis": across, "yaxis": _axis("width", "attributed") | {"zeroline": True}}}


def fits_of_runs(rows: TableRows) -> Figure | None:
    """Held-out R² of each run of a set next to that of single effects alone."""
    return _gains([(row["title"], row["r2_singles"], row["r2"]) for row in rows if row["r2"] is not None], "held-out R²")


def fits_of_queries(scores: TableRows) -> Figure | None:
    """The linear datamodeling score of each query next to that of single effects alone."""
    return _gains([(row["label"], row["lds_singles"], row["lds"]) for row in scores if row["lds"] is not None], "LDS")


def _gains(rows: Sequence[tuple[str, float, float]], title: str) -> Figure | None:
    """A line for each row, from the score of single effects alone to the score with interactions."""
    if not rows:
        return None
    names, alone, full = zip(*rows[::-1], strict=True)
    at = list(range(len(rows)))
    lines: Figure = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False, "line": {"color": "--line", "width": 2}, "x": [], "y": []}
    for place in at:
        lines["x"] += [alone[place], full[place], None]
        lines["y"] += [place, place, None]
    without = _points("single effects alone", list(alone), at, marker=_marker("--faint", "circle-open", 8))
    together = _points("with interactions", list(full), at, marker=_marker("--ink", "circle", 8))
    layout = _layout(height=110 + 24 * len(rows)) | {"xaxis": _axis("height", title)}
    layout["yaxis"] = _axis("width") | {"tickvals": at, "ticktext": [_text(name, 30) for name in names], "range": [-0.7, len(at) - 0.3], "showgrid": False}
    return {"data": [lines, without, together], "layout": layout}


def _points(name: str, x: list[Any], y: list[Any], *, marker: Figure, texts: list[str] | None = None) -> Figure:
    trace: Figure = {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}
    return trace | ({"text": texts, "hovertemplate": "%{text}<br>exact %{x:.3g}, predicted %{y:.3g}<extra></extra>"} if texts else {})


def _marker(colour: str, symbol: str, size: int) -> Figure:
    return {"color": colour, "symbol": symbol, "size": size, "opacity": 0.8}


def _scatter(traces: list[Figure], x: str, y: str) -> Figure:
    values = [value for trace in traces for axis in ("x", "y") for value in trace[axis]]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0
    ends = [low - margin, high + margin]
    diagonal = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip", "showlegend": False, "line": {"color": "--line", "width": 1}}
    return {
        "data": [diagonal, *traces],
        "layout": _layout(height=360) | {"xaxis": _axis("height", x) | {"range": ends}, "yaxis": _axis("width", y) | {"range": ends}},
    }


def _layout(height: int) -> Figure:
    return {
        "height": height, "margin": {"l": 8, "r": 12, "t": 8, "b": 8}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 13, "color": "--muted"}, "showlegend": True, "hovermode": "closest", "dragmode": False,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"color": "--muted"}},
        "hoverlabel": {"bgcolor": "--paper", "bordercolor": "--line", "font": {"color": "--ink"}},
    }  # fmt: skip


def _axis(room: str, title: str = "") -> Figure:
    # Automatic margins on the axis's own side only: with margins beside its ends too, two axes can enlarge each other's margins without end.
    return {
        "title": {"text": title, "standoff": 10, "font": {"size": 13}}, "automargin": room, "gridcolor": "--line", "zerolinecolor": "--faint",
        "linecolor": "--line", "zeroline": False, "fixedrange": True,
    }  # fmt: skip


def _text(text: str, limit: int) -> str:
    # Plotly interprets some HTML in its texts.
    return escape(shortened(text, limit), quote=False)
