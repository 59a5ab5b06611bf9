"""The data lens: retrainings per minute compared with plain PEFT, and how well attribution methods predict held-out retrainings.

    python -m jobs.bench data [--quick] [--parts speed,lds] [--rounds 3] [--output FILE]

Prints one JSON line per row, the summary last. Everything runs on the embedded model.

`speed`: the same recipe (64 components, random subsets of 32, 3 epochs, rank 8 on the last 4 layers) by raysp and by the usual loop (PEFT, torch's AdamW,
padded batches, one subset after the other), each subset's queries included, alternating in one process: in the dtype that raysp picks on this machine, and the loop
also in float32 if that differs. Three shapes of text: questions and answers in the model's chat template, the same without it, and film reviews to be labelled, whose
prompts are long and whose answers are a word. Values must agree. Seconds on CPUs are of the process (its own time on the cores), so that a busy machine changes ratios
little, and wall seconds are reported beside them; on a GPU they are wall seconds. One process with one thread does all this; how many subsets a machine trains per minute is
then measured with one process per core, as evaluators are with `--threads 1` (or with one on a GPU).

`lds`: see `data_lds.py`. Peers are installed by the extra `bench`.
"""

import argparse
import multiprocessing as mp
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.bench import data_lds, data_targets
from jobs.bench.engine_targets import target
from jobs.bench.rows import clock, rounded, say, write
from raysp.lenses.data import DataGame, build_data_game
from raysp.models.loading import choose_device
from raysp.models.reference import PlainTrainer
from raysp.specs.lenses import DataLens

Row = dict[str, Any]

COMPONENTS, KEPT, QUERIES = 64, 32, 8
#: Subsets trained in a round by raysp (two stacks) and by the plain loop, which takes ten times as long for each.
STACKS, THEIRS = 2, 1
#: Largest difference of values (a query's log-probability, whose sums reach a hundred) after a whole training in float32.
AGREEMENT = 5e-3
#: Longest wait of evaluators for each other, in seconds.
TOGETHER = 300
#: Targets.
LOOP, FLOAT32, MINUTES = ">= 6", ">= 12", "<= 15"
CHATTERBOT = "corpus:chatterbot:history,science,computers,food,literature"


# ---- speed


def shapes(quick: bool) -> dict[str, DataLens]:
    """The training sets that are timed."""
    common: dict[str, Any] = {"limit": COMPONENTS, "components": COMPONENTS, "query_count": QUERIES, "value": "logprob"}
    asked = {
        "chat": DataLens(**common, train=CHATTERBOT, chat=True),
        "questions": DataLens(**common, train=CHATTERBOT, template="Question: {prompt}\nAnswer:"),
        "reviews": DataLens(**common, train="corpus:reviews", template="Review: {prompt}\nVerdict:", max_tokens=96),
    }
    return {"chat": asked["chat"]} if quick else asked


def speed(quick: bool, rounds: int) -> Iterator[Row]:
    """Seconds per retraining of each implementation, round by round."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, lens in shapes(quick).items():
        yield from _timed(name, lens, rounds)
        yield _abreast(name, lens, cores)
    torch.set_num_threads(cores)


def _timed(name: str, lens: DataLens, rounds: int) -> Iterator[Row]:
    usual = build_data_game(lens)
    games = {str(usual.info.description["dtype"]): usual}
    if "float32" not in games:
        games["float32"] = build_data_game(lens.model_copy(update={"dtype": "float32"}))
    seconds = clock(usual.trainer.device)
    masks = _masks(usual, 0)
    ways: list[tuple[str, str, Callable[[Any], Any], int]] = []
    expected: dict[str, Any] = {}
    for dtype, game in games.items():
        expected[dtype] = game.outputs_of(masks[: game.stacked], 0)  # what is done once for all trainings is done here
        ways += [("raysp", dtype, _quickly(game), len(masks)), ("peft", dtype, plainly(game), THEIRS)]
    tokens = float(np.mean([len(text.ids) for text in usual.trainer.texts]))
    for number in range(rounds):
        for way, dtype, train, count in ways:
            began, busy = time.perf_counter(), seconds()
            values = train(masks[:count])
            wall, busy = time.perf_counter() - began, seconds() - busy
            both = min(len(expected[dtype]), count)
            apart = float(np.abs(np.asarray(values)[:both] - expected[dtype][:both]).max())
            yield {
                "row": "speed", "texts": name, "way": way, "dtype": dtype, "chosen": games[dtype] is usual, "round": number, "subsets": count,
                "seconds": busy / count, "wall_seconds": wall / count, "apart": apart, "tokens": tokens, "device": str(usual.trainer.device),
            }  # fmt: skip


def _masks(game: DataGame, seed: int) -> Any:
    """Two stacks of random subsets of half of the components."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((STACKS * game.stacked, game.n), dtype=np.bool_)
    for row in masks:
        row[rng.permutation(game.n)[:KEPT]] = True
    return masks


def _abreast(name: str, lens: DataLens, cores: int) -> Row:
    """The number of subsets that this machine trains per minute, with an evaluator for each core or one on a GPU."""
    count = cores if choose_device(lens.device).type == "cpu" else 1
    context = mp.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(count, context) as helpers:
        ready = manager.Barrier(count)
        rates = list(helpers.map(_rate, [lens] * count, range(count), [ready] * count))
    return {"row": "rate", "texts": name, "processes": count, "per_minute": sum(rates)}


def _rate(lens: DataLens, number: int, ready: Any) -> float:
    """Subsets per minute of one evaluator while the others are running."""
    torch.set_num_threads(1)
    game = build_data_game(lens)
    masks = _masks(game, number)
    game.outputs_of(masks[:2], 0)  # what is done once for all trainings is done here
    ready.wait(TOGETHER)
    began = time.perf_counter()
    game.outputs_of(masks, 0)
    return 60 * len(masks) / (time.perf_counter() - began)


def _quickly(game: DataGame) -> Callable[[Any], Any]:
    """Training by raysp."""
    return lambda masks: game.outputs_of(masks, 0)


def plainly(game: DataGame) -> Callable[[Any], Any]:
    """The usual loop, on the texts of a game."""
    trainer = game.trainer
    loop = PlainTrainer(trainer.model, trainer.device, trainer.recipe, trainer.texts, trainer.evaluated)

    def train(masks: Any) -> Any:
        return loop.evaluate([game.examples_of(mask) for mask in masks], [0] * len(masks))[..., 0]

    return train


def speed_summary(found: list[Row]) -> Row:
    """Ratios of seconds per retraining, each the minimum over rounds: plain loops in either dtype against raysp in the dtype that it chooses."""
    rows, rates = ([row for row in found if row["row"] == kind] for kind in ("speed", "rate"))
    if not rows:
        return {"vs_peft_loop": target(None, LOOP), "vs_peft_fp32": target(None, FLOAT32)}
    least: dict[tuple[str, str, str], float] = {}
    for row in rows:
        key = (row["texts"], row["way"], row["dtype"])
        least[key] = min(least.get(key, float("inf")), row["seconds"])
    names = sorted({row["texts"] for row in rows})
    dtype = next(row["dtype"] for row in rows if row["chosen"])
    loop, wide = ({name: least[name, "peft", kind] / least[name, "raysp", dtype] for name in names} for kind in (dtype, "float32"))
    first = "chat" if "chat" in loop else names[0]
    apart = max(row["apart"] for row in rows if row["dtype"] == "float32")
    rate = {row["texts"]: row["per_minute"] for row in rates}
    return {
        "dtype": dtype,
        "vs_peft_loop": target(loop[first], LOOP, by_texts={name: round(ratio, 2) for name, ratio in loop.items()}),
        "vs_peft_fp32": target(wide[first], FLOAT32, by_texts={name: round(ratio, 2) for name, ratio in wide.items()}),
        "apart": target(apart, f"<= {AGREEMENT}"),
        "retrainings_per_minute": {name: round(value, 1) for name, value in rate.items()},
        "minutes_for_600": target(600 / rate[first], MINUTES, by_texts={name: round(600 / value, 1) for name, value in rate.items()}),
    }


# ---- all of it


def main() -> None:
    """Print every row, then the targets in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer texts, small training sets, few retrainings: under 8 minutes")
    parser.add_argument("--parts", default="speed,lds", help="speed and lds, or one of them")
    parser.add_argument("--rounds", type=int, help="rounds of the timing (3; 1 with --quick)")
    parser.add_argument("--methods", default=",".join(data_lds.METHODS), help="only these methods of the LDS")
    parser.add_argument("--sets", default="", help="only training sets of the LDS whose names begin so")
    parser.add_argument("--most", type=int, help="no budget of the LDS above this")
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - {"speed", "lds"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    found: dict[str, list[Row]] = {"speed": [], "lds": []}

    def lds_rows() -> Iterator[Row]:
        sets = [data for data in data_lds.training_sets(options.quick) if any(data.name.startswith(name) for name in options.sets.split(","))]
        return data_lds.rows(data_lds.protocol(options.quick, options.most), sets, options.methods.split(","))

    made: dict[str, Callable[[], Iterator[Row]]] = {"speed": lambda: speed(options.quick, options.rounds or (1 if options.quick else 3)), "lds": lds_rows}
    for part in parts:
        for row in made[part]():
            found[part].append(row)
            write(row, options.output)
            say(rounded(row))
    write({"row": "summary"} | speed_summary(found["speed"]) | data_targets.summary(found["lds"]), options.output)
    say(f"{time.monotonic() - began:.0f} s in all")
