"""Slopes: held-out R² by passes with and without them, beside the peers, on parts of the embedded model.

    python -m jobs.bench slopes [--quick] [--games heads-54,mlps-30] [--seeds 3] [--output FILE]

A `fit` row is a game, a number of passes (random masks at the P(keep) that `auto` chooses for the game), a seed and a method: `values` is ProxySPEX told values
alone, `slopes` the same masks with slopes, the others are peers on the same masks, as in `engine.py`, and `tuned_trees`: boosted trees, untruncated, with the grid
of the ProxySPEX paper. `run` rows are whole runs of ProxySPEX with a budget in evaluations, without slopes (`off`) and with slopes offered at their measured
price (`auto`). R² is on fresh masks, never clipped. `seconds` are those of the fit and of all passes, at the seconds that a value and a value with slopes took
in this process (a `price` row for each game). The summary, the last line, has each goal's figure: the seconds with slopes to the best peer's R² at its largest
number of passes over that peer's seconds; unexplained variance with slopes over the best peer's at equal passes; and the least gain over values alone, less
two standard errors over seeds.

Values and slopes are kept (`kept.py`): a second run does not recompute them. With `--output`, rows are also added to a file. Peers are installed by the
extra `bench`. Everything runs in one thread; times are processor seconds.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench.engine_games import BenchGame
from jobs.bench.engine_peers import HELDOUT, PEERS, TRAIN, Fitted, Task, UnavailableError, quiet
from jobs.bench.rows import write_all
from jobs.bench.slope_games import LENSES, SlopeGame, one_thread, timed
from jobs.bench.slope_targets import summary
from raysp.explorers import ProxySPEX, r_squared

#: Passes of `values` and `slopes`, those of the peers, budgets of whole runs, held-out masks.
PASSES, PEER_PASSES, BUDGETS, FRESH = (25, 50, 75, 100, 200, 300), (200, 500, 2000), (300, 1000), 1000
QUICK_PASSES, QUICK_PEER_PASSES, QUICK_BUDGETS, QUICK_FRESH = (25, 50, 100), (100, 300), (200,), 300
QUICK_GAMES, SEEDS = ("heads-27", "heads-54"), 3
Row = dict[str, Any]


def drawn(game: SlopeGame, count: int, *seed: int) -> Any:
    """Random masks at the game's P(keep). A smaller count gives the first masks of a larger one."""
    return np.random.default_rng([*seed, game.lens.n]).random((count, game.lens.n)) < game.keep


def ours(game: SlopeGame, passes: int, seed: int, *, slopes: bool) -> tuple[Any, float]:
    """ProxySPEX told values, or values and slopes, of random masks; and the seconds of its fit."""
    masks = np.unique(drawn(game, passes, TRAIN, seed), axis=0)
    explorer = ProxySPEX(n=game.lens.n, random_state=seed, keep=game.keep)
    explorer.tell(masks, game.values(masks), None, game.slopes(masks)[:, None, :] if slopes else None)
    return timed(lambda: explorer.result().surrogate)


def run_row(game: SlopeGame, budget: int, seed: int, offered: str) -> Row:
    """A whole run that chooses what to buy; its seconds include those of its passes."""
    value, sloped = game.seconds
    explorer, own, bought = ProxySPEX(budget=budget, keep=game.keep, slopes=offered).start(game.lens.n, seed).with_slopes(sloped / value), 0.0, 0
    spent = 0.0
    while True:
        masks, seconds = timed(explorer.ask)
        own += seconds
        if not len(masks):
            break
        told = game.slopes(masks)[:, None, :] if explorer.asks_slopes else None
        spent += len(masks) * (value if told is None else sloped)
        bought += 0 if told is None else len(masks)
        explorer.tell(masks, game.values(masks), None, told)
    findings, seconds = timed(explorer.result)
    return {
        "surrogate": findings.surrogate,
        "seconds": spent + own + seconds,
        "seconds_fit": own + seconds,
        "passes": len(explorer.masks),
        "with_slopes": bought,
    }


def rows(game: SlopeGame, quick: bool, seeds: int) -> Iterator[Row]:
    """All rows of a game."""
    value, sloped = game.seconds
    said = {"game": game.name, "n": game.lens.n, "keep": game.keep}
    yield {"row": "price", **said, "seconds_value": value, "seconds_slopes": sloped, "price": sloped / value}
    fresh = drawn(game, QUICK_FRESH if quick else FRESH, HELDOUT)
    truth = game.values(fresh)
    bench = BenchGame(game.name, "slopes", game.lens.n, game.values, (), game.keep, len(fresh))
    for seed in range(seeds):
        for passes in QUICK_PASSES if quick else PASSES:
            for method in ("values", "slopes"):
                surrogate, seconds = ours(game, passes, seed, slopes=method == "slopes")
                score = {"r2": r_squared(truth, surrogate.predict(fresh)), "seconds_fit": seconds}
                each = sloped if method == "slopes" else value
                yield {"row": "fit", **said, "passes": passes, "seed": seed, "method": method, **score, "seconds": seconds + passes * each}
        for passes in QUICK_PEER_PASSES if quick else PEER_PASSES:
            for method, peer in PEERS.items():
                yield {"row": "fit", **said, "passes": passes, "seed": seed, "method": method} | peer_row(peer, Task(bench, passes, seed), fresh, truth, value)
        for budget in QUICK_BUDGETS if quick else BUDGETS:
            for offered in ("off", "auto"):
                found = run_row(game, budget, seed, offered)
                score = r_squared(truth, found.pop("surrogate").predict(fresh))
                yield {"row": "run", **said, "budget": budget, "seed": seed, "method": offered, "r2": score, **found}


def peer_row(peer: Callable[[Task], Fitted], task: Task, fresh: Any, truth: Any, value: float) -> Row:
    """The measured part of a peer's row, or why it is missing."""
    try:
        with quiet():
            fitted = peer(task)
            r2 = r_squared(truth, fitted.predict(fresh))
    except UnavailableError as error:
        return {"row": "missing", "why": str(error)}
    except Exception as error:  # noqa: BLE001  a peer's failure is a row, not the end of the others
        return {"row": "missing", "why": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    if not math.isfinite(r2):
        return {"row": "missing", "why": f"R² is {r2}"}
    return {"r2": r2, "seconds_fit": fitted.seconds, "seconds": fitted.seconds + fitted.evaluations * value}


def main() -> None:
    """Print every row, then the goals in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two games, fewer passes, one seed, under 6 minutes")
    parser.add_argument("--games", help=f"some of {','.join(LENSES)}")
    parser.add_argument("--seeds", type=int, help="seeds of every row (3; 1 with --quick)")
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    games = options.games.split(",") if options.games else list(QUICK_GAMES if options.quick else LENSES)
    if unknown := set(games) - set(LENSES):
        parser.error(f"no such game: {', '.join(sorted(unknown))}")
    one_thread()
    seeds = options.seeds or (1 if options.quick else SEEDS)
    write_all((row for name in games for row in rows(SlopeGame(name), options.quick, seeds)), summary, options.output)
