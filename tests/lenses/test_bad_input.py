"""What a person can get wrong with a prompt, a target, a training set or a model is one line that names the field and what to do."""

import json

import pytest
from tiny_models import save

from raysp.errors import EvaluationError, UserError
from raysp.lenses import build_game
from raysp.specs.lenses import DataLens, FeatureLens


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: save(kind, folder / kind) for kind in ("llama", "bert-classifier", "bloom")}


MISTAKES = {
    "an empty prompt": ({"prompt": " "}, "prompt", "is empty"),
    "an empty prompt by token": ({"prompt": "", "unit": "token"}, "prompt", "is empty"),
    "one word": ({"prompt": "fails"}, "prompt", "one component"),
    "one token": ({"prompt": "x", "unit": "token"}, "prompt", "one component"),
    "an unused delimiter": ({"delimiter": ","}, "delimiter", "the unit is word"),
    "unused spans": ({"spans": "[[0, 1]]", "unit": "token"}, "spans", "the unit is token"),
    "a template without the prompt": ({"template": "Review:"}, "template", "{prompt}"),
    "a template with the prompt twice": ({"template": "{prompt} {prompt}"}, "template", "once"),
    "a template that asks without a question": ({"template": "{prompt} {question}"}, "question", "is missing"),
    "an empty question": ({"question": " "}, "question", "is empty"),
    "a chat with a model that has no template": ({"chat": True}, "chat", "no chat template"),
    "an empty target": ({"target": ""}, "target", "no token of the model"),
    "an empty foil": ({"foil": ""}, "foil", "no token of the model"),
    "a foil that is the target": ({"target": " not", "foil": " not"}, "foil", "equal to the target"),
    "several tokens for a logit": ({"target": " positive no", "value": "logit"}, "target", "use value logprob"),
    "several tokens for a difference": ({"target": " not", "foil": " positive no", "value": "logit_diff"}, "foil", "use value logprob_diff"),
    "a difference without a foil": ({"foil": None, "value": "logit_diff"}, "foil", "is missing"),
    "a class of a language model": ({"value": "class_logit"}, "value", "sequence classifiers"),
    "no mask token": ({"ablation": "mask"}, "ablation", "use ablation replace"),
    "no replacement": ({"ablation": "replace"}, "replacement", "is needed"),
    "an unused replacement": ({"replacement": "x"}, "replacement", "the ablation is remove"),
    "a prompt longer than the context": ({"prompt": "word " * 300}, "prompt", "the model reads 256"),
    "a target longer than the context": ({"target": " no" * 260, "foil": None}, "prompt", "the model reads 256"),
    "a class that is not there": ({"model": "bert-classifier", "target": "great", "foil": None}, "target", "use one of bad, fine, good"),
    "equal classes": ({"model": "bert-classifier", "target": "good", "foil": "2"}, "foil", "equal to the target"),
    "a text value of a classifier": ({"model": "bert-classifier", "target": "good", "value": "logprob_mean"}, "value", "causal language models"),
    "hidden tokens without positions": ({"model": "bloom", "ablation": "attention"}, "ablation", "use ablation remove"),
    "an unknown device": ({"device": "abacus"}, "device", "is not available"),
    "an unknown model": ({"model": "nobody/no-such-model"}, "model", "is not a local folder"),
    "a name that is none": ({"model": "no such model!"}, "model", "is neither a local folder nor a valid model id"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_in_one_line_that_names_the_field(models, mistake):
    options, field, words = MISTAKES[mistake]
    given = {"prompt": "Her acting never fails", "target": " not", "foil": "!", "model": "llama", **options}
    given["model"] = models.get(given["model"], given["model"])
    if given["model"] == models["bert-classifier"]:
        given.setdefault("foil", None)
    with pytest.raises(UserError) as caught:
        build_game(FeatureLens(**given))
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"model: .* holds neither config\.json nor adapter_config\.json"):
        build_game(FeatureLens(model=str(tmp_path), prompt="a b"))


def test_a_model_that_fails_in_its_own_forward_pass_is_one_line(tmp_path):
    lens = FeatureLens(model=save("nystromformer-classifier", tmp_path), prompt="her acting never fails", dtype="float32", device="cpu")
    with pytest.raises(
        EvaluationError, match=r"cannot read an input of .* tokens: NystromformerForSequenceClassification fails in its own forward pass"
    ) as caught:
        build_game(lens)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_loaded_without_being_allowed(tmp_path):
    folder = tmp_path / "pickled"
    save("llama", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model: .* pickled weights.*allow_pickle"):
        build_game(FeatureLens(model=str(folder), prompt="a b"))


ROWS = [{"prompt": f"the film {i}", "completion": f"was {word}", "topic": "a"} for i, word in enumerate(["not", "bad", "good", "long", "yes", "no"])]
QUERY = [{"prompt": "the ending", "completion": "was good"}]
DATA_MISTAKES = {
    "a classifier": ({"model": "bert-classifier"}, "model", "use a causal language model"),
    "a column that is not there": ({"columns": "completion=said"}, "columns", "its columns are prompt, completion, topic"),
    "a group that is not there": ({"group_by": "colour"}, "group_by", "its columns are prompt, completion, topic"),
    "groups that are one": ({"group_by": "topic"}, "group_by", "all examples into one component"),
    "more components than examples": ({"components": 7}, "components", "more than the 6 examples"),
    "a chat with a model that has no template": ({"chat": True}, "chat", "no chat template"),
    "a template without the prompt": ({"template": "Q:"}, "template", "{prompt}"),
    "nothing left of any prompt": ({"max_tokens": 3}, "max_tokens", "leaves nothing of any example's prompt"),
    "a module that is not there": ({"target_modules": "q_proj,no_proj"}, "target_modules", "no_proj"),
    "a layer that is not there": ({"adapted_layers": "7"}, "adapted_layers", "7"),
    "more layers than there are": ({"adapted_layers": "last:9"}, "adapted_layers", "last:2"),
    "a margin without a foil": ({"value": "margin"}, "value", "foil"),
    "labels that are not there": ({"value": "class_margin"}, "value", "labels"),
}


@pytest.mark.parametrize("mistake", DATA_MISTAKES)
def test_a_mistake_with_a_training_set_is_reported_in_one_line_that_names_the_field(models, tmp_path, mistake):
    options, field, words = DATA_MISTAKES[mistake]
    for name, rows in (("train", ROWS), ("queries", QUERY)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"train": str(tmp_path / "train.jsonl"), "queries": str(tmp_path / "queries.jsonl"), "adapted_layers": "last:1", "model": "llama", **options}
    with pytest.raises(UserError) as caught:
        build_game(DataLens(**{**given, "model": models[given["model"]]}))
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
