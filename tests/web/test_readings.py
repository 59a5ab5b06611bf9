"""Many requests share one reader of the store, which is as new as they need and in no writer's way."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from raysp.errors import UserError
from raysp.store import Store
from raysp.web import readings as module
from raysp.web.readings import Readings


@pytest.fixture
def path(tmp_path):
    Store.open(tmp_path / "s.duckdb").close()
    return tmp_path / "s.duckdb"


@pytest.fixture
def shared(path):
    found = Readings(path, lambda: None)
    yield found
    found.close()


def events_of(reader):
    return reader.sql("SELECT count(*) AS c FROM events")["c"].to_pylist()[0]


def writer_in_another_process(path):
    """A process that writes an event whenever it reads a line, and says when it has."""
    import subprocess
    import sys

    code = (
        "import sys\nfrom raysp.store import Store\nwith Store.open(sys.argv[1]) as store:\n print('open', flush=True)\n"
        " for line in sys.stdin:\n  store.add_event(None, 'note', line)\n  print('written', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "open\n"
    return child


def write(child):
    child.stdin.write("x\n")
    child.stdin.flush()
    assert child.stdout.readline() == "written\n"


def test_a_store_that_nobody_writes_can_be_written_as_soon_as_nobody_reads_it(path, shared):
    with shared.reading() as reader:
        assert events_of(reader) == 0
    with Store.open(path) as store:
        store.add_event(None, "note", "new")
    with shared.reading() as reader:
        assert events_of(reader) == 1


def test_readers_that_never_pause_let_a_writer_in(path, shared):
    over = threading.Event()

    def read():
        while not over.is_set():
            with shared.reading() as reader:
                events_of(reader)

    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(read) for _ in range(4)]
        try:
            time.sleep(0.5)
            child = writer_in_another_process(path)
            write(child)
        finally:
            over.set()
        for each in waiting:
            each.result()
    with shared.reading(time.time()) as reader:
        assert events_of(reader) == 1
    child.communicate()


def test_what_was_stored_until_a_moment_is_seen_by_whoever_asks_for_it(path, shared):
    child = writer_in_another_process(path)
    for count in range(1, 4):
        write(child)
        with shared.reading(time.time()) as reader:
            assert events_of(reader) == count
    child.communicate()


def test_requests_share_a_snapshot_and_it_is_renewed_behind_their_backs(path, shared, monkeypatch):
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    child = writer_in_another_process(path)
    with shared.reading() as first, shared.reading() as second:
        assert first is second
    write(child)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with shared.reading() as reader:
            if events_of(reader) == 1:
                break
        time.sleep(0.05)
    else:
        pytest.fail("an older snapshot is still read")
    child.communicate()


def test_a_store_that_is_not_there_is_one_line(tmp_path):
    found = Readings(tmp_path / "none.duckdb", lambda: None)
    with pytest.raises(UserError, match="does not exist"), found.reading():
        pass
    found.close()


def test_the_store_is_kept_open_while_it_is_read_and_not_for_ever(path, monkeypatch):
    kept = []
    found = Readings(path, lambda: kept.append(time.monotonic()))
    found.keep()
    assert not kept  # nobody has read it
    with found.reading():
        pass
    found.keep()
    found.keep()
    assert len(kept) == 1
    found.held()
    assert len(kept) == 1
    monkeypatch.setattr(module, "KEEP_SECONDS", 0.0)
    found.held()
    assert len(kept) == 2
    monkeypatch.setattr(module, "USED_SECONDS", 0.0)
    found.keep()
    assert len(kept) == 2
    found.close()
