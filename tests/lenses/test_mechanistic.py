"""The mechanistic lens on tiny models: its prompts, what replaces ablated parts, what the value is, and what its gradients are."""

import json
import re

import numpy as np
import pytest
import torch
from tiny_models import save

from raysp.datasets.tasks import TASKS, make
from raysp.errors import UserError
from raysp.lenses import build_game
from raysp.specs.lenses import MechanisticLens

PROMPT = "Her acting never fails, the film was long"
OTHER = "Her ending never fails, the film was long"
ROWS = [
    {"prompt": PROMPT, "target": " not", "foil": "!", "counterfactual": OTHER},
    {"prompt": "Review: The movie was bad", "target": " yes", "foil": " no", "counterfactual": "Review: The movie not bad"},
    {"prompt": OTHER, "target": " film", "foil": " was", "counterfactual": PROMPT},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: save(kind, folder / kind) for kind in ("llama", "gpt2", "bert-classifier")}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return str(path)


def jsonl(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def lens(models, kind="llama", **options):
    given = {"prompt": PROMPT, "target": " not", "foil": "!", "dtype": "float32", "device": "cpu", **options}
    if "prompts" in options or "task" in options:
        given = {name: value for name, value in given.items() if name not in ("prompt", "target", "foil")}
    return MechanisticLens(model=models[kind], **given)


def some_masks(game, m=12, keep=0.6):
    return np.random.default_rng(0).random((m, game.n)) < keep


def by_hand(game, mask, ids, change):
    """Logits of one plain forward pass in which `change(layer, channels, kept)` edits what the projection behind the heads reads."""
    model, handles = game.model.loaded.model, []
    blocks = model.model.layers if hasattr(model, "model") else model.transformer.h
    for layer, block in enumerate(blocks):
        projection = block.self_attn.o_proj if hasattr(block, "self_attn") else block.attn.c_proj
        kept = torch.from_numpy(mask.reshape(len(blocks), -1)[layer])

        def hook(module, inputs, layer=layer, kept=kept):
            width = inputs[0].shape[-1] // len(kept)
            return (change(layer, inputs[0].clone(), kept.repeat_interleave(width)),)

        handles.append(projection.register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            return model(input_ids=torch.as_tensor(ids)[None], use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


def margins(game, masks, change):
    answer, ids = game.reading.answers[0], game.reading.contexts[0][0]
    logits = [by_hand(game, mask, ids, change)[-1] for mask in masks]
    return np.array([float(one[answer.target_ids[0]] - one[answer.foil_ids[0]]) for one in logits])


def recorded(game, ids):
    """What the projections behind the heads read in a plain run, by layer, `(length, channels)`."""
    seen = {}

    def note(layer, channels, kept):
        seen[layer] = channels[0]
        return channels

    by_hand(game, np.ones(game.n, dtype=bool), ids, note)
    return seen


# ---- what takes the place of what is left out


def test_zero(models):
    game = build_game(lens(models))
    assert np.abs(game.evaluate(masks := some_masks(game)) - margins(game, masks, lambda _, x, kept: x * kept)).max() < 1e-4


def test_zero_rescale_scales_up_what_stays_of_a_layer(models):
    game = build_game(lens(models, ablation="zero-rescale"))
    masks = some_masks(game)
    masks[0] = False
    expected = margins(game, masks, lambda _, x, kept: x * kept * len(kept) / max(int(kept.sum()), 1))
    assert np.abs(game.evaluate(masks) - expected).max() < 1e-4


def test_clamp(models):
    game = build_game(lens(models, ablation="clamp", clamp=0.25))
    masks = some_masks(game)
    assert np.abs(game.evaluate(masks) - margins(game, masks, lambda _, x, kept: torch.where(kept, x, 0.25))).max() < 1e-4


def test_mean_over_positions_of_reference_prompts(models, tmp_path):
    texts = ["The film was long", "A quiet letter arrived on Monday"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    game = build_game(lens(models, ablation="mean", references=str(tmp_path / "texts.txt")))
    tokenizer, masks = game.model.loaded.tokenizer, some_masks(game)
    runs = [recorded(game, tokenizer(text)["input_ids"]) for text in texts]
    means = {layer: torch.cat([run[layer] for run in runs]).mean(dim=0) for layer in runs[0]}
    expected = margins(game, masks, lambda layer, x, kept: torch.where(kept, x, means[layer]))
    assert np.abs(game.evaluate(masks) - expected).max() < 1e-4


def test_patch_puts_the_counterfactuals_activations_in_place(models):
    game = build_game(lens(models, ablation="patch", counterfactual=OTHER))
    masks = some_masks(game)
    there = recorded(game, game.model.loaded.tokenizer(OTHER)["input_ids"])
    expected = margins(game, masks, lambda layer, x, kept: torch.where(kept, x, there[layer]))
    assert np.abs(game.evaluate(masks) - expected).max() < 1e-4


def test_resample_draws_one_reference_a_mask_and_always_the_same(models, tmp_path):
    texts = [OTHER, "Her acting never fails, but film was long", "The film was long"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    game = build_game(lens(models, ablation="resample", references=str(tmp_path / "texts.txt")))
    tokenizer, masks = game.model.loaded.tokenizer, some_masks(game, 30)
    same_length = [text for text in texts if len(tokenizer(text)["input_ids"]) == len(game.reading.contexts[0][0])]
    assert len(same_length) == 2
    ways = []
    for text in same_length:
        there = recorded(game, tokenizer(text)["input_ids"])
        ways.append(margins(game, masks, lambda layer, x, kept, there=there: torch.where(kept, x, there[layer])))
    apart = np.abs(np.stack(ways) - game.evaluate(masks))
    assert (apart.min(axis=0) < 1e-4).all()
    assert set(apart.argmin(axis=0)) == {0, 1}
    assert np.abs(game.evaluate(masks[::-1])[::-1] - game.evaluate(masks)).max() < 1e-5


def test_target_and_foil_of_a_prompt_draw_the_same_reference_and_all_are_drawn_alike(models, tmp_path):
    texts = [PROMPT, OTHER, "Her acting never fails, but film was long", "Her film never fails, the acting was long"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    game = build_game(lens(models, target=" not bad yes", foil=" was", value="logprob_diff", ablation="resample", references=str(tmp_path / "texts.txt")))
    assert len(game.reading.groups) == 2
    picks = np.arange(3000) * 7919
    taken = [[int(i) for i in group.taken(np.zeros(len(picks), dtype=np.int64), picks)] for group in game.reading.groups]
    orders = [group.choices[0].tolist() for group in game.reading.groups]
    places = [[order.index(one) for one in each] for order, each in zip(orders, taken, strict=True)]
    assert places[0] == places[1]
    assert np.bincount(places[0]).tolist() == [1000, 1000, 1000]


@pytest.mark.parametrize(("positions", "at"), [("last", [-1]), ("0,3,-2", [0, 3, -2])])
def test_positions(models, positions, at):
    game = build_game(lens(models, positions=positions))
    masks = some_masks(game)

    def change(_, x, kept):
        x[:, at] = x[:, at] * kept
        return x

    assert np.abs(game.evaluate(masks) - margins(game, masks, change)).max() < 1e-4


# ---- values


def test_values_of_one_prompt(models):
    games = {value: build_game(lens(models, value=value)) for value in ("logit", "logprob", "loss", "kl", "accuracy")}
    masks = some_masks(games["logit"])
    game = games["logit"]
    answer, ids = game.reading.answers[0], game.reading.contexts[0][0]
    last = torch.stack([by_hand(game, mask, ids, lambda _, x, kept: x * kept)[-1] for mask in [np.ones(game.n, dtype=bool), *masks]])
    logs, token = torch.log_softmax(last.double(), dim=-1), answer.target_ids[0]
    expected = {
        "logit": last[1:, token],
        "logprob": logs[1:, token],
        "loss": -logs[1:, token],
        "kl": (logs[0].exp() * (logs[0] - logs[1:])).sum(dim=-1),
        "accuracy": (last[1:, token] > last[1:, game_foil(games["accuracy"])]).double(),
    }
    for value, found in games.items():
        assert np.abs(found.evaluate(masks) - expected[value].numpy()).max() < 1e-4, value
    assert games["kl"].evaluate(np.ones((1, game.n), dtype=bool))[0] == pytest.approx(0, abs=1e-6)


def game_foil(game):
    return game.reading.answers[0].foil_ids[0]


def test_answers_of_several_tokens_are_forced(models):
    game = build_game(lens(models, target=" not bad", foil=" was long", value="logprob_diff"))
    mask = some_masks(game, 1)[0]
    expected = 0.0
    for sign, tokens in ((1, game.reading.answers[0].target_ids), (-1, game.reading.answers[0].foil_ids)):
        ids = np.concatenate([game.reading.contexts[0][0], tokens])
        logs = torch.log_softmax(by_hand(game, mask, ids, lambda _, x, kept: x * kept).double(), dim=-1)
        expected += sign * sum(float(logs[len(ids) - len(tokens) - 1 + i, token]) for i, token in enumerate(tokens))
    assert game.evaluate(mask[None])[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("value", [None, "loss", "accuracy", "kl"])
def test_a_prompt_set_is_the_mean_of_its_prompts(models, rows, value):
    game = build_game(lens(models, prompts=rows, value=value))
    masks = some_masks(game)
    each = []
    for row in ROWS:
        told = {name: row[name] for name in ("prompt", "target", "foil")}
        each.append(build_game(lens(models, **told, value=value)).evaluate(masks))
    assert np.abs(game.evaluate(masks) - np.mean(each, axis=0)).max() < 1e-5


def test_accuracy_without_foils_is_that_the_target_is_the_most_probable(models, tmp_path):
    plain = build_game(lens(models))
    masks, tokenizer, ids = some_masks(plain, 40), plain.model.loaded.tokenizer, plain.reading.contexts[0][0]
    best = [int(by_hand(plain, mask, ids, lambda _, x, kept: x * kept)[-1].argmax()) for mask in masks]
    targets = [token for token in dict.fromkeys(best) if tokenizer(tokenizer.decode([token]))["input_ids"] == [token]][:2]
    assert len(targets) == 2
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": PROMPT, "target": tokenizer.decode([token])}) for token in targets))
    game = build_game(lens(models, prompts=str(tmp_path / "rows.jsonl"), value="accuracy"))
    assert game.evaluate(masks).tolist() == [0.5 * (token in targets) for token in best]


def test_a_classifier_has_heads_too(models):
    game = build_game(lens(models, "bert-classifier", target="good", foil="bad"))
    values = game.evaluate(some_masks(game))
    assert np.ptp(values) > 0
    assert game.info.description["value"] == "logit_diff"


# ---- gradients


def finite_differences(game, step=1e-2):
    gates = np.ones((1, game.n))
    from raysp.lenses.gate_gradients import slopes

    def value(at):
        return slopes(game.mask_tree, game.reading, at)[0][0]

    return np.array([(value(gates + step * unit) - value(gates - step * unit)) / (2 * step) for unit in np.eye(game.n)[:, None, :]])


@pytest.mark.parametrize(
    "options", [{}, {"value": "logprob"}, {"ablation": "zero-rescale"}, {"ablation": "patch", "counterfactual": OTHER}, {"components": "heads,mlp,blocks"}]
)
def test_attribution_patching_is_the_gradient_on_the_gates(models, options):
    game = build_game(lens(models, **options))
    found = game.gradient_report().singles("attribution_patching")
    assert np.abs(found - finite_differences(game)).max() < 2e-2 * max(1.0, np.abs(found).max())


def test_values_at_gates_are_the_games_values(models, rows):
    from raysp.lenses.gate_gradients import slopes

    for game in (build_game(lens(models)), build_game(lens(models, prompts=rows, value="kl")), build_game(lens(models, prompts=rows, value="loss"))):
        masks = some_masks(game)
        assert np.abs(slopes(game.mask_tree, game.reading, masks.astype(float))[0] - game.evaluate(masks)).max() < 1e-4


def test_integrated_gates_add_up_to_the_whole_way(models):
    game = build_game(lens(models, components="heads:1"))
    ends = game.evaluate(np.array([[True] * game.n, [False] * game.n]))
    assert game.gradient_report().singles("integrated_gates").sum() == pytest.approx(ends[0] - ends[1], rel=0.1, abs=0.05)


def test_the_second_order_estimate_has_singles_exactly_and_ranks_pairs(models):
    from scipy.stats import spearmanr

    game = build_game(lens(models))
    estimate = game.gradient_report(2).surrogate(2)
    singles = np.concatenate([np.ones((1, game.n), dtype=bool), ~np.eye(game.n, dtype=bool)])
    assert np.abs(estimate.predict(singles) - game.evaluate(singles)).max() < 1e-4
    first, second = np.triu_indices(game.n, 1)
    pairs = np.ones((len(first), game.n), dtype=bool)
    pairs[np.arange(len(first)), first] = pairs[np.arange(len(first)), second] = False
    deviations = []
    for value in (estimate.predict, game.evaluate):
        alone = value(singles)[1:]
        deviations.append(value(pairs) - alone[first] - alone[second])
    assert spearmanr(*deviations).statistic > 0.4  # no more than an estimate, but one of pairs
    assert game.gradient_report(2).surrogate(1).sets.max_order == 1


# ---- tasks


def one_token_a_word(text):
    return len(text.split())


@pytest.mark.parametrize("task", TASKS)
def test_prompts_and_counterfactuals_are_as_many_tokens(task):
    """Even where a year that holds a 3 takes a token more."""

    def count(text):
        return len(text.split()) + text.count("3")

    questions = make(task, 30, 0, count)
    assert all(count(question.prompt) == count(question.counterfactual) for question in questions)
    assert any("3" in question.prompt for question in questions) == (task == "greater-than")


def test_a_task_without_counterfactuals_of_the_same_length_is_none_for_this_model():
    with pytest.raises(UserError, match="task: 'greater-than' has no counterfactual with as many tokens"):
        make("greater-than", 4, 0, lambda text: 10 + (re.search("1[1-8]0[1-9]", text) is not None))


def test_more_prompts_than_a_task_has_are_too_many():
    few = {" France", " Paris", " Italy", " Rome", " Japan", " Tokyo", " Spain", " Madrid"}
    with pytest.raises(UserError, match=r"task_size: 13 is more than the 12 prompts of task facts .*; give at most 12"):
        make("facts", 13, 0, lambda text: 1 if text in few or len(text) > 20 else 2)


@pytest.mark.parametrize("task", TASKS)
def test_tasks_are_the_same_for_a_seed_and_have_targets_foils_and_counterfactuals(task):
    questions = make(task, 50, 3, one_token_a_word)
    assert questions == make(task, 50, 3, one_token_a_word)
    assert questions != make(task, 50, 4, one_token_a_word)
    assert len({question.prompt for question in questions}) == 50
    for question in questions:
        assert question.target not in (None, question.foil)
        assert question.counterfactual not in (None, question.prompt)


def test_the_indirect_object_is_named_once_and_the_giver_twice():
    for question in make("ioi", 30, 0, one_token_a_word):
        assert question.prompt.count(question.target.strip()) == 1
        assert question.prompt.count(question.foil.strip()) == 2
        assert question.counterfactual.count(question.foil.strip()) == 1


def test_induction_repeats_the_word_before_the_target():
    for question in make("induction", 30, 0, one_token_a_word):
        words = question.prompt.split()
        assert words[words.index(words[-1]) + 1] == question.target.strip()


# ---- bad input


@pytest.mark.parametrize(
    ("options", "field", "says"),
    [
        ({"components": "head:0-1,tails"}, "components", "names nothing"),
        ({"components": "heads:5"}, "components", "layers 0 to 1"),
        ({"components": "heads:0/7"}, "components", "heads 0 to 5 in layer 0"),
        ({"components": "neurons:0/0-99"}, "components", "neurons 0 to 63 in layer 0"),
        ({"components": "heads:0/1"}, "components", "at least two are needed"),
        ({"components": "mlp/3"}, "components", "have none"),
        ({"components": "neurons:0/0-15,neurons:0/8-23", "group": 16}, "components", "twice"),
        ({"layers": "1-4"}, "layers", "layers 0 to 1"),
        ({"layers": "x"}, "layers", "not a range"),
        ({"group": 4}, "group", "neurons"),
        ({"positions": "55"}, "positions", "tokens"),
        ({"positions": "x"}, "positions", "not a list"),
        ({"ablation": "clamp"}, "clamp", "needed"),
        ({"clamp": 1.0}, "clamp", "is given"),
        ({"ablation": "clamp", "clamp": 1e38, "dtype": "float16"}, "clamp", "not a number that activations in float16"),
        ({"template": "{question} {prompt}"}, "template", "has no question"),
        ({"ablation": "patch"}, "counterfactual", "needed"),
        ({"ablation": "patch", "counterfactual": "short"}, "counterfactual", "tokens"),
        ({"ablation": "patch", "counterfactual": PROMPT}, "counterfactual", "the prompt itself"),
        ({"ablation": "mean"}, "references", "needed"),
        ({"ablation": "mean", "references": "nowhere.txt"}, "references", "cannot be read"),
        ({"references": "nowhere.txt"}, "references", "does not use them"),
        ({"prompt": " "}, "prompt", "empty"),
        ({"prompt": ""}, "prompt", "nothing is given"),
        ({"prompts": "nowhere.jsonl"}, "prompts", "does not exist"),
        ({"task": "ioi", "target": "x"}, "target", "has its own"),
        ({"task": "facts"}, "task", "single-token words"),
        ({"value": "logit_diff", "foil": None}, "foil", "missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_reported_in_a_line(models, options, field, says):
    given = {"prompt": PROMPT, "target": " not", "foil": "!", "dtype": "float32", "device": "cpu"}
    if "prompts" in options or "task" in options:
        given = {"dtype": "float32", "device": "cpu"}
    with pytest.raises(UserError) as caught:
        build_game(MechanisticLens(model=models["llama"], **{**given, **options}))
    assert field in caught.value.field
    assert says in str(caught.value)


def test_resampling_needs_references_of_the_same_length(models, tmp_path):
    (tmp_path / "texts.txt").write_text("short\nshort too")
    with pytest.raises(UserError, match=r"references.*tokens"):
        build_game(lens(models, ablation="resample", references=str(tmp_path / "texts.txt")))


def test_a_task_that_the_model_cannot_do_is_doubted_before_anything_is_paid_for(models, rows):
    assert "no better than chance" in build_game(lens(models, prompts=rows)).info.warnings[0]


def test_few_prompts_of_which_all_are_answered_right_are_no_reason_for_doubt(models, tmp_path):
    both = [dict(row) for row in ROWS[:3]]
    build = lambda rows: build_game(lens(models, prompts=jsonl(tmp_path / "few.jsonl", rows)))  # noqa: E731
    intact = build(both).by_prompt(np.ones((1, build(both).n), bool))[0]
    right = [row if value > 0 else row | {"target": row["foil"], "foil": row["target"]} for row, value in zip(both, intact, strict=True)]
    assert build(right).info.warnings == ()
    wrong = [right[0] | {"target": right[0]["foil"], "foil": right[0]["target"]}, *right[1:]]
    assert "2 of these 3 prompts, no better than chance" in build(wrong).info.warnings[0]


def test_remarks_on_many_prompts_are_a_few(models, tmp_path):
    many = [{"prompt": f"{PROMPT} {i} {'very ' * (i % 3)}"} for i in range(14)]
    notes = build_game(lens(models, prompts=jsonl(tmp_path / "many.jsonl", many), max_new_tokens=3)).info.notes
    assert len(notes) == 10  # the model, eight remarks, and how many more there are
    assert re.fullmatch(r"… and \d more notes like these on other prompts", notes[-1])


def test_a_target_that_a_divergence_does_not_use_is_reported(models):
    assert any("not used by value kl" in note for note in build_game(lens(models, value="kl")).info.notes)


def test_a_task_without_so_many_questions_says_so_at_once():
    known = {" Rome", " Italy", " Paris", " France", " Tokyo", " Japan", " Berlin", " Germany", " Oslo", " Norway"}
    with pytest.raises(UserError, match="give at most 20"):
        make("facts", 10**6, 0, lambda text: 1 if text in known or len(text) > 20 else 2)


def test_another_way_to_write_the_same_question_is_the_same_game(models, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": PROMPT, "target": " not", "foil": "!"}) + "\n")
    given = ({}, {"components": "heads:all"}, {"components": "heads:0-1"}, {"layers": "0,1"}, {"prompts": str(tmp_path / "rows.jsonl"), "value": "logit_diff"})
    assert len({build_game(lens(models, **options, **({} if "value" in options else {"value": "logit_diff"}))).info.fingerprint for options in given}) == 1
    assert build_game(lens(models, positions="last")).info.fingerprint == build_game(lens(models, positions="-1")).info.fingerprint


def test_a_model_whose_blocks_are_told_more_is_refused(tmp_path):
    """BLOOM's are told each row's own position bias."""
    with pytest.raises(UserError, match="cannot be run block by block"):
        build_game(MechanisticLens(model=save("bloom", tmp_path), prompt=PROMPT, target=" not", foil="!", dtype="float32", device="cpu"))


def test_a_divergence_needs_no_answer(models):
    game = build_game(lens(models, target=None, foil=None, value="kl"))
    assert not [note for note in game.info.notes if "target" in note]


def test_what_a_value_depends_on_is_in_the_fingerprint(models):
    names = [
        build_game(lens(models, **options)).info.fingerprint
        for options in (
            {},
            {"ablation": "zero-rescale"},
            {"positions": "last"},
            {"components": "heads:1"},
            {"value": "logit"},
            {"ablation": "clamp", "clamp": 1.0},
        )
    ]
    assert len(set(names)) == len(names)


def test_each_layer_of_a_hybrid_has_its_own_number_of_heads(tmp_path):
    """Four heads by the configuration; the layer of linear attention has eight, of which taking the first away takes eight channels."""
    folder = save("hybrid", tmp_path / "hybrid")
    game = build_game(MechanisticLens(model=folder, prompt=PROMPT, target=" not", value="logit", components="heads", dtype="float32", device="cpu"))
    assert [component.label for component in game.components] == [*(f"L0H{head}" for head in range(8)), *(f"L1H{head}" for head in range(4))]
    assert game.info.description["heads"] == 8
    model, ids = game.model.loaded.model, game.reading.contexts[0][0]
    projections = {0: model.model.layers[0].linear_attn.out_proj, 1: model.model.layers[1].self_attn.o_proj}
    for component, width in zip(game.components, [8] * 8 + [16] * 4, strict=True):

        def without(module, inputs, component=component, width=width):
            changed = inputs[0].clone()
            changed[..., component.unit * width : (component.unit + 1) * width] = 0
            return (changed,)

        handle = projections[component.layer].register_forward_pre_hook(without)
        with torch.no_grad():
            own = model(input_ids=torch.from_numpy(ids)[None]).logits[0, -1, game.reading.answers[0].target_ids[0]]
        handle.remove()
        mask = np.arange(game.n) != component.index
        assert game.evaluate(mask[None])[0] == pytest.approx(float(own), abs=1e-4)
