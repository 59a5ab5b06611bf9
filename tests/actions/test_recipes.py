"""Which recipe is chosen, from outputs with a known spread and noise; float64."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import yaml
from answered_training_sets import Trained

import raysp
from raysp.actions.recipe_trials import LocalTrainings, observe
from raysp.actions.recipes import SEEDS, STEPS, SUBSETS, WORST, Candidate, Evidence, candidates, choose, subsets, unmeasured
from raysp.errors import UserError
from raysp.specs.editing import with_lens_fields

LENS = raysp.DataLens(train="train.jsonl", rank=4, alpha=8.0, learning_rate=0.01)


def evidence(spread, noise, *, seconds=1.0, loss=1.0, untrained=2.0, rate=0.01, count=SUBSETS, seeds=SEEDS, complete=True, shift=0.0, **more):
    """Outputs of three queries with these standard deviations between subsets and between seeds; `shift` is what all trainings of a seed have in common."""
    rng = np.random.default_rng(3)
    outputs = spread * rng.normal(size=(count, 1, 3)) + noise * rng.normal(size=(count, seeds, 3)) + shift * np.arange(seeds)[:, None]
    return Evidence(Candidate(rate, 2, 4, "last:1"), outputs, loss, untrained, seconds, 2 * count, complete=complete, **more)


@pytest.mark.parametrize(("spread", "noise"), [(2.0, 1.0), (1.0, 1.0), (0.5, 1.0)])
def test_the_ratio_is_that_of_the_standard_deviations(spread, noise):
    assert evidence(spread, noise, count=4000).ratio == pytest.approx(spread / noise, rel=0.05)


def test_what_trainings_of_a_seed_have_in_common_cancels_only_if_they_share_the_seed():
    assert evidence(1.0, 0.5, count=4000, shift=5.0).ratio == pytest.approx(2.0, rel=0.05)
    assert evidence(1.0, 0.5, count=4000, shift=5.0, shared=False).ratio < 0.5


def test_outputs_that_do_not_vary_do_not_respond_and_those_without_noise_do():
    assert (evidence(0.0, 0.0).ratio, evidence(0.0, 0.0).outcome) == (0.0, "mostly noise")
    assert (evidence(1.0, 0.0).ratio, evidence(1.0, 0.0).outcome) == (math.inf, "responds")


def test_noise_alone_does_not_respond_however_few_the_subsets():
    false = [
        Evidence(Candidate(0.1, 1, 2, "all"), np.random.default_rng(k).normal(size=(4, 2, 1)), 1.0, 2.0, 1.0, 8, complete=True).responds for k in range(200)
    ]
    assert np.mean(false) < 0.1


def test_the_cheapest_that_responds_is_chosen_and_times_that_differ_little_count_as_equal():
    cheap, dear, equal = evidence(2, 1, seconds=1.0), evidence(9, 1, seconds=3.0), evidence(4, 1, seconds=1.1)
    noisy, harmful = evidence(0.1, 1, seconds=0.1), evidence(9, 1, seconds=0.1, loss=2.5)
    choice = choose([noisy, dear, harmful, cheap])
    assert (choice.evidence, choice.responds) == (cheap, True)
    assert "cheapest of 2 of the 4" in choice.sentence
    assert choose([cheap, equal]).evidence is equal
    assert min(each.score for each in (cheap, dear, equal)) > max(noisy.score, harmful.score)


def test_where_none_responds_the_best_is_marked_and_the_reason_given():
    better, worse = evidence(0.5, 1), evidence(0.2, 1)
    choice = choose([worse, better, unmeasured(Candidate(1.0, 1, 2, "all"), "nan")])
    assert (choice.evidence, choice.responds) == (better, False)
    assert "Under none of the 3 recipes tried" in choice.sentence
    assert f"{math.ceil(better.ratio**-2)} seeds averaged" in choice.sentence
    few = Evidence(Candidate(0.1, 1, 2, "all"), np.array([[[0.0], [0.3]], [[1.0], [0.9]]]), 1.0, 2.0, 1.0, 4, complete=True)
    assert few.ratio > 1
    assert "2 subsets cannot tell from noise" in choose([few]).sentence
    harmful = choose([evidence(5, 1, loss=3.0)])
    assert not harmful.responds
    assert "does not lower the queries' loss (3, untrained 2)" in harmful.sentence
    assert choose([unmeasured(Candidate(1.0, 1, 2, "all"), "nan")]) is None


def test_what_was_stopped_early_is_chosen_only_if_nothing_was_finished():
    early, whole = evidence(5, 1, complete=False), evidence(0.5, 1)
    assert choose([early, whole]).evidence is whole
    assert choose([early]).evidence is early


def test_candidates_are_distinct_begin_with_the_specs_own_and_keep_the_adapters_scale():
    found = candidates(LENS, 12, 0)
    assert found[0] == Candidate.of(LENS)
    assert len(set(found)) == len(found) == 12
    assert {each.applied(LENS).alpha / each.applied(LENS).rank for each in found} == {2.0}
    assert {each.within(2).adapted_layers for each in found[1:]} == {"last:1", "last:2"}
    assert found == candidates(LENS, 12, 0)


def test_subsets_are_distinct_and_neither_everything_nor_nothing():
    parts = subsets(12, None, 0)
    together = np.concatenate(parts)
    assert (len(parts), len(together)) == (STEPS, SUBSETS)
    assert len(np.unique(together, axis=0)) == SUBSETS
    assert 0 < together.sum(axis=1).min() <= together.sum(axis=1).max() < 12
    assert len(np.concatenate(subsets(3, None, 0))) == 6


# ---- a spec's text

YAML = "# why\nlens:\n  kind: data   # of examples\n  train: corpus:reviews\n  rank: 8\nname: x\n"


@pytest.mark.parametrize("text", [YAML, "lens: {kind: data, train: a.jsonl}\n", "lens: &it {kind: data, train: a.jsonl, rank: 3}\nname: y\n"])
def test_fields_of_a_lens_are_changed_and_the_rest_stays(text):
    edited = with_lens_fields(text, {"rank": 2, "learning_rate": 1e-5, "adapted_layers": "last:2"})
    before, after = yaml.safe_load(text), yaml.safe_load(edited)
    assert after == {**before, "lens": {**before["lens"], "rank": 2, "learning_rate": 1e-5, "adapted_layers": "last:2"}}
    assert [line for line in text.splitlines() if "#" in line] == [line for line in edited.splitlines() if "#" in line]


# ---- with a model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("recipes"))


def test_a_trial_measures_the_lenss_own_value_the_loss_and_the_price(trained):
    lens = trained.lens(value="margin", epochs=1)
    first, last = observe(lens, Candidate.of(lens), LocalTrainings(), keep=None, seed=0)
    assert (first.complete, last.complete, last.trainings) == (False, True, SUBSETS * SEEDS)
    masks = np.concatenate(subsets(10, None, 0))
    for seed in range(SEEDS):
        game = raysp.build_game(lens.model_copy(update={"training_seed": seed}))
        np.testing.assert_allclose(last.outputs[:, seed], game.measure(masks).outputs, atol=1e-4)  # float32, other batches
    whole = np.array([[True] * 10, [False] * 10])
    losses = [raysp.build_game(lens.model_copy(update={"value": "loss", "training_seed": seed})).evaluate(whole) for seed in range(SEEDS)]
    assert [last.loss, last.untrained_loss] == pytest.approx(np.mean(losses, axis=0).tolist(), abs=1e-4)
    assert last.seconds > 0


class Stored(LocalTrainings):
    """Trainings of which a store has those of the first seeds, as after an earlier search."""

    def measure(self, lens, masks):
        found = super().measure(lens, masks)
        return found if lens.training_seed >= SEEDS + 1 else replace(found, run=0, seconds=0.0)


def test_the_price_is_measured_anew_where_a_store_has_all_trainings(trained):
    lens = trained.lens(epochs=1)
    own, *_ = observe(lens, Candidate.of(lens), LocalTrainings(), keep=None, seed=0)
    found, *_ = observe(lens, Candidate.of(lens), Stored(), keep=None, seed=0)
    np.testing.assert_array_equal(found.outputs, own.outputs)
    assert found.trainings == len(found.outputs)
    assert found.seconds > 0


def test_a_recipe_that_diverges_is_evidence_and_a_mistake_of_the_spec_an_error(trained):
    lens = trained.lens()
    (only,) = observe(lens, Candidate(1e6, 3, 4, "all"), LocalTrainings(), keep=None, seed=0)
    assert (only.outcome, only.score) == ("diverged", WORST)
    with pytest.raises(UserError, match="target_modules"):
        next(observe(trained.lens(target_modules="no_such"), Candidate.of(lens), LocalTrainings(), keep=None, seed=0))


def spec_file(trained, **lens):
    fields = {"lens": {**trained.lens().model_dump(exclude_unset=True, mode="json"), "kind": "data", **lens}, "name": "tuned"}
    path = trained.folder / "spec.yaml"
    path.write_text("# kept\n" + yaml.safe_dump(fields))
    return path


def test_the_command_searches_with_tune_and_writes_the_spec(trained, cli):
    path, out = spec_file(trained, learning_rate=1e-7), trained.folder / "tuned.yaml"
    done = cli("tune-recipe", str(path), "--local", "--trials", "2", "--json", "-o", str(out))
    assert not done.code
    told = json.loads(done.out)
    assert len(told["trials"]) == 2
    assert told["trials"][0]["learning_rate"] == 1e-7
    assert {trial["outcome"] for trial in told["trials"]} <= {"responds", "does not learn", "mostly noise", "stopped early", "diverged"}
    lens = yaml.safe_load(out.read_text())["lens"]
    assert [lens[name] for name in ("learning_rate", "adapted_layers")] == [told["chosen"][name] for name in ("learning_rate", "adapted_layers")]
    assert out.read_text().startswith(f"# raysp tune-recipe: {told['chosen']['sentence']}\n# kept\n")
    assert raysp.load_spec(out).lens.rank == told["chosen"]["rank"]


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--minutes", "nan"], "minutes"), (["-o", "spec.yaml"], "already exists"), (["--trials", "0"], "trials")],
)
def test_mistakes_are_one_line_before_anything_is_trained(trained, cli, monkeypatch, options, said):
    monkeypatch.chdir(trained.folder)
    done = cli("tune-recipe", str(spec_file(trained)), "--local", *options)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
    assert said in done.err


def test_only_trainings_have_a_recipe(tmp_path, cli):
    path = tmp_path / "feature.yaml"
    path.write_text("lens: {kind: feature, prompt: a b c}\n")
    done = cli("tune-recipe", str(path))
    assert done.code == 2
    assert "trains nothing" in done.err
