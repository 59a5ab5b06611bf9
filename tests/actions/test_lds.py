"""Scoring data runs of a tiny model: subsets are other than those fitted to, figures are those of the trainings, and nothing is trained twice."""

import json

import duckdb
import numpy as np
import pytest
from answered_training_sets import ROWS, Trained, jsonl
from scipy import stats

import raysp
from raysp.actions.lds import METHODS, LdsOptions, score_run
from raysp.actions.retrainings import own_seeds
from raysp.lenses import build_game
from raysp.masks import unpack
from raysp.runs.local import local_backend

N = len(ROWS)
#: Little enough to be quick; seeds are two, so that there is a ceiling.
OPTIONS = LdsOptions(subsets=16, leave_one_out=4, brittleness=(2,), mislabelled="flipped")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("lds"))


def scored(trained, run_id, options=OPTIONS):
    reports = []
    with raysp.Store.open(trained.store) as store:
        done = score_run(store, run_id, options, backend_of=local_backend, watch=reports.append)
    assert {progress.phase for progress in reports} >= {"loading the model", "lds", "scoring"}
    return done


@pytest.fixture(scope="module")
def run_id(trained):
    return trained.run()


@pytest.fixture(scope="module")
def done(trained, run_id):
    done = scored(trained, run_id)
    trained.stored = trained.table("data_scores", run_id)
    return done


def whole(done, metric):
    return {row.method: row for row in done.rows if row.metric == metric and row.query is None}


def trainings(trained, run_id, phase="lds"):
    """What a run paid for in a phase: by training seed the masks and their outputs."""
    query = "SELECT g.description, e.mask, o.outputs FROM evaluations e JOIN games g USING (game_id) JOIN outputs o USING (evaluation_id) WHERE e.run_id = ? AND e.phase = ? ORDER BY e.evaluation_id"
    with duckdb.connect(str(trained.store), read_only=True) as reading:
        rows = reading.execute(query, [run_id, phase]).fetchall()
    found = {}
    for description, mask, outputs in rows:
        found.setdefault(json.loads(description)["training_seed"], []).append((unpack(np.frombuffer(mask, np.uint8)[None], N)[0], outputs))
    return {seed: (np.array([mask for mask, _ in pairs]), np.array([outputs for _, outputs in pairs])) for seed, pairs in found.items()}


def test_every_method_is_scored_beside_floor_and_ceiling(done):
    assert set(whole(done, "lds")) == set(whole(done, "lds_floor")) == set(METHODS)
    assert {row.metric for row in done.rows if row.method is None} == {"ceiling_halves", "ceiling_averaged", "ceiling_attainable"}
    for metric in ("leave_one_out", "leave_one_out_pearson", "mislabel_auc"):
        assert set(whole(done, metric)) == set(METHODS)
    assert set(whole(done, "brittleness_drop")) == set(whole(done, "flip_rate")) == {*METHODS, "random"}
    assert all(row.lo <= row.value <= row.hi for row in done.rows if row.lo is not None)
    assert whole(done, "lds")["proxyspex"].value > whole(done, "lds_floor")["proxyspex"].value


def test_subsets_are_of_one_size_and_none_of_them_was_fitted_to(trained, run_id, done):
    with raysp.Store.read(trained.store) as store:
        fitted = {tuple(mask) for mask in store.run_evaluations(run_id, "explore")["mask"].to_pylist()}
    for masks, _ in trainings(trained, run_id).values():
        halves = [tuple(mask) for mask in masks.tolist() if sum(mask) == N // 2]
        assert len(halves) == len(set(halves)) == OPTIONS.subsets
        assert not fitted & set(halves)
    assert (done.conventions["kept"], done.conventions["subsets"], done.conventions["fraction"]) == (N // 2, OPTIONS.subsets, 0.5)


def test_trainings_are_from_seeds_of_their_own_and_the_score_is_of_their_mean(trained, run_id, done):
    found = trainings(trained, run_id)
    assert list(found) == own_seeds(trained.lens(), 2) == [1, 2]
    lens = trained.lens()
    for seed, (masks, outputs) in found.items():
        game = build_game(lens.model_copy(update={"training_seed": seed}))
        assert game.measure(masks[:3]).outputs == pytest.approx(outputs[:3], abs=1e-3)
    masks, first = found[1]
    assert (found[2][0] == masks).all()
    halves = masks.sum(axis=1) == N // 2
    actual = (first + found[2][1])[halves] / 2
    effects = build_game(lens).gradient_report().effects["influence"]
    predicted = -(~masks[halves]).astype(float) @ effects.T
    wanted = [stats.spearmanr(predicted[:, q], actual[:, q]).statistic for q in range(3)]
    assert whole(done, "lds")["influence"].value == pytest.approx(np.mean(wanted), abs=1e-6)
    between = [stats.spearmanr(first[halves][:, q], found[2][1][halves][:, q]).statistic for q in range(3)]
    assert whole(done, "ceiling_halves")[None].value == pytest.approx(np.mean(between), abs=1e-6)


def test_a_game_that_was_asked_with_the_same_seed_knows_them_too(trained, run_id, done):
    """The trainings are stored as those of the game with that seed: a run of it finds what it asks of them."""
    other = build_game(trained.lens(training_seed=1))
    masks, outputs = trainings(trained, run_id)[1]
    with raysp.Store.open(trained.store) as store:
        assert store.outputs(store.register_game(other.info), masks) == pytest.approx(outputs)


def test_nothing_is_trained_twice(trained, run_id, done):
    assert (done.trained, done.found) == (2 * done.trained // 2, 0)
    again = scored(trained, run_id)
    assert (again.trained, again.found) == (0, done.trained)
    assert again.rows == done.rows
    # The subsets are the same ones, and so are the first two seeds.
    more = scored(trained, run_id, LdsOptions(subsets=16, seeds=3, methods=("singles",)))
    assert (more.trained, more.found) == (16, 32)
    assert {row["method"] for row in trained.table("data_scores", run_id)} == {"singles", None}


def test_the_run_stays_what_it_was_and_says_what_scoring_cost(trained, run_id, done):
    with raysp.Store.read(trained.store) as store:
        assert set(store.run_evaluations(run_id)["phase"].to_pylist()) - {"calibrate"} == {"explore", "validate"}
        assert store.run_row(run_id)["status"] == "done"
    costs = {row["phase"]: row for row in trained.table("costs", run_id)}
    assert costs["lds"]["evaluations"] >= done.trained
    assert costs["lds"]["wall_seconds"] > 0


def test_figures_are_stored_with_their_conventions(trained, run_id, done):
    rows = trained.stored
    assert [(row["metric"], row["method"], row["query"], row["k"]) for row in rows] == [(row.metric, row.method, row.query, row.k) for row in done.rows]
    assert [row["score"] for row in rows] == pytest.approx([row.value for row in done.rows])
    assert {(row["subsets"], row["seeds"], row["fraction"]) for row in rows} == {(16, 2, 0.5)}
    first = rows[0]
    for words in ("Spearman", "v(all) - v(all without)", "training seeds 1 to 2"):
        assert words in first["note"]


def test_of_a_loss_a_helpful_example_lowers_it(trained):
    """Outputs and effects turn round together, so that scores do not know the difference but for the sign of what falls."""
    run_id = trained.run(budget=24, value="loss")
    options = LdsOptions(subsets=10, seeds=1, methods=("singles", "influence"), brittleness=(3,))
    done = scored(trained, run_id, options)
    assert "a loss counts as negative" in done.conventions["sign"]
    masks, outputs = trainings(trained, run_id)[1]
    gone = [mask for mask in masks if mask.sum() == N - 3]
    intact = outputs[masks.all(axis=1)][0]
    lens = trained.lens(value="loss")
    effects = -build_game(lens).gradient_report().effects["influence"]
    for q in range(3):  # each query loses the three whose removal is said to raise its loss most
        expected = np.ones(N, dtype=bool)
        expected[np.argsort(-effects[q], kind="stable")[:3]] = False
        assert any((mask == expected).all() for mask in gone)
    after = [outputs[(masks == np.isin(np.arange(N), np.argsort(-effects[q], kind="stable")[:3], invert=True)).all(axis=1)][0][q] for q in range(3)]
    assert whole(done, "brittleness_drop")["influence"].value == pytest.approx(np.mean(after - intact), abs=1e-6)
    assert not whole(done, "flip_rate")


def test_mislabelled_examples_come_from_a_column_or_a_file(trained, run_id, done, tmp_path):
    rows = [number for number, row in enumerate(ROWS, 1) if row["flipped"]]
    (tmp_path / "rows.txt").write_text("\n".join(map(str, rows)))
    by_file = scored(trained, run_id, LdsOptions(subsets=16, methods=("influence",), mislabelled=str(tmp_path / "rows.txt")))
    assert whole(by_file, "mislabel_auc")["influence"] == whole(done, "mislabel_auc")["influence"]


def test_examples_with_labels_are_also_judged_by_queries_of_their_own(trained, tmp_path):
    reviews = [json.loads(line) | {"wrong": number in (0, 5)} for number, line in enumerate((trained.folder / "reviews.jsonl").read_text().splitlines())]
    run_id = trained.run(budget=24, train=jsonl(tmp_path / "reviews.jsonl", reviews), queries=None, query_count=4, components=8)
    found = scored(trained, run_id, LdsOptions(subsets=10, seeds=1, methods=("singles",), mislabelled="wrong"))
    assert set(whole(found, "mislabel_auc_own_label")) == {"singles"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (LdsOptions(subsets=9), "too few"),
        (LdsOptions(seeds=0), "is not a number of trainings"),
        (LdsOptions(fraction=1.0), "is not a share of the components"),
        (LdsOptions(fraction=float("nan")), "is not a share of the components"),
        (LdsOptions(fraction=0.99), "keeps 10 of 10 components"),
        (LdsOptions(fraction=0.01), "keeps 0 of 10 components"),
        (LdsOptions(methods=("trak",)), "choose among proxyspex"),
        (LdsOptions(methods=()), "choose among proxyspex"),
        (LdsOptions(leave_one_out=11), "give 3 to 10"),
        (LdsOptions(brittleness=(10,)), "give 1 to 9"),
        (LdsOptions(mislabelled="wrong"), "choose one of the columns id, prompt, completion, flipped"),
        (LdsOptions(mislabelled="prompt"), "is neither true nor false"),
        (LdsOptions(fraction=0.1, methods=("influence",)), "fitted to all but"),
    ],
)
def test_what_cannot_be_scored_is_reported_before_anything_is_trained(trained, run_id, done, options, message):
    before = len(trainings(trained, run_id)[1][0])
    with pytest.raises(raysp.UserError, match=message) as error:
        scored(trained, run_id, options)
    assert "\n" not in str(error.value)
    assert len(trainings(trained, run_id)[1][0]) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 x", "cannot be read"),
        ("0 1 2", "lists row 0, but the training set has rows 1 to"),
        ("4000", "lists row 4000"),
        ("1 2 3 4 5 6 7 8 9 10", "marks all of 10"),
    ],
)
def test_a_file_of_mislabelled_rows_that_says_nothing_is_refused(trained, run_id, tmp_path, text, message):
    (tmp_path / "rows.txt").write_text(text)
    with pytest.raises(raysp.UserError, match=message):
        scored(trained, run_id, LdsOptions(mislabelled=str(tmp_path / "rows.txt")))


def test_fewer_subsets_than_asked_for_are_said_so(trained):
    run_id = trained.run(budget=16, limit=6)
    found = scored(trained, run_id, LdsOptions(subsets=100, seeds=1, methods=("singles",)))
    assert found.conventions["subsets"] < 20
    assert any("there are only" in note for note in found.notes)
    assert set(whole(found, "lds")) == {"singles"}  # the run's own answer, once


def test_subsets_unlike_those_of_the_run_are_said_so(trained, run_id, done):
    found = scored(trained, run_id, LdsOptions(subsets=10, seeds=1, fraction=0.7, methods=("influence",)))
    assert any("keep 50% of the components and these subsets 70%" in note for note in found.notes)
    assert found.conventions["kept"] == 7


# ---- on the command line


def test_lds_prints_scores_ceiling_floor_and_conventions(trained, run_id, done, cli):
    arguments = ["lds", run_id[:-1], "--subsets", "16", "--leave-one-out", "4", "--brittleness", "2", "--mislabelled", "flipped", "--store", str(trained.store)]
    code, out, _ = cli(*arguments)
    assert code == 0
    message = " ".join(out.split())
    for words in (
        *METHODS,
        "16 subsets of 5 components",
        "Spearman-Brown",
        "attainable",
        "leave one out",
        "AUC",
        "2 most helpful",
        "random",
        f"{done.trained} from the store",
    ):
        assert words in message
    code, out, err = cli(*arguments, "--methods", "influence", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert [row["value"] for row in told["rows"]] == pytest.approx([row.value for row in done.rows if row.method in ("influence", "random", None)])
    assert told["conventions"]["training_seeds"] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--subsets", "5"], "too few"), (["--brittleness", "two"], "write for example 4 or 2,4,8"), (["--methods", "singles,psychic"], "'psychic' is not known")],
)
def test_a_mistake_is_one_line_and_exit_code_two(trained, run_id, cli, arguments, message):
    code, out, err = cli("lds", run_id, *arguments, "--store", str(trained.store))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
