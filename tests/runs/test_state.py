"""What may happen to a run, and what a service that starts again knows of it."""

import dataclasses
from typing import get_args

import numpy as np
import pytest

import raysp
from raysp.blobs import blobs_from, digest
from raysp.datasets.sources import open_rows
from raysp.runs.parts import new_run_ids
from raysp.runs.progress import Progress
from raysp.runs.state import ENDED, TRANSITIONS, UNFINISHED, RunRequest, RunState, Status, advance, find_runs, state, states, steer, submit, unfinished
from raysp.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as opened:
        yield opened


def feature(**options):
    return raysp.RunSpec(lens=raysp.FeatureLens(prompt="It was good", target=" yes", foil=" no"), **options)


def function():
    return raysp.RunSpec(lens=raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=4))


def test_every_state_is_in_the_table_and_can_be_left():
    assert set(TRANSITIONS) == set(get_args(Status)) == UNFINISHED | ENDED
    assert all(TRANSITIONS.values())
    assert all(TRANSITIONS[ended] == {"queued"} for ended in ENDED)


def test_only_the_moves_of_the_table_are_made(store):
    moves = [(before, after) for before in TRANSITIONS for after in TRANSITIONS]
    submit(store, [RunRequest(feature(), f"{before}-{after}") for before, after in moves])
    for before, after in moves:
        run_id = f"{before}-{after}"
        for step in ("running", "done") if before == "done" else (before,):
            advance(store, run_id, step)
        if after in TRANSITIONS[before] or after == before:
            assert advance(store, run_id, after).status == after
        else:
            with pytest.raises(ValueError, match=f"run {run_id} is {before} and cannot become {after}"):
                advance(store, run_id, after)
            assert state(store, run_id).status == before


def test_a_submitted_run_is_read_back_by_whoever_continues_it(store):
    request = RunRequest(feature(name="mine", seed=3), "r", "a set", 7)
    submit(store, [request, RunRequest(function(), "f")])
    advance(store, "r", "running", progress=Progress("r", "explore", 3, 10, warnings=("w",)))
    found = unfinished(store)
    assert found[0].request == request
    assert found[0].state.progress == Progress("r", "explore", 3, 10, warnings=("w",))
    assert (found[1].state.run_id, found[1].request) == ("f", None)


def test_the_content_of_a_question_is_stored_once_and_read_back_after_its_files_are_gone(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt,completion\na,b\nc,d\n")
    spec = raysp.RunSpec(lens=raysp.DataLens(train=str(rows)))
    with raysp.Store.open(tmp_path / "s.duckdb") as store:
        submit(store, [RunRequest(spec, run_id).with_content() for run_id in ("r", "again")])
        rows.unlink()
        assert store.sql("SELECT count(*) AS n FROM blobs").to_pylist() == [{"n": 1}]
    with raysp.Store.open(tmp_path / "s.duckdb") as store:
        found = unfinished(store)[0].request
        with blobs_from(store.blob):
            assert open_rows("train", found.spec.lens.train).cells("prompt") == ["a", "c"]
            assert found.with_content() == found


def test_content_is_stored_under_its_own_hash_whatever_it_is_sent_as(store):
    submit(store, [RunRequest(feature(), "r", content={"0" * 64: b"something else"})])
    assert store.blob("0" * 64) is None
    assert store.blob(digest(b"something else")) == b"something else"


def test_what_is_wanted_is_recorded_and_only_of_runs_that_have_not_ended(store):
    submit(store, [RunRequest(feature(), "r")])
    assert steer(store, "r", "paused").desired == "paused"
    assert steer(store, "r", "cancelled").status == "queued"
    advance(store, "r", "cancelled")
    with pytest.raises(raysp.UserError, match=r"^run: 'r' is cancelled and cannot be paused; `raysp resume r` starts it again$"):
        steer(store, "r", "paused")
    submit(store, [RunRequest(feature(), "r")])
    assert (states(store)[0].status, states(store)[0].desired, states(store)[0].position) == ("queued", "running", 1)


def test_a_run_with_evaluations_is_not_submitted_with_another_question(store):
    spec = function()
    run = raysp.run(spec.model_copy(update={"explorer": raysp.Exhaustive().options, "local": True, "store": str(store.path.with_name("other.duckdb"))}))
    with Store.open(store.path.with_name("other.duckdb")) as other:
        with pytest.raises(raysp.UserError, match="was started with another question: seed was 0 and is 4 here"):
            submit(other, [RunRequest(feature(), "new"), RunRequest(spec.model_copy(update={"explorer": raysp.Exhaustive().options, "seed": 4}), run.run_id)])
        assert [each.run_id for each in states(other)] == [run.run_id]
        assert np.isfinite(other.run_evaluations(run.run_id)["value"].to_numpy()).all()


@pytest.mark.parametrize("priority", [-1, 10])
def test_a_priority_is_0_to_9(priority):
    with pytest.raises(raysp.UserError, match=f"^priority: {priority} is out of range; give 0 to 9; 9 is served first$"):
        RunRequest(feature(), "r", priority=priority)


def test_runs_are_found_by_id_name_or_what_the_ids_of_a_set_begin_with():
    known = [
        RunState(run_id, name, "queued", "running") for run_id, name in (("set-1", None), ("set-2", None), ("set-20", None), ("alone", "mine"), ("b", None))
    ]
    assert find_runs(known, "set") == ["set-1", "set-2", "set-20"]
    assert find_runs(known, "set-2") == ["set-2"]
    assert find_runs(known, "al") == find_runs(known, "mine") == ["alone"]
    assert find_runs(known, "last") == ["b"]
    assert find_runs([], "last") == []
    with pytest.raises(raysp.UserError, match=r"^run: 'nothing' is unknown"):
        find_runs(known, "nothing")


def test_a_run_that_is_not_executed_shows_its_state_and_its_place():
    progress = Progress("r", "explore", 5, 10, rate=2.0, left=2.5)
    running = RunState("r", None, "running", "running", progress=progress)
    assert running.shown == progress
    queued = dataclasses.replace(running, status="queued", position=3)
    assert (queued.shown.phase, queued.shown.done, queued.shown.rate, queued.shown.left) == ("queued, 3 in line", 5, 0.0, None)
    assert RunState("r", None, "cancelled", "cancelled").shown == Progress("r", "cancelled")


def test_ids_of_runs_that_are_submitted_together_sort_as_they_were_asked():
    ids = new_run_ids(1000)
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert {run_id.rpartition("-")[0] for run_id in ids} == {ids[0].rpartition("-")[0]}
