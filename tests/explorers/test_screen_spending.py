"""A screening with a budget: what it spends, what it finds, what it tells."""

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spectral.known_games import and_or, explore, found

from raysp.explorers import Screen
from raysp.explorers.candidates import ranked_triples
from raysp.runs.singles import ranked
from raysp.sampling.matching import distinct

EXAMPLES = settings(max_examples=40, deadline=None)


def covering(n, pair, seed=0, alone=0.0):
    """Random single effects and a pair of which either suffices; the first of them is worth `alone` by itself."""
    weights = np.random.default_rng(seed).normal(size=n)
    weights[list(pair)] = alone, 0.0

    def game(masks):
        x = masks.astype(float)
        return x @ weights + 28 * np.maximum(x[:, pair[0]], x[:, pair[1]])

    return game


def rough(n, seed):
    """A game with interactions of all orders."""
    rng = np.random.default_rng(seed)
    weights, mixed = rng.normal(size=n), rng.normal(size=(n, 3)) / np.sqrt(n)

    def total(masks, factors):  # row by row, as products of matrices round differently for other numbers of rows
        return (masks * factors).sum(axis=1)

    return lambda masks: total(masks, weights) + 4 * np.prod([np.tanh(total(masks, column)) for column in mixed.T], axis=0)


def there_is(n, order):
    return len({(size, removed) for size in {*range(min(order, n) + 1), n} for removed in itertools.combinations(range(n), size)})


@st.composite
def asked(draw):
    n = draw(st.integers(1, 14))
    order = draw(st.sampled_from([None, 2, 3]))
    scores = draw(st.sampled_from([None, "given"]))
    options = {} if scores is None else {"scores": tuple(np.random.default_rng(n).normal(size=n).tolist())}
    included = draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3))
    if included:
        options["always_include"] = tuple(included)
    least = Screen(**options).least_budget(n)
    return n, Screen(order=order, budget=draw(st.integers(least, there_is(n, order or 3) + 5)), **options)


@EXAMPLES
@given(asked(), st.integers(0, 9))
def test_masks_are_distinct_and_as_many_as_the_budget_or_as_there_are(case, seed):
    n, screen = case
    started = explore(screen, rough(n, seed), n)
    assert len(distinct(started.masks)) == len(started.masks) == screen.planned(n) == min(screen.options.budget, there_is(n, screen.options.order or 3))
    started.result()


@EXAMPLES
@given(asked(), st.integers(0, 9), st.data())
def test_resumed_runs_ask_what_uninterrupted_ones_do(case, seed, data):
    n, screen = case
    game, whole = rough(n, seed), explore(screen, rough(n, seed), n)
    told = data.draw(st.integers(0, len(whole.masks)))
    resumed = screen.start(n)
    if told:  # the values of a run that ended in the middle of a round
        resumed.tell(whole.masks[:told], game(whole.masks[:told]))
    while not resumed.done():
        resumed.tell(resumed.ask(), game(resumed.ask()))
    assert np.array_equal(resumed.masks, whole.masks)
    assert resumed.result().table.equals(whole.result().table)
    assert resumed.result().notes == whole.result().notes


@EXAMPLES
@given(st.integers(16, 64), st.sampled_from([0.0, 5.0]), st.integers(0, 99), st.data())
def test_a_component_that_another_covers_for_is_found_where_not_all_pairs_fit(n, alone, seed, data):
    pair = tuple(sorted(data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True))))
    budget = data.draw(st.integers(n + 2 + 2 * n, n + 1 + comb(n, 2)))
    findings = explore(Screen(budget=budget), covering(n, pair, seed, alone), n).result()
    assert found(findings, 1) == pytest.approx({pair: 28.0})
    assert set(pair) <= set(findings.diagnostics["kept"])


@pytest.mark.parametrize(("n", "pair"), [(16, (2, 6)), (16, (4, 15)), (20, (17, 19))])
@pytest.mark.parametrize("alone", [0.0, 5.0])
def test_a_covered_component_is_found_with_two_evaluations_a_component_beside_the_single_ablations(n, pair, alone):
    findings = explore(Screen(budget=3 * n + 2), covering(n, pair, alone=alone), n).result()
    assert found(findings, 1) == pytest.approx({pair: 28.0})


def test_all_pairs_of_sixteen_sentences_fit_and_triples_take_the_rest():
    game = covering(16, (5, 6), alone=4.94)
    findings = explore(Screen(budget=256), game, 16).result()
    orders = findings.table["order"].to_pylist()
    assert (orders.count(2), orders.count(3)) == (120, 118)
    assert found(findings, 1) == pytest.approx({(5, 6): 28.0})
    assert findings.notes[0] == "All 120 pairs of the 16 components were measured."
    assert findings.notes[1].startswith("118 of the 560 triples were measured: those whose pairs")


def test_mean_effects_rank_components_that_are_covered_for():
    singles = explore(Screen(budget=256), covering(16, (5, 6), alone=4.94), 16).result().singles
    assert singles["value"].to_pylist()[6] == pytest.approx(0.0)
    assert singles["average"].to_pylist()[5:7] == pytest.approx([4.94 + 2.8, 2.8])  # a tenth of contexts lack the other
    assert {single.component for single in ranked(singles.to_pylist())[:2]} == {5, 6}
    assert singles["average_lo"].null_count == singles["average_hi"].null_count == 16  # nothing is known of unmeasured sets


def test_mean_effects_are_those_of_the_surrogate_at_its_keep_probability():
    findings = explore(Screen(budget=40), rough(12, 3), 12).result()
    sets, values, _ = findings.surrogate.rebased(0.9).index("wbii", 1, 1)
    expected = {members[0]: value for members, value in zip(sets.tuples(), values, strict=True) if len(members) == 1}
    assert findings.singles["average"].to_numpy() == pytest.approx([expected[i] for i in range(12)])


def test_single_effects_that_were_not_measured_have_no_mean():
    scores = tuple(float(i) for i in range(20, 0, -1))
    singles = explore(Screen(scores=scores, budget=20), and_or, 20).result().singles
    methods, means = singles["method"].to_pylist(), singles["average"].to_pylist()
    assert methods.count("given") > 0
    assert all((mean is None) == (method == "given") for method, mean in zip(methods, means, strict=True))


def test_notes_tell_what_was_and_was_not_measured():
    findings = explore(Screen(budget=200), covering(30, (3, 21)), 30).result()
    pairs, blocks = findings.table["order"].to_pylist().count(2), findings.notes[1]
    assert findings.notes[0].startswith(f"{pairs} of the 435 pairs of 30 components were measured: ")
    assert findings.notes[0].endswith("Pairs that were not measured are assumed to be additive.")
    assert "removed blocks of weak components" in blocks
    assert int(blocks.split()[0]) + pairs + 32 == 200


@pytest.mark.parametrize(
    ("screen", "told"),
    [
        (Screen(top_k=4, budget=60), "32 of 60 evaluations were not used, as top_k is 4"),
        (Screen(order=2, budget=350), "23 of 350 evaluations were not used, as all pairs are measured and order is 2"),
        (Screen(budget=3000), "47 of 3000 evaluations were not used, as all 2953 masks"),
    ],
)
def test_what_is_left_of_a_budget_is_told(screen, told):
    n = {60: 20, 350: 25, 3000: 26}[screen.options.budget]
    assert any(note.startswith(told) for note in explore(screen, and_or, n).result().notes)
    assert not any("not used" in note for note in explore(Screen(budget=60), and_or, 20).result().notes)


def test_without_a_budget_k_follows_the_spread_of_the_effects():
    started = explore(Screen(), and_or, 30)
    assert len(started.masks) == 32 + comb(10, 2) == Screen().planned(30)
    assert set(started.result().table["order"].to_pylist()) == {2}


def test_what_triples_leave_of_their_share_goes_to_pairs():
    started = explore(Screen(top_k=4, order=3, budget=22), and_or, 12)
    assert len(started.masks) == 22
    assert started.result().table["order"].to_pylist().count(2) == 6


@given(st.integers(1, 9), st.integers(0, 99), st.integers(0, 90))
def test_triples_are_ranked_by_the_deviations_of_their_pairs(n, seed, limit):
    rng = np.random.default_rng(seed)
    pairs = {pair: float(rng.integers(-3, 4)) for pair in itertools.combinations(range(n), 2) if rng.random() < 0.8}
    every = [triple for triple in itertools.combinations(range(n), 3) if all(part in pairs for part in itertools.combinations(triple, 2))]
    expected = sorted(every, key=lambda triple: -sum(abs(pairs[part]) for part in itertools.combinations(triple, 2)))
    assert ranked_triples(n, pairs, limit) == expected[:limit]
    assert ranked_triples(n, pairs) == expected
