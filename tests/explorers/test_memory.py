"""Memory grows with the masks asked for and not with the square of the components. Peaks are those of tracemalloc, which sees NumPy's arrays."""

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spectral.known_games import planted

from raysp.explorers import ProxySPEX, Screen, Singles
from raysp.explorers.base import Findings
from raysp.explorers.candidates import ranked_pairs
from raysp.explorers.fitting import quick_r2
from raysp.masks import lookup
from raysp.sampling.ablations import ablations, single_ablations
from raysp.sampling.draws import random_masks
from raysp.sampling.matching import lookup_removed
from raysp.sampling.tables import singles_table
from raysp.specs.validation import Validation
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.regression import extensions, ridge
from raysp.spectral.sets import singletons
from raysp.validation.planning import numbered_pair, plan

MIB = 1 << 20


def peak(work):
    """What `work()` gives, and the most bytes it held at once."""
    tracemalloc.start()
    try:
        found = work()
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n", [20_000, 100_000])
@pytest.mark.parametrize("explorer", [ProxySPEX(budget=300), Singles(budget=300), ProxySPEX(budget=300, keep=0.9, adaptive=True)], ids=repr)
def test_asking_takes_the_memory_of_the_masks_asked_for(explorer, n):
    started = explorer.start(n)
    if explorer.name == "proxyspex":
        first, most = peak(started.ask)
        assert len(first) <= 2
        assert most < MIB  # 778 MiB for n = 20,000 when all single ablations were built
        started.tell(first, np.ones(len(first)))
    masks, most = peak(started.ask)
    assert most < 8 * masks.size + 16 * MIB < n * n


@pytest.mark.parametrize("n", [20_000, 100_000])
def test_a_screening_with_given_scores_never_holds_all_single_ablations(n):
    scores = tuple(np.linspace(1, 0, n).tolist())
    started = Screen(top_k=20, scores=scores, budget=120).start(n)

    def explored():
        while not started.done():
            masks = started.ask()
            started.tell(masks, masks[:, :40].sum(axis=1) * 1.0)
        return started.result()

    findings, most = peak(explored)
    assert findings.diagnostics["kept"] == list(range(20))
    assert most < 200 * MIB < n * n


@pytest.mark.parametrize("n", [20_000, 100_000])
def test_low_impact_pairs_are_drawn_without_a_list_of_all(n):
    surrogate = FourierSurrogate.from_dict(n, {(0, 1): 1.0})
    findings = Findings(surrogate, singles_table(np.arange(n, dtype=np.float64), np.zeros(n), ["lasso"] * n), surrogate.interactions("bii", min_order=2), "bii")
    planned, most = peak(lambda: plan(findings, n, Validation(heldout=0, low_pairs=20), 0.5, np.random.default_rng(0)))
    assert len(set(planned.low_pairs)) == 20
    assert all(i < j < n // 2 for i, j in planned.low_pairs)
    assert most < 120 * MIB < n * n  # 800 MB for n = 20,000 and 20 GB for n = 100,000 when all pairs were listed


def test_a_fit_of_twenty_thousand_components_holds_no_square_of_them():
    n = 20_000
    masks = np.random.default_rng(0).random((60, n)) < 0.5
    findings, most = peak(lambda: Singles().fit(masks, masks[:, 0] * 1.0 + masks[:, 1]).findings)
    assert findings.singles.num_rows == n
    assert most < 300 * MIB < n * n


def test_a_preview_of_twenty_thousand_components_holds_no_square_of_them():
    masks = np.random.default_rng(0).random((60, 20_000)) < 0.5
    _, most = peak(lambda: quick_r2(masks, masks[:, 0] * 1.0))
    assert most < 100 * MIB < 20_000**2


def test_extensions_of_many_parents_are_scored_strip_by_strip(monkeypatch):
    game = planted(40, 30, 1)
    masks = np.random.default_rng(0).random((300, 40)) < 0.5
    values = game.predict(masks)
    residual = values - values.mean()
    whole = extensions(singletons(40), residual, masks, 3, 50)
    monkeypatch.setattr("raysp.spectral.regression.MOST_SCORES", 400)
    assert extensions(singletons(40), residual, masks, 3, 50).tuples() == whole.tuples()


# ---- what stands in for the long way gives the same


@given(st.integers(2, 40))
def test_pairs_by_number_come_in_the_order_of_the_upper_triangle(n):
    first, second = np.triu_indices(n, 1)
    assert [numbered_pair(number, n) for number in range(len(first))] == list(zip(first.tolist(), second.tolist(), strict=True))


def test_the_last_pair_of_many_components_has_the_last_number():
    n = 10**9
    assert numbered_pair(0, n) == (0, 1)
    assert numbered_pair(n * (n - 1) // 2 - 1, n) == (n - 2, n - 1)


@given(st.lists(st.integers(-6, 6), min_size=2, max_size=14), st.integers(0, 40))
def test_the_first_pairs_are_those_of_all_pairs_ranked(effects, limit):
    strength = np.array(effects, dtype=np.float64)
    kept = np.arange(len(effects))
    every = sorted(combinations(range(len(effects)), 2), key=lambda pair: (-abs(strength[pair[0]] * strength[pair[1]]), pair))
    assert ranked_pairs(kept, strength) == every
    found = ranked_pairs(kept, strength, limit)
    products = [abs(strength[i] * strength[j]) for i, j in every]
    assert len(set(found)) == len(found) == min(limit, len(every))
    assert [abs(strength[i] * strength[j]) for i, j in found] == products[: len(found)]
    if all(effects):
        assert found == every[: len(found)]


@given(st.integers(1, 12), st.integers(0, 30), st.integers(0, 5))
def test_single_ablations_are_found_without_being_built(n, count, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, n)) < 0.85
    assert np.array_equal(lookup_removed(masks), lookup(masks, single_ablations(n)))


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_single_effects_of_a_surrogate_are_differences_of_its_predictions(keep):
    game = planted(12, 30, 2).rebased(keep)
    predicted = game.predict(single_ablations(12))
    np.testing.assert_allclose(game.single_effects(), predicted[0] - predicted[1:], atol=1e-10)
    assert np.array_equal(ablations(12, [(), *((i,) for i in range(12))]), single_ablations(12))


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_a_ridge_is_the_same_by_either_square(shape):
    rng = np.random.default_rng(0)
    design, values = rng.normal(size=shape), rng.normal(size=shape[0])
    found = ridge(design, values, 2.0)
    np.testing.assert_allclose(design.T @ (values - design @ found), 2.0 * found, atol=1e-10)


def test_masks_drawn_strip_by_strip_are_those_drawn_at_once(monkeypatch):
    whole = random_masks(50, 40, 0.7, np.random.default_rng(3))
    monkeypatch.setattr("raysp.sampling.draws.STRIP", 120)
    assert np.array_equal(random_masks(50, 40, 0.7, np.random.default_rng(3)), whole)
