"""A person's query ends within its limits, whatever it does, and the process that asks goes on."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stores import begin, game

from raysp.errors import UserError
from raysp.store import ConfinedPool, Limits, Store, ask_confined

ASKS_TOO_MUCH = """
import resource, sys
from pathlib import Path
from raysp.errors import UserError
from raysp.store import Limits, ask_confined
if __name__ == "__main__":
    try:
        ask_confined(Path(sys.argv[1]), "SELECT length(repeat(repeat('x', 60000), 60000)) FROM range(200)", Limits(seconds=1, memory=256 << 20))
    except UserError:
        print("refused")
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


@pytest.fixture
def path(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        begin(store, info=game(64))
        rng = np.random.default_rng(0)
        store.add_evaluations("run-1", "explore", rng.random((100_000, 64)) < 0.5, rng.random(100_000))
    return tmp_path / "s.duckdb"


def test_rows_beyond_the_limit_are_left_out_and_that_is_said(path):
    some = ask_confined(path, "SELECT evaluation_id, value FROM evaluations", Limits(rows=25_000))
    assert (some.table.num_rows, some.truncated) == (25_000, True)
    every = ask_confined(path, "SELECT count(*) AS c FROM evaluations", Limits(rows=1))
    assert (every.table["c"].to_pylist(), every.truncated, every.note) == ([100_000], False, None)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT * FROM evaluations", "has an answer of more than 1 MiB"),
        ("SELECT sum(hash(a.range)) FROM range(3000000000) a", "took longer than 2 s and was stopped"),
        ("SELECT lpad('x', 2000000000, 'y') FROM range(50)", "has an answer of more than|needs more than|took longer than|could not be answered"),
        ("SELECT list(range) FROM range(1000000000)", "needs more than|took longer than"),
        ("DROP TABLE runs", "DROP is not allowed"),
        ("SELECT nothing FROM runs", "nothing"),
        ("SELECT * FROM '/etc/passwd'", "disabled by configuration|does not exist"),
        ("SET memory_limit = '1TB'", "SET is not allowed"),
    ],
)
def test_what_a_query_may_not_do_is_one_line(path, query, message):
    with pytest.raises(UserError, match=message) as caught:
        ask_confined(path, query, Limits(seconds=2, bytes=1 << 20, memory=256 << 20))
    assert "\n" not in str(caught.value)


def test_a_single_call_that_takes_long_or_much_memory_is_stopped(path):
    """One call on one row, within which DuckDB looks at no interrupt. A process asks whose only child is the one that answers."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ASKS_TOO_MUCH, str(path)], capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 60  # it would take minutes
    refused, mebibytes = done.stdout.splitlines()
    assert refused == "refused"
    assert 0 < int(mebibytes) < 2048


def test_a_query_is_answered_while_the_store_is_written(path):
    with Store.open(path) as store:
        store.add_event(None, "note", "new")
        answer = ask_confined(path, "SELECT count(*) AS c FROM events", Limits())
        assert answer.table["c"].to_pylist() == [1]
        assert "reading a snapshot" in str(answer.note)


def test_a_query_that_needs_a_young_snapshot_gets_one_before_the_writer_would_make_the_next(path):
    with Store.open(path) as store:
        os.utime(store.publish(), (0, 0))
        store.add_event(None, "note", "new")
        store._publisher._due = time.monotonic() + 1000
        answer = ask_confined(path, "SELECT count(*) AS c FROM events", Limits(), age=2.0)
        assert answer.table["c"].to_pylist() == [1]
        assert int(str(answer.note).split(" made ")[1].split()[0]) <= 2


@pytest.mark.parametrize("given", [{"seconds": float("nan")}, {"seconds": 1e300}, {"seconds": 0}, {"rows": 0}])
def test_limits_that_are_none(given):
    with pytest.raises(UserError):
        Limits(**given)


def test_a_pool_goes_on_after_queries_that_fail_or_are_stopped(path):
    pool = ConfinedPool(1)
    for query, message in [
        ("SELECT nothing FROM runs", "nothing"),
        ("SELECT sum(hash(a.range)) FROM range(3000000000) a", "took longer than 1 s"),
        ("SELECT * FROM evaluations", "has an answer of more than 1 MiB"),
    ]:
        with pytest.raises(UserError, match=message):
            pool.ask(path, query, Limits(seconds=1, bytes=1 << 20, memory=256 << 20))
        assert pool.ask(path, "SELECT count(*) AS c FROM evaluations", Limits()).table["c"].to_pylist() == [100_000]
    pool.close()


def test_a_pool_leaves_the_live_file_to_its_writer_and_sees_what_that_has_written(path):
    pool = ConfinedPool(2)
    assert pool.ask(path, "SELECT count(*) AS c FROM events", Limits(), age=0.0).table["c"].to_pylist() == [0]
    with Store.open(path) as store:
        store.add_event(None, "note", "new")
        assert pool.ask(path, "SELECT count(*) AS c FROM events", Limits(), age=0.5).table["c"].to_pylist() == [1]
        store.add_event(None, "note", "newer")
        time.sleep(0.6)
        assert pool.ask(path, "SELECT count(*) AS c FROM events", Limits(), age=0.5).table["c"].to_pylist() == [2]
    pool.close()


def test_a_pool_answers_many_threads_with_few_processes(path):
    pool = ConfinedPool(2)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda i: pool.ask(path, f"SELECT {i} AS i", Limits()).table.to_pylist()[0]["i"], range(32)))
    assert answers == list(range(32))
    pool.close()
