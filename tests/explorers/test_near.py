"""Residuals around the intact input are followed to masks that were not measured, and nowhere else."""

import numpy as np
import pytest

from raysp.explorers.near import followed
from raysp.sampling.ablations import ablations
from raysp.spectral.fourier import FourierSurrogate

N = 30
FLAT = FourierSurrogate.from_dict(N, {(): 0.0, **{(i,): 0.0 for i in range(N)}})
PAIRS = [(i, j) for i in range(N) for j in range(i + 1, N)]


def near_and_random(count=100, pairs=60):
    chosen = np.random.default_rng(0).permutation(len(PAIRS))[:pairs]
    near = ablations(N, [(), *((i,) for i in range(N)), *(PAIRS[row] for row in chosen)])
    drawn = np.random.default_rng(1).random((count, N)) < 0.5
    return np.concatenate([near, drawn]), np.repeat([0.0, 1.0], [len(near), count])


def bump(masks, scale=1.0):
    """What fades with the number of components removed, and depends a little on which."""
    return scale * (1 + 0.1 * (~masks) @ np.linspace(-1, 1, masks.shape[1])) * 0.8 ** (~masks).sum(axis=1)


def test_an_offset_around_the_intact_input_is_known_at_pairs_that_were_not_measured():
    masks, importance = near_and_random()
    found = followed(FLAT, masks, bump(masks), bump(masks), importance)
    unseen = ablations(N, [pair for pair in PAIRS if not (masks == ablations(N, [pair])).all(axis=1).any()])
    assert len(unseen) > 300
    assert np.abs(found.predict(unseen) - bump(unseen)).max() < 0.05
    drawn = masks[importance > 0]
    assert np.mean((found.predict(drawn) - bump(drawn)) ** 2) <= 1.01 * np.mean(bump(drawn) ** 2)


def test_terms_include_the_coefficients_of_what_is_followed():
    masks, importance = near_and_random()
    found = followed(FLAT, masks, bump(masks), bump(masks), importance)
    tail = found.tails[-1]
    assert found.coefficients == pytest.approx(tail.coefficients(found.sets, 0.5))
    assert found.predict(masks) == pytest.approx(tail.predict(masks))


def test_what_would_cost_accuracy_on_random_masks_is_not_followed():
    small = 4
    flat = FourierSurrogate.from_dict(small, {(): 0.0, (0,): 0.0})
    near = ablations(small, [(), *((i,) for i in range(small)), (0, 1), (1, 2), (2, 3)])
    drawn = ablations(small, [(0, 1, 2), (1, 2, 3), (0, 1, 3)])
    masks, importance = np.concatenate([near, drawn]), np.repeat([0.0, 1.0], [len(near), 3])
    # On random masks the fit errs the other way, so that following makes it worse.
    missed = np.where(importance > 0, -1.0, 1.0)
    assert followed(flat, masks, missed, missed, importance) is flat


def test_without_enough_masks_around_the_intact_input_nothing_changes():
    masks, importance = near_and_random(pairs=0)
    few = np.concatenate([masks[:3], masks[-50:]])
    assert followed(FLAT, few, bump(few), bump(few), np.repeat([0.0, 1.0], [3, 50])) is FLAT
    assert followed(FLAT, masks, 0 * importance, 0 * importance, importance) is FLAT
