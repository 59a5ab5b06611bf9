"""Where an answer begins is one rule for all lenses: the tokens of the whole text behind what they share with those of the prompt alone. Float32."""

import json

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, save, sentence_piece_tokenizer

from raysp.lenses import build_game
from raysp.models.loading import load
from raysp.specs.lenses import DataLens, FeatureLens, MechanisticLens, ModelOptions

CHAT = "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}"
PROMPT = "Her acting never fails"
ON_CPU = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, tokenizer in (("sentence-piece", sentence_piece_tokenizer()), ("byte", byte_tokenizer())):
        tokenizer.chat_template = CHAT
        save("llama", folder / name, tokenizer=tokenizer)
    return folder


def own_logprob(folder, prompt, answer, *, special):
    """The log-probability of an answer in a few lines of torch and transformers, and its tokens."""
    loaded = load(ModelOptions(model=str(folder), **ON_CPU))
    alone, whole = (loaded.tokenizer(text, add_special_tokens=special)["input_ids"] for text in (prompt, prompt + answer))
    shared = next((i for i, (one, other) in enumerate(zip(alone, whole, strict=False)) if one != other), min(len(alone), len(whole)))
    with torch.no_grad():
        scored = loaded.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return float(sum(scored[place - 1, whole[place]] for place in range(shared, len(whole)))), loaded.tokenizer.convert_ids_to_tokens(whole[shared:])


def values_of_the_lenses(folder, tmp_path, **options):
    """The value with nothing removed of the feature and the mechanistic lens, and of the data lens with nothing trained on, which is the model as it came."""
    asked = {"model": str(folder), **ON_CPU, **options}
    prompt, answer = asked.pop("prompt"), asked.pop("target")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": f"{prompt}{blank}", "completion": answer}) for blank in ("", " so", " not")))
    query = tmp_path / "query.jsonl"
    query.write_text(json.dumps({"prompt": prompt, "completion": answer}))
    feature = build_game(FeatureLens(**asked, prompt=prompt, target=answer, value="logprob"))
    mechanistic = build_game(MechanisticLens(**asked, prompt=prompt, target=answer, value="logprob"))
    data = build_game(DataLens(**asked, train=str(rows), queries=str(query), value="logprob", adapted_layers="last:1"))
    intact = [game.evaluate(np.ones((1, game.n), bool))[0] for game in (feature, mechanistic)]
    return [*intact, data.evaluate(np.zeros((1, data.n), bool))[0]]


def test_behind_a_chat_template_that_ends_in_a_newline_no_lens_puts_a_blank_before_the_answer(folders, tmp_path):
    folder = folders / "sentence-piece"
    own, tokens = own_logprob(folder, f"[user]\n{PROMPT}\n[assistant]\n", "Paris", special=False)
    assert "".join(tokens) == "Paris"
    assert len(tokens) > 1
    np.testing.assert_allclose(values_of_the_lenses(folder, tmp_path, prompt=PROMPT, target="Paris", chat=True), own, atol=1e-4)


@pytest.mark.parametrize("kind", ["sentence-piece", "byte"])
@pytest.mark.parametrize("template", ["{prompt} Answer: ", "{prompt}\n", "{prompt}:"])
def test_a_blank_that_ends_a_prompt_belongs_to_the_token_that_it_is_part_of(folders, tmp_path, kind, template):
    answer = " not" if template.endswith(":") else "not"
    own, _ = own_logprob(folders / kind, template.format(prompt=PROMPT), answer, special=True)
    np.testing.assert_allclose(values_of_the_lenses(folders / kind, tmp_path, prompt=PROMPT, target=answer, template=template), own, atol=1e-4)


@pytest.mark.parametrize("unit", ["word", "token"])
@pytest.mark.parametrize("ablation", ["remove", "attention", "zero"])
def test_every_mask_is_read_up_to_where_the_answer_begins(folders, unit, ablation):
    """The blank that ends the template is part of the answer ` not`, whichever parts of the prompt are kept."""
    game = build_game(FeatureLens(model=str(folders / "byte"), **ON_CPU, prompt=PROMPT, template="{prompt} is ", target="not", unit=unit, ablation=ablation))
    tokenizer, model = game.model.loaded.tokenizer, game.model.loaded.model
    assert tokenizer.decode(game.answers.target_ids) == " not"
    masks = np.random.default_rng(0).random((6, game.n)) < 0.5
    for mask, value in zip(masks, game.evaluate(masks), strict=True):
        ids, positions, _ = game.parts.source.contexts(mask[None])[0]
        assert tokenizer.decode(ids[-1:]) == " "
        if ablation == "zero":
            continue
        whole, places = np.append(ids[:-1], game.answers.target_ids), np.append(positions, positions[-1] + np.arange(1, len(game.answers.target_ids)))
        with torch.no_grad():
            scored = model(torch.from_numpy(whole)[None], position_ids=torch.from_numpy(places)[None]).logits[0].double().log_softmax(-1)
        own = sum(scored[place - 1, whole[place]] for place in range(len(ids) - 1, len(whole)))
        assert value == pytest.approx(float(own), abs=1e-4)


def test_target_and_foil_share_one_beginning(folders):
    """`not` takes over the blank before it, and so the foil's tokens begin there too."""
    game = build_game(FeatureLens(model=str(folders / "byte"), **ON_CPU, prompt=PROMPT, template="{prompt} is ", target="not", foil="\n"))
    decode = game.model.loaded.tokenizer.decode
    assert (decode(game.answers.target_ids), decode(game.answers.foil_ids)) == (" not", " \n")


def test_a_prompt_that_the_answer_swallows_is_the_token_that_begins_a_text(folders, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": " ", "completion": word}) for word in ("not", "bad", "good")))
    game = build_game(DataLens(model=str(folders / "byte"), **ON_CPU, train=str(rows), query_count=1, adapted_layers="last:1"))
    tokenizer = game.model.loaded.tokenizer
    for text in (*game.trainer.texts, *game.trainer.evaluated):
        assert (text.first, int(text.ids[0])) == (1, tokenizer.bos_token_id)
        assert tokenizer.decode(text.ids[1:], skip_special_tokens=True) in {" not", " bad", " good"}
