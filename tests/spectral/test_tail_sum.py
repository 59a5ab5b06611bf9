"""Sums of tails: their values, coefficients and indices are those of the function they stand for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.points import Points
from raysp.spectral.sets import from_tuples
from raysp.spectral.tail import Tail
from raysp.spectral.tail_sum import CLOSED, TailSum
from raysp.spectral.walsh import all_masks

N = 6


def tail_sum(seed: int, keep_probability: float = 0.5, n: int = N) -> TailSum:
    """A sum of a few tails with random parameters."""
    rng = np.random.default_rng(seed)
    tail = Tail(float(rng.uniform(0.2, 2)), float(rng.uniform(0.3, 3)), rng.dirichlet(np.ones(n)), keep_probability)
    return TailSum(tail, rng.random((5, n)) < keep_probability, rng.normal(size=5))


def surrogate_with(tails: list[TailSum], keep_probability: float = 0.5) -> FourierSurrogate:
    """A surrogate with a few terms of its own beside the tails."""
    sets = from_tuples(N, [(), (0,), (2, 4), (1, 2, 3)])
    own = np.array([0.3, -1.0, 0.7, 0.2])
    whole = own + sum(tail.coefficients(sets, keep_probability) for tail in tails)
    return FourierSurrogate(sets, whole, keep_probability=keep_probability, tails=tails)


def by_set(surrogate: FourierSurrogate, index: str, order: int) -> dict[tuple[int, ...], float]:
    """An index up to an order."""
    sets, values, _ = surrogate.index(index, order, 1)
    return dict(zip(sets.tuples(), values.tolist(), strict=True))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), keep=st.sampled_from([0.5, 0.8]))
def test_a_sum_of_tails_is_the_kernel_around_each_centre(seed: int, keep: float) -> None:
    found = tail_sum(seed, keep)
    kept, mixed, gone = found.tail.factors()
    mask = np.random.default_rng(seed).random(N) < 0.5
    by_hand = sum(
        weight * found.tail.variance * np.where(mask & centre, kept, np.where(mask | centre, mixed, gone)).prod()
        for weight, centre in zip(found.weights, found.centres, strict=True)
    )
    assert found.predict(mask[None])[0] == pytest.approx(by_hand)


@pytest.mark.parametrize("index", sorted(CLOSED - {"wbii"}))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), order=st.integers(1, 3))
def test_indices_are_those_of_the_predicted_function(index: str, seed: int, order: int) -> None:
    surrogate = surrogate_with([tail_sum(seed), tail_sum(seed + 1)])
    every = all_masks(N)
    truth = FourierSurrogate.from_values(every, surrogate.predict(every))
    found, expected = by_set(surrogate, index, order), by_set(truth, index, order)
    assert found == pytest.approx({members: expected[members] for members in found}, abs=1e-9)


def test_terms_are_the_fourier_coefficients_of_the_whole_function_in_any_basis() -> None:
    for keep in (0.5, 0.8):
        surrogate = surrogate_with([tail_sum(3, keep)], keep)
        every = all_masks(N)
        truth = FourierSurrogate.from_values(every, surrogate.predict(every))
        for other in (0.5, 0.8, 0.3):
            found, expected = surrogate.rebased(other), truth.rebased(other).terms()
            assert found.coefficients == pytest.approx([expected[members] for members in found.sets.tuples()], abs=1e-9)
            assert found.predict(every) == pytest.approx(surrogate.predict(every))
        found, expected = by_set(surrogate, "wbii", 2), by_set(truth.rebased(keep), "wbii", 2)
        assert found == pytest.approx({members: expected[members] for members in found}, abs=1e-9)


def test_weighted_sums_of_surrogates_add_their_tails() -> None:
    first, second = surrogate_with([tail_sum(1)]), surrogate_with([tail_sum(2)])
    every = all_masks(N)
    both = FourierSurrogate.combined([first, second], [0.3, 2.0])
    assert both.predict(every) == pytest.approx(0.3 * first.predict(every) + 2.0 * second.predict(every))
    assert both.coefficients == pytest.approx(0.3 * first.coefficients + 2.0 * second.coefficients)


def test_single_effects_and_points_see_the_tails() -> None:
    surrogate = surrogate_with([tail_sum(5)])
    masks = np.concatenate([np.ones((1, N), dtype=np.bool_), ~np.eye(N, dtype=np.bool_)])
    predicted = surrogate.predict(masks)
    assert surrogate.single_effects() == pytest.approx(predicted[0] - predicted[1:])
    written = surrogate.with_points(Points.of(masks, np.arange(7.0), np.full(7, np.nan), np.ones(7)))
    assert written.predict(masks) == pytest.approx(predicted + np.arange(7.0))
    every = all_masks(N)
    truth = FourierSurrogate.from_values(every, written.predict(every))
    found, expected = by_set(written, "sii", 2), by_set(truth, "sii", 2)
    assert found == pytest.approx({members: expected[members] for members in found}, abs=1e-9)
