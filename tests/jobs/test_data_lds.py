"""The LDS part of the data bench: its planted facts hold, no subset is trained twice, and its targets can fail."""

import importlib
import json

import numpy as np
import pytest
import tiny_models

from raysp.lenses import build_game
from raysp.specs.lenses import DataLens


@pytest.fixture(autouse=True)
def beside(monkeypatch, tmp_path):
    """What the bench keeps goes elsewhere."""
    monkeypatch.setenv("RAYSP_HOME", str(tmp_path / "home"))


@pytest.fixture
def sets():
    return importlib.import_module("jobs.bench.data_sets")


@pytest.fixture
def bench():
    return importlib.import_module("jobs.bench.data_lds")


@pytest.fixture
def targets():
    return importlib.import_module("jobs.bench.data_targets")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.save("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def small(sets, model, tmp_path):
    """Eight examples and two queries for a model of a few thousand weights."""
    train, asked = tmp_path / "train.jsonl", tmp_path / "queries.jsonl"
    words = ["film", "letter", "city", "ending", "movie", "acting", "answer", "Monday"]
    train.write_text("".join(json.dumps({"prompt": f"The {word} was", "completion": "good" if i % 2 else "bad"}) + "\n" for i, word in enumerate(words)))
    asked.write_text("".join(json.dumps({"prompt": f"A {word} was", "completion": "good"}) + "\n" for word in words[:2]))
    lens = DataLens(
        model=model, train=str(train), queries=str(asked), dtype="float32", value="logprob", adapted_layers="all", learning_rate=0.05, rank=2, batch_size=2
    )
    return sets.DataSet("small", lens)


def test_every_planted_query_asks_what_examples_of_its_kind_alone_say(sets):
    for amounts, per_kind in ((sets.FULL, (5, 2, 1)), (sets.QUICK, (4, 1, 1))):
        train, asked = sets.planted_rows(amounts)
        assert len(train) == amounts.examples
        assert len({row["prompt"] for row in train}) == len(train)
        assert [sum(row["kind"] == kind for row in asked) for kind in ("copies", "contradictions", "hops")] == list(per_kind)
        for query in asked:
            own = [row for row in train if row["fact"] == query["fact"]]
            says_so = [row for row in own if row["completion"] == query["completion"]]
            assert len(says_so) == {"copies": 3, "contradictions": 1, "hops": 1}[query["kind"]]
            assert len(own) == {"copies": 3, "contradictions": 3, "hops": 2}[query["kind"]]
            assert not [row for row in train if row["fact"] != query["fact"] and "lives in" in row["prompt"] and row["completion"] == query["completion"]]
            assert query["prompt"] not in {row["prompt"] for row in train}


def test_trainings_are_paid_for_once_whoever_asks(bench, small):
    game = build_game(small.lens)
    masks = np.random.default_rng(0).random((20, 8)) < 0.5
    first = bench.kept(game, 0)
    outputs = first(masks)
    assert first.paid == len(np.unique(masks, axis=0))
    np.testing.assert_allclose(outputs, game.outputs_of(masks, 0), atol=1e-4)
    again = bench.kept(game, 0)
    np.testing.assert_array_equal(again(masks[::-1]), outputs[::-1])
    assert again.paid == 0
    assert bench.kept(game, 1)(masks[:1]).shape == (1, 2)


def test_on_a_real_game_all_methods_that_are_there_are_scored_and_a_peer_that_is_not_is_reported_to_be_missing(bench, small, monkeypatch):
    monkeypatch.setitem(importlib.import_module("jobs.bench.data_peers").PEERS, "dattri", lambda _: importlib.import_module("no_such_peer"))
    protocol = bench.Protocol(budgets=(16, 24), heldout=12, seeds=2, ladder=(16,), averaged=1)
    methods = [method for method in bench.METHODS if method != "traker"]
    rows = list(bench.rows(protocol, [small], methods))
    scores = {(row["method"], row["budget"]): row for row in rows if row["row"] == "lds"}
    assert set(scores) == {(method, budget) for method in ("proxyspex", "singles") for budget in (16, 24)} | {(method, 1) for method in bench.GRADIENTS}
    assert not [row for row in rows if "error" in row]
    assert scores["singles", 24]["lo"] <= scores["singles", 24]["lds"] <= scores["singles", 24]["hi"]
    assert len(scores["influence", 1]["by_query"]) == 2
    assert [row["why"] for row in rows if row["row"] == "missing"] == ["No module named 'no_such_peer'; the extra `bench` installs it"]
    assert [(row["method"], row["budget"]) for row in rows if row["row"] == "screening"] == [("unaided", 16), ("proxyspex", 16)]
    assert {row["metric"] for row in rows if row["row"] == "ceiling"} == {"ceiling_halves", "ceiling_averaged", "ceiling_attainable"}
    (cost,) = [row for row in rows if row["row"] == "cost"]
    assert cost["trained"] == 24 + 2 * 12
    found = importlib.import_module("jobs.bench.data_targets").summary(rows)
    assert found["lds"]["small"]["singles"] == {"16": scores["singles", 16]["lds"], "24": scores["singles", 24]["lds"]}
    assert found["proxyspex_matches_best"]["met"] is None, "no budget is as large as those that the target is about"
    assert list(bench.rows(protocol, [small], ["singles"]))[-1]["trained"] == 0


def lds_row(method, budget, value, *, planted=False):
    by_query = [value - 0.1, value + 0.1, value]
    return {"row": "lds", "data": "d", "planted": planted, "method": method, "budget": budget, "lds": value, "by_query": by_query}


def test_proxyspex_matches_the_best_unless_another_method_with_no_more_retrainings_scores_higher(targets):
    rows = [lds_row("proxyspex", 100, 0.5), lds_row("singles", 100, 0.45), lds_row("traker", 3, 0.4), lds_row("singles", 300, 0.6)]
    assert targets.summary(rows)["proxyspex_matches_best"]["met"]
    beaten = targets.summary([*rows, lds_row("dattri", 1, 0.52)])["proxyspex_matches_best"]
    assert (beaten["value"], beaten["met"], beaten["within_noise"]) == (-0.02, False, False)
    assert targets.summary(rows)["proxyspex_leads_where_planted"]["met"] is None


def test_the_lead_where_interactions_are_planted_must_be_larger_than_its_noise(targets):
    even = [lds_row("proxyspex", 100, 0.6, planted=True), lds_row("singles", 100, 0.5, planted=True)]
    assert targets.summary(even)["proxyspex_leads_where_planted"]["met"]
    spread = [{**even[0], "by_query": [1.0, 0.3, 0.5]}, even[1]]
    assert targets.summary(spread)["proxyspex_leads_where_planted"]["met"] is False


def test_the_price_of_a_score_with_gradients_is_read_off_the_ladder(targets):
    def rung(method, budget, value):
        return lds_row(method, budget, value) | {"row": "screening"}

    rows = [rung("unaided", 50, 0.3), rung("unaided", 100, 0.5), rung("proxyspex", 50, 0.4), rung("proxyspex", 100, 0.45)]
    assert [(row["budget"], row["with_gradients"], row["ratio"]) for row in targets.screening(rows)] == [(50, 50, 1.0), (100, None, None)]
