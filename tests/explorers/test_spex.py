"""SPEX: its masks, its cost, what it finds, and its notes on partial samples."""

import numpy as np
import pytest
from spectral.known_games import and_or, constant, explore, found, parity, sparse

import raysp
from raysp.errors import UserError
from raysp.explorers import EXPLORERS, SPEX, ProxySPEX, fit_singles, r_squared
from raysp.explorers.samples import CONSTANT_VALUE
from raysp.specs.run import run_spec
from raysp.spectral.walsh import all_masks


def uniform(n, count, seed=0):
    return np.random.default_rng(seed).random((count, n)) < 0.5


def asked(explorer, function):
    """Asked and told to the end, without `start`."""
    while not explorer.done():
        masks = explorer.ask()
        explorer.tell(masks, function(masks))
    return explorer


def noisy(game, decibel, seed=0):
    rng = np.random.default_rng([seed, 1])
    deviation = np.sqrt(game.energy()[1:].sum() / 10 ** (decibel / 10))
    return lambda masks: game.predict(masks) + rng.normal(size=len(masks)) * deviation


def fourier(findings):
    table = findings.surrogate.interactions(index="fourier", min_order=1)
    return {tuple(row["components"]): row["value"] for row in table.to_pylist()}


# ---- what it costs


@pytest.mark.parametrize(("n", "evaluations"), [(36, 21504), (92, 27648), (215, 31488), (973, 39168), (1000, 43008), (2000, 46848)])
def test_a_run_costs_what_the_paper_says(n, evaluations):
    assert SPEX(b=8, max_order=5).planned(n) == SPEX().planned(n) == evaluations


@pytest.mark.parametrize("n", range(1, 21))
def test_no_run_asks_for_more_masks_than_there_are(n):
    size = SPEX().size(n)
    assert size.evaluations <= 2**n
    assert (size.b is None) == (n < 12)
    assert SPEX(b=3, max_order=2).planned(n) <= 2**n


def test_a_budget_buys_the_largest_b_and_if_it_must_a_lower_order():
    assert (SPEX(budget=30_000).size(100).b, SPEX(budget=30_000).size(100).t) == (7, 5)
    assert (SPEX(budget=1000).size(100).b, SPEX(budget=1000).size(100).t) == (3, 5)
    assert (SPEX(budget=500).size(100).b, SPEX(budget=500).size(100).t) == (3, 2)
    assert (SPEX(budget=500, max_order=1).size(100).b, SPEX(budget=500, max_order=1).size(100).t) == (4, 1)
    assert (SPEX(budget=1000, b=4).size(100).b, SPEX(budget=1000, b=4).size(100).t) == (4, 2)
    assert SPEX(budget=20_000).size(14).b is None
    assert SPEX(budget=10_000).size(13).evaluations == 2**13


def test_an_order_lowered_by_the_budget_survives_the_start_and_the_store():
    started = SPEX(budget=500).start(100)
    assert started.size(100).t == 2
    assert SPEX(**SPEX(budget=500).options.model_dump(exclude={"kind"}, exclude_none=True)).start(100).size(100).t == 2


def test_a_budget_for_nothing_names_the_least():
    with pytest.raises(UserError, match=r"budget: 1000 is too small for spex on 1000 components; give at least 1344"):
        SPEX(budget=1000, max_order=5).start(1000)
    with pytest.raises(UserError, match=r"give at least 43008"):
        SPEX(budget=40_000, max_order=5, b=8).start(1000)
    with pytest.raises(UserError, match=r"give at least 264"):
        SPEX(n=1000, budget=200).ask()
    assert SPEX(budget=264).start(1000).size(1000).t == 1


# ---- what it asks


def test_two_thousand_components_are_asked_for_in_rounds():
    started = SPEX(b=3, random_state=1).start(2000)
    first = started.ask()
    assert first.shape[1] == 2000
    asked(started, lambda masks: masks[:, 0] + 2.0 * (masks[:, 3] ^ masks[:, 1999]))
    assert started.planned(2000) - 3 * 61 <= len(started.masks) <= started.planned(2000) == 1464
    assert fourier(started.result()) == pytest.approx({(0,): -0.5, (3, 1999): -1.0})


def test_the_seed_decides_the_masks():
    first, again, other = (SPEX(n=50, b=4, random_state=seed).ask() for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rounds_are_whole_blocks(monkeypatch):
    monkeypatch.setattr("raysp.explorers.spex.ROUND", 1)
    started = SPEX(n=40, b=4)
    assert len(started.ask()) == 16
    rounds = 0
    while not started.done():
        started.tell(started.ask(), and_or(started.ask()))
        rounds += 1
    assert rounds == 3 * 36


# ---- what it finds


def test_planted_terms_are_exact_without_noise():
    game = sparse(100, 40, 0)
    findings = explore(SPEX(), game.predict, 100).result()
    assert fourier(findings) == pytest.approx(game.terms())
    assert findings.diagnostics["terms_decoded"] == 40
    assert any("all bins resolved" in note for note in findings.notes)
    assert any("no noise was detected" in note for note in findings.notes)


def test_a_hundred_terms_among_a_thousand_components_are_exact():
    game = sparse(1000, 100, 3)
    started = asked(raysp.SPEX(n=1000, max_order=5, b=8, random_state=0), game.predict)
    assert started.result().table.num_rows
    assert fourier(started.result()) == pytest.approx(game.terms())


def test_terms_under_noise_are_found_with_honest_intervals():
    game = sparse(500, 80, 1)
    findings = explore(SPEX(), noisy(game, 10), 500).result()
    rows = {tuple(row["components"]): row for row in findings.surrogate.interactions(index="fourier", min_order=1).to_pylist()}
    planted = game.terms()
    assert len(set(rows) & set(planted)) >= 0.95 * len(planted)
    assert np.mean([rows[members]["lo"] <= value <= rows[members]["hi"] for members, value in planted.items() if members in rows]) >= 0.88
    assert not any(row["significant"] for members, row in rows.items() if members not in planted)
    fresh = uniform(500, 1000, 9)
    assert r_squared(game.predict(fresh), findings.surrogate.predict(fresh)) > 0.99


def test_the_soft_decoder_finds_more():
    game = sparse(200, 40, 2)
    soft, hard = (len(set(fourier(explore(SPEX(b=6, decoder=decoder), noisy(game, 0), 200).result())) & set(game.terms())) for decoder in ("soft", "hard"))
    assert soft > hard


def test_a_peak_is_found_where_trees_fail():
    fresh = uniform(25, 500, 9)
    peak = explore(SPEX(max_order=7, b=4), parity, 25)
    proxy = explore(ProxySPEX(budget=len(peak.masks), proxy="trees"), parity, 25)
    assert fourier(peak.result()) == pytest.approx({tuple(range(7)): 1.0})
    assert r_squared(parity(fresh), peak.result().surrogate.predict(fresh)) == pytest.approx(1)
    assert r_squared(parity(fresh), proxy.result().surrogate.predict(fresh)) < 0.1


def test_the_mean_is_kept():
    game = sparse(60, 10, 0)
    findings = explore(SPEX(b=5), lambda masks: game.predict(masks) + 100.0, 60).result()
    assert findings.surrogate.terms()[()] == pytest.approx(100)
    assert fourier(findings) == pytest.approx(game.terms())


@pytest.mark.parametrize("n", [1, 2, 9])
def test_few_components_are_measured_in_full(n):
    weights = np.arange(1.0, n + 1)
    findings = explore(SPEX(), lambda masks: masks @ weights, n).result()
    assert findings.singles["value"].to_pylist() == pytest.approx(weights.tolist())
    assert findings.notes == ("Every mask was measured, so all values are exact.",)


def test_a_value_that_never_changes_is_reported_to_be_one():
    findings = explore(SPEX(b=4), constant, 40).result()
    assert len(findings.surrogate) == 1
    assert CONSTANT_VALUE in findings.notes
    assert findings.singles["value"].to_pylist() == [0.0] * 40


def test_interactions_come_in_the_index_asked_for():
    game = sparse(40, 10, 0, max_order=2)
    findings = explore(SPEX(b=5, index="fourier"), game.predict, 40).result()
    assert findings.index == "fourier"
    assert found(findings) == pytest.approx({members: value for members, value in game.terms().items() if len(members) > 1})


def test_what_has_no_few_strong_terms_still_gets_its_single_effects():
    weights, fresh = np.random.default_rng(0).normal(size=80), uniform(80, 500, 9)

    def saturating(masks):
        return np.tanh((masks @ weights - weights.sum() / 2) / 2)

    started = explore(SPEX(b=4), saturating, 80)
    singles = fit_singles(started.masks, started.values)
    assert started.result().diagnostics["refit"] == "lasso"
    assert r_squared(saturating(fresh), started.result().surrogate.predict(fresh)) >= r_squared(saturating(fresh), singles.predict(fresh)) - 0.01


# ---- a part of it


@pytest.mark.parametrize(
    ("blocks", "says"), [(1, "none can be decoded yet"), (20, "none can be decoded yet"), (36, "1 of 3 matrices"), (80, "2 of 3 matrices")]
)
def test_any_number_of_blocks_gives_an_answer(monkeypatch, blocks, says):
    monkeypatch.setattr("raysp.explorers.spex.ROUND", 1)
    game, started = sparse(60, 8, 4), SPEX(n=60, b=5)
    for _ in range(blocks):
        started.tell(started.ask(), game.predict(started.ask()))
    findings = started.result()
    assert f"{blocks} of 108 blocks were measured" in findings.notes[0]
    assert says in findings.notes[0]
    assert findings.singles.num_rows == 60
    assert np.isfinite(findings.surrogate.predict(uniform(60, 50))).all()
    if blocks >= 72:
        assert fourier(findings) == pytest.approx(game.terms())


@pytest.mark.parametrize("count", [0, 1, 3, 17, 300])
@pytest.mark.parametrize("n", [10, 60])
def test_the_first_masks_can_be_fitted_however_few(n, count):
    game = sparse(n, 5, 0)
    queries = asked(SPEX(b=4, random_state=2).start(n, 2), game.predict).masks[:count]
    model = SPEX(b=4, random_state=2).fit(queries, game.predict(queries))
    assert np.isfinite(model.predict(uniform(n, 20))).all()


def test_all_its_masks_can_be_fitted_and_no_others():
    game, explorer = sparse(60, 8, 4), SPEX(b=5, random_state=1)
    queries = explore(explorer, game.predict, 60, 1).masks
    assert explorer.fit(queries, game.predict(queries)).score(uniform(60, 100), game.predict(uniform(60, 100))) == pytest.approx(1)
    twice = np.concatenate([queries, queries[:1]])
    with pytest.raises(ValueError, match="weights: range from 1 to 2, but the transform of spex needs equal weights"):
        explorer.fit(twice, game.predict(twice))
    for wrong in (uniform(60, 100), queries[::-1]):
        with pytest.raises(ValueError, match=r"row \d+ is not the mask that spex requests.*b = 5, t = 5.*n = 60.*at most 3,456.*ask\(\).*proxyspex"):
            explorer.fit(wrong, game.predict(wrong))


def test_a_complete_table_can_be_fitted_in_any_order():
    masks = all_masks(7)[::-1]
    assert SPEX().fit(masks, and_or(masks)).score(masks, and_or(masks)) == pytest.approx(1)


def test_a_preview_looks_at_a_sample(monkeypatch):
    masks = uniform(30, 3000)
    assert SPEX().preview(masks, and_or(masks)) > 0.8
    assert SPEX().preview(masks[:10], and_or(masks[:10])) is None


# ---- in specs


def test_a_spec_names_it():
    spec = run_spec({"lens": {"kind": "feature", "prompt": "a b"}, "explorer": {"kind": "spex", "b": 6, "decoder": "hard"}})
    assert spec.explorer == SPEX(b=6, decoder="hard").options
    assert EXPLORERS["spex"] is SPEX is raysp.SPEX
    with pytest.raises(UserError, match="decoder"):
        run_spec({"lens": {"kind": "feature", "prompt": "a b"}, "explorer": {"kind": "spex", "decoder": "firm"}})
