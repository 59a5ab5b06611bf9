"""How well an answer holds at the intact input: both readings of the surrogate, what to remove, and what changes the answer.

    python -m jobs.bench intact [--quick] [--games review-19,heads-54] [--parts readings,removal] [--seeds 3] [--output FILE]

`reading` rows are a game, a method and a seed, at 4 n log2 n evaluations (`auto` with a focus on the intact input, on the average over contexts, or both) or at 60 %
of them (`average-60`). Where a game has slopes, a run buys them at 2.5 evaluations each, as by default; `both-values` is without, and `both-slopes-25` a quarter of
the passes, with or without slopes. `singles_r2` is R² of all v(all) - v(all without i); `pairs_r`
and `pairs_r2` are correlation and R² of the deviations v(all) - v(without i) - v(without j) + v(without both) of random pairs, all measured exactly; those that the
run did not measure itself are also scored alone (`unmeasured_r`), and only these count for `covered`, the share within the product's 95 % interval, and its mean
`width` over the standard deviation of all deviations. `uniform_r2` is R² on fresh uniform masks.

`removal` rows have the drop of the value without r components: the best set under the surrogate of `both` (`solver`, measured exactly) and
the best of few measured sets (`measured`), beside rankings, a greedy removal, that of `raysp.greedy_removals` (`slopes, measured`: three evaluations and a pass
with slopes for each size), and the optimum where n is at most 14. `flip` rows have the size of the smallest verified set whose removal changes the answer.

The summary, the last line, has each goal's figure. Values are kept between runs (see `kept.py`).
"""

import argparse
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench.engine_peers import HELDOUT
from jobs.bench.intact_games import IntactGame, Questions
from jobs.bench.intact_removal import Row, by_slopes, curve, flipped, rankings
from jobs.bench.intact_targets import summary
from jobs.bench.rows import write_all
from raysp.explorers import ProxySPEX, r_squared
from raysp.explorers.base import Findings
from raysp.explorers.singles import default_budget
from raysp.masks import Masks, Values, lookup
from raysp.runs.prediction import Measured, deviations
from raysp.sampling.ablations import ablations
from raysp.specs.explorers import Focus
from raysp.specs.validation import Validation
from raysp.validation.planning import plan

READ, REMOVED = (
    ("review-19", "review-38", "review-40", "sentences-20", "heads-54", "question-77"),
    ("words-12", "sentences-12", "heads-13", "review-19", "review-40"),
)
QUICK_READ, QUICK_REMOVED = ("review-19", "heads-54"), ("words-10", "review-19")
#: Pairs and uniform masks that are measured exactly; first number of the seed of the pairs.
PAIRS, FRESH, QUICK_FRESH, DRAWN = 300, 500, 200, 51
#: The price of a value with slopes, in values: what heads of the embedded model cost.
PRICE = 2.5
#: The methods: focus, share of 4 n log2 n evaluations, and the price of slopes where a game has them (None: values alone).
METHODS: dict[str, tuple[Focus, float, float | None]] = {
    "both": ("both", 1.0, PRICE),
    "intact": ("intact", 1.0, PRICE),
    "average": ("average", 1.0, None),
    "average-60": ("average", 0.6, None),
    "both-values": ("both", 1.0, None),
    "both-slopes-25": ("both", 0.25, 1.0),
}
#: Methods that games without slopes need not be measured with.
FOR_SLOPES = frozenset({"both-values", "both-slopes-25"})


class Run:
    """A run's explorer, told the values that it asked for, with its findings."""

    def __init__(self, game: IntactGame, method: str, seed: int) -> None:
        focus, share, price = METHODS[method]
        self.game = game
        self.explorer = ProxySPEX(budget=round(share * default_budget(game.n)), focus=focus, slopes="on" if price == 1.0 else "auto").start(game.n, seed)
        if price is not None and game.sloped:
            self.explorer.with_slopes(price)
        while not self.explorer.done():
            masks = self.explorer.ask()
            sloped = game.sloped.slopes(masks)[:, None, :] if self.explorer.asks_slopes and game.sloped else None
            self.explorer.tell(masks, game.value(masks), None, sloped)
        self.findings: Findings = self.explorer.result()

    def measured(self, seed: int) -> Measured:
        """The run's evaluations with those that its validation adds: the ones from which intervals are computed."""
        known = self.explorer.masks
        checks = plan(self.findings, self.game.n, Validation(), self.explorer.keep_probability, np.random.default_rng([seed, 1]), known).masks
        return Measured.with_checks(self.explorer, checks, self.game.value(checks))


@cache
def random_pairs(n: int) -> tuple[tuple[int, int], ...]:
    """Random pairs of components, all of them if there are not more than `PAIRS`."""
    every = [(i, j) for i in range(n) for j in range(i + 1, n)]
    chosen = np.random.default_rng([DRAWN, n]).permutation(len(every))[:PAIRS]
    return tuple(every[row] for row in np.sort(chosen))


def exact_deviations(game: IntactGame) -> tuple[Values, Values, Masks]:
    """Exact single effects `(n,)`, and deviations of the random pairs with their masks."""
    pairs = random_pairs(game.n)
    masks = ablations(game.n, list(pairs))
    values = game.value(ablations(game.n, [(), *((i,) for i in range(game.n))]))
    effects = values[0] - values[1:]
    joint = values[0] - game.value(masks)
    return effects, effects[[i for i, _ in pairs]] + effects[[j for _, j in pairs]] - joint, masks


def correlation(one: Values, other: Values) -> float:
    """Pearson's correlation; 0 if either does not vary."""
    return float(np.corrcoef(one, other)[0, 1]) if np.ptp(one) > 0 and np.ptp(other) > 0 else 0.0


def reading(game: IntactGame, method: str, seed: int, fresh: Masks) -> Row:
    """The row of a run."""
    run, surrogate = (found := Run(game, method, seed)), found.findings.surrogate
    effects, exact, masks = exact_deviations(game)
    # A deviation from additivity has the sign that removing has: what both do together beyond what each does.
    estimates, widths = deviations(surrogate, run.measured(seed), [*((i,) for i in range(game.n)), *random_pairs(game.n)])
    singles, found_pairs, widths = estimates[: game.n], -estimates[game.n :], widths[game.n :]
    unseen = lookup(run.explorer.masks, masks) < 0
    spread = float(np.std(exact))
    row: Row = {
        "row": "reading",
        "game": game.name,
        "n": game.n,
        "method": method,
        "seed": seed,
        "evaluations": len(run.explorer.masks),
    }
    row |= {"singles_r2": r_squared(effects, singles), "pairs_r": correlation(exact, found_pairs), "pairs_r2": r_squared(exact, found_pairs)}
    row |= {"pairs_measured": float(1 - unseen.mean()), "uniform_r2": r_squared(game.value(fresh), surrogate.predict(fresh))}
    if unseen.any():
        row |= {"unmeasured_r": correlation(exact[unseen], found_pairs[unseen])}
        row |= {"covered": float(np.mean(np.abs(exact - found_pairs)[unseen] <= widths[unseen])), "unmeasured": int(unseen.sum())}
        row |= {"width": float(widths[unseen].mean() / spread) if spread else 0.0}
    return row


def readings(names: Iterable[str], seeds: int, count: int) -> Iterator[Row]:
    """A row for each game, method and seed."""
    for name in names:
        game = Questions().of(name)
        fresh = np.random.default_rng([HELDOUT, game.n]).random((count, game.n)) < 0.5
        for seed in range(seeds):
            yield from (reading(game, method, seed, fresh) for method in METHODS if game.sloped or method not in FOR_SLOPES)


def removals(names: Iterable[str], seeds: int) -> Iterator[Row]:
    """Removal curves and flip sets."""
    for name in names:
        game = Questions().of(name)
        for seed in range(seeds):
            surrogate, others = Run(game, "both", seed).findings.surrogate, rankings(game.value, game.n, default_budget(game.n), seed)
            if game.gate_slopes is not None:
                others["slopes, measured"] = by_slopes(game.value, game.n, game.gate_slopes)
            where = {"game": name, "n": game.n, "seed": seed}
            yield from ({"row": "removal"} | where | each for each in curve(game.value, game.n, surrogate, others))
            yield from ({"row": "flip"} | where | each for each in flipped(game.value, game.n, surrogate, others))


def main() -> None:
    """Print every row, then the goals in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few games and one seed: under six minutes")
    parser.add_argument("--games", help=f"the games, with commas ({','.join(READ)} for readings, {','.join(REMOVED)} for removals)")
    parser.add_argument("--parts", default="readings,removal", help="readings, removal or both (%(default)s)")
    parser.add_argument("--seeds", type=int, help="seeds of every row (3; 1 with --quick)")
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    parts: dict[str, Any] = {}
    chosen, seeds = options.games.split(",") if options.games else None, options.seeds or (1 if options.quick else 3)
    parts["readings"] = lambda: readings(chosen or (QUICK_READ if options.quick else READ), seeds, QUICK_FRESH if options.quick else FRESH)
    parts["removal"] = lambda: removals(chosen or (QUICK_REMOVED if options.quick else REMOVED), seeds)
    if unknown := set(options.parts.split(",")) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    write_all((row for part in options.parts.split(",") for row in parts[part]()), summary, options.output)


if __name__ == "__main__":
    main()
