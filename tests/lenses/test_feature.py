"""The feature lens on tiny models: masks become the inputs a person would have typed, and values are those of plain forward passes."""

import itertools

import numpy as np
import pytest
import torch
from tiny_models import save

import raysp
from raysp.errors import EvaluationError
from raysp.lenses import build_game
from raysp.models.resident import resident
from raysp.specs.lenses import FeatureLens

PROMPT = "Her acting never fails, film"
TEMPLATE = "Review: {prompt}\nSentiment:"
ABLATIONS = ("remove", "mask", "replace", "attention", "zero", "mean")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    kinds = ("llama", "gpt2", "bert-classifier", "llama-classifier")
    folder = tmp_path_factory.mktemp("models")
    made = {kind: save(kind, folder / kind, masks=True) for kind in kinds}
    return {**made, "begins": save("llama", folder / "begins", begins=True), "bloom": save("bloom", folder / "bloom")}


def lens(models, kind="llama", **options):
    given = {"prompt": PROMPT, "template": TEMPLATE, "target": " not", "foil": "!", "dtype": "float32", "device": "cpu", **options}
    if given.get("ablation") == "replace":
        given.setdefault("replacement", "...")
    return FeatureLens(model=models[kind], **given)


def everything(n):
    return np.array(list(itertools.product([False, True], repeat=n)))


def score_alone(game, masks):
    """Values by one plain forward pass an input."""
    inputs = game.answers.inputs(game.parts.source.contexts(masks))
    return game.answers.values(game.model.score(inputs, "alone"))


@pytest.mark.parametrize("value", ["logit", "logit_diff", "logprob", "logprob_mean", "logprob_diff", "loss"])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_and_value_equals_plain_forward_passes(models, ablation, value):
    several = {"target": " positive and", "foil": "! no"} if value.startswith("logprob") or value == "loss" else {}
    game = build_game(lens(models, ablation=ablation, value=value, **several))
    assert game.method == "packed"
    masks = everything(game.n)
    assert np.abs(game.evaluate(masks) - score_alone(game, masks)).max() < 1e-4


@pytest.mark.parametrize("unit", ["token", "word", "sentence"])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_unit_can_be_ablated_in_every_way(models, ablation, unit):
    game = build_game(lens(models, "gpt2", unit=unit, ablation=ablation, prompt="The film. Was bad!"))
    masks = np.random.default_rng(0).random((12, game.n)) < 0.5
    assert np.abs(game.evaluate(masks) - score_alone(game, masks)).max() < 1e-4


def test_values_are_what_their_names_say(models):
    model = resident(lens(models))
    tokenizer = model.loaded.tokenizer
    text = "Review: Her acting never fails, film\nSentiment:"
    context, target, foil = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, " positive no", "! yes"))

    def logprobs(answer):
        with torch.no_grad():
            logits = model.loaded.model(torch.tensor([context + answer])).logits[0].double().log_softmax(-1)
        return np.array([float(logits[len(context) - 1 + i, token]) for i, token in enumerate(answer)])

    expected = {
        "logprob": logprobs(target).sum(),
        "logprob_mean": logprobs(target).mean(),
        "loss": -logprobs(target).mean(),
        "logprob_diff": logprobs(target).sum() - logprobs(foil).sum(),
    }
    for value, number in expected.items():
        game = build_game(lens(models, value=value, target=" positive no", foil="! yes"))
        assert game.evaluate(np.ones((1, game.n), bool))[0] == pytest.approx(number, abs=1e-4)


def test_removed_words_read_as_what_a_person_would_have_typed(models):
    game = build_game(lens(models))
    tokenizer = game.model.loaded.tokenizer
    for mask in everything(game.n):
        kept = " ".join(itertools.compress(PROMPT.split(), mask))
        ids, positions, _ = game.parts.source.contexts(mask[None])[0]
        assert ids.tolist() == tokenizer(f"Review: {kept}\nSentiment:")["input_ids"]
        assert positions.tolist() == list(range(len(ids)))


def test_removed_tokens_are_dropped_from_the_tokens_of_the_whole(models):
    game = build_game(lens(models, unit="token", prompt="never  fails\nfilm"))
    whole = game.model.loaded.tokenizer("Review: never  fails\nfilm\nSentiment:")["input_ids"]
    assert "".join(c.label if not c.label.startswith("'") else eval(c.label) for c in game.components).replace(" ", "") == "neverfails\nfilm"
    for gone in range(game.n):
        mask = np.ones((1, game.n), bool)
        mask[0, gone] = False
        ids = game.parts.source.contexts(mask)[0][0].tolist()
        assert len(ids) == len(whole) - 1
        assert any(ids == whole[:i] + whole[i + 1 :] for i in range(len(whole)))


def test_a_token_belongs_to_the_word_of_its_first_visible_character(models):
    game = build_game(lens(models, ablation="attention", prompt="Her acting, never"))
    source = game.parts.source
    tokenizer = game.model.loaded.tokenizer
    for component in game.components:
        text = tokenizer.decode(source.ids[source.owner == component.index])
        assert text.strip() == component.label
        assert component.size == int((source.owner == component.index).sum())
    fixed = tokenizer.decode(source.ids[source.owner < 0])
    assert "".join(fixed.split()) == "Review:Sentiment:"


def test_attention_ablation_equals_the_models_own_attention_mask(models):
    game = build_game(lens(models, ablation="attention", value="logit", foil=None))
    source, mask = game.parts.source, np.array([[True, False, True, False, True]])
    visible = np.append(mask[0], True)[source.owner].astype(int)
    with torch.no_grad():
        ids = torch.from_numpy(source.ids)[None]
        logits = game.model.loaded.model(ids, attention_mask=torch.from_numpy(visible)[None], position_ids=torch.arange(len(visible))[None]).logits
    assert game.evaluate(mask)[0] == pytest.approx(float(logits[0, -1, game.answers.target_ids[0]]), abs=1e-4)


def test_zero_and_mean_put_those_vectors_in_place(models):
    for ablation in ("zero", "mean"):
        game = build_game(lens(models, ablation=ablation, value="logit", foil=None))
        source, mask = game.parts.source, np.array([[True, False, True, True, True]])
        table = game.model.loaded.model.get_input_embeddings()
        embedded = table(torch.from_numpy(source.ids)).detach().clone()
        embedded[torch.from_numpy(source.owner == 1)] = 0 if ablation == "zero" else table.weight.mean(0)
        with torch.no_grad():
            logits = game.model.loaded.model(inputs_embeds=embedded[None]).logits
        assert game.evaluate(mask)[0] == pytest.approx(float(logits[0, -1, game.answers.target_ids[0]]), abs=1e-4)


def test_special_tokens_are_the_tokenizers_own_and_stand_at_the_front_only(models):
    game = build_game(lens(models, "begins", target=" positive no", foil=None))
    for mask in everything(game.n)[::7]:
        ids = game.parts.source.contexts(mask[None])[0][0]
        assert (ids == 0).tolist() == [True] + [False] * (len(ids) - 1)
    assert 0 not in game.answers.target_ids


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("unit", ["word", "token"])
def test_an_input_with_everything_removed_has_a_value(models, ablation, unit):
    game = build_game(lens(models, ablation=ablation, unit=unit, template="{prompt}", **({"replacement": ""} if ablation == "replace" else {})))
    assert np.isfinite(game.evaluate(np.zeros((1, game.n), bool))).all()


def test_equal_inputs_are_computed_once_and_have_one_value(models):
    game = build_game(lens(models, prompt="bad bad bad bad"))
    masks = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], bool)
    first = game.measure(masks[:1])
    assert first.tokens > 0
    rest = game.measure(masks)
    assert rest.tokens == 0
    assert rest.values.tolist() == [first.values[0]] * 3


def test_values_do_not_depend_on_the_requests_before(models):
    masks = everything(5)
    one, two = build_game(lens(models)), build_game(lens(models))
    two.evaluate(masks[20:])
    assert np.array_equal(one.evaluate(masks[:20]), two.evaluate(masks[:20])) or np.allclose(one.evaluate(masks[:20]), two.evaluate(masks[:20]), atol=1e-5)


def test_a_value_that_is_no_number_is_an_error_that_names_the_mask(models, tmp_path):
    broken = lens({"llama": save("llama", tmp_path / "broken", masks=True)})
    game = build_game(broken)
    word = game.parts.source.contexts(np.eye(game.n, dtype=bool)[2:3])[0][0]
    with torch.no_grad():
        game.model.loaded.model.get_input_embeddings().weight[word[2]] = torch.nan
    masks = np.ones((2, game.n), bool)
    masks[1, 0] = False
    with pytest.raises(EvaluationError, match=r"non-finite values.*components \["):
        game.evaluate(masks)


def test_without_a_target_it_is_the_models_greedy_answer(models):
    game = build_game(lens(models, target=None, foil=None, max_new_tokens=3))
    model, tokenizer = game.model.loaded.model, game.model.loaded.tokenizer
    ids = torch.tensor([tokenizer("Review: Her acting never fails, film\nSentiment:")["input_ids"]])
    for token in game.answers.target_ids:
        assert token == int(model(ids).logits[0, -1].argmax())
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    assert game.answers.value == "logprob"
    assert "greedy" in " ".join(game.info.notes)


@pytest.mark.parametrize(
    ("target", "foil", "value"),
    [(" not", "!", "logit_diff"), (" positive no", "!", "logprob_diff"), (" not", None, "logprob")],
)
def test_the_value_follows_from_target_and_foil(models, target, foil, value):
    assert build_game(lens(models, target=target, foil=foil)).info.description["value"] == value


@pytest.mark.parametrize("kind", ["bert-classifier", "llama-classifier"])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_a_classifier_has_its_class_logit(models, kind, ablation):
    game = build_game(lens(models, kind, target="good", foil=None, ablation=ablation))
    assert game.info.description["value"] == "class_logit"
    masks = everything(game.n)
    assert np.abs(game.evaluate(masks) - score_alone(game, masks)).max() < 1e-4


def test_classes_go_by_name_or_number_and_the_predicted_one_is_the_default(models):
    by_name, by_number = (build_game(lens(models, "bert-classifier", target=target, foil="bad")) for target in ("Good", "2"))
    assert by_name.info.fingerprint == by_number.info.fingerprint
    assert by_name.info.description["value"] == "logit_diff"
    mask = np.ones((1, by_name.n), bool)
    logits = [build_game(lens(models, "bert-classifier", target=str(i), foil=None)).evaluate(mask)[0] for i in range(3)]
    assert build_game(lens(models, "bert-classifier", target=None, foil=None)).answers.target_ids == (int(np.argmax(logits)),)
    assert by_name.evaluate(mask)[0] == pytest.approx(logits[2] - logits[0], abs=1e-5)


def test_a_question_follows_the_prompt_or_stands_where_the_template_says(models):
    ask = {"question": "Was it good?"}
    assert build_game(lens(models, **ask)).info.description["input"] == "Review: Her acting never fails, film\nWas it good?\nSentiment:"
    game = build_game(lens(models, template="Q: {question} {prompt}", **ask))
    assert game.info.description["input"] == "Q: Was it good? Her acting never fails, film"


def test_braces_in_a_prompt_are_text(models):
    game = build_game(lens(models, prompt="the {question} and {prompt}", question="Why?"))
    assert game.info.description["input"] == "Review: the {question} and {prompt}\nWhy?\nSentiment:"


CHAT = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] | trim }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"


def test_a_chat_template_is_fixed_text_with_its_own_special_tokens(models, tmp_path):
    folder = save("llama", tmp_path / "chat", begins=True)
    (tmp_path / "chat" / "chat_template.jinja").write_text(CHAT)
    for template in ("{prompt}", " {prompt} \nOK?"):
        for ablation in ("remove", "zero"):
            game = build_game(lens({"llama": folder}, chat=True, template=template, ablation=ablation))
            text = f"<s>user\n{template.format(prompt=PROMPT).strip()}</s>\n<s>assistant\n"
            assert game.info.description["input"] == text
            ids = game.parts.source.contexts(np.ones((1, game.n), bool))[0][0]
            assert ids.tolist() == game.model.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    source = game.parts.source
    decode = game.model.loaded.tokenizer.decode
    assert [decode(source.ids[source.owner == i]).strip() for i in range(game.n)] == PROMPT.split()


def test_the_fingerprint_is_of_what_values_depend_on(models, tmp_path):
    base = build_game(lens(models)).info.fingerprint
    assert build_game(lens({"llama": save("llama", tmp_path / "copy", masks=True)})).info.fingerprint == base
    changes = [{"prompt": PROMPT + "!"}, {"target": "."}, {"ablation": "zero"}, {"value": "logit"}, {"unit": "token"}, {"template": "{prompt}"}]
    changed = [build_game(lens(models, **change)).info.fingerprint for change in changes]
    assert len({base, *changed}) == len(changes) + 1


def test_a_model_that_cannot_be_packed_gives_the_same_values_and_says_so(models):
    game = build_game(lens(models, "bloom"))
    assert game.method != "packed"
    assert "packed scoring is not used" in " ".join(game.info.notes)
    masks = everything(game.n)
    assert np.abs(game.evaluate(masks) - score_alone(game, masks)).max() < 1e-4


def test_what_a_person_sees_is_there(models):
    info = build_game(lens(models)).info
    assert [c.label for c in info.components] == PROMPT.split()
    assert all(info.source[c.start : c.stop] == c.label for c in info.components)
    assert {"target", "foil", "value", "input", "dtype", "weights"} <= set(info.description)
    assert "float32 on cpu" in info.notes[0]
    assert info.batch_masks >= 16


def test_a_run_in_this_process_computes_with_the_threads_it_is_given(models):
    before = torch.get_num_threads()
    try:
        raysp.run(raysp.RunSpec(lens=lens(models, "gpt2"), explorer=raysp.Exhaustive(), local=True, threads=before + 1))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
