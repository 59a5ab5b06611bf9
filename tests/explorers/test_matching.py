"""Equal masks are found as numpy finds equal rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.masks import first_of_each, pack


@given(st.integers(0, 40), st.integers(1, 200), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_the_first_of_each_mask_and_its_number_are_those_of_numpy(m, n, varying, seed):
    """Masks that differ in few components have equal bytes before those."""
    rng = np.random.default_rng(seed)
    masks = np.ones((m, n), dtype=np.bool_)
    some = rng.choice(n, min(varying, n), replace=False)
    masks[:, some] = rng.random((m, len(some))) < 0.5
    packed = pack(masks)
    first, number = first_of_each(packed)
    _, expected, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    assert first.tolist() == expected.tolist()
    assert number.tolist() == inverse.reshape(-1).tolist()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_masks_and_masks_of_nothing(shape):
    first, number = first_of_each(np.zeros(shape, dtype=np.uint8))
    assert first.tolist() == [0][: shape[0]]
    assert number.tolist() == [0] * shape[0]
