"""Answers are stored before they are told, those that arrive together in one go, and each mask once whoever asked for it."""

import json
from dataclasses import replace

import numpy as np
import pytest

import raysp
from raysp.game import Measurement
from raysp.lenses import build_game
from raysp.masks import pack
from raysp.runtime import recorder as recorder_module
from raysp.runtime.messages import PlacedOrder
from raysp.runtime.recorder import Found, Recorder
from raysp.runtime.sessions import Session
from raysp.scheduling import Delivery
from raysp.spectral.walsh import all_masks

N = 4


@pytest.fixture
def desk(tmp_path):
    """Two runs of one game with a session each, their store, and what records for them."""
    info = build_game(raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=N, name="counted")).info
    with raysp.Store.open(tmp_path / "s.duckdb") as store:
        sessions = {}
        for name in ("one", "other"):
            store.start_run(name, json.dumps({"lens": {}}), info, lens="function", explorer="singles", seed=0)
            sessions[name] = Session(name, "", tmp_path / "s.duckdb", name, 5, is_run=True)
            sessions[name].reset(info)
            sessions[name].game_id = store.register_game(info)
        recorder = Recorder(sessions.get, lambda session: store)
        recorder.start()
        yield store, sessions, recorder
        recorder.stop()


def placed(session, masks, number=0):
    session.fresh([PlacedOrder(number, pack(masks), "explore", 1, np.arange(len(masks), dtype=np.int32))])
    return np.arange(len(masks))


def told(session, count=1):
    found = ()
    while sum(len(each.rows) for each in found) < count:
        found = session.take(0, 10.0)
        assert found
    return found


def answer(values, *, tokens=0):
    return Measurement(np.array(values, dtype=np.float64), tokens, 0.5)


def test_what_does_not_fit_into_memory_together_is_stored_in_several_goes(desk, monkeypatch):
    store, sessions, recorder = desk
    monkeypatch.setattr(recorder_module, "CELLS_TOGETHER", 3 * N)
    stored, add_many = [], store.add_many
    monkeypatch.setattr(store, "add_many", lambda additions: stored.append([len(each.masks) for each in additions]) or add_many(additions))
    masks = all_masks(N)[:9]
    rows = placed(sessions["one"], masks)
    parts = np.split(rows, [1, 3, 7])  # 1, 2, 4 and 2 masks
    recorder.put([Delivery("one", 0, some, answer(masks[some].sum(axis=1)), None, paid=True, attempts=1) for some in parts])
    told(sessions["one"], 9)
    assert stored == [[1, 2], [4], [2]]
    assert store.known(sessions["one"].game_id, masks).tolist() == masks.sum(axis=1).tolist()


def test_an_answer_that_two_runs_wait_for_is_stored_and_paid_for_once(desk):
    store, sessions, recorder = desk
    masks = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], dtype=bool)
    rows = placed(sessions["one"], masks)
    placed(sessions["other"], masks)
    paid = Delivery("one", 0, rows, answer([2.0, 2.0], tokens=8), None, paid=True, attempts=2)
    free = Delivery("other", 0, rows, answer([2.0, 2.0]), None, paid=False, attempts=2)
    recorder.put([paid, free])
    assert [(each.stored, each.reused) for each in told(sessions["other"])] == [(True, True)]
    assert [(each.stored, each.reused) for each in told(sessions["one"])] == [(True, False)]
    np.testing.assert_array_equal(store.known(sessions["one"].game_id, masks), [2.0, 2.0])
    costs = {name: store.run_table("costs", name).to_pylist() for name in sessions}
    assert [(row["evaluations"], row["reused"]) for row in costs["one"]] == [(2, 0)]
    assert [(row["evaluations"], row["reused"]) for row in costs["other"]] == [(0, 2)]
    assert (recorder.totals.evaluations, recorder.totals.found, recorder.totals.tokens) == (2, 2, 8)
    assert sessions["one"].retried == 1


def test_what_is_not_finite_is_told_and_not_stored(desk):
    store, sessions, recorder = desk
    masks = np.array([[1, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)
    rows = placed(sessions["one"], masks)
    recorder.put([Delivery("one", 0, rows, answer([1.0, np.nan]), None, paid=True, attempts=1)])
    (found,) = told(sessions["one"], 2)
    assert not found.stored
    assert np.isnan(store.known(sessions["one"].game_id, masks)).all()


def test_rows_that_the_store_had_are_told_beside_those_that_were_measured_and_errors_name_nobody_elses(desk):
    _, sessions, recorder = desk
    masks = np.array([[1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=bool)
    placed(sessions["one"], masks)
    sessions["one"].orders[0].rows = np.array([1, 2])  # the broker was given the last two
    recorder.put([Delivery("one", 0, np.array([1]), None, raysp.EvaluationError("no"), paid=False, attempts=1)])
    recorder.put([Delivery("one", 0, np.array([0]), answer([3.0]), None, paid=True, attempts=1)])
    recorder.put(Found(sessions["one"], 0, np.array([0]), answer([3.0])))
    found = told(sessions["one"], 3)
    assert sorted((each.rows.tolist(), each.error is None) for each in found) == [([0], True), ([1], True), ([2], False)]
    assert not sessions["one"].orders
    assert sessions["one"].take(found[-1].serial, 0.0) == ()


def test_answers_are_stored_together_while_a_run_waits_for_more_of_them_than_have_arrived(desk, monkeypatch):
    store, sessions, recorder = desk
    monkeypatch.setattr(recorder_module, "GATHER_SECONDS", 60.0)
    commits, add_many = [], store.add_many
    monkeypatch.setattr(store, "add_many", lambda additions: commits.append(sum(len(each.masks) for each in additions)) or add_many(additions))
    masks = all_masks(N)[:9]
    rows = placed(sessions["one"], masks)

    def put(some):
        recorder.put([Delivery("one", 0, rows[some], answer(masks[some].sum(axis=1)), None, paid=True, attempts=1)])

    for first in range(4):
        put([first])
    put([4])  # more than half of nine
    told(sessions["one"], 5)
    put([5])
    recorder.put([Delivery("one", 0, rows[[6]], None, ValueError("the game failed"), paid=True, attempts=1)])
    told(sessions["one"], 7)
    put([7])
    recorder.wait(sessions["one"].info.fingerprint, 1, timeout=0.0)
    told(sessions["one"], 8)
    assert commits == [5, 1, 1]


def test_slopes_are_stored_and_not_sent_along(desk):
    store, sessions, recorder = desk
    masks = all_masks(N)[:3]
    rows = placed(sessions["one"], masks)
    slopes = np.arange(3 * N, dtype=np.float32).reshape(3, 1, N)
    recorder.put([Delivery("one", 0, rows, replace(answer([1.0, 2.0, 3.0]), slopes=slopes), None, paid=True, attempts=1)])
    [found] = told(sessions["one"])
    assert (found.stored, found.measurement.slopes) == (True, None)
    np.testing.assert_array_equal(store.slopes(sessions["one"].game_id, masks), slopes)


def test_slopes_that_are_not_finite_are_told_and_not_stored(desk):
    store, sessions, recorder = desk
    rows = placed(sessions["one"], all_masks(N)[:1])
    slopes = np.full((1, 1, N), np.nan, dtype=np.float32)
    recorder.put([Delivery("one", 0, rows, replace(answer([1.0]), slopes=slopes), None, paid=True, attempts=1)])
    [found] = told(sessions["one"])
    assert not found.stored
    assert np.isnan(found.measurement.slopes).all()
    assert np.isnan(store.known(sessions["one"].game_id, all_masks(N)[:1])).all()
