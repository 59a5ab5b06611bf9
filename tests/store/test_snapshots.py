"""Other processes read a live store through its snapshot."""

import re
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stores import begin, game, python

import raysp
from raysp.errors import UserError
from raysp.runs.local import LocalBackend
from raysp.runs.run import Run
from raysp.store import Store, snapshots
from raysp.store.connection import request_path, snapshot_path, snapshot_place
from raysp.store.snapshots import ask_for_snapshot

READ = """
import sys
from raysp.store import Store
with Store.read(sys.argv[1]) as store:
    print(store.note)
    print(store.sql("SELECT count(*) AS c FROM evaluations")["c"][0].as_py())
    print(store.sql("SELECT count(*) AS c FROM run_summary")["c"][0].as_py())
"""


def read_elsewhere(path):
    process = python(READ, path)
    out, err = process.communicate()
    # What it may write to stderr as it ends (DuckDB's binding counts what is left) is no failure.
    assert process.returncode == 0, err
    return out.splitlines()


@pytest.mark.parametrize("name", ["s.duckdb", "with space & 'quote'.duckdb", "no-suffix"])
def test_a_snapshot_is_read_while_the_store_is_written(tmp_path, name):
    path = tmp_path / name
    with Store.open(path) as store:
        begin(store)
        store.add_evaluations("run-1", "explore", np.eye(8, dtype=bool), np.arange(8))
        assert store.publish() == snapshot_path(path)
        store.add_evaluations("run-1", "explore", ~np.eye(8, dtype=bool), np.arange(8))
        store._publisher._due = 0.0
        note, evaluations, runs = read_elsewhere(path)
        assert note.startswith("reading a snapshot made ")
        assert "is being written by process" in note
        assert (evaluations, runs) == ("16", "1")
    assert read_elsewhere(path) == ["None", "16", "1"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([path.name, snapshot_path(path).name, snapshot_place(path, 1).name])


def test_a_reader_is_answered_with_what_is_committed_when_it_asks(tmp_path):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store)
        for count in (8, 16):
            store.add_evaluations("run-1", "explore", np.eye(8, dtype=bool) ^ (count == 16), np.arange(8))
            store._publisher._due = 0.0
            assert read_elsewhere(path)[1] == str(count)
        assert read_elsewhere(path)[1] == "16"


ENDS_WHEN_ASKED = """
import os, sys, time
from raysp.store import Store
from raysp.store.connection import request_path
store = Store.open(sys.argv[1])
store._publisher.stop()
print("open", flush=True)
while not request_path(store.path).exists():
    time.sleep(0.01)
os._exit(0)
"""


def test_a_store_whose_writer_ends_while_it_is_asked_for_a_snapshot_is_read_itself(tmp_path):
    path = tmp_path / "s.duckdb"
    with subprocess.Popen([sys.executable, "-c", ENDS_WHEN_ASKED, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        with Store.read(path) as store:
            assert store.note is None
            assert store.runs().num_rows == 0


def test_nobody_asks_and_nothing_is_copied(tmp_path):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store)
        store.add_evaluations("run-1", "explore", np.eye(8, dtype=bool), np.arange(8))
        store._publisher._answer_request()
        assert not snapshot_path(path).exists()


def test_a_writer_copies_no_more_often_than_its_share_of_the_time_allows(tmp_path):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store)
        made = store.publish().stat().st_mtime_ns
        store.add_event(None, "note", "new")
        store._publisher._due = float("inf")
        ask_for_snapshot(path)
        assert not request_path(path).exists()
        assert snapshot_path(path).stat().st_mtime_ns == made


def test_a_snapshot_of_a_store_that_has_not_changed_is_current(tmp_path):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store)
        before = store.publish().stat()
        ask_for_snapshot(path)
        after = snapshot_path(path).stat()
        assert after.st_ino == before.st_ino
        assert after.st_mtime_ns > before.st_mtime_ns


def written():
    """Bytes that this process has handed to the system to write."""
    return int(re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process writes")
def test_what_a_run_writes_does_not_grow_with_the_store(tmp_path):
    spec = raysp.RunSpec(lens=raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=6), explorer=raysp.Exhaustive(), local=True)
    paid, rng = [], np.random.default_rng(0)
    for size in (100, 200_000):
        with Store.open(tmp_path / f"{size}.duckdb") as store:
            begin(store, info=game(64))
            store.add_evaluations("run-1", "explore", rng.random((size, 64)) < 0.5, rng.random(size))
            store._con.execute("CHECKPOINT")
            before = written()
            Run(spec, LocalBackend(raysp.build_game(spec.lens)), store, "small").execute()
            paid.append(written() - before)
    assert paid[1] < 2 * paid[0] + 100_000
    assert paid[1] < (tmp_path / "200000.duckdb").stat().st_size / 4


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
                    assert int(read_elsewhere(path)[1]) % 100 == 0
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        thread = threading.Thread(target=publish)
        thread.start()
        for _ in range(100):
            store.add_evaluations("run-1", "explore", rng.random((100, 64)) < 0.5, rng.random(100))
            time.sleep(0.01)
        done.set()
        thread.join()
        assert not failures
        assert store.sql("SELECT count(*) AS c FROM evaluations")["c"].to_pylist() == [10_000]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process writes")
def test_a_snapshot_copies_only_what_has_changed_since_the_last(tmp_path):
    path, rng = tmp_path / "s.duckdb", np.random.default_rng(0)
    with Store.open(path) as store:
        begin(store, info=game(64))
        store.add_evaluations("run-1", "explore", rng.random((400_000, 64)) < 0.5, rng.random(400_000))
        store.publish()
        store.add_evaluations("run-1", "explore", rng.random((64, 64)) < 0.5, rng.random(64))
        before = written()
        store.publish()
        assert written() - before < path.stat().st_size / 3
        assert snapshot_place(path, 1).read_bytes() == python_reads(path)
        assert read_elsewhere(path)[1] == "400064"


def python_reads(path):
    """The bytes of a file, read by another process: to close a file here would drop DuckDB's lock on it."""
    return subprocess.run(["cat", path], capture_output=True, check=True).stdout


HOLD = """
import sys
from raysp.store import Store
with Store.read(sys.argv[1]) as store:
    print(store.sql("SELECT count(*) AS c FROM evaluations")["c"][0].as_py(), flush=True)
    sys.stdin.readline()
    print(store.sql("SELECT count(*) AS c, sum(value) AS s FROM evaluations").to_pylist(), flush=True)
"""


def test_a_snapshot_that_somebody_reads_stays_as_it_is(tmp_path):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store)
        store.add_evaluations("run-1", "explore", np.eye(8, dtype=bool), np.arange(8))
        with python(HOLD, path) as reader:
            assert reader.stdout.readline() == "8\n"
            store.add_evaluations("run-1", "explore", ~np.eye(8, dtype=bool), np.arange(8))
            store.publish()
            assert snapshot_path(path).resolve() == snapshot_place(path, 2)
            store._publisher._due = 0.0
            assert read_elsewhere(path)[1] == "16"
            reader.stdin.write("\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == "[{'c': 8, 's': 28.0}]\n"
        store.add_event(None, "note", "new")
        store.publish()
        store.publish()
        assert not snapshot_place(path, 2).exists()


def test_snapshots_asked_for_at_the_same_time_do_not_collide(tmp_path):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store, ThreadPoolExecutor(16) as pool:
        begin(store, info=game(64))
        rng = np.random.default_rng(0)

        def end(number):
            store.add_evaluations("run-1", "explore", rng.random((10, 64)) < 0.5, rng.random(10))
            return store.publish()

        assert set(pool.map(end, range(16))) == {snapshot_path(path)}
        assert read_elsewhere(path)[1] == "160"


def test_a_disk_without_room_for_a_snapshot_keeps_the_writer_going(tmp_path, monkeypatch):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store)
        monkeypatch.setattr(snapshots, "SPARE_BYTES", 1 << 60)
        with pytest.raises(UserError, match="the disk is full"):
            store.publish()
        store.finish_run("run-1", "done", {"verdict": "reliable"})
        assert store.run_row("run-1")["status"] == "done"
        monkeypatch.undo()
        assert read_elsewhere(path)[2] == "1"


def test_the_store_its_log_and_its_snapshots_are_private(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    monkeypatch.setenv("RAYSP_HOME", str(home))
    path = home / "raysp.duckdb"
    with Store.open(path):
        pass
    path.chmod(0o644)
    with Store.open(path) as store:
        begin(store)
        for _ in range(2):
            store.add_event(None, "note", "new")
            kept = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in home.iterdir() if entry.is_file()}
            assert set(kept) >= {"raysp.duckdb", "raysp.duckdb.wal"}
            assert set(kept.values()) == {0o600}
            store.publish()
        assert stat.S_IMODE(snapshot_path(path).stat().st_mode) == 0o600
        assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_readers_of_one_process_may_have_one_snapshot_open_at_the_same_time(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        store.publish()
        read = "import sys; from raysp.store import Store\nwith Store.read(sys.argv[1]) as a, Store.read(sys.argv[1]) as b: print(a.runs().num_rows, b.runs().num_rows)"
        done = subprocess.run([sys.executable, "-c", read, str(tmp_path / "s.duckdb")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"]
