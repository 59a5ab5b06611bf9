"""Runs leave the store: copied by `export`, removed by `gc`."""

import json

import pytest

import raysp
from raysp.store import Store


@pytest.fixture
def store(tmp_path):
    """Two runs that ask the same."""
    path = str(tmp_path / "s.duckdb")
    lens = raysp.FunctionLens(lambda masks: 1.0 * masks[:, 0] * masks[:, 1], n=3)
    for name in ("first", "second"):
        raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), local=True, store=path, name=name))
    return path


def test_gc_says_what_it_would_remove_and_removes_it(store, cli):
    tried = json.loads(cli("gc", "first", "--dry-run", "--json", "--store", store).out)
    assert (tried["dry_run"], len(tried["runs"]), tried["evaluations"], tried["kept"], tried["games"]) == (True, 1, 0, 8, 0)
    assert "removed 1 runs with 0 evaluations and 0 games, kept 8 evaluations that other runs use" in cli("gc", "first", "--store", store).out
    assert cli("gc", "first", "--store", store).code == 2
    both = cli("gc", "second", "--json", "--store", store)
    assert json.loads(both.out)["evaluations"] == 8
    with Store.read(store) as reading:
        assert reading.runs().num_rows == 0
        assert reading.sql("FROM games").num_rows == 0


def test_gc_of_a_store_that_is_not_there_makes_none(tmp_path, cli):
    ended = cli("gc", "--store", str(tmp_path / "none.duckdb"))
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert "does not exist" in ended.err
    assert not list(tmp_path.iterdir())


def test_export_writes_the_runs_named_or_all(store, tmp_path, cli):
    with Store.read(store) as reading:
        requests = {
            row["name"]: row["c"] for row in reading.sql("SELECT r.name, count(*) AS c FROM requests JOIN runs r USING (run_id) GROUP BY r.name").to_pylist()
        }
    assert f"2 runs, {sum(requests.values())} evaluations" in cli("export", "--all", "-o", str(tmp_path / "all"), "--store", store).out
    assert len(list((tmp_path / "all" / "evaluations").iterdir())) == 2
    told = json.loads(cli("export", "second", "-o", str(tmp_path / "one"), "--json", "--store", store).out)
    assert told["rows"]["evaluations"] == requests["second"]
    for wrong in ((), ("first", "--all"), ("nothing",)):
        ended = cli("export", *wrong, "-o", str(tmp_path / "none"), "--store", store)
        assert (ended.code, len(ended.err.splitlines())) == (2, 1), wrong
    assert not (tmp_path / "none").exists()
