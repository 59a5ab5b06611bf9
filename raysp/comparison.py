"""Runs side by side: whether they agree on what matters."""

from collections import Counter
from typing import Any

import numpy as np

from raysp.result import Result

TOP = 10


def compare(one: Result, other: Result) -> dict[str, Any]:
    """Agreement of two runs: rank correlation of the singles and overlap of the strongest interactions, where components correspond.

    Components correspond when both runs have the same ones (same labels in the same order); otherwise only R² and verdicts can be compared.
    """
    labels = [run.components["label"].to_pylist() for run in (one, other)]
    told: dict[str, Any] = {
        "runs": [one.run_id, other.run_id],
        "r2": [one.summary["r2"], other.summary["r2"]],
        "verdicts": [one.summary["verdict"], other.summary["verdict"]],
        "same_components": labels[0] == labels[1],
    }
    if told["same_components"]:
        told["singles_rank_correlation"] = _rank_correlation(one, other)
        tops = [{tuple(members) for members in run.interactions.slice(0, TOP)["components"].to_pylist()} for run in (one, other)]
        union = tops[0] | tops[1]
        told["top_interactions_shared"] = len(tops[0] & tops[1])
        told["top_interactions_overlap"] = len(tops[0] & tops[1]) / len(union) if union else None
    return told


def comparison_text(comparison: dict[str, Any]) -> str:
    """A comparison in a sentence or two."""
    head = f"\nrepeated on {comparison['with']}: verdict {comparison['verdicts'][1]} (was {comparison['verdicts'][0]})."
    if not comparison["same_components"]:
        return f"{head} The components differ, so effects cannot be matched one to one."
    correlation = comparison["singles_rank_correlation"]
    shown = "cannot be ranked (an effect is the same everywhere)" if correlation is None else f"agree with rank correlation {correlation:+.2f}"
    return f"{head} Single effects {shown}; {comparison['top_interactions_shared']} of the {TOP} strongest interactions are shared."


def set_summary(results: list[Result]) -> dict[str, Any]:
    """A set of examples in one object: how often each verdict, R² beside singles-only R², and what interactions add."""
    rows = [result.summary for result in results]
    r2 = np.array([row["r2"] for row in rows if row["r2"] is not None])
    singles = np.array([row["r2_singles"] for row in rows if row["r2_singles"] is not None])
    kinds = Counter(kind for result in results for kind in result.interactions.slice(0, TOP)["kind"].to_pylist())
    return {
        "runs": len(rows),
        "verdicts": dict(Counter(row["verdict"] for row in rows)),
        "median_r2": float(np.median(r2)) if len(r2) else None,
        "median_r2_singles": float(np.median(singles)) if len(singles) else None,
        "kinds_among_top": dict(kinds),
        "evaluations": int(sum(result.evaluations.num_rows for result in results)),
    }


def _rank_correlation(one: Result, other: Result) -> float | None:
    from scipy.stats import spearmanr

    effects = [dict(zip(run.singles["component"].to_pylist(), run.singles["value"].to_pylist(), strict=True)) for run in (one, other)]
    shared = sorted(effects[0].keys() & effects[1].keys())
    columns = [[effect[component] for component in shared] for effect in effects]
    if len(shared) < 2 or any(len(set(column)) < 2 for column in columns):
        return None
    agreement: Any = spearmanr(columns[0], columns[1])
    return float(agreement.statistic)
