"""Runs are removed with what only they used, and exported whole."""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from stores import begin, game

from raysp.blobs import digest
from raysp.errors import UserError
from raysp.masks import pack
from raysp.store import Spared, Store, compact

MASKS = np.unpackbits(np.arange(200, dtype=np.uint8)[:, None], axis=1).astype(bool)
TABLES = ("runs", "games", "components", "batches", "measurements", "reuses", "singles", "events", "extra_costs")


@pytest.fixture
def path(tmp_path):
    """A store with two runs of one game, which share 50 evaluations, and a run of another game that paid for values of a third."""
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        for run_id, masks, info in (("a", MASKS[:100], game(8)), ("b", MASKS[50:150], game(8)), ("c", MASKS[:20], game(8, "other"))):
            begin(store, run_id, info)
            store.add_evaluations(run_id, "explore", masks, masks.sum(axis=1), tokens=1000, seconds=10)
            store.add_event(run_id, "note", "something")
            single = pa.table({"component": pa.array([0], pa.int32()), "value": [1.0]})
            store.finish_run(run_id, "done", {"verdict": "reliable"}, singles=single)
        seeded = store.register_game(game(8, "other, seed 1"))
        store.add_evaluations("c", "retrain", MASKS[:5], np.zeros(5), game_id=seeded)
    return path


def counts(store):
    return {name: store.sql(f"SELECT count(*) AS c FROM {name}")["c"][0].as_py() for name in TABLES}


def test_evaluations_that_others_requested_stay_as_paid_by_nobody(path):
    with Store.open(path) as store:
        removed = store.remove_runs(["a"])
        assert (removed.evaluations, removed.kept, removed.games) == (50, 50, 0)
        game_id = store.game_id("b")
        assert np.isnan(store.known(game_id, MASKS[:50])).all()
        assert store.known(game_id, MASKS[50:150]).tolist() == MASKS[50:150].sum(axis=1).tolist()
        assert np.array_equal(store.run_masks("b"), MASKS[50:150])
        assert store.sql("SELECT run_id, evaluations, tokens FROM batches WHERE game_id = 1 ORDER BY batch_id").to_pylist() == [
            {"run_id": None, "evaluations": 50, "tokens": 500.0},
            {"run_id": "b", "evaluations": 50, "tokens": 500.0},
        ]
        assert store.runs()["run_id"].to_pylist() == ["c", "b"]
        assert store.add_evaluations("b", "explore", MASKS[:100], np.zeros(100)) == 50
        assert store.remove_runs(["b"]).evaluations == 150


def test_the_last_run_takes_its_games_along(path):
    with Store.open(path) as store:
        assert store.remove_runs(["c"]).games == 2
        assert store.remove_runs(["a", "b"]).games == 1
        assert set(counts(store).values()) == {0}


def test_a_dry_run_counts_and_changes_nothing(path):
    with Store.open(path) as store:
        before = counts(store)
        tried = store.remove_runs(["a", "b"], dry_run=True)
        assert counts(store) == before
        assert store.remove_runs(["a", "b"]) == tried
        assert tried.evaluations == 150


def test_a_run_that_has_not_ended_is_not_removed(path):
    with Store.open(path) as store:
        begin(store, "d")
        with pytest.raises(UserError, match=r"run: 'd' has not ended; cancel it"):
            store.remove_runs(["a", "d"])
        with pytest.raises(ValueError, match="no run"):
            store.remove_runs(["none"])
        assert counts(store)["runs"] == 4


def test_a_compacted_store_is_smaller_and_says_the_same(path):
    rng = np.random.default_rng(0)
    with Store.open(path) as store:
        begin(store, "large", game(64))
        store.add_evaluations("large", "explore", rng.random((300_000, 64)) < 0.5, rng.random(300_000))
        store.set_status("large", "done")
        store.remove_runs(["large"])
        store.publish()
    before, after = compact(path)
    assert after < before / 2
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600
    with Store.open(path) as store:
        assert np.array_equal(store.run_masks("b"), MASKS[50:150])
        assert store.add_evaluations("b", "explore", MASKS, np.zeros(200)) == 50


def test_exported_runs_are_read_back_by_duckdb_and_arrow(path, tmp_path):
    folder = tmp_path / "out"
    with Store.read(path) as store:
        rows = store.export(["a", "b"], folder)
    assert rows["evaluations"] == 200
    assert rows["components"] == 16
    found = duckdb.sql(
        f"SELECT run_id, mask, value, reused FROM read_parquet('{folder}/evaluations/**/*.parquet', hive_partitioning=true) ORDER BY run_id, position"
    )
    assert found.fetchall() == [
        (run_id, pack(mask[None]).tobytes(), float(mask.sum()), run_id == "b" and i < 50)
        for run_id, masks in (("a", MASKS[:100]), ("b", MASKS[50:150]))
        for i, mask in enumerate(masks)
    ]
    singles = pa.dataset.dataset(folder / "singles", partitioning="hive").to_table().to_pylist()
    assert [(row["run_id"], row["label"], row["value"]) for row in singles] == [("a", "w0", 1.0), ("b", "w0", 1.0)]


def test_an_export_appears_whole_or_not_at_all(path, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine").write_text("kept")
    with Store.read(path) as store:
        with pytest.raises(UserError, match="exists already"):
            store.export(["a"], folder)
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot be written"):
            store.export(["a"], tmp_path / "file" / "out")
    assert (folder / "mine").read_text() == "kept"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "out", "s.duckdb"]


def test_what_no_run_uses_stays_until_it_is_asked_for(path):
    """Plans pay for evaluations, games and files before there is a run."""
    with Store.open(path) as store:
        planned = store.register_game(game(8, "planned"))
        store.add_evaluations("plan", "calibrate", MASKS[:7], np.zeros(7), game_id=planned)
        store.add_evaluations("plan", "calibrate", MASKS[150:160], np.zeros(10), game_id=store.game_id("a"))
        store.add_evaluations("b", "validate", MASKS[150:154], np.zeros(4))  # which it finds
        store.add_cost("plan", "calibrate", seconds=1.0)
        store.add_event(None, "note", "of no run")
        store.add_blobs([b"of a plan"])
        before = counts(store)
        tried = store.remove_runs([])
        assert (tried.evaluations, tried.games, tried.rows, tried.unused) == (0, 0, 0, 13)
        assert store.remove_runs([], unused=True, dry_run=True).evaluations == 13
        assert counts(store) == before
        removed = store.remove_runs([], unused=True)
        assert (removed.evaluations, removed.games, removed.unused) == (13, 1, 0)
        assert store.find_game(game(8, "planned").fingerprint) is None
        assert store.known(store.game_id("a"), MASKS[150:160]).tolist()[:4] == [0.0] * 4
        assert np.array_equal(store.run_masks("b", "validate"), MASKS[150:154])
        assert store.sql("FROM blobs").num_rows == 0
        assert store.sql("SELECT run_id FROM events WHERE run_id IS NULL").num_rows == 1
        assert store.sql("SELECT run_id FROM extra_costs WHERE run_id = 'plan'").num_rows == 0
        assert counts(store)["runs"] == 3


def test_what_somebody_is_using_is_spared_until_it_is_not(path):
    content = b"prompts of a"
    with Store.open(path) as store:
        store.add_blobs([content])
        store.start_run("d", f'{{"prompts": "blob:{digest(content)}:a.txt"}}', game(8, "third"), lens="feature", explorer="screen", seed=0)
        store.add_evaluations("d", "explore", MASKS[:9], np.zeros(9))
        store.set_status("d", "done")
        used = Spared(frozenset({game(8, "third").fingerprint}), frozenset({digest(content)}))
        removed = store.remove_runs(["d"], spared=used)
        assert (removed.evaluations, removed.kept, removed.games, removed.unused) == (0, 9, 0, 9)
        assert store.blob(digest(content)) == content
        assert not np.isnan(store.known(store.find_game(game(8, "third").fingerprint), MASKS[:9])).any()
        removed = store.remove_runs([], unused=True, spared=used)
        assert (removed.evaluations, removed.games) == (0, 0)
        removed = store.remove_runs([], unused=True)
        assert (removed.evaluations, removed.games, removed.unused) == (9, 1, 0)
        assert store.blob(digest(content)) is None
