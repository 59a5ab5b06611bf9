"""Explorers: held-out R², seconds and number of terms of raysp's methods and of its peers on the same games, one JSON line a row, the summary last.

    python -m jobs.bench engine [--quick] [--games planted-32,review] [--methods auto,trees] [--seeds 3] [--output FILE] [--redo auto]

A `fit` row is a game, a budget of evaluations, a seed and a method. R² is on fresh masks (1,000; 500 where a value takes long), never
clipped; seconds are the fit's alone. All methods get the same masks and values, except those that draw their own: `adaptive`, `spex`, and
shapiq's. `auto` also runs at fractions of each game's largest budget, and `adaptive` only there: the number of evaluations that they need is read off these
curves by linear interpolation. A method that raises has a row with its `error`; one that is not installed has a line `missing`.
`--games` takes beginnings of names (`spex` and `big` are games too: recovery from SPEX's design with noise, and n = 1,000 in a process of its own).

With `--output`, rows go into the file as they come, and rows that it holds are not computed again, except errors and the methods that
`--redo` names. The values of the embedded model are kept as well (see `kept.py`): a second run does not recompute them. Peers are
installed by the extra `bench`. Timings are meant for an idle machine and OMP_NUM_THREADS=2: spectralexplain uses every core regardless, and its threads
mostly wait for one another if another program uses one. The full run takes many hours.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jobs.bench import engine_spex
from jobs.bench.engine_games import BenchGame, noisy_sum, synthetic_games
from jobs.bench.engine_methods import METHODS, USUAL, fit
from jobs.bench.engine_model_games import model_games
from jobs.bench.engine_peers import PEERS, Task, UnavailableError
from jobs.bench.engine_targets import KEY, summary
from jobs.bench.rows import say, write

#: Fractions of a game's largest budget at which `auto` and `adaptive` run.
LADDER = {"auto": (1 / 8, 1 / 4, 1 / 3, 1 / 2, 3 / 4), "adaptive": (0.4, 0.6, 0.8, 1.0)}
#: The same where a value takes long (so that fewer are held out): each rung of `adaptive` draws masks of its own.
COSTLY_LADDER, CHEAP_HELDOUT = {**LADDER, "adaptive": (0.6, 1.0)}, 1000
QUICK_LADDER = {"auto": (1 / 2,), "adaptive": (0.6, 1.0)}
#: In a quick run: held-out masks, seeds, and where the slowest peer and the adaptive rounds run.
QUICK_HELDOUT, QUICK_SEEDS = 300, {"planted-32": 2}
QUICK_ONLY = {"spectralexplain": ("planted-32", "review-1"), "adaptive": ("planted-32",), "kernel": ("planted-32", "review-1", "heads-54")}
BIG = (1000, 5000)

Job = tuple[dict[str, Any], Callable[[], dict[str, Any]]]


def budgets(game: BenchGame, method: str, quick: bool) -> list[int | None]:
    """The budgets at which a method runs; None for a design of its own."""
    if method == "spex":
        return [None] if game.spex else []
    ladder = QUICK_LADDER if quick else LADDER if game.heldout >= CHEAP_HELDOUT else COSTLY_LADDER
    rungs = [round(max(game.budgets) * share) for share in ladder.get(method, ())]
    return [*sorted({*rungs, *(() if method == "adaptive" else game.budgets)})]


def fit_row(method: str, game: BenchGame, budget: int | None, seed: int) -> dict[str, Any]:
    """The measured part of a row."""
    fitted, r2 = fit(method, Task(game, budget, seed))
    if not math.isfinite(r2):
        return {"error": f"R² is {r2}"}
    return {"r2": r2, "seconds": fitted.seconds, "terms": fitted.terms, "evaluations": fitted.evaluations}


def fits(games: list[BenchGame], methods: list[str], seeds: int | None, quick: bool) -> Iterator[Job]:
    """All fits, what names each and how it is computed, the same game's together."""
    for game in games:
        for seed in range(seeds or (QUICK_SEEDS.get(game.name, 1) if quick else 3)):
            for method in methods:
                if seed and (method == "spex" or (quick and method == "spectralexplain")):
                    continue  # a design as large as SPEX's varies little
                if quick and game.name not in QUICK_ONLY.get(method, (game.name,)):
                    continue
                for budget in budgets(game, method, quick):
                    named = {"row": "fit", "game": game.name, "budget": budget, "seed": seed, "method": method, "heldout": game.heldout}
                    described = {"kind": game.kind, "n": game.n, "keep": game.keep}
                    yield named | described, lambda where=(method, game, budget, seed): fit_row(*where)


def recoveries(seeds: int | None, quick: bool, limit: int) -> Iterator[Job]:
    """SPEX's rows."""
    planting = engine_spex.QUICK if quick else engine_spex.FULL
    for named in engine_spex.tasks(planting, seeds or (1 if quick else 3)):
        yield named, lambda what=named: engine_spex.row(planting, what["method"], what["snr_db"], what["seed"], limit)


def big_row() -> dict[str, Any]:
    """One large fit in a process of its own."""
    command = [sys.executable, "-m", "jobs.bench.engine_big", *map(str, BIG), "auto"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  this interpreter, a module of this package
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def warm(methods: list[str]) -> None:
    """Import and compile what the methods need, so that the first row does not pay for it. What fails here fails again in its row."""
    game = BenchGame("warm", "additive", 20, noisy_sum(20, 0), (64,), heldout=8, spex=3)
    for method in methods:
        if method not in PEERS:
            computed({"row": "warm", "method": method}, lambda chosen=method: fit_row(chosen, game, None if chosen == "spex" else 64, 0))


def computed(named: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The whole row, with its error if it raised; a line `missing` if the method is not there."""
    try:
        return named | compute()
    except UnavailableError as error:
        return named | {"row": "missing", "why": str(error)}
    except Exception as error:  # noqa: BLE001  one method's failure is a row, not the end of the others
        return named | {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def told(row: dict[str, Any]) -> str:
    """A row in words."""
    where = " ".join(str(row[name]) for name in ("game", "budget", "snr_db", "method") if row.get(name) is not None)
    if "why" in row or "error" in row:
        return f"{where}: {row.get('why', row.get('error'))}"
    score = f"R² {row['r2']:.4f}" if "r2" in row else f"recovery {row['recovery']:.3f}" if "recovery" in row else "time limit"
    return f"{where} seed {row.get('seed', 0)}: {score}, {row['seconds']:.2f} s"


class Output:
    """Rows as they come: on stdout, and in a file whose rows of an earlier run count as computed."""

    def __init__(self, path: Path | None, redo: list[str]) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        found = [row for row in map(json.loads, lines) if row["row"] not in ("summary", "missing")]
        self.rows = [row for row in found if row["method"] not in redo]
        self.known = {self.name(row) for row in self.rows if "error" not in row}

    @staticmethod
    def name(row: dict[str, Any]) -> tuple[Any, ...]:
        """The fields that identify a row."""
        return tuple(row.get(part) for part in KEY)

    def write(self, row: dict[str, Any]) -> None:
        """Write a row at once."""
        write(row, self.path)
        if row["row"] not in ("summary", "missing"):
            self.rows.append(row)


def run(jobs: Iterator[Job], output: Output) -> None:
    """Compute the rows that are missing; report a method that is not installed once."""
    missing: set[str] = set()
    for named, compute in jobs:
        if output.name(named) in output.known:
            continue
        row = computed(named, compute)
        if "why" not in row:
            output.write(row)
        elif f"{row['method']}: {row['why']}" not in missing:
            missing.add(f"{row['method']}: {row['why']}")
            output.write({"row": "missing", "method": row["method"], "game": row["game"], "why": row["why"]})
        say(told(row))


def selected(jobs: Iterator[Job], games: list[str]) -> Iterator[Job]:
    """The jobs of the games whose names begin so."""
    return ((named, compute) for named, compute in jobs if any(named["game"].startswith(name) for name in games))


def every(quick: bool, games: list[str], methods: list[str], seeds: int | None, limit: int) -> Iterator[Job]:
    """All jobs of a run, cheap games before those of the model."""
    there = [*synthetic_games(quick), *model_games(quick)]
    if quick:
        there = [BenchGame(g.name, g.kind, g.n, g.function, g.budgets, g.keep, QUICK_HELDOUT) for g in there]
    yield from selected(fits(there, methods, seeds, quick), games)
    yield from selected(recoveries(seeds, quick, limit), games) if "spex" in methods else ()
    if "auto" in methods:
        yield from selected(iter([({"row": "big", "game": "big", "method": "auto"}, big_row)]), games)


def names(text: str) -> list[str]:
    """A list written with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def main() -> None:
    """Print every row, then the targets in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few games, small budgets, under 5 minutes")
    parser.add_argument("--games", type=names, default=[""], help="only games whose names begin so")
    parser.add_argument("--methods", type=names, default=list(USUAL), help=f"only these methods, of {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, help="seeds of every row (3; fewer with --quick)")
    parser.add_argument("--limit", type=int, default=engine_spex.TIME_LIMIT, help="processor seconds after which a peer's SPEX is stopped (%(default)s)")
    parser.add_argument("--output", type=Path, help="a file of rows to append to and to resume from")
    parser.add_argument("--redo", type=names, default=[], help="methods whose rows in that file are computed again")
    options = parser.parse_args()
    if unknown := set(options.methods + options.redo) - set(METHODS):
        parser.error(f"no such method: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    output = Output(options.output, options.redo)
    warm(options.methods)
    run(every(options.quick, options.games, options.methods, options.seeds, options.limit), output)
    output.write(summary(output.rows))
    say(f"{time.monotonic() - began:.0f} s in all")
