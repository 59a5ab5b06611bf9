"""Rows of submitted runs: there from the start, changed by one service at a time, and left alone by everybody else."""

import numpy as np
import pytest
from stores import begin, game

from raysp.errors import UserError
from raysp.store import Store, state_writer


def row(run_id, priority=5, **changes):
    return {
        "run_id": run_id, "name": None, "set_name": None, "lens": "feature", "explorer": "screen", "model": "tiny", "seed": 0, "spec": "{}",
        "priority": priority,
    } | changes  # fmt: skip


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as opened:
        yield opened


def test_runs_wait_by_priority_and_then_in_the_order_of_submission(store):
    store.submit_runs([row("a"), row("b", 9), row("c"), row("d", 0)])
    assert {state["run_id"]: state["position"] for state in store.run_states()} == {"b": 1, "a": 2, "c": 3, "d": 4}
    store.set_state("b", "running", {"queued"})
    assert {state["run_id"]: state["position"] for state in store.run_states(["b", "c"])} == {"b": None, "c": 2}


def test_a_submitted_run_is_a_run_whose_game_is_unknown(store):
    store.submit_runs([row("a", name="mine")])
    assert store.find_run("mine") == "a"
    assert store.run_row("a")["game"] is None
    assert store.runs()["status"].to_pylist() == ["queued"]
    with pytest.raises(UserError, match=r"^run: 'a' has not begun, so it has no game yet; wait for it with `raysp watch a`$"):
        store.run_evaluations("a")
    begin(store, "a")
    found = store.run_row("a")
    assert (found["status"], found["priority"], found["desired"], found["n"]) == ("running", 5, "running", 8)
    assert found["submitted"] < found["started"]


def test_what_a_service_runs_is_left_to_it_and_what_a_process_ran_is_interrupted(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        store.submit_runs([row("queued"), row("begun"), row("ended")])
        begin(store, "begun")
        store.set_state("ended", "failed", {"queued"}, error="why")
        begin(store, "local")
    with Store.open(tmp_path / "s.duckdb") as store:
        statuses = {state["run_id"]: state["status"] for state in store.run_states()}
        assert statuses == {"queued": "queued", "begun": "running", "ended": "failed", "local": "interrupted"}
        assert [(run["run_id"], run["spec"]) for run in store.unfinished_runs()] == [("queued", "{}"), ("begun", '{"seed": 0}')]


def test_a_run_that_is_under_way_is_not_submitted_again_and_one_that_ended_keeps_its_evaluations(store):
    store.submit_runs([row("a")])
    store.submit_runs([row("a", 9)])
    assert store.run_states()[0]["priority"] == 5
    begin(store, "a")
    store.add_evaluations("a", "explore", np.eye(8, dtype=np.bool_), np.arange(8.0))
    store.set_state("a", "failed", {"running"}, error="why")
    store.submit_runs([row("a", 9)])
    state = store.run_states()[0]
    assert (state["status"], state["priority"], state["error"]) == ("queued", 9, None)
    assert store.run_evaluations("a").num_rows == 8
    store.start_run("a", '{"seed": 0}', game(), lens="feature", explorer="screen", seed=0)
    assert [run["run_id"] for run in store.unfinished_runs()] == ["a"]


def test_a_run_continued_in_the_calling_process_is_no_longer_the_services(store):
    store.submit_runs([row("a")])
    begin(store, "a")
    store.add_evaluations("a", "explore", np.eye(8, dtype=np.bool_), np.arange(8.0))
    store.set_state("a", "cancelled", {"running"})
    begin(store, "a")
    assert store.run_row("a")["submitted"] is None
    assert store.unfinished_runs() == []


def test_runs_are_submitted_all_or_none(store):
    with pytest.raises(UserError):
        store.submit_runs([row("a"), row("b", seed="no number")])
    assert store.run_states() == []


def test_a_state_changes_only_from_those_that_are_allowed(store):
    store.submit_runs([row("a")])
    assert store.set_state("a", "done", {"running"}) == "queued"
    assert store.run_states()[0]["status"] == "queued"
    for call in (lambda: store.set_state("b", "done", {"queued"}), lambda: store.set_desired("b", "paused")):
        with pytest.raises(ValueError, match="no run b"):
            call()


def test_progress_is_stored_at_most_once_a_second(store, monkeypatch):
    seconds = iter([10.0, 10.9, 11.0])
    monkeypatch.setattr(state_writer.time, "monotonic", lambda: next(seconds))
    store.submit_runs([row("a")])
    assert [store.set_progress("a", text) for text in ("1", "2", "3")] == [True, False, True]
    assert store.run_states()[0]["progress"] == "3"
