"""A run in one process: it finds what is planted, stores everything, resumes for free, and leaves nothing half-written."""

import duckdb
import numpy as np
import pytest
from answered_games import N, additive, constant, flawed, planted

import raysp
from raysp.game import FunctionGame
from raysp.lenses import build_game
from raysp.runs.local import LocalBackend
from raysp.runs.run import Run


def spec(function=planted, *, explorer=None, name=None, n=N, **options):
    lens = raysp.FunctionLens(function, n=n, name=name, batch_masks=64)
    return raysp.RunSpec(lens=lens, explorer=explorer or raysp.ProxySPEX(budget=700, max_order=3), seed=1, local=True, **options)


def found(result, kind=None):
    rows = result.interactions.to_pylist()
    return [tuple(row["components"]) for row in rows if kind is None or row["kind"] == kind]


def codes(result):
    return {reason["code"] for reason in result.summary["reasons"]}


def test_the_planted_interactions_lead_the_answer_and_are_verified():
    result = raysp.run(spec())
    assert set(found(result)[:3]) >= {(4, 7), (2, 9)}
    rows = {tuple(row["components"]): row for row in result.interactions.to_pylist()}
    assert rows[4, 7]["kind"] == "synergy"
    assert rows[2, 9]["kind"] == "redundancy"
    assert rows[4, 7]["verified"]
    assert rows[4, 7]["exact"] == pytest.approx(-4)
    assert rows[2, 9]["exact"] == pytest.approx(2)
    assert result.summary["verdict"] == "reliable"
    assert result.summary["r2"] > 0.95 > result.summary["r2_singles"]


def test_every_interaction_carries_an_interval_its_kind_and_whether_it_was_verified():
    table = raysp.run(spec()).interactions
    for column in ("value", "lo", "hi", "kind", "verified", "significant", "estimate"):
        assert table[column].null_count == 0, column
    assert np.all(np.array(table["lo"]) <= np.array(table["value"]))
    assert np.all(np.array(table["value"]) <= np.array(table["hi"]))
    assert table.filter(table["verified"])["exact"].null_count == 0


def test_an_additive_game_is_reported_to_need_no_interactions():
    result = raysp.run(spec(additive))
    assert "interactions_no_gain" in codes(result)
    assert not any(result.interactions["significant"].to_pylist())


def test_a_game_that_never_changes_is_reported_to_explain_nothing():
    result = raysp.run(spec(constant))
    assert result.summary["r2"] is None
    assert "constant_value" in codes(result)


@pytest.mark.parametrize("explorer", [raysp.Screen(top_k=0.8), raysp.Singles(budget=300), raysp.Exhaustive()], ids=repr)
def test_every_explorer_runs_to_a_verdict(explorer):
    result = raysp.run(spec(explorer=explorer))
    assert result.summary["status"] == "done"
    assert result.summary["verdict"]
    assert result.singles.num_rows == N


def test_the_screen_finds_the_pairs_around_the_intact_input():
    result = raysp.run(spec(explorer=raysp.Screen(top_k=1.0 * N)))
    assert {(4, 7), (2, 9)} <= set(found(result)[:8])


def test_another_index_can_be_asked_for():
    result = raysp.run(spec(explorer=raysp.ProxySPEX(budget=700, index="fsii")))
    assert set(result.interactions["index"].to_pylist()) == {"fsii"}


def test_the_same_spec_gives_the_same_answer():
    one, two = raysp.run(spec()), raysp.run(spec(name="renamed"))
    assert one.interactions.equals(two.interactions)


def test_a_shared_name_means_that_nothing_is_paid_for_twice():
    first = raysp.run(spec(name="shared"))
    larger = raysp.run(spec(name="shared", explorer=raysp.Singles(budget=300)))
    assert sum(first.costs["evaluations"].to_pylist()) > 0
    assert sum(larger.costs["reused"].to_pylist()) > 0


class Interrupting:
    """A function that a person interrupts after some calls."""

    def __init__(self, calls):
        self.left = calls

    def __call__(self, masks):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return planted(masks)


def test_an_interrupted_run_resumes_and_equals_an_undisturbed_one(home):
    lens = raysp.FunctionLens(Interrupting(6), n=N, name="interrupted", batch_masks=64)
    broken = spec(name="interrupted").model_copy(update={"lens": lens})
    with pytest.raises(raysp.InterruptedRunError, match="raysp resume the-run"):
        raysp.run(broken, run_id="the-run")
    with raysp.Store.read(home / "raysp.duckdb") as store:
        assert store.run_row("the-run")["status"] == "interrupted"
        stored = store.run_evaluations("the-run").num_rows
    resumed = raysp.run(spec(name="interrupted"), run_id="the-run")
    whole = raysp.run(spec(name="undisturbed"))
    assert stored >= 3 * 64
    assert resumed.interactions.equals(whole.interactions)
    assert resumed.evaluations.num_rows == whole.evaluations.num_rows
    assert sum(resumed.costs["evaluations"].to_pylist()) == sum(whole.costs["evaluations"].to_pylist())


def test_a_value_that_is_no_number_names_the_components_and_marks_the_run(home):
    with pytest.raises(raysp.EvaluationError, match=r"x3"):
        raysp.run(spec(flawed), run_id="flawed")
    with raysp.Store.read(home / "raysp.duckdb") as store:
        row = store.run_row("flawed")
    assert row["status"] == "failed"
    assert "finite" in row["error"]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"explorer": raysp.ProxySPEX(budget=3)}, ["budget: 3 is too small", "least"]),
        ({"explorer": raysp.Screen(budget=5)}, ["budget: 5 is too small", "least"]),
        ({"explorer": raysp.Exhaustive(), "n": 17}, ["17", "16"]),
        ({"n": 1}, ["components: 1", "smaller unit"]),
        ({"explorer": raysp.Screen(always_include=("nobody",))}, ["always_include: 'nobody'"]),
        ({"explorer": raysp.ProxySPEX(proxy="gradient")}, ["proxy: 'gradient' needs the model's gradients", "use proxy auto"]),
        ({"explorer": raysp.Screen(scores="gradient")}, ["scores: 'gradient' needs the model's gradients", "omit scores"]),
    ],
)
def test_a_question_that_cannot_be_answered_is_one_line_and_stores_no_run(home, options, parts):
    with pytest.raises(raysp.UserError) as caught:
        raysp.run(spec(**options))
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    if (home / "raysp.duckdb").exists():
        with raysp.Store.read(home / "raysp.duckdb") as store:
            assert store.runs().num_rows == 0


def test_a_game_without_gradients_says_so_when_they_are_asked_for():
    result = raysp.run(spec(explorer=raysp.Screen(), cross_check=True))
    assert "cross_check_missing" in codes(result)
    assert any("no gradients" in event["message"] for event in result.events.to_pylist() if event["kind"] == "note")
    assert result.summary["metrics"]["cross_checks"] == {}
    assert result.cross_checks.num_rows == 0


def test_a_spec_that_asks_for_several_runs_says_how_to_have_them(tmp_path):
    with pytest.raises(raysp.UserError, match="run_all"):
        raysp.run(spec(repeat_on=("prompt:another",)))


def test_a_run_whose_question_has_changed_is_not_resumed(home):
    raysp.run(spec(), run_id="r")
    with pytest.raises(raysp.UserError, match=r"run: 'r' asked parts of a question that have changed since \(n, name\)"):
        raysp.run(spec(n=N + 1, name="another"), run_id="r")
    with raysp.Store.read(home / "raysp.duckdb") as store:
        assert store.run_row("r")["status"] == "done"


class Guessing(FunctionGame):
    """A game whose gradients take a while, in which somebody interrupts."""

    def compute_gradients(self, max_order):
        raise KeyboardInterrupt


def test_an_interrupt_before_the_first_evaluation_leaves_a_run_to_resume(tmp_path):
    asked = spec(explorer=raysp.ProxySPEX(proxy="gradient"))
    game = Guessing(planted, build_game(asked.lens).info)
    with raysp.Store.open(tmp_path / "s.duckdb") as store:
        with pytest.raises(raysp.InterruptedRunError, match="raysp resume r"):
            Run(asked, LocalBackend(game), store, "r").execute()
        assert store.run_row("r")["status"] == "interrupted"


def test_a_run_id_with_evaluations_keeps_its_question(home):
    raysp.run(spec(name="kept"), run_id="r")
    other = raysp.RunSpec(lens=spec(name="kept").lens, explorer=raysp.Exhaustive(), seed=3, local=True)
    with pytest.raises(raysp.UserError) as caught:
        raysp.run(other, run_id="r")
    error = str(caught.value)
    assert "explorer.kind was proxyspex and is exhaustive here" in error
    assert "seed was 1 and is 3 here" in error
    assert "\n" not in error
    with raysp.Store.read(home / "raysp.duckdb") as store:
        row = store.run_row("r")
    assert (row["explorer"], row["seed"], row["spec"]["explorer"]["kind"], row["status"]) == ("proxyspex", 1, "proxyspex", "done")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"explorer": raysp.ProxySPEX(budget=700, max_order=2)}, "explorer.max_order was 3 and is 2 here"),
        ({"explorer": raysp.ProxySPEX(budget=700, max_order=3, until_r2=0.5)}, "explorer.until_r2 was None and is 0.5 here"),
        ({"validation": raysp.Validation(heldout=50)}, "validation.heldout was 200 and is 50 here"),
        ({"cross_check": True}, "cross_check was False and is True here"),
    ],
)
def test_every_option_that_determines_the_answer_is_compared(options, error):
    raysp.run(spec(name="compared"), run_id="r")
    with pytest.raises(raysp.UserError, match=error):
        raysp.run(spec(name="compared", **options), run_id="r")


def test_a_run_may_be_repeated_elsewhere_and_pays_for_nothing(home):
    first = raysp.run(spec(name="moved"), run_id="r")
    again = raysp.run(spec(name="moved", threads=2, evaluators=3), run_id="r")
    assert again.interactions.equals(first.interactions)
    assert sum(again.costs["evaluations"].to_pylist()) == sum(first.costs["evaluations"].to_pylist())
    assert (again.summary["spec"]["threads"], again.summary["started"]) == (2, first.summary["started"])


def test_a_run_stored_before_an_option_existed_is_continued(home):
    raysp.run(spec(name="older"), run_id="r")
    with duckdb.connect(str(home / "raysp.duckdb")) as con:
        con.execute("UPDATE runs SET spec = json_merge_patch(spec, '{\"explorer\": {\"adaptive\": null}}'), status = 'interrupted' WHERE run_id = 'r'")
    assert raysp.run(spec(name="older"), run_id="r").summary["status"] == "done"


def test_a_run_that_has_evaluated_nothing_is_replaced_by_another_question(tmp_path):
    asked = spec(explorer=raysp.ProxySPEX(proxy="gradient"))
    game = Guessing(planted, build_game(asked.lens).info)
    with raysp.Store.open(tmp_path / "s.duckdb") as store:
        with pytest.raises(raysp.InterruptedRunError, match="raysp resume r"):
            Run(asked, LocalBackend(game), store, "r").execute()
        other = raysp.RunSpec(lens=asked.lens, explorer=raysp.Exhaustive(), seed=3, local=True)
        Run(other, LocalBackend(build_game(other.lens)), store, "r").execute()
        row = store.run_row("r")
        assert (row["explorer"], row["seed"], row["spec"]["seed"], row["status"]) == ("exhaustive", 3, 3, "done")
