"""Slopes of the mechanistic lens on tiny models: derivatives of the value in the gates, measured together with the values."""

import json

import numpy as np
import pytest
from tiny_models import save

from raysp.lenses import build_game
from raysp.lenses.gate_gradients import slopes as at_gates
from raysp.lenses.held_out import PromptGame
from raysp.lenses.readings import drawn
from raysp.models.resident import resident
from raysp.specs.lenses import FeatureLens, MechanisticLens

PROMPT = "Her acting never fails, the film was long"
OTHER = "Her ending never fails, the film was long"
ROWS = [
    {"prompt": PROMPT, "target": " not", "foil": "!"},
    {"prompt": "Review: The movie was bad", "target": " yes", "foil": " no"},
    {"prompt": OTHER, "target": " film", "foil": " was"},
]
TEXTS = [OTHER, "Her acting never fails, but film was long", "The film was long"]
STEP = 1e-4

GAMES = {
    "heads": {},
    "MLPs": {"components": "mlp"},
    "blocks": {"components": "blocks"},
    "neurons": {"components": "neurons:0/0-47", "group": 16},
    "all": {"components": "heads,mlp,blocks"},
    "zero-rescale": {"ablation": "zero-rescale"},
    "mean": {"ablation": "mean", "references": "texts"},
    "resample": {"ablation": "resample", "references": "texts", "components": "heads,mlp"},
    "clamp": {"ablation": "clamp", "clamp": 0.25},
    "patch": {"ablation": "patch", "counterfactual": OTHER},
    "one position": {"positions": "last"},
    "log-probability": {"value": "logprob"},
    "divergence": {"value": "kl"},
    "answers of several tokens": {"target": " not bad yes", "foil": " was", "value": "logprob_diff", "ablation": "resample", "references": "texts"},
    "prompts": {"prompts": "rows"},
    "prompts, loss": {"prompts": "rows", "value": "loss"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slopes")
    (folder / "texts.txt").write_text("\n".join(TEXTS))
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return {"texts": str(folder / "texts.txt"), "rows": str(folder / "rows.jsonl"), **{kind: save(kind, folder / kind) for kind in ("gpt2", "neox")}}


def game_of(made, kind="gpt2", **options):
    """A game whose model computes in float64, norms included, which lenses do not offer: the resident one is converted before the game is built on it."""
    asked = {} if "prompts" in options else {"prompt": PROMPT, "target": " not", "foil": "!"}
    options = {name: made.get(option, option) if name in ("references", "prompts") else option for name, option in options.items()}
    lens = MechanisticLens(model=made[kind], device="cpu", dtype="float32", **{**asked, **options})
    resident(lens).loaded.model.double()
    return build_game(lens)


def some_masks(game, m=6):
    masks = np.random.default_rng(0).random((m, game.n)) < 0.6
    masks[0], masks[1] = True, False
    return masks


@pytest.mark.parametrize("kind", ["gpt2", "neox"])
@pytest.mark.parametrize("options", GAMES.values(), ids=GAMES)
def test_slopes_are_the_finite_differences_of_the_value_in_the_gates(made, kind, options):
    game = game_of(made, kind, **options)
    masks = some_masks(game, 5)
    found = game.measure(masks, slopes=True)
    picks = drawn(masks)

    def values(step):
        moved = (masks[:, None] + step * np.eye(game.n)).reshape(-1, game.n)
        return at_gates(game.mask_tree, game.reading, moved, np.repeat(picks, game.n))[0].reshape(len(masks), game.n)

    expected = (values(STEP) - values(-STEP)) / (2 * STEP)
    assert found.slopes.shape == (len(masks), 1, game.n)
    assert found.slopes.dtype == np.float32
    assert np.abs(expected).max() > 1e-3
    assert np.abs(found.slopes[:, 0] - expected).max() < 1e-5 * (1 + np.abs(expected).max())


@pytest.mark.parametrize("options", GAMES.values(), ids=GAMES)
def test_values_measured_with_slopes_are_those_without(made, options):
    game = game_of(made, **options)
    masks = some_masks(game, 20)
    alone, together = game.measure(masks), game.measure(masks, slopes=True)
    assert alone.slopes is None
    assert np.abs(together.values - alone.values).max() < 1e-6


@pytest.mark.parametrize("options", [GAMES["resample"], GAMES["prompts"], GAMES["all"]], ids=["resample", "prompts", "all"])
def test_one_mask_at_a_time_has_the_slopes_of_a_batch_whatever_its_order_and_size(made, options):
    game = game_of(made, **options)
    masks = some_masks(game, 12)
    whole = game.measure(masks, slopes=True).slopes
    each = np.concatenate([game.measure(mask[None], slopes=True).slopes for mask in masks])
    assert np.abs(each - whole).max() < 1e-4
    game.mask_tree.budget = 40
    assert np.abs(game.measure(masks[::-1], slopes=True).slopes[::-1] - whole).max() < 1e-4


def test_a_pass_with_slopes_counts_the_layers_from_the_lowest_component_on_twice(made):
    game = game_of(made, layers="1-1")
    masks = some_masks(game)
    game.measure(masks[:1])  # what all masks share
    assert game.measure(masks, slopes=True).tokens == 2 * len(masks) * game.reading.groups[0].length // 2


def test_memory_that_runs_out_halves_what_runs_at_once_with_slopes(made, monkeypatch):
    import torch

    game = game_of(made)
    masks = some_masks(game, 9)
    expected, length = game.measure(masks, slopes=True), game.reading.groups[0].length
    plain = type(game.mask_tree).differentiate

    def short(self, group, gates, *rest):
        if len(gates) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, group, gates, *rest)

    monkeypatch.setattr(type(game.mask_tree), "differentiate", short)
    found = game.measure(masks, slopes=True)
    assert np.abs(found.slopes - expected.slopes).max() < 1e-6
    assert game.mask_tree.budget // (game.mask_tree.heavier * length) <= 2


def test_games_that_have_no_slopes_say_so(made):
    steps = game_of(made, value="accuracy")
    words = build_game(FeatureLens(model=made["gpt2"], prompt=PROMPT, target=" not", dtype="float32", device="cpu"))
    prompts = PromptGame(game_of(made, prompts="rows"))
    for game in (steps, words, prompts):
        assert not game.info.slopes
        with pytest.raises(ValueError, match="has none"):
            game.measure(np.ones((1, game.n), dtype=bool), slopes=True)
