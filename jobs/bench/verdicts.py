"""Whether verdicts mean what they say: whole runs on many small games, each verdict beside the truth, one JSON line a game.

    python -m jobs.bench verdicts [--quick] [--families parity,peak] [--part 1/2] [--output FILE]

Each game of `verdict_games.py` is asked as a user asks it: a function lens, the default explorer and validation, a store, n to 20 n evaluations. A run that says
*reliable* is wrong if the R² that it states, on uniform masks or around the intact input, lies beyond its interval from the R² on 2,000 fresh masks of the same
distribution, or if a deviation that it reports as significant has another sign in truth and a value outside its interval. An answer is good if it does what
*reliable* claims: R² of at least 0.8 on both distributions, significant deviations with their true signs, and deviations around the intact input of which at
least 80% have the right sign and whose mean error is at most half their mean size (or negligible beside the single effects). The summary has the share of
reliable runs that are wrong and the share of good answers that are called reliable, in all and by family.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from jobs.bench.rows import say, write
from jobs.bench.verdict_games import FAMILIES, Game, drawn, listed
from jobs.bench.verdict_tables import kept_tables
from jobs.bench.verdict_truths import Truth, truth_of
from raysp.runs.local import LocalEngine
from raysp.runs.parts import new_run_id
from raysp.runs.result import Result
from raysp.specs.explorers import ProxySPEXOptions
from raysp.specs.lenses import FunctionLens
from raysp.specs.run import RunSpec, resolve
from raysp.validation.verdicts import GOOD_ERROR, GOOD_R2, GOOD_SIGN, NEGLIGIBLE

#: The share of all games in the quick run.
QUICK = 0.12
#: Half of the last decimal in which a verdict states R²: what is smaller is not stated.
ROUNDED = 0.005
#: The most reliable runs that may be wrong, and the fewest good answers to be called reliable.
MOST_WRONG, LEAST_CALLED = 0.05, 0.8


def asked(game: Game, engine: LocalEngine, store: Path) -> Result:
    """A whole run with its store."""
    spec = RunSpec(lens=FunctionLens(game, n=game.n), explorer=ProxySPEXOptions(budget=game.budget), seed=game.seed, local=True, store=str(store))
    return engine.run(resolve(spec), new_run_id())


def beyond(truth: Truth, metrics: dict[str, Any], name: str) -> float:
    """How far a true R² lies outside the interval stated: positive above it, negative below, 0.0 within or where none is stated."""
    true = truth.r2[name]
    lo, hi = (metrics.get(f"{name}_{end}") for end in ("lo", "hi"))
    if lo is None or hi is None or not np.isfinite(true):
        return 0.0
    return max(true - hi, 0.0) + min(true - lo, 0.0)


def misses(outside: dict[str, float]) -> bool:
    """Whether a true R² lies outside the interval stated by more than the decimals stated."""
    return any(abs(far) > ROUNDED for far in outside.values())


def good(truth: Truth) -> bool:
    """Whether an answer does what *reliable* claims of it."""
    accurate = all(not np.isfinite(true) or true >= GOOD_R2 for true in truth.r2.values())
    close = truth.error <= GOOD_ERROR * truth.size and truth.signs >= GOOD_SIGN
    negligible = max(truth.error, truth.size) <= NEGLIGIBLE * truth.single
    return accurate and truth.wrong_signs == 0 and (close or negligible)


def row_of(game: Game, result: Result, seconds: float) -> dict[str, Any]:
    """The verdict of a run beside the truth."""
    truth, metrics = truth_of(game, result), result.summary["metrics"]
    outside = {name: beyond(truth, metrics, name) for name in truth.r2}
    verdict = result.summary["verdict"]
    return {
        "row": "game", "game": game.name, "family": game.family, "n": game.n, "budget": game.budget, "evaluations": result.evaluation_count,
        "seconds": seconds, "verdict": verdict, "reliable": verdict == "reliable", "codes": [reason["code"] for reason in result.summary["reasons"]],
        "stated": {name: metrics.get(name) for each in truth.r2 for name in (each, f"{each}_lo", f"{each}_hi")},
        "true": {name: value if np.isfinite(value) else None for name, value in truth.r2.items()},
        "beyond": outside, "significant": truth.significant, "wrong_signs": truth.wrong_signs,
        "error": truth.error, "size": truth.size, "signs": truth.signs,
        "wrong": misses(outside) or truth.wrong_signs > 0, "good": good(truth),
    }  # fmt: skip


def share(rows: list[dict[str, Any]], what: str) -> float | None:
    """The share of rows with a property; None without rows."""
    return sum(row[what] for row in rows) / len(rows) if rows else None


def shares(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of reliable runs that are wrong, in sum and by what is wrong, and of good answers called reliable."""
    reliable, well = [row for row in rows if row["reliable"]], [row for row in rows if row["good"]]
    overstated = [row for row in reliable if row["wrong_signs"] or min(row["beyond"].values()) < -ROUNDED]
    return {
        "games": len(rows), "reliable": len(reliable), "wrong": share(reliable, "wrong"),
        "wrong_unrounded": sum(any(row["beyond"].values()) or row["wrong_signs"] > 0 for row in reliable) / len(reliable) if reliable else None,
        "wrong_of_all": sum(row["wrong"] for row in reliable) / max(len(rows), 1),
        "overstated": len(overstated) / len(reliable) if reliable else None, "not_good": sum(not row["good"] for row in reliable) / len(reliable) if reliable else None,
        "good": len(well), "called": share(well, "reliable"),
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The shares of all games and by family, and whether both goals are met."""
    every = shares(rows)
    met = {
        "wrong_met": every["wrong"] is not None and every["wrong"] <= MOST_WRONG,
        "called_met": every["called"] is not None and every["called"] >= LEAST_CALLED,
    }
    families = {family: shares([row for row in rows if row["family"] == family]) for family in dict.fromkeys(row["family"] for row in rows)}
    return {"row": "summary", **every, **met, "families": families}


def games(chosen: list[str], size: float, part: tuple[int, int]) -> Iterator[Game]:
    """The games of a share of all, and of each of their families every `part[1]`-th from the `part[0]`-th on."""
    tables = kept_tables() if "stored" in chosen else ()
    if "stored" in chosen and not tables:
        say("no exact tables of the embedded model are kept; `python -m jobs.bench indices` measures them")
    families = [family for family in chosen if family != "stored" or tables]
    for family, number in listed(size, families):
        if number % part[1] == part[0] - 1:
            yield drawn(family, number, tables)


def known(path: Path | None) -> list[dict[str, Any]]:
    """The rows of games in a file of an earlier call; none if the file does not exist."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path is not None and path.exists() else []
    return [row for row in rows if row["row"] == "game"]


def main() -> None:
    """Print every row, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about 120 games: under six minutes")
    parser.add_argument("--families", default=",".join(FAMILIES), help="the families, with commas (%(default)s)")
    parser.add_argument("--part", default="1/1", help="a part of the games, such as 1/2, for several processes")
    parser.add_argument("--output", type=Path, help="a file of rows to append to; games that it has are not asked again, and count in the summary")
    options = parser.parse_args()
    first, parts = (int(number) for number in options.part.split("/"))
    told = known(options.output)
    done = {row["game"] for row in told}
    with TemporaryDirectory() as folder, LocalEngine() as engine:
        for game in games(options.families.split(","), QUICK if options.quick else 1.0, (first, parts)):
            if game.name in done:
                continue
            began = time.process_time()
            result = asked(game, engine, Path(folder) / "verdicts.duckdb")
            row = row_of(game, result, time.process_time() - began)
            told.append(row)
            write(row, options.output)
    write(summary(told), options.output)


if __name__ == "__main__":
    main()
