"""Masks drawn by size: the right numbers, each once, in pairs, and every mask of a size as often as any other."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.sampling.strata import allocated, binomial_shares, sized_masks, spread_shares


@given(n=st.integers(1, 14), count=st.integers(0, 3000), keep=st.sampled_from([0.5, 0.8]))
def test_the_whole_budget_is_allocated_and_no_size_gets_more_than_it_has(n: int, count: int, keep: float) -> None:
    for shares in (binomial_shares(n, keep), spread_shares(n), binomial_shares(n, keep) + spread_shares(n)):
        found = allocated(n, count, shares)
        assert found.sum() == min(count, 1 << n)
        assert all(0 <= found[s] <= comb(n, s) for s in range(n + 1))


@given(n=st.integers(1, 12), count=st.integers(1, 4096), seed=st.integers(0, 5))
def test_masks_are_distinct_and_have_the_sizes_asked_for(n: int, count: int, seed: int) -> None:
    counts = allocated(n, count, binomial_shares(n, 0.5) + spread_shares(n))
    masks = sized_masks(n, counts, np.random.default_rng(seed))
    assert len(np.unique(masks, axis=0)) == len(masks)
    assert np.bincount(masks.sum(axis=1), minlength=n + 1).tolist() == counts.tolist()


@pytest.mark.parametrize("n", [11, 12, 40])
def test_a_mask_comes_with_its_complement(n: int) -> None:
    counts = allocated(n, 300, spread_shares(n))
    counts = np.minimum(counts, counts[::-1]) // 2 * 2
    masks = {row.tobytes() for row in sized_masks(n, counts, np.random.default_rng(1))}
    assert all((~np.frombuffer(row, dtype=np.bool_)).tobytes() in masks for row in masks)


def test_excluded_masks_are_replaced_by_others_of_their_size_until_there_are_none() -> None:
    rng = np.random.default_rng(2)
    known = sized_masks(8, np.array([1, 8, 20, 30, 40, 30, 20, 8, 1]), rng)
    wanted = np.array([0, 0, 8, 10, 10, 26, 4, 0, 0])
    found = sized_masks(8, wanted, rng, known)
    assert np.bincount(found.sum(axis=1), minlength=9).tolist() == wanted.tolist()
    assert len(np.unique(np.concatenate([known, found]), axis=0)) == len(known) + len(found)


@pytest.mark.parametrize(("n", "size"), [(6, 2), (6, 3), (30, 3)])
def test_every_component_is_kept_as_often_as_any_other(n: int, size: int) -> None:
    counts = np.zeros(n + 1, dtype=np.intp)
    counts[size] = 6
    kept = np.zeros(n)
    for seed in range(600):
        kept += sized_masks(n, counts, np.random.default_rng(seed)).mean(axis=0)
    assert kept / 600 == pytest.approx(np.full(n, size / n), abs=0.05)


def test_designs_are_the_same_for_the_same_seed() -> None:
    counts = allocated(83, 500, binomial_shares(83, 0.5) + 0.1 * spread_shares(83))
    first, second = (sized_masks(83, counts, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)


def test_shares_of_sizes_sum_to_one_even_for_thousands_of_components() -> None:
    assert binomial_shares(5000, 0.9).sum() == pytest.approx(1)
