"""What a classification head's outputs are decides what values there are: exclusive classes, independent labels, regressions. Float32."""

import numpy as np
import pytest
import torch
from tiny_models import save

from raysp.errors import UserError
from raysp.lenses import build_game
from raysp.lenses.gate_gradients import slopes
from raysp.lenses.input_gradients import input_gradients
from raysp.models.loading import load
from raysp.specs.lenses import FeatureLens, MechanisticLens, ModelOptions

PROMPT = "Her acting never fails"
KINDS = ("bert-classifier", "llama-classifier")
ON_CPU = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        save(kind, folder / f"{kind}-labels", problem_type="multi_label_classification")
        save(kind, folder / f"{kind}-number", id2label={0: "score"})
        save(kind, folder / f"{kind}-numbers", problem_type="regression")
    save("bert-classifier", folder / "cases", id2label={0: "us", 1: "US", 2: "2", 3: "twice", 4: "twice"})
    return folder


def own_logits(folder):
    loaded = load(ModelOptions(model=str(folder), **ON_CPU))
    with torch.no_grad():
        return loaded.model(torch.tensor([loaded.tokenizer(PROMPT)["input_ids"]])).logits[0].double()


def feature(folder, **options):
    return build_game(FeatureLens(**{"model": str(folder), **ON_CPU, "prompt": PROMPT, **options}))


def mechanistic(folder, **options):
    return build_game(MechanisticLens(**{"model": str(folder), **ON_CPU, "prompt": PROMPT, **options}))


def intact(game):
    return game.evaluate(np.ones((1, game.n), bool))[0]


@pytest.mark.parametrize("build", [feature, mechanistic])
@pytest.mark.parametrize("kind", KINDS)
def test_independent_labels_have_a_log_sigmoid_each(folders, kind, build):
    folder = folders / f"{kind}-labels"
    own = torch.nn.functional.logsigmoid(own_logits(folder))
    for value, expected in {"logprob": own[2], "loss": -own[2], "logprob_diff": own[2] - own[0]}.items():
        game = build(folder, target="good", foil="bad" if value == "logprob_diff" else None, value=value)
        assert intact(game) == pytest.approx(float(expected), abs=1e-4)


def test_gradients_are_of_the_log_sigmoid_too(folders):
    game = feature(folders / "llama-classifier-labels", target="good", value="logprob")
    assert input_gradients(game.answered).intact == pytest.approx(intact(game), abs=1e-4)  # which raises where the way of gradients gives another value
    gates = mechanistic(folders / "llama-classifier-labels", target="good", value="logprob")
    step = 1e-2 * np.eye(gates.n)[:1]
    (value, nearby), (gradient, _) = slopes(gates.mask_tree, gates.reading, np.concatenate([np.ones((1, gates.n)), 1 - step]))
    assert value == pytest.approx(intact(gates), abs=1e-4)
    assert (value - nearby) / 1e-2 == pytest.approx(gradient[0], rel=0.05, abs=1e-3)


@pytest.mark.parametrize("build", [feature, mechanistic])
@pytest.mark.parametrize("kind", KINDS)
def test_the_value_of_a_regression_is_its_output(folders, kind, build):
    folder = folders / f"{kind}-number"
    game = build(folder)
    assert game.info.description["value"] == "class_logit"
    assert "the target is the output of the regression: score" in game.info.notes
    assert intact(game) == pytest.approx(float(own_logits(folder)[0]), abs=1e-4)


@pytest.mark.parametrize("value", ["logprob", "loss", "logprob_diff"])
@pytest.mark.parametrize("build", [feature, mechanistic])
def test_a_regression_has_no_probabilities(folders, build, value):
    with pytest.raises(UserError, match=f"value: '{value}' is made of probabilities, and the model's head is a regression, which has none; use class_logit"):
        build(folders / "bert-classifier-numbers", target="good", foil="bad", value=value)


def test_outputs_of_a_regression_are_compared_or_named(folders):
    folder = folders / "bert-classifier-numbers"
    own = own_logits(folder)
    assert intact(feature(folder, target="good", foil="bad")) == pytest.approx(float(own[2] - own[0]), abs=1e-4)
    with pytest.raises(UserError, match="target: is missing, and the model's head is a regression of several outputs; name one of bad, fine, good"):
        feature(folder)


@pytest.mark.parametrize(("head", "words"), [("number", "is a regression"), ("labels", "has independent labels")])
@pytest.mark.parametrize("value", ["kl", "accuracy"])
def test_values_that_compare_exclusive_classes_are_refused_where_they_are_not(folders, head, words, value):
    with pytest.raises(UserError, match=f"value: '{value}' compares classes that exclude one another, and the model's head {words}"):
        mechanistic(folders / f"bert-classifier-{head}", value=value)


@pytest.mark.parametrize(("target", "index"), [("us", 0), ("US", 1), (" US ", 1), ("2", 2), ("0", 0)])
def test_an_exact_label_goes_before_one_in_another_case_and_before_an_index(folders, target, index):
    assert feature(folders / "cases", target=target).answers.target_ids == (index,)


@pytest.mark.parametrize(("target", "classes"), [("Us", r"us \(0\) and US \(1\)"), ("twice", r"twice \(3\) and twice \(4\)")])
def test_a_label_of_several_classes_is_refused(folders, target, classes):
    with pytest.raises(UserError, match=f"target: '{target}' is the label of 2 classes, {classes}; write the label exactly, or give the index of the class"):
        feature(folders / "cases", target=target)
