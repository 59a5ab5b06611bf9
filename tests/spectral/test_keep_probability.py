"""The same function in the Fourier basis of another P(keep)."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import INDICES
from raysp.spectral.walsh import all_masks

probabilities = st.floats(0.1, 0.9)


def game(n, seed):
    return FourierSurrogate.from_values(all_masks(n), np.random.default_rng(seed).normal(size=1 << n))


def by_set(surrogate, index, max_order=None):
    table = surrogate.interactions(index, max_order)
    return dict(zip(map(tuple, table["components"].to_pylist()), table["value"].to_pylist(), strict=True))


@given(st.integers(1, 6), st.integers(0, 1000), probabilities, probabilities)
@settings(max_examples=30)
def test_changing_the_basis_changes_no_value_and_can_be_undone(n, seed, p, q):
    plain = game(n, seed)
    biased = plain.rebased(p).rebased(q)
    assert biased.keep_probability == q
    assert np.allclose(biased.predict(all_masks(n)), plain.predict(all_masks(n)))
    assert np.allclose(biased.rebased(0.5).coefficients, plain.coefficients)


@given(st.integers(1, 6), st.integers(0, 1000), probabilities)
@settings(max_examples=30)
def test_energy_is_the_variance_over_masks_of_its_own_kind(n, seed, p):
    plain = game(n, seed)
    masks, biased = all_masks(n), plain.rebased(p)
    chance = np.where(masks, p, 1 - p).prod(axis=1)
    values = plain.predict(masks)
    mean = chance @ values
    assert biased.energy()[0] == pytest.approx(mean**2)
    assert biased.energy()[1:].sum() == pytest.approx(chance @ (values - mean) ** 2)


@pytest.mark.parametrize("index", [name for name in INDICES if name != "wbii"])
@pytest.mark.parametrize("p", [0.2, 0.9])
def test_every_index_is_the_same_from_any_basis(index, p):
    plain = game(6, 3)
    for order in (2, None):
        expected, found = by_set(plain, index, order), by_set(plain.rebased(p), index, order)
        assert found.keys() == expected.keys()
        assert all(found[members] == pytest.approx(expected[members], abs=1e-9) for members in expected)


@pytest.mark.parametrize("p", [0.3, 0.5, 0.8])
def test_weighted_banzhaf_is_the_mean_joint_effect_over_such_contexts(p):
    n, plain = 5, game(5, 1)
    found = by_set(plain.rebased(p), "wbii")
    for members in [(0,), (1, 3), (0, 2, 4)]:
        rest = [i for i in range(n) if i not in members]
        total = 0.0
        for context in itertools.product([False, True], repeat=len(rest)):
            chance = np.prod([p if kept else 1 - p for kept in context])
            mask = np.zeros(n, dtype=bool)
            mask[rest] = context
            for kept in itertools.product([False, True], repeat=len(members)):
                mask[list(members)] = kept
                total += chance * (-1) ** (len(members) - sum(kept)) * plain.predict(mask[None])[0]
        assert found[members] == pytest.approx(total)


def test_at_one_half_weighted_banzhaf_is_banzhaf():
    assert by_set(game(5, 2), "wbii") == pytest.approx(by_set(game(5, 2), "bii"))


def test_errors_of_independent_coefficients_go_through_the_basis():
    plain = game(5, 4).rebased(0.8)
    errors = np.random.default_rng(0).uniform(0.1, 1, len(plain.sets))
    for index in ("bii", "sii", "fourier", "wbii"):
        sets, _, spread = plain.with_error(errors).index(index)
        _, _, factored = plain.with_error(np.diag(errors)).index(index)
        assert len(sets) == len(spread)
        assert np.allclose(spread, factored)


def test_strongest_take_and_combined_keep_the_basis():
    biased = game(5, 0).rebased(0.7)
    assert biased.strongest(3).keep_probability == 0.7
    assert FourierSurrogate.combined([biased, biased], [0.5, 0.5]).keep_probability == 0.7
    assert np.allclose(FourierSurrogate.combined([biased, biased], [0.5, 0.5]).predict(all_masks(5)), biased.predict(all_masks(5)))
