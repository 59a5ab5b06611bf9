"""Actions on finished runs, plans and exact predictions on a real Ray: what they find is what they find in this process, which loads no model. Float32."""

import json
import shutil
from collections import OrderedDict
from weakref import WeakValueDictionary

import numpy as np
import pytest
from answered_training_sets import Trained
from tiny_models import save

import raysp
from raysp.actions.lds import LdsOptions, score_run
from raysp.actions.prune import prune
from raysp.actions.select import Verification, select
from raysp.runs.exact import measure
from raysp.runs.plan import plan_run
from raysp.runs.stored_game import PLAN
from raysp.runtime.engine import workplace

PROMPTS = [{"prompt": "Her acting never fails", "target": " not", "foil": "!"}, {"prompt": "Review: The movie was bad", "target": " yes", "foil": " no"}]
UNSEEN = [{"prompt": "The ending was good", "target": " not", "foil": "!"}, {"prompt": "Nobody in the city read it", "target": " yes", "foil": " no"}]
UNCHECKED = raysp.Validation(heldout=0, top=0, random=0, low_pairs=0)


@pytest.fixture
def no_model_here(monkeypatch):
    def loaded(options):
        raise AssertionError(f"{options.model} was loaded in the process of the caller")

    monkeypatch.setattr("raysp.models.resident._residents", OrderedDict())
    monkeypatch.setattr("raysp.models.resident._held", WeakValueDictionary())
    monkeypatch.setattr("raysp.models.resident._new", loaded)


def file(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A run on heads in two equal stores, and its pruning in this process in the first of them."""
    folder = tmp_path_factory.mktemp("pruned")
    options = {"prompts": file(folder / "rows.jsonl", PROMPTS), "components": "heads:0-1/0-2", "dtype": "float32", "device": "cpu"}
    lens = raysp.MechanisticLens(model=save("llama", folder / "llama"), **options)
    spec = raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=20, keep=0.5), validation=UNCHECKED, local=True, store=str(folder / "here.duckdb"))
    run_id, heldout = raysp.run(spec).run_id, file(folder / "unseen.jsonl", UNSEEN)
    shutil.copy(folder / "here.duckdb", folder / "there.duckdb")

    def act(name, *, local):
        with workplace(folder / name, run_id, local=local) as place:
            return prune(
                place.store, run_id, 0.5, None, heldout=heldout, per_layer=False, draws=4, backend_of=place.backend_of, watch=lambda _: None
            ), place.store.run_row(run_id)

    return spec, run_id, folder, act, act("here.duckdb", local=True)


def test_a_pruning_is_the_same_and_what_it_measures_is_stored_by_the_service(pruned, no_model_here):
    _, run_id, folder, act, (here, _) = pruned
    there, row = act("there.duckdb", local=False)
    assert row["status"] == "done"
    for one, other in zip(here.rows, there.rows, strict=True):
        assert (one.method, one.mask.tolist()) == (other.method, other.mask.tolist())
        assert (one.train, one.heldout) == pytest.approx((other.train, other.heldout), abs=1e-4)
    with workplace(folder / "there.duckdb", run_id, local=False) as place:
        paid = {row["phase"]: row["evaluations"] for row in place.store.run_table("costs", run_id).to_pylist()}
    again, _ = act("there.duckdb", local=False)
    with workplace(folder / "there.duckdb", run_id, local=False) as place:
        assert {row["phase"]: row["evaluations"] for row in place.store.run_table("costs", run_id).to_pylist()} == paid
    assert paid["prune"] > 0
    assert [row.train for row in again.rows] == [row.train for row in there.rows]


def test_an_exact_prediction_and_a_plan_measure_on_evaluators(pruned, no_model_here):
    spec, run_id, folder, _, _ = pruned
    masks = np.array([[True, False, False, True, True, True], [False] * 5 + [True]])
    with workplace(folder / "there.duckdb", run_id, local=False) as place:
        measure(place.store, run_id, masks, place.backend_of, lambda _: None)
        assert not np.isnan(place.store.known(place.store.run_row(run_id)["game_id"], masks)).any()
    asked = spec.model_copy(update={"local": False, "seed": 7, "lens": spec.lens.model_copy(update={"prompts": str(folder / "unseen.jsonl")})})
    with workplace(folder / "there.duckdb", PLAN, local=False) as place:
        ready = place.prepared(asked)
        first, second = (plan_run(ready, place.store, place.backend_of(ready.lens)) for _ in range(2))
    assert (first["components"], second["timed_here"]) == (6, False)
    assert first["seconds_per_evaluation"] > 0


@pytest.mark.chaos
def test_retrainings_score_and_verify_as_in_this_process(tmp_path_factory, request):
    trained = Trained(tmp_path_factory.mktemp("trained"))
    run_id = trained.run(budget=16)
    shutil.copy(trained.store, trained.folder / "there.duckdb")
    options = LdsOptions(subsets=10, seeds=1, methods=("singles", "influence"))

    def act(name, *, local):
        with workplace(trained.folder / name, run_id, local=local) as place:
            scored = score_run(place.store, run_id, options, backend_of=place.backend_of, watch=lambda _: None)
            chosen = select(
                place.store, run_id, drop="harmful:2", keep=None, output=None, overwrite=False,
                verify=Verification(trained.unseen, 1), backend_of=place.backend_of, watch=lambda _: None,
            )  # fmt: skip
        return scored, chosen

    here = act("raysp.duckdb", local=True)
    request.getfixturevalue("no_model_here")
    there = act("there.duckdb", local=False)
    assert there[0].trained == here[0].trained > 0
    assert [row.value for row in there[0].rows] == pytest.approx([row.value for row in here[0].rows], abs=0.02)
    assert there[1].choice.mask.tolist() == here[1].choice.mask.tolist()
    assert there[1].verified.means == pytest.approx(here[1].verified.means, abs=1e-3)
