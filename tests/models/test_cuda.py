"""A GPU gives the values of a CPU: every kind of game on both. Skipped where there is no CUDA."""

import json

import numpy as np
import pytest
import tiny_models
import torch

from raysp.lenses import build_game
from raysp.models.frozen_prefix import Text
from raysp.models.lora import Recipe
from raysp.models.reference import PlainTrainer
from raysp.models.training import Trainer
from raysp.specs.lenses import DataLens, FeatureLens, MechanisticLens

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")

PROMPT = "Her acting never fails to impress. The film was long, but the ending was good!"
#: Sums in another order, on matrix units of another kind.
NEAR = 5e-4


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_models.save(kind, folder / kind) for kind in ("llama", "gpt2", "bert-classifier")}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder, words = tmp_path_factory.mktemp("rows"), ["film", "letter", "city", "ending", "Monday", "acting", "movie", "night"]
    for name, some in {"train": words, "asked": words[:3]}.items():
        lines = [json.dumps({"prompt": f"The {word} was", "completion": " not bad" if i % 2 else " good"}) for i, word in enumerate(some)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "references.txt").write_text("A quiet letter arrived on Monday\nThe movie was not bad at all\n")
    return folder


def lenses(models, rows, device, dtype="float32"):
    """One of every lens."""
    common = {"device": device, "dtype": dtype}
    answer = {"prompt": PROMPT, "target": " not", "foil": "!"}
    data = {
        "train": str(rows / "train.jsonl"),
        "queries": str(rows / "asked.jsonl"),
        "value": "logprob",
        "rank": 2,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 5e-3,
        "adapted_layers": "last:1",
    }
    return {
        "feature, replaced": FeatureLens(model=models["llama"], **answer, ablation="replace", replacement=" thing", **common),
        "feature, removed": FeatureLens(model=models["gpt2"], **answer, **common),
        "feature, a class": FeatureLens(model=models["bert-classifier"], prompt=PROMPT, **common),
        "heads": MechanisticLens(model=models["llama"], **answer, **common),
        "heads, mean": MechanisticLens(model=models["gpt2"], **answer, ablation="mean", references=str(rows / "references.txt"), **common),
        "training": DataLens(model=models["llama"], **data, **common),
    }


NAMES = ("feature, replaced", "feature, removed", "feature, a class", "heads", "heads, mean", "training")


def masks_of(game, m=24):
    found = np.random.default_rng(0).random((m, game.n)) < 0.6
    found[0] = True
    return found


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_cpu(name, models, rows):
    here, there = (build_game(lenses(models, rows, device)[name]) for device in ("cuda", "cpu"))
    masks = masks_of(there)
    np.testing.assert_allclose(here.measure(masks).values, there.measure(masks).values, atol=NEAR)


@pytest.mark.parametrize("name", NAMES)
def test_together_is_one_by_one(name, models, rows):
    game = build_game(lenses(models, rows, "cuda")[name])
    masks = masks_of(game)
    np.testing.assert_allclose(game.measure(masks).values, [game.measure(mask[None]).values[0] for mask in masks], atol=NEAR)


@pytest.mark.parametrize("name", NAMES)
def test_auto_is_bfloat16_and_says_so_and_is_near(name, models, rows):
    half, full = build_game(lenses(models, rows, "auto", "auto")[name]), build_game(lenses(models, rows, "cuda")[name])
    assert half.info.description["dtype"] == "bfloat16"
    masks = masks_of(full)
    found, expected = half.measure(masks).values, full.measure(masks).values
    assert np.abs(found - expected).max() < 0.05 * (1 + np.abs(expected).max())


def test_adapters_trained_side_by_side_are_what_peft_makes_of_each():
    rng = np.random.default_rng(0)
    texts = [Text(np.concatenate([np.arange(10, 15), rng.integers(3, 300, rng.integers(4, 11))]).astype(np.int64), 6) for _ in range(16)]
    recipe = Recipe(4, 8, ("q_proj", "v_proj"), (1,), 5e-3, 0.1, "linear", 0.2, 3, 4)
    subsets = [np.array([0, 1, 2, 5, 7, 9]), np.arange(12), np.array([3]), np.array([], np.int64)]
    device = torch.device("cuda")
    tiny = tiny_models.make("llama").requires_grad_(requires_grad=False).to(device)
    ways = Trainer(tiny, device, recipe, texts[:12], texts[12:]), PlainTrainer(tiny, device, recipe, texts[:12], texts[12:])
    ours, theirs = (way.evaluate(subsets, [0] * len(subsets)) for way in ways)
    np.testing.assert_allclose(ours, theirs, atol=NEAR)


@pytest.fixture
def little_memory():
    """A GPU of which this process may have half a gibibyte."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((1 << 29) / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_memory_that_really_runs_out_halves_what_runs_at_once(models, rows, little_memory):
    game = build_game(lenses(models, rows, "cuda")["heads"])
    masks = masks_of(game, 64)
    expected = game.measure(masks).values
    taken = []
    while torch.cuda.memory_reserved() < (1 << 29) - (24 << 20):  # all but a little
        taken.append(torch.empty(4 << 20, dtype=torch.uint8, device="cuda"))
    try:
        found = game.measure(np.tile(masks, (512, 1))).values
    finally:
        del taken
    np.testing.assert_allclose(found.reshape(512, -1), np.tile(expected, (512, 1)), atol=NEAR)
