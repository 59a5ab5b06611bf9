"""Memory of the store: what the answers to four earlier questions about a model's heads are worth to the fifth.

    python -m jobs.bench memory [--quick] [--questions 5] [--seeds 3] [--output FILE]

The questions are indirect-object prompts with different names, about the 54 heads of layers 12 to 17 of the embedded model (logit difference, float32). Each question
in turn is the last one; the others were asked before, with `EARLIER` evaluations each. A `fit` row is a last question, a budget, a seed and what was remembered:
`nothing`, `related` (the other four questions) or `unrelated` (questions about capitals). R² is on fresh random masks, never clipped. Slopes are off, as they would hide
the difference. The summary has the goals' figures: the evaluations at which `related` has the R² that `nothing` has at a budget, over that budget, and the largest
loss by `unrelated`. Values are kept (`kept.py`): a second run does not recompute them.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from jobs.bench.engine_targets import reached, target
from jobs.bench.kept import Kept
from jobs.bench.rows import write_all
from jobs.bench.slope_games import BLOCK, one_thread
from raysp.explorers import ProxySPEX, r_squared
from raysp.lenses.mechanistic import build_mechanistic_game
from raysp.masks import Masks, Values
from raysp.specs.lenses import MechanisticLens
from raysp.spectral.fourier import FourierSurrogate
from raysp.store.history import strongest

HEADS: dict[str, Any] = {"components": "heads:12-17", "value": "logit_diff", "dtype": "float32"}
NAMES = (
    ("Mary", "John", "store", "drink"),
    ("Tom", "Anna", "park", "ball"),
    ("Paul", "Lisa", "school", "book"),
    ("Sarah", "David", "office", "letter"),
    ("Mark", "Emma", "beach", "towel"),
)
CAPITALS = (("France", "Paris", "Rome"), ("Japan", "Tokyo", "Paris"), ("Italy", "Rome", "Madrid"), ("Spain", "Madrid", "London"))
RELATED = tuple({"prompt": f"When {a} and {b} went to the {c}, {b} gave a {d} to", "target": f" {a}", "foil": f" {b}"} for a, b, c, d in NAMES)
UNRELATED = tuple({"prompt": f"The capital of {a} is", "target": f" {b}", "foil": f" {c}"} for a, b, c in CAPITALS)
#: Evaluations of earlier questions, budgets of the last one, and held-out masks.
EARLIER, BUDGETS, FRESH = 400, (40, 60, 80, 100, 150, 200, 300, 400), 400
QUICK_EARLIER, QUICK_BUDGETS, QUICK_FRESH = 200, (50, 100, 200), 200
#: Budgets at which the goals are stated.
STATED = (100, 150, 200, 300, 400)

Row = dict[str, Any]
Prompt = Mapping[str, str]


@cache
def game(prompt: str, target_token: str, foil: str) -> Any:
    """The number of components of a question, and its values, kept."""
    asked = build_mechanistic_game(MechanisticLens(prompt=prompt, target=target_token, foil=foil, **HEADS))
    return asked.n, Kept(lambda: asked.info.fingerprint, lambda masks: asked.by_prompt(masks).mean(axis=1), BLOCK)


def answer(question: Prompt, budget: int, seed: int, remembered: Sequence[FourierSurrogate] = ()) -> tuple[FourierSurrogate, float]:
    """The surrogate of a whole run with a budget, and the share of it that starts from what is remembered."""
    n, values = game(question["prompt"], question["target"], question["foil"])
    explorer = ProxySPEX(budget=budget, keep=0.5, focus="average", slopes="off").start(n, seed).with_history(lambda: remembered)
    while not explorer.done():
        masks = explorer.ask()
        explorer.tell(masks, values(masks))
    found = explorer.result()
    return found.surrogate, sum(weight for name, weight in found.diagnostics.get("weights", {}).items() if name.startswith("history"))


def rows(questions: int, seeds: int, quick: bool) -> Iterator[Row]:
    """All rows."""
    before, budgets, fresh = (QUICK_EARLIER, QUICK_BUDGETS, QUICK_FRESH) if quick else (EARLIER, BUDGETS, FRESH)
    asked = RELATED[:questions]
    known = {question["prompt"]: strongest(answer(question, before, 0)[0]) for question in (*asked, *UNRELATED[: questions - 1])}
    for number, question in enumerate(asked[:2] if quick else asked):
        n, values = game(question["prompt"], question["target"], question["foil"])
        masks: Masks = np.random.default_rng([2, n]).random((fresh, n)) < 0.5
        truth: Values = values(masks)
        memories = {
            "nothing": (),
            "related": tuple(known[each["prompt"]] for each in asked if each is not question),
            "unrelated": tuple(known[each["prompt"]] for each in UNRELATED[: questions - 1]),
        }
        for seed in range(1, seeds + 1):
            for budget in budgets:
                for name, remembered in memories.items():
                    surrogate, share = answer(question, budget, seed, remembered)
                    r2 = r_squared(truth, surrogate.predict(masks))
                    yield {"row": "fit", "question": number, "budget": budget, "seed": seed, "remembered": name, "r2": r2, "share": share}


def summary(found: Sequence[Row]) -> Row:
    """The goals' figures."""
    curves: dict[tuple[int, str], dict[int, list[float]]] = {}
    for row in found:
        curves.setdefault((row["question"], row["remembered"]), {}).setdefault(row["budget"], []).append(row["r2"])
    means = {case: [(float(budget), mean(scores)) for budget, scores in sorted(curve.items())] for case, curve in curves.items()}
    ratios: dict[int, list[float]] = {}
    lost: list[float] = []
    for (question, remembered), curve in means.items():
        if remembered == "nothing":
            for (budget, r2), (_, other) in zip(curve, means[question, "unrelated"], strict=True):
                lost.append(r2 - other)
                ratios.setdefault(int(budget), []).append(reached(means[question, "related"], r2) / budget)
    stated = [ratio for budget, some in ratios.items() if budget in STATED for ratio in some]
    return {
        "row": "summary",
        "evaluations_ratio": target(
            median(stated) if stated else None, "<= 0.6", by_budget={budget: round(median(some), 3) for budget, some in ratios.items()}
        ),
        "lost_by_unrelated": target(mean(lost), "<= 0.01", largest=round(max(lost), 4)),
    }


def main() -> None:
    """Print every row, then the goals in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two last questions, one seed, fewer evaluations, under 6 minutes")
    parser.add_argument("--questions", type=int, default=len(RELATED), help="questions, the last one included")
    parser.add_argument("--seeds", type=int, help="seeds of every row (3; 1 with --quick)")
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    one_thread()
    write_all(rows(options.questions, options.seeds or (1 if options.quick else 3), options.quick), summary, options.output)
