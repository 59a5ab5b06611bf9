"""Slopes at the intact input and at single ablations: what they tell of pairs, what is bought, and what explorers do with it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spectral.known_games import exact_slopes, planted

from raysp.explorers import ProxySPEX, Screen
from raysp.explorers.changes import Changes, estimated
from raysp.explorers.purchases import FEWEST_AROUND, Purchases
from raysp.masks import lookup
from raysp.sampling.ablations import ablations, single_ablations
from raysp.spectral.fourier import FourierSurrogate

N = 24
PAIRS = list(itertools.combinations(range(N), 2))


@pytest.fixture(scope="module")
def game():
    return planted(N, 60, 3)


def deviations(values, n=N):
    """v(all) - v(without both) - both single effects, of all pairs in order."""
    found = values(ablations(n, [(), *((i,) for i in range(n))]))
    effects = found[0] - found[1:]
    pairs = list(itertools.combinations(range(n), 2))
    return found[0] - values(ablations(n, pairs)) - effects[[i for i, _ in pairs]] - effects[[j for _, j in pairs]]


def noise(shape, seed=9):
    return np.random.default_rng(seed).normal(size=shape)


def explored(explorer, game, price, slopes_of, n=N):
    """The explorer at its end, and its rounds: numbers of components removed by each mask, and whether slopes were asked."""
    started, rounds = explorer.start(n, 0), []
    started = started if price is None else started.with_slopes(price)
    while len(masks := started.ask()):
        asked = started.asks_slopes
        rounds.append(((~masks).sum(axis=1).tolist(), asked))
        started.tell(masks, game.predict(masks), None, slopes_of(masks)[:, None, :] if asked else None)
    return started, rounds


def spent(rounds, price):
    return sum(len(sizes) * (price if asked else 1) for sizes, asked in rounds)


# ---- what slopes tell of pairs


def test_changes_of_a_multilinear_function_are_the_deviations_of_pairs(game):
    masks = single_ablations(N)
    found = Changes.of(masks, exact_slopes(game, masks))
    guess, apart = found.estimates(np.array(PAIRS))
    assert guess == pytest.approx(deviations(game.predict), abs=1e-9)
    assert apart == pytest.approx(np.zeros(len(PAIRS)), abs=1e-9)
    assert found.agree
    order = np.argsort(-np.abs(guess), kind="stable")[:5]
    assert {tuple(pair) for pair in found.ranked[:5].tolist()} == {PAIRS[row] for row in order}


def test_a_pair_of_which_one_component_has_slopes_has_one_estimate(game):
    masks = single_ablations(N)
    slopes = exact_slopes(game, masks)
    slopes[5:] = np.nan  # only the first four components are removed with slopes
    found = Changes.of(masks, slopes)
    guess, apart = found.estimates(np.array(PAIRS))
    known = np.array([i < 4 for i, _ in PAIRS])
    assert guess[known] == pytest.approx(deviations(game.predict)[known], abs=1e-9)
    assert np.isnan(guess[~known]).all()
    assert np.isnan(apart).tolist() == [not (i < 4 and j < 4) for i, j in PAIRS]
    assert Changes.of(masks[1:], slopes[1:]) is None
    assert Changes.of(masks, None) is None


def test_estimates_that_contradict_each_other_are_not_trusted():
    masks = single_ablations(N)
    found = Changes.of(masks, noise(masks.shape))
    assert not found.agree
    assert "contradict each other" in found.note()


@pytest.mark.parametrize("helpful", [True, False])
def test_a_single_enormous_estimate_decides_nothing(game, helpful):
    masks = single_ablations(N)
    slopes = exact_slopes(game, masks) if helpful else noise(masks.shape)
    for first, second in ((1, 4), (2, 7)):
        slopes[1 + first, second] += 1e3
        slopes[1 + second, first] += -1e3 if helpful else 1e3
    found = Changes.of(masks, slopes)
    one, other = (side[np.triu_indices(N, 1)] for side in (found.table, found.table.T))
    assert (np.corrcoef(one, other)[0, 1] > 0.9) is not helpful
    assert found.agree is helpful


def constant(masks):
    return np.zeros(len(masks))


def measured_pairs(game, count, seed=0):
    chosen = np.random.default_rng(seed).permutation(len(PAIRS))[:count]
    masks = np.concatenate([single_ablations(N), ablations(N, [PAIRS[row] for row in np.sort(chosen)])])
    return masks, game.predict(masks)


def test_estimates_are_scaled_to_measured_pairs_and_as_uncertain_as_they_were_wrong(game):
    masks, values = measured_pairs(game, 80)
    near = single_ablations(N)
    slopes = exact_slopes(game, near)
    doubled = Changes.of(near, slopes[0] + 2 * (slopes - slopes[0]))
    found = estimated(doubled, masks, values, constant, 1000)
    assert len(found.masks) == len(PAIRS) - 80
    assert found.values == pytest.approx(game.predict(found.masks), abs=1e-9)
    assert found.variances == pytest.approx(np.zeros(len(found.masks)), abs=1e-12)
    rough = estimated(Changes.of(near, slopes + 0.5 * noise(near.shape)), masks, values, constant, 1000)
    errors = (rough.values - game.predict(rough.masks)) ** 2
    assert 0.5 < np.mean(errors) / np.mean(rough.variances) < 2
    # Those are kept that a surrogate lacks most.
    few = estimated(doubled, masks, values, constant, 7)
    left = np.abs(game.predict(found.masks))
    assert set(np.abs(few.values).round(9)) == set(np.sort(left)[-7:].round(9))


def test_estimates_that_measured_pairs_do_not_bear_out_are_none(game):
    masks, values = measured_pairs(game, 80)
    near = single_ablations(N)
    slopes = exact_slopes(game, near)
    assert estimated(Changes.of(near, 2 * slopes[0] - slopes), masks, values, constant, 100) is None  # of the wrong sign
    assert estimated(Changes.of(near, slopes), masks[: N + 1], values[: N + 1], constant, 100) is None  # nothing to compare with
    assert estimated(Changes.of(near, slopes), masks[1:], values[1:], constant, 100) is None  # no intact input


# ---- what is bought


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(-5, 3000), st.floats(0.5, 20))
def test_slopes_take_at_most_half_of_what_is_kept_for_pairs(n, pairs, price):
    count = Purchases("auto", price).affordable_around(n, pairs)
    assert count == 0 or FEWEST_AROUND <= count <= n
    assert (price - 1) * count <= max(pairs, 0) / 2
    assert count == 0 or pairs < n * (n - 1) / 2


def test_a_few_single_ablations_are_tried_first(game):
    explorer, rounds = explored(ProxySPEX(budget=400), game, 2.0, lambda masks: exact_slopes(game, masks))
    assert [(len(sizes), set(sizes), asked) for sizes, asked in rounds[:4]] == [(1, {0}, True), (16, {1}, True), (8, {1}, True), (1, {N}, False)]
    assert 396 <= spent(rounds, 2.0) <= 400
    # The strongest ones by the slopes at the intact input come first.
    first = np.argmin(explorer.masks[1:17], axis=1)
    strongest = np.argsort(-np.abs(exact_slopes(game, np.ones((1, N), dtype=bool))[0]), kind="stable")[:16]
    assert set(first.tolist()) == set(strongest.tolist())
    assert "Slopes at the intact input and at 24 single ablations estimate" in " ".join(explorer.result().notes)


def test_slopes_that_contradict_each_other_are_bought_for_the_first_few_only(game):
    explorer, rounds = explored(ProxySPEX(budget=400), game, 2.0, lambda masks: noise(masks.shape, len(masks)))
    assert [len(sizes) for sizes, asked in rounds if asked and max(sizes) <= 1] == [1, 16]
    notes = " ".join(explorer.result().notes)
    assert "contradict each other" in notes
    assert "a first fit expected" in notes


@pytest.mark.parametrize("explorer", [ProxySPEX(budget=400, slopes="on"), Screen(budget=120, slopes="on")], ids=["proxyspex", "screen"])
def test_slopes_that_are_wanted_in_any_case_are_bought_without_a_trial(game, explorer):
    _, rounds = explored(explorer, game, 2.0, lambda masks: noise(masks.shape, len(masks)))
    assert [len(sizes) for sizes, asked in rounds if asked and max(sizes) <= 1] == [1, N]


@pytest.mark.parametrize("options", [{"slopes": "off"}, {"focus": "average"}, {"proxy": "trees"}])
def test_without_use_for_them_no_slopes_are_bought_around_the_intact_input(game, options):
    _, rounds = explored(ProxySPEX(budget=400, **options), game, 1.0, lambda masks: exact_slopes(game, masks))
    assert not any(asked for sizes, asked in rounds if max(sizes) <= 1)


# ---- what explorers do with them


def test_pairs_that_were_not_measured_are_estimated(game):
    exact = deviations(game.predict)
    errors = {}
    for slopes in ("auto", "off"):
        explorer, _ = explored(ProxySPEX(budget=150, slopes=slopes), game, 2.0, lambda masks: exact_slopes(game, masks))
        unseen = lookup(explorer.masks, ablations(N, PAIRS)) < 0
        assert unseen.sum() > 200
        errors[slopes] = np.mean((deviations(explorer.result().surrogate.predict) - exact)[unseen] ** 2)
    assert errors["auto"] < 0.2 * errors["off"]


def test_the_pairs_that_slopes_suggest_are_measured(game):
    exact = deviations(game.predict)
    strongest = ablations(N, [PAIRS[row] for row in np.argsort(-np.abs(exact))[:10]])
    explorer, _ = explored(ProxySPEX(budget=200, focus="intact"), game, 2.0, lambda masks: exact_slopes(game, masks))
    assert (lookup(explorer.masks, strongest) >= 0).all()
    assert "those for which slopes suggest the strongest deviations" in " ".join(explorer.result().notes)


@pytest.mark.parametrize("explorer", [ProxySPEX(budget=150), ProxySPEX(budget=150, keep="auto"), Screen(budget=90)], ids=["spread", "pilot", "screen"])
@pytest.mark.parametrize("useful", [True, False])
def test_a_run_that_resumes_asks_for_the_same(game, explorer, useful):
    def slopes_of(masks):
        return exact_slopes(game, masks) if useful else noise(masks.shape, len(masks))

    first, rounds = explored(explorer, game, 2.0, slopes_of)
    again, start = explorer.start(N, 0).with_slopes(2.0), 0
    for sizes, asked in rounds:
        rows = slice(start, start + len(sizes))
        start += len(sizes)
        np.testing.assert_array_equal(again.ask(), first.masks[rows])
        assert again.asks_slopes == asked
        again.tell(first.masks[rows], first.outputs[rows], None, first.slopes[rows] if asked else None)
    assert again.done()
    np.testing.assert_array_equal(first.result().surrogate.predict(first.masks), again.result().surrogate.predict(first.masks))
    assert first.result().notes == again.result().notes


def test_a_pilot_does_not_measure_the_intact_input_again(game):
    explorer, rounds = explored(ProxySPEX(budget=400, keep="auto"), game, 2.0, lambda masks: exact_slopes(game, masks))
    alone, _ = explored(ProxySPEX(budget=400, keep="auto", slopes="off"), game, None, None)
    assert rounds[0] == ([0], True)
    assert explorer.keep_probability == alone.keep_probability
    assert len(np.unique(explorer.masks, axis=0)) == len(explorer.masks)
    pilot = len(rounds[1][0])
    np.testing.assert_array_equal(explorer.masks[: 1 + pilot], alone.masks[: 1 + pilot])
    np.testing.assert_array_equal(explorer.importance[: 1 + pilot] > 0, alone.importance[: 1 + pilot] > 0)


def covering(n, pair, seed):
    """Random single effects, and a pair of which either suffices."""
    weights = np.random.default_rng(seed).normal(size=n)
    weights[list(pair)] = 0.0
    i, j = pair
    alone = {(k,): -float(weight) / 2 for k, weight in enumerate(weights)}
    return FourierSurrogate.from_dict(n, {**alone, (): float(weights.sum()) / 2 + 21.0, (i,): -7.0, (j,): -7.0, (i, j): -7.0})


@settings(max_examples=30, deadline=None)
@given(st.integers(24, 50), st.integers(0, 99), st.data())
def test_a_screening_with_slopes_finds_a_covered_pair_for_few_evaluations_more_than_single_ablations(n, seed, data):
    pair = tuple(sorted(data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True))))
    game = covering(n, pair, seed)
    assert game.predict(ablations(n, [(), (pair[0],), pair])) == pytest.approx(game.predict(np.ones((1, n), dtype=bool))[0] - np.array([0.0, 0.0, 28.0]))
    budget, price = 4 * n, 2.0
    screening, rounds = explored(Screen(budget=budget), game, price, lambda masks: exact_slopes(game, masks), n)
    strongest = screening.result().table.slice(0, 1).to_pylist()[0]
    assert tuple(strongest["components"]) == pair
    assert strongest["value"] == pytest.approx(28.0)
    assert spent(rounds, price) == budget


def test_a_screening_whose_slopes_contradict_each_other_measures_what_one_without_them_does(game):
    def pairs(explorer):
        return {tuple(np.flatnonzero(~mask).tolist()) for mask in explorer.masks}

    price = 2.0
    misled, rounds = explored(Screen(budget=117), game, price, lambda masks: noise(masks.shape, len(masks)))
    alone, _ = explored(Screen(budget=100, slopes="off"), game, price, None)
    assert spent(rounds, price) == 117
    assert pairs(misled) == pairs(alone)
    assert any("contradict each other" in note for note in misled.result().notes)


@pytest.mark.parametrize("options", [{"slopes": "off", "budget": 90}, {}, {"scores": tuple(range(N)), "budget": 90}, {"top_k": 6, "budget": 90}])
def test_a_screening_without_use_for_slopes_asks_for_none(game, options):
    _, rounds = explored(Screen(**options), game, 2.0, None)
    assert not any(asked for _, asked in rounds)


def test_a_screening_that_measures_all_pairs_buys_no_slopes(game):
    _, rounds = explored(Screen(budget=400), game, 2.0, None)
    assert not any(asked for _, asked in rounds)
