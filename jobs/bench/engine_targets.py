"""Targets for the rows of `engine.py`: each with the value found, the threshold and whether it is met.

Pure arithmetic on rows. A target without rows is neither met nor missed (null). Seed noise is two standard errors of the mean difference over the
seeds that both sides have; with a single seed it is unknown, and any difference counts.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

Row = Mapping[str, Any]
Case = tuple[str, int]
Curve = list[tuple[float, float]]

#: The fields that identify a row.
KEY = ("row", "game", "budget", "seed", "method", "snr_db", "heldout")
PEERS = ("spectralexplain", "shapiq", "proxyshap", "tuned_trees")
#: Differences of R² below this are rounding.
ROUNDING = 1e-9


class Rows:
    """Rows by game, budget, method and seed; for a row computed twice, the later one. Rows of fits that raised are in `errors`."""

    def __init__(self, rows: Iterable[Row]) -> None:
        latest = {tuple(row.get(name) for name in KEY): row for row in rows if row["row"] in ("fit", "big", "spex")}
        self.all = [row for row in latest.values() if "error" not in row]
        self.errors = [row for row in latest.values() if "error" in row]
        self.fits: dict[tuple[str, int | None, str], dict[int, Row]] = {}
        for row in self.all:
            if row["row"] == "fit":
                self.fits.setdefault((row["game"], row["budget"], row["method"]), {})[row["seed"]] = row

    def cases(self, *methods: str) -> list[Case]:
        """Games and budgets for which all these methods have rows with a seed in common."""
        found = {(game, budget) for game, budget, _ in self.fits if budget is not None}
        return sorted(case for case in found if set.intersection(*(set(self.fits.get((*case, method), {})) for method in methods)))

    def mean(self, case: tuple[str, int | None], method: str, what: str = "r2", seeds: Iterable[int] | None = None) -> float:
        """The mean over all seeds, or over those given."""
        rows = self.fits[(*case, method)]
        return mean(rows[seed][what] for seed in (rows if seeds is None else seeds))

    def shared(self, case: Case, one: str, other: str) -> list[int]:
        """Seeds for which both methods have rows."""
        return sorted(self.fits[(*case, one)].keys() & self.fits[(*case, other)].keys())

    def best_peer(self, case: Case, method: str = "auto") -> str | None:
        """The peer with the best mean R² among those with a seed in common with a method."""
        there = [peer for peer in PEERS if (*case, peer) in self.fits and self.shared(case, method, peer)]
        return max(there, key=lambda peer: self.mean(case, peer), default=None)

    def curve(self, game: str, method: str) -> Curve:
        """Mean evaluations and mean R² at each budget, ascending."""
        found = [(game, budget) for name, budget, used in self.fits if (name, used) == (game, method) and budget is not None]
        return sorted((self.mean(case, method, "evaluations"), self.mean(case, method)) for case in found)


def reached(curve: Curve, wanted: float) -> float:
    """The fewest evaluations at which a curve reaches a value, interpolated linearly: those of its first point if that suffices, inf if it never does."""
    for number, (evaluations, value) in enumerate(curve):
        if value >= wanted - ROUNDING:
            if number == 0:
                return evaluations
            before, lower = curve[number - 1]
            return before + (evaluations - before) * min((wanted - lower) / (value - lower), 1.0)
    return math.inf


def target(value: float | None, threshold: str, **more: Any) -> dict[str, Any]:
    """A value with its threshold, such as `<= 0.65` or `>= 15`, and whether it is met. Infinity, which JSON lacks, is written "never"."""
    sense, limit = threshold.split()
    met = None if value is None else value <= float(limit) if sense == "<=" else value >= float(limit)
    shown = "never" if value == math.inf else None if value is None else round(value, 4) if abs(value) >= 0.001 else float(f"{value:.2g}")
    return {"value": shown, "target": threshold, "met": met, **more}


def ratios(found: Sequence[float], threshold: str) -> dict[str, Any]:
    """The median of ratios as a target."""
    return target(median(found) if found else None, threshold, rows=len(found))


def worse(rows: Rows, case: Case, other: str) -> dict[str, Any] | None:
    """By how much `auto` is worse than another method beyond seed noise; None if it is not."""
    seeds = rows.shared(case, "auto", other)
    apart = [rows.fits[(*case, "auto")][seed]["r2"] - rows.fits[(*case, other)][seed]["r2"] for seed in seeds]
    noise = 2 * stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
    if mean(apart) >= -noise - ROUNDING:
        return None
    game, budget = case
    return {"game": game, "budget": budget, "than": other, "difference": round(mean(apart), 4), "noise": round(noise, 4), "seeds": len(seeds)}


def against(rows: Rows, others: Mapping[Case, str]) -> dict[str, Any]:
    """The share of cases in which `auto` is not worse than another method, and the cases in which it is, or in which it raised."""
    failing = [found for case, other in others.items() if (found := worse(rows, case, other))]
    raised = {(row["game"], row["budget"]): row["error"] for row in rows.errors if row["method"] == "auto"}
    failing += [{"game": game, "budget": budget, "error": error} for (game, budget), error in raised.items()]
    failed = {(found["game"], found["budget"]) for found in failing}
    count = len(others.keys() | raised.keys())
    return target(1 - len(failed) / count if count else None, ">= 1", rows=count, failing=failing)


def unexplained(rows: Rows, best: Mapping[Case, str]) -> dict[str, Any]:
    """Mean 1 - R² of `auto` over that of each case's best peer, on the seeds that both have; also the median of the ratios of the cases."""
    both = [(rows.shared(case, "auto", peer), case, peer) for case, peer in best.items()]
    parts = [(1 - rows.mean(case, "auto", seeds=seeds), 1 - rows.mean(case, peer, seeds=seeds)) for seeds, case, peer in both]
    value = mean(p for p, _ in parts) / mean(q for _, q in parts) if parts else None
    return target(value, "<= 0.65", rows=len(parts), median=round(median(p / q for p, q in parts), 4) if parts else None)


def evaluations(rows: Rows, best: Mapping[Case, str]) -> dict[str, Any]:
    """Evaluations at which `auto` has the best peer's R², over the peer's; cases for which `auto` has no row at half of them or fewer are left out."""
    found: list[float] = []
    for (game, budget), peer in best.items():
        curve = rows.curve(game, "auto")
        if curve[0][0] <= budget / 2:
            found.append(reached(curve, rows.mean((game, budget), peer)) / budget)
    return ratios(found, "<= 0.5")


def about(r2: float) -> float:
    """The lowest R² that counts as equal to this one."""
    return r2 - max((1 - r2) / 50, 1e-4)


def adaptive(rows: Rows) -> dict[str, Any]:
    """Evaluations at which `adaptive` has the R² that `auto` has on uniform masks at a game's largest budget N, over N.

    The unexplained share may be larger by a fiftieth, or by 0.0001: less than the difference between two runs on different masks.
    """
    largest = {game: max(budget for other, budget in rows.cases("auto") if other == game) for game, _ in rows.cases("auto")}
    curves = {game: (budget, rows.curve(game, "adaptive")) for game, budget in largest.items()}
    return ratios([reached(curve, about(rows.mean((game, budget), "auto"))) / budget for game, (budget, curve) in curves.items() if curve], "<= 0.6")


def time_ratio(rows: Rows, method: str, peer: str, threshold: str) -> dict[str, Any]:
    """The median of the peer's seconds over the method's, on the seeds that both have, and the `least` of these ratios."""
    both = [(case, rows.shared(case, method, peer)) for case in rows.cases(method, peer)]
    found = [rows.mean(case, peer, "seconds", seeds) / rows.mean(case, method, "seconds", seeds) for case, seeds in both]
    return ratios(found, threshold) | ({"least": round(min(found), 2)} if found else {})


def against_spex(rows: Rows) -> dict[str, Any]:
    """On the embedded model's games, evaluations at which `auto` has SPEX's R², over SPEX's. Below its least budget `auto` is not known to fail."""
    found: list[float] = []
    for (game, _, method), by_seed in rows.fits.items():
        if method == "spex" and next(iter(by_seed.values()))["kind"] == "model" and (curve := rows.curve(game, "auto")):
            found.append(reached(curve, rows.mean((game, None), "spex")) / rows.mean((game, None), "spex", "evaluations"))
    return ratios(found, "<= 0.1")


def gains(rows: Rows) -> dict[str, float | None]:
    """In R², by game, at its largest budget: the gain over singles, relative to that of singles; null where singles explain nothing."""
    found: dict[str, float | None] = {}
    for case in rows.cases("auto", "singles"):
        ours, theirs = rows.mean(case, "auto"), rows.mean(case, "singles")
        found[case[0]] = round((ours - theirs) / theirs, 4) if theirs > 0 else None
    return found


def big(rows: Rows) -> dict[str, Any]:
    """Seconds and memory of the largest fit."""
    last = next((row for row in reversed(rows.all) if row["row"] == "big"), None)
    return {
        "seconds": target(last["seconds"] if last else None, "<= 15"),
        "peak_gib": target(last["peak_gib"] if last else None, "<= 2"),
        **({"n": last["n"], "masks": last["masks"]} if last else {}),
    }


def spex(rows: Rows) -> dict[str, Any]:
    """The recovery targets on the largest planted game, and the means over seeds of all rows side by side.

    For a peer that was stopped, only the time is known: the ratio is a lower bound, and its recovery counts as complete.
    """
    there = [row for row in rows.all if row["row"] == "spex"]
    largest = max((row["n"] for row in there), default=0)
    table: dict[tuple[str, float | None], list[Row]] = {}
    for row in there:
        if row["n"] == largest:
            table.setdefault((row["method"], row["snr_db"]), []).append(row)

    def at(method: str, level: float | None, what: str) -> float | None:
        known = [row[what] for row in table.get((method, level), ()) if what in row]
        return mean(known) if known else None

    clean, peer = table.get(("raysp soft", None)), "spectralexplain soft"
    exact = None if clean is None else float(all(row["recovery"] == 1 and row["false"] == 0 and row["largest_error"] < 1e-6 for row in clean))
    mine, theirs = (at(method, 10.0, "seconds") for method in ("raysp soft", peer))
    found, known = (at(method, 10.0, "recovery") for method in ("raysp soft", peer))
    known = 1.0 if any("time_limit" in row for row in table.get((peer, 10.0), ())) else known
    return {
        "n": largest,
        "exact_without_noise": target(exact, ">= 1"),
        "recovery_10_db": target(found, ">= 0.95"),
        "speed_10_db": target(theirs / mine if mine and theirs else None, ">= 10"),
        "recovery_less_peers_10_db": target(None if found is None or known is None else found - known, ">= 0"),
        "rows": [
            {"method": method, "snr_db": level, "seeds": len(same)}
            | {what: round(value, 4) for what in ("recovery", "false", "seconds") if (value := at(method, level, what)) is not None}
            | ({"time_limit": True} if any("time_limit" in row for row in same) else {})
            for (method, level), same in table.items()
        ],
    }


def summary(found: Iterable[Row]) -> dict[str, Any]:
    """The last line: every target."""
    rows = Rows(found)
    best = {case: peer for case in rows.cases("auto") if (peer := rows.best_peer(case)) is not None}
    return {
        "row": "summary",
        "r2_rows_at_least_best_peer": against(rows, best),
        "unexplained_ratio": unexplained(rows, best),
        "evaluations_ratio": evaluations(rows, best),
        "time_trees_vs_spectralexplain": time_ratio(rows, "trees", "spectralexplain", ">= 15"),
        "time_trees_vs_shapiq": time_ratio(rows, "trees", "shapiq", ">= 5"),
        "time_auto_vs_shapiq": time_ratio(rows, "auto", "shapiq", ">= 2"),
        "time_auto_vs_tuned_trees": time_ratio(rows, "auto", "tuned_trees", ">= 1"),
        "big": big(rows),
        "adaptive_ratio": adaptive(rows),
        "spex": spex(rows),
        "proxyspex_vs_spex_evaluations": against_spex(rows),
        "never_worse_than_singles": against(rows, dict.fromkeys(rows.cases("auto", "singles"), "singles")),
        "gain_over_singles": gains(rows),
        "errors": Counter(row["method"] for row in rows.errors),
    }
