"""Trainings as orders on a real Ray: the values of this process, whatever dies on the way, beside other runs, and nothing paid for twice."""

import json
import threading

import pytest
import ray
from answered_games import N, planted
from tiny_models import save

import raysp
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.scheduler import NAME


@pytest.fixture
def data(tmp_path):
    """A run of the data lens on a small model: seven examples, two queries, all subsets."""
    words = ["long", "good", "bad", "quiet", "city", "letter", "never"]
    rows = [{"prompt": f"The film {word} was", "completion": f" {words[i - 3]}"} for i, word in enumerate(words)]
    asked = [{"prompt": "The movie was", "completion": " good"}, {"prompt": "Nobody", "completion": " yes"}]
    for name, lines in (("train", rows), ("queries", asked)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    files = {"train": str(tmp_path / "train.jsonl"), "queries": str(tmp_path / "queries.jsonl")}
    lens = raysp.DataLens(model=save("llama", tmp_path / "llama"), **files, adapted_layers="last:1", dtype="float32", epochs=12)
    return raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), cross_check=True, evaluators=1, threads=1, store=str(tmp_path / "ray.duckdb"))


def values(result):
    return {tuple(row["mask"]): row["value"] for row in result.evaluations.to_pylist()}


def outputs(spec, result):
    """What each query was answered, by mask."""
    with raysp.Store.read(spec.store) as store:
        return dict(zip(map(tuple, result.evaluations["mask"].to_pylist()), store.run_outputs(result.run_id).tolist(), strict=True))


def test_trainings_on_ray_equal_those_of_this_process_though_the_scheduler_dies(data):
    """Killed in the middle, it comes back by itself, and what it had stored is not trained again."""
    state = {"killed": False}

    def watch(progress):
        if progress.phase == "explore" and 16 < progress.done < 120 and not state["killed"]:
            state["killed"] = True
            ray.kill(ray.get_actor(NAME, NAMESPACE), no_restart=False)

    result = raysp.run(data, watch=watch)
    assert state["killed"]
    here = data.model_copy(update={"local": True, "store": data.store.replace("ray.", "local.")})
    local = raysp.run(here)
    assert values(result) == pytest.approx(values(local), abs=1e-5)  # stacks of other sizes are summed in another order
    assert result.interactions["labels"].to_pylist()[:3] == local.interactions["labels"].to_pylist()[:3]
    assert len(values(result)) == 2**7
    in_flight = 2 * result.summary["game"]["description"].get("stacked", 16)
    assert sum(result.costs["evaluations"].to_pylist()) <= 2**7 + 5 + in_flight  # numeric noise was measured on five of them once more
    assert result.cross_checks.select(["method", "label"]).equals(local.cross_checks.select(["method", "label"]))


@pytest.mark.chaos
def test_trainings_and_functions_are_measured_beside_each_other(data):
    """A short question is answered while a run that trains is under way, on the same evaluator."""
    longer = data.lens.model_copy(update={"epochs": 60})  # so that it has not ended when the short question is answered
    asked = data.model_copy(update={"cross_check": False, "lens": longer})
    lens = raysp.FunctionLens(planted, n=N)
    function = data.model_copy(update={"lens": lens, "explorer": raysp.Singles(budget=30).options, "cross_check": False})
    under_way, answers = threading.Event(), []

    def watch(progress):
        if progress.phase == "explore" and progress.done:
            under_way.set()

    training = threading.Thread(target=lambda: answers.append(raysp.run(asked, run_id="training", watch=watch)))
    training.start()
    assert under_way.wait(120)
    short = raysp.run(function, run_id="short")
    still_training = training.is_alive()
    training.join()
    assert short.summary["status"] == answers[0].summary["status"] == "done"
    assert still_training
