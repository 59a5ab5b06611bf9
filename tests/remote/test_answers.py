"""A service elsewhere gives what its store has: every part of an answer, predictions, exact values, plans, SQL, and reports."""

import contextlib
import pickle

import numpy as np
import pytest
from waiting import until

import raysp
from raysp.remote.reading import RemoteReader
from raysp.runs.prediction import predict_stored
from raysp.runs.result import TABLES, Result, read_result
from raysp.store import Store

ROWS = '{"prompt": "The film was long"}\n{"prompt": "The ending was good"}\n'


def reading(place, run_id, read):
    """What `read` finds in the file of the service's store, once it shows that the run is done: a snapshot may be some seconds old."""

    def tried():
        with contextlib.suppress(raysp.UserError), Store.read(place) as store:
            return read(store) if store.run_row(run_id)["status"] == "done" else None
        return None

    return until("a snapshot with the answer", tried)


@pytest.fixture(scope="module")
def stored(started, answer):
    """The same answer, read from the file of the service's store."""
    return reading(started[3].store, answer.run_id, lambda store: read_result(store, answer.run_id))


def test_every_part_of_an_answer_is_what_the_store_has(answer, stored):
    assert answer.summary == stored.summary
    for name in ("evaluations", *("validation" if name == "validations" else name for name in TABLES)):
        there, here = getattr(answer, name), getattr(stored, name)
        assert there.schema == here.schema, name
        assert there.equals(here), name
    assert np.array_equal(answer.outputs, stored.outputs)
    assert answer.outputs.shape == stored.outputs.shape
    masks = np.random.default_rng(0).random((50, len(stored.components))) < 0.5
    assert np.array_equal(answer.surrogate.predict(masks), stored.surrogate.predict(masks))
    assert repr(answer) == repr(stored).replace("Result(", "RemoteResult(")
    assert "raysp-verdict" in answer._repr_html_()


def test_parts_are_fetched_once_and_when_they_are_used(remote, answer, monkeypatch):
    fetched = []
    real = RemoteReader.run_table
    monkeypatch.setattr(RemoteReader, "run_table", lambda self, name, run_id: fetched.append(name) or real(self, name, run_id))
    fresh = remote.read(answer.run_id)
    assert fetched == []
    assert fresh.singles is fresh.singles
    assert fetched == ["singles"]
    with pytest.raises(AttributeError):
        _ = fresh.nothing


def test_a_result_can_be_copied_to_where_no_service_is(answer, stored):
    copied = pickle.loads(pickle.dumps(answer))
    assert type(copied) is Result
    assert copied.interactions.equals(stored.interactions)


def test_predictions_are_those_of_the_stored_surrogate(started, remote, answer, stored):
    assert answer.predict(["never"]) == stored.predict(["never"])
    assert answer.predict(kept=[0, 2]) == stored.predict(kept=[0, 2])
    several = remote.predictions(answer.run_id, [[0], [1, 2], []])
    masks = np.array([[False, *[True] * 5], [True, False, False, *[True] * 3], [True] * 6])
    assert several == reading(started[3].store, answer.run_id, lambda store: predict_stored(store, answer.run_id, masks))
    with pytest.raises(ValueError, match="either removed or kept"):
        answer.predict([0], kept=[1])
    with pytest.raises(raysp.UserError, match=r"components: 'nobody' is not a component"):
        answer.predict(["nobody"])


def test_a_surrogate_travels_with_its_tails_and_points(started, remote):
    with Store.read(started[3].store) as store:
        here, keep = store.surrogate("with-tails"), store.keep_probability("with-tails")
    there = remote.read("with-tails").surrogate
    assert remote.reader.keep_probability("with-tails") == keep
    assert (len(there.tails), there.keep_probability) == (2, here.keep_probability)
    masks = np.concatenate([np.random.default_rng(0).random((50, here.n)) < 0.7, here.points.masks])
    assert np.array_equal(there.predict(masks), here.predict(masks))
    for index in ("bii", "sii", "additivity"):
        assert all(np.array_equal(one, other) for one, other in zip(there.index(index)[1:], here.index(index)[1:], strict=True))
    for name in ("masks", "residuals", "held_out", "inclusion"):
        assert np.array_equal(getattr(there.points, name), getattr(here.points, name), equal_nan=name == "held_out")
    # The service predicts with the same one.
    found = remote.predictions("with-tails", [np.flatnonzero(~mask).tolist() for mask in masks])
    np.testing.assert_allclose([each.value for each in found], here.predict(masks), rtol=1e-12)


def test_what_is_measured_is_the_models_value_and_is_stored(remote, answer):
    measured = remote.measure(answer.run_id, [0, 3])
    assert measured.measured is not None
    assert remote.predict(answer.run_id, [0, 3]).measured == measured.measured
    assert remote.flip(answer.run_id)["status"] in ("flipped", "not found")


def test_sql_answers_in_arrow_and_says_when_there_is_more(remote, answer):
    found = remote.sql(f"SELECT run_id, n FROM runs WHERE run_id = '{answer.run_id}'")
    assert found.to_pylist() == [{"run_id": answer.run_id, "n": 6}]
    assert remote.sql("SELECT * FROM range(10)", limit=3).num_rows == 3
    with pytest.raises(raysp.UserError, match="1,000,000 rows"):
        remote.sql("SELECT * FROM range(1000001)")
    with pytest.raises(raysp.UserError, match="sql"):
        remote.sql("DROP TABLE runs")


def test_a_plan_a_preview_and_the_status(remote, spec):
    assert remote.plan(spec)["components"] == 6
    assert [each["label"] for each in remote.preview(spec.lens)["components"]] == ["Her", "acting", "never", "fails", "to", "impress"]
    assert remote.status()["version"] == raysp.__version__


def test_files_travel_and_a_set_of_examples_is_expanded_there(remote, spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    results = remote.run_all(spec.model_copy(update={"examples": "rows.jsonl", "name": None}))
    assert [[row["label"] for row in result.components.to_pylist()] for result in results] == [["The", "film", "was", "long"], ["The", "ending", "was", "good"]]
    assert {result.summary["set_name"] for result in results} == {str(tmp_path / "rows.jsonl")}
    together = remote.find(results[0].run_id.rpartition("-")[0])
    assert together == [result.run_id for result in results]
    with pytest.raises(raysp.UserError, match=r"use run_all"):
        remote.run(spec.model_copy(update={"examples": "rows.jsonl"}))


def test_spans_in_a_file_travel(remote, spec, tmp_path):
    (tmp_path / "spans.json").write_text("[[0, 10], [11, 16], [17, 22]]")
    lens = spec.lens.model_copy(update={"unit": "spans", "spans": str(tmp_path / "spans.json")})
    result = remote.run(spec.model_copy(update={"lens": lens, "explorer": raysp.Exhaustive().options}))
    assert result.components["label"].to_pylist() == ["Her acting", "never", "fails"]


def test_a_mistake_is_the_error_that_it_is_here(remote, spec):
    with pytest.raises(raysp.UserError) as refused:
        remote.submit(spec.model_copy(update={"lens": spec.lens.model_copy(update={"model": "no-such/model"})}), priority=11)
    assert refused.value.field == "priority"
    with pytest.raises(raysp.UserError, match=r"run: 'nothing' is unknown"):
        remote.result("nothing")
    with pytest.raises(raysp.UserError, match="Python function"):
        remote.run(raysp.RunSpec(lens=raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=3)))
    with pytest.raises(raysp.UserError, match="examples"):
        remote.submit(spec.model_copy(update={"examples": "missing.jsonl"}))
    broken = spec.model_copy(update={"lens": spec.lens.model_copy(update={"unit": "delimiter", "delimiter": "|"}), "name": "broken"})
    with pytest.raises(raysp.EvaluationError, match="component"):
        remote.run(broken)


def test_runs_are_paused_resumed_and_cancelled(remote, spec):
    slow = spec.model_copy(
        update={"explorer": raysp.ProxySPEX(budget=4000).options, "lens": spec.lens.model_copy(update={"prompt": "a b c d e f g h i j k l m n " * 3})}
    )
    run_id = remote.submit(slow)[0].run_id
    assert remote.pause(run_id).desired == "paused"
    assert [state.status for state in remote.follow([run_id])][-1] == "paused"
    with pytest.raises(raysp.InterruptedRunError, match="paused"):
        remote.result(run_id)
    assert remote.resume(run_id).desired == "running"
    with pytest.raises(raysp.UserError, match="no answer yet"):
        remote.result(run_id)
    remote.cancel(run_id)
    assert [state.status for state in remote.follow([run_id])][-1] == "cancelled"
    with pytest.raises(raysp.InterruptedRunError, match=f"raysp resume {run_id}"):
        remote.result(run_id)
    assert run_id in [row["run_id"] for row in remote.runs(status="cancelled")]
