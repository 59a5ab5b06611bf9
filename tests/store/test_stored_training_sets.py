"""A training set in the store: many components, queries, examples, and the outputs of every evaluation beside its value."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from stores import begin, game
from test_store import some

from raysp.game import Component, Example, GameInfo, Query, fingerprint
from raysp.store import Store, schema

QUERIES = (Query(0, "capital", "Capital of France?", "Paris", "Rome"), Query(1, "naïve", "日本語; DROP TABLE runs", "はい"), Query(2, "empty", "", "x"))


def training_set(n=8, value="logprob"):
    description = {"lens": "data", "n": n, "value": value}
    components = tuple(Component(i, f"example {i}", "example") for i in range(n))
    examples = tuple(Example(i, i % n, f"question {i}", f"answer {i}") for i in range(2 * n))
    return GameInfo(fingerprint(description), components, description, queries=QUERIES, examples=examples)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as opened:
        yield opened


def outputs_of(values):
    return values[:, None] + np.array([-1.0, 0.0, 1.0])


def test_queries_and_examples_come_with_the_game(store):
    game_id = begin(store, info=training_set())
    assert store.queries(game_id) == QUERIES
    assert store.examples(game_id) == training_set().examples
    assert store.run_table("queries", "run-1")["target"].to_pylist() == ["Paris", "はい", "x"]
    assert store.run_table("examples", "run-1")["component"].to_pylist() == [*range(8), *range(8)]
    assert store.queries(store.register_game(game())) == ()


def test_outputs_are_found_by_mask_and_by_run(store):
    game_id = begin(store, info=training_set())
    masks, values = some(40, 8)
    assert store.add_evaluations("run-1", "explore", masks[:30], values[:30], outputs=outputs_of(values[:30])) == 30
    found = store.outputs(game_id, masks[::-1])[::-1]
    assert np.array_equal(found[:30], outputs_of(values[:30]))
    assert np.isnan(found[30:]).all()
    assert found.shape == (40, 3)
    assert np.array_equal(store.run_outputs("run-1"), outputs_of(values[:30]))
    assert store.outputs(game_id, masks[:0]).shape == (0, 3)
    assert store.sql("SELECT outputs[2] AS second FROM outputs ORDER BY evaluation_id")["second"].to_pylist() == values[:30].tolist()


def test_where_another_run_was_first_its_outputs_stay(store):
    begin(store, "a", training_set())
    game_id = begin(store, "b", training_set())
    masks, values = some(50, 8)
    store.add_evaluations("a", "explore", masks[:20], values[:20], outputs=outputs_of(values[:20]))
    assert store.add_evaluations("b", "explore", masks, values + 5, outputs=outputs_of(values + 5)) == 30
    expected = outputs_of(np.concatenate([values[:20], values[20:] + 5]))
    assert np.array_equal(store.outputs(game_id, masks), expected)
    assert np.array_equal(store.run_outputs("b"), expected)
    assert store.sql("SELECT count(*) AS many FROM outputs")["many"].to_pylist() == [50]


def test_outputs_of_another_shape_store_nothing(store):
    game_id = begin(store, info=training_set())
    begin(store, "other", game())
    masks, values = some(5, 8)
    for run_id, outputs in (("run-1", np.zeros((5, 2))), ("run-1", np.zeros(5)), ("other", np.zeros((5, 3)))):
        with pytest.raises(ValueError, match="outputs have shape"):
            store.add_evaluations(run_id, "explore", masks, values, outputs=outputs)
    assert np.isnan(store.known(game_id, masks)).all()


def test_games_without_queries_have_no_outputs(store):
    game_id = begin(store, info=game())
    masks, values = some(5, 8)
    store.add_evaluations("run-1", "explore", masks, values)
    assert store.outputs(game_id, masks).shape == (5, 0)
    assert store.run_outputs("run-1").shape == (5, 0)


def test_a_hundred_thousand_components_come_out_as_they_went_in(store):
    info = training_set(100_000)
    game_id = begin(store, info=info)
    assert store.components(game_id) == info.components
    assert store.sql("SELECT count(*) AS many FROM examples")["many"].to_pylist() == [200_000]
    masks = np.random.default_rng(0).random((3, 100_000)) < 0.5
    store.add_evaluations("run-1", "explore", masks, np.arange(3.0), outputs=outputs_of(np.arange(3.0)))
    assert store.known(game_id, masks).tolist() == [0, 1, 2]
    assert np.array_equal(store.outputs(game_id, masks), outputs_of(np.arange(3.0)))


SINGLES = pa.table({
    "query": pa.array([0, 0, 0, 0, 1], pa.int32()), "component": pa.array([0, 1, 2, 3, 0], pa.int32()), "value": [0.5, -2.0, 1.5, 0.0, -0.25],
    "method": ["removed"] * 5,
})  # fmt: skip
SCORES = pa.table({"query": pa.array([0, 1], pa.int32()), "label": ["capital", "naïve"], "value_intact": [1.0, 2.0], "r2": [0.9, 0.8], "lds": [0.95, 0.5]})
INTERACTIONS = pa.table({
    "query": pa.array([0, 0], pa.int32()), "rank": pa.array([1, 2], pa.int32()), "components": pa.array([[0, 2], [1, 3]], pa.list_(pa.int32())),
    "order": pa.array([2, 2], pa.int32()), "index": ["bii"] * 2, "value": [-1.0, 0.5], "kind": ["redundancy", "synergy"], "verified": [True, False],
})  # fmt: skip


def answer(store, run_id="run-1"):
    store.finish_run(run_id, "done", {}, query_scores=SCORES, query_singles=SINGLES, query_interactions=INTERACTIONS)


def test_answers_of_queries_replace_those_before_and_are_labelled(store):
    begin(store, info=training_set())
    answer(store)
    answer(store)
    assert store.run_table("query_singles", "run-1")["label"].to_pylist() == ["example 0", "example 1", "example 2", "example 3", "example 0"]
    table = store.run_table("query_interactions", "run-1")
    assert table["labels"].to_pylist() == ["example 0 × example 2", "example 1 × example 3"]
    assert table["order"].to_pylist() == [2, 2]
    assert store.run_table("query_scores", "run-1")["lds"].to_pylist() == [0.95, 0.5]
    store.finish_run("run-1", "done", {})
    assert store.run_table("query_scores", "run-1").num_rows == 0


def sides(store):
    rows = store.sql("SELECT query, side, rank, component, prompt, examples FROM helpful_examples").to_pylist()
    return [tuple(row.values()) for row in rows]


def test_helpful_and_harmful_examples_come_with_their_texts(store):
    begin(store, info=training_set())
    answer(store)
    assert sides(store) == [
        (0, "helpful", 1, 2, "question 2", 2),
        (0, "helpful", 2, 0, "question 0", 2),
        (0, "harmful", 1, 1, "question 1", 2),
        (1, "harmful", 1, 0, "question 0", 2),
    ]
    first, second = store.sql("FROM query_summary").to_pylist()
    assert (first["helpful"], first["harmful"], first["strongest"], first["verified"]) == ("example 2", "example 1", "example 0 × example 2", 1)
    assert (second["prompt"], second["helpful"], second["harmful"], second["interactions"]) == ("日本語; DROP TABLE runs", None, "example 0", 0)


def test_an_example_that_raises_a_loss_harms(store):
    begin(store, info=training_set(value="loss"))
    answer(store)
    assert [(side, component) for query, side, _, component, *_ in sides(store) if query == 0] == [("helpful", 1), ("harmful", 2), ("harmful", 0)]


def test_scores_and_selections_replace_those_before(store):
    begin(store, info=training_set())
    begin(store, "run-2", training_set())
    scores = pa.table({"method": ["proxyspex", None], "metric": ["lds", "ceiling_halves"], "score": [0.6, 0.7], "query": pa.array([None, None], pa.int32())})
    store.replace_data_scores("run-1", scores)
    store.replace_data_scores("run-1", scores.slice(0, 1))
    store.replace_data_scores("run-2", scores)
    [row] = store.run_table("data_scores", "run-1").to_pylist()
    assert (row["method"], row["score"], row["lo"], row["fraction"]) == ("proxyspex", 0.6, None, None)
    assert row["created"] is not None
    assert store.run_table("data_scores", "run-2")["method"].to_pylist() == ["proxyspex", None]
    chosen = pa.table({"rule": ["drop harmful:5%"], "dropped": pa.array([1], pa.int32()), "components": [[0, 2]], "difference": [0.1]})
    store.add_selections("run-1", chosen)
    store.add_selections("run-1", pa.table({"rule": ["keep best:2"], "difference": [0.3]}))
    store.add_selections("run-1", chosen.set_column(3, "difference", pa.array([0.2])))
    assert store.run_table("selections", "run-1").select(["rule", "difference"]).to_pylist() == [
        {"rule": "keep best:2", "difference": 0.3},
        {"rule": "drop harmful:5%", "difference": 0.2},
    ]
    for add in (store.replace_data_scores, store.add_selections):
        with pytest.raises(ValueError, match="has no column"):
            add("run-1", pa.table({"rule": ["x"], "luck": [1]}))
        with pytest.raises(ValueError, match="no run"):
            add("run-9", chosen)
    assert store.run_table("selections", "run-1").num_rows == 2
    assert store.run_table("data_scores", "run-1").num_rows == 1


def test_a_store_from_before_training_sets_keeps_its_runs(tmp_path):
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        schema.migrate(con, path, upto=3)
        con.execute("INSERT INTO games VALUES (1, 'f', 2, '{}', NULL, [])")
        con.execute("INSERT INTO evaluations VALUES (1, 1, '\\xC0'::BLOB, 0.5, 'r', 'explore', 0, 0, 1, 1, TIMESTAMP '2026-01-01')")
    with Store.open(path) as store:
        assert store.known(1, np.ones((1, 2), dtype=bool)).tolist() == [0.5]
        assert store.outputs(1, np.ones((1, 2), dtype=bool)).shape == (1, 0)
