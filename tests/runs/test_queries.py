"""Each query of a run gets an answer of its own: what helped, what harmed, what is redundant, what works only together, and how well that predicts."""

import asked_games
import numpy as np
import pytest
from asked_games import QUERIES, AskedGame, planted

import raysp
from raysp.explorers import SPEX, Exhaustive, ProxySPEX, Screen, Singles
from raysp.masks import unpack
from raysp.runs.queries import direction, measured, side
from raysp.sampling.ablations import ablations, single_ablations


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return asked_games.run(tmp_path_factory.mktemp("asked") / "s.duckdb", explorer=CHEAPLY)


CHEAPLY = ProxySPEX(budget=300, max_order=3, proxy="linear")
FEW = Screen(top_k=4)


def of_query(table, query):
    return [row for row in table.to_pylist() if row["query"] == query]


def strongest(result, query):
    return {tuple(row["components"]): row for row in of_query(result.query_interactions, query)}


def test_examples_that_say_the_same_are_redundant_for_the_query_they_serve(result):
    first = of_query(result.query_interactions, 0)[0]
    assert (first["components"], first["kind"], first["rank"]) == ([2, 9], "redundancy", 1)
    assert "Capital of France" in first["labels"]
    assert first["estimate"] == pytest.approx(2, abs=0.05)


def test_examples_that_only_teach_together_are_a_synergy(result):
    first = of_query(result.query_interactions, 1)[0]
    assert (first["components"], first["kind"]) == ([4, 7], "synergy")
    assert first["estimate"] == pytest.approx(-3, abs=0.05)


def test_a_pair_of_one_query_is_none_of_another(result):
    assert not any(row["significant"] for row in of_query(result.query_interactions, 2))
    for query, pair in ((0, (4, 7)), (1, (2, 9))):
        found = strongest(result, query).get(pair)
        assert found is None or abs(found["value"]) < 0.05


def test_what_was_measured_exactly_is_reported_so(result):
    pair = strongest(result, 1)[4, 7]
    assert pair["verified"]
    assert pair["exact"] == pytest.approx(-3)


def test_helpful_and_harmful_examples_have_their_signs(result):
    effects = {row["component"]: row["value"] for row in of_query(result.query_singles, 2)}
    assert effects[5] == pytest.approx(-1.5, abs=0.05)
    assert effects[3] == pytest.approx(0.5, abs=0.05)
    assert side(effects[5]) == "harmful"
    assert side(effects[3]) == "helpful"
    assert side(effects[3], direction({"value": "loss"})) == "harmful"
    assert side(0.0) is None


def test_scores_say_what_interactions_add_on_subsets_not_trained_on(result):
    rows = result.query_scores.to_pylist()
    assert [row["label"] for row in rows] == [query.label for query in QUERIES]
    assert [row["value_intact"] for row in rows] == pytest.approx([3, 4, -1])
    assert [row["value_empty"] for row in rows] == pytest.approx([0, 0, 0])
    for row in rows[:2]:
        assert row["r2"] > 0.95 > row["r2_singles"]
        assert row["lds"] > row["lds_singles"]
        assert row["r2_lo"] <= row["r2"] <= row["r2_hi"]
    assert rows[2]["lds_singles"] > 0.95
    assert result.summary["metrics"]["queries"]["lds"] == pytest.approx(np.mean([row["lds"] for row in rows]))


def test_held_out_predictions_are_kept_by_query(result):
    rows = of_query(result.query_heldout, 1)
    masks = unpack(np.stack([np.frombuffer(row["mask"], np.uint8) for row in rows]), asked_games.N)
    assert np.allclose([row["exact"] for row in rows], planted(masks)[:, 1])
    assert np.corrcoef([row["predicted"] for row in rows], [row["exact"] for row in rows])[0, 1] > 0.97


def test_the_outputs_of_every_training_come_with_the_result(result):
    masks = np.array(result.evaluations["mask"].to_pylist())
    assert np.allclose(result.outputs, planted(masks))
    assert np.allclose(result.outputs.mean(axis=1), result.evaluations["value"].to_numpy())


def test_queries_and_examples_come_with_the_result(result):
    assert result.queries["target"].to_pylist() == ["Paris", "Stevenson", "yes"]
    assert result.examples["prompt"].to_pylist()[2] == "Capital of France?"


@pytest.mark.parametrize(
    "explorer", [Singles(budget=200), Screen(top_k=1.0 * asked_games.N), Exhaustive(), SPEX(), ProxySPEX(budget=300, keep="auto")], ids=repr
)
def test_every_explorer_answers_its_queries(tmp_path, explorer):
    result = asked_games.run(tmp_path / "s.duckdb", explorer=explorer)
    assert result.query_scores.num_rows == 3
    assert result.query_singles.num_rows == 3 * asked_games.N
    effects = {row["component"]: row["value"] for row in of_query(result.query_singles, 2)}
    assert effects[5] < -1 < 0.3 < effects[3]
    if explorer.name != "singles":
        assert tuple(of_query(result.query_interactions, 1)[0]["components"]) == (4, 7)


def test_a_screening_keeps_the_runs_components_for_every_query(tmp_path):
    result = asked_games.run(tmp_path / "s.duckdb", explorer=FEW)
    assert all(row["verified"] for row in result.query_interactions.to_pylist())
    assert {row["method"] for row in result.query_singles.to_pylist()} == {"removed"}


def test_given_scores_of_a_screening_are_not_taken_for_a_querys_effects(tmp_path):
    explorer = Screen(top_k=3, scores=(9.0,) * 2 + (0.1,) * 7 + (9.0,))
    result = asked_games.run(tmp_path / "s.duckdb", explorer=explorer, validation=raysp.Validation(low_pairs=0, heldout=0))
    assert [(row["component"], row["value"]) for row in of_query(result.query_singles, 1)] == [(0, 1.0), (1, 0.0), (9, 0.0)]


def test_a_query_that_no_example_changes_has_no_scores_and_spoils_no_other(tmp_path):
    game = AskedGame(lambda masks: planted(masks) * [1, 0, 1], name="idle")
    result = asked_games.run(tmp_path / "s.duckdb", game, CHEAPLY)
    rows = result.query_scores.to_pylist()
    assert (rows[1]["r2"], rows[1]["lds"], rows[1]["lds_singles"]) == (None, None, None)
    assert rows[0]["lds"] > 0.9
    assert not any(row["value"] for row in of_query(result.query_singles, 1))


def test_without_held_out_subsets_there_are_no_scores(tmp_path):
    result = asked_games.run(tmp_path / "s.duckdb", explorer=FEW, validation=raysp.Validation(heldout=0))
    assert result.query_scores["lds"].to_pylist() == [None] * 3
    assert result.query_singles.num_rows == 3 * asked_games.N


def test_a_set_counts_as_measured_with_all_its_parts():
    masks = np.concatenate([single_ablations(4), ablations(4, [(0, 1), (0, 2), (0, 1, 2)])])
    assert measured(masks, [(0, 1), (1, 2), (0, 2), (0, 1, 2), (0, 1, 2, 3)]) == ((0, 1), (0, 2))
    assert measured(np.concatenate([masks, ablations(4, [(1, 2)])]), [(0, 1, 2)]) == ((0, 1, 2),)
    assert measured(masks[1:], [(0, 1)]) == ()


def test_progress_over_the_queries_is_seen(tmp_path):
    seen = []
    asked_games.run(tmp_path / "s.duckdb", explorer=FEW, report=lambda progress: seen.append((progress.phase, progress.detail)))
    assert [place for place in seen if place[0] == "queries"] == [("queries", f"{done} of 3 queries") for done in range(4)]


def test_a_run_stopped_among_its_queries_resumes_for_free(tmp_path):
    phases = []
    stop = {"report": lambda progress: phases.append(progress.phase), "cancelled": lambda: phases[-1] == "queries"}
    with pytest.raises(raysp.InterruptedRunError):
        asked_games.run(tmp_path / "s.duckdb", explorer=FEW, **stop)
    with raysp.Store.read(tmp_path / "s.duckdb") as store:
        paid = store.sql("SELECT count(*) AS many FROM evaluations")["many"].to_pylist()
        assert store.run_table("query_scores", "asked").num_rows == 0
    result = asked_games.run(tmp_path / "s.duckdb", explorer=FEW)
    assert result.query_scores.num_rows == 3
    assert [sum(result.costs["evaluations"].to_pylist())] == paid


@pytest.mark.parametrize("outputs", [lambda masks: planted(masks)[:, :2], lambda masks: np.zeros((len(masks) + 1, 3))], ids=["two", "longer"])
def test_outputs_of_another_shape_are_a_mistake_of_the_game(tmp_path, outputs):
    with pytest.raises(ValueError, match=r"3 queries gave outputs of shape"):
        asked_games.run(tmp_path / "s.duckdb", Misshapen(outputs))


class Misshapen(AskedGame):
    """Outputs of a shape of their own, values as they should be."""

    def measure(self, masks, *, slopes=False):
        return raysp.game.Measurement(np.zeros(len(masks)), 0, 0.0, self.outputs(masks))


def test_an_output_that_is_no_number_names_the_query_and_the_components(tmp_path):
    def broken(masks):
        return np.where(~np.asarray(masks)[:, [3]] & (np.arange(3) == 1), np.nan, planted(masks))

    class Averaging(AskedGame):
        """Its mean leaves out what is no number."""

        def measure(self, masks, *, slopes=False):
            outputs = self.outputs(masks)
            return raysp.game.Measurement(np.nanmean(outputs, axis=1), 0, 0.0, outputs)

    with pytest.raises(raysp.EvaluationError, match=r"query halves: .*removed"):
        asked_games.run(tmp_path / "s.duckdb", Averaging(broken))
    with raysp.Store.read(tmp_path / "s.duckdb") as store:
        assert store.run_row("asked")["status"] == "failed"


def test_games_without_queries_answer_as_before():
    result = raysp.run(raysp.RunSpec(lens=raysp.FunctionLens(lambda masks: masks.sum(axis=1) * 1.0, n=5), explorer=Exhaustive(), local=True))
    assert result.outputs.shape == (result.evaluations.num_rows, 0)
    assert all(getattr(result, name).num_rows == 0 for name in ("queries", "examples", "query_scores", "query_singles", "query_interactions"))
    assert "queries" not in result.summary["metrics"]
