"""Diagnostics of functions whose kind is known."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spectral.known_games import additive, and_or, constant, parity, planted

from raysp.spectral.diagnostics import diagnose, direct_subset_rate, staircase_rate
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import from_tuples
from raysp.spectral.walsh import all_masks


def exact(function, n):
    return FourierSurrogate.from_values(all_masks(n), function(all_masks(n)))


def test_the_published_case_is_seven_eighths():
    """The empty set has no subset to miss and counts: without it the mean would be 5/6."""
    assert direct_subset_rate(from_tuples(4, [(), (1,), (2,), (1, 3)])) == 7 / 8
    assert direct_subset_rate(from_tuples(4, [(1,), (2,), (1, 3)])) == pytest.approx((0 + 0 + 1 / 2) / 3)
    assert np.isnan(direct_subset_rate(from_tuples(4, [])))
    assert np.isnan(staircase_rate(from_tuples(4, [])))


@given(st.integers(1, 6), st.integers(0, 1000), st.booleans())
def test_rates_are_their_definitions(n, seed, empty):
    rng = np.random.default_rng(seed)
    family = {tuple(np.flatnonzero(row).tolist()) for row in rng.random((20, n)) < 0.4} | ({()} if empty else set())
    direct = [np.mean([tuple(j for j in members if j != i) in family for i in members]) if members else 1.0 for members in family]
    reached = [any(all(tuple(sorted(path[:k])) in family for k in range(len(path) + 1)) for path in itertools.permutations(members)) for members in family]
    sets = from_tuples(n, family)
    assert direct_subset_rate(sets) == pytest.approx(np.mean(direct))
    assert staircase_rate(sets) == pytest.approx(np.mean(reached))


def test_an_additive_function_is_all_singles():
    found = diagnose(exact(additive, 8))
    assert found.energy[0] == pytest.approx(1)
    assert found.singles_share == pytest.approx(1)
    assert found.direct_subset_rate == found.staircase_rate == 1
    energies = np.arange(1.0, 6.0) ** 2
    assert found.effective_components == pytest.approx(energies.sum() ** 2 / (energies**2).sum())
    assert found.warning is None
    assert len(found.sentences()) == 1


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_conjunction_is_a_hierarchy(size):
    found = diagnose(exact(lambda masks: 2.0 * masks[:, :size].all(axis=1), 6))
    assert found.direct_subset_rate == found.staircase_rate == 1
    assert found.effective_components == pytest.approx(size)
    assert found.warning is None


def test_a_hierarchy_is_recognised():
    for surrogate in (exact(and_or, 8), planted(20, 80, 0), planted(60, 300, 1)):
        found = diagnose(surrogate)
        assert sum(found.energy) == pytest.approx(1)
        assert found.warning is None
    strict = diagnose(exact(and_or, 8))
    assert strict.direct_subset_rate == strict.staircase_rate == 1
    everything = diagnose(planted(20, 80, 0), top=81)  # every set planted extends another by one component
    assert everything.staircase_rate == 1 > everything.direct_subset_rate


def test_a_parity_is_a_peak_and_the_warning_names_what_would_do():
    found = diagnose(exact(parity, 9))
    assert found.energy == pytest.approx((0, 0, 0, 0, 0, 0, 1, 0, 0))
    assert found.effective_components == pytest.approx(7)
    assert (found.terms, found.direct_subset_rate, found.alone_share) == (2, 0.5, pytest.approx(1))
    assert "spex" in found.warning
    assert found.sentences()[-1] == found.warning


def test_scattered_terms_are_no_hierarchy():
    rng = np.random.default_rng(0)
    triples = {tuple(sorted(rng.choice(40, 3, replace=False).tolist())): 1.0 for _ in range(30)}
    assert "no hierarchy" in diagnose(FourierSurrogate.from_dict(40, triples)).warning
    pairs = {(i, i + 1): 1.0 for i in range(0, 40, 2)}
    assert diagnose(FourierSurrogate.from_dict(40, pairs)).warning is None  # pairs are tried without a hierarchy
    weak = {(i,): 1.0 for i in range(40)} | dict.fromkeys(triples, 0.2)
    assert diagnose(FourierSurrogate.from_dict(40, weak)).warning is None


def test_a_proxy_that_explains_nothing_is_a_warning_too():
    surrogate = planted(10, 20, 0)
    assert diagnose(surrogate, r2=0.9, r2_singles=0.5).warning is None
    assert "spex" in diagnose(surrogate, r2=0.01, r2_singles=0.0).warning
    flat = diagnose(FourierSurrogate.from_dict(7, {(): 1.0}), r2=-0.02, r2_singles=-0.02)
    assert "parity" in flat.warning


def test_a_constant_has_nothing_to_say():
    found = diagnose(exact(constant, 5), r2=float("nan"), r2_singles=float("nan"))
    assert (found.energy, found.warning, found.r2) == ((), None, None)
    assert found.sentences() == ("The surrogate is constant; there is nothing to explain.",)


def test_top_counts_the_empty_set():
    surrogate = FourierSurrogate.from_dict(4, {(1,): 4.0, (2,): 3.0, (1, 3): 2.0, (0, 1, 2): 0.1})
    found = diagnose(surrogate, top=4)
    assert (found.terms, found.direct_subset_rate, found.staircase_rate) == (4, 7 / 8, 1.0)


def test_a_dictionary_of_it_is_json():
    for surrogate in (planted(10, 20, 0), exact(constant, 3)):
        told = json.loads(json.dumps(diagnose(surrogate).as_dict(), allow_nan=False))
        assert {"energy", "direct_subset_rate", "staircase_rate", "warning"} <= set(told)
