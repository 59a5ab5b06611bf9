"""The mechanistic lens: ablations per second compared with the usual loop and public libraries, pairs found by gradients, heads pruned.

    python -m jobs.bench mechanistic [--quick] [--parts speed,pairs,prune] [--seeds 3] [--output FILE]

Prints one JSON line per row, the summary last. Everything runs on the embedded model in float32.

`speed`: every head of the model ablated alone (n = 270), random masks over all that keep nine heads of ten, and random masks that keep half of the heads of three
layers, timed in turns in one process: ours; a hook for each head and one forward pass for each mask, the usual loop; nnsight and transformer-lens, both with a batch of masks in
one pass, and only the last logits computed where the library allows it. Values must agree to 1e-4, relative to the largest. `pairs`: all pairs among 54 heads
exactly, beside the ranking by second-order gradients. `prune`: heads of three groups of three layers pruned with 50, 66 and 83% kept, chosen by the mean margin on
a task's prompts under random subsets of the heads, and scored by accuracy on held-out ones (each seed has prompts, subsets and held-out prompts of its own): by interactions, by the LASSO on singles, each as it is and refined by
as many exact swaps as random subsets are drawn, and the best of these.

With `--output`, rows are also added to a file. Evaluations of random subsets are kept (`kept.py`). Peers are installed by the extra `bench`. Torch uses
one thread, and times are processor seconds (wall seconds on a GPU), which other programs on the machine hardly change.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.bench import mechanistic_peers as peers
from jobs.bench.engine_model_games import ITALY
from jobs.bench.kept import Kept
from jobs.bench.mechanistic_targets import TOP, summary
from jobs.bench.rows import clock, rounded, say, write
from raysp.actions.pruning_methods import SHARES, RunEvidence, compare_methods
from raysp.datasets.tasks import make
from raysp.explorers import ProxySPEX
from raysp.explorers.fitting import fit_singles
from raysp.lenses.mechanistic import MechanisticGame, build_mechanistic_game, tokens
from raysp.specs.lenses import MechanisticLens, Task

ASKED: dict[str, Any] = {"prompt": ITALY, "target": " Tokyo", "foil": " Rome", "dtype": "float32"}
#: P(keep) of the random masks, and how many are timed.
KEEP, RANDOM, QUICK_RANDOM = 0.9, 512, 96
#: In a quick run: masks of the slowest method, and every how many of them go to the libraries, whose batches stay full.
LOOPED, QUICK_STEP = 16, 2
#: Rounds of the timings, each method once in each.
ROUNDS, QUICK_ROUNDS = 3, 1
#: Pairs proposed for verification.
PROPOSED = 40
#: The pruning experiment: layers, random subsets, prompts to choose by and to score by.
MIDDLE = (14, 15, 16)
GROUPS = ((0, 1, 2), MIDDLE, (27, 28, 29))
SUBSETS, TRAIN, HELDOUT, DRAWS = 5000, 48, 200, 64
QUICK_SUBSETS, QUICK_TRAIN, QUICK_HELDOUT, QUICK_DRAWS = 800, 2, 20, 16

#: The distance between the seeds of a task's prompts and of its held-out prompts.
APART = 1_000_003

Row = dict[str, Any]


# ---- speed


def speed(quick: bool) -> Iterator[Row]:
    """Time every method on the same masks, alternating."""
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
    now = clock(every.model.loaded.device)
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
                began = now()
                values = np.asarray(method(some))
                seconds = now() - began
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
    game.compute_gradients(2)  # the first pays for warming up
    now = clock(game.model.loaded.device)
    began = now()
    estimate = game.compute_gradients(2).surrogate(2)
    by_gradient = now() - began
    assert estimate is not None
    began = now()
    values = game.evaluate(masks)
    exactly = now() - began

    def deviations(found: Any) -> Any:
        effects = found[0] - found[1 : n + 1]
        return found[0] - found[n + 1 :] - effects[first] - effects[second]

    exact, guessed = deviations(values), deviations(estimate.predict(masks))
    strongest = set(np.argsort(-np.abs(exact))[:TOP].tolist())
    proposed = np.argsort(-np.abs(guessed))
    from scipy.stats import spearmanr

    ranks: Any = spearmanr(exact, guessed)
    yield {
        "row": "pairs", "heads": n, "pairs": len(first), "seconds_exact": exactly, "seconds_gradient": by_gradient, "cost": by_gradient / exactly,
        "cost_with_verification": by_gradient / exactly + PROPOSED / len(masks), "found_among_20": len(strongest & set(proposed[:TOP].tolist())),
        "found_among_40": len(strongest & set(proposed[:PROPOSED].tolist())), "rank_correlation": float(ranks.statistic),
    }  # fmt: skip


# ---- pruning


@dataclass(frozen=True)
class Experiment:
    """The size of the pruning experiment: random subsets, prompts to choose by and to score by, exact evaluations that choose."""

    task: Task
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
    train, heldout = (build_mechanistic_game(lens, questions) for questions in (asked, unseen))
    margins, unseen_margins = (Kept(lambda game=game: f"{game.info.fingerprint}-by-prompt", game.by_prompt) for game in (train, heldout))
    masks = np.random.default_rng([seed, layers[0]]).random((size.subsets, train.n)) < 0.5
    values = margins(masks).mean(axis=1)
    began = time.process_time()
    fitted = ProxySPEX(max_order=4, random_state=seed).fit(masks, values)
    seconds = time.process_time() - began
    near = np.concatenate([np.ones((1, train.n), dtype=bool), ~np.eye(train.n, dtype=bool)])
    exact = margins(near).mean(axis=1)
    surrogate: Any = fitted.findings.surrogate
    of_layer = tuple(component.layer or 0 for component in train.components)
    known = RunEvidence(surrogate, fit_singles(masks, values, seed), exact[0] - exact[1:], of_layer, more_is_better=True, seed=seed)
    for share in SHARES:
        # Few prompts make a coarse accuracy: all methods choose by the mean margin, and are scored by accuracy as well.
        for found in compare_methods(
            known, lambda some: margins(some).mean(axis=1), lambda some: unseen_margins(some) > 0, share, per_layer=False, draws=size.draws
        ):
            yield {
                "row": "prune", "layers": list(layers), "seed": seed, "keep": share, "method": found.method, "train": found.train, "accuracy": found.heldout,
                "margin": float(unseen_margins(found.mask[None]).mean()), "seconds_fit": seconds, **asdict(size),
            }  # fmt: skip


def main() -> None:
    """Print every row, then the targets in one line."""
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
