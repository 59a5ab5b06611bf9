"""ProxySPEX's proxies, its rounds, and its P(keep)."""

import os
import subprocess
import sys

import numpy as np
import pytest
from spectral.known_games import additive, and_or, explore, found, planted

from raysp.errors import UserError
from raysp.explorers import ProxySPEX, fit_singles, r_squared
from raysp.explorers.choosing import PILOT_GRID, most_telling, next_pairs, pilot_masks, resembling
from raysp.explorers.remarks import AFFORDABLE, CHEAP, affordable_proxy
from raysp.explorers.samples import Sample, random_rows
from raysp.gradients import GradientReport, PairTerms
from raysp.sampling.ablations import single_ablations
from raysp.sampling.matching import distinct
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.posterior import learn

PROXIES = ["auto", "trees", "kernel", "linear", "mlp"]


def drawn(n, count, seed=0, keep=0.5):
    return np.random.default_rng(seed).random((count, n)) < keep


# ---- proxies


FIRST_FIT = """
import numpy as np
from raysp.explorers import ProxySPEX
from raysp.gradients import GradientReport, PairTerms
masks = np.random.default_rng(0).random((600, 12)) < 0.5
signs = 1.0 - 2.0 * masks
fitted = ProxySPEX(proxy="kernel", max_order=3).fit(masks, signs[:, 0] * signs[:, 1] + signs @ np.arange(12.0))
print(fitted.findings.surrogate.coefficients.tobytes().hex())
"""


def test_the_first_fit_of_a_process_is_the_same_however_many_threads_it_has():
    """An evaluator's threads are its own: where a run happens must change nothing of its answer."""
    told = [
        subprocess.run([sys.executable, "-c", FIRST_FIT], env={**os.environ, "OMP_NUM_THREADS": threads}, capture_output=True, text=True, check=True).stdout
        for threads in ("1", "2")
    ]
    assert told[0] == told[1] != ""


@pytest.mark.parametrize("proxy", PROXIES)
def test_every_proxy_finds_what_is_planted(proxy):
    masks, fresh = drawn(16, 500), drawn(16, 300, 1)
    model = ProxySPEX(proxy=proxy).fit(masks, and_or(masks))
    assert model.score(fresh, and_or(fresh)) > 0.97
    assert found(model.findings, 0.4) == pytest.approx({(0, 1): 2.0, (2, 3): -3.0}, abs=0.3)


@pytest.mark.parametrize("proxy", PROXIES)
def test_every_proxy_leaves_an_additive_game_to_singles(proxy):
    masks = drawn(12, 200)
    noise = np.random.default_rng(1).normal(size=200)
    model = ProxySPEX(proxy=proxy).fit(masks, additive(masks) + noise)
    fresh = drawn(12, 500, 1)
    alone = r_squared(additive(fresh), fit_singles(masks, additive(masks) + noise).predict(fresh))
    assert model.score(fresh, additive(fresh)) > alone - 0.02


def test_auto_is_as_good_as_its_best_part():
    game = planted(40, 30, 1)
    masks, fresh = drawn(40, 400), drawn(40, 500, 1)
    scores = {proxy: ProxySPEX(proxy=proxy).fit(masks, game.predict(masks)).score(fresh, game.predict(fresh)) for proxy in ("auto", "trees", "kernel")}
    assert scores["auto"] > 0.99
    assert scores["auto"] > max(scores.values()) - 0.01


@pytest.mark.parametrize("n", [60, 120])
def test_auto_is_not_fooled_where_components_are_many_and_noise_is_strong(n):
    for seed in range(2):
        rng = np.random.default_rng([seed, 2])
        weights, masks, fresh = rng.normal(size=n), drawn(n, 250, seed), drawn(n, 1000, seed + 50)
        values = masks @ weights + rng.normal(size=250) * np.linalg.norm(weights)
        alone = r_squared(fresh @ weights, fit_singles(masks, values, seed).predict(fresh))
        assert ProxySPEX(random_state=seed).fit(masks, values).score(fresh, fresh @ weights) >= alone - 0.05


def test_wide_samples_are_fitted_without_the_kernel(monkeypatch):
    monkeypatch.setattr("raysp.explorers.samples.WIDE", 1000)
    masks = drawn(16, 500)
    model = ProxySPEX().fit(masks, and_or(masks))
    assert "kernel" not in model.findings.diagnostics["weights"]
    assert model.score(masks, and_or(masks)) > 0.97


def test_a_kernel_on_part_of_the_rows_still_predicts(monkeypatch):
    monkeypatch.setattr("raysp.explorers.proxies.KERNEL_ROWS", 450)
    masks, fresh = drawn(16, 700), drawn(16, 300, 1)
    assert ProxySPEX(proxy="kernel").fit(masks, and_or(masks)).score(fresh, and_or(fresh)) > 0.97


@pytest.mark.parametrize("seed", range(3))
def test_a_sparse_function_without_noise_is_found_to_a_millionth(seed):
    truth = planted(16, 60, seed)
    masks, fresh = drawn(16, 600, seed), drawn(16, 1000, seed + 50)
    model = ProxySPEX(random_state=seed).fit(masks, truth.predict(masks))
    assert 1 - model.score(fresh, truth.predict(fresh)) < 2e-6


@pytest.mark.parametrize("seed", [2, 9])  # two folds of these find a set that the fit of all rows misses
def test_lucky_folds_do_not_hide_what_the_fit_of_all_rows_misses(monkeypatch, seed):
    monkeypatch.setattr("raysp.spectral.posterior.NOTHING_LEFT", 1e-4)
    rng, truth = np.random.default_rng(seed), planted(16, 60, seed)
    masks, fresh = np.unique(rng.random((420, 16)) < 0.5, axis=0), rng.random((2000, 16)) < 0.5
    model = ProxySPEX(proxy="kernel", random_state=seed).fit(masks, truth.predict(masks))
    missed = 1 - model.score(fresh, truth.predict(fresh))
    assert missed > 1e-5
    assert 1 - model.findings.diagnostics["r2_cv"] > 0.5 * missed


def test_the_gradient_proxy_starts_from_an_estimate():
    effects = {(0,): 2.0, (1,): -1.0, (3,): 0.5, (17,): 0.5, (4,): 0.3, (9,): -0.3}
    truth = FourierSurrogate.from_deviations(20, 1.0, effects | {(3, 17): 1.5, (4, 9): 0.8})
    singles = np.array([0.6 * effects.get((i,), 0.1) for i in range(20)])
    pairs = PairTerms(np.array([[2, 5], [3, 17], [4, 9]]), np.array([0.1, 0.9, 0.4]), singles)
    rough = GradientReport({"any": singles[None]}, leading="any", intact=1.0, pairs=pairs)
    masks, fresh = drawn(20, 60), drawn(20, 300, 1)
    started = ProxySPEX(proxy="gradient", n=20).with_gradients(rough)
    started.tell(masks, truth.predict(masks))
    assert r_squared(truth.predict(fresh), started.result().surrogate.predict(fresh)) > 0.95


def test_without_an_estimate_the_gradient_proxy_says_so():
    masks = drawn(10, 100)
    with pytest.raises(UserError, match=r"proxy: .gradient. needs the model's gradients.*auto"):
        ProxySPEX(proxy="gradient").fit(masks, and_or(masks))
    with pytest.raises(UserError, match="gradient"):  # before anything is paid for
        ProxySPEX(proxy="gradient").start(10).ask()


# ---- rounds


def test_adaptive_rounds_spend_the_budget_on_distinct_masks():
    started = ProxySPEX(adaptive=True, budget=300).start(18, 3)
    sizes = []
    while not started.done():
        masks = started.ask()
        sizes.append(len(masks))
        started.tell(masks, and_or(masks))
    assert sum(sizes) == 300
    assert len(sizes) > 4
    assert len(distinct(started.masks)) == 300
    fresh = drawn(18, 500, 9)
    assert r_squared(and_or(fresh), started.result().surrogate.predict(fresh)) > 0.97


@pytest.mark.parametrize("options", [{"max_order": 1}, {"max_order": 10}, {"keep": 0.9}, {"keep": "auto"}])
def test_adaptive_rounds_go_with_every_option(options):
    started = explore(ProxySPEX(adaptive=True, budget=160, **options), and_or, 12)
    assert len(started.masks) == 160
    assert np.isfinite(started.result().surrogate.predict(drawn(12, 20))).all()


def test_chosen_masks_are_learnt_from_and_never_scored_on():
    started = explore(ProxySPEX(adaptive=True, budget=300), and_or, 18)
    sample = started.sample()
    chosen = (~sample.drawn) & ((~sample.masks).sum(axis=1) > 2)
    assert 0 < chosen.sum() < sample.drawn.sum()
    held = np.concatenate(sample.folds())
    assert sorted(held.tolist()) == np.flatnonzero(sample.drawn).tolist()


def test_a_mask_and_its_complement_are_held_out_together():
    """Where orders are odd, one has the other's value with the sign changed: a model that has seen one would seem to predict the other."""
    sample = explore(ProxySPEX(), and_or, 25).sample()
    fold_of = {sample.masks[row].tobytes(): number for number, held in enumerate(sample.folds()) for row in held}
    pairs = [(fold, fold_of.get((~np.frombuffer(mask, dtype=np.bool_)).tobytes())) for mask, fold in fold_of.items()]
    assert sum(other is not None for _, other in pairs) > 100
    assert all(other in {None, fold} for fold, other in pairs)


def test_the_most_telling_masks_are_those_least_like_what_is_known():
    known = drawn(12, 150)
    known[:, 0] = True  # nothing is known about what happens without component 0
    posterior = learn(known, 3.0 * known[:, 1] + known[:, 2] * known[:, 3], 3)
    chosen = most_telling(posterior, 20, np.random.default_rng(0), known)
    assert len(distinct(chosen)) == 20
    assert (~chosen[:, 0]).mean() > 0.8


def test_pairs_are_suspected_from_masks_of_all_sizes():
    """Random masks come by size, and more than the kernel learns from: here the first 2,600 lack component 0, which adds to all others."""
    masks = np.unique(drawn(16, 6000), axis=0)
    masks = np.concatenate([masks[~masks[:, 0]][:2600], masks[masks[:, 0]][:2600]])
    values = 3.0 * masks[:, 0] + 3.0 * masks[:, 1] + 2.0 * (masks[:, 2] & masks[:, 3])
    sample = Sample(masks, values, 2)
    effects = np.where(np.arange(16) < 2, 3.0, np.where(np.arange(16) < 4, 2.0, 0.0))
    found = next_pairs(sample, effects, None, 1, masks[:0])
    assert np.flatnonzero(~found[0]).tolist() == [2, 3]


def test_a_run_stops_once_r2_is_good_enough():
    started = explore(ProxySPEX(until_r2=0.95, budget=2000), and_or, 20)
    assert len(started.masks) < 2000
    assert started.result().diagnostics["r2_cv"] >= 0.95


def test_a_run_stops_once_intervals_are_narrow_enough():
    def noisy(masks):
        return and_or(masks) + np.random.default_rng(len(masks)).normal(size=len(masks)) * 0.2

    started = explore(ProxySPEX(until_width=0.7, budget=1500), noisy, 20)
    top = started.result().table.slice(0, 10)
    assert len(started.masks) < 1500
    assert np.max(top["hi"].to_numpy() - top["lo"].to_numpy()) <= 0.7


def test_what_cannot_be_reached_ends_with_the_budget():
    assert len(explore(ProxySPEX(until_width=1e-9, budget=200), and_or, 20).masks) == 200
    with pytest.raises(UserError, match=r"until_width.*max_order"):
        ProxySPEX(until_width=1.0, max_order=1).start(10)


def test_rounds_told_again_give_the_same_questions():
    first = explore(ProxySPEX(adaptive=True, budget=200), and_or, 15, 4)
    again = explore(ProxySPEX(adaptive=True, budget=200), and_or, 15, 4)
    assert np.array_equal(first.masks, again.masks)
    assert first.result().table.equals(again.result().table)


# ---- keep probability


def fragile(masks):
    """A value that only stands while nearly everything is there."""
    return 10.0 * (masks.sum(axis=1) >= 0.85 * masks.shape[1]) + masks[:, 0]


def test_masks_keep_as_many_as_they_are_told_to():
    started = explore(ProxySPEX(keep=0.9, budget=600), and_or, 40)
    random_part = started.masks[(~started.masks).sum(axis=1) > 1]
    assert random_part.mean() == pytest.approx(0.9, abs=0.03)
    assert started.keep_probability == 0.9


@pytest.mark.parametrize("proxy", ["auto", "trees", "kernel", "linear"])
def test_a_surrogate_is_right_on_masks_of_its_own_kind(proxy):
    masks, fresh = drawn(14, 800, 0, 0.8), drawn(14, 300, 1, 0.8)
    model = ProxySPEX(proxy=proxy, keep=0.8).fit(masks, and_or(masks))
    assert model.findings.surrogate.keep_probability == 0.8
    assert model.score(fresh, and_or(fresh)) > 0.95
    assert model.findings.index == "wbii"


def test_exact_indices_come_out_of_biased_masks():
    masks = drawn(8, 200, 0, 0.75)
    model = ProxySPEX(keep=0.75, max_order=3).fit(masks, and_or(masks))
    bii = {tuple(row["components"]): row["value"] for row in model.interactions("bii", min_order=2).to_pylist() if abs(row["value"]) > 0.3}
    assert bii == pytest.approx({(0, 1): 2.0, (2, 3): -3.0}, abs=0.2)


def test_auto_keep_goes_where_values_resemble_the_intact_one():
    started = explore(ProxySPEX(keep="auto", budget=400), fragile, 30)
    assert started.keep_probability >= 0.9
    assert any("probability" in note for note in started.result().notes)
    assert explore(ProxySPEX(keep="auto", budget=400), lambda masks: masks[:, :10].sum(axis=1).astype(float), 30).keep_probability == 0.5


def test_auto_keep_of_given_masks_is_their_share():
    masks = drawn(12, 400, 0, 0.8)
    assert ProxySPEX(keep="auto").fit(masks, and_or(masks)).findings.diagnostics["keep_probability"] == pytest.approx(0.8, abs=0.03)


def test_a_pilot_compares_with_the_intact_value():
    masks, kept = pilot_masks(40, np.random.default_rng(0))
    assert masks[0].all()
    assert not masks[1].any()
    assert set(kept[2:]) == set(PILOT_GRID)
    values = np.where(kept >= 0.8, 1.0, 0.0)
    assert resembling(kept, values) == 0.8
    assert resembling(kept, np.zeros(len(kept))) == PILOT_GRID[0]


def test_keep_has_to_be_a_probability():
    for wrong in (0.0, 1.0, 1.5, "half"):
        with pytest.raises(ValueError, match="keep"):
            ProxySPEX(keep=wrong)


def test_sweeps_are_told_from_chance():
    sweep = np.concatenate([single_ablations(20), drawn(20, 200)])
    assert random_rows(sweep).sum() == 200
    assert random_rows(drawn(4, 200)).all()
    near = drawn(10, 500, 0, 0.95)
    assert random_rows(near, 0.95).all()


# ---- intervals


def test_under_noise_intervals_hold_the_truth_and_significant_interactions_are_mostly_real_and_many():
    inside = total = hits = false = wanted = 0
    for seed in range(4):
        game, masks = planted(24, 40, seed), drawn(24, 600, seed)
        noise = np.random.default_rng([seed, 1]).normal(size=600) * 0.5
        rows = ProxySPEX(random_state=seed).fit(masks, game.predict(masks) + noise).interactions("fourier", min_order=1).to_pylist()
        truth = game.terms()
        for row in rows:
            if tuple(row["components"]) in truth:
                total += 1
                inside += row["lo"] <= truth[tuple(row["components"])] <= row["hi"]
        named = {tuple(row["components"]) for row in rows if row["significant"] and len(row["components"]) > 1}
        strong = {members for members, value in truth.items() if len(members) > 1 and abs(value) > 0.5}
        hits, wanted, false = hits + len(named & strong), wanted + len(strong), false + len(named - truth.keys())
    assert inside / total >= 0.9
    assert hits / wanted > 0.8
    assert false <= 0.1 * hits


# ---- effects by gradients as priors


def told(*guesses):
    """A report of these effects, float64 `(queries, n)` each, as priors."""
    effects = {f"method {number}": np.asarray(guess) for number, guess in enumerate(guesses)}
    return GradientReport(effects, priors=tuple(effects))


def informed(effects, count, guesses):
    """R² on fresh masks without noise of ProxySPEX fitted to `count` values of a noisy sum, with guesses of the effects as priors (None: without)."""
    n = len(effects)
    masks, fresh = drawn(n, count), drawn(n, 400, 1)
    explorer = ProxySPEX(max_order=2).start(n)
    explorer = explorer if guesses is None else explorer.with_gradients(told(*(guess[None] for guess in guesses)))
    noise = np.random.default_rng(2).normal(size=count) * np.abs(effects).sum() / 15
    explorer.tell(masks, masks @ effects + noise)
    truth = fresh @ effects
    return 1 - np.mean((explorer.result().surrogate.predict(fresh) - truth) ** 2) / np.var(truth)


def test_good_guesses_of_effects_are_worth_evaluations():
    effects = np.random.default_rng(0).normal(size=30)
    near = effects + np.random.default_rng(1).normal(size=30) * 0.3
    assert informed(effects, 60, [near]) > informed(effects, 60, None) + 0.1


def test_guesses_of_which_effects_are_strong_are_worth_evaluations_without_their_sizes():
    effects = np.random.default_rng(0).normal(size=40) * (np.arange(40) < 12)
    rough = np.where(effects, np.sign(np.random.default_rng(3).normal(size=40)), 0.05)
    assert informed(effects, 40, [rough]) > informed(effects, 40, None) + 0.1


def test_guesses_that_say_nothing_do_no_harm():
    effects = np.random.default_rng(0).normal(size=30)
    wrong = np.random.default_rng(3).normal(size=(2, 30))
    assert informed(effects, 120, wrong) > informed(effects, 120, None) - 0.05


def test_a_query_is_fitted_with_guesses_of_its_own():
    explorer = ProxySPEX().start(4).with_gradients(told(np.arange(8.0).reshape(2, 4)))
    masks = drawn(4, 64)
    first, second = (explorer.proxy_for(query)(Sample(masks, masks @ np.arange(4.0 * query, 4.0 * query + 4), 2), [np.arange(16)]) for query in (0, 1))
    for offers in (first, second):
        assert np.nanmax(np.abs(offers["gradients"].held_out - offers["gradients"].build().predict(masks))) < 0.01


# ---- queries


def test_many_queries_get_a_cheap_proxy_and_a_note():
    assert affordable_proxy("auto", AFFORDABLE, 1) == ("auto", None)
    proxy, note = affordable_proxy("auto", AFFORDABLE, 2)
    assert proxy == CHEAP
    assert "too many for auto" in note
    assert affordable_proxy("linear", 10**6, 10**6) == ("linear", None)
    assert affordable_proxy("gradient", 1, 1)[0] == CHEAP


# ---- what somebody else measured


@pytest.mark.parametrize("proxy", ["kernel", "linear", "trees"])
def test_rows_given_several_times_invent_no_interactions(proxy):
    """With a copy of each row on both sides of every split, a fit would be scored on what it has seen."""
    masks, noise = drawn(20, 80), np.random.default_rng(1).normal(size=80)
    found_once, found_thrice = (
        ProxySPEX(proxy=proxy, max_order=3).fit(np.repeat(masks, copies, axis=0), np.repeat(noise, copies)).findings for copies in (1, 3)
    )
    assert found_thrice.diagnostics["r2_cv"] == pytest.approx(found_once.diagnostics["r2_cv"])
    assert found_thrice.diagnostics["r2_cv"] < 0.1
    assert not any(found_thrice.table["significant"].to_pylist())


def test_single_effects_of_noisy_rows_have_intervals():
    """One difference of two measurements is no exact effect, though all single ablations are among the rows."""
    masks = drawn(5, 300)
    singles = ProxySPEX().fit(masks, masks[:, 0] + np.random.default_rng(1).normal(size=300)).findings.singles.to_pylist()
    assert {row["method"] for row in singles} == {"surrogate"}
    assert all(row["lo"] <= true <= row["hi"] for row, true in zip(singles, (1, 0, 0, 0, 0), strict=True))
    assert singles[0]["lo"] < singles[0]["value"] < singles[0]["hi"]


def test_effects_are_over_masks_such_as_were_given():
    masks = drawn(40, 400, keep=0.9)
    fitted = ProxySPEX(proxy="linear").fit(masks, masks[:, :3].all(axis=1) + 0.05 * np.random.default_rng(1).normal(size=400))
    assert fitted.findings.diagnostics["keep_probability"] == pytest.approx(0.9, abs=0.01)
    assert any("keep 90% of the components" in note for note in fitted.findings.notes)
    effects = fitted.findings.singles["value"].to_numpy()
    np.testing.assert_allclose(effects[:3], 0.9**2, atol=0.06)  # the others are both there 81 times of 100
    np.testing.assert_allclose(effects[3:], 0, atol=0.06)


def test_random_masks_of_one_value_are_not_called_a_value_that_never_changes():
    started = explore(ProxySPEX(budget=1500), lambda masks: masks.all(axis=1).astype(float), 60)
    notes = " ".join(started.result().notes)
    assert "have the same value, although other masks do not" in notes
    assert "nothing to explain" not in notes


def test_a_value_that_changes_in_rows_not_learnt_from_is_no_error():
    findings = explore(ProxySPEX(budget=1500), lambda masks: masks.all(axis=1).astype(float), 100).result()
    assert np.isfinite(findings.surrogate.coefficients).all()


def test_few_components_have_few_masks_that_keep_nearly_all_and_that_is_reported():
    notes = explore(ProxySPEX(budget=200, keep=0.95), lambda masks: masks.sum(axis=1).astype(float), 12).result().notes
    assert any("are few" in note and "%" in note for note in notes)


def test_too_few_other_rows_are_not_taken_for_a_sample_of_their_own():
    near = np.concatenate([single_ablations(20), np.zeros((1, 20), dtype=bool)])
    assert random_rows(near).all()


def scattered_sets(rng):
    """Forty sets of one to five of 32 components."""
    return [tuple(sorted(rng.choice(32, order, replace=False).tolist())) for order in rng.integers(1, 6, 40)]


def sum_of(sets, sizes, masks):
    return sum((c * (1.0 - 2.0 * masks[:, s]).prod(axis=1) for s, c in zip(sets, sizes, strict=True)), np.zeros(len(masks)))


@pytest.mark.parametrize("seed", [0, 1])
def test_masks_in_pairs_of_complements_leave_nothing_to_chance_in_the_kernel(seed):
    """Forty terms without hierarchy, and too few masks for them: float64, on fresh masks, noise-free. Sets that fit by chance made it worse than the mean."""
    rng = np.random.default_rng(seed)
    sets, sizes = scattered_sets(rng), rng.normal(size=40)
    half = drawn(32, 250, seed=2)
    masks = np.concatenate([half, ~half])
    fitted = ProxySPEX(n=32).fit(masks, sum_of(sets, sizes, masks))
    fresh = drawn(32, 1000, seed=3)
    values = sum_of(sets, sizes, fresh)
    assert np.mean((fitted.predict(fresh) - values) ** 2) < 0.55 * np.var(values)


def test_intervals_hold_what_a_surrogate_that_explains_little_has_shrunk_away():
    """Float64, noise-free. Intervals that knew the rows of the fit alone held four of five: a kernel follows those rows, whatever it shrinks."""
    held = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sets, sizes, masks = scattered_sets(rng), rng.uniform(1, 2, size=40), drawn(32, 500, seed=seed)
        table = ProxySPEX(n=32).fit(masks, sum_of(sets, sizes, masks)).interactions("fourier", min_order=1)
        terms = dict(zip(sets, sizes, strict=True))
        held += [row["lo"] <= terms[members] <= row["hi"] for row in table.to_pylist() if (members := tuple(row["components"])) in terms]
    assert np.mean(held) > 0.9
