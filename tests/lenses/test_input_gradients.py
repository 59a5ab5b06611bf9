"""Gradients and attentions beside exact ablations: equal to their definitions on tiny models, however they are computed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import save, sentence_piece_tokenizer

import raysp
from raysp.gradients import GradientReport
from raysp.lenses import build_game
from raysp.lenses.input_gradients import AttentionGates, input_gradients
from raysp.models.attention import rollout
from raysp.runs.local import local_backend
from raysp.runs.plan import plan_run
from raysp.specs.lenses import FeatureLens

PROMPT = "Her acting  never fails,\nfilm"
TEMPLATE = "Review: {prompt}\nSentiment:"
KINDS = ("llama", "gpt2", "neox", "bloom", "bert-classifier", "llama-classifier")
SEVERAL = {"target": " positive and", "foil": "! no", "value": "logprob_diff"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: save(kind, folder / kind, begins=kind == "neox") for kind in KINDS}


def lens(models, kind="llama", **options):
    answers = {"target": "good", "foil": "bad"} if kind.endswith("classifier") else {"target": " not", "foil": "!"}
    return FeatureLens(model=models[kind], **{"prompt": PROMPT, "template": TEMPLATE, "dtype": "float32", "device": "cpu", **answers, **options})


def owners(game):
    return game.parts.source.owners()


def by_hand(game, rows):
    """The value by the definition, of vectors in the place of one input's tokens, `(length, width)`; answers' tokens follow as they are."""
    model, answers = game.model.loaded.model, game.answers
    if answers.task == "classifier":
        logits = model(inputs_embeds=rows[None]).logits[0]
        return logits[answers.target_ids[0]] - logits[answers.foil_ids[0]]
    total = 0.0
    for sign, ids in ((1, answers.target_ids), (-1, answers.foil_ids)):
        behind = model.get_input_embeddings()(torch.tensor(ids[:-1], dtype=torch.long))
        logits = model(inputs_embeds=torch.cat([rows, behind])[None]).logits[0, len(rows) - 1 :]
        scores = logits.log_softmax(-1) if answers.needs_logprobs else logits
        total = total + sign * sum(scores[i, token] for i, token in enumerate(ids))
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"unit": "token"}, SEVERAL], ids=["word", "token", "several"])
def test_gradient_times_input_is_autograd_by_hand(models, kind, options):
    if kind.endswith("classifier") and options is SEVERAL:
        options = {"unit": "word", "ablation": "zero"}
    game = build_game(lens(models, kind, **options))
    ids, owner = owners(game)
    rows = game.model.loaded.model.get_input_embeddings()(torch.tensor(ids)).detach().requires_grad_()
    value = by_hand(game, rows)
    value.backward()
    products = (rows.grad * rows).sum(-1).detach().numpy()
    found = input_gradients(game.answered)
    assert found.intact == pytest.approx(value.item(), abs=1e-4)
    assert found.at_input == pytest.approx([products[owner == i].sum() for i in range(game.n)], abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, SEVERAL], ids=["single", "several"])
def test_integrated_gradients_add_up_to_what_zeroing_every_component_costs(models, kind, options):
    options = {} if kind.endswith("classifier") else options
    game = build_game(lens(models, kind, ablation="zero", unit="token", **options))
    ends = game.evaluate(np.array([[True] * game.n, [False] * game.n]))
    fine, usual = input_gradients(game.answered, steps=[400]), input_gradients(game.answered)
    assert fine.integrated.sum() == pytest.approx(ends[0] - ends[1], abs=2e-3)
    assert fine.missing == pytest.approx(0, abs=2e-3)
    assert usual.integrated.sum() + usual.missing == pytest.approx(ends[0] - ends[1], abs=2e-4)
    assert abs(usual.missing) < 0.05 * np.abs(usual.integrated).sum()
    assert usual.integrated == pytest.approx(fine.integrated, abs=0.1 * np.abs(fine.integrated).max())


def test_batches_are_single_passes(models):
    game = build_game(lens(models, **SEVERAL))
    one, many = input_gradients(game.answered, budget=1), input_gradients(game.answered, budget=10_000)
    assert one.at_input == pytest.approx(many.at_input, abs=1e-4)
    assert one.integrated == pytest.approx(many.integrated, abs=1e-4)


def test_a_model_that_adds_vectors_up_is_explained_exactly(models):
    game = build_game(lens(models, "llama-classifier", ablation="zero"))
    model = game.model.loaded.model
    layers, norm = model.model.layers, model.model.norm
    try:
        model.model.layers, model.model.norm = torch.nn.ModuleList(), Sums()
        game._known.clear()
        game.root.layers.clear()
        masks = np.concatenate([np.ones((1, game.n), bool), ~np.eye(game.n, dtype=bool)])
        values = game.evaluate(masks)
        found = input_gradients(game.answered)
        assert found.integrated == pytest.approx(values[0] - values[1:], abs=1e-4)
        assert found.at_input == pytest.approx(found.integrated, abs=1e-4)
        report = GradientReport({"integrated": found.integrated[None]}, leading="integrated", intact=found.intact)
        assert report.surrogate().predict(masks) == pytest.approx(values, abs=1e-3)
    finally:
        model.model.layers, model.model.norm = layers, norm


class Sums(torch.nn.Module):
    """Puts the sum of all vectors at every position."""

    def forward(self, hidden):
        return hidden.sum(1, keepdim=True).expand_as(hidden)


def gated(game, gates):
    """The value by the definition where others attend to each component's tokens as much as its gate (`(n,)`) is open; answers' tokens have no gate."""
    model, answers = game.model.loaded.model, game.answers
    ids, owner = owners(game)
    total = 0.0
    for sign, answer in ((1, answers.target_ids), (-1, answers.foil_ids)):
        whole = np.concatenate([ids, answer[:-1]]).astype(np.int64)
        of = np.concatenate([owner, np.full(len(whole) - len(ids), -1)])
        opened = np.where((of >= 0) & (of[:, None] != of), np.append(gates, 1.0)[of], 1.0)
        if "bert" not in model.config.model_type:
            opened = np.tril(opened)
        with np.errstate(divide="ignore"):
            mask = torch.from_numpy(np.log(opened)).to(model.dtype)[None, None]
        logits = model(torch.from_numpy(whole)[None], attention_mask=mask).logits[0]
        if answers.task == "classifier":
            return (logits[answers.target_ids[0]] - logits[answers.foil_ids[0]]).item()
        scores = logits[len(ids) - 1 :].log_softmax(-1) if answers.needs_logprobs else logits[len(ids) - 1 :]
        total += sign * sum(scores[i, token].item() for i, token in enumerate(answer))
    return total


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bloom"])
@pytest.mark.parametrize("options", [{}, {"unit": "token"}, SEVERAL], ids=["word", "token", "several"])
def test_attention_gates_are_finite_differences_of_gates_by_hand(models, kind, options):
    options = {} if kind.endswith("classifier") else options
    game = build_game(lens(models, kind, **options))
    found = AttentionGates.of(game.answered)
    assert found.intact == pytest.approx(gated(game, np.ones(game.n)), abs=1e-4)
    step = 0.02
    by_hand = [(gated(game, 1 + step * row) - gated(game, 1 - step * row)) / (2 * step) for row in np.eye(game.n)]
    assert found.slopes == pytest.approx(by_hand, abs=0.002)
    assert np.abs(found.slopes).max() > 0.02


def test_a_closed_gate_is_the_ablation_attention(models):
    game = build_game(lens(models, ablation="attention", **SEVERAL))
    masks = np.concatenate([~np.eye(game.n, dtype=bool), np.random.default_rng(0).random((4, game.n)) < 0.5])
    assert game.evaluate(masks) == pytest.approx([gated(game, row.astype(float)) for row in masks], abs=1e-4)


@pytest.mark.parametrize("prompt", [PROMPT, "Her acting "])
def test_a_space_that_the_answer_takes_with_it_is_no_part_of_the_context(tmp_path, prompt):
    folder = save("llama", tmp_path / "model", tokenizer=sentence_piece_tokenizer())
    template = "Review: {prompt}\nSentiment: " if prompt == PROMPT else "{prompt}"
    options = {"template": template, "foil": None, "value": "logprob", "prompt": prompt, "unit": "word" if prompt == PROMPT else "token"}
    game = build_game(lens({"llama": folder}, target="not", **options))
    assert len(game.answers.merged) == 1
    intact = game.evaluate(np.ones((1, game.n), bool))[0]
    report = game.gradient_report()
    assert report.effects.keys() == {"attention_gates", "gradient_x_input", "integrated_gradients", "attention_rollout"}
    assert report.intact == pytest.approx(intact, abs=1e-4)
    _, tokens, owner = game.answered.read()
    ids, before = owners(game)
    assert tokens.tolist() == ids[:-1].tolist()
    reach = rollout(game.model, ids[:-1])
    assert report.singles("attention_rollout") == pytest.approx([reach[before[:-1] == i].sum() for i in range(game.n)], abs=1e-6)
    assert len(owner) == len(tokens)
    nothing = replace(game.answered, answers=replace(game.answers, merged=tuple(ids.tolist())))
    assert [part.tolist() for part in nothing.read()[1:]] == [[game.answers.begins], [-1]]


def test_slopes_of_a_mask_have_closed_gates(models):
    game = build_game(lens(models, **SEVERAL))
    masks = np.array([[True] * game.n, [True, False, True, True, False]])
    found, step = game.gate_slopes(masks), 0.02
    assert found[0] == pytest.approx(AttentionGates.of(game.answered).slopes)
    for i in np.flatnonzero(masks[1]):
        ends = [gated(game, masks[1] + sign * step * np.eye(game.n)[i]) for sign in (1, -1)]
        assert found[1, i] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=0.002)
    assert found[1][~masks[1]].tolist() == [0.0, 0.0]
    assert found[1] != pytest.approx(found[0] * masks[1], abs=0.01)
    with pytest.raises(ValueError, match="attention gates: this architecture"):
        build_game(lens(models, "bloom")).gate_slopes(masks)


def test_removals_by_slopes_are_measured_and_are_the_best_singles_if_all_are_tried(models):
    game = build_game(lens(models, **SEVERAL))
    for mode, sign in (("decrease", -1), ("increase", 1)):
        table = raysp.greedy_removals(game, 3, mode, tries=game.n)
        removed = table["components"].to_pylist()
        assert [len(row) for row in removed] == table["r"].to_pylist() == [1, 2, 3]
        assert table["evaluations"].to_pylist() == [5, 4, 3]
        masks = np.ones((4, game.n), bool)
        for mask, row in zip(masks[1:], removed, strict=True):
            mask[row] = False
        values = game.evaluate(masks)
        assert table["value"].to_pylist() == pytest.approx(values[1:])
        assert table["change"].to_pylist() == pytest.approx(sign * (values[1:] - values[0]))
        slopes = [game.gate_slopes(mask[None])[0, row[-1]] for mask, row in zip(masks, removed, strict=False)]
        assert table["predicted"].to_pylist() == pytest.approx(values[:3] - slopes)
        singles = game.evaluate(~np.eye(game.n, dtype=bool))
        assert values[1] == pytest.approx(sign * (sign * singles).max())
    assert raysp.greedy_removals(game, 9, tries=1)["r"].to_pylist() == [1, 2, 3, 4, 5]
    with pytest.raises(raysp.UserError, match="tries"):
        raysp.greedy_removals(game, tries=0)
    with pytest.raises(raysp.UserError, match="mode: 'change' is not known"):
        raysp.greedy_removals(game, mode="change")


def test_gates_that_memory_cannot_hold_are_left_out(models, monkeypatch, tmp_path):
    game = build_game(lens(models, **SEVERAL))
    tokens = len(owners(game)[0]) + len(game.answers.target_ids) - 1
    config = game.model.loaded.model.config
    kept = 2 * 4 * config.num_hidden_layers * config.num_attention_heads * tokens**2
    monkeypatch.setattr("raysp.models.memory.MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemAvailable: {(kept - 1) // 1024} kB\n")
    assert any(f"attention gates of {tokens} tokens do not fit into memory" in note for note in game.gradient_report(0).notes)
    (tmp_path / "meminfo").write_text(f"MemAvailable: {kept // 1024 + 1} kB\n")
    assert AttentionGates.of(game.answered).slopes.any()


def test_priors_alone_are_attention_gates_and_take_one_pass(models):
    game = build_game(lens(models))
    quick, whole = game.gradient_report(0), game.gradient_report(1)
    assert list(quick.effects) == ["attention_gates"] == list(quick.priors) == list(whole.priors)
    assert quick.max_order == 0
    assert whole.leading == quick.leading == "attention_gates"
    np.testing.assert_array_equal(quick.prior_effects(), whole.prior_effects())
    assert game.gradient_report(0) is whole


def test_an_architecture_without_attention_masks_has_no_attention_gates(models):
    found = build_game(lens(models, "bloom")).gradient_report()
    assert found.leading == "integrated_gradients"
    assert found.priors == ()
    assert any("attention gates are left out: this architecture" in note for note in found.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_rollout_is_the_product_of_the_layers(models, kind):
    game = build_game(lens(models, kind))
    before = game.model.loaded.model.config._attn_implementation
    ids, owner = owners(game)
    found = rollout(game.model, ids)
    assert game.model.loaded.model.config._attn_implementation == before
    model = game.model.loaded.model
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            layers = model(torch.tensor(ids)[None], output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)
    product = np.eye(len(ids))
    for layer in layers:
        product = (0.5 * layer[0].mean(0).double().numpy() + 0.5 * np.eye(len(ids))) @ product
    row = product[0 if kind == "bert-classifier" else -1]
    assert found == pytest.approx(row, abs=1e-6)
    assert found.sum() == pytest.approx(1.0, abs=1e-6)
    assert game.gradient_report().singles("attention_rollout") == pytest.approx([row[owner == i].sum() for i in range(game.n)], abs=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert-classifier"])
def test_scoring_is_as_before_once_attributions_were_asked_for(models, kind):
    game, again = build_game(lens(models, kind)), build_game(lens(models, kind))
    masks = np.random.default_rng(0).random((8, game.n)) < 0.5
    before = game.evaluate(masks)
    game.gradient_report()
    assert np.array_equal(again.evaluate(masks), before)


@pytest.mark.parametrize("unit", ["word", "sentence", "token"])
def test_tokens_are_those_of_the_prompt_with_nothing_removed(models, unit):
    game = build_game(lens(models, unit=unit, prompt="The  film. Was\n\nbad! Really"))
    ids, owner = owners(game)
    assert ids.tolist() == game.parts.source.contexts(np.ones((1, game.n), bool))[0][0].tolist()
    tokenizer = game.model.loaded.tokenizer
    for component in game.components if unit != "token" else ():
        assert " ".join(tokenizer.decode(ids[owner == component.index]).split()) == component.label
    assert "".join(tokenizer.decode(ids[owner < 0]).split()) == "Review:Sentiment:"


def test_a_tokenizer_that_cannot_say_what_a_token_covers_leaves_them_out(models, monkeypatch):
    game = build_game(lens(models))
    monkeypatch.setattr(type(game.model.loaded.tokenizer), "is_fast", False)
    found = game.gradient_report()
    assert not found.effects
    assert len(found.notes) == 3
    assert all("which characters" in note for note in found.notes)
    assert found.surrogate() is None


def test_a_model_without_attentions_or_vectors_has_a_note_for_each(models, monkeypatch):
    game = build_game(lens(models))
    plain = type(game.model.loaded.model).forward

    def forward(self, input_ids, **options):
        """An architecture that knows neither `inputs_embeds` nor `output_attentions`, and takes no mask of two dimensions."""
        if getattr(options.get("attention_mask"), "ndim", 2) != 2:
            raise ValueError("attention_mask")
        return plain(self, input_ids, **{name: given for name, given in options.items() if name != "output_attentions"})

    monkeypatch.setattr(type(game.model.loaded.model), "forward", forward)
    found = game.gradient_report()
    assert not found.effects
    assert "mask of which token" in found.notes[0]
    assert "vectors" in found.notes[1]
    assert "attentions" in found.notes[2]


def test_gradients_are_had_of_a_model_in_bfloat16(models):
    half, full = (input_gradients(build_game(lens(models, dtype=dtype)).answered) for dtype in ("bfloat16", "float32"))
    assert np.corrcoef(half.at_input, full.at_input)[0, 1] > 0.95


# ---- whole runs


def question(models, explorer, **options):
    return raysp.RunSpec(
        lens=lens(models, ablation="zero", prompt="Her acting never fails to impress, but the film was long"), explorer=explorer, seed=1, local=True, **options
    )


def test_a_cross_check_stands_beside_the_answer(models):
    result = raysp.run(question(models, raysp.ProxySPEX(budget=200), cross_check=True))
    checks = result.summary["metrics"]["cross_checks"]
    assert set(checks) == {"attention_gates", "gradient_x_input", "integrated_gradients", "attention_rollout"}
    assert set(result.singles["method"].to_pylist()) == {"removed"}
    effects = result.singles["value"].to_numpy()
    game = result.summary["spec"]["lens"]
    assert game["ablation"] == "zero"
    for method, told in checks.items():
        rows = [row for row in result.cross_checks.to_pylist() if row["method"] == method]
        values = np.array([row["value"] for row in rows])
        assert [row["label"] for row in rows] == result.components["label"].to_pylist()
        truth = np.abs(effects) if method == "attention_rollout" else effects
        ranks = [np.argsort(np.argsort(each)) for each in (truth, values)]
        assert told["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
        top = [set(np.argsort(-np.abs(each))[:5].tolist()) for each in (truth, values)]
        assert told["top"] == len(top[0] & top[1]) / 5
    assert {figures["method"]: figures["spearman"] for figures in cross_checked(result)} == {method: told["spearman"] for method, told in checks.items()}


def cross_checked(result):
    return [reason["figures"] for reason in result.summary["reasons"] if reason["code"] == "cross_check"]


def test_without_a_cross_check_none_is_made(models):
    result = raysp.run(question(models, raysp.ProxySPEX(budget=64)))
    assert result.cross_checks.num_rows == 0
    assert "cross_checks" not in result.summary["metrics"]


def test_the_gradient_proxy_runs_and_is_checked(models):
    result = raysp.run(question(models, raysp.ProxySPEX(budget=40, proxy="gradient")))
    assert result.summary["status"] == "done"
    assert set(result.singles["method"].to_pylist()) == {"surrogate"}
    assert {figures["source"] for figures in cross_checked(result)} == {"surrogate"}
    assert result.cross_checks.num_rows == 4 * 11


def test_few_evaluations_start_from_attention_gates_and_many_do_not(models):
    few, many = (raysp.run(question(models, raysp.ProxySPEX(budget=budget), cross_check=True)) for budget in (33, 200))
    told = ["by the model's gradients were tried as a prior" in " ".join(result.events["message"].to_pylist()) for result in (few, many)]
    assert told == [True, False]
    # What was asked for as a prior is no reason to leave out the other methods.
    assert few.cross_checks.num_rows == many.cross_checks.num_rows == 4 * 11


def test_gradient_scores_rank_what_the_screen_measures(models):
    spec = question(models, raysp.Screen(top_k=4, scores="gradient"))
    result, game = raysp.run(spec), build_game(spec.lens)
    strongest = np.argsort(-np.abs(AttentionGates.of(game.answered).slopes), kind="stable")[:4]
    assert result.summary["diagnostics"]["kept"] == sorted(strongest.tolist())
    assert {row["component"] for row in result.singles.to_pylist() if row["method"] == "removed"} == set(strongest.tolist())
    assert {row["method"] for row in result.singles.to_pylist()} == {"removed", "gradient"}
    assert all(row["verified"] for row in result.interactions.to_pylist())
    assert {(figures["source"], figures["compared"]) for figures in cross_checked(result)} == {("some_removed", 4)}


def test_an_interrupted_run_estimates_again_and_equals_an_undisturbed_one(models):
    spec = question(models, raysp.ProxySPEX(budget=150, proxy="gradient", adaptive=True))
    spec = spec.model_copy(update={"lens": spec.lens.model_copy(update={"prompt": f"{spec.lens.prompt} anyway"})})

    def interrupt(progress):
        if progress.phase == "explore" and progress.done > 20:
            raise KeyboardInterrupt

    with pytest.raises(raysp.InterruptedRunError, match="raysp resume broken"):
        raysp.run(spec, run_id="broken", watch=interrupt)
    resumed = raysp.run(spec, run_id="broken")
    whole = raysp.run(spec, run_id="whole")
    assert sum(resumed.costs["reused"].to_pylist()) > 0
    assert resumed.interactions.equals(whole.interactions)
    assert resumed.summary["metrics"]["cross_checks"] == whole.summary["metrics"]["cross_checks"]
    assert resumed.cross_checks.equals(whole.cross_checks)


def test_a_plan_knows_what_gradients_save(models, tmp_path):
    def plan(explorer):
        spec = question(models, explorer)
        return plan_run(spec, store, local_backend(spec.lens))

    with raysp.Store.open(tmp_path / "s.duckdb") as store:
        planned = {scores: plan(raysp.Screen(top_k=3, scores=scores)) for scores in ("gradient", None)}
        by_gradients = plan(raysp.ProxySPEX(budget=40, proxy="gradient"))
    explore = {scores: plan["this_run"]["explore_evaluations"] for scores, plan in planned.items()}
    assert explore["gradient"] < explore[None]
    assert by_gradients["this_run"]["explorer"] == "proxyspex"
