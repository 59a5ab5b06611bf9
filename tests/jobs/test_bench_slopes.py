"""The goals of the benchmark of slopes, from rows with known figures."""

import pytest

from jobs.bench.slope_targets import summary


def fit(method, passes, r2, seconds):
    return {"row": "fit", "game": "heads", "method": method, "passes": passes, "seed": 0, "r2": r2, "seconds": seconds}


def run(method, r2, seed):
    return {"row": "run", "game": "heads", "method": method, "budget": 300, "seed": seed, "r2": r2}


def test_seconds_are_those_at_which_slopes_reach_the_best_peer_at_its_largest_number_of_passes():
    rows = [
        fit("slopes", 50, 0.7, 2.0),
        fit("slopes", 100, 0.85, 4.0),
        fit("shapiq", 100, 0.5, 9.0),
        fit("shapiq", 2000, 0.8, 50.0),
        fit("trees", 2000, 0.6, 40.0),
    ]
    found = summary(rows)
    assert found["seconds_to_the_best_peer"] == {"worst": pytest.approx(0.08), "met": True, "figures": {"heads": pytest.approx(0.08)}}
    assert found["unexplained_at_equal_passes"]["figures"] == {"heads 100": pytest.approx(0.3)}


def test_an_r2_that_slopes_never_reach_misses_the_goal():
    found = summary([fit("slopes", 50, 0.7, 2.0), fit("shapiq", 2000, 0.8, 50.0)])["seconds_to_the_best_peer"]
    assert found == {"worst": None, "met": False, "figures": {"heads": None}}


@pytest.mark.parametrize(("losses", "met"), [((0.01, -0.02, 0.015), True), ((0.05, 0.051, 0.049), False)])
def test_a_loss_counts_if_it_is_not_chance(losses, met):
    rows = [row for seed, loss in enumerate(losses) for row in (run("off", 0.8, seed), run("auto", 0.8 - loss, seed))]
    assert summary([*rows, fit("slopes", 50, 0.7, 2.0)])["never_below_values_at_equal_cost"]["met"] is met


def test_a_goal_without_rows_is_neither_met_nor_missed():
    assert {each["met"] for name, each in summary([]).items() if name != "row"} == {None}
