"""Parts of models of every family taken away in batches: what comes out is what surgery on the weights gives."""

import copy

import numpy as np
import pytest
import torch
from tiny_models import make, save

from raysp.errors import UserError
from raysp.lenses import build_game
from raysp.models.architecture import read_architecture
from raysp.specs.lenses import MechanisticLens

PROMPT = "Her acting never fails, the film was long"
#: Where a person who knows the family finds the layers, the projection behind the heads and the one behind the neurons.
FAMILIES = {
    "llama": ("model.layers", "self_attn.o_proj", "mlp.down_proj"),
    "window": ("model.layers", "self_attn.o_proj", "mlp.down_proj"),
    "qwen2": ("model.layers", "self_attn.o_proj", "mlp.down_proj"),
    "qwen3": ("model.layers", "self_attn.o_proj", "mlp.down_proj"),
    "gemma2": ("model.layers", "self_attn.o_proj", "mlp.down_proj"),
    "gemma3": ("model.layers", "self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("transformer.h", "attn.c_proj", "mlp.c_proj"),
    "neox": ("gpt_neox.layers", "attention.dense", "mlp.dense_4h_to_h"),
    "phi": ("model.layers", "self_attn.dense", "mlp.fc2"),
    "opt": ("model.decoder.layers", "self_attn.out_proj", "fc2"),
    "bert-classifier": ("bert.encoder.layer", "attention.output.dense", "output.dense"),
    "llama-classifier": ("model.layers", "self_attn.o_proj", "mlp.down_proj"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {kind: save(kind, folder / kind) for kind in FAMILIES}


def lens(models, kind="llama", **options):
    answers = {"target": "good", "foil": "bad"} if kind.endswith("classifier") else {"target": " not", "foil": "!"}
    return MechanisticLens(model=models[kind], **{"prompt": PROMPT, "dtype": "float32", "device": "cpu", **answers, **options})


def found(root, path):
    for name in path.split("."):
        root = getattr(root, name)
    return root


def zero_columns(linear, columns):
    with torch.no_grad():
        if isinstance(linear, torch.nn.Linear):
            linear.weight[:, columns] = 0
        else:
            linear.weight[columns] = 0


def operated(model, kind, game, mask):
    """A copy of the model without the parts that the mask leaves out."""
    model = copy.deepcopy(model)
    layers, attention, mlp = FAMILIES[kind]
    gone = []
    for component in (component for component, kept in zip(game.components, mask, strict=True) if not kept):
        block = found(model, layers)[component.layer]
        if component.kind == "head":
            linear = found(block, attention)
            width = (linear.weight.shape[1] if isinstance(linear, torch.nn.Linear) else linear.weight.shape[0]) // model.config.num_attention_heads
            zero_columns(linear, slice(component.unit * width, (component.unit + 1) * width))
        elif component.kind == "neurons":
            part = game.mask_tree.ablation.parts[component.index]
            zero_columns(found(block, mlp), slice(part.start, part.stop))
        elif component.kind == "mlp":
            linear = found(block, mlp)
            with torch.no_grad():
                linear.weight.zero_()
                if linear.bias is not None:
                    linear.bias.zero_()
        else:
            gone.append(component.layer)
    stack = found(model, layers)
    for layer in sorted(gone, reverse=True):
        del stack[layer]
        if getattr(model.config, "layer_types", None):
            model.config.layer_types = [kind for number, kind in enumerate(model.config.layer_types) if number != layer]
    return model


def plain_value(model, game):
    """Target less foil by one forward pass of a model."""
    answer, ids = game.reading.answers[0], torch.from_numpy(game.reading.contexts[0][0])[None]
    with torch.no_grad():
        logits = model(input_ids=ids, **({} if model.config.is_encoder_decoder or "Classification" in type(model).__name__ else {"use_cache": False})).logits
    last = logits[0] if logits.ndim == 2 else logits[0, -1]
    return float(last[answer.target_ids[0]] - last[answer.foil_ids[0]])


@pytest.mark.parametrize("kind", FAMILIES)
def test_ablation_equals_surgery_on_the_weights(models, kind):
    game = build_game(lens(models, kind, components="heads,mlp,neurons:0/0-47", group=16))
    model, rng = make(kind), np.random.default_rng(0)
    masks = rng.random((24, game.n)) < 0.6
    values = game.evaluate(masks)
    expected = [plain_value(operated(model, kind, game, mask), game) for mask in masks]
    assert np.abs(values - expected).max() < 1e-4
    assert np.ptp(values) > 0.01


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_block_left_out_is_a_layer_less(models, kind):
    game = build_game(lens(models, kind, components="blocks"))
    masks = np.array([[True, True], [False, True], [True, False]])
    expected = [plain_value(operated(make(kind), kind, game, mask), game) for mask in masks]
    assert np.abs(game.evaluate(masks) - expected).max() < 1e-4


@pytest.mark.parametrize("kind", FAMILIES)
def test_components_come_layer_by_layer_with_their_place(models, kind):
    game = build_game(lens(models, kind, components="mlp,heads"))
    heads = make(kind).config.num_attention_heads
    expected = [(layer, what, unit) for layer in (0, 1) for what, units in (("head", range(heads)), ("mlp", [None])) for unit in units]
    assert [(c.layer, c.kind, c.unit) for c in game.components] == expected
    assert game.components[0].label == "L0H0"
    assert game.components[heads].label == "L0 MLP"


def test_one_mask_at_a_time_equals_a_batch_whatever_its_order_and_size(models):
    game = build_game(lens(models, components="heads,mlp"))
    masks = np.random.default_rng(1).random((40, game.n)) < 0.7
    values = game.evaluate(masks)
    assert np.abs(values - np.concatenate([game.evaluate(mask[None]) for mask in masks])).max() < 1e-5
    order = np.random.default_rng(2).permutation(len(masks))
    assert np.abs(values[order] - game.evaluate(masks[order])).max() < 1e-5
    game.mask_tree.budget = 20
    assert np.abs(values - game.evaluate(masks)).max() < 1e-5


def test_what_masks_share_is_computed_once(models):
    game = build_game(lens(models, components="heads"))
    late = np.ones((7, game.n), dtype=bool)
    late[np.arange(1, 7), np.arange(6, 12)] = False  # one head of the second layer each
    early = np.ones((7, game.n), dtype=bool)
    early[np.arange(1, 7), np.arange(6)] = False
    length = game.reading.groups[0].length
    game.measure(late)
    assert game.measure(late).tokens == round((1 + 7) * length / 2)
    assert game.measure(early).tokens == 7 * length


def test_memory_that_runs_out_halves_what_runs_at_once(models, monkeypatch):
    game = build_game(lens(models, components="heads"))
    masks = np.random.default_rng(1).random((12, game.n)) < 0.7
    expected, length = game.evaluate(masks), game.reading.groups[0].length
    plain = type(game.mask_tree)._read_rows

    def short(self, group, rows, *rest):
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, group, rows, *rest)

    monkeypatch.setattr(type(game.mask_tree), "_read_rows", short)
    assert np.abs(game.evaluate(masks) - expected).max() < 1e-5
    assert game.mask_tree.budget // length <= 3


def test_an_architecture_without_blocks_says_what_was_looked_for():
    with pytest.raises(UserError, match="attention or attn"):
        read_architecture(_Odd(), "odd")


class _Odd(torch.nn.Module):
    """A language model whose blocks have no attention."""

    class config:  # noqa: N801  the name that transformers give it
        num_hidden_layers, num_attention_heads = 2, 4

        @classmethod
        def get_text_config(cls):
            return cls

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(4, 4)) for _ in range(2)])
