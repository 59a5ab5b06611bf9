"""A prompt in pieces before anything is measured, and the answers from which to choose."""

import pytest
import torch
from tiny_models import save

from raysp.errors import UserError
from raysp.lenses import build_game
from raysp.lenses.preview import OFFERED, preview
from raysp.models.resident import resident
from raysp.specs.lenses import FeatureLens


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("preview") / "tiny", begins=True)


@pytest.mark.parametrize("unit", ["word", "token", "sentence"])
def test_the_pieces_are_those_of_the_game(model, unit):
    lens = FeatureLens(prompt="A good film.  It is not bad! See it", model=model, unit=unit, target=" good", dtype="float32")
    found, game = preview(lens), build_game(lens)
    assert [(each["label"], each["start"], each["stop"]) for each in found["components"]] == [
        (each.label, each.start, each.stop) for each in game.info.components
    ]
    assert found["source"] == lens.prompt
    assert found["input"] == game.info.description["input"]


def test_the_answers_are_the_most_probable_next_tokens_in_float32(model):
    lens = FeatureLens(prompt="A good film", template="Review: {prompt}\nSentiment:", model=model, dtype="float32")
    found = preview(lens)["answers"]
    loaded = resident(lens).loaded
    ids = loaded.tokenizer("Review: A good film\nSentiment:", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = loaded.model(ids).logits[0, -1].double().softmax(-1).sort(descending=True)
    assert len(found) == OFFERED
    assert [each["text"] for each in found] == [loaded.tokenizer.decode([token]) for token in expected.indices[:OFFERED].tolist()]
    assert [each["probability"] for each in found] == pytest.approx(expected.values[:OFFERED].tolist(), rel=1e-5)


def test_a_classifier_offers_its_classes(tmp_path):
    lens = FeatureLens(prompt="A good film", model=save("llama-classifier", tmp_path / "tiny"), dtype="float32")
    found = preview(lens)["answers"]
    assert sum(each["probability"] for each in found) == pytest.approx(1.0)
    assert len({each["text"] for each in found}) == len(found) > 1


def test_what_the_lens_cannot_do_is_one_line(model):
    with pytest.raises(UserError, match="prompt: ' ' is empty"):
        preview(FeatureLens(prompt=" ", model=model))
    with pytest.raises(UserError, match="template"):
        preview(FeatureLens(prompt="x y", template="no place", model=model))
