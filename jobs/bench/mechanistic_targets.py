"""From rows of `mechanistic.py` to what the issue claims, each with the value found, the value wanted and whether it holds.

Pure arithmetic on rows. Errors are standard errors of the mean over the seeds; with a single seed nothing is known of the noise, and any difference counts.
"""

import math
from statistics import mean, stdev
from typing import Any

from jobs.bench.engine_targets import claim

#: Values of two implementations in float32 may differ by so much of the largest.
AGREEMENT = 1e-4
#: Pairs looked for.
TOP = 20
#: Ways to prune set beside one another. Those with as many exact evaluations on the run's prompts stand side by side.
COMPARED = (
    ("interactions", "singles"),
    ("refined", "singles"),
    ("refined", "singles_refined"),
    ("refined", "top_singles"),
    ("refined", "best_of_n"),
)

Row = dict[str, Any]
#: Task, layers and share kept.
Cell = tuple[str, tuple[int, ...], float]


def summary(rows: list[Row]) -> Row:
    """What the issue claims, each with the figure wanted: of the speed over all workloads together, as many masks of each, with each alone beside it."""
    seconds = _seconds(rows)
    everywhere = set.intersection(*map(set, seconds.values())) if seconds else set[str]()
    ratios = {what: {name: found[name] / found["raysp"] for name in sorted(everywhere - {"raysp"})} for what, found in seconds.items()}
    together = {name: sum(found[name] for found in seconds.values()) / sum(found["raysp"] for found in seconds.values()) for name in everywhere - {"raysp"}}
    peers_only = [ratio for name, ratio in together.items() if name != "head_loop"]
    apart = max((row["apart"] for row in rows if row["row"] == "speed"), default=None)
    found = next((row for row in rows if row["row"] == "pairs"), None)
    prunings = [row for row in rows if row["row"] == "prune"]
    return {
        "row": "summary",
        "vs_head_loop": claim(together.get("head_loop"), ">= 5"),
        "vs_best_peer": claim(min(peers_only, default=None), ">= 1.5"),
        "ratios": {what: {name: round(ratio, 3) for name, ratio in found.items()} for what, found in ratios.items()},
        "apart": claim(apart, f"<= {AGREEMENT}"),
        "pairs_found": claim(None if found is None else found["found_among_20"] / TOP, ">= 0.5"),
        "pairs_cost": claim(None if found is None else found["cost"], "<= 0.1"),
        "prune": compared(prunings, "accuracy"),
        "prune_margin": compared(prunings, "margin"),
    }


def _seconds(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Seconds a mask of each workload and method, the best of the rounds."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["row"] == "speed":
            mine = found.setdefault(row["what"], {})
            mine[row["method"]] = min(mine.get(row["method"], float("inf")), 1 / row["per_second"])
    return found


def compared(rows: list[Row], score: str) -> Row:
    """One held-out score of each way to prune, the mean over all cells; and what interactions gain on each other way, on the same seeds, over all cells and in every one."""
    cells: dict[Cell, dict[str, dict[int, float]]] = {}
    for row in rows:
        cells.setdefault((row["task"], tuple(row["layers"]), row["keep"]), {}).setdefault(row["method"], {})[row["seed"]] = row[score]
    methods = sorted({row["method"] for row in rows})
    told: Row = {
        "cells": len(cells),
        "seeds": len({row["seed"] for row in rows}),
        "mean": {method: round(mean(row[score] for row in rows if row["method"] == method), 4) for method in methods},
    }
    for ours, other in COMPARED:
        gains = {cell: _by_seed(found[ours], found[other]) for cell, found in cells.items() if ours in found and other in found}
        if gains:
            told[f"{ours}_over_{other}"] = _gained(gains)
    return told


def _by_seed(ours: dict[int, float], theirs: dict[int, float]) -> dict[int, float]:
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}


def _gained(gains: dict[Cell, dict[int, float]]) -> Row:
    """The mean gain as a claim; `worse` are the cells that lose more than two standard errors, or anything where one seed tells no noise."""
    whole = [mean(found[seed] for found in gains.values() if seed in found) for seed in sorted({seed for found in gains.values() for seed in found})]
    by_cell: list[Row] = [{"layers": list(cell[1]), "keep": cell[2], **_with_noise(list(found.values()))} for cell, found in gains.items()]
    worse = [cell for cell in by_cell if cell["gain"] < -2 * (cell["error"] or 0.0)]
    return claim(mean(whole), ">= 0", error=_with_noise(whole)["error"], worse=worse, by_cell=by_cell)


def _with_noise(gains: list[float]) -> Row:
    """The mean of gains and its standard error, None of a single one."""
    return {"gain": round(mean(gains), 4), "error": round(stdev(gains) / math.sqrt(len(gains)), 4) if len(gains) > 1 else None}
