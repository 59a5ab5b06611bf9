"""However sequences are scored, together or alone, packed or padded, they have the scores of plain single forward passes."""

import numpy as np
import pytest
import torch
from tiny_models import CAUSAL, VOCABULARY, byte_tokenizer, make, word_piece_tokenizer

from raysp.errors import EvaluationError
from raysp.models.inputs import gather
from raysp.models.loading import LoadedModel
from raysp.models.packing import Root
from raysp.models.prefix_tree import build_tree, common_prefix
from raysp.models.resident import ResidentModel


def resident_model(kind, dtype=torch.float64, pack=384, budget=1024):
    classifies = kind.endswith("classifier")
    tokenizer = word_piece_tokenizer() if kind.startswith("bert") else byte_tokenizer()
    model = make(kind).to(dtype)
    return ResidentModel(LoadedModel(model, tokenizer, "classifier" if classifies else "causal", "w", "t", dtype, torch.device("cpu")), pack, budget)


def random_inputs(seed=0, m=40, *, head=6, extended=False, gaps=False, classes=None):
    """Sequences of mixed lengths with a common head; some repeated, some read at several places."""
    rng = np.random.default_rng(seed)
    top = VOCABULARY + 2 if extended else VOCABULARY
    common = rng.integers(0, 200, head)
    symbols = [
        np.concatenate([common, rng.integers(0, 3, rng.integers(1, 9)), rng.integers(top - 4 if extended else 0, top, rng.integers(1, 5))]) for _ in range(m)
    ]
    if classes:
        symbols = [np.minimum(row, 199) for row in symbols]
    symbols[m // 2] = symbols[0]
    positions = [np.arange(len(row)) for row in symbols]
    if gaps:
        positions = [np.sort(rng.permutation(len(row) + 5)[: len(row)]) for row in symbols]
    reads = []
    for row in symbols:
        index = np.arange(max(len(row) - 1 - len(row) % 3, head), len(row))
        reads.append((index[-1:], np.array([1])) if classes else (index, rng.integers(0, VOCABULARY, len(index))))
    return gather(symbols, positions, reads)


def close(scores, expected, tolerance=1e-9):
    assert np.abs(scores.logits - expected.logits).max() < tolerance
    assert np.abs(scores.logprobs - expected.logprobs).max() < tolerance


@pytest.mark.parametrize("way", ["packed", "padded"])
@pytest.mark.parametrize("extended", [False, True], ids=["tokens", "vectors"])
@pytest.mark.parametrize("gaps", [False, True], ids=["contiguous", "gaps"])
@pytest.mark.parametrize("kind", CAUSAL)
def test_together_equals_alone(kind, gaps, extended, way):
    model = resident_model(kind)
    inputs = random_inputs(extended=extended, gaps=gaps)
    close(model.score(inputs, way), model.score(inputs, "alone"))


@pytest.mark.parametrize("kind", CAUSAL)
def test_alone_equals_the_model_as_its_authors_call_it(kind):
    model = resident_model(kind)
    inputs = random_inputs(m=5)
    scores, at = model.score(inputs, "alone"), 0
    for i in range(inputs.m):
        ids = torch.from_numpy(inputs.symbols[inputs.offsets[i] : inputs.offsets[i + 1]])[None]
        with torch.no_grad():
            logits = model.loaded.model(ids).logits[0]
        for _ in range(int((inputs.read_sequence == i).sum())):
            assert scores.logits[at] == pytest.approx(float(logits[inputs.read_index[at], inputs.read_token[at]]), abs=1e-9)
            assert scores.logprobs[at] == pytest.approx(float(logits[inputs.read_index[at]].log_softmax(-1)[inputs.read_token[at]]), abs=1e-9)
            at += 1


def test_float32_is_within_a_hundred_thousandth():
    model = resident_model("llama", torch.float32)
    inputs = random_inputs()
    expected = model.score(inputs, "alone")
    close(model.score(inputs, "packed"), expected, 1e-4)
    close(model.score(inputs, "padded"), expected, 1e-4)


@pytest.mark.parametrize("pack", [1, 2, 3, 7, 16, 1000])
@pytest.mark.parametrize("rooted", [False, True])
def test_cutting_the_tree_anywhere_changes_nothing(pack, rooted):
    model = resident_model("llama", pack=pack)
    inputs = random_inputs(seed=3)
    root = Root(common_prefix(inputs)) if rooted else None
    close(model.score(inputs, "packed", root), model.score(inputs, "alone"))
    close(model.score(inputs, "packed", root), model.score(inputs, "alone"))


def test_every_distinct_prefix_is_computed_once():
    model = resident_model("llama", pack=5)
    inputs = random_inputs()
    root = Root(common_prefix(inputs))
    nodes = len(build_tree(inputs))
    assert model.score(inputs, "packed").tokens == nodes
    assert model.score(inputs, "packed", root).tokens == nodes
    assert model.score(inputs, "packed", root).tokens == nodes - len(root.keys)


def test_scores_do_not_depend_on_what_was_asked_before():
    model = resident_model("llama", torch.float32, pack=16)
    one, two = random_inputs(seed=1), random_inputs(seed=1, m=20)
    root = Root(common_prefix(one))
    first = model.score(one, "packed", root)
    model.score(two, "packed", root)
    again = model.score(one, "packed", root)
    assert np.array_equal(first.logits, again.logits)
    assert np.array_equal(first.logprobs, again.logprobs)


def test_inputs_that_leave_the_root_early_are_scored_right():
    model = resident_model("neox")
    root = Root(common_prefix(random_inputs(seed=1)))
    model.score(random_inputs(seed=1), "packed", root)
    other = random_inputs(seed=2)
    close(model.score(other, "packed", root), model.score(other, "alone"))


@pytest.mark.parametrize("way", ["packed", "padded"])
def test_when_memory_runs_out_less_is_done_at_once(way):
    model = resident_model("llama", pack=256, budget=400)
    inputs = random_inputs()
    expected = model.score(inputs, "alone")

    def limit(module, args, kwargs):
        if kwargs["input_ids"].numel() > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.loaded.model.register_forward_pre_hook(limit, with_kwargs=True)
    close(model.score(inputs, way), expected)
    assert (model.packed.pack if way == "packed" else model.padded.budget) < 65


@pytest.mark.parametrize("way", ["packed", "padded"])
def test_memory_that_holds_no_single_input_is_an_error_in_words(way):
    model = resident_model("llama")

    def limit(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.loaded.model.register_forward_pre_hook(limit)
    with pytest.raises(EvaluationError, match=r"one input of .* does not fit into memory"):
        model.score(random_inputs(), way)


@pytest.mark.parametrize("kind", ["bert-classifier", "llama-classifier"])
@pytest.mark.parametrize("gaps", [False, True], ids=["contiguous", "gaps"])
@pytest.mark.parametrize("pad", [None, 1], ids=["no padding token", "padding token"])
def test_a_classifier_padded_equals_alone(kind, gaps, pad):
    model = resident_model(kind)
    if kind == "llama-classifier":
        model.loaded.model.config.pad_token_id = pad
        model = ResidentModel(model.loaded, 384, 256)
    inputs = random_inputs(gaps=gaps, classes=3)
    keep = np.flatnonzero(inputs.symbols == 1)
    inputs.symbols[keep] = 4  # a padding token in the text is the model's own trap, not ours
    close(model.score(inputs, "padded"), model.score(inputs, "alone"))


@pytest.mark.parametrize("kind", CAUSAL)
def test_ordinary_architectures_are_packed(kind):
    assert resident_model(kind).choose(random_inputs()) == ("packed", None)


@pytest.mark.parametrize("kind", ["bloom", "window"])
def test_an_architecture_that_cannot_be_packed_is_scored_in_another_way_and_says_so(kind):
    model = resident_model(kind)
    inputs = random_inputs()
    way, remark = model.choose(inputs)
    assert way != "packed"
    assert "packed scoring is not used" in remark
    close(model.score(inputs, way), model.score(inputs, "alone"))
