"""The mechanistic benchmark: the loop that it races against computes the same values, and its targets can fail."""

import importlib

import numpy as np
import pytest
from tiny_models import save

from raysp.lenses import build_game
from raysp.specs.lenses import MechanisticLens


@pytest.fixture
def bench():
    return importlib.import_module("jobs.bench.mechanistic")


def timed(what, method, per_second, apart=0.0):
    return {"row": "speed", "what": what, "method": method, "round": 0, "masks": 10, "per_second": per_second, "apart": apart}


def pruned(layers, keep, method, accuracy, seed=0):
    return {"row": "prune", "task": "facts", "layers": layers, "keep": keep, "method": method, "accuracy": accuracy, "margin": -accuracy, "seed": seed}


def pruned_seeds(ours, theirs, keep=0.5):
    """Rows of both ways to prune, a seed each."""
    return [pruned([0], keep, method, value, seed) for method, values in (("interactions", ours), ("singles", theirs)) for seed, value in enumerate(values)]


def test_the_loop_people_write_gives_our_values(bench, tmp_path):
    game = build_game(MechanisticLens(model=save("llama", tmp_path), prompt="The film was long", target=" not", foil="!", dtype="float32", device="cpu"))
    masks = np.random.default_rng(0).random((8, game.n)) < 0.7
    assert np.abs(bench.peers.head_loop(game)(masks) - game.evaluate(masks)).max() < 1e-4


def test_speed_is_compared_over_all_workloads_and_with_the_best_peer(bench):
    rows = [
        timed(what, *method)
        for what in ("singles", "random")
        for method in (("raysp", 60.0), ("head_loop", 10.0), ("nnsight", 30.0), ("transformer_lens", 20.0))
    ]
    told = bench.summary(rows)
    assert told["vs_head_loop"] == {"value": 6.0, "target": ">= 5", "met": True}
    assert told["vs_best_peer"] == {"value": 2.0, "target": ">= 1.5", "met": True}
    slower = bench.summary([*rows, timed("three layers", "raysp", 10.0), timed("three layers", "head_loop", 10.0), timed("three layers", "nnsight", 30.0)])
    assert not slower["vs_head_loop"]["met"]
    assert not slower["vs_best_peer"]["met"]


def test_values_that_differ_from_a_peers_fail_the_target(bench):
    rows = [timed("singles", "raysp", 60.0), timed("singles", "nnsight", 30.0, apart=1e-3)]
    assert not bench.summary(rows)["apart"]["met"]


def test_pruning_is_worse_where_it_is_worse(bench):
    rows = [pruned([0], keep, method, accuracy) for keep, ours in ((0.5, 0.8), (0.66, 0.6)) for method, accuracy in (("interactions", ours), ("singles", 0.65))]
    gain = bench.summary(rows)["prune"]["interactions_over_singles"]
    assert gain["value"] == pytest.approx(0.05)
    assert gain["worse"] == [{"layers": [0], "keep": 0.66, "gain": -0.05, "error": None}]
    assert [cell["gain"] for cell in gain["by_cell"]] == [0.15, -0.05]
    assert bench.summary(rows)["prune"]["mean"] == {"interactions": 0.7, "singles": 0.65}
    assert bench.summary(rows)["prune_margin"]["interactions_over_singles"]["value"] == pytest.approx(-0.05)


def test_a_cell_that_is_worse_within_the_noise_of_seeds_is_not_called_worse(bench):
    gain = bench.summary(pruned_seeds([0.7, 0.6, 0.7], [0.65, 0.7, 0.7]))["prune"]["interactions_over_singles"]
    assert gain["by_cell"] == [{"layers": [0], "keep": 0.5, "gain": -0.0167, "error": 0.0441}]
    assert gain["worse"] == []
    assert not gain["met"]
    steady = bench.summary(pruned_seeds([0.60, 0.61], [0.70, 0.70]))["prune"]["interactions_over_singles"]
    assert len(steady["worse"]) == 1


def test_only_seeds_that_both_ways_have_are_compared(bench):
    told = bench.summary(pruned_seeds([0.7, 0.8], [0.6]))["prune"]
    assert told["interactions_over_singles"]["value"] == pytest.approx(0.1)
    assert told["interactions_over_singles"]["error"] is None


def test_without_rows_a_target_is_neither_met_nor_missed(bench):
    told = bench.summary([])
    assert told["vs_head_loop"]["met"] is None
    assert told["pairs_found"]["met"] is None
