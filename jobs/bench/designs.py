"""Random masks that are balanced (`raysp.sampling.balance`, as every run draws them) beside independent ones: how much each kind leaves unexplained.

    python -m jobs.bench designs [--quick] [--seeds 3] [--output FILE]

Planted functions, tree ensembles and noisy sums, and games of the embedded model unless `--quick`: reviews by word, a question by sentence, heads. `auto` is fitted
to 2, 4 and 8 masks a component of either kind, and scored on fresh independent masks. A row is a game and a number of masks: R² with independent and with balanced
masks, means over seeds, and `ratio`, the variance that the balanced ones leave unexplained relative to the independent ones (the geometric mean over seeds). The
summary has the geometric mean over rows with its standard error, and in how many rows it is below one.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import raysp
from jobs.bench.engine_games import BenchGame, synthetic_games
from jobs.bench.engine_model_games import model_games
from jobs.bench.rows import write_all
from raysp.masks import Masks
from raysp.sampling.balance import balanced
from raysp.sampling.draws import random_masks
from raysp.spectral.regression import r_squared

SYNTHETIC = ("planted-32", "planted-64", "scattered-32", "additive-32", "trees-breast_cancer", "trees-digits")
MODEL = ("review-1", "review-2", "qa-sentences", "heads-54", "heads-270-keep-0.9")
#: Masks a component, and the most masks.
FACTORS, MOST = (2, 4, 8), 600
#: Unexplained variance below this counts as this: a ratio of two roundings says nothing.
NOTHING = 1e-3

#: How masks are changed once they are drawn.
DESIGNS: dict[str, Callable[[Masks, np.random.Generator], Masks]] = {
    "independent": lambda masks, _: masks,
    "balanced": lambda masks, rng: balanced(masks, rng, masks[:0], masks[:0]),
}


def scored(game: BenchGame, count: int, seed: int, fresh: Masks) -> dict[str, float]:
    """R² on fresh masks by the design of the masks that `auto` was fitted to."""
    found: dict[str, float] = {}
    for name, changed in DESIGNS.items():
        rng = np.random.default_rng([seed, game.n, count])
        masks = changed(random_masks(game.n, count, game.keep, rng), rng)
        fitted = raysp.ProxySPEX(n=game.n, random_state=seed, keep=game.keep).fit(masks, game(masks))
        found[name] = r_squared(game(fresh), fitted.predict(fresh))
    return found


def rows(games: Iterable[BenchGame], seeds: int) -> Iterator[dict[str, Any]]:
    """A row for each game and number of masks."""
    for game in games:
        fresh = random_masks(game.n, game.heldout, game.keep, np.random.default_rng([99, game.n]))
        for count in (factor * game.n for factor in FACTORS if factor * game.n <= MOST):
            found = [scored(game, count, seed, fresh) for seed in range(seeds)]
            left = {name: np.array([max(1 - each[name], NOTHING) for each in found]) for name in DESIGNS}
            ratio = float(np.exp(np.mean(np.log(left["balanced"] / left["independent"]))))
            yield {
                "row": "designs",
                "game": game.name,
                "masks": count,
                **{name: float(np.mean([each[name] for each in found])) for name in DESIGNS},
                "ratio": ratio,
            }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The geometric mean of the ratios with its standard error over rows, and the rows below one."""
    logs = np.log([row["ratio"] for row in found])
    mean, error = float(np.exp(np.mean(logs))), float(np.std(logs, ddof=1) / np.sqrt(len(logs))) if len(logs) > 1 else 0.0
    return {"row": "summary", "ratio": mean, "error": mean * error, "rows": len(found), "below_one": int(np.sum(logs < 0)), "met": mean < 1}


def main() -> None:
    """Print every row, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no game of a model: about two minutes")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the masks (%(default)s)")
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    games = [game for game in synthetic_games(quick=False) if game.name in SYNTHETIC]
    games += [] if options.quick else [game for game in model_games(quick=False) if game.name in MODEL]
    write_all(rows(games, options.seeds), summary, options.output)


if __name__ == "__main__":
    main()
