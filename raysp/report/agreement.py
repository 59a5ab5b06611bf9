"""Attributions by other methods, compared with the measured single effects."""

from collections.abc import Mapping, Sequence
from typing import Any

from raysp.report import figures

METHODS = {
    "attention_gates": "attention gates",
    "gradient_x_input": "gradient × input",
    "integrated_gradients": "integrated gradients",
    "attention_rollout": "attention rollout",
    "attribution_patching": "attribution patching",
    "integrated_gates": "integrated gates",
    "relp": "RelP",
}
UNSIGNED = frozenset({"attention_rollout"})
"""Methods that measure how much a component matters but not in which direction; they are compared with absolute effects."""
STRENGTHS = ((0.8, "agrees closely"), (0.5, "agrees in part"), (0.2, "agrees weakly"), (-0.2, "does not agree"), (-1.0, "disagrees"))
"""The least rank correlation of each grade of agreement."""

TableRows = Sequence[Mapping[str, Any]]


def checks(metrics: Mapping[str, Any], attributions: TableRows, singles: TableRows) -> list[dict[str, Any]]:
    """A dict for each method: title, agreement in words, rank correlation, share of the strongest components in common, and a figure or None."""
    scores: Mapping[str, Mapping[str, float | None]] = metrics.get("cross_checks") or {}
    exact = [row for row in singles if row["method"] == "removed"]
    measured = {row["component"]: row["value"] for row in exact or singles}
    found: list[dict[str, Any]] = []
    for method in [*(name for name in METHODS if name in scores), *(name for name in scores if name not in METHODS)]:
        rows = [row for row in attributions if row["method"] == method and row["component"] in measured]
        title, spearman = METHODS.get(method, method.replace("_", " ")), scores[method].get("spearman")
        effects = [measured[row["component"]] for row in rows]
        chart = figures.attributions(rows, [abs(effect) for effect in effects], "absolute single effect") if method in UNSIGNED else None
        chart = chart or figures.attributions(rows, effects, "single effect")
        found.append(
            {"method": method, "title": title, "words": in_words(spearman), "spearman": spearman, "top": scores[method].get("top"), "figure": chart},
        )
    return found


def in_words(spearman: float | None) -> str:
    """A rank correlation as a grade of agreement."""
    if spearman is None or spearman != spearman:  # noqa: PLR0124  NaN, as JSON may hold it
        return "cannot be compared"
    return next(said for least, said in STRENGTHS if spearman >= least or least == -1.0)


def shown(reason: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a reason of the verdict only repeats what the page shows of one of these methods."""
    return reason["code"] == "cross_check" and any(reason["figures"].get("method") == check["method"] for check in found)
