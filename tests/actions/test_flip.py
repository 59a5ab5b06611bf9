"""The smallest sets that carry a value across a threshold, beside a search through all of them."""

import itertools

import numpy as np
import pytest

from raysp.actions.flip import flips
from raysp.spectral.fourier import FourierSurrogate


def random_surrogate(n, rng):
    sets = {(), *((i,) for i in range(n)), *(tuple(sorted(rng.choice(n, 2, replace=False).tolist())) for _ in range(n))}
    return FourierSurrogate.from_dict(n, {members: float(rng.normal()) for members in sets})


def value_without(surrogate, members):
    mask = np.ones((1, surrogate.n), dtype=np.bool_)
    mask[0, list(members)] = False
    return float(surrogate.predict(mask)[0])


@pytest.mark.parametrize("seed", range(8))
def test_each_size_has_the_set_that_crosses_furthest_or_none(seed):
    rng = np.random.default_rng(seed)
    surrogate = random_surrogate(8, rng)
    intact = value_without(surrogate, ())
    for threshold in (intact - 2.0, intact - 0.3, intact + 0.3, intact + 2.0):
        found = {len(members): members for members in flips(surrogate, threshold, 4)}
        above = intact > threshold
        for size in range(1, 5):
            every = [(value_without(surrogate, members), members) for members in itertools.combinations(range(8), size)]
            best, _ = min(every) if above else max(every)
            if (best > threshold) == above:
                assert size not in found
            else:
                assert value_without(surrogate, found[size]) == pytest.approx(best, abs=1e-9)
        assert list(found) == sorted(found)


def test_sizes_end_at_the_number_of_components_and_with_the_time():
    surrogate = FourierSurrogate.from_deviations(2, 1.0, {(0,): 0.2, (1,): 0.2})
    assert flips(surrogate, 0.7, 8) == [(0, 1)]
    assert flips(surrogate, -9.0, 8) == []
    assert flips(surrogate, 0.7, 8, seconds=0.0) == []
