"""Sets that stand out in masks that come with their complements: none is taken for one by chance, and none is missed because its parents do not stand out."""

import numpy as np
import pytest

from raysp.masks import Masks, Values
from raysp.spectral.posterior import learn


def fours(n: int, count: int, number: int, seed: int) -> tuple[Masks, Values, set[tuple[int, ...]]]:
    """Pairs of complements, and values with single effects and so many sets of four: float64, free of noise."""
    rng = np.random.default_rng(seed)
    half = rng.random((count // 2, n)) < 0.5
    masks = np.concatenate([half, ~half])
    signs = 1.0 - 2.0 * masks
    sets = {tuple(sorted(rng.choice(n, 4, replace=False).tolist())) for _ in range(number)}
    values = sum((signs[:, list(members)].prod(axis=1) for members in sets), np.zeros(len(masks))) + signs @ rng.normal(size=n)
    return masks, values, sets


def stand_out(masks: Masks, values: Values) -> set[tuple[int, ...]]:
    return {tuple(row) for block in learn(masks, values, 4).prior.spikes for row in block.tolist()}


def test_a_set_of_four_is_found_although_nothing_shows_in_its_triples() -> None:
    masks, values, sets = fours(64, 512, 3, 0)
    assert stand_out(masks, values) == sets


@pytest.mark.parametrize("seed", range(4))
def test_a_mask_and_its_complement_do_not_count_as_two(seed: int) -> None:
    """What is left beside the single effects is the same at both, and half as many rows agree with any one of many sets far more easily."""
    masks, values, sets = fours(50, 400, 3, seed)
    assert len(stand_out(masks, values) - sets) <= 3
