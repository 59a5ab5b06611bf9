"""Measured values written into a surrogate: exact in predictions and indices, and a residual correction that is right on average."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.points import Points, index_weights
from raysp.spectral.sets import singletons
from raysp.spectral.walsh import all_masks

N = 6
INDICES = ("fourier", "mobius", "bii", "sii", "stii", "fbii", "fsii", "sv", "bv", "additivity")


def written(masks: np.ndarray, residuals: np.ndarray, held_out: np.ndarray | None = None, inclusion: float | np.ndarray = 1.0) -> Points:
    """Points of all given masks."""
    known = np.full(len(masks), np.nan) if held_out is None else held_out
    return Points.of(masks, residuals, known, np.broadcast_to(np.asarray(inclusion, dtype=np.float64), len(masks)).copy())


def values_of(surrogate: FourierSurrogate, index: str, order: int) -> dict[tuple[int, ...], float]:
    """An index as a dict."""
    sets, values, _ = surrogate.index(index, order, 1)
    return dict(zip(sets.tuples(), values.tolist(), strict=True))


@pytest.mark.parametrize("index", INDICES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), order=st.integers(1, 3))
def test_an_index_of_a_surrogate_with_points_is_that_of_the_function_it_predicts(index: str, seed: int, order: int) -> None:
    rng = np.random.default_rng(seed)
    every = all_masks(N)
    plain = FourierSurrogate.from_values(every, rng.normal(size=1 << N))
    chosen = rng.permutation(1 << N)[: rng.integers(1, 20)]
    surrogate = plain.with_points(written(every[chosen], rng.normal(size=len(chosen))))
    truth = FourierSurrogate.from_values(every, surrogate.predict(every))
    found, expected = values_of(surrogate, index, order), values_of(truth, index, order)
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_weighted_banzhaf_index_takes_points_in_its_own_basis() -> None:
    rng = np.random.default_rng(0)
    every = all_masks(N)
    plain = FourierSurrogate.from_values(every, rng.normal(size=1 << N)).rebased(0.8)
    surrogate = plain.with_points(written(every[[3, 63, 40]], rng.normal(size=3)))
    truth = FourierSurrogate.from_values(every, surrogate.predict(every)).rebased(0.8)
    assert values_of(surrogate, "wbii", 2) == pytest.approx(values_of(truth, "wbii", 2), abs=1e-9)


def test_predictions_at_points_are_the_measured_values() -> None:
    rng = np.random.default_rng(1)
    every, values = all_masks(N), rng.normal(size=1 << N)
    plain = FourierSurrogate.from_dict(N, {(): 1.0, (1,): 2.0})
    rows = np.array([0, 5, 63])
    surrogate = plain.with_points(written(every[rows], values[rows] - plain.predict(every[rows])))
    predicted = surrogate.predict(every)
    assert predicted[rows] == pytest.approx(values[rows])
    assert np.delete(predicted, rows) == pytest.approx(np.delete(plain.predict(every), rows))


def test_shapley_values_add_up_once_both_ends_are_written_in() -> None:
    rng = np.random.default_rng(2)
    plain = FourierSurrogate.from_dict(40, {(): 1.0, (1,): 2.0, (3, 7): -1.0})
    ends = np.stack([np.ones(40, dtype=np.bool_), np.zeros(40, dtype=np.bool_)])
    values = rng.normal(size=2)
    surrogate = plain.with_points(written(ends, values - plain.predict(ends)))
    assert surrogate.index("sv")[1].sum() == pytest.approx(values[0] - values[1])


def test_single_effects_are_the_measured_ones() -> None:
    plain = FourierSurrogate.from_dict(30, {(): 1.0, (1,): 2.0, (3, 7): -1.0}).rebased(0.9)
    masks = np.concatenate([np.ones((1, 30), dtype=np.bool_), ~np.eye(30, dtype=np.bool_)])
    values = np.random.default_rng(3).normal(size=31)
    surrogate = plain.with_points(written(masks, values - plain.predict(masks)))
    assert surrogate.single_effects() == pytest.approx(values[0] - values[1:])
    assert surrogate.index("additivity", 1)[1] == pytest.approx(values[0] - values[1:])


def test_the_residual_correction_is_right_on_average_over_designs() -> None:
    """A surrogate that misses half of the function, corrected from half of the masks of each size: the mean over designs is the true index."""
    rng = np.random.default_rng(4)
    every = all_masks(N)
    terms = {members: float(rng.normal()) for size in range(3) for members in combinations(range(N), size)}
    truth = FourierSurrogate.from_dict(N, terms)
    values, plain = truth.predict(every), FourierSurrogate.from_dict(N, {(): terms[()], (0,): terms[0,]})
    missed = values - plain.predict(every)
    singles = np.arange(N, dtype=np.int32)[:, None]
    weights = index_weights("sv", 1, 1, N, 0.5)
    counts = np.array([1, 3, 7, 10, 7, 3, 1])
    sizes = every.sum(axis=1)
    found, variances = [], []
    for seed in range(400):
        draw = np.random.default_rng(seed)
        rows = np.concatenate([draw.permutation(np.flatnonzero(sizes == size))[:count] for size, count in enumerate(counts)])
        points = written(every[rows], missed[rows], missed[rows], (counts / [comb(N, size) for size in range(N + 1)])[sizes[rows]])
        correction, variance = points.correction(singles, weights)
        known, _ = points.index("sv", singletons(N), 1, 0.5)
        plainly, _ = written(every[rows], missed[rows]).index("sv", singletons(N), 1, 0.5)
        assert np.abs(known - plainly).max() <= np.abs(np.append(0.0, correction)).max()  # shrunk
        found.append(plainly[1:] + correction)
        variances.append(variance)
    expected = truth.index("sv")[1] - shapley(plain)
    spread = np.std(found, axis=0)
    assert np.abs(np.mean(found, axis=0) - expected).max() < 4 * spread.max() / np.sqrt(len(found))
    assert np.sqrt(np.mean(variances, axis=0)) == pytest.approx(spread, rel=0.5)


def shapley(surrogate: FourierSurrogate) -> np.ndarray:
    """The Shapley value of every component."""
    sets, values, _ = surrogate.index("sv")
    found = np.zeros(surrogate.n)
    found[sets.blocks[1][:, 0]] = values
    return found


def test_a_correction_that_its_variance_explains_is_not_made() -> None:
    rng = np.random.default_rng(5)
    every = all_masks(10)
    rows = rng.permutation(1 << 10)[:100]
    plain = FourierSurrogate.from_dict(10, {(): 0.0, **{(i,): 1.0 for i in range(10)}})
    noise = rng.normal(size=100)
    inclusion = np.full(100, 100 / 1024)
    quiet = plain.with_points(Points.of(every[rows], noise * 0, noise, inclusion))
    assert quiet.index("bii", 1, 1)[1] == pytest.approx(plain.index("bii", 1, 1)[1])
    strong = 5.0 * (1.0 - 2.0 * every[rows, 3])
    loud = plain.with_points(Points.of(every[rows], strong * 0, strong, inclusion))
    assert loud.index("bii", 1, 1)[1][3] < plain.index("bii", 1, 1)[1][3] - 5
    assert loud.index("bii", 1, 1)[2][3] > 0
