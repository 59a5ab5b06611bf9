"""Labels tell components apart in every lens: equal pieces carry their place, tokens of bytes their part of the character."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import save

import raysp
from raysp.errors import UserError
from raysp.game import distinct_labels
from raysp.lenses import build_game
from raysp.specs.lenses import DataLens, FeatureLens


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("llama"))


def labels(game):
    return [component.label for component in game.components]


def feature(llama, prompt, unit, **options):
    return build_game(FeatureLens(model=llama, prompt=prompt, unit=unit, target=" yes", dtype="float32", device="cpu", **options))


@given(st.lists(st.sampled_from(["a", "b", "a ①", "a ② ①", "c"]), max_size=9) | st.integers(1, 60).map(lambda count: ["x"] * count))
def test_any_labels_become_distinct_and_single_ones_stay(given_labels):
    found = distinct_labels(given_labels)
    assert len(set(found)) == len(found) == len(given_labels)
    assert all(label.startswith(given) for label, given in zip(found, given_labels, strict=True))
    if len(set(given_labels)) == len(given_labels):
        assert list(found) == given_labels


def test_a_repeated_sentence_carries_its_place(llama):
    assert labels(feature(llama, "The dog jumps. A cat. The dog jumps.", "sentence")) == ["The dog jumps. ①", "A cat.", "The dog jumps. ②"]
    assert labels(feature(llama, "no no yes no", "word")) == ["no ①", "no ②", "yes", "no ③"]
    assert distinct_labels(["x"] * 51)[19:21] == ("x ⑳", "x ㉑")
    assert distinct_labels(["x"] * 51)[50] == "x (51)"


def test_tokens_of_bytes_are_labelled_by_their_part_of_the_character(llama):
    game = feature(llama, "😂 é 😂", "token")
    assert labels(game)[:4] == ["😂 1/4 ①", "😂 2/4 ①", "😂 3/4 ①", "😂 4/4 ①"]
    assert len(set(labels(game))) == game.n


@pytest.mark.parametrize("ablation", ["remove", "attention", "zero"])
def test_the_tokens_of_a_character_may_be_one_component(llama, ablation):
    apart = feature(llama, "😂 is 好", "token", ablation=ablation)
    whole = feature(llama, "😂 is 好", "token", ablation=ablation, whole_characters=True)
    assert labels(whole)[0] == "😂"
    assert sum(component.size for component in whole.components) == apart.n
    assert whole.n < apart.n
    assert whole.info.fingerprint != apart.info.fingerprint
    owner = np.repeat(np.arange(whole.n), [component.size for component in whole.components])
    masks = np.random.default_rng(0).random((8, whole.n)) < 0.5
    assert whole.evaluate(masks) == pytest.approx(apart.evaluate(masks[:, owner]), abs=1e-6)


def test_whole_characters_are_about_tokens(llama):
    with pytest.raises(UserError, match="whole_characters: True is given, but the unit is word; set unit to token"):
        feature(llama, "one two", "word", whole_characters=True)


def test_repeated_examples_and_queries_carry_their_place(llama, tmp_path):
    rows = [{"prompt": "The film was", "completion": "good"}] * 2 + [{"prompt": "The film was", "completion": "bad"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = str(tmp_path / "rows.jsonl")
    game = build_game(DataLens(model=llama, train=path, queries=path, dtype="float32", device="cpu", adapted_layers="last:1"))
    expected = ["The film was → good ①", "The film was → good ②", "The film was → bad"]
    assert labels(game) == expected
    assert [query.label for query in game.info.queries] == expected


def test_repeated_labels_of_a_function_carry_their_place():
    game = build_game(raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=3, labels=("a", "b", "a")))
    assert labels(game) == ["a ①", "b", "a ②"]
