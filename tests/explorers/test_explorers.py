"""What all explorers have in common, and each finds what is planted."""

import inspect

import numpy as np
import pytest
from spectral.known_games import additive, and_or, constant, explore, found, hidden_pairs, parity, planted

from raysp.errors import EvaluationError, UserError
from raysp.explorers import EXPLORERS, SPEX, Exhaustive, ProxySPEX, Screen, Singles, fit_singles, r_squared
from raysp.masks import lookup
from raysp.sampling.draws import random_masks, uniform_masks
from raysp.sampling.matching import distinct
from raysp.specs.explorers import EXPLORER_OPTIONS, ProxySPEXOptions
from raysp.specs.lenses import FeatureLens
from raysp.specs.run import RunSpec, run_spec
from raysp.spectral.walsh import all_masks

EVERY = [Screen(), ProxySPEX(), SPEX(), Singles(), Exhaustive()]
named = pytest.mark.parametrize("explorer", EVERY, ids=lambda explorer: explorer.name)


def first_component(masks):
    return 2.0 * masks[:, 0]


def both(masks):
    return 2.0 * masks[:, 0] + 3.0 * (masks[:, 0] & masks[:, -1])


def uniform(n, count, seed=0):
    return np.random.default_rng(seed).random((count, n)) < 0.5


def test_every_explorer_goes_by_its_name():
    assert {name: cls().name for name, cls in EXPLORERS.items()} == {name: name for name in EXPLORER_OPTIONS}
    assert all(field.description for cls in EXPLORER_OPTIONS.values() for name, field in cls.model_fields.items() if name != "kind")


@named
@pytest.mark.parametrize("n", [1, 2, 3, 6, 12])
def test_asks_for_distinct_masks_within_its_plan(explorer, n):
    started = explore(explorer, first_component if n == 1 else both, n)
    assert len(started.masks) <= explorer.planned(n) <= 2**n
    assert len(distinct(started.masks)) == len(started.masks)
    assert explorer.least_budget(n) <= explorer.planned(n)


@named
@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
def test_the_least_budget_gives_an_answer_and_one_less_is_refused(explorer, n):
    least = explorer.least_budget(n)
    started = explore(type(explorer)(budget=least), first_component if n == 1 else both, n)
    assert len(started.masks) <= least
    findings = started.result()
    assert findings.singles.num_rows == n
    assert np.isfinite(findings.surrogate.predict(all_masks(n))).all()
    if least > 1:
        with pytest.raises(UserError, match=f"budget: {least - 1} is too small.*{least}"):
            type(explorer)(budget=least - 1).start(n)


@named
def test_asking_twice_gives_the_same_and_a_seed_decides_everything(explorer):
    started, again = explorer.start(10, 5), explorer.start(10, 5)
    while not started.done():
        masks = started.ask()
        assert np.array_equal(masks, started.ask())
        assert np.array_equal(masks, again.ask())
        for each in (started, again):
            each.tell(masks, and_or(masks))
    assert again.done()
    first, second = started.result(), again.result()
    assert first.table.equals(second.table)
    assert first.singles.equals(second.singles)


@named
def test_a_value_that_never_changes_has_no_interactions(explorer):
    findings = explore(explorer, constant, 10).result()
    assert np.allclose(findings.surrogate.predict(uniform(10, 20)), 3.0)
    assert not found(findings, 1e-9)
    assert not any(findings.table["significant"].to_pylist())
    assert np.allclose(findings.singles["value"].to_numpy(), 0)


@named
def test_tables_have_the_documented_columns(explorer):
    findings = explore(explorer, and_or, 8).result()
    assert findings.table.column_names == ["components", "order", "index", "value", "lo", "hi", "significant"]
    assert findings.singles.column_names == ["component", "value", "lo", "hi", "method", "average", "average_lo", "average_hi"]
    assert set(findings.table["index"].to_pylist()) <= {findings.index}
    assert all(order >= 2 for order in findings.table["order"].to_pylist())
    sizes, sure = np.abs(findings.table["value"].to_numpy()), findings.table["significant"].to_numpy(zero_copy_only=False)
    certain = sizes - (findings.table["hi"].to_numpy() - findings.table["lo"].to_numpy()) / 2
    assert np.all(np.diff(sure.astype(int)) <= 0)
    assert np.all(np.diff(sizes[sure]) <= 0)
    assert np.all(np.diff(certain[~sure]) <= 1e-12)


@named
@pytest.mark.parametrize(
    ("masks", "values", "error", "message"),
    [
        (np.ones((4, 5), dtype=bool), np.zeros(3), ValueError, r"\(3,\).*\(4,\).*\(4, 5\)"),
        (np.ones(5, dtype=bool), np.zeros(5), ValueError, "number of components|shape"),
        (np.ones((4, 5)), np.zeros(4), ValueError, "float64"),
        (np.full((4, 5), 2), np.zeros(4), ValueError, "int64"),
        (np.ones((2, 5), dtype=bool), np.array([1.0, np.nan]), EvaluationError, "finite"),
        (np.ones((2, 5), dtype=bool), np.array([np.inf, 0.0]), EvaluationError, "finite"),
    ],
)
def test_bad_data_is_refused(explorer, masks, values, error, message):
    with pytest.raises(error, match=message):
        explorer.fit(masks, values)


def test_masks_of_another_width_name_both_shapes():
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(m, 5\)"):
        ProxySPEX(n=5).tell(np.ones((3, 4), dtype=bool), np.zeros(3))


def test_what_is_not_fitted_says_so():
    with pytest.raises(ValueError, match="not fitted"):
        ProxySPEX().predict(np.ones((1, 3), dtype=bool))


# ---- options


@pytest.mark.parametrize("name", ["random_state", "n", "state", "findings"])
@pytest.mark.parametrize("kind", EXPLORER_OPTIONS)
def test_a_spec_refuses_what_is_no_option_of_its_explorer(kind, name):
    with pytest.raises(UserError, match=f"explorer.{name}: 7 .*known fields: kind, budget"):
        run_spec({"lens": {"kind": "feature", "prompt": "a b"}, "explorer": {"kind": kind, name: 7}})


def test_an_explorer_in_a_spec_stands_for_its_options():
    spec = RunSpec(lens=FeatureLens(prompt="a b"), explorer=ProxySPEX(budget=500, max_order=2))
    assert spec.explorer == ProxySPEXOptions(budget=500, max_order=2) == ProxySPEX(budget=500, max_order=2).options


@named
@pytest.mark.parametrize("own", [{"random_state": 7}, {"random_state": 0}, {"n": 5}])
def test_an_explorer_with_a_seed_or_components_of_its_own_is_refused_in_a_spec(explorer, own):
    (name,) = own
    with pytest.raises(ValueError, match=rf"explorer\.{name}: {own[name]} cannot be set in a spec; leave it out"):
        RunSpec(lens=FeatureLens(prompt="a b"), explorer=type(explorer)(**own))


@named
def test_an_explorer_shows_what_it_was_given_and_no_more(explorer):
    kind = type(explorer)
    assert repr(kind(budget=50_000, random_state=0)) == f"{kind.__name__}(budget=50000, random_state=0)"
    assert list(inspect.signature(kind).parameters) == [*(name for name in kind.Options.model_fields if name != "kind"), "n", "random_state"]


def test_a_negative_random_state_is_refused():
    with pytest.raises(UserError, match="random_state: -1 is negative"):
        Singles(random_state=-1)


# ---- outputs


def answers(masks):
    """Outputs of three queries whose mean is `and_or`."""
    return and_or(masks)[:, None] + np.outer(masks[:, 1].astype(float) - 2.0 * masks[:, 0] * masks[:, 3], [1.0, -1.0, 0.0])


@named
def test_outputs_are_explained_one_by_one_and_their_mean_as_the_value(explorer):
    started, of_value = explorer.start(10, 1), explore(explorer, lambda masks: answers(masks).mean(axis=1), 10, 1)
    while not started.done():
        started.tell(started.ask(), answers(started.ask()))
    assert np.array_equal(started.masks, of_value.masks)
    assert started.result().table.equals(of_value.result().table)
    assert started.result().singles.equals(of_value.result().singles)
    results = list(started.results_by_query())
    assert len(results) == 3
    fresh = uniform(10, 200, 5)
    if explorer.name in {"proxyspex", "exhaustive", "spex"}:
        for query, findings in enumerate(results):
            assert r_squared(answers(fresh)[:, query], findings.surrogate.predict(fresh)) > 0.99


@named
def test_a_game_without_queries_has_one_output_which_is_its_value(explorer):
    started = explore(explorer, and_or, 10, 1)
    assert np.array_equal(started.outputs, started.values[:, None])
    (only,) = started.results_by_query()
    assert only.table.slice(0, 50).equals(started.result().table.slice(0, 50))
    assert not started.query_notes()


def test_outputs_of_another_shape_are_refused():
    for outputs in (np.zeros((3, 2)), np.zeros((4, 2, 2)), np.zeros((4, 0))):
        with pytest.raises(ValueError, match=r"values have shape .*expected \(4,\) or \(4, queries\)"):
            Singles(n=5).tell(np.ones((4, 5), dtype=bool), outputs)


@named
def test_a_sample_holds_the_rows_that_the_surrogate_was_fitted_to(explorer):
    started = explore(explorer, and_or, 10, 1)
    sample = started.sample()
    assert np.array_equal(sample.values, and_or(sample.masks))
    assert np.all(lookup(started.masks, sample.masks) >= 0)
    assert 0 < len(sample.masks) <= len(started.masks)


# ---- exhaustive


def test_exhaustive_is_exact_and_comes_in_rounds(monkeypatch):
    monkeypatch.setattr("raysp.explorers.exhaustive.ROUND", 100)
    started = Exhaustive().start(8)
    rounds = 0
    while not started.done():
        rounds += 1
        started.tell(started.ask(), and_or(started.ask()))
    assert rounds == 3
    findings = started.result()
    assert found(findings) == pytest.approx({(0, 1): 2.0, (2, 3): -3.0})
    assert findings.table["lo"] == findings.table["hi"]
    assert set(findings.singles["method"].to_pylist()) == {"removed"}


def test_exhaustive_on_too_many_names_what_would_do():
    with pytest.raises(UserError, match=r"2\^17.*proxyspex or screen"):
        Exhaustive().start(17)


def test_exhaustive_wants_the_whole_table():
    masks = all_masks(5)
    assert Exhaustive().fit(masks, both(masks)).score(masks, both(masks)) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"\(31, 5\).*all 32"):
        Exhaustive().fit(masks[1:], both(masks[1:]))


# ---- singles


def test_singles_find_additive_effects():
    masks = uniform(30, 400)
    surrogate = fit_singles(masks, additive(masks), 0)
    assert surrogate.sets.max_order == 1
    assert r_squared(additive(masks), surrogate.predict(masks)) > 0.999
    effects = explore(Singles(), additive, 30).result().singles
    assert effects["value"].to_numpy()[:6] == pytest.approx([1, 2, 3, 4, 5, 0], abs=0.05)


# ---- proxyspex


@pytest.mark.parametrize(("n", "seed"), [(12, 0), (30, 1)])
def test_proxyspex_finds_what_is_planted(n, seed):
    started = explore(ProxySPEX(), and_or, n, seed)
    fresh = uniform(n, 500, 99)
    assert r_squared(and_or(fresh), started.result().surrogate.predict(fresh)) > 0.99
    assert found(started.result(), 0.3) == pytest.approx({(0, 1): 2.0, (2, 3): -3.0}, abs=0.2)


def test_proxyspex_finds_hierarchical_terms_up_to_order_four():
    surrogate = planted(32, 60, 1)
    masks, fresh = uniform(32, 1000), uniform(32, 500, 1)
    model = ProxySPEX(max_order=4, random_state=0).fit(masks, surrogate.predict(masks))
    assert model.score(fresh, surrogate.predict(fresh)) > 0.98
    assert model.interactions("fourier", max_order=2)["order"].to_pylist()


def test_interactions_that_no_single_shows_are_found_on_uniform_masks():
    findings = explore(ProxySPEX(budget=1500), hidden_pairs, 30).result()
    assert {(i, i + 1) for i in range(10, 30, 2)} <= set(found(findings, 1.0))


def test_the_order_of_terms_is_bounded():
    masks = uniform(15, 400)
    model = ProxySPEX(max_order=2).fit(masks, and_or(masks) + 3.0 * masks[:, :3].all(axis=1))
    assert max(model.interactions("fourier")["order"].to_pylist()) <= 2
    assert max(ProxySPEX(max_order=1).fit(masks, and_or(masks)).interactions("fourier")["order"].to_pylist()) == 1


@pytest.mark.parametrize("seed", range(3))
def test_proxyspex_is_never_worse_than_singles(seed):
    rng = np.random.default_rng([seed, 1])
    weights, masks, fresh = rng.normal(size=40), uniform(40, 250, seed), uniform(40, 1000, seed + 50)
    values = masks @ weights + rng.normal(size=250) * np.linalg.norm(weights)
    singles = r_squared(fresh @ weights, fit_singles(masks, values, seed).predict(fresh))
    assert ProxySPEX(random_state=seed).fit(masks, values).score(fresh, fresh @ weights) >= singles - 0.02


def test_a_parity_is_not_pretended_to_be_explained():
    started = explore(ProxySPEX(), parity, 25)
    fresh = uniform(25, 1000, 7)
    held_out = r_squared(parity(fresh), started.result().surrogate.predict(fresh))
    assert started.result().diagnostics["r2_cv"] < max(held_out, 0.0) + 0.15


def test_noise_alone_gives_nothing_significant():
    hits = 0
    for seed in range(4):
        rng = np.random.default_rng([seed, 1])
        masks = uniform(20, 300, seed)
        values = masks @ rng.normal(size=20) + rng.normal(size=300)
        table = ProxySPEX(random_state=seed).fit(masks, values).interactions("fourier", min_order=2)
        hits += any(table["significant"].to_pylist())
    assert hits <= 1


def test_single_ablations_are_bought_when_cheap_and_count_in_no_score():
    findings = explore(ProxySPEX(), and_or, 30).result()
    assert set(findings.singles["method"].to_pylist()) == {"removed"}
    assert findings.singles["value"].to_numpy()[:6] == pytest.approx([2, 2, 0, 0, 1, 0.5])
    started = explore(ProxySPEX(), and_or, 30)
    near = (~started.masks).sum(axis=1) <= 1
    assert near.sum() == 31
    assert started.importance[near].max() == 0
    assert started.fitted_rows.all()
    estimated = explore(ProxySPEX(budget=100), and_or, 30).result()
    assert set(estimated.singles["method"].to_pylist()) == {"surrogate"}


def test_a_budget_for_everything_is_exact():
    findings = explore(ProxySPEX(budget=1000), and_or, 7).result()
    assert found(findings) == pytest.approx({(0, 1): 2.0, (2, 3): -3.0})
    assert any("exact" in note for note in findings.notes)


def test_constant_columns_and_duplicate_masks_do_no_harm():
    masks = uniform(12, 300)
    masks[:, 3], masks[:, 7] = True, False
    masks = np.concatenate([masks, masks[:60]])
    values = 2.0 * (masks[:, 0] & masks[:, 1]) + masks[:, 4]
    model = ProxySPEX().fit(masks, values)
    assert model.score(masks, values) > 0.99
    assert np.isfinite(model.interactions("bii")["value"].to_numpy()).all()


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_very_few_evaluations_still_give_a_surrogate(count):
    masks = uniform(10, count)
    assert np.isfinite(ProxySPEX().fit(masks, and_or(masks)).predict(masks)).all()


def test_preview_says_how_well_it_goes_or_nothing():
    masks = uniform(20, 600)
    assert ProxySPEX().preview(masks, and_or(masks)) > 0.9
    assert ProxySPEX().preview(masks[:20], and_or(masks[:20])) is None
    assert ProxySPEX().preview(masks, np.ones(600)) is None
    assert Screen().preview(masks, and_or(masks)) is None


# ---- sampling


def test_uniform_masks_are_distinct_and_avoid_what_is_excluded():
    rng = np.random.default_rng(0)
    known = all_masks(6)[::2]
    rest = uniform_masks(6, 100, rng, known)
    assert len(rest) == 32
    assert np.all(lookup(known, rest) < 0)
    wide = uniform_masks(50, 500, rng)
    assert len(distinct(wide)) == 500
    assert abs(wide.mean() - 0.5) < 0.02


def test_random_masks_settle_for_fewer_when_there_are_no_more():
    masks = random_masks(3, 50, 0.9, np.random.default_rng(0))
    assert len(distinct(masks)) == len(masks) <= 8


def test_lookup_finds_rows_by_content():
    masks = all_masks(4)
    wanted = masks[[3, 9, 0]]
    assert lookup(masks, wanted).tolist() == [3, 9, 0]
    assert lookup(masks[:5], wanted).tolist() == [3, -1, 0]
    assert lookup(masks[:0], wanted).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("index", ["sv", "bii"])
def test_a_gap_in_efficiency_is_said(index):
    def peak(masks):
        return masks @ np.arange(10.0) + 40.0 * masks.all(axis=1)

    masks = np.concatenate([np.ones((1, 10), dtype=bool), np.zeros((1, 10), dtype=bool), np.random.default_rng(0).random((150, 10)) < 0.5])
    given = ProxySPEX(index=index, max_order=2)
    given.fit(masks, peak(masks))
    said = [note for note in given.findings.notes if "v(all) - v(empty) = 85" in note]
    assert len(said) == (index == "sv")
    asked = ProxySPEX(index=index, max_order=2, budget=200).start(10, 0)
    while not asked.done():
        masks = asked.ask()
        asked.tell(masks, peak(masks))
    assert not any("v(all) - v(empty)" in note for note in asked.result().notes)
