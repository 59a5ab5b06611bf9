"""Compare runs: whether they rank components alike and find the same interactions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from raysp.runs.result import Result
from raysp.runs.singles import Single
from raysp.specs.lenses import COSTS
from raysp.spectral.fourier import ROUNDING
from raysp.store.reading import StoreReader

TOP = 10
#: The strongest interactions of each run that `side_by_side` compares.
LISTED = 200
#: Fields of a spec that say where it is executed and not what is asked.
PLACE = ("store", "local", "name")


@dataclass(frozen=True)
class Findings:
    """The part of a `Result` that is compared, read without its evaluations."""

    run_id: str
    summary: dict[str, Any]
    components: pa.Table
    singles: pa.Table
    interactions: pa.Table


Compared = Result | Findings

#: The two readings of single effects (see `singles.py`): attributes of `Single`.
Reading = Literal["average", "intact"]


def read_findings(store: StoreReader, run_id: str) -> Findings:
    """Read what is compared of a run. UserError for a run that has not begun, which has no components."""
    store.game_id(run_id)
    tables = {name: store.run_table(name, run_id) for name in ("components", "singles", "interactions")}
    return Findings(run_id, store.run_row(run_id), **tables)


#: The readings in a sentence.
READINGS = {"average": " on average over contexts", "intact": " at the intact input", None: " in different readings"}


def compare_runs(one: Compared, other: Compared) -> dict[str, Any]:
    """Agreement of two runs: rank correlation of the singles and overlap of the strongest interactions, where components correspond.

    Single effects are compared in a reading that both runs have (`reading`): on average over contexts if they can, else at the intact input. Where they
    share none, each run's own are compared, and `reading` is None.

    Components correspond when both runs have the same ones (same labels in the same order), else by labels that each run has once and both have:
    heads of two models, or of two choices of layers. Effects on a cost, which is better when lower, are negated. If the runs share fewer than two components, only R² and verdicts are compared.
    """
    named, same = _corresponding((one, other))
    shared = set(named[0].values()) & set(named[1].values())
    reading = _reading((one, other))
    told: dict[str, Any] = {
        "runs": [one.run_id, other.run_id],
        "reading": reading,
        "r2": [one.summary["r2"], other.summary["r2"]],
        "verdicts": [one.summary["verdict"], other.summary["verdict"]],
        "same_components": same,
        "shared_components": len(shared),
    }
    if len(shared) > 1:
        told["singles_rank_correlation"] = _rank_correlation([_effects(run, names, shared, reading) for run, names in zip((one, other), named, strict=True)])
        tops = [_strongest(run, names, shared) for run, names in zip((one, other), named, strict=True)]
        union = tops[0] | tops[1]
        told["top_interactions_shared"] = len(tops[0] & tops[1])
        told["top_interactions_overlap"] = len(tops[0] & tops[1]) / len(union) if union else None
    return told


def _corresponding(runs: Sequence[Compared]) -> tuple[list[dict[int, str]], bool]:
    """Return names of the components of each run, by which they correspond to those of the others, and whether all runs have the same ones."""
    every = [run.components["label"].to_pylist() for run in runs]
    if all(labels == every[0] for labels in every):
        return [{number: str(number) for number in range(len(every[0]))}] * len(runs), True
    return [_names(run) for run in runs], False


def _names(run: Compared) -> dict[int, str]:
    """Return the labels that are unique in a run, by component."""
    labels = run.components["label"].to_pylist()
    count = Counter(labels)
    return {number: label for number, label in enumerate(labels) if count[label] == 1}


def _sign(run: Compared) -> float:
    """Return -1 for a run whose value is a cost, which is better when lower."""
    return -1.0 if run.summary["game"]["description"].get("value") in COSTS else 1.0


def _reading(runs: Sequence[Compared]) -> Reading | None:
    """The reading in which all runs know all their single effects, the average before the one at the intact input; None if there is none."""
    every = [Single.of(row) for run in runs for row in run.singles.to_pylist()]
    readings: tuple[Reading, ...] = ("average", "intact")
    return next((reading for reading in readings if all(getattr(single, reading) is not None for single in every)), None)


def _effects(run: Compared, names: Mapping[int, str], shared: set[str], reading: Reading | None) -> dict[str, float]:
    """The single effects of the components in `shared`, by name, in a reading that the run has; in that of its ranking without one."""
    sign = _sign(run)
    known = [Single.of(row) for row in run.singles.to_pylist() if names.get(row["component"]) in shared]
    return {names[single.component]: sign * (single.effect if reading is None else getattr(single, reading)) for single in known}


def _strongest(run: Compared, names: Mapping[int, str], shared: set[str]) -> set[tuple[str, ...]]:
    """Return the strongest interactions among the components that both runs have, without those whose value is rounding error."""
    sets = [members for members in _sets(run) if all(names.get(member) in shared for member in members)]
    return {tuple(sorted(names[member] for member in members)) for members in sets[:TOP]}


def _sets(run: Compared) -> list[list[int]]:
    """Return the interactions of a run, the strongest first, without those whose value is rounding error."""
    values = run.interactions["value"].to_numpy()
    least = ROUNDING * np.abs(np.concatenate([values, run.singles["value"].to_numpy()])).max(initial=0.0)
    rows = zip(run.interactions["components"].to_pylist(), (np.abs(values) > least).tolist(), strict=True)
    return [members for members, there in rows if there]


def side_by_side(runs: Sequence[Compared]) -> dict[str, Any]:
    """Two or more runs in full, as JSON has it: what differs in their specs, `compare_runs` of each pair, components and interactions aligned.

    `components` has columns: labels, the reading of all runs' effects as in `compare_runs`, and for each run the single effect of the component of that label, None where it has none. `interactions` are the `LISTED`
    strongest of each run: their labels, and for each run the value, rank and kind, None where it has not found the set; `possible` tells whether a run has its
    components. Effects and values on a cost are negated, as `negated` says of each run. Components correspond as in `compare_runs`.
    """
    named, same = _corresponding(runs)
    labels = {name: label for run, names in zip(runs, named, strict=True) for label, name in _labelled(run, names)}
    reading = _reading(runs)
    effects = [_effects(run, names, set(labels), reading) for run, names in zip(runs, named, strict=True)]
    return {
        "differences": differences([run.summary["spec"] for run in runs]),
        "negated": [_sign(run) < 0 for run in runs],
        "pairs": [compare_runs(one, other) for one, other in combinations(runs, 2)],
        "same_components": same,
        "components": {"labels": list(labels.values()), "reading": reading, "effects": [[effect.get(name) for name in labels] for effect in effects]},
        "interactions": _aligned_sets(runs, named, labels),
    }


def differences(specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the fields in which specs differ, each with its value in every spec, None where it is not set."""
    flat = [dict(_flat(spec, ())) for spec in specs]
    fields = {name: None for each in flat for name in each if name not in PLACE}
    rows = [{"field": name, "values": [each.get(name) for each in flat]} for name in fields]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def _flat(value: Any, path: tuple[str, ...]) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        mapping: Mapping[str, Any] = value
        return [pair for name, each in mapping.items() for pair in _flat(each, (*path, str(name)))]
    return [(".".join(path), value)]


def _labelled(run: Compared, names: Mapping[int, str]) -> list[tuple[str, str]]:
    return [(label, names[number]) for number, label in enumerate(run.components["label"].to_pylist()) if number in names]


def _aligned_sets(runs: Sequence[Compared], named: Sequence[Mapping[int, str]], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    every = [_found(run, names) for run, names in zip(runs, named, strict=True)]
    listed = {members: None for found in every for members in list(found)[:LISTED]}
    known = [set(names.values()) for names in named]
    rows = [
        {
            "labels": [labels[name] for name in members],
            "values": [found[members]["value"] if members in found else None for found in every],
            "ranks": [found[members]["rank"] if members in found else None for found in every],
            "kinds": [found[members]["kind"] if members in found else None for found in every],
            "possible": [names.issuperset(members) for names in known],
        }
        for members in listed
    ]
    return sorted(rows, key=lambda row: (-sum(rank is not None for rank in row["ranks"]), min(rank for rank in row["ranks"] if rank is not None)))


def _found(run: Compared, names: Mapping[int, str]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the interactions of a run by the names of their members, the strongest first."""
    sign, there = _sign(run), {tuple(members) for members in _sets(run)}
    columns = run.interactions.select(["components", "value", "rank", "kind"]).to_pylist()
    rows = [row for row in columns if tuple(row["components"]) in there and all(member in names for member in row["components"])]
    return {tuple(sorted((names[member] for member in row["components"]), key=_order)): {**row, "value": sign * row["value"]} for row in rows}


def _order(name: str) -> tuple[bool, int, str]:
    """Numbers by their size, before labels."""
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)


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
    return f"{head} Single effects{READINGS[comparison['reading']]} {shown}; {comparison['top_interactions_shared']} of the {TOP} strongest interactions are shared."


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
