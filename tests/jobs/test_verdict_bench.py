"""The benchmark of verdicts: its games are the same each time, and its shares count what they say."""

import numpy as np
import pytest

from jobs.bench.verdict_games import FAMILIES, Table, drawn, listed
from jobs.bench.verdict_truths import Truth
from jobs.bench.verdicts import beyond, misses, shares
from raysp.spectral.walsh import all_masks

TABLE = Table("sum", 9, all_masks(9).sum(axis=1).astype(float))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_game_is_the_same_each_time(family):
    game, again = (drawn(family, 3, (TABLE,)) for _ in range(2))
    masks = np.random.default_rng(0).random((40, game.n)) < 0.5
    assert np.array_equal(game(masks), again(masks))
    assert np.isfinite(game(masks)).all()
    assert (game.n, game.budget) == (again.n, again.budget)


def test_a_thousand_games_are_listed_with_all_families_in_turn():
    every = listed(1.0, list(FAMILIES))
    assert len(every) == len(set(every)) == 1000
    assert {family for family, _ in every[: len(FAMILIES)]} == set(FAMILIES)


def test_a_true_value_outside_the_interval_by_more_than_the_decimals_stated_is_missed():
    truth = Truth({"r2": 0.7, "r2_near": 0.9981}, 0, 0, 0.0, 0.0, 1.0, 1.0)
    stated = {"r2_lo": 0.75, "r2_hi": 0.9, "r2_near_lo": 0.99, "r2_near_hi": 0.997}
    outside = {name: beyond(truth, stated, name) for name in truth.r2}
    assert outside == pytest.approx({"r2": -0.05, "r2_near": 0.0011})
    assert misses(outside)
    assert not misses({"r2_near": outside["r2_near"]})


def test_shares_are_of_reliable_runs_and_of_good_answers():
    def row(reliable, wrong, good):
        return {"reliable": reliable, "wrong": wrong, "good": good, "wrong_signs": 0, "beyond": {"r2": -0.1 if wrong else 0.0}}

    found = shares([row(True, True, False), row(True, False, True), row(False, True, False), row(False, False, True)])
    assert found["wrong"] == found["called"] == 0.5
    assert found["wrong_of_all"] == 0.25
