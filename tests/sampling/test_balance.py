"""Masks made to differ from each other: what stays as it was, that they do differ, and that chance treats all masks of a size alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.masks import Masks, Values
from raysp.sampling import balance
from raysp.sampling.balance import balanced
from raysp.sampling.draws import random_masks
from raysp.sampling.strata import allocated, sized_masks, spread_shares


def made(masks: Masks, seed: int = 0, excluded: Masks | None = None, before: Masks | None = None) -> Masks:
    none = masks[:0]
    return balanced(masks, np.random.default_rng(seed), none if excluded is None else excluded, none if before is None else before)


def likeness(masks: Masks, p: float) -> float:
    """The criterion as it is defined: squared covariances of all pairs of masks, summed."""
    share = min(balance.VARIANCE / masks.shape[1], balance.MOST_SHARE)
    coded = (masks - p) / np.sqrt(p * (1 - p))
    covariances: Values = np.prod(1 + share * coded[:, None, :] * coded[None, :, :], axis=2)
    return float((covariances**2).sum() - (np.diag(covariances) ** 2).sum())


def overlap(masks: Masks) -> float:
    """Root mean square of the columns' correlations."""
    correlations = np.corrcoef(masks.T)
    return float(np.sqrt(np.mean(correlations[np.triu_indices(masks.shape[1], 1)] ** 2)))


@given(n=st.integers(1, 12), count=st.integers(0, 150), before=st.integers(0, 40), keep=st.sampled_from([0.5, 0.9]), seed=st.integers(0, 5))
def test_sizes_stay_and_no_mask_comes_twice(n: int, count: int, before: int, keep: float, seed: int) -> None:
    drawn = random_masks(n, count + before, keep, np.random.default_rng(seed))
    earlier, masks = drawn[:before], drawn[before:]
    excluded = earlier[::2]
    found = made(masks, seed, excluded, earlier)
    assert np.array_equal(found.sum(axis=1), masks.sum(axis=1))
    assert len(np.unique(np.concatenate([earlier, found]), axis=0)) == len(drawn)


@pytest.mark.parametrize(("n", "count", "keep", "most"), [(20, 32, 0.5, 0.7), (54, 200, 0.5, 0.5), (60, 300, 0.9, 0.6)])
def test_columns_become_nearly_orthogonal(n: int, count: int, keep: float, most: float) -> None:
    masks = random_masks(n, count, keep, np.random.default_rng(3))
    found = made(masks)
    assert overlap(found) < most * overlap(masks)
    assert likeness(found, keep) < likeness(masks, keep)


def test_no_exchange_of_two_components_is_left_that_would_help() -> None:
    masks = random_masks(9, 24, 0.5, np.random.default_rng(4))
    found = made(masks)
    p = float(found.mean())
    least, most = likeness(found, p), likeness(masks, p)
    for row in range(len(found)):
        for i in np.flatnonzero(found[row]):
            for j in np.flatnonzero(~found[row]):
                tried = found.copy()
                tried[row, [i, j]] = False, True
                # Visits are few and exchanges are made half by half, so that a little may be left, against what was gained.
                assert likeness(tried, p) > least - 0.1 * (most - least)


def test_masks_differ_from_those_of_earlier_rounds() -> None:
    drawn = random_masks(30, 120, 0.5, np.random.default_rng(5))
    earlier, masks = drawn[:60], drawn[60:]
    apart = np.concatenate([earlier, made(masks)])
    assert overlap(np.concatenate([earlier, made(masks, before=earlier)])) < overlap(apart) < overlap(drawn)


@pytest.mark.timeout(60)
def test_thousands_of_components_nearly_all_kept_are_no_trouble() -> None:
    masks = random_masks(10_000, 80, 0.99, np.random.default_rng(9))
    found = made(masks)
    assert np.array_equal(found.sum(axis=1), masks.sum(axis=1))
    assert not np.array_equal(found, masks)


def test_complements_stay_complements() -> None:
    counts = allocated(15, 100, spread_shares(15))
    masks = sized_masks(15, np.minimum(counts, counts[::-1]), np.random.default_rng(6))
    found = made(masks)
    assert not np.array_equal(found, masks)
    row_of = {mask.tobytes(): row for row, mask in enumerate(masks)}
    for row, mask in enumerate(masks):
        if (other := row_of.get((~mask).tobytes())) is not None:
            assert np.array_equal(found[other], ~found[row])


def test_more_masks_than_the_work_allows_are_balanced_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = random_masks(40, 400, 0.5, np.random.default_rng(7))
    monkeypatch.setattr(balance, "WORK", 400 * 40 * 100)
    found = made(masks)
    assert overlap(found) < 0.8 * overlap(masks)
    monkeypatch.setattr(balance, "WORK", 400 * 40 * 10)
    assert np.array_equal(made(masks), masks)


@pytest.mark.parametrize(("n", "size"), [(6, 2), (7, 5)])
def test_every_mask_of_a_size_is_as_likely_as_any_other(n: int, size: int) -> None:
    counts = np.zeros(n + 1, dtype=np.intp)
    counts[size] = 5
    kept = np.zeros(n)
    first = np.zeros(n)
    for seed in range(800):
        found = made(sized_masks(n, counts, np.random.default_rng(seed)), seed)
        kept, first = kept + found.mean(axis=0), first + found[0]
    assert kept / 800 == pytest.approx(np.full(n, size / n), abs=0.03)
    assert first / 800 == pytest.approx(np.full(n, size / n), abs=0.07)


def test_the_choice_does_not_depend_on_the_order_of_summation() -> None:
    """Weights are whole numbers with exact sums: the order in which masks are summed over, which differs between processors, decides no tie."""
    for seed in range(10):
        drawn = random_masks(7, 60, 0.5, np.random.default_rng(seed))
        earlier, masks = drawn[:30], drawn[30:]
        usual = made(masks, before=earlier)
        for order in range(4):
            assert np.array_equal(made(masks, before=np.random.default_rng(order).permutation(earlier)), usual)
