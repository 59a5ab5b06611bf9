"""The map of pairs: its tables are exact, an interrupted job continues, and methods are scored on planted tables as they deserve."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.bench import map_scores
from jobs.bench.map_games import MapGame, every_pair
from raysp.game import Component, FunctionGame, GameInfo

N = 7
PLANTED = {(0, 3): 5.0, (1, 2): -4.0, (2, 6): 1.0}


class InterruptedJobError(Exception):
    pass


def planted(calls, fails_after=None):
    """Single effects 1 to 7 and three pairs; after some masks it fails as a job does that is stopped."""

    def value(masks):
        if fails_after is not None and sum(calls) + len(masks) > fails_after:
            raise InterruptedJobError
        calls.append(len(masks))
        found = masks @ np.arange(1.0, N + 1)
        return found + sum(size * masks[:, list(pair)].all(axis=1) for pair, size in PLANTED.items())

    info = GameInfo("planted", tuple(Component(i, f"c{i}", "head") for i in range(N)), {})
    return FunctionGame(value, info)


def map_game(folder, calls, fails_after=None):
    return MapGame("planted", "ioi", "a prompt", lambda: planted(calls, fails_after), folder)


def test_a_table_holds_the_deviation_of_every_pair(tmp_path):
    table = map_game(tmp_path, []).table
    # Removing one of a planted pair already removes it: both single effects contain it, so that the joint effect is smaller by its size.
    expected = {pair: -size for pair, size in PLANTED.items()}
    assert [expected.get(tuple(pair), 0.0) for pair in table.pairs.tolist()] == pytest.approx(table.deviations.tolist())
    game = planted([])
    for (a, b), both in zip(table.pairs.tolist(), table.without_both.tolist(), strict=True):
        mask = np.ones((1, N), dtype=bool)
        mask[0, [a, b]] = False
        assert both == game.evaluate(mask)[0]


def test_an_interrupted_job_continues_with_the_blocks_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.bench.map_games.BLOCK", 5)
    before, after = [], []
    with pytest.raises(InterruptedJobError):
        map_game(tmp_path, before, fails_after=12).write(tmp_path / "map")
    assert not (tmp_path / "map").exists() or not list((tmp_path / "map").glob("*.parquet"))
    path = map_game(tmp_path, after).write(tmp_path / "map")
    assert sum(before) == 10
    assert sum(before) + sum(after) == 1 + N + N * (N - 1) // 2
    found = pq.read_table(path)
    assert found.column_names == ["task", "prompt", "a", "b", "all", "without_a", "without_b", "without_both", "deviation"]
    rows = found.to_pylist()
    strongest = max(rows, key=lambda row: abs(row["deviation"]))
    assert (strongest["task"], strongest["prompt"], strongest["a"], strongest["b"]) == ("ioi", "a prompt", 0, 3)
    assert all(row["deviation"] == pytest.approx(row["without_a"] + row["without_b"] - row["all"] - row["without_both"]) for row in rows)


def test_recall_counts_named_pairs_whatever_their_sign():
    exact = np.array([5.0, -4.0, 1.0, 0.5, 0.0])
    assert map_scores.recall(exact, -exact, 2) == 1.0
    assert map_scores.recall(exact, np.array([9.0, 0.0, 8.0, 0.0, 0.0]), 2) == 0.5
    assert map_scores.recall(exact, np.zeros(5), 2) == 0.0  # naming nothing is no recall


def test_measuring_what_a_method_ranks_first_corrects_its_order():
    exact, guessed = np.array([5.0, -4.0, 1.0, 0.5]), np.array([1.0, 2.0, 3.0, 0.0])
    assert map_scores.recall(exact, guessed, 2) == 0.5
    assert map_scores.recall(exact, map_scores.verified(exact, guessed, 3), 2) == 1.0
    assert map_scores.verified(exact, guessed, 0).tolist() == [0.0] * 4


def test_an_explorer_that_measures_the_pairs_names_them(tmp_path):
    game = map_game(tmp_path, [])
    scores, spent = map_scores.explorer_scores(game, "screen", 40, 2.0)
    assert spent <= 40
    assert map_scores.recall(game.table.deviations, scores, 3) == 1.0
    assert len(scores) == len(every_pair(N))


def row(method, price, found, heads=270):
    return {"row": "recall", "heads": heads, "method": method, "share": 0.05, "price": price, "recall_20": found, "recall_50": found}


def test_the_goal_is_the_best_method_within_its_price_on_all_heads():
    told = map_scores.summary([row("a", 0.05, 0.85), row("a", 0.05, 0.95), row("dear", 0.1, 1.0), row("few heads", 0.01, 1.0, heads=54)])
    assert told["goal"] == {"value": 0.9, "target": ">= 0.9", "met": True, "method": "a", "of_20": 18.0}
    assert map_scores.summary([row("a", 0.05, 0.8)])["goal"]["met"] is False
    assert map_scores.summary([])["goal"]["met"] is None
