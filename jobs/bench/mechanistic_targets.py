"""Targets for the rows of `mechanistic.py`: each with the value found, the threshold and whether it is met.

Pure arithmetic on rows. Errors are standard errors of the mean over the seeds; with a single seed the noise is unknown, and any difference counts.
"""

import math
from statistics import mean, stdev
from typing import Any

from jobs.bench.engine_targets import target

#: Largest difference between two implementations in float32, relative to the largest value.
AGREEMENT = 1e-4
#: Number of strongest pairs to find.
TOP = 20
#: Ways to prune that are compared, each with one that uses as many exact evaluations on the run's prompts.
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
    """All targets. Speed is over all workloads together, with equal numbers of masks of each; the ratios of each workload are listed beside it."""
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
        "vs_head_loop": target(together.get("head_loop"), ">= 5"),
        "vs_best_peer": target(min(peers_only, default=None), ">= 1.5"),
        "ratios": {what: {name: round(ratio, 3) for name, ratio in found.items()} for what, found in ratios.items()},
        "apart": target(apart, f"<= {AGREEMENT}"),
        "pairs_found": target(None if found is None else found["found_among_20"] / TOP, ">= 0.5"),
        "pairs_cost": target(None if found is None else found["cost"], "<= 0.1"),
        "prune": compared(prunings, "accuracy"),
        "prune_margin": compared(prunings, "margin"),
    }


def _seconds(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Seconds per mask of each workload and method, the minimum over rounds."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["row"] == "speed":
            mine = found.setdefault(row["what"], {})
            mine[row["method"]] = min(mine.get(row["method"], float("inf")), 1 / row["per_second"])
    return found


def compared(rows: list[Row], score: str) -> Row:
    """A held-out score of each way to prune, averaged over all cells, and the gain of interactions over each other way on the same seeds, on average and by cell."""
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
    """The mean gain as a target. `worse` lists the cells that lose more than two standard errors or, with a single seed, anything."""
    whole = [mean(found[seed] for found in gains.values() if seed in found) for seed in sorted({seed for found in gains.values() for seed in found})]
    by_cell: list[Row] = [{"layers": list(cell[1]), "keep": cell[2], **_with_noise(list(found.values()))} for cell, found in gains.items()]
    worse = [cell for cell in by_cell if cell["gain"] < -2 * (cell["error"] or 0.0)]
    return target(mean(whole), ">= 0", error=_with_noise(whole)["error"], worse=worse, by_cell=by_cell)


def _with_noise(gains: list[float]) -> Row:
    """The mean of gains and its standard error, None for a single gain."""
    return {"gain": round(mean(gains), 4), "error": round(stdev(gains) / math.sqrt(len(gains)), 4) if len(gains) > 1 else None}
