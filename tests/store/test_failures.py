"""Each defect of a store is a one-line error that states what to do."""

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import duckdb
import numpy as np
import pytest
from stores import begin, game, python

from raysp.errors import UserError
from raysp.masks import unpack
from raysp.store import Store, snapshots
from raysp.store.failures import explaining

HOLD = """
import sys
from raysp.store import Store
store = Store.open(sys.argv[1])
store._publisher.stop()  # one that answers no reader
print("open", flush=True)
sys.stdin.readline()
"""


def one_line(caught, *parts):
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("store: ")
    for part in parts:
        assert part in text


def test_locked_by_another_process_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "WAIT_SECONDS", 0.2)
    with python(HOLD, tmp_path / "s.duckdb") as other:
        other.stdout.readline()
        with pytest.raises(UserError) as caught:
            Store.open(tmp_path / "s.duckdb")
        one_line(caught, f"process {other.pid} has it open", "--store")
        with pytest.raises(UserError) as caught:
            Store.read(tmp_path / "s.duckdb")
        one_line(caught, f"being written by process {other.pid}", "try again")
        other.stdin.close()


def test_twice_in_one_process_is_refused(tmp_path):
    with Store.open(tmp_path / "s.duckdb"), pytest.raises(UserError) as caught:
        Store.open(tmp_path / "s.duckdb")
    one_line(caught, "is already open in this process")


@pytest.mark.parametrize("way", [Store.open, Store.read])
@pytest.mark.parametrize("content", [b"hello", os.urandom(50_000), b""], ids=["text", "noise", "empty"])
def test_a_file_that_is_no_database(tmp_path, way, content):
    path = tmp_path / "s.duckdb"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        way(path)
    one_line(caught, "is damaged, or not a DuckDB file")
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", ["cut", "scribbled"])
def test_a_damaged_store(tmp_path, damage):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store, info=game(200))
        store.add_evaluations("run-1", "explore", np.random.default_rng(0).random((5000, 200)) < 0.5, np.zeros(5000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3] if damage == "cut" else whole[:12288] + os.urandom(len(whole) - 12288))
    with pytest.raises(UserError) as caught:
        Store.open(path)
    one_line(caught, "is damaged, or not a DuckDB file")


def test_any_damaged_block_is_one_line_whoever_reads_it(tmp_path, cli):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store, info=game(200))
        store.add_evaluations("run-1", "explore", np.random.default_rng(0).random((20_000, 200)) < 0.5, np.zeros(20_000))
        store.set_status("run-1", "done")
    whole, block = path.read_bytes(), 262_144
    damaged = 0
    for at in range(12_288 + block // 2, len(whole), block):
        path.write_bytes(whole[:at] + bytes(byte ^ 255 for byte in whole[at : at + 64]) + whole[at + 64 :])
        for command in (("runs",), ("show", "run-1"), ("gc", "run-1", "--dry-run")):
            ended = cli(*command, "--store", str(path))
            assert ended.code in {0, 2}
            if ended.code:
                damaged += 1
                assert "is damaged" in ended.err
                assert len(ended.err.splitlines()) == 1
    assert damaged


def test_a_file_of_another_database_downloads_nothing(tmp_path):
    path = tmp_path / "s.sqlite"
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE runs (a INT)")
    con.close()
    for way in (Store.open, Store.read):
        with pytest.raises(UserError) as caught:
            way(path)
        one_line(caught, "is damaged, or not a DuckDB file")


def test_somebody_elses_database(tmp_path):
    path = tmp_path / "s.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE sales (a INT)")
    for way in (Store.open, Store.read):
        with pytest.raises(UserError) as caught:
            way(path)
        one_line(caught, "not a raysp store")


def test_missing_for_reading(tmp_path):
    with pytest.raises(UserError) as caught:
        Store.read(tmp_path / "none.duckdb")
    one_line(caught, "does not exist", "make a run first")
    assert not list(tmp_path.iterdir())


def test_a_folder_and_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError) as caught:
        Store.open(tmp_path)
    one_line(caught, "is a folder")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError) as caught:
        Store.open(tmp_path / "file" / "s.duckdb")
    one_line(caught)
    with pytest.raises(UserError) as caught:
        Store.open("/proc/s.duckdb")
    one_line(caught, "cannot be written there")


def test_a_full_disk_keeps_what_was_stored(tmp_path):
    """A limit on the file's size stands in for the disk: the system refuses the write in the same way."""
    path = tmp_path / "s.duckdb"
    code = """
    import resource, sys
    import numpy as np
    from raysp.errors import UserError
    from raysp.store import Store
    from stores import begin, game
    store = Store.open(sys.argv[1])
    begin(store, info=game(64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    rng, stored = np.random.default_rng(0), 0
    try:
        for _ in range(1000):
            store.add_evaluations("run-1", "explore", rng.random((5000, 64)) < 0.5, rng.random(5000))
            stored += 5000
    except UserError as error:
        print(error)
    print(stored, flush=True)
    import os
    os._exit(0)
    """
    out, err = python(code, path).communicate()
    assert "cannot grow: the disk is full; free some space and resume" in out, (out, err)
    stored = int(out.split()[-1])
    with Store.open(path) as store:
        assert store.sql("SELECT count(*) AS c FROM evaluations")["c"].to_pylist() == [stored]
    assert stored > 0


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True, check=False).returncode == 0
    if not mounted:
        pytest.skip("mounting a small tmpfs needs root with CAP_SYS_ADMIN")
    yield place
    subprocess.run(["umount", "-l", place], check=False)


def test_a_really_full_disk(small_disk):
    store = Store.open(small_disk / "s.duckdb")
    begin(store, info=game(64))
    rng = np.random.default_rng(0)

    def fill():
        for _ in range(1000):
            store.add_evaluations("run-1", "explore", rng.random((5000, 64)) < 0.5, rng.random(5000))

    with pytest.raises(UserError) as caught:
        fill()
    one_line(caught, "the disk is full")


def test_killed_while_writing_keeps_every_commit(tmp_path):
    code = """
    import sys
    import numpy as np
    from raysp.store import Store
    from stores import begin, game
    store = Store.open(sys.argv[1])
    begin(store, info=game(32))
    rng = np.random.default_rng(0)
    while True:
        store.add_evaluations("run-1", "explore", rng.random((500, 32)) < 0.5, rng.random(500), tokens=500)
        print("stored", flush=True)
    """
    path = tmp_path / "s.duckdb"
    with python(code, path) as writer:
        for _ in range(10):
            assert writer.stdout.readline() == "stored\n"
        writer.send_signal(signal.SIGKILL)
        told = 10 + writer.stdout.read().count("stored")
    with Store.open(path) as store:
        kept = store.sql("SELECT count(*) AS c, sum(tokens) AS t FROM evaluations").to_pylist()[0]
        assert kept["c"] >= 500 * told
        assert kept["c"] % 500 == 0
        assert kept["c"] == kept["t"]
        assert store.run_row("run-1")["status"] == "interrupted"


LONG = "SELECT sum(hash(range)) FROM range(20000000000)"


def read_long(path):
    with explaining(path), duckdb.connect(config={"threads": 1}) as con:
        con.execute(LONG)


def ask_long(path):
    with Store.open(path) as store:
        store.sql(LONG)


@pytest.mark.parametrize("query", [read_long, ask_long])
def test_a_signal_during_a_query_is_an_interrupt(tmp_path, query):
    """DuckDB makes a RuntimeError of it, by which a run would have failed instead of being interrupted."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            query(tmp_path / "s.duckdb")
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


#: Where an interrupt may come: what raysp does of a transaction, and the context managers around it.
TRACED = ("contextlib.py", "raysp/interrupts.py", "raysp/store/store.py", "raysp/store/failures.py")


def interrupted_at(line, action):
    """Run `action` and send SIGINT before a given line (counted from 0) of it. Return whether it raised KeyboardInterrupt, and the line's function (None: it has fewer lines)."""
    left, reached = [line], []

    def count(frame, event, _):
        if not frame.f_code.co_filename.endswith(TRACED):
            return None
        if event == "line" and not reached:
            if left[0] == 0:
                reached.append(frame.f_code.co_qualname)
                signal.raise_signal(signal.SIGINT)
            left[0] -= 1
        return count

    answer, tracing = signal.signal(signal.SIGINT, signal.default_int_handler), sys.gettrace()
    sys.settrace(count)
    try:
        action()
    except KeyboardInterrupt:
        return True, reached[0]
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGINT, answer)
    return False, reached[0] if reached else None


def test_an_interrupt_at_any_line_of_a_transaction_tears_nothing(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        begin(store, info=game(24))
        kept, interrupts = 0, 0
        for line in itertools.count():
            masks = unpack(np.arange(8 * line, 8 * line + 8, dtype="<u4").view(np.uint8).reshape(8, 4)[:, :3], 24)
            add = partial(store.add_evaluations, "run-1", "explore", masks, masks.sum(axis=1), tokens=1.0)
            was_interrupted, reached = interrupted_at(line, add)
            interrupts += was_interrupted
            now_kept = store.run_evaluations("run-1").num_rows
            assert now_kept - kept in ((0, 8) if was_interrupted else (8,)), reached
            kept = now_kept
            # What is remembered of the file agrees with it, and another thread does not wait for a lock that nobody holds.
            with ThreadPoolExecutor(1) as other:
                other.submit(store.add_event, "run-1", "note", "still here").result(timeout=20)
            if reached is None:
                break
        assert interrupts > 100
