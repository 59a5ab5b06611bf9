"""The goals of `intact.py`: pure arithmetic on its rows. A goal without rows is neither met nor missed (null)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

#: Goals of a reading: correlation of pair deviations, R² of single effects, coverage of deviations.
LEAST = {"pairs_r": 0.9, "singles_r2": 0.95, "covered": 0.93}
#: Methods at 4 n log2 n evaluations, and at a quarter of them with slopes, for which the goals stand.
ASKED = ("both", "intact", "both-slopes-25")
#: The method whose uniform R² is to be no lower than that of the other.
OURS, FEWER = "both", "average-60"

Row = Mapping[str, Any]


def summary(rows: Iterable[Row]) -> dict[str, Any]:
    """Each goal with its figures by game (means over seeds), the lowest of them, and whether that is enough."""
    found = list(rows)
    told: dict[str, Any] = {"row": "summary"}
    by_run: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        if row["row"] == "reading":
            by_run[row["method"], row["game"]].append(row)
    for method in ASKED:
        for name, least in LEAST.items():
            figures = {
                game: mean(values) for (each, game), group in by_run.items() if each == method and (values := [row[name] for row in group if name in row])
            }
            told[f"{name} {method}"] = goal(figures, least)
    gains = {game: mean(row["uniform_r2"] for row in group) for (method, game), group in by_run.items() if method == OURS}
    less = {game: mean(row["uniform_r2"] for row in group) for (method, game), group in by_run.items() if method == FEWER}
    told[f"uniform_r2 {OURS} less {FEWER}"] = goal({game: gains[game] - less[game] for game in gains if game in less}, 0.0)
    return told | removal(found) | flip(found)


def goal(figures: Mapping[str, float], least: float) -> dict[str, Any]:
    """Figures, the lowest of them, and whether it is at least `least`."""
    lowest = min(figures.values(), default=None)
    return {"worst": lowest, "goal": least, "met": None if lowest is None else lowest >= least, "figures": dict(figures)}


def removal(rows: Iterable[Row]) -> dict[str, Any]:
    """By game and method: the mean over sizes and seeds of the drop, relative to the largest drop that any method found with as many components."""
    drops: dict[tuple[str, int, int], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["row"] == "removal":
            drops[row["game"], row["seed"], row["r"]][row["method"]] = row["drop"]
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (game, _, _), by_method in drops.items():
        best = max(by_method.values())
        for method, drop in by_method.items() if best > 0 else ():
            shares[game, method].append(drop / best)
    return {
        f"removal {game}": {method: mean(values) for (each, method), values in shares.items() if each == game}
        for game in dict.fromkeys(game for game, _ in shares)
    }


def flip(rows: Iterable[Row]) -> dict[str, Any]:
    """By game and method: the mean size of the verified flip set, and in how many seeds there was none."""
    sizes: dict[tuple[str, str], list[int | None]] = defaultdict(list)
    for row in rows:
        if row["row"] == "flip":
            sizes[row["game"], row["method"]].append(row["size"])
    found: dict[str, Any] = {}
    for (game, method), values in sizes.items():
        known = [value for value in values if value is not None]
        found.setdefault(f"flip {game}", {})[method] = {"size": mean(known) if known else None, "none": len(values) - len(known)}
    return found
