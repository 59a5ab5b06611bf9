"""How much of a model can be pruned by what a run found: the table beside the curves of `figures.pruning_curves`."""

from collections.abc import Mapping, Sequence
from typing import Any

METHODS = {
    "refined": "interactions, refined by exact swaps",
    "interactions": "interactions",
    "singles_refined": "singles (LASSO), refined by exact swaps",
    "singles": "singles (LASSO)",
    "top_singles": "strongest single effects",
    "best_of_n": "best of random subsets",
}
"""How the components kept were chosen; the first is the choice that `raysp prune` writes."""
INTACT = "intact"

TableRows = Sequence[Mapping[str, Any]]


def methods(rows: TableRows) -> list[str]:
    """The methods that were tried, those of `METHODS` first, without the intact model."""
    tried = {str(row["method"]) for row in rows} - {INTACT}
    return [*(name for name in METHODS if name in tried), *sorted(tried - set(METHODS))]


def title(method: str) -> str:
    """A method in words."""
    return METHODS.get(method, method.replace("_", " "))


def score(row: Mapping[str, Any]) -> float | None:
    """The value on held-out prompts, or on the prompts used to choose if none were held out."""
    return row["heldout"] if row["heldout"] is not None else row["train"]


def largest(rows: TableRows) -> float:
    """The largest |value|, which sets the decimals of all."""
    return max((abs(value) for row in rows if (value := score(row)) is not None), default=0.0)


def held_out(rows: TableRows) -> bool:
    """Whether any value is of held-out prompts."""
    return any(row["heldout"] is not None for row in rows)


def table(rows: TableRows) -> list[dict[str, Any]]:
    """A line for each share kept, the largest first, with keys keep, kept and cells: the row of each method in the order of `methods`, or None."""
    shares = sorted({row["keep"] for row in rows if row["method"] != INTACT}, reverse=True)
    lines: list[dict[str, Any]] = []
    for keep in shares:
        by_method = {row["method"]: row for row in rows if row["keep"] == keep and row["method"] != INTACT}
        kept = {row["kept"] for row in by_method.values()}
        lines.append({"keep": keep, "kept": kept.pop() if len(kept) == 1 else None, "cells": [by_method.get(name) for name in methods(rows)]})
    return lines


def intact(rows: TableRows) -> Mapping[str, Any] | None:
    """The row of the intact model."""
    return next((row for row in rows if row["method"] == INTACT), None)


def choices(rows: TableRows) -> list[Mapping[str, Any]]:
    """The choices of the first method, the largest first."""
    first = methods(rows)[:1]
    return sorted((row for row in rows if row["method"] in first and row["components"]), key=lambda row: -row["keep"])
