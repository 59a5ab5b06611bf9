"""The goals of `slopes.py`: pure arithmetic on its rows. A goal without rows is neither met nor missed (null)."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]

#: The share of the best peer's seconds and of its unexplained variance that slopes may take and leave, and standard errors of the mean over seeds.
MOST_SECONDS, MOST_LEFT, ERRORS = 0.1, 0.5, 2.0
OURS = ("values", "slopes")


def summary(rows: Iterable[Row]) -> dict[str, Any]:
    """Each goal with its figure by game, the worst over all games, and whether it is met."""
    fits: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    runs: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row["row"] == "fit":
            fits[row["game"], row["method"], row["passes"]].append(row)
        elif row["row"] == "run":
            runs[row["game"], row["method"], row["budget"]].append(row)
    games = sorted({game for game, *_ in fits})
    seconds = {game: share for game in games if (share := seconds_to_peer(fits, game)) is not None}
    left = {f"{game} {passes}": share for game in games for passes, share in unexplained(fits, game).items()}
    gain = gains({(game, passes): found for (game, method, passes), found in fits.items() if method == "slopes"}, fits, "values")
    bought = gains({(game, budget): found for (game, method, budget), found in runs.items() if method == "auto"}, runs, "off")
    return {
        "row": "summary",
        "seconds_to_the_best_peer": at_most(MOST_SECONDS, seconds),
        "unexplained_at_equal_passes": at_most(MOST_LEFT, left),
        "never_below_values_at_equal_passes": at_least(0.0, gain),
        "never_below_values_at_equal_cost": at_least(0.0, bought),
    }


def at_most(bound: float, figures: dict[str, float]) -> dict[str, Any]:
    """A goal's figures, the largest of them, and whether it is at most the bound. Infinite figures are null."""
    worst = max(figures.values(), default=None)
    return {"worst": _finite(worst), "met": None if worst is None else worst <= bound, "figures": {name: _finite(each) for name, each in figures.items()}}


def at_least(bound: float, figures: dict[str, float]) -> dict[str, Any]:
    """A goal's figures, the smallest of them, and whether it is at least the bound."""
    found = at_most(-bound, {name: -each for name, each in figures.items()})
    return found | {"worst": min(figures.values(), default=None), "figures": figures}


def _finite(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None


def best_peer(fits: Mapping[tuple[str, str, int], list[Row]], game: str, passes: int) -> list[Row] | None:
    """The rows of the peer with the best mean R² at a number of passes."""
    there = [found for (name, method, count), found in fits.items() if (name, count) == (game, passes) and method not in OURS]
    return max(there, key=lambda found: mean(row["r2"] for row in found), default=None)


def seconds_to_peer(fits: Mapping[tuple[str, str, int], list[Row]], game: str) -> float | None:
    """The seconds with slopes at the first number of passes that reaches the best peer's R² at its largest number, over that peer's; inf if none does."""
    most = max((passes for name, method, passes in fits if name == game and method not in OURS), default=None)
    peer = None if most is None else best_peer(fits, game, most)
    if peer is None:
        return None
    wanted, paid = mean(row["r2"] for row in peer), mean(row["seconds"] for row in peer)
    for passes in sorted(count for name, method, count in fits if (name, method) == (game, "slopes")):
        found = fits[game, "slopes", passes]
        if mean(row["r2"] for row in found) >= wanted:
            return mean(row["seconds"] for row in found) / paid
    return math.inf


def unexplained(fits: Mapping[tuple[str, str, int], list[Row]], game: str) -> dict[int, float]:
    """Unexplained variance with slopes over that of the best peer, by the numbers of passes that both have."""
    found: dict[int, float] = {}
    for name, method, passes in fits:
        peer = best_peer(fits, game, passes) if (name, method) == (game, "slopes") else None
        if peer is not None:
            found[passes] = (1 - mean(row["r2"] for row in fits[game, "slopes", passes])) / (1 - mean(row["r2"] for row in peer))
    return found


def gains(some: Mapping[tuple[str, int], list[Row]], others: Mapping[tuple[str, str, int], list[Row]], method: str) -> dict[str, float]:
    """The mean gain in R² over another method's rows with the same seeds, plus two standard errors: negative if a loss is not chance. With one seed, the gain."""
    found: dict[str, float] = {}
    for (game, count), rows in some.items():
        there = {row["seed"]: row["r2"] for row in others.get((game, method, count), [])}
        by_seed = [row["r2"] - there[row["seed"]] for row in rows if row["seed"] in there]
        if by_seed:
            found[f"{game} {count}"] = mean(by_seed) + (ERRORS * stdev(by_seed) / math.sqrt(len(by_seed)) if len(by_seed) > 1 else 0.0)
    return found
