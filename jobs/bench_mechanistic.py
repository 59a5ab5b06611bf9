"""What the mechanistic lens is worth: ablations a second beside the loops people write and the libraries they use, pairs found by gradients, heads pruned.

    python jobs/bench_mechanistic.py [--quick] [--parts speed,pairs,prune] [--seeds 3] [--output FILE]

One JSON line a row, the summary last. Everything runs on the embedded model in float32.

`speed`: every head of the model ablated alone (n = 270), random masks over all that keep nine heads of ten, and random masks that keep half of the heads of three
layers, timed in turns in one process: ours; a hook a head, one forward pass a mask, as people write it; nnsight and transformer-lens, both with a batch of masks in
one pass, and only the last logits computed where the library can be told so. Values must agree to 1e-4, relative to the largest. `pairs`: all pairs among 54 heads
exactly, beside the ranking by second-order gradients. `prune`: heads of three groups of three layers left out at 50, 66 and 83 % kept, chosen by the mean margin on
a task's prompts under random subsets of the heads, and scored by accuracy on held-out ones (each seed has prompts, subsets and held-out prompts of its own): by interactions, by the LASSO on singles, each as it is and bettered by
as many exact swaps as random subsets are drawn, and the best of these.

With `--output`, rows are also added to a file. Evaluations of random subsets are kept (`bench_kept.py`). Peers are installed by the extra `bench`. Torch has
one thread, and seconds are of the processor, not of the clock: others at work on the machine change them little.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import mechanistic_peers as peers
import numpy as np
import torch
from bench_kept import Kept
from bench_rows import rounded, say, write
from engine_claims import claim
from engine_model_games import ITALY

from raysp.explorers import ProxySPEX
from raysp.explorers.fitting import fit_singles
from raysp.lenses.mechanistic import MechanisticGame, build_mechanistic_game, tokens
from raysp.lenses.specs import MechanisticLens
from raysp.lenses.tasks import make
from raysp.pruning import SHARES, Known, compare

ASKED = {"prompt": ITALY, "target": " Tokyo", "foil": " Rome", "dtype": "float32"}
#: P(keep) of the random masks, and how many are timed.
KEEP, RANDOM, QUICK_RANDOM = 0.9, 512, 96
#: In a quick run: masks of the slowest method, and every how many of them go to the libraries, whose batches stay full.
LOOPED, QUICK_STEP = 16, 2
#: Rounds of the timings, each method once in each.
ROUNDS, QUICK_ROUNDS = 3, 1
#: Values of two implementations in float32 may differ by so much of the largest.
AGREEMENT = 1e-4
#: Pairs looked for, and proposed for verification.
TOP, PROPOSED = 20, 40
#: The pruning experiment: layers, random subsets, prompts to choose by and to score by.
MIDDLE = (14, 15, 16)
GROUPS = ((0, 1, 2), MIDDLE, (27, 28, 29))
SUBSETS, TRAIN, HELDOUT, DRAWS = 5000, 48, 200, 64
QUICK_SUBSETS, QUICK_TRAIN, QUICK_HELDOUT, QUICK_DRAWS = 800, 2, 20, 16

#: Seeds between the prompts of a task and those that are held out of it.
APART = 1_000_003
#: Ways to prune set beside one another. Those with as many exact evaluations on the run's prompts stand side by side.
COMPARED = (
    ("interactions", "singles"),
    ("bettered", "singles"),
    ("bettered", "singles_bettered"),
    ("bettered", "top_singles"),
    ("bettered", "best_of_n"),
)

Row = dict[str, Any]
#: Task, layers and share kept.
Cell = tuple[str, tuple[int, ...], float]


# ---- speed


def speed(quick: bool) -> Iterator[Row]:
    """Every method on the same masks, in turns."""
    every = build_mechanistic_game(MechanisticLens(**ASKED, components="heads"))
    three = build_mechanistic_game(MechanisticLens(**ASKED, components="heads", layers=f"{MIDDLE[0]}-{MIDDLE[-1]}"))
    methods: dict[str, Callable[[Any], Any]] = {}
    for name, maker in peers.METHODS.items():
        try:
            methods[name] = maker(every)
        except ImportError as error:
            yield {"row": "missing", "method": name, "why": str(error)}
    rng, count = np.random.default_rng(0), QUICK_RANDOM if quick else RANDOM
    middle = np.array([component.layer in MIDDLE for component in every.components])
    workloads = {
        "singles": (every, np.concatenate([np.ones((1, every.n), dtype=bool), ~np.eye(every.n, dtype=bool)])),
        "random": (every, rng.random((count, every.n)) < KEEP),
        "three layers": (three, (rng.random((count, every.n)) < 0.5) | ~middle),
    }
    for what, (game, masks) in workloads.items():

        def ours(some: Any, game: MechanisticGame = game) -> Any:
            return game.evaluate(some if game is every else some[:, middle])

        expected = ours(masks)
        for number in range(QUICK_ROUNDS if quick else ROUNDS):
            for name, method in {"raysp": ours, **methods}.items():
                # The others share nothing between masks: some of these tell their speed.
                step = 1 if name == "raysp" or not quick else max(len(masks) // LOOPED, 1) if name == "head_loop" else QUICK_STEP
                some, wanted = masks[::step], expected[::step]
                method(some[:2])
                began = time.process_time()
                values = np.asarray(method(some))
                seconds = time.process_time() - began
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
    began = time.process_time()
    estimate = game.estimate(2)
    by_gradient = time.process_time() - began
    began = time.process_time()
    values = game.evaluate(masks)
    exactly = time.process_time() - began

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


@dataclass(frozen=True)
class Experiment:
    """The size of the pruning experiment: random subsets, prompts to choose by and to score by, exact evaluations that choose."""

    task: str
    subsets: int
    prompts: int
    heldout: int
    draws: int


def pruning(size: Experiment, seeds: int) -> Iterator[Row]:
    """The published head experiment on one task."""
    for seed in range(seeds):
        for layers in GROUPS:
            yield from _pruned(layers, seed, size)


def _pruned(layers: tuple[int, ...], seed: int, size: Experiment) -> Iterator[Row]:
    named = f"heads:{layers[0]}-{layers[-1]}"
    lens = MechanisticLens(
        task=size.task, task_size=size.prompts, task_seed=seed, value="logit_diff", components=named, ablation="zero-rescale", dtype="float32"
    )
    counting = tokens(lens)
    asked = make(size.task, size.prompts, seed, counting)
    unseen = make(size.task, size.heldout, APART + seed, counting, excluding={question.prompt for question in asked})
    # Few prompts make a coarse accuracy: all methods choose by the mean margin, and are scored by accuracy.
    train, heldout = build_mechanistic_game(lens, asked), build_mechanistic_game(lens.model_copy(update={"value": "accuracy"}), unseen)
    masks = np.random.default_rng([seed, layers[0]]).random((size.subsets, train.n)) < 0.5
    values = Kept(lambda: train.info.fingerprint, train.evaluate)(masks)
    began = time.process_time()
    fitted = ProxySPEX(max_order=4, random_state=seed).fit(masks, values)
    seconds = time.process_time() - began
    near = np.concatenate([np.ones((1, train.n), dtype=bool), ~np.eye(train.n, dtype=bool)])
    exact = train.evaluate(near)
    surrogate: Any = fitted.findings.surrogate
    of_layer = tuple(component.layer or 0 for component in train.components)
    known = Known(surrogate, fit_singles(masks, values, seed), exact[0] - exact[1:], of_layer, more_is_better=True, seed=seed)
    for share in SHARES:
        for found in compare(known, train.by_prompt, heldout.by_prompt, share, per_layer=False, draws=size.draws):
            yield {
                "row": "prune", "layers": list(layers), "seed": seed, "keep": share, "method": found.method, "train": found.train, "accuracy": found.heldout,
                "seconds_fit": seconds, **asdict(size),
            }  # fmt: skip


# ---- summary


def _seconds(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Seconds a mask of each workload and method, the best of the rounds."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["row"] == "speed":
            mine = found.setdefault(row["what"], {})
            mine[row["method"]] = min(mine.get(row["method"], float("inf")), 1 / row["per_second"])
    return found


def summary(rows: list[Row]) -> Row:
    """What the issue claims, each with the figure wanted: of the speed over all workloads together, as many masks of each, with each alone beside it."""
    seconds = _seconds(rows)
    everywhere = set.intersection(*map(set, seconds.values())) if seconds else set[str]()
    ratios = {what: {name: found[name] / found["raysp"] for name in sorted(everywhere - {"raysp"})} for what, found in seconds.items()}
    together = {name: sum(found[name] for found in seconds.values()) / sum(found["raysp"] for found in seconds.values()) for name in everywhere - {"raysp"}}
    peers_only = [ratio for name, ratio in together.items() if name != "head_loop"]
    apart = max((row["apart"] for row in rows if row["row"] == "speed"), default=None)
    found = next((row for row in rows if row["row"] == "pairs"), None)
    return {
        "row": "summary",
        "vs_head_loop": claim(together.get("head_loop"), ">= 5"),
        "vs_best_peer": claim(min(peers_only, default=None), ">= 1.5"),
        "ratios": {what: {name: round(ratio, 3) for name, ratio in found.items()} for what, found in ratios.items()},
        "apart": claim(apart, f"<= {AGREEMENT}"),
        "pairs_found": claim(None if found is None else found["found_among_20"] / TOP, ">= 0.5"),
        "pairs_cost": claim(None if found is None else found["cost"], "<= 0.1"),
        "prune": _prune_summary([row for row in rows if row["row"] == "prune"]),
    }


def _prune_summary(rows: list[Row]) -> Row:
    """Held-out accuracy of interactions less that of each other way, on the same seeds: the mean over all cells, and every cell, with standard errors over the seeds."""
    cells: dict[Cell, dict[str, dict[int, float]]] = {}
    for row in rows:
        cells.setdefault((row["task"], tuple(row["layers"]), row["keep"]), {}).setdefault(row["method"], {})[row["seed"]] = row["accuracy"]
    told: Row = {"cells": len(cells), "seeds": len({row["seed"] for row in rows})}
    for ours, other in COMPARED:
        gains = {cell: _by_seed(found[ours], found[other]) for cell, found in cells.items() if ours in found and other in found}
        if gains:
            told[f"{ours}_over_{other}"] = _gained(gains)
    return told


def _by_seed(ours: dict[int, float], theirs: dict[int, float]) -> dict[int, float]:
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}


def _gained(gains: dict[Cell, dict[int, float]]) -> Row:
    """The mean gain as a claim; `worse` are the cells that lose more than two standard errors, or anything where one seed tells no noise."""
    whole = [mean(found[seed] for found in gains.values() if seed in found) for seed in sorted({seed for found in gains.values() for seed in found})]
    by_cell: list[Row] = [{"layers": list(cell[1]), "keep": cell[2], **_with_noise(list(found.values()))} for cell, found in gains.items()]
    worse = [cell for cell in by_cell if cell["gain"] < -2 * (cell["error"] or 0.0)]
    return claim(mean(whole), ">= 0", error=_with_noise(whole)["error"], worse=worse, by_cell=by_cell)


def _with_noise(gains: list[float]) -> Row:
    """The mean of gains and its standard error, None of a single one."""
    return {"gain": round(mean(gains), 4), "error": round(stdev(gains) / math.sqrt(len(gains)), 4) if len(gains) > 1 else None}


def main() -> None:
    """Print every row, then the claims in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer masks and prompts, one seed, under 5 minutes")
    parser.add_argument("--parts", default="speed,pairs,prune", help="speed, pairs and prune, or some of them")
    parser.add_argument("--seeds", type=int, help="seeds of the pruning experiment (3; 1 with --quick)")
    parser.add_argument("--task", help="the task of the pruning experiment (ioi; induction, whose prompts are shorter, with --quick)")
    parser.add_argument("--subsets", type=int, help="random subsets of the pruning experiment (5,000; 800 with --quick)")
    parser.add_argument("--prompts", type=int, help="prompts that it chooses by (48; 2 with --quick)")
    parser.add_argument("--heldout", type=int, help="prompts that it scores by (200; 20 with --quick)")
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, worked = time.monotonic(), time.process_time()
    rows: list[Row] = []
    usual = (QUICK_SUBSETS, QUICK_TRAIN, QUICK_HELDOUT, QUICK_DRAWS) if options.quick else (SUBSETS, TRAIN, HELDOUT, DRAWS)
    size = Experiment(
        options.task or ("induction" if options.quick else "ioi"),
        options.subsets or usual[0],
        options.prompts or usual[1],
        options.heldout or usual[2],
        usual[3],
    )
    wanted = options.parts.split(",")
    if unknown := set(wanted) - {"speed", "pairs", "prune"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "speed": lambda: speed(options.quick),
        "pairs": pairs,
        "prune": lambda: pruning(size, options.seeds or (1 if options.quick else 3)),
    }
    for part in wanted:
        for row in parts[part]():
            write(row, options.output)
            rows.append(row)
            say(rounded(row))
    write(summary(rows), options.output)
    say(f"{time.monotonic() - began:.0f} s in all, {time.process_time() - worked:.0f} s of the processor")


if __name__ == "__main__":
    main()
