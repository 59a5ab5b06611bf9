"""A plan states what a run would train on and evaluate, before any evaluation."""

import json

import numpy as np
import pytest
from tiny_models import save

from raysp import SPEX, Exhaustive, FunctionLens, ProxySPEX, RunSpec, Screen, Singles, run
from raysp.runs.local import local_backend
from raysp.runs.plan import plan_run, plan_text
from raysp.specs.run import run_spec
from raysp.store import Store


class Planned:
    """Plans of data runs on thirty examples, each with a store of its own."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        rows = [{"prompt": f"the film {i}", "completion": "was bad" if i % 3 else "was good", "topic": f"t{i % 10}"} for i in range(30)]
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        self.lens = {
            "kind": "data",
            "model": save("llama", folder / "llama"),
            "train": str(folder / "rows.jsonl"),
            "query_count": 6,
            "adapted_layers": "last:1",
        }

    def spec(self, budget, **options):
        return run_spec(
            {"lens": {**self.lens, "dtype": "float32", "epochs": 1, **options}, "explorer": {"kind": "proxyspex", "budget": budget, "proxy": "linear"}}
        )

    def __call__(self, budget, **options):
        self.count += 1
        with Store.open(self.folder / f"{self.count}.duckdb") as store:
            spec = self.spec(budget, **options)
            return plan_run(spec, store, local_backend(spec.lens))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return Planned(tmp_path_factory.mktemp("planned"))


def test_a_plan_says_how_examples_are_grouped_and_how_many_components_the_subsets_carry(planned):
    plan = planned(32, group_by="topic")
    assert plan["components"] == 10
    assert plan["training"] == {"examples": 24, "grouped": "grouped by a column", "queries": 6, "subsets": 32, "carried_components": 8}
    text = plan_text(plan)
    for words in (
        "They are 24 training examples, grouped by a column; every retraining is evaluated on all 6 queries.",
        "24 examples make 10 groups by topic",
        "32 subsets support about 8 components, at 4 subsets per component: set components to 8 to group the examples, or subsets to 40.",
        "One retraining takes",
        "(measured on 8 subsets)",
        "buys at most 34 retrainings to explore and",
    ):
        assert words in text


def test_enough_subsets_call_for_no_other_grouping(planned):
    plan = planned(100)
    assert plan["training"]["grouped"] == "not grouped"
    assert "100 subsets support about 25 components, at 4 subsets per component.\n" in plan_text(plan)


def test_a_warning_is_in_the_plan(planned, tmp_path):
    (tmp_path / "asked.jsonl").write_text(json.dumps({"prompt": "the film 3", "completion": "was good"}))
    assert "warning: 1 of 1 queries are also in the training set" in plan_text(planned(100, queries=str(tmp_path / "asked.jsonl")))


# ---- what a plan measures is not paid for again


class Counting:
    """A function that remembers how many masks it was called with."""

    def __init__(self):
        self.calls = 0

    def __call__(self, masks):
        self.calls += len(masks)
        return masks @ np.arange(1.0, masks.shape[1] + 1) + masks[:, 0] * masks[:, 1]


EXPLORERS = [ProxySPEX(budget=80), ProxySPEX(budget=80, keep="auto", adaptive=True), Screen(top_k=3), Singles(budget=60), SPEX(budget=400), Exhaustive()]


@pytest.mark.parametrize("explorer", EXPLORERS, ids=["proxyspex", "adaptive", "screen", "singles", "spex", "exhaustive"])
def test_a_run_pays_less_by_exactly_what_its_plan_measured(tmp_path, explorer):
    def asked(name):
        function = Counting()
        return function, RunSpec(lens=FunctionLens(function, n=10, name="counted"), explorer=explorer, seed=3, local=True, store=str(tmp_path / name))

    function, spec = asked("unplanned.duckdb")
    run(spec)
    without = function.calls
    function, spec = asked("planned.duckdb")
    with Store.open(tmp_path / "planned.duckdb") as store:
        first = plan_run(spec, store, local_backend(spec.lens))
        planned = function.calls
        again = plan_run(spec, store, local_backend(spec.lens))
    assert first["timed_here"]
    assert 0 < planned <= 24
    assert (function.calls, again["timed_here"]) == (planned, False)
    assert again["seconds_per_evaluation"] > 0
    run(spec)
    assert function.calls == without


def test_a_plan_trains_on_subsets_that_the_run_would_train_on(planned, tmp_path):
    """Its outputs are stored too, and what measuring the numeric noise took."""
    spec = planned.spec(24, group_by="topic").model_copy(update={"local": True, "store": str(tmp_path / "s.duckdb")})
    paid = {}
    for name, first in (("unplanned", False), ("planned", True)):
        path = tmp_path / f"{name}.duckdb"
        if first:
            with Store.open(path) as store:
                plan_run(spec, store, local_backend(spec.lens))
        run(spec.model_copy(update={"store": str(path)}), run_id="r")
        with Store.read(path) as store:
            paid[name] = store.sql("SELECT run_id, sum(evaluations)::INT AS paid FROM costs GROUP BY run_id ORDER BY run_id").to_pylist()
            assert store.sql("SELECT count(*) AS bare FROM evaluations WHERE evaluation_id NOT IN (SELECT evaluation_id FROM outputs)").to_pylist() == [
                {"bare": 0}
            ]
    assert [row["run_id"] for row in paid["planned"]] == ["plan", "r"]
    assert sum(row["paid"] for row in paid["planned"]) == paid["unplanned"][0]["paid"]


def test_a_plan_of_a_store_that_another_process_writes_measures_and_keeps_nothing(tmp_path):
    function = Counting()
    spec = RunSpec(lens=FunctionLens(function, n=10, name="counted"), explorer=ProxySPEX(budget=80))
    Store.open(tmp_path / "s.duckdb").close()
    with Store.read(tmp_path / "s.duckdb") as store:
        assert [plan_run(spec, store, local_backend(spec.lens))["timed_here"] for _ in range(2)] == [True, True]
        assert store.sql("FROM evaluations").num_rows == 0
    assert function.calls == 48
