"""Acting on data runs of a tiny model: the written file holds what stays, and its reported values are those of retraining."""

import json

import numpy as np
import pytest
from answered_training_sets import QUERIES, ROWS, UNSEEN, WORDS, Trained, jsonl

import raysp
from raysp.actions.drop_rules import choose, read_drop_rule
from raysp.actions.retrainings import own_seeds
from raysp.actions.select import Verification, select
from raysp.lenses import build_game
from raysp.runs.local import local_backend


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("curating"))


def selected(trained, run_id, drop=None, keep=None, output=None, *, overwrite=False, verify=None):
    reports = []
    with raysp.Store.open(trained.store) as store:
        done = select(store, run_id, drop=drop, keep=keep, output=output, overwrite=overwrite, verify=verify, backend_of=local_backend, watch=reports.append)
    assert reports
    return done


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("drop", "keep", "rows"), [(None, "best:4", 4), (None, "best:70%", 7), ("harmful:2", None, None)])
def test_the_rows_that_stay_are_written_as_they_were(trained, tmp_path, drop, keep, rows):
    output = tmp_path / "curated.jsonl"
    done = selected(trained, trained.run(), drop, keep, output)
    kept = np.flatnonzero(done.choice.mask)
    assert read(output) == [ROWS[i] for i in kept]
    assert len(kept) == (rows or done.kept) == done.kept
    assert done.kept + len(done.dropped) == done.examples == len(ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["curated.jsonl"]
    assert done.verified is None


def test_the_choice_is_the_solver_s_on_the_run_s_own_surrogate(trained):
    run_id = trained.run()
    done = selected(trained, run_id, "harmful:3")
    with raysp.Store.read(trained.store) as store:
        surrogate = store.surrogate(run_id)
    wanted = choose(surrogate, read_drop_rule("harmful:3", None, len(ROWS)), more_is_better=True)
    assert done.choice.mask.tolist() == wanted.mask.tolist()
    assert 1 <= len(done.dropped) <= 3
    assert done.choice.after > done.choice.before


def test_of_a_loss_less_is_better(trained):
    done = selected(trained, trained.run(budget=24, value="loss"), "harmful:3", verify=Verification(trained.unseen, 1))
    assert done.choice.after < done.choice.before
    for name in ("all", "random"):
        assert done.verified.gains[name].value == pytest.approx(done.verified.means[name] - done.verified.chosen)


def test_what_is_verified_is_what_trainings_on_held_out_queries_say(trained):
    run_id = trained.run()
    done = selected(trained, run_id, "harmful:3", verify=Verification(trained.unseen, 2))
    found = done.verified
    assert (found.heldout, found.queries, found.seeds) == (True, len(UNSEEN), 2)
    assert not any("own queries" in note for note in done.notes)
    game = build_game(trained.lens(queries=trained.unseen))
    masks = np.stack([np.ones(len(ROWS), dtype=bool), done.choice.mask])
    seeds = own_seeds(trained.lens(), 2)
    before, after = np.mean([game.outputs_of(masks, seed).mean(axis=1) for seed in seeds], axis=0)
    assert 0 not in seeds  # the run trained with that one
    assert (found.means["all"], found.chosen) == pytest.approx((before, after), abs=1e-3)
    assert found.gains["all"].value == pytest.approx(after - before, abs=1e-3)
    assert found.gains["all"].lo <= found.gains["all"].value <= found.gains["all"].hi
    rows = [row for row in trained.table("selections", run_id) if row["rule"] == "drop harmful:3" and row["seeds"] == 2]
    assert [row["heldout_before"] for row in rows] == pytest.approx([found.means["all"], found.means["random"]])
    assert [row["difference"] for row in rows] == pytest.approx([found.gains["all"].value, found.gains["random"].value])
    assert all(row["components"] == np.flatnonzero(done.choice.mask).tolist() and row["dropped"] == len(done.dropped) for row in rows)


def test_nothing_is_trained_twice_and_the_run_stays_what_it_was(trained):
    run_id = trained.run()
    with raysp.Store.read(trained.store) as store:
        before = store.run_evaluations(run_id).to_pylist()
    first = selected(trained, run_id, keep="best:6", verify=Verification(None, 1))
    assert first.verified.trained > 0
    again = selected(trained, run_id, keep="best:6", verify=Verification(None, 1))
    assert (again.verified.trained, again.verified.found) == (0, first.verified.trained + first.verified.found)
    assert again.verified.gains == first.verified.gains
    more = selected(trained, run_id, keep="best:6", verify=Verification(None, 2))
    assert more.verified.trained == more.verified.found == 6
    assert any("own queries" in note for note in more.notes)
    with raysp.Store.read(trained.store) as store:
        assert store.run_evaluations(run_id).to_pylist() == before
    assert {row["phase"]: row["evaluations"] for row in trained.table("costs", run_id)}["verify"] >= 12
    assert len([row for row in trained.table("selections", run_id) if row["rule"] == "keep best:6"]) == 2  # the last one stands


def test_groups_go_as_a_whole_and_queries_drawn_from_the_training_set_are_not_written(trained, tmp_path):
    run_id = trained.run(budget=16, train=trained.reviews, queries=None, query_count=4, components=6)
    output = tmp_path / "curated.jsonl"
    done = selected(trained, run_id, keep="best:3", output=output)
    with raysp.Store.read(trained.store) as store:
        examples = store.run_table("examples", run_id).to_pylist()
    stays = set(np.flatnonzero(done.choice.mask).tolist())
    assert [(row["text"], row["label"]) for row in read(output)] == [(e["prompt"], e["completion"].strip()) for e in examples if e["component"] in stays]
    assert done.examples == len(examples) == 16
    assert any("queries drawn from it" in note for note in done.notes)


def test_the_very_lines_that_stay_are_written(trained, tmp_path):
    lines = [
        f'{{"id":{i}{".0" * (i % 2)},  "prompt": "The {word} was", "completion": "202{i % 2}-01-10"{", " + chr(34) + "more" + chr(34) + ": null" if i else ""}}}'
        for i, word in enumerate(WORDS[:6])
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    run_id = trained.run(budget=16, train=str(tmp_path / "train.jsonl"))
    done = selected(trained, run_id, keep="best:3", output=tmp_path / "curated.jsonl")
    assert (tmp_path / "curated.jsonl").read_text().splitlines() == [lines[i] for i in np.flatnonzero(done.choice.mask)]
    with pytest.raises(raysp.UserError, match=r"output: .*curated.csv' is named like a csv file, and the rows come from another format; name a .jsonl file"):
        selected(trained, run_id, keep="best:3", output=tmp_path / "curated.csv")


def test_a_file_that_is_there_stays_unless_it_is_told_otherwise(trained, tmp_path):
    output = tmp_path / "curated.jsonl"
    output.write_text("mine")
    with pytest.raises(raysp.UserError, match=r"already exists.*--overwrite"):
        selected(trained, trained.run(), keep="best:4", output=output)
    assert output.read_text() == "mine"
    done = selected(trained, trained.run(), keep="best:4", output=output, overwrite=True)
    assert len(read(output)) == done.kept == 4
    for place, message in ((tmp_path, "already exists"), (tmp_path / "nowhere" / "x.jsonl", "cannot be written")):
        with pytest.raises(raysp.UserError, match=message):
            selected(trained, trained.run(), keep="best:4", output=place, overwrite=True)


def test_the_run_s_own_training_set_is_not_written_over(trained, tmp_path):
    place = tmp_path / "train.jsonl"
    run_id = trained.run(budget=16, train=jsonl(place, ROWS[:6]))
    with pytest.raises(raysp.UserError, match="is an input of the run"):
        selected(trained, run_id, keep="best:3", output=place, overwrite=True)
    assert read(place) == ROWS[:6]


def test_a_training_set_that_has_changed_is_not_acted_on(trained, tmp_path):
    place = tmp_path / "train.jsonl"
    run_id = trained.run(budget=16, train=jsonl(place, ROWS[:6]))
    jsonl(place, [*ROWS[:5], ROWS[7]])
    with pytest.raises(raysp.UserError, match="training set or queries that have changed since"):
        selected(trained, run_id, keep="best:3")


def test_held_out_queries_are_those_that_the_run_has_not_seen(trained, tmp_path):
    run_id = trained.run()
    seen = jsonl(tmp_path / "seen.jsonl", [*QUERIES, *({name: row[name] for name in ("prompt", "completion")} | {"foil": "?"} for row in ROWS), UNSEEN[0]])
    with pytest.raises(raysp.UserError, match=r"heldout.* has 1 queries that the run did not see"):
        selected(trained, run_id, keep="best:4", verify=Verification(seen, 1))
    some = selected(trained, run_id, keep="best:4", verify=Verification(jsonl(tmp_path / "some.jsonl", [*QUERIES, *UNSEEN]), 1))
    assert some.verified.queries == len(UNSEEN)
    assert some.notes == (f"{len(QUERIES)} of {len(QUERIES) + len(UNSEEN)} held-out queries are left out because the run saw them.",)
    bad = jsonl(tmp_path / "bad.jsonl", [{"prompt": "The film is", "completion": " yes"}] * 2)
    with pytest.raises(raysp.UserError, match="heldout"):
        selected(trained, run_id, keep="best:4", verify=Verification(bad, 1))
    with pytest.raises(raysp.UserError, match="heldout"):
        selected(trained, run_id, keep="best:4", verify=Verification(str(tmp_path / "none.jsonl"), 1))


# ---- on the command line


def test_select_says_what_goes_and_what_trainings_say(trained, cli, tmp_path):
    output = str(tmp_path / "curated.jsonl")
    arguments = ["select", trained.run(), "--keep", "best:6", "-o", output, "--verify", "--seeds", "1", "--store", str(trained.store)]
    code, out, _ = cli(*arguments)
    assert code == 0
    for words in ("4 of 10 components are dropped", "everything", "random sets of the same size", "queries of the run", f"training set: {output} (6 rows)"):
        assert words in " ".join(out.split())
    code, out, err = cli(*arguments, "--overwrite", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert len(told["choice"]["kept"]) == told["kept"] == 6
    assert told["verified"]["trained"] == 0
    assert set(told["verified"]["gains"]) == {"all", "random"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "alternatives"),
        (["--drop", "harmful:150%"], "no percentage between 0 and 100"),
        (["--drop", "harmful:10"], "drops everything"),
        (["--keep", "best:10"], "drops nothing"),
        (["--keep", "best:4", "--heldout", "x.jsonl"], "add --verify"),
        (["--keep", "best:4", "--verify", "--seeds", "0"], "is not a number of trainings"),
    ],
)
def test_what_cannot_be_is_reported_in_a_line(trained, cli, arguments, message):
    code, out, err = cli("select", trained.run(), *arguments, "--store", str(trained.store))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_only_data_runs_that_are_done_are_acted_on(trained, cli):
    lens = raysp.FunctionLens(function=lambda masks: masks.sum(axis=1).astype(float), n=4)
    other = raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), local=True, store=str(trained.store))).run_id
    for command, options in (("select", ["--keep", "best:2"]), ("lds", [])):
        code, _, err = cli(command, other, *options, "--store", str(trained.store))
        assert code == 2
        assert "uses the function lens" in err
    begun = trained.run()
    with raysp.Store.open(trained.store) as store:
        store.set_status(begun, "interrupted")
    try:
        for command, options in (("select", ["--keep", "best:2"]), ("lds", [])):
            code, _, err = cli(command, begun, *options, "--store", str(trained.store))
            assert code == 2
            assert "raysp resume" in err
    finally:
        with raysp.Store.open(trained.store) as store:
            store.set_status(begun, "done")
