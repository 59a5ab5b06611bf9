"""What the mechanistic lens is worth: ablations a second beside the loops people write and the libraries they use, pairs found by gradients, heads pruned.

    python jobs/bench_mechanistic.py [--quick] [--parts speed,pairs,prune] [--seeds 3] [--output FILE]

One JSON line a row, the summary last. Everything runs on the embedded model in float32.

`speed`: every head of the model ablated alone (n = 270), and random masks that keep nine heads of ten, timed in turns in one process: ours; a hook a head, one
forward pass each, as people write it; nnsight and transformer-lens, both with the masks of a whole batch in one pass and only the last logits computed where the
library can be told so. Values must agree to 1e-4, relative to the largest. `pairs`: all pairs among 54 heads exactly, beside the ranking by second-order gradients.
`prune`: heads of three groups of three layers left out at 50, 66 and 83 % kept, chosen from random subsets of a task's prompts and scored by accuracy on held-out
ones: by interactions, by the LASSO on singles, and the best of random subsets.

With `--output`, rows go into the file as they come, and those it holds are not computed again; evaluations are kept as in `engine_model_games.py`. Peers are installed
by the extra `bench`. Timings are meant for an idle machine.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import mechanistic_peers as peers
import numpy as np
from engine_claims import claim
from engine_model_games import ITALY, Kept

from raysp.explorers import ProxySPEX
from raysp.explorers.fitting import fit_singles
from raysp.lenses.mechanistic import MechanisticGame, build_mechanistic_game, fits
from raysp.lenses.specs import MechanisticLens
from raysp.lenses.tasks import make
from raysp.pruning import SHARES, Known, compare

ASKED = {"prompt": ITALY, "target": " Tokyo", "foil": " Rome", "dtype": "float32"}
#: P(keep) of the random masks, and how many are timed.
KEEP, RANDOM, QUICK_RANDOM = 0.9, 256, 128
#: Rounds of the timings, each method once in each.
ROUNDS, QUICK_ROUNDS = 3, 1
#: Values of two implementations in float32 may differ by so much of the largest.
AGREEMENT = 1e-4
#: Pairs looked for, and proposed for verification.
TOP, PROPOSED = 20, 40
#: The pruning experiment: layers, random subsets, prompts to choose by and to score by.
GROUPS = ((0, 1, 2), (14, 15, 16), (27, 28, 29))
SUBSETS, QUICK_SUBSETS = 5000, 800
TRAIN, QUICK_TRAIN, HELDOUT, QUICK_HELDOUT = 48, 8, 200, 60
DRAWS = 64

Row = dict[str, Any]


def say(*words: object) -> None:
    """A line of progress."""
    print(*words, file=sys.stderr, flush=True)


# ---- speed


def speed(quick: bool) -> Iterator[Row]:
    """Every method on the same masks, in turns."""
    game = build_mechanistic_game(MechanisticLens(**ASKED, components="heads"))
    rng = np.random.default_rng(0)
    sets = {
        "singles": np.concatenate([np.ones((1, game.n), dtype=bool), ~np.eye(game.n, dtype=bool)]),
        "random": rng.random((QUICK_RANDOM if quick else RANDOM, game.n)) < KEEP,
    }
    methods: dict[str, Callable[[Any], Any]] = {"raysp": game.evaluate}
    for name, maker in peers.METHODS.items():
        try:
            methods[name] = maker(game)
        except ImportError as error:
            yield {"row": "missing", "method": name, "why": str(error)}
    for what, masks in sets.items():
        expected = game.evaluate(masks)
        for method in methods.values():
            method(masks[:2])
        for number in range(QUICK_ROUNDS if quick else ROUNDS):
            for name, method in methods.items():
                # A hook a head is one pass a mask whatever is ablated: some of the masks tell its speed.
                some = masks[:: max(len(masks) // 48, 1)] if name == "head_loop" and quick else masks
                began = time.perf_counter()
                values = np.asarray(method(some))
                seconds = time.perf_counter() - began
                wanted = expected[:: max(len(masks) // 48, 1)] if len(some) < len(masks) else expected
                apart = float(np.abs(values - wanted).max() / np.abs(wanted).max())
                yield {"row": "speed", "what": what, "method": name, "round": number, "masks": len(some), "per_second": len(some) / seconds, "apart": apart}


# ---- pairs


def pairs() -> Iterator[Row]:
    """The strongest pairs by exact ablations, and how many of them gradients propose."""
    game = build_mechanistic_game(MechanisticLens(**ASKED, components="heads:12-17"))
    n = game.n
    first, second = np.triu_indices(n, 1)
    masks = np.ones((1 + n + len(first), n), dtype=bool)
    masks[np.arange(1, n + 1), np.arange(n)] = False
    rows = np.arange(n + 1, len(masks))
    masks[rows, first] = masks[rows, second] = False
    game.estimate(2)  # the first pays for warming up
    began = time.perf_counter()
    estimate = game.estimate(2)
    by_gradient = time.perf_counter() - began
    began = time.perf_counter()
    values = game.evaluate(masks)
    exactly = time.perf_counter() - began

    def deviations(found: Any) -> Any:
        effects = found[0] - found[1 : n + 1]
        return found[0] - found[n + 1 :] - effects[first] - effects[second]

    exact, guessed = deviations(values), deviations(estimate.predict(masks))
    strongest = set(np.argsort(-np.abs(exact))[:TOP].tolist())
    proposed = np.argsort(-np.abs(guessed))
    from scipy.stats import spearmanr

    yield {
        "row": "pairs", "heads": n, "pairs": len(first), "seconds_exact": exactly, "seconds_gradient": by_gradient, "cost": by_gradient / exactly,
        "cost_with_verification": by_gradient / exactly + PROPOSED / len(masks), "found_among_20": len(strongest & set(proposed[:TOP].tolist())),
        "found_among_40": len(strongest & set(proposed[:PROPOSED].tolist())), "rank_correlation": float(spearmanr(exact, guessed).statistic),
    }  # fmt: skip


# ---- pruning


def pruning(quick: bool, seeds: int, task: str) -> Iterator[Row]:
    """The published head experiment on one task."""
    for layers in GROUPS:
        for seed in range(seeds):
            yield from _pruned(layers, seed, quick, task)


def _pruned(layers: tuple[int, ...], seed: int, quick: bool, task: str) -> Iterator[Row]:
    size, held, subsets = (QUICK_TRAIN, QUICK_HELDOUT, QUICK_SUBSETS) if quick else (TRAIN, HELDOUT, SUBSETS)
    named = f"heads:{layers[0]}-{layers[-1]}"
    lens = MechanisticLens(task=task, task_size=size, task_seed=seed, value="accuracy", components=named, ablation="zero-rescale", dtype="float32")
    fitting = fits(lens)
    asked = make(task, size, seed, fitting)
    unseen = make(task, held, 1_000_003, fitting, excluding={question.prompt for question in asked})
    train, heldout = build_mechanistic_game(lens, asked), build_mechanistic_game(lens, unseen)
    masks = np.random.default_rng([seed, layers[0]]).random((subsets, train.n)) < 0.5
    values = Kept(lambda: train.info.fingerprint, train.evaluate)(masks)
    began = time.perf_counter()
    fitted = ProxySPEX(max_order=4, random_state=seed).fit(masks, values)
    seconds = time.perf_counter() - began
    near = np.concatenate([np.ones((1, train.n), dtype=bool), ~np.eye(train.n, dtype=bool)])
    exact = train.evaluate(near)
    surrogate: Any = fitted.findings.surrogate
    of_layer = tuple(component.layer or 0 for component in train.components)
    known = Known(surrogate, fit_singles(masks, values, seed), exact[0] - exact[1:], of_layer, more_is_better=True, seed=seed)
    for share in SHARES:
        for found in compare(known, _by_prompt(train), _by_prompt(heldout), share, per_layer=False, draws=DRAWS):
            yield {
                "row": "prune", "task": task, "layers": list(layers), "seed": seed, "keep": share, "method": found.method, "train": found.train,
                "heldout": found.heldout, "subsets": subsets, "prompts": size, "heldout_prompts": held, "seconds_fit": seconds,
            }  # fmt: skip


def _by_prompt(game: MechanisticGame) -> Callable[[Any], Any]:
    return lambda masks: game.reading.by_prompt(game.branching, masks)


# ---- summary


def summary(rows: list[Row]) -> Row:
    """What the issue claims, each with the figure wanted."""
    rate: dict[tuple[str, str], float] = {}
    for row in rows:
        if row["row"] == "speed":
            rate[row["what"], row["method"]] = max(rate.get((row["what"], row["method"]), 0.0), row["per_second"])
    ratios = {what: {name: rate[what, "raysp"] / rate[key] for key in rate if (name := key[1]) != "raysp" and key[0] == what} for what in ("singles", "random")
              if (what, "raysp") in rate}  # fmt: skip
    loop = [found["head_loop"] for found in ratios.values() if "head_loop" in found]
    best = [min(value for name, value in found.items() if name != "head_loop") for found in ratios.values() if len(found) > 1]
    apart = max((row["apart"] for row in rows if row["row"] == "speed"), default=None)
    found = next((row for row in rows if row["row"] == "pairs"), None)
    return {
        "row": "summary",
        "vs_head_loop": claim(min(loop, default=None), ">= 5"),
        "vs_best_peer": claim(min(best, default=None), ">= 1.5"),
        "ratios": ratios,
        "apart": claim(apart, f"<= {AGREEMENT}"),
        "pairs_found": claim(
            None if found is None else found["found_among_40"] / TOP, ">= 0.5", among_top_20=None if found is None else found["found_among_20"]
        ),
        "pairs_cost": claim(None if found is None else found["cost_with_verification"], "<= 0.1"),
        "prune": _prune_summary([row for row in rows if row["row"] == "prune"]),
    }


def _prune_summary(rows: list[Row]) -> Row:
    """Held-out accuracy of interactions less that of each other way: the mean over cells, and the cells in which they are worse."""
    cells: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for row in rows:
        cells.setdefault((row["task"], tuple(row["layers"]), row["keep"]), {}).setdefault(row["method"], []).append(row["heldout"])
    told: Row = {"cells": len(cells)}
    for other in ("singles", "top_singles", "best_of_n"):
        gains = {cell: mean(found["interactions"]) - mean(found[other]) for cell, found in cells.items() if other in found}
        if gains:
            worse = [{"layers": list(cell[1]), "keep": cell[2], "gain": round(gain, 4)} for cell, gain in gains.items() if gain < 0]
            told[f"gain_over_{other}"] = claim(mean(gains.values()), "> 0".replace(">", ">="), worse=worse)
    return told


def main() -> None:
    """Print every row, then the claims in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer masks and prompts, one seed, under 5 minutes")
    parser.add_argument("--parts", default="speed,pairs,prune", help="speed, pairs and prune, or some of them")
    parser.add_argument("--seeds", type=int, help="seeds of the pruning experiment (3; 1 with --quick)")
    parser.add_argument("--task", default="facts", help="the task of the pruning experiment")
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    began = time.monotonic()
    rows: list[Row] = []
    wanted = options.parts.split(",")
    if unknown := set(wanted) - {"speed", "pairs", "prune"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "speed": lambda: speed(options.quick),
        "pairs": pairs,
        "prune": lambda: pruning(options.quick, options.seeds or (1 if options.quick else 3), options.task),
    }
    for part in wanted:
        for row in parts[part]():
            _write(row, options.output)
            rows.append(row)
            say({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    _write(summary(rows), options.output)
    say(f"{time.monotonic() - began:.0f} s in all")


def _write(row: Row, path: Path | None) -> None:
    line = json.dumps(row)
    print(line, flush=True)
    if path is not None:
        with path.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
