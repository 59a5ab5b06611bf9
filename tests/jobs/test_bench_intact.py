"""The benchmark of the intact input: figures that are right on a planted function, promised columns, and goals from rows with known figures."""

import numpy as np
import pytest

from jobs.bench.intact import METHODS, Run, exact_deviations, random_pairs, reading
from jobs.bench.intact_games import IntactGame
from jobs.bench.intact_removal import curve, flipped, greedy, optimum, rankings
from jobs.bench.intact_targets import summary

N = 9
COLUMNS = {
    "row", "game", "n", "method", "seed", "evaluations", "singles_r2", "pairs_r", "pairs_r2", "pairs_measured", "uniform_r2",
}  # fmt: skip


def value(masks):
    """Two components that cover for each other, two that only work together, and small single effects."""
    x = masks.astype(float)
    return 3 * np.maximum(x[:, 0], x[:, 1]) + 2 * x[:, 2] * x[:, 3] + x[:, 4:] @ np.arange(0.1, 0.6, 0.1) - 2.0


GAME = IntactGame("planted", N, value)


@pytest.fixture(scope="module")
def surrogate():
    return Run(GAME, "both", 0).findings.surrogate


def test_deviations_are_those_of_the_function():
    effects, deviations, masks = exact_deviations(GAME)
    found = dict(zip(random_pairs(N), deviations.tolist(), strict=True))
    assert effects[[0, 2, 4]] == pytest.approx([0, 2, 0.1])
    assert {pair for pair, deviation in found.items() if abs(deviation) > 1e-9} == {(0, 1), (2, 3)}
    assert found[0, 1] == pytest.approx(-3)
    assert found[2, 3] == pytest.approx(2)
    assert (~masks).sum() == 2 * len(found)


def test_a_reading_has_its_columns_and_a_good_fit_its_figures():
    fresh = np.random.default_rng(0).random((100, N)) < 0.5
    row = reading(GAME, "both", 0, fresh)
    assert set(row) >= COLUMNS
    assert row["singles_r2"] == pytest.approx(1)
    assert row["pairs_r"] > 0.99
    assert row["uniform_r2"] > 0.9
    assert {"covered", "width", "unmeasured_r"} <= set(reading(GAME, "average-60", 0, fresh))


def test_the_best_sets_under_the_surrogate_are_measured_beside_all_others(surrogate):
    others = rankings(value, N, 60, 0)
    rows = list(curve(value, N, surrogate, others))
    drops = {(row["method"], row["r"]): row["drop"] for row in rows}
    assert {method for method, _ in drops} >= {"solver", "contextcite", "lasso", "single ablations", "greedy", "optimum"}
    assert all(drops["optimum", r] >= drop - 1e-9 for (_, r), drop in drops.items())
    assert drops["optimum", 1] == pytest.approx(2)
    assert drops["solver", 2] == drops["optimum", 2] == pytest.approx(3)
    assert drops["single ablations", 2] < 3  # which do not see that two components cover for each other


def test_the_greedy_removal_lowers_the_value_most_at_each_step():
    assert greedy(value, N)[:2] == (2, 8) or greedy(value, N)[0] == 3
    assert optimum(value, N)[0] == pytest.approx(value(np.ones((1, N), dtype=bool))[0])


def test_flip_sets_are_verified_and_beside_the_smallest(surrogate):
    found = {row["method"]: row["size"] for row in flipped(lambda masks: value(masks) - 2.0, N, surrogate, {})}
    assert found["optimum"] == 2
    assert flipped(value, N, surrogate, {"backwards": tuple(reversed(range(N)))}) is not None


def reading_row(game, method, seed=0, **figures):
    return {"row": "reading", "game": game, "method": method, "seed": seed, "pairs_r": 0.95, "singles_r2": 1.0, "covered": 0.96, "uniform_r2": 0.8} | figures


def test_goals_are_judged_by_the_worst_game():
    found = summary(
        [
            reading_row("a", "both"),
            reading_row("b", "both", pairs_r=0.7),
            reading_row("b", "both", 1, pairs_r=0.9),
            reading_row("a", "average-60", uniform_r2=0.7),
        ]
    )
    assert found["pairs_r both"] == {"worst": pytest.approx(0.8), "goal": 0.9, "met": False, "figures": {"a": 0.95, "b": pytest.approx(0.8)}}
    assert found["covered both"]["met"] is True
    assert found["uniform_r2 both less average-60"]["figures"] == {"a": pytest.approx(0.1)}
    assert found["singles_r2 intact"]["met"] is None


def test_removals_are_relative_to_the_largest_drop_of_their_size():
    rows = [
        {"row": "removal", "game": "a", "seed": 0, "r": r, "method": method, "drop": drop}
        for method, r, drop in (("x", 1, 2.0), ("y", 1, 1.0), ("x", 2, 3.0), ("y", 2, 3.0))
    ]
    assert summary(rows)["removal a"] == {"x": 1.0, "y": 0.75}
    flips = [{"row": "flip", "game": "a", "seed": seed, "method": "x", "size": size} for seed, size in ((0, 2), (1, None))]
    assert summary(flips)["flip a"] == {"x": {"size": 2, "none": 1}}


def test_methods_are_those_that_the_goals_name():
    assert {"both", "intact", "average-60", "both-slopes-25"} <= set(METHODS)
