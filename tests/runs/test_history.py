"""Answers of earlier runs about the same components are a prior for the next question: which runs count, what they are worth, and that answers repeat."""

from functools import partial

import numpy as np
import pytest
from spectral.known_games import planted
from tiny_models import save

import raysp
from raysp.explorers import ProxySPEX, r_squared
from raysp.lenses import build_game
from raysp.runs.local import LocalBackend
from raysp.runs.run import Run
from raysp.specs.lenses import MechanisticLens
from raysp.specs.run import RunSpec
from raysp.store import Store

PROMPT = "Her acting never fails, the film was long"
TRIED = "was tried as a prior"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("model"))


def asked(model, target=" not", seed=0, **lens):
    lens = {"prompt": PROMPT, "target": target, "model": str(model), "dtype": "float32", "value": "logit", "components": "heads", **lens}
    return RunSpec(lens=MechanisticLens(**lens), explorer=ProxySPEX(budget=120, max_order=2, slopes="off"), seed=seed, local=True)


def answer(store, spec, run_id, **hooks):
    set_name = hooks.pop("set_name", None)
    Run(spec, LocalBackend(build_game(spec.lens)), store, run_id, set_name=set_name, **hooks).execute()
    said = [event["message"] for event in store.run_table("events", run_id).to_pylist() if event["kind"] == "finding"]
    return said, store.surrogate(run_id)


def tried(notes):
    return [note for note in notes if TRIED in note]


def same(one, other):
    masks = np.random.default_rng(0).random((200, one.n)) < 0.5
    return np.array_equal(one.predict(masks), other.predict(masks))


def test_an_earlier_answer_about_the_same_words_is_tried_and_can_be_left_out(model, tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store, Store.open(tmp_path / "empty.duckdb") as empty:
        first, _ = answer(store, asked(model), "first")
        second, _ = answer(store, asked(model, foil=" bad", value="logit_diff"), "second")
        third = asked(model, " bad")
        without = third.model_copy(update={"explorer": third.explorer.model_copy(update={"no_prior": True})})
        assert not tried(first)
        assert tried(second)[0].startswith("The answer of an earlier run about the same components")
        notes, found = answer(store, without, "without")
        assert not tried(notes)
        assert same(found, answer(empty, without, "alone")[1])
        assert tried(answer(store, third, "third")[0])[0].startswith("The mean answer of 2 earlier runs")


def test_only_ended_runs_about_the_same_components_count(model, tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        answer(store, asked(model), "same game")
        answer(store, asked(model, components="heads,mlp"), "other components")
        answer(store, asked(model, ablation="zero-rescale"), "other ablation")
        answer(store, asked(model, foil=" bad", value="logit_diff"), "of the set", set_name="a set")
        with pytest.raises(raysp.errors.InterruptedRunError):
            answer(store, asked(model, " was"), "interrupted", cancelled=lambda: True)
        answer(store, asked(model, seed=1), "now", set_name="a set")
        assert store.earlier("now") == []
        answer(store, asked(model, " yes"), "later")
        assert [each.run_id for each in store.earlier("later")] == ["now", "of the set"]
        answer(store, asked(model, seed=2), "asked again")
        assert store.earlier("now") == store.earlier("asked again") == []


def test_a_resumed_run_has_the_prior_that_it_began_with(model, tmp_path):
    question = asked(model, foil=" bad", value="logit_diff")

    with Store.open(tmp_path / "whole.duckdb") as store:
        answer(store, asked(model), "first")
        notes, whole = answer(store, question, "second")
    with Store.open(tmp_path / "parts.duckdb") as store:
        answer(store, asked(model), "first")
        with pytest.raises(raysp.errors.InterruptedRunError):
            answer(store, question, "second", cancelled=partial(next, iter([False] * 3), True))
        answer(store, asked(model, " bad"), "between")
        found, parts = answer(store, question, "second")
        assert (found, same(parts, whole)) == (notes, True)


def told(masks, game, answers=()):
    explorer = ProxySPEX(n=masks.shape[1], max_order=3).with_history(lambda: answers)
    explorer.tell(masks, game(masks))
    return explorer.result()


def test_related_answers_save_evaluations_and_unrelated_ones_cost_nothing():
    n = 30
    rng = np.random.default_rng(1)
    common, own, other = (planted(n, 40, seed) for seed in (1, 2, 3))

    def function(masks, apart=own):
        return common.predict(masks) + 0.4 * apart.predict(masks)

    few, fresh = rng.random((80, n)) < 0.5, rng.random((500, n)) < 0.5
    earlier = [told(rng.random((600, n)) < 0.5, partial(function, apart=planted(n, 40, seed))).surrogate for seed in (11, 12, 13)]
    unrelated = [told(rng.random((600, n)) < 0.5, other.predict).surrogate]
    alone, related, misled = (r_squared(function(fresh), told(few, function, each).surrogate.predict(fresh)) for each in ((), earlier, unrelated))
    assert related > alone + 0.2
    assert misled > alone - 0.03
