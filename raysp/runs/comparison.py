"""Compare runs: whether they rank components alike and find the same interactions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raysp.runs.result import Result
from raysp.specs.lenses import COSTS
from raysp.spectral.fourier import ROUNDING

TOP = 10


def compare_runs(one: Result, other: Result) -> dict[str, Any]:
    """Agreement of two runs: rank correlation of the singles and overlap of the strongest interactions, where components correspond.

    Components correspond when both runs have the same ones (same labels in the same order), else by labels that each run has once and both have:
    heads of two models, or of two choices of layers. Effects on a cost, which is better when lower, are negated. If the runs share fewer than two components, only R² and verdicts are compared.
    """
    named = [_names(run) for run in (one, other)]
    same = [run.components["label"].to_pylist() for run in (one, other)]
    if same[0] == same[1]:
        named = [{number: str(number) for number in range(len(same[0]))}] * 2
    shared = set(named[0].values()) & set(named[1].values())
    told: dict[str, Any] = {
        "runs": [one.run_id, other.run_id],
        "r2": [one.summary["r2"], other.summary["r2"]],
        "verdicts": [one.summary["verdict"], other.summary["verdict"]],
        "same_components": same[0] == same[1],
        "shared_components": len(shared),
    }
    if len(shared) > 1:
        told["singles_rank_correlation"] = _rank_correlation([_effects(run, names, shared) for run, names in zip((one, other), named, strict=True)])
        tops = [_strongest(run, names, shared) for run, names in zip((one, other), named, strict=True)]
        union = tops[0] | tops[1]
        told["top_interactions_shared"] = len(tops[0] & tops[1])
        told["top_interactions_overlap"] = len(tops[0] & tops[1]) / len(union) if union else None
    return told


def _names(run: Result) -> dict[int, str]:
    """Return the labels that are unique in a run, by component."""
    labels = run.components["label"].to_pylist()
    count = Counter(labels)
    return {number: label for number, label in enumerate(labels) if count[label] == 1}


def _effects(run: Result, names: dict[int, str], shared: set[str]) -> dict[str, float]:
    sign = -1.0 if run.summary["game"]["description"].get("value") in COSTS else 1.0
    rows = zip(run.singles["component"].to_pylist(), run.singles["value"].to_pylist(), strict=True)
    return {names[component]: sign * value for component, value in rows if names.get(component) in shared}


def _strongest(run: Result, names: dict[int, str], shared: set[str]) -> set[tuple[str, ...]]:
    """Return the strongest interactions among the components that both runs have, without those whose value is rounding error."""
    values = run.interactions["value"].to_numpy()
    least = ROUNDING * np.abs(np.concatenate([values, run.singles["value"].to_numpy()])).max(initial=0.0)
    rows = zip(run.interactions["components"].to_pylist(), (np.abs(values) > least).tolist(), strict=True)
    sets = [members for members, there in rows if there and all(names.get(member) in shared for member in members)]
    return {tuple(sorted(names[member] for member in members)) for members in sets[:TOP]}


def comparison_table(pairs: Sequence[dict[str, Any]]) -> pa.Table:
    """Return comparisons as a table."""
    return pa.Table.from_pylist(
        [
            {
                "run": pair["runs"][0],
                "and": pair["runs"][1],
                "shared components": pair["shared_components"],
                "rank correlation of singles": pair.get("singles_rank_correlation"),
                f"of {TOP} strongest interactions shared": pair.get("top_interactions_shared"),
                "R²": pair["r2"][0],
                "R² of the other": pair["r2"][1],
            }
            for pair in pairs
        ]
    )


def comparison_text(comparison: dict[str, Any]) -> str:
    """Describe a comparison in a sentence or two."""
    head = f"\nrepeated on {comparison['with']}: verdict {comparison['verdicts'][1]} (was {comparison['verdicts'][0]})."
    if comparison["shared_components"] < 2:
        return f"{head} The components differ, so effects cannot be matched one to one."
    correlation = comparison["singles_rank_correlation"]
    shown = "cannot be ranked (an effect is the same everywhere)" if correlation is None else f"agree with rank correlation {correlation:+.2f}"
    return f"{head} Single effects {shown}; {comparison['top_interactions_shared']} of the {TOP} strongest interactions are shared."


def set_summary(results: list[Result]) -> dict[str, Any]:
    """Summarise a set of examples: how often each verdict occurs, R² beside singles-only R², and the kinds of the strongest interactions."""
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


def _rank_correlation(effects: Sequence[dict[str, float]]) -> float | None:
    from scipy.stats import spearmanr

    shared = sorted(effects[0].keys() & effects[1].keys())
    columns = [[effect[name] for name in shared] for effect in effects]
    if len(shared) < 2 or any(len(set(column)) < 2 for column in columns):
        return None
    agreement: Any = spearmanr(columns[0], columns[1])
    return float(agreement.statistic)
