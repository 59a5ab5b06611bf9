"""The data lens: components of a training set, adapters trained on what masks keep, and what the queries are worth."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tiny_models

import raysp
from raysp.errors import UserError
from raysp.lenses import build_game
from raysp.lenses.data import INFLUENCES, _slopes, _worth
from raysp.models.reference import PlainTrainer
from raysp.models.training import Trainer
from raysp.specs.lenses import DataLens, DataValue
from raysp.validation import kind_of

FILMS = [("the acting never fails", "good"), ("the ending was bad", "bad"), ("a quiet letter", "good"), ("the film was long", "bad")]
RECIPE = {"dtype": "float32", "adapted_layers": "last:1", "batch_size": 4, "learning_rate": 1e-2, "epochs": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_models.save(kind, folder / kind) for kind in ("llama", "window", "bert-classifier")}


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def pairs(tmp_path):
    """Twelve examples in three topics, and two queries with foils."""
    rows = [{"prompt": f"{text} {i}", "completion": answer, "topic": f"t{i % 3}"} for i in range(3) for text, answer in FILMS]
    asked = [{"prompt": "the acting was long", "completion": "good", "foil": "bad"}, {"prompt": "a bad film", "completion": "bad ending", "foil": "good"}]
    return {"train": write(tmp_path / "train.jsonl", rows), "queries": write(tmp_path / "queries.jsonl", asked)}


def lens(models, pairs, **options):
    return DataLens(**({"model": models["llama"], **RECIPE, **pairs} | options))


def random_masks(n, count, seed=0):
    return np.random.default_rng(seed).random((count, n)) < 0.5


def logprobs(game, masks, texts):
    """Sums of log-probabilities by the plain way, float64 `(m, texts)`."""
    trainer = game.trainer
    plain = PlainTrainer(trainer.model, trainer.device, trainer.recipe, trainer.texts, texts)
    return plain.evaluate([game.examples_of(mask) for mask in masks], [0] * len(masks))


def test_a_mask_is_worth_what_peft_makes_of_the_examples_that_it_keeps(models, pairs):
    game = build_game(lens(models, pairs))
    assert isinstance(game.trainer, Trainer)
    masks = random_masks(game.n, 3)
    scored = logprobs(game, masks, game.trainer.evaluated)[..., 0]
    measured = game.measure(masks)
    np.testing.assert_allclose(measured.outputs, scored[:, ::2] - scored[:, 1::2], atol=1e-4)
    np.testing.assert_allclose(measured.values, measured.outputs.mean(axis=1))
    assert measured.tokens > 0


@pytest.mark.parametrize("value", ["logprob", "logprob_mean", "prob", "loss"])
def test_values_of_a_querys_own_answer(models, pairs, value):
    game = build_game(lens(models, pairs, value=value))
    masks = random_masks(game.n, 2)
    scored = logprobs(game, masks, game.trainer.evaluated)
    sums, counts = scored[..., 0], scored[..., 1]
    expected = {"logprob": sums, "logprob_mean": sums / counts, "prob": np.exp(sums), "loss": -sums / counts}[value]
    np.testing.assert_allclose(game.measure(masks).outputs, expected, rtol=1e-3 if value == "prob" else 1e-7, atol=0 if value == "prob" else 1e-4)


@pytest.mark.parametrize("value", get_args(DataValue))
def test_slopes_are_how_worth_goes_with_the_sums(value):
    sums, step = np.array([-1.5, -2.0, -1.2]), 1e-6
    near = np.concatenate([sums[None], sums + step * np.eye(3)])
    worth = _worth(value, near, 4.0)
    np.testing.assert_allclose(_slopes(value, sums, 4.0), (worth[1:] - worth[0]) / step, atol=1e-5)


def test_labelled_texts_are_worth_their_margin_over_the_best_other_label(models, tmp_path):
    rows = [{"text": f"{text} {i}", "label": ["good", "bad", "long"][i % 3]} for i in range(9) for text, _ in FILMS[:1]]
    game = build_game(DataLens(model=models["llama"], train=write(tmp_path / "t.jsonl", rows), query_count=3, **RECIPE))
    assert game.value == "class_margin"
    masks = random_masks(game.n, 2)
    scored = logprobs(game, masks, game.trainer.evaluated)[..., 0].reshape(2, 3, 3)
    np.testing.assert_allclose(game.measure(masks).outputs, scored[..., 0] - scored[..., 1:].max(-1), atol=1e-4)


def test_nothing_kept_is_the_model_as_it_came(models, pairs):
    game = build_game(lens(models, pairs))
    empty = game.measure(np.zeros((1, game.n), bool)).outputs[0]
    own = np.array([float(game.trainer._own(text).double().sum()) for text in game.trainer.evaluated])
    np.testing.assert_allclose(empty, own[::2] - own[1::2], atol=1e-4)


def test_groups_go_together(models, pairs):
    game = build_game(lens(models, pairs, group_by="topic"))
    assert game.n == 3
    one = np.array([[True, False, False]])
    assert len(game.examples_of(one[0])) == 4
    alone = build_game(lens(models, pairs))
    np.testing.assert_allclose(game.measure(one).outputs, alone.measure(np.isin(np.arange(12), game.examples_of(one[0]))[None]).outputs, atol=1e-5)


def test_seeds_are_averaged(models, pairs):
    game = build_game(lens(models, pairs, seeds=2, training_seed=3))
    masks = random_masks(game.n, 2)
    np.testing.assert_allclose(game.measure(masks).outputs, (game.outputs_of(masks, 3) + game.outputs_of(masks, 4)) / 2)


def test_subsets_trained_together_and_apart_are_worth_the_same(models, pairs):
    game = build_game(lens(models, pairs))
    masks = random_masks(game.n, 11)
    apart = np.concatenate([game.measure(masks[i : i + 1]).outputs for i in range(11)])
    np.testing.assert_allclose(game.measure(masks).outputs, apart, atol=1e-5)


def test_the_fingerprint_is_of_all_that_values_depend_on(models, pairs, tmp_path):
    base = build_game(lens(models, pairs)).info.fingerprint
    assert build_game(lens(models, pairs)).info.fingerprint == base
    others = [{"epochs": 1}, {"training_seed": 1}, {"seeds": 2}, {"group_by": "topic"}, {"value": "logprob"}, {"template": "Film: {prompt}"}]
    found = {build_game(lens(models, pairs, **options)).info.fingerprint for options in others}
    rows = [json.loads(line) for line in Path(pairs["train"]).read_text(encoding="utf-8").splitlines()]
    rows[0]["completion"] = "long"
    found.add(build_game(lens(models, {**pairs, "train": write(tmp_path / "other.jsonl", rows)})).info.fingerprint)
    assert len(found) == 7
    assert base not in found


def test_the_description_carries_queries_and_examples(models, pairs):
    info = build_game(lens(models, pairs)).info
    assert [query.target for query in info.queries] == [" good", " bad ending"]
    assert [query.foil for query in info.queries] == [" bad", " good"]
    assert len(info.examples) == info.n == 12
    assert [example.component for example in info.examples] == list(range(12))


# ---- gradients


def test_gradients_rank_examples_as_leaving_each_out_does(models, tmp_path):
    rows = [{"prompt": f"{text} {i}", "completion": answer} for i in range(5) for text, answer in FILMS]
    train = write(tmp_path / "t.jsonl", rows)
    game = build_game(DataLens(model=models["llama"], train=train, query_count=6, **(RECIPE | {"learning_rate": 1e-3})))
    near = np.ones((game.n + 1, game.n), bool)
    near[np.arange(1, game.n + 1), np.arange(game.n)] = False
    outputs = game.measure(near).outputs
    exact = (outputs[0] - outputs[1:]).T
    for method in INFLUENCES:
        found = game.gradient_report().effects[method]
        assert found.shape == (6, game.n)
        agreement = np.mean([np.corrcoef(mine, theirs)[0, 1] for mine, theirs in zip(found, exact, strict=True)])
        assert agreement > 0.6, method
    assert list(game.gradient_report().effects) == list(INFLUENCES)
    np.testing.assert_allclose(game.gradient_report().singles("influence"), game.gradient_report().effects["influence"].mean(axis=0))


def test_the_estimate_is_of_the_mean_and_has_pairs(models, pairs):
    game = build_game(lens(models, pairs))
    whole = np.ones((1, game.n), bool)
    report = game.gradient_report(2)
    single, both = report.surrogate(1), report.surrogate(2)
    assert single.predict(whole)[0] == pytest.approx(game.measure(whole).values[0], abs=1e-4)
    effect = single.predict(whole) - single.predict(~np.eye(game.n, dtype=bool))
    np.testing.assert_allclose(effect, report.singles("influence"), rtol=1e-6)
    assert both.sets.max_order == 2


def counted(monkeypatch):
    """How often a training is watched, as only that for gradients is, and how often gradients of the training set are taken."""
    calls = {"train": 0, "gradients": 0}
    for name in calls:
        plain = getattr(Trainer, name)

        def count(trainer, *given, name=name, plain=plain):
            calls[name] += len(given) == 3 and given[2] is not None
            return plain(trainer, *given)

        monkeypatch.setattr(Trainer, name, count)
    return calls


def test_gradients_take_one_training_and_one_pass_an_epoch_and_one_at_the_end(models, pairs, monkeypatch):
    calls = counted(monkeypatch)
    game = build_game(lens(models, pairs))
    report = game.gradient_report()
    assert calls == {"train": 1, "gradients": game.lens.epochs + 1}
    assert report.max_order == 2
    for order in (1, 2):
        assert game.gradient_report(order) is report
    assert calls["train"] == 1


def test_pairs_of_many_components_are_computed_once_they_are_asked_for(models, pairs, monkeypatch):
    monkeypatch.setattr("raysp.lenses.data.MOST_PAIRED", 5)
    game = build_game(lens(models, pairs))
    assert game.gradient_report(1).pairs is None
    assert game.gradient_report(2).pairs is not None
    assert game.gradient_report(1) is game.gradient_report(2)


def test_a_data_run_trains_once_for_its_gradients_and_a_second_run_not_at_all(models, pairs, monkeypatch, tmp_path):
    calls = counted(monkeypatch)
    asked = {"lens": lens(models, pairs), "cross_check": True, "local": True, "store": str(tmp_path / "s.duckdb")}
    first = raysp.run(raysp.RunSpec(explorer=raysp.ProxySPEX(budget=20, max_order=2), **asked))
    assert calls["train"] == 1
    assert set(first.summary["metrics"]["cross_checks"]) == set(INFLUENCES)
    second = raysp.run(raysp.RunSpec(explorer=raysp.ProxySPEX(budget=20, proxy="gradient"), **asked))
    assert second.cross_checks.equals(first.cross_checks)
    assert calls == {"train": 1, "gradients": lens(models, pairs).epochs + 1}


# ---- interactions of examples


def test_near_duplicates_are_redundant(models, tmp_path):
    """Either of two copies teaches the answer: losing both costs more than the sum of losing each."""
    fact = {"prompt": "where is the letter", "completion": "city Monday"}
    others = [{"prompt": f"{text} {i}", "completion": answer} for i in range(2) for text, answer in FILMS]
    train = write(tmp_path / "t.jsonl", [fact, {**fact, "prompt": "where is that letter"}, *others])
    asked = write(tmp_path / "q.jsonl", [fact])
    game = build_game(DataLens(model=models["llama"], train=train, queries=asked, value="logprob", **(RECIPE | {"epochs": 6})))
    masks = np.ones((4, game.n), bool)
    masks[1, 0] = masks[2, 1] = masks[3, :2] = False
    whole, first, second, neither = game.measure(masks).values
    apart = (whole - first) + (whole - second)
    assert whole - neither > 1.1 * apart > 0
    assert kind_of(whole - neither, apart) == "redundancy"


def test_halves_of_an_answer_teach_it_together_only(models, tmp_path):
    """One example teaches the first word, the other what follows it: either alone leaves the whole answer next to impossible."""
    halves = [{"prompt": "where is the letter", "completion": "good"}, {"prompt": "where is the letter good", "completion": "bad"}]
    others = [{"prompt": f"{text} {i}", "completion": answer} for i in range(2) for text, answer in FILMS]
    train = write(tmp_path / "t.jsonl", [*halves, *others])
    asked = write(tmp_path / "q.jsonl", [{"prompt": "where is the letter", "completion": "good bad"}])
    game = build_game(DataLens(model=models["llama"], train=train, queries=asked, value="prob", **(RECIPE | {"epochs": 40, "adapted_layers": "all"})))
    masks = np.ones((4, game.n), bool)
    masks[1, 0] = masks[2, 1] = masks[3, :2] = False
    whole, first, second, neither = game.measure(masks).values
    assert whole > 0.05
    assert max(first, second, neither) < whole / 100
    # Losing either is losing all of it: the sum of both losses is twice what losing both is.
    assert kind_of(whole - neither, (whole - first) + (whole - second)) == "synergy"


# ---- what cannot be


def test_an_architecture_that_the_fast_way_does_not_fit_is_trained_plainly(models, pairs):
    game = build_game(lens(models, pairs, model=models["window"]))
    assert isinstance(game.trainer, PlainTrainer)
    assert "one by one" in game.info.notes[-1]
    masks = random_masks(game.n, 2)
    scored = logprobs(game, masks, game.trainer.evaluated)[..., 0]
    np.testing.assert_allclose(game.measure(masks).outputs, scored[:, ::2] - scored[:, 1::2], atol=1e-5)
    report = game.gradient_report(2)
    assert report.surrogate() is None
    assert (dict(report.effects), report.prior_effects()) == ({}, None)
    assert "one subset at a time" in report.notes[0]


def test_a_divergence_names_the_subset_and_the_step(models, pairs):
    game = build_game(lens(models, pairs, learning_rate=1e30))
    masks = np.ones((2, game.n), bool)
    masks[1, 0] = False
    message = r"learning_rate: 1e\+30 makes the training without 1 of 12 components \(the acting.*\) diverge at step \d+.*; give a smaller one"
    for trained in (game.measure, lambda masks: game.adapters(masks, 0)):
        with pytest.raises(UserError, match=message):
            trained(masks[1:])


def test_what_is_asked_wrongly_of_a_game_is_an_error(models, pairs):
    game = build_game(lens(models, pairs))
    with pytest.raises(ValueError, match=r"expected \(m, 12\)"):
        game.measure(np.ones((1, game.n + 1), bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": "query"}, "q_proj"),
        ({"target_modules": " , "}, "names no linear layer"),
        ({"adapted_layers": "last:3"}, "last:2"),
        ({"adapted_layers": "0,7"}, "layers 0 to 1"),
        ({"value": "class_margin"}, "labels"),
    ],
)
def test_what_the_model_or_the_queries_cannot_do_is_one_line(models, pairs, options, message):
    with pytest.raises(UserError, match=message) as caught:
        build_game(lens(models, pairs, **options))
    assert "\n" not in str(caught.value)


def test_foils_in_some_queries_only_are_refused(models, pairs, tmp_path):
    asked = write(tmp_path / "some.jsonl", [{"prompt": "a", "completion": "good", "foil": "bad"}, {"prompt": "b", "completion": "bad", "foil": None}])
    with pytest.raises(UserError, match="some rows"):
        build_game(lens(models, {**pairs, "queries": asked}))


def test_a_classifier_is_refused(models, pairs):
    with pytest.raises(UserError, match="causal"):
        build_game(lens(models, pairs, model=models["bert-classifier"]))


def test_subsets_with_seeds_of_their_own_are_what_these_seeds_make_of_each(models, pairs):
    shared, own = build_game(lens(models, pairs)), build_game(lens(models, pairs, seeding="own"))
    masks = random_masks(own.n, 3)
    outputs = own.measure(masks).outputs
    np.testing.assert_allclose(own.measure(masks[::-1]).outputs, outputs[::-1], atol=1e-5)
    seeds = own._seeds(masks, 0)
    assert len(set(seeds)) == 3
    for mask, seed, row in zip(masks, seeds, outputs, strict=True):
        np.testing.assert_allclose(shared.outputs_of(mask[None], seed)[0], row, atol=1e-5)
    assert np.abs(shared.measure(masks).outputs - outputs).max() > 1e-3
    assert shared.info.fingerprint != own.info.fingerprint
