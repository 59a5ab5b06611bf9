"""Adapters trained side by side are what PEFT makes of each alone."""

import tempfile

import numpy as np
import pytest
import tiny_models
import torch

from raysp.errors import UserError
from raysp.models import frozen_prefix, target_loss, training
from raysp.models.architecture import read_architecture
from raysp.models.frozen_prefix import Text
from raysp.models.lora import Recipe
from raysp.models.reference import PlainTrainer
from raysp.models.target_loss import TargetLoss
from raysp.models.training import DivergenceError, Trainer, batches

CPU = torch.device("cpu")
MODULES = {"gpt2": ("c_attn",), "neox": ("query_key_value",)}
FAMILIES = ("llama", "gpt2", "neox", "qwen3", "phi", "opt")


def recipe(kind="llama", **changes):
    usual = {"rank": 4, "alpha": 8, "modules": MODULES.get(kind, ("q_proj", "v_proj")), "layers": (1,), "learning_rate": 5e-3, "weight_decay": 0.0}
    usual |= {"schedule": "constant", "warmup": 0.0, "epochs": 3, "batch_size": 4}
    return Recipe(**(usual | changes))


def texts(count, seed, prefix=5):
    """Texts of uneven lengths that begin alike, as in one template."""
    rng = np.random.default_rng(seed)
    shared = np.arange(10, 10 + prefix)
    return [Text(np.concatenate([shared, rng.integers(3, 300, rng.integers(4, 11))]).astype(np.int64), prefix + int(rng.integers(1, 3))) for _ in range(count)]


EXAMPLES, ASKED = texts(12, 0), texts(4, 1)
SUBSETS = [np.array([0, 1, 2, 5, 7, 9]), np.arange(12), np.array([3]), np.array([], np.int64)]


def model(kind="llama"):
    return tiny_models.make(kind).requires_grad_(requires_grad=False)


def trained(trainer, subsets=SUBSETS, seed=0):
    """The scores of trained adapters, and their losses."""
    losses = [[] for _ in subsets]

    def watch(_stack, found, _rates):
        losses[:] = found

    return trainer.logprobs(trainer.train(subsets, [seed] * len(subsets), watch)), losses


def plainly(tiny, told, subsets=SUBSETS, seed=0):
    plain = PlainTrainer(tiny, CPU, told, EXAMPLES, ASKED)
    found, losses = [], []
    for subset in subsets:
        found.append(plain.evaluate([subset], [seed])[0])
        losses.append(list(plain.losses))
    return np.array(found), losses


def same(ours, theirs, tolerance=1e-4):
    (values, losses), (expected, steps) = ours, theirs
    assert [len(row) for row in losses] == [len(row) for row in steps]
    for mine, other in zip(losses, steps, strict=True):
        np.testing.assert_allclose(mine, other, atol=tolerance)
    np.testing.assert_allclose(values, expected, atol=tolerance)


# ---- the fast path is the plain one


@pytest.mark.parametrize("kind", FAMILIES)
def test_losses_of_every_step_and_values_are_those_of_peft(kind):
    tiny, told = model(kind), recipe(kind)
    same(trained(Trainer(tiny, CPU, told, EXAMPLES, ASKED)), plainly(tiny, told))


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": (0, 1)},
        {"schedule": "linear", "warmup": 0.2, "weight_decay": 0.1},
        {"schedule": "cosine"},
        {"modules": ("gate_proj", "down_proj", "o_proj")},
    ],
    ids=["all layers", "linear with warm-up and decay", "cosine", "modules inside the MLP"],
)
def test_so_they_are_with_other_recipes(changes):
    tiny, told = model(), recipe(**changes)
    same(trained(Trainer(tiny, CPU, told, EXAMPLES, ASKED)), plainly(tiny, told))


def test_a_head_that_does_more_than_a_product_is_left_to_autograd():
    tiny = tiny_models.make("gemma2")
    tiny.config.sliding_window = None
    tiny = type(tiny)(type(tiny.config)(**{**tiny.config.to_dict(), "sliding_window": 4096, "layer_types": None})).eval().requires_grad_(requires_grad=False)
    told = recipe()
    fast = Trainer(tiny, CPU, told, EXAMPLES, ASKED)
    assert not fast.head.plain
    same(trained(fast), plainly(tiny, told))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_losses_and_slopes_are_near_in_every_dtype(dtype):
    """Of 40 positions, some with two targets, and small weights."""
    rng = np.random.default_rng(0)
    hidden, at, tokens = torch.randn(40, 48), np.concatenate([np.arange(40), np.arange(7)]), rng.integers(3, 300, 47)
    weights, found = torch.from_numpy(rng.random(47)).float() * 1e-3, {}
    for each in (torch.float32, dtype):
        tiny = model().to(each)
        head = TargetLoss(tiny, read_architecture(tiny, "the model"), CPU)
        assert head.plain
        leaf = hidden.to(each, copy=True).requires_grad_()
        scores = head(leaf, at, tokens, weights)
        found[each] = scores.double(), leaf.grad.double()
    (losses, slopes), (near, steep) = found[torch.float32], found[dtype]
    assert (near - losses).abs().max() < 0.02 * losses.abs().max()
    assert (steep - slopes).norm() < 0.01 * slopes.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_head_and_its_log_softmax_are_float32_whatever_the_weights_are(dtype, monkeypatch):
    """The same numbers in the narrow dtype give what float64 gives, to float32's rounding; a head that rounded its logits would be off by a hundred times as much."""
    monkeypatch.setattr(target_loss, "CONVERTED", 48 * 50)  # some of the vocabulary at a time
    tiny = model().to(dtype)
    head = TargetLoss(tiny, read_architecture(tiny, "the model"), CPU)
    tiny.get_output_embeddings().weight.mul_(20)
    hidden, at, tokens = torch.randn(40, 48).to(dtype), np.arange(40), np.arange(3, 43)
    leaf = hidden.clone().requires_grad_()
    found = head(leaf, at, tokens, torch.ones(40))
    reading = tiny.model.norm(hidden).double().requires_grad_()
    expected = (reading @ tiny.get_output_embeddings().weight.double().T).log_softmax(-1)[torch.from_numpy(at), torch.from_numpy(tokens)]
    assert found.dtype == torch.float32
    assert (found.double() - expected.detach()).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_and_the_optimisers_state_are_float32_whatever_the_weights_are(dtype):
    tiny, told = model().to(dtype), recipe()
    fast, plain = Trainer(tiny, CPU, told, EXAMPLES, ASKED), PlainTrainer(tiny, CPU, told, EXAMPLES, ASKED)
    seen = []
    stack = fast.train(
        SUBSETS[:2], [0, 0], lambda found, _losses, _rates: seen.extend(tensor.grad.dtype for tensor in found.parameters if tensor.grad is not None)
    )
    optimiser = training._AdamW(stack, 0.0)
    assert {tensor.dtype for tensor in (*stack.parameters, *optimiser._first, *optimiser._second)} == {torch.float32} == set(seen)
    assert {parameter.dtype for parameter in plain._peft.parameters() if parameter.requires_grad} == {torch.float32}
    np.testing.assert_allclose(fast.logprobs(stack)[0, :, 0], plain.evaluate(SUBSETS[:1], [0])[0, :, 0], rtol=0.05)


def test_adapters_are_what_they_are_alone():
    told = recipe()
    together = trained(Trainer(model(), CPU, told, EXAMPLES, ASKED))
    for row, subset in enumerate(SUBSETS):
        alone = trained(Trainer(model(), CPU, told, EXAMPLES, ASKED), [subset])
        np.testing.assert_allclose(alone[0][0], together[0][row], atol=1e-5)


def test_small_passes_and_chunks_change_nothing(monkeypatch):
    expected = trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED))
    monkeypatch.setitem(training.NODES, "cpu", 20)
    monkeypatch.setitem(target_loss.CHUNK, "cpu", 3)
    monkeypatch.setitem(frozen_prefix.PACK, "cpu", 8)
    same(trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)), expected, 1e-5)


def test_memory_that_runs_out_halves_what_runs_at_once(monkeypatch):
    expected = trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED))
    fast, run, sizes = Trainer(model(), CPU, recipe(), EXAMPLES, ASKED), frozen_prefix.FrozenPrefix.run, []

    def narrow(self, rows, *rest):
        sizes.append(rows.nodes.size)
        if rows.nodes.size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, rows, *rest)

    monkeypatch.setattr(frozen_prefix.FrozenPrefix, "run", narrow)
    same(trained(fast), expected, 1e-5)
    assert max(sizes) > 100
    assert fast.nodes == 64
    assert sum(size > 100 for size in sizes) < 8  # it does not forget


def test_adapters_that_take_much_memory_are_fewer_at_once(monkeypatch):
    fast = Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)
    stack, numbers = fast.start([0]), np.arange(len(EXAMPLES))
    expected = torch.cat([rows for _, rows in fast.gradients(stack, 0, numbers)])
    assert fast.stacked == training.STACKED["cpu"]
    monkeypatch.setattr(training, "STATE", 3 * 16 * stack.size)
    assert fast.stacked == 3
    parts = list(fast.gradients(stack, 0, numbers))
    assert [len(some) for some, _ in parts] == [3] * 4
    torch.testing.assert_close(torch.cat([rows for _, rows in parts]), expected, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(training, "STATE", 0)
    assert fast.stacked == 1


def test_so_does_memory_that_runs_out_below_the_first_adapted_layer(monkeypatch):
    expected = trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED))
    through, sizes = frozen_prefix.FrozenPrefix._through, []

    def narrow(self, nodes, entering, stop):
        sizes.append(nodes.numel())
        if entering is None and nodes.numel() > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return through(self, nodes, entering, stop)

    monkeypatch.setattr(frozen_prefix.FrozenPrefix, "_through", narrow)
    fast = Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)
    assert sizes[0] > 40
    same(trained(fast), expected, 1e-5)


def test_hidden_states_that_no_device_memory_holds_go_into_a_file(monkeypatch, tmp_path):
    expected, zeros = trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)), torch.zeros

    def full(shape, *args, **kwargs):
        if isinstance(shape, tuple) and len(shape) == 2 and "device" in kwargs:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return zeros(shape, *args, **kwargs)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch, "zeros", full)
    fast = Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)
    monkeypatch.setattr(torch, "zeros", zeros)
    same(trained(fast), expected, 1e-5)
    assert list(tmp_path.iterdir()) == []  # a process that is killed leaves no gigabytes behind


def test_the_plain_way_shares_the_weights_and_leaves_the_model_as_it_is():
    tiny = model()
    names = {name for name, _ in tiny.named_parameters()}
    plain = PlainTrainer(tiny, CPU, recipe(), EXAMPLES, ASKED)
    own = {tensor.data_ptr() for name, tensor in plain._peft.named_parameters() if "lora" not in name}
    assert own == {tensor.data_ptr() for tensor in tiny.parameters()}
    before = tiny(input_ids=torch.arange(3, 9)[None]).logits
    plain.evaluate(SUBSETS[:1], [0])
    assert torch.equal(tiny(input_ids=torch.arange(3, 9)[None]).logits, before)
    assert {name for name, _ in tiny.named_parameters()} == names


def test_a_batch_that_memory_does_not_hold_is_told(monkeypatch):
    def none(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    fast = Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)
    monkeypatch.setattr(frozen_prefix.FrozenPrefix, "run", none)
    with pytest.raises(torch.OutOfMemoryError):
        fast.evaluate(SUBSETS, [0] * len(SUBSETS))


def test_hidden_states_in_a_file_are_those_in_memory(monkeypatch):
    expected = trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED))
    monkeypatch.setattr(frozen_prefix, "HELD", 0)
    same(trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)), expected, 0)


def test_first_steps_are_the_same_where_they_are_not_shared(monkeypatch):
    expected = trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED))
    monkeypatch.setattr(training, "FIRST_HELD", 0)
    same(trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)), expected, 1e-5)


def test_first_steps_are_paid_for_once_a_seed():
    fast, subsets = Trainer(model(), CPU, recipe(epochs=1, batch_size=len(EXAMPLES)), EXAMPLES, ASKED), [np.arange(len(EXAMPLES))] * 2
    tokens = []
    for seed in (0, 1, 0, 1, 2, 2):
        before = fast.tokens
        fast.train(subsets, [seed, seed])
        tokens.append(fast.tokens - before)
    assert tokens[0] == tokens[1] == tokens[4] > tokens[2] == tokens[3] == tokens[5] == 0
    fast.train(subsets[:1], [3])
    assert 0 < fast.tokens - before < tokens[0]  # one adapter pays for its own batch alone


def test_an_adapter_of_nothing_is_the_model_itself():
    fast = Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)
    values, losses = trained(fast, [np.array([], np.int64)])
    assert losses == [[]]
    own = [float(fast._own(text).double().sum()) for text in ASKED]
    np.testing.assert_allclose(values[0, :, 0], own, atol=1e-4)
    assert values[0, :, 1].tolist() == [len(text.ids) - text.first for text in ASKED]


# ---- what training depends on


def test_seeds_make_other_adapters_and_the_same_seed_the_same():
    first, again, other = (trained(Trainer(model(), CPU, recipe(), EXAMPLES, ASKED), seed=seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.abs(first[0] - other[0]).max() > 1e-3


def test_the_order_of_examples_does_not_depend_on_what_else_is_there():
    told = recipe(batch_size=1)
    every = [int(batch[0]) for batch in batches(np.arange(12), told, 3, 12)]
    some = [int(batch[0]) for batch in batches(np.array([1, 4, 6, 11]), told, 3, 12)]
    for epoch in range(3):
        kept = [number for number in every[12 * epoch : 12 * (epoch + 1)] if number in (1, 4, 6, 11)]
        assert some[4 * epoch : 4 * (epoch + 1)] == kept
    assert every[:12] != every[12:24]


def test_a_training_that_diverges_says_where():
    with pytest.raises(DivergenceError, match="at step 1: its weights grew to 1e"):
        Trainer(model(), CPU, recipe(learning_rate=1e30), EXAMPLES, ASKED).train([np.arange(3), np.arange(12)], [0, 0])
    with pytest.raises(DivergenceError, match="at step 1: its weights grew to 1e"):
        PlainTrainer(model(), CPU, recipe(learning_rate=1e30), EXAMPLES, ASKED).evaluate([np.arange(12)], [0])


# ---- gradients


def test_gradients_are_finite_differences_of_the_log_probabilities():
    fast = Trainer(model().double(), CPU, recipe(learning_rate=5e-2), EXAMPLES, ASKED)
    stack = fast.train([np.arange(12)], [0])
    numbers = np.arange(len(ASKED))
    found = np.concatenate([rows.numpy() for _, rows in fast.gradients(stack, 0, numbers, "evaluated")])
    direction = torch.randn(stack.size, generator=torch.Generator().manual_seed(0))
    step, values = 1e-3, []
    for sign in (1, -1):
        moved = stack.copies(0, 1)
        at = 0
        for tensor in moved.parameters:
            tensor.add_(direction[at : at + tensor.numel()].view_as(tensor), alpha=sign * step)
            at += tensor.numel()
        values.append(fast.logprobs(moved)[0, :, 0])
    np.testing.assert_allclose(found @ direction.numpy(), (values[0] - values[1]) / (2 * step), rtol=2e-2, atol=1e-3)


# ---- adapters on disk


def test_a_saved_adapter_is_loaded_by_peft(tmp_path):
    from peft import PeftModel

    folder = tmp_path / "model"
    name = tiny_models.save("llama", folder)
    fast = Trainer(model(), CPU, recipe(), EXAMPLES, ASKED)
    stack = fast.train(SUBSETS[:2], [0, 0])
    stack.save(tmp_path / "adapter", 1, name)
    loaded = PeftModel.from_pretrained(model(), tmp_path / "adapter").eval()
    expected = fast.logprobs(stack)[1, :, 0]
    for text, value in zip(ASKED, expected, strict=True):
        ids = torch.from_numpy(text.ids)
        logits = loaded(input_ids=ids[None]).logits[0, text.first - 1 : -1].log_softmax(-1)
        assert float(logits.gather(1, ids[text.first :, None]).sum()) == pytest.approx(value, abs=1e-4)


# ---- what cannot be


def test_a_window_shorter_than_the_texts_is_noticed():
    trainer, why = Trainer.fitting(model("window"), CPU, recipe(), EXAMPLES, ASKED, "window")
    assert trainer is None
    assert "one tree" in why
    assert Trainer.fitting(model(), CPU, recipe(), EXAMPLES, ASKED, "llama")[1] == ""


@pytest.mark.parametrize(("changes", "message"), [({"modules": ("q_proj", "nothing")}, "down_proj"), ({"layers": (1, 2)}, "layers 0-1")])
def test_modules_and_layers_that_are_not_there_are_named_with_those_that_are(changes, message):
    with pytest.raises(UserError, match=message):
        Trainer(model(), CPU, recipe(**changes), EXAMPLES, ASKED)


def test_a_text_needs_something_before_its_answer():
    with pytest.raises(ValueError, match="first target"):
        Text(np.arange(3), 0)
