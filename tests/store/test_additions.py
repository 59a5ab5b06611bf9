"""Batches of many runs are stored in one transaction, each mask of a game once, and are found without an index in the file."""

import signal

import numpy as np
import pytest
from stores import begin, game, python

from raysp.store import Addition, Store, mask_index
from raysp.store.mask_index import IDLE_SECONDS, SortedRuns, StoredMasks

RNG = np.random.default_rng(0)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as opened:
        yield opened


def distinct(m, n):
    return np.unpackbits(RNG.permutation(2**n)[:m].astype(">u4").view(np.uint8).reshape(m, 4), axis=1)[:, 32 - n :].astype(bool)


def test_batches_of_several_runs_and_games_are_stored_together(store):
    one = begin(store, "a", game(10))
    begin(store, "b", game(10))
    other = begin(store, "c", game(12, "other"))
    masks, longer = distinct(60, 10), distinct(30, 12)
    new = store.add_many(
        [
            Addition("b", "explore", masks[20:60], None),  # waited for what the others pay
            Addition("a", "explore", masks[:40], np.arange(40.0), tokens=400, seconds=4),
            Addition("c", "explore", longer, np.arange(30.0)),
            Addition("b", "validate", masks[30:60], np.arange(100.0, 130.0), in_round=2, tokens=300),
        ]
    )
    assert new == [0, 40, 30, 20]
    assert store.known(one, masks).tolist() == [*range(40), *range(110, 130)]
    assert store.known(other, longer).tolist() == list(range(30))
    assert store.sql("SELECT run_id, phase, evaluations, reused, tokens FROM costs ORDER BY ALL").to_pylist() == [
        {"run_id": "a", "phase": "explore", "evaluations": 40, "reused": 0, "tokens": 400},
        {"run_id": "b", "phase": "explore", "evaluations": 0, "reused": 40, "tokens": 0},
        {"run_id": "b", "phase": "validate", "evaluations": 30, "reused": 10, "tokens": 300},
        {"run_id": "c", "phase": "explore", "evaluations": 30, "reused": 0, "tokens": 0},
    ]
    assert np.array_equal(store.run_masks("b", "validate"), masks[30:60])


def test_an_error_in_one_batch_stores_none(store):
    game_id = begin(store)
    masks = distinct(20, 8)
    with pytest.raises(ValueError, match="values have shape"):
        store.add_many([Addition("run-1", "explore", masks[:10], np.zeros(10)), Addition("run-1", "explore", masks[10:], np.zeros(3))])
    assert np.isnan(store.known(game_id, masks)).all()


@pytest.mark.parametrize("constant", [False, True], ids=["hashed", "all hashes equal"])
def test_equal_hashes_are_told_apart(store, monkeypatch, constant):
    if constant:
        monkeypatch.setattr(mask_index, "HASHES", "SELECT 7::UBIGINT AS hash FROM hashed")
        monkeypatch.setattr(mask_index, "OF_GAME", mask_index.OF_GAME.replace("hash(m.mask)", "7::UBIGINT"))
    game_id = begin(store)
    masks, values = distinct(200, 8), RNG.normal(size=200)
    twice = np.concatenate([masks[:100], masks[50:150]])
    assert store.add_evaluations("run-1", "explore", twice, np.concatenate([values[:100], values[50:150]])) == 150
    assert np.array_equal(store.known(game_id, masks)[:150], values[:150])
    assert np.isnan(store.known(game_id, masks)[150:]).all()
    store._masks.forget()
    assert np.array_equal(store.known(game_id, masks)[:150], values[:150])


def test_what_is_stored_is_found_after_opening_again_and_by_a_reader(tmp_path):
    masks, values = distinct(500, 10), RNG.normal(size=500)
    with Store.open(tmp_path / "s.duckdb") as store:
        game_id = begin(store, info=game(10))
        for start in range(0, 500, 7):
            store.add_evaluations("run-1", "explore", masks[start : start + 7], values[start : start + 7])
    with Store.open(tmp_path / "s.duckdb") as store:
        assert np.array_equal(store.known(game_id, masks[::-1])[::-1], values)
        assert store.add_evaluations("run-1", "explore", masks, values) == 0
        assert store.sql("SELECT count(*) AS c FROM reuses")["c"].to_pylist() == [0]
    with Store.read(tmp_path / "s.duckdb") as store:
        assert np.array_equal(store.known(game_id, masks), values)


def test_sorted_runs_find_every_id_under_a_key_and_stay_few():
    keys = RNG.integers(0, 300, 5000).astype(np.uint64)
    runs = SortedRuns(keys[:0], np.zeros(0, dtype=np.int64))
    for start in range(0, 5000, 64):
        runs.add(keys[start : start + 64], np.arange(start, min(start + 64, 5000)))
    rows, ids = runs.find(np.arange(400, dtype=np.uint64))
    assert sorted(zip(rows.tolist(), ids.tolist(), strict=True)) == sorted(zip(keys.astype(int).tolist(), range(5000), strict=True))
    assert runs.contains(np.arange(400, dtype=np.uint64)).tolist() == np.isin(np.arange(400), keys.astype(int)).tolist()
    assert len(runs) == 5000
    assert len(runs._runs) < 12


def test_an_idle_index_is_dropped_and_built_again(store):
    now = [0.0]
    store._masks = StoredMasks(lambda: now[0])
    one, other = begin(store, "a", game(8)), begin(store, "b", game(8, "other"))
    masks = distinct(10, 8)
    store.add_evaluations("a", "explore", masks, np.zeros(10))
    now[0] = IDLE_SECONDS + 1
    store.known(other, masks)
    assert set(store._masks._kept) == {other}
    assert store.known(one, masks).tolist() == [0] * 10


def test_killed_while_many_batches_are_committed_together_keeps_each_group_whole(tmp_path):
    code = """
    import sys
    import numpy as np
    from raysp.store import Addition, Store
    from stores import begin, game
    store = Store.open(sys.argv[1])
    runs = [f"run-{i}" for i in range(4)]
    for run_id in runs:
        begin(store, run_id, game(40))
    rng = np.random.default_rng(0)
    while True:
        store.add_many([Addition(run_id, "explore", rng.random((50, 40)) < 0.5, rng.random(50)) for run_id in runs])
        print("stored", flush=True)
    """
    with python(code, tmp_path / "s.duckdb") as writer:
        for _ in range(10):
            assert writer.stdout.readline() == "stored\n"
        writer.send_signal(signal.SIGKILL)
        acknowledged = 10 + writer.stdout.read().count("stored")
    with Store.open(tmp_path / "s.duckdb") as store:
        kept = store.sql("SELECT run_id, count(*) AS c FROM evaluations GROUP BY run_id")["c"].to_pylist()
        assert len(kept) == 4
        assert len(set(kept)) == 1
        assert kept[0] % 50 == 0
        assert kept[0] >= 50 * acknowledged
        game_id = store.game_id("run-0")
        assert not np.isnan(store.known(game_id, store.run_masks("run-3"))).any()


def test_a_commit_writes_no_more_in_a_large_store(tmp_path):
    """What is appended to the write-ahead log, in bytes, does not depend on what is stored."""
    paid = []
    for size in (100, 300_000):
        with Store.open(tmp_path / f"{size}.duckdb") as store:
            begin(store, info=game(64))
            store.add_evaluations("run-1", "explore", RNG.random((size, 64)) < 0.5, RNG.random(size))
            store._con.execute("CHECKPOINT")
            store.add_evaluations("run-1", "explore", RNG.random((64, 64)) < 0.5, RNG.random(64))
            log = tmp_path / f"{size}.duckdb.wal"
            before = log.stat().st_size
            store.add_evaluations("run-1", "explore", RNG.random((64, 64)) < 0.5, RNG.random(64))
            paid.append(log.stat().st_size - before)
    assert paid[0] > 64 * 16
    assert paid[1] <= paid[0] + 100
