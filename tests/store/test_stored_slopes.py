"""Slopes in the store: beside the values that they were measured with, counted apart from values alone, and removed with them."""

import numpy as np
import pyarrow.dataset
import pytest
from stores import begin, game
from test_store import some
from test_stored_training_sets import outputs_of, training_set

from raysp.store import Addition, Store

N = 8


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as opened:
        yield opened


def slopes_of(masks, queries=1, seed=0):
    return np.random.default_rng(seed).normal(size=(len(masks), queries, masks.shape[1])).astype(np.float32)


def test_slopes_are_found_by_mask_and_are_nan_where_none_were_measured(store):
    game_id = begin(store, info=game(N))
    masks, values = some(40, N)
    slopes = slopes_of(masks)
    store.add_evaluations("run-1", "explore", masks[:20], values[:20], slopes=slopes[:20])
    store.add_evaluations("run-1", "explore", masks[20:30], values[20:30])
    found = store.slopes(game_id, masks[::-1])[::-1]
    assert found.dtype == np.float32
    assert np.array_equal(found[:20], slopes[:20])
    assert found.shape == (40, 1, N)
    assert np.isnan(found[20:]).all()
    assert store.slopes(game_id, masks[:0]).shape == (0, 1, N)
    assert store.sql("SELECT slopes[1][3] AS third FROM slopes ORDER BY evaluation_id")["third"].to_pylist() == slopes[:20, 0, 2].tolist()


def test_each_query_has_slopes(store):
    game_id = begin(store, info=training_set(N))
    masks, values = some(10, N)
    slopes = slopes_of(masks, queries=3)
    store.add_evaluations("run-1", "explore", masks, values, outputs=outputs_of(values), slopes=slopes)
    assert np.array_equal(store.slopes(game_id, masks), slopes)


def test_slopes_of_another_shape_store_nothing(store):
    game_id = begin(store, info=game(N))
    masks, values = some(5, N)
    for slopes in (np.zeros((5, N)), np.zeros((5, 2, N)), np.zeros((4, 1, N))):
        with pytest.raises(ValueError, match="slopes have shape"):
            store.add_evaluations("run-1", "explore", masks, values, slopes=slopes)
    assert np.isnan(store.known(game_id, masks)).all()


def test_a_value_that_is_measured_again_with_slopes_stays_and_its_price_is_counted(store):
    game_id = begin(store, info=game(N))
    masks, values = some(30, N)
    slopes = slopes_of(masks)
    store.add_evaluations("run-1", "explore", masks[:20], values[:20], tokens=200, seconds=2)
    assert store.add_evaluations("run-1", "explore", masks, values + 1, tokens=600, seconds=6, slopes=slopes) == 10
    assert np.array_equal(store.known(game_id, masks), np.concatenate([values[:20], values[20:] + 1]))
    assert np.array_equal(store.slopes(game_id, masks), slopes)
    [cost] = store.run_table("costs", "run-1").to_pylist()
    assert (cost["evaluations"], cost["with_slopes"], cost["tokens"], cost["seconds"]) == (50, 30, 800, 8)
    apart = "SELECT with_slopes, sum(seconds) AS s FROM (FROM batches SELECT with_slopes, seconds UNION ALL FROM extra_costs SELECT with_slopes, seconds) GROUP BY ALL"
    assert {row["with_slopes"]: row["s"] for row in store.sql(apart).to_pylist()} == {False: 2, True: 6}
    assert store.pace(game_id) == (20, 0.1)


def test_slopes_that_are_stored_stay_and_occur_once(store):
    begin(store, "a", game(N))
    game_id = begin(store, "b", game(N))
    masks, values = some(30, N)
    first, second = slopes_of(masks), slopes_of(masks, seed=1)
    store.add_evaluations("a", "explore", masks[:10], values[:10], slopes=first[:10])
    together = [("a", slice(5, 20), first), ("b", slice(0, 25), second), ("b", slice(15, 30), None)]
    store.add_many([Addition(run, "explore", masks[rows], values[rows], slopes=None if of is None else of[rows]) for run, rows, of in together])
    found = store.slopes(game_id, masks)
    assert np.array_equal(found[:20], first[:20])
    assert np.array_equal(found[20:25], second[20:25])
    assert np.isnan(found[25:]).all()
    assert store.sql("SELECT count(*) AS c, count(DISTINCT evaluation_id) AS d FROM slopes").to_pylist() == [{"c": 25, "d": 25}]


def test_the_price_of_slopes_is_kept_with_the_game_and_never_replaced(store):
    assert store.slope_price(game(N).fingerprint) is None
    store.add_slope_price(game(N), 2.25)
    store.add_slope_price(game(N), 9.0)
    assert store.slope_price(game(N).fingerprint) == 2.25
    begin(store, info=game(N))
    assert store.slope_price(game(N).fingerprint) == 2.25


def test_slopes_are_removed_with_their_evaluations(store):
    masks, values = some(30, N)
    for run, rows in (("a", slice(0, 20)), ("b", slice(10, 30))):
        game_id = begin(store, run, game(N))
        store.add_evaluations(run, "explore", masks[rows], values[rows], slopes=slopes_of(masks)[rows])
        store.set_status(run, "done")
    store.remove_runs(["a"])
    found = store.slopes(game_id, masks)
    assert np.isnan(found[:10]).all()
    assert np.array_equal(found[10:], slopes_of(masks)[10:])
    store.remove_runs(["b"])
    assert store.sql("SELECT count(*) AS c FROM slopes")["c"].to_pylist() == [0]


def test_exported_evaluations_have_their_slopes(store, tmp_path):
    begin(store, info=game(N))
    masks, values = some(12, N)
    slopes = slopes_of(masks)
    store.add_evaluations("run-1", "explore", masks[:6], values[:6], slopes=slopes[:6])
    store.add_evaluations("run-1", "explore", masks[6:], values[6:], in_round=1)
    store.export(["run-1"], tmp_path / "out")
    rows = pyarrow.dataset.dataset(tmp_path / "out" / "evaluations", partitioning="hive").to_table()
    assert rows["slopes"].to_pylist() == [*slopes[:6].tolist(), *[None] * 6]


def test_slopes_are_in_snapshots(store):
    game_id = begin(store, info=game(N))
    masks, values = some(12, N)
    store.add_evaluations("run-1", "explore", masks, values, slopes=slopes_of(masks))
    snapshot = store.publish()
    with Store.read(snapshot) as reading:
        assert np.array_equal(reading.slopes(game_id, masks), slopes_of(masks))
