"""A plan says what a run would train on and buy before anything is paid for."""

import json

import pytest
from tiny_models import save

from raysp.runs.plan import plan_run, plan_text
from raysp.specs.run import run_spec
from raysp.store import Store


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    rows = [{"prompt": f"the film {i}", "completion": "was bad" if i % 3 else "was good", "topic": f"t{i % 10}"} for i in range(30)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lens = {"kind": "data", "model": save("llama", folder / "llama"), "train": str(folder / "rows.jsonl"), "query_count": 6, "adapted_layers": "last:1"}
    with Store.open(folder / "s.duckdb") as store:
        yield lambda budget, **options: plan_run(
            run_spec({"lens": {**lens, "epochs": 1, **options}, "explorer": {"kind": "proxyspex", "budget": budget}}), store
        )


def test_a_plan_says_how_examples_are_grouped_and_how_many_components_the_subsets_carry(planned):
    plan = planned(32, group_by="topic")
    assert plan["components"] == 10
    assert plan["training"] == {"examples": 24, "grouped": "grouped by a column", "queries": 6, "subsets": 32, "carried_components": 8}
    text = plan_text(plan)
    for words in (
        "They are 24 training examples, grouped by a column; every retraining answers all 6 queries.",
        "24 examples make 10 groups by topic",
        "32 subsets carry about 8 components, at 4 subsets a component: group the examples with components 8, or buy 40.",
        "One retraining takes",
        "(measured on 8 subsets)",
        "buys at most 34 retrainings to explore and",
    ):
        assert words in text


def test_enough_subsets_call_for_no_other_grouping(planned):
    plan = planned(100)
    assert plan["training"]["grouped"] == "not grouped"
    assert "100 subsets carry about 25 components, at 4 subsets a component.\n" in plan_text(plan)


def test_a_warning_is_in_the_plan(planned, tmp_path):
    (tmp_path / "asked.jsonl").write_text(json.dumps({"prompt": "the film 3", "completion": "was good"}))
    assert "warning: 1 of 1 queries are also in the training set" in plan_text(planned(100, queries=str(tmp_path / "asked.jsonl")))
