"""A run in one process: it finds what is planted, stores everything, resumes for free, and leaves nothing half-written."""

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


def test_an_additive_game_is_said_to_need_no_interactions():
    result = raysp.run(spec(additive))
    assert any("do not help" in reason for reason in result.summary["reasons"])
    assert not any(result.interactions["significant"].to_pylist())


def test_a_game_that_never_changes_is_said_to_explain_nothing():
    result = raysp.run(spec(constant))
    assert result.summary["r2"] is None
    assert any("does not change" in reason for reason in result.summary["reasons"])


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
    with pytest.raises(KeyboardInterrupt):
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
        ({"explorer": raysp.ProxySPEX(proxy="gradient")}, ["proxy: 'gradient' needs an estimate", "take proxy auto"]),
        ({"explorer": raysp.Screen(scores="gradient")}, ["scores: 'gradient' needs an estimate", "leave scores out"]),
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
    assert any("no gradients" in reason for reason in result.summary["reasons"])
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
    """A game whose guesses take a while, in which somebody interrupts."""

    def hints(self):
        raise KeyboardInterrupt


def test_an_interrupt_before_the_first_evaluation_leaves_a_run_to_resume(tmp_path):
    asked = spec()
    game = Guessing(planted, build_game(asked.lens).info)
    with raysp.Store.open(tmp_path / "s.duckdb") as store:
        with pytest.raises(KeyboardInterrupt):
            Run(asked, LocalBackend(game), store, "r").execute()
        assert store.run_row("r")["status"] == "interrupted"
