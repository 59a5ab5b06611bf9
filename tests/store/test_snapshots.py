"""Other processes read a live store through its snapshot."""

import threading

import numpy as np
import pytest
from stores import begin, game, python

from raysp.store import Store
from raysp.store.connection import snapshot_path

READ = """
import sys
from raysp.store import Store
with Store.read(sys.argv[1]) as store:
    print(store.note)
    print(store.sql("SELECT count(*) AS c FROM evaluations")["c"][0].as_py())
    print(store.sql("SELECT count(*) AS c FROM run_summary")["c"][0].as_py())
"""


def read_elsewhere(path):
    out, err = python(READ, path).communicate()
    assert not err
    return out.splitlines()


@pytest.mark.parametrize("name", ["s.duckdb", "with space & 'quote'.duckdb", "no-suffix"])
def test_a_snapshot_is_read_while_the_store_is_written(tmp_path, name):
    path = tmp_path / name
    with Store.open(path) as store:
        begin(store)
        store.add_evaluations("run-1", "explore", np.eye(8, dtype=bool), np.arange(8))
        assert store.publish() == snapshot_path(path)
        store.add_evaluations("run-1", "explore", ~np.eye(8, dtype=bool), np.arange(8))
        note, evaluations, runs = read_elsewhere(path)
        assert note.startswith("answering from the snapshot of ")
        assert "is being written by process" in note
        assert (evaluations, runs) == ("8", "1")
    assert read_elsewhere(path) == ["None", "16", "1"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([path.name, snapshot_path(path).name])


def test_snapshots_wait_for_something_new_and_for_their_time(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        begin(store)
        store.publish()
        assert not store.publish_if_due()
        store._publisher._due = 0.0
        assert not store.publish_if_due()
        store.add_event(None, "note", "new")
        assert store.publish_if_due()
        store._publisher.join()
        store.add_event(None, "note", "newer")
        assert not store.publish_if_due()


def test_snapshots_are_whole_and_stop_nobody(tmp_path):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store, info=game(64))
        rng = np.random.default_rng(0)
        done = threading.Event()
        failures = []

        def publish():
            try:
                while not done.is_set():
                    store.publish()
                    with Store.read(snapshot_path(path)) as snapshot:
                        assert snapshot.sql("SELECT count(*) AS c FROM evaluations")["c"][0].as_py() % 100 == 0
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        thread = threading.Thread(target=publish)
        thread.start()
        for _ in range(100):
            store.add_evaluations("run-1", "explore", rng.random((100, 64)) < 0.5, rng.random(100))
        done.set()
        thread.join()
        assert not failures
        assert store.sql("SELECT count(*) AS c FROM evaluations")["c"].to_pylist() == [10_000]
