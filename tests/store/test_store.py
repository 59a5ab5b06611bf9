"""What goes in comes out, once, from any thread."""

import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import begin, game

from raysp.errors import UserError
from raysp.game import Component, GameInfo, fingerprint
from raysp.masks import pack, unpack
from raysp.store import Store
from raysp.store.packing import from_binary, to_binary, to_lists


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as opened:
        yield opened


def some(m, n, seed=0):
    rng = np.random.default_rng(seed)
    return unpack(np.unique(pack(rng.random((4 * m, n)) < 0.5), axis=0), n)[:m], rng.random(m)


def test_a_store_that_is_opened_and_not_written_leaves_no_log(tmp_path):
    for _ in range(2):  # the first time it is made, which is written
        with Store.open(tmp_path / "s.duckdb"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["s.duckdb"]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1000), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_masks_survive_packing(n, m, seed):
    masks = np.random.default_rng(seed).random((m, n)) < 0.5
    assert np.array_equal(from_binary(to_binary(masks), n), masks)
    chunked = pa.chunked_array([to_binary(masks), to_binary(masks[: m // 2])]).slice(m // 3)
    assert np.array_equal(from_binary(chunked, n), np.concatenate([masks, masks[: m // 2]])[m // 3 :])
    assert to_lists(masks).to_pylist() == masks.tolist()


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 1000))
def test_masks_of_any_length_survive_the_store(tmp_path_factory, n):
    with Store.open(tmp_path_factory.mktemp("any") / "s.duckdb") as store:
        begin(store, info=game(n))
        masks = np.unique(np.random.default_rng(n).random((50, n)) < 0.5, axis=0)
        store.add_evaluations("run-1", "explore", masks, np.arange(len(masks)))
        rows = store.run_evaluations("run-1")
        assert rows["mask"].to_pylist() == masks.tolist()
        assert rows.schema.field("mask").type == pa.list_(pa.bool_(), n)
        removed = store.sql(
            f"SELECT kept(mask) AS k, removed(mask, {n}) AS r, is_kept(mask, {n - 1}) AS last, removed_components(mask, {n}) AS which FROM evaluations ORDER BY position"
        )
        assert removed["k"].to_pylist() == masks.sum(1).tolist()
        assert removed["r"].to_pylist() == (~masks).sum(1).tolist()
        assert removed["last"].to_pylist() == masks[:, -1].tolist()
        assert removed["which"].to_pylist() == [np.flatnonzero(~mask).tolist() for mask in masks]


def test_known_masks_are_found_and_others_are_nan(store):
    game_id = begin(store, info=game(12))
    masks, values = some(500, 12)
    store.add_evaluations("run-1", "explore", masks[:300], values[:300])
    found = store.known(game_id, masks[::-1])[::-1]
    assert np.array_equal(found[:300], values[:300])
    assert np.isnan(found[300:]).all()
    assert store.known(game_id, masks[:0]).shape == (0,)
    other = store.register_game(game(12, "other"))
    assert np.isnan(store.known(other, masks)).all()


def test_a_game_is_registered_once_with_unicode_labels(store):
    info = game(3, labels=["naïve “quotes”", "日本語", "a\nb'; DROP TABLE runs; --"])
    assert store.register_game(info) == store.register_game(info)
    assert store.components(store.register_game(info)) == info.components


def test_what_another_run_has_stored_is_reused_and_its_cost_is_not_lost(store):
    begin(store, "a", game(12))
    begin(store, "b", game(12))
    masks, values = some(100, 12)
    assert store.add_evaluations("a", "explore", masks[:60], values[:60], tokens=600, seconds=6) == 60
    assert store.add_evaluations("b", "explore", masks, values + 1, tokens=1000, seconds=10) == 40
    costs = {row["run_id"]: row for row in store.sql("FROM costs").to_pylist()}
    assert (costs["b"]["evaluations"], costs["b"]["reused"], costs["b"]["tokens"]) == (100, 60, 1000)
    rows = store.run_evaluations("b")
    assert rows["mask"].to_pylist() == masks.tolist()
    assert np.array_equal(rows["value"].to_numpy(), np.concatenate([values[:60], values[60:] + 1]))
    assert rows["reused"].to_pylist() == [True] * 60 + [False] * 40


def test_a_batch_delivered_twice_and_a_repeated_mask_add_nothing(store):
    begin(store, info=game(12))
    masks, values = some(50, 12)
    twice = np.concatenate([masks, masks])
    assert store.add_evaluations("run-1", "explore", twice, np.concatenate([values, values])) == 50
    assert store.add_evaluations("run-1", "explore", masks, values) == 0
    assert store.run_evaluations("run-1")["reused"].to_pylist() == [False] * 50


def test_a_resumed_run_asks_again_without_being_counted_again(store):
    begin(store, info=game(12))
    masks, values = some(50, 12)
    store.add_evaluations("run-1", "explore", masks, values, in_round=1)
    store.set_status("run-1", "interrupted")
    begin(store, info=game(12))
    assert store.run_row("run-1")["status"] == "running"
    store.add_reused("run-1", "explore", masks, in_round=1)
    store.add_reused("run-1", "validate", masks[:5], positions=np.arange(5, 10, dtype=np.int32))
    rows = store.run_evaluations("run-1").to_pylist()
    assert [(row["phase"], row["reused"]) for row in rows] == [("explore", False)] * 50 + [("validate", True)] * 5
    assert store.run_evaluations("run-1", "validate")["position"].to_pylist() == [5, 6, 7, 8, 9]


def test_costs_accumulate(store):
    begin(store, info=game(4))
    store.add_evaluations("run-1", "explore", *some(3, 4), tokens=30, seconds=1.5)
    store.add_cost("run-1", "explore", wall_seconds=2)
    store.add_cost("run-1", "explore", wall_seconds=4, tokens=12)
    [row] = store.run_table("costs", "run-1").to_pylist()
    assert {key: row[key] for key in ("evaluations", "tokens", "seconds", "wall_seconds", "evaluations_per_second")} == {
        "evaluations": 3, "tokens": 42, "seconds": pytest.approx(1.5), "wall_seconds": 6.0, "evaluations_per_second": 0.5,
    }  # fmt: skip


INTERACTIONS = pa.table({
    "components": pa.array([[0, 2], [1, 2, 3]], pa.list_(pa.int32())), "order": pa.array([2, 3], pa.int32()), "index": ["fbii"] * 2, "value": [2.0, -1.0],
})  # fmt: skip
SINGLES = pa.table({"component": pa.array([0, 1], pa.int32()), "value": [1.0, -0.5], "method": ["removed"] * 2})
REASON = {"code": "surrogate_good", "figures": {"r2": 0.9, "heldout": 200}, "sentence": "The surrogate predicts well."}


def test_an_answer_replaces_the_one_before_and_is_labelled(store):
    begin(store, info=game(4))
    for _ in range(2):
        store.finish_run(
            "run-1", "done", {"r2": 0.9, "verdict": "reliable", "reasons": [REASON], "metrics": {"bound": 0.1}}, singles=SINGLES, interactions=INTERACTIONS
        )
    row = store.run_row("run-1")
    assert (row["status"], row["r2"], row["reasons"], row["metrics"]) == ("done", 0.9, [REASON], {"bound": 0.1})
    assert store.sql("SELECT code, (figures->>'r2')::DOUBLE AS r2 FROM reasons WHERE run_id = 'run-1'").to_pylist() == [{"code": "surrogate_good", "r2": 0.9}]
    assert row["game"]["description"]["model"] == "tiny"
    table = store.run_table("interactions", "run-1")
    assert table["order"].to_pylist() == [2, 3]
    assert table["labels"].to_pylist() == ["w0 × w2", "w1 × w2 × w3"]
    assert table["rank"].to_pylist() == [1, 2]
    assert store.run_table("singles", "run-1")["label"].to_pylist() == ["w0", "w1"]
    assert store.sql("SELECT labels FROM top_interactions LIMIT 1").to_pylist() == [{"labels": "w0 × w2"}]
    [summary] = store.runs().to_pylist()
    assert (summary["interactions"], summary["strongest"]) == (2, "w0 × w2")


def test_where_a_component_is_in_a_model_is_kept(store):
    parts = (Component(0, "L3.H7", "head", size=64, layer=3, unit=7), Component(1, "w", "word", 0, 1))
    begin(store, info=GameInfo(fingerprint({"model": "m"}), parts, {"model": "m"}))
    assert store.components(1) == parts
    assert store.run_table("components", "run-1").select(["layer", "unit"]).to_pylist() == [{"layer": 3, "unit": 7}, {"layer": None, "unit": None}]


def test_cross_checks_belong_to_an_answer_and_are_labelled(store):
    begin(store, info=game(4))
    checks = pa.table({"method": ["rollout"] * 2, "component": pa.array([1, 0], pa.int32()), "value": [0.5, 0.25]})
    store.finish_run("run-1", "done", {}, cross_checks=checks)
    rows = store.run_table("cross_checks", "run-1").to_pylist()
    assert rows == [{"method": "rollout", "component": i, "label": f"w{i}", "value": value} for i, value in ((0, 0.25), (1, 0.5))]
    store.finish_run("run-1", "done", {})
    assert store.run_table("cross_checks", "run-1").num_rows == 0


def test_prunings_replace_those_before(store):
    begin(store, info=game(4))
    begin(store, "run-2", info=game(4))
    rows = pa.table({"keep": [0.5, 0.25], "kept": pa.array([2, 1], pa.int32()), "method": ["singles"] * 2, "components": [[0, 2], [2]], "heldout": [0.9, 0.4]})
    for part in (rows, rows.slice(0, 1)):
        store.add_prunings("run-1", part)
        store.add_prunings("run-2", rows)
    [row] = store.run_table("prunings", "run-1").to_pylist()
    assert (row["keep"], row["kept"], row["method"], row["components"], row["heldout"], row["lo"]) == (0.5, 2, "singles", [0, 2], 0.9, None)
    assert row["created"] is not None
    assert store.run_table("prunings", "run-2")["keep"].to_pylist() == [0.25, 0.5]
    with pytest.raises(ValueError, match="has no column"):
        store.add_prunings("run-1", rows.append_column("luck", pa.array([1, 2])))
    assert store.run_table("prunings", "run-1").num_rows == 1
    with pytest.raises(ValueError, match="no run"):
        store.add_prunings("run-3", rows)


def test_a_wrong_answer_stores_nothing(store):
    begin(store, info=game(4))
    with pytest.raises(ValueError, match="no summary column"):
        store.finish_run("run-1", "done", {"r3": 1}, interactions=INTERACTIONS)
    with pytest.raises(ValueError, match="has no column"):
        store.finish_run("run-1", "done", {}, interactions=INTERACTIONS.append_column("strength", pa.array([1, 2])))
    with pytest.raises(ValueError, match="no table"):
        store.finish_run("run-1", "done", {}, guesses=INTERACTIONS)
    assert store.run_table("interactions", "run-1").num_rows == 0
    assert store.run_row("run-1")["status"] == "running"


def test_mistakes_of_the_caller_are_value_errors(store):
    begin(store, info=game(4))
    masks, values = some(4, 4)
    store.add_evaluations("run-1", "explore", masks, values)
    for wrong in (
        lambda: store.add_evaluations("none", "explore", masks, values),
        lambda: store.add_evaluations("run-1", "explore", masks[:, :3], values),
        lambda: store.add_evaluations("run-1", "explore", masks, values[:2]),
        lambda: store.add_reused("run-1", "explore", masks, positions=np.zeros(2, np.int32)),
        lambda: store.start_run("run-1", "{}", game(5), lens="feature", explorer="screen", seed=0),
        lambda: store.run_table("secrets", "run-1"),
        lambda: store.run_row("none"),
    ):
        with pytest.raises(ValueError, match=r"."):
            wrong()


def test_runs_are_found_by_id_beginning_name_and_last(store):
    with pytest.raises(UserError, match="the store has no runs"):
        store.find_run("last")
    begin(store, "aa11", name="review")
    begin(store, "aa22", name="review")
    begin(store, "bb33")
    assert store.find_run("last") == "bb33"
    assert store.find_run("bb") == "bb33"
    assert store.find_run("review") == "aa22"
    assert store.find_run("aa11") == "aa11"
    with pytest.raises(UserError, match="matches 2 runs; name one of them: aa22, aa11"):
        store.find_run("aa")
    with pytest.raises(UserError, match="nearest: review"):
        store.find_run("reviw")


def test_threads_read_while_one_writes(store):
    game_id = begin(store, info=game(20))
    masks, values = some(4000, 20)
    failures, stop = [], threading.Event()

    def look():
        try:
            while not stop.is_set():
                found = store.known(game_id, masks)
                have = ~np.isnan(found)
                assert np.array_equal(found[have], values[have])
                assert have.sum() % 100 == 0
                store.sql("FROM run_costs")
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    def write(part):
        try:
            for start in range(part, 4000, 400):
                store.add_evaluations("run-1", "explore", masks[start : start + 100], values[start : start + 100])
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    readers = [threading.Thread(target=look) for _ in range(3)]
    writers = [threading.Thread(target=write, args=(part,)) for part in (0, 100, 200, 300)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not failures
    assert not np.isnan(store.known(game_id, masks)).any()


def test_secrets_in_events_and_errors_are_masked(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        begin(store, "r")
        store.add_event("r", "note", "fetched https://user:secret@host/x")
        store.set_status("r", "failed", "https://user:secret@host/x is not there")
        kept = f"{store.sql('FROM events').to_pylist()}{store.run_row('r')}"
    assert "secret" not in kept
    assert kept.count("https://***@host/x") == 2
