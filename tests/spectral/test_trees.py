import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.spectral.trees import booster_transform, train_booster
from raysp.spectral.walsh import all_masks

lightgbm = pytest.importorskip("lightgbm")


@given(st.integers(1, 8), st.integers(0, 1000), st.sampled_from([2, 3, 5]))
@settings(max_examples=20, deadline=None)
def test_transform_equals_the_ensemble_on_all_masks(n, seed, depth):
    rng = np.random.default_rng(seed)
    masks, values = rng.random((200, n)) < 0.5, rng.normal(size=200)
    booster, rounds = train_booster(masks, values, None, depth=depth, rounds=15, seed=seed)
    every = all_masks(n)
    transform = booster_transform(booster, n, rounds)
    assert np.allclose(transform.predict(every), booster.predict(every.astype(float)))
    assert transform.sets.max_order <= depth


def test_only_the_rounds_asked_for_count():
    rng = np.random.default_rng(0)
    masks = rng.random((300, 6)) < 0.5
    booster, _ = train_booster(masks, masks @ np.arange(6.0) + masks[:, 0] * masks[:, 1], None, rounds=20)
    every = all_masks(6)
    assert np.allclose(booster_transform(booster, 6, 7).predict(every), booster.predict(every.astype(float), num_iteration=7))


def test_a_booster_that_never_splits_is_a_constant():
    masks = np.random.default_rng(0).random((50, 3)) < 0.5
    booster, rounds = train_booster(masks, np.full(50, 2.5), None, rounds=3)
    assert booster_transform(booster, 3, rounds).predict(all_masks(3)) == pytest.approx(2.5)


@pytest.mark.parametrize("options", [{}, {"max_bin": 255, "max_depth": -1, "num_leaves": 31}])
def test_boosters_trained_elsewhere_work_too(options):
    rng = np.random.default_rng(1)
    masks = rng.random((400, 7)) < 0.5
    values = masks[:, 0] * masks[:, 1] * 2.0 - masks[:, 2] + rng.normal(size=400) * 0.1
    booster = lightgbm.train({"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 2, **options}, lightgbm.Dataset(masks.astype(float), values), 25)
    every = all_masks(7)
    assert np.allclose(booster_transform(booster, 7).predict(every), booster.predict(every.astype(float)))
