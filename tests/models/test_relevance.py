"""Relevance propagation (RelP): the rules against a plain computation on tiny models, and what tells whether they cover a model. Float64, norms in float32 where the model says so."""

import numpy as np
import pytest
import torch
from tiny_models import make, save

from raysp.lenses import build_game
from raysp.lenses.gate_gradients import slopes
from raysp.models.architecture import read_architecture
from raysp.models.blockwise import BlockwiseModel
from raysp.models.relevance import deviation, propagation_rules, uncovered
from raysp.specs.lenses import MechanisticLens

IDS = torch.tensor([[5, 9, 30, 77, 12, 60]])
COVERED = ("llama", "gpt2", "neox", "bloom", "qwen3", "gemma2", "phi", "opt", "bert-classifier")


def blockwise(kind):
    model = make(kind).double().requires_grad_(False)
    return BlockwiseModel(model, read_architecture(model, kind), torch.device("cpu"))


@pytest.mark.parametrize("kind", COVERED)
def test_relevances_of_what_enters_a_layer_and_of_biases_add_up_to_the_logits(kind):
    tiny = blockwise(kind)
    assert max(deviation(tiny, IDS, layer) for layer in (0, 1)) < 1e-6
    assert uncovered(tiny, IDS) is None
    assert not any(value.requires_grad for value in tiny.model.parameters())


def test_a_model_that_the_rules_do_not_cover_is_recognised():
    assert "no RelP" in uncovered(blockwise("hybrid"), IDS)  # its linear attention multiplies states by states


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_rules_change_derivatives_and_no_values(kind):
    model = make(kind).double().requires_grad_(False)
    hidden = model.get_input_embeddings()(IDS).detach().requires_grad_()
    plain = model(inputs_embeds=hidden).logits[0, -1]
    with propagation_rules(model):
        ruled = model(inputs_embeds=hidden).logits[0, -1]
    assert (plain - ruled).abs().max() < 1e-12
    ours, theirs = (torch.autograd.grad(found[7], hidden)[0] for found in (ruled, plain))
    assert (ours - theirs).abs().max() > 1e-3


def by_hand(model, hidden):
    """A Llama that is linear around its input, written out: constants are taken from a plain pass, products have half a derivative for each factor."""
    seen = {}

    def norm(module, inputs, output):
        seen[module] = (output / inputs[0]).detach()  # weight and scale in one

    handles = [module.register_forward_hook(norm) for name, module in model.named_modules() if name.endswith("norm")]
    whole = model(inputs_embeds=hidden, output_attentions=True)
    for handle in handles:
        handle.remove()
    for block, attentions in zip(model.model.layers, whole.attentions, strict=True):
        attention, mlp = block.self_attn, block.mlp
        into = hidden * seen[block.input_layernorm]
        values = attention.v_proj(into).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2).repeat_interleave(attention.num_key_value_groups, dim=1)
        hidden = hidden + attention.o_proj((attentions.detach() @ values).transpose(1, 2).flatten(2))
        into = hidden * seen[block.post_attention_layernorm]
        gate, up = mlp.gate_proj(into), mlp.up_proj(into)
        ratio = torch.sigmoid(gate).detach()
        hidden = hidden + mlp.down_proj((gate * ratio * up.detach() + (gate * ratio).detach() * up) / 2)
    return model.lm_head(hidden * seen[model.model.norm])[0, -1]


def test_relevances_are_those_of_the_model_written_out_with_constants():
    model = make("llama").double().requires_grad_(False)
    model.set_attn_implementation("eager")
    hidden = model.get_input_embeddings()(IDS).detach().requires_grad_()
    (expected,) = torch.autograd.grad(by_hand(model, hidden)[7], hidden)
    model.set_attn_implementation("sdpa")
    with propagation_rules(model):
        (found,) = torch.autograd.grad(model(inputs_embeds=hidden).logits[0, -1, 7], hidden)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relevance")
    return {kind: save(kind, folder / kind) for kind in ("llama", "gpt2", "hybrid")}


def game(folders, kind, **options):
    asked = {"prompt": "Her acting never fails, the film was long", "target": " not", "foil": "!", "dtype": "float32", "device": "cpu"}
    return build_game(MechanisticLens(model=folders[kind], **asked, **options))


def test_relp_of_whole_layers_is_their_activation_times_its_relevance(folders):
    """Float32. The last MLP acts on the logits by the final norm alone, whose scale is constant: its relevance is what it adds to them."""
    found = game(folders, "llama", components="heads,mlp")
    report = found.gradient_report()
    last = next(i for i, component in enumerate(found.components) if component.kind == "mlp" and component.layer == 1)
    model, added, scale = found.model.loaded.model, [], []
    ids = found.reading.groups[0].ids
    handles = [
        model.model.layers[1].mlp.register_forward_hook(lambda _module, _inputs, output: added.append(output[0, -1])),
        model.model.norm.register_forward_hook(lambda _module, inputs, output: scale.append((output / inputs[0])[0, -1])),
    ]
    with torch.no_grad():
        model(input_ids=ids)
    for handle in handles:
        handle.remove()
    rows = model.lm_head.weight[found.reading.groups[0].read_token.tolist()] @ (added[0] * scale[0])
    weights = found.reading.weights()
    assert report.singles("relp")[last] == pytest.approx(float((rows.double().detach().numpy() * weights).sum()), rel=1e-4)


def test_relevance_passes_give_the_values_of_plain_ones(folders):
    found = game(folders, "gpt2")
    gates = (np.random.default_rng(0).random((5, found.n)) < 0.7).astype(float)
    (plain, slope), (ruled, relevance) = (slopes(found.mask_tree, found.reading, gates, relevance=each) for each in (False, True))
    assert np.abs(plain - ruled).max() < 1e-4
    assert np.abs(slope - relevance).max() > 1e-3


def test_a_report_says_why_there_is_no_relp(folders):
    report = game(folders, "hybrid", components="mlp").gradient_report()
    assert "relp" not in report.effects
    assert any(note.startswith("no RelP") for note in report.notes)
