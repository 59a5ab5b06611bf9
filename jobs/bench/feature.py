"""Speed of the feature lens's evaluator, as ratios of runs side by side in this process: one JSON line each, the summary last.

    python -m jobs.bench feature [--quick]

`vs_one_by_one` is against one forward pass per mask in a batch of one, `vs_one_by_one_3` against one forward pass for each of three
target tokens of each mask (as captum's LLMAttribution does), `vs_batched` against left-padded batches sorted by length. All read
logits at the last position only, so the peers are as fast as they can be. Both sides use the same masks, dtype and threads;
values are checked to be equal to 1e-4. All inputs share a few-shot header, except in the `_bare` rows of a full run. `overhead` is `raysp.run` on
Ray with its store against a bare loop over the same batches.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from raysp.explorers import Singles
from raysp.lenses import build_game
from raysp.lenses.feature import FeatureGame
from raysp.masks import Masks, Values
from raysp.runtime.engine import engine
from raysp.specs.lenses import FeatureLens
from raysp.specs.run import RunSpec
from raysp.validation import Validation

PROMPT = (
    "The movie started slowly and the plot was hard to follow at times, but her acting never fails to impress "
    "and the ending was so good that I would gladly watch it"
)
HEADER = (
    "Review: A wonderful film with a great cast and a script that sparkles.\nSentiment: positive\n\n"
    "Review: I was bored from the first minute to the last, what a waste of a good idea.\nSentiment: negative\n\n"
    "Review: The best thing I have seen all year, do not miss it whatever you do.\nSentiment: positive\n\n"
    "Review: Dull, long and badly acted, avoid it.\nSentiment: negative\n\n"
)
TEMPLATE = "Review: {prompt}\nSentiment:"
ONE: dict[str, Any] = {"target": " positive", "foil": " negative", "value": "logit_diff"}
THREE: dict[str, Any] = {"target": " positive, because", "value": "logprob"}
TOLERANCE = 1e-4
NO_VALIDATION = Validation(heldout=0, top=0, random=0, low_pairs=0)


def build(template: str, answer: dict[str, Any]) -> FeatureGame:
    """A game on the embedded model in float32: the dtype that all peers compute in."""
    game = build_game(FeatureLens(prompt=PROMPT, template=template, dtype="float32", **answer))
    assert isinstance(game, FeatureGame)
    return game


def one_by_one(game: FeatureGame, masks: Masks) -> Values:
    """One forward pass for each mask and target token, in a batch of one: the answer so far behind the input, its next token read."""
    model, answers = game.model.loaded.model, game.answers
    values: list[float] = []
    with torch.inference_mode():
        for symbols, _, _ in game.parts.source.contexts(masks):
            total = 0.0
            for i, token in enumerate(answers.target_ids):
                ids = torch.tensor([[*symbols.tolist(), *answers.target_ids[:i]]])
                logits = model(input_ids=ids, logits_to_keep=1, use_cache=False).logits[0, -1].float()
                scored = logits.log_softmax(-1) if answers.needs_logprobs else logits
                total += float(scored[token] - (scored[answers.foil_ids[0]] if answers.foil_ids else 0))
            values.append(total)
    return np.array(values)


def batched(game: FeatureGame, masks: Masks, rows: int = 16) -> Values:
    """Left-padded batches of inputs sorted by length, with explicit position ids: a carefully written baseline."""
    model, answers = game.model.loaded.model, game.answers
    contexts = [symbols for symbols, _, _ in game.parts.source.contexts(masks)]
    values = np.empty(len(masks))
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
    with torch.inference_mode():
        for start in range(0, len(order), rows):
            some = order[start : start + rows]
            width = max(len(contexts[i]) for i in some)
            ids, seen = torch.zeros((len(some), width), dtype=torch.long), torch.zeros((len(some), width), dtype=torch.long)
            for row, i in enumerate(some):
                ids[row, width - len(contexts[i]) :] = torch.from_numpy(contexts[i])
                seen[row, width - len(contexts[i]) :] = 1
            positions = (seen.cumsum(1) - 1).clamp(min=0)
            logits = model(input_ids=ids, attention_mask=seen, position_ids=positions, logits_to_keep=1, use_cache=False).logits[:, -1].float()
            values[some] = (logits[:, answers.target_ids[0]] - logits[:, answers.foil_ids[0]]).double().numpy()
    return values


def timed(function: Callable[..., Values], *arguments: Any) -> tuple[Values, float]:
    """The result of a function and the seconds it took."""
    began = time.perf_counter()
    return function(*arguments), time.perf_counter() - began


def compare(name: str, peer: Callable[..., Values], game: FeatureGame, count: int, peer_count: int) -> dict[str, Any]:
    """Seconds per mask of a peer over those of raysp, on random masks. The peer, whose cost per mask is constant, gets only the first few."""
    masks = np.random.default_rng(0).random((count, game.n)) < 0.5
    game.evaluate(np.ones((1, game.n), np.bool_))  # the first request computes what all inputs begin with, once a game
    peer(game, masks[:1])
    theirs, first = timed(peer, game, masks[: peer_count // 2])
    ours, mine = timed(game.evaluate, masks)
    rest, second = timed(peer, game, masks[peer_count // 2 : peer_count])  # before and after ours, as the machine may be shared
    difference = float(np.abs(np.concatenate([theirs, rest]) - ours[:peer_count]).max())
    if difference > TOLERANCE:
        raise SystemExit(f"{name}: values differ by {difference:.2g}")
    ratio = ((first + second) / peer_count) / (mine / count)
    return {"row": name, "ratio": round(ratio, 2), "n": game.n, "masks": count, "masks_per_second": round(count / mine, 1), "difference": difference}


def rows(quick: bool) -> Iterator[dict[str, Any]]:
    """The model's part of the benchmark, row by row."""
    count = 32 if quick else 384
    alone, together = (6, 8) if quick else (48, 192)
    for place, template in (("header", HEADER + TEMPLATE), ("bare", TEMPLATE))[: 1 if quick else 2]:
        suffix = "" if place == "header" else "_bare"
        one, three = build(template, ONE), build(template, THREE)
        yield compare(f"vs_one_by_one{suffix}", one_by_one, one, count, alone)
        yield compare(f"vs_one_by_one_3{suffix}", one_by_one, three, count, alone // 2)
        one._known.clear()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  its values are known by now, and would be timed as free
        yield compare(f"vs_batched{suffix}", batched, one, count, together)


def overhead(quick: bool) -> Iterator[dict[str, Any]]:
    """Masks per second of a run's exploration on Ray with the store, over those of a bare loop in this process over the same batches."""
    lens = FeatureLens(prompt=PROMPT, template=HEADER + TEMPLATE, dtype="float32", **ONE)
    with TemporaryDirectory() as folder:
        spec = RunSpec(lens=lens, explorer=Singles(budget=80 if quick else 384).options, validation=NO_VALIDATION, evaluators=1, store=f"{folder}/bench.duckdb")
        with engine(spec) as place:
            place.run(spec.model_copy(update={"seed": 1, "explorer": Singles(budget=36).options}), "warm")
            result = place.run(spec.model_copy(update={"seed": 2}), "timed")
    bought = result.evaluations.filter(~pc.field("reused"))
    wall = sum(row["wall_seconds"] for row in result.costs.to_pylist() if row["phase"] == "explore")
    game = build(HEADER + TEMPLATE, ONE)
    game.evaluate(np.ones((1, game.n), np.bool_))
    masks = np.array(bought["mask"].to_pylist(), dtype=np.bool_)
    size = game.info.batch_masks
    batches = [masks[start : start + size] for start in range(0, len(masks), size)]
    values, bare = timed(lambda: np.concatenate([game.evaluate(batch) for batch in batches]))
    difference = float(np.abs(values - bought["value"].to_numpy()).max())
    if difference > TOLERANCE:
        raise SystemExit(f"overhead: values differ by {difference:.2g}")
    yield {"row": "overhead", "ratio": round(bare / wall, 3), "n": game.n, "masks": len(masks), "masks_per_second": round(len(masks) / wall, 1)}


def main() -> None:
    """Print every row, then all ratios in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer masks, under a minute")
    quick = parser.parse_args().quick
    summary: dict[str, float] = {}
    for part in (rows, overhead):
        for row in part(quick):
            print(json.dumps(row), flush=True)
            summary[row["row"]] = row["ratio"]
    print(json.dumps(summary))
