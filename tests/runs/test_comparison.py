"""Runs side by side: components are the same when they are called the same, and only what both runs have is compared."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

import raysp
from raysp.runs.comparison import compare_runs, comparison_table, comparison_text, differences, read_findings, side_by_side
from raysp.store import Store

EARLY, LATE = ("L0H0", "L0H1", "L1H0", "L1H1", "L1H2"), ("L1H0", "L1H1", "L1H2", "L2H0", "L2H1")
WORTH = {"L0H0": 5.0, "L0H1": 1.0, "L1H0": 4.0, "L1H1": 2.0, "L1H2": -3.0, "L2H0": 6.0, "L2H1": 0.5}
PAIRS = {("L0H0", "L1H0"): 0.9, ("L1H0", "L1H1"): 0.2, ("L1H1", "L1H2"): 0.3, ("L1H2", "L2H0"): 0.8}


def ask(labels, *, sign=1.0, pairs=PAIRS):
    """A run about some of the heads: what each adds, and what pairs of them add."""

    def function(masks):
        kept = dict(zip(labels, np.asarray(masks, dtype=float).T, strict=True))
        together = sum(x * kept[a] * kept[b] for (a, b), x in pairs.items() if a in kept and b in kept)
        return sign * sum(WORTH[label] * kept[label] for label in labels) + together

    return answered(function, labels)


def answered(function, labels):
    lens = raysp.FunctionLens(lambda masks: np.asarray(function(masks), dtype=float), n=len(labels), labels=tuple(labels))
    return raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), local=True))


@pytest.fixture(scope="module")
def asked_once(tmp_path_factory):
    """What several tests ask is asked once."""
    folder = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSP_HOME", str(folder))
        return {"early": ask(EARLY), "late": ask(LATE), "far": ask(("L2H0", "L2H1"))}


@pytest.fixture
def early(asked_once):
    return asked_once["early"]


@pytest.fixture
def late(asked_once):
    return asked_once["late"]


@pytest.fixture
def far(asked_once):
    return asked_once["far"]


def test_a_run_agrees_with_itself(early):
    told = compare_runs(early, early)
    assert told["same_components"]
    assert told["shared_components"] == 5
    assert told["singles_rank_correlation"] == pytest.approx(1)
    assert (told["top_interactions_shared"], told["top_interactions_overlap"]) == (3, 1.0)
    assert told["r2"] == [early.summary["r2"]] * 2
    assert told["verdicts"] == [early.summary["verdict"]] * 2


def test_effects_the_other_way_round_disagree():
    """Both runs measured every set; what is nothing but rounding is no interaction that they could share."""
    told = compare_runs(ask(EARLY, pairs={}), ask(EARLY, pairs={}, sign=-1.0))
    assert told["singles_rank_correlation"] == pytest.approx(-1)
    assert told["top_interactions_shared"] == 0
    assert told["top_interactions_overlap"] is None  # neither has any


def test_effects_on_a_cost_count_with_the_other_sign(early):
    cost = ask(EARLY, sign=-1.0, pairs={})
    assert compare_runs(early, cost)["singles_rank_correlation"] < -0.9
    cost.summary["game"]["description"]["value"] = "loss"
    assert compare_runs(early, cost)["singles_rank_correlation"] > 0.9


def test_heads_of_two_selections_are_matched_by_label(early, late):
    """The selections share the three heads of layer 1; interactions with a head that only one of them has do not count."""
    told = compare_runs(early, late)
    assert not told["same_components"]
    assert told["shared_components"] == 3
    assert told["singles_rank_correlation"] == pytest.approx(1)
    assert (told["top_interactions_shared"], told["top_interactions_overlap"]) == (2, 1.0)


def test_the_order_of_components_does_not_matter(early):
    told = compare_runs(early, ask(EARLY[::-1]))
    assert not told["same_components"]
    assert told["singles_rank_correlation"] == pytest.approx(1)
    assert told["top_interactions_overlap"] == 1.0


def test_interactions_that_one_run_alone_has_are_not_shared(early):
    told = compare_runs(early, ask(LATE, pairs={("L1H0", "L1H2"): 0.7, ("L1H1", "L1H2"): 0.3}))
    assert told["top_interactions_shared"] == 1
    assert told["top_interactions_overlap"] == pytest.approx(1 / 3)


def test_labels_that_a_run_has_twice_say_nothing_of_which_is_meant():
    def function(masks):
        return np.asarray(masks, dtype=float) @ np.array([1.0, 2.0, 3.0, 4.0])

    one, other = answered(function, ("the", "film", "the", "end")), answered(function, ("a", "film", "the", "end"))
    told = compare_runs(one, other)
    assert told["shared_components"] == 2
    assert told["singles_rank_correlation"] == pytest.approx(1)
    assert compare_runs(one, one)["shared_components"] == 4  # the same components in the same order are the same whatever they are called


def test_where_nothing_is_shared_only_the_fits_are_compared(early, far):
    told = compare_runs(early, far)
    assert told["shared_components"] == 0
    assert not {"singles_rank_correlation", "top_interactions_shared", "top_interactions_overlap"} & told.keys()
    assert "cannot be matched" in comparison_text({"with": "model:other", **told})


def test_effects_that_are_the_same_everywhere_have_no_ranks(early):
    flat = answered(lambda masks: np.asarray(masks).sum(axis=1), EARLY)
    told = compare_runs(flat, early)
    assert told["singles_rank_correlation"] is None
    assert "cannot be ranked" in comparison_text({"with": "model:other", **told})


def test_comparisons_as_a_table(early, late, far):
    rows = comparison_table([compare_runs(early, late), compare_runs(early, far)]).to_pylist()
    assert [(row["run"], row["and"]) for row in rows] == [(early.run_id, late.run_id), (early.run_id, far.run_id)]
    assert [row["shared components"] for row in rows] == [3, 0]
    assert rows[0]["rank correlation of singles"] == pytest.approx(1)
    assert rows[0]["of 10 strongest interactions shared"] == 2
    assert (rows[1]["rank correlation of singles"], rows[1]["of 10 strongest interactions shared"]) == (None, None)
    assert [rows[0]["R²"], rows[0]["R² of the other"]] == [early.summary["r2"], late.summary["r2"]]


def test_runs_stand_side_by_side_by_the_labels_of_their_components(early, late):
    told = side_by_side([early, late])
    labels, (one, other) = told["components"]["labels"], told["components"]["effects"]
    assert labels == [*EARLY, "L2H0", "L2H1"]
    assert one[labels.index("L2H0")] is None
    assert other[labels.index("L0H0")] is None
    assert one[labels.index("L0H0")] == pytest.approx(WORTH["L0H0"] + 0.45)  # on average over contexts, of which half keep the other member
    assert told["pairs"] == [compare_runs(early, late)]


def test_interactions_of_all_come_before_those_of_one_and_tell_who_could_have_found_them(early, late):
    rows = side_by_side([early, late])["interactions"]
    assert [row["labels"] for row in rows if None not in row["ranks"]] == [["L1H1", "L1H2"], ["L1H0", "L1H1"]]
    alone = rows[2:]
    assert {tuple(row["labels"]): row["possible"] for row in alone} == {("L0H0", "L1H0"): [True, False], ("L1H2", "L2H0"): [False, True]}
    assert all(None in row["values"] for row in alone)


def test_effects_on_a_cost_are_negated_beside_those_on_a_value(early, late):
    cost = dataclasses.replace(late, summary=late.summary | {"game": late.summary["game"] | {"description": {"value": "loss"}}})
    usual, told = side_by_side([early, late]), side_by_side([early, cost])
    assert told["negated"] == [False, True]
    assert [value and -value for value in usual["components"]["effects"][1]] == told["components"]["effects"][1]
    assert [row["values"][1] and -row["values"][1] for row in usual["interactions"]] == [row["values"][1] for row in told["interactions"]]


def test_what_differs_between_specs_is_told_field_by_field():
    one = {"lens": {"kind": "feature", "prompt": "a"}, "explorer": {"budget": 10, "keep": [0.5]}, "store": "here", "name": "first"}
    other = {"lens": {"kind": "feature", "prompt": "b"}, "explorer": {"budget": 10}, "store": "there", "name": "second"}
    assert differences([one, other]) == [{"field": "lens.prompt", "values": ["a", "b"]}, {"field": "explorer.keep", "values": [[0.5], None]}]
    assert differences([one, one]) == []


def test_what_is_compared_is_read_without_evaluations(tmp_path):
    function = raysp.FunctionLens(lambda masks: np.asarray(masks, dtype=float).sum(axis=1), n=4)
    result = raysp.run(raysp.RunSpec(lens=function, explorer=raysp.Exhaustive(), store=str(tmp_path / "s.duckdb"), local=True))
    with Store.read(tmp_path / "s.duckdb") as store:
        assert compare_runs(read_findings(store, result.run_id), result) == compare_runs(result, result)


def test_effects_are_compared_in_a_reading_that_both_runs_have(early, late):
    def only(run, **columns):
        singles = run.singles
        for name, values in columns.items():
            singles = singles.set_column(singles.schema.get_field_index(name), name, pa.array(values, singles.schema.field(name).type))
        return dataclasses.replace(run, singles=singles)

    averages = early.singles["average"].to_pylist()
    intact = only(early, average=[None] * 5)
    mean = only(early, method=["lasso"] * 5, value=averages, average=averages)
    assert [compare_runs(early, other)["reading"] for other in (late, intact, mean)] == ["average", "intact", "average"]
    assert compare_runs(intact, mean)["reading"] is None
    assert side_by_side([early, mean])["components"]["effects"] == [averages, averages]
    assert side_by_side([early, intact])["components"]["effects"] == [early.singles["value"].to_pylist()] * 2
    assert "at the intact input agree" in comparison_text({"with": "another", **compare_runs(early, intact)})
    assert "in different readings agree" in comparison_text({"with": "another", **compare_runs(intact, mean)})
