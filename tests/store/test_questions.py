"""A person's SQL reads the store and nothing else, live and from a snapshot."""

import pytest
from stores import begin

from raysp.errors import UserError
from raysp.store import Store


@pytest.fixture(params=["live", "beside a live one", "closed"])
def store(request, tmp_path):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as live:
        begin(live)
        if request.param == "live":
            yield live
        elif request.param == "beside a live one":
            with Store.read(path) as beside:
                yield beside
    if request.param == "closed":
        with Store.read(path) as reading:
            yield reading


@pytest.mark.parametrize(
    "query", ["SELECT run_id FROM runs", "FROM run_summary", "WITH r AS (FROM runs) SELECT run_id FROM r;", "DESCRIBE runs", "SHOW TABLES", "EXPLAIN SELECT 1"]
)
def test_reading_is_answered(store, query):
    assert store.sql(query).num_rows >= 1


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO events VALUES (now()::TIMESTAMP, 'x', 'x', 'x')",
        "WITH gone AS (DELETE FROM runs RETURNING run_id) SELECT * FROM gone",
        "EXPLAIN ANALYZE DELETE FROM runs",
        "DROP TABLE runs",
        "CREATE TEMP TABLE t AS SELECT 1",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/hostname')",
        "FROM '/etc/hostname.csv'",
        "SELECT * FROM glob('/*')",
        "COPY runs TO '/tmp/runs.csv'",
        "EXPORT DATABASE '/tmp/runs'",
        "ATTACH '/tmp/other.duckdb'",
        "SET enable_external_access = true",
        "RESET threads",
        "PRAGMA threads = 9",
        "LOAD httpfs",
        "INSTALL httpfs",
        "CALL pragma_version()",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM query",
        "BEGIN",
        "ROLLBACK",
    ],
)
def test_everything_else_is_refused_in_one_line(store, query):
    with pytest.raises(UserError) as caught:
        store.sql(query)
    assert str(caught.value).startswith("sql: ")
    assert "\n" not in str(caught.value)
    assert store.sql("SELECT count(*) AS c FROM runs")["c"].to_pylist() == [1]


def test_errors_carry_duckdbs_hint(store):
    with pytest.raises(UserError, match=r'Referenced column "verdic" not found.*verdict'):
        store.sql("SELECT verdic FROM runs")
    with pytest.raises(UserError, match="Table with name run does not exist; Did you mean"):
        store.sql("SELECT * FROM run")


@pytest.mark.parametrize(
    "query",
    [
        "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r) SELECT max(x) FROM r",
        "SELECT count(*) FROM range(9999999) a, range(9999999) b WHERE (a.range * b.range) % 7 = 3",
    ],
)
def test_a_query_that_does_not_end_is_stopped(store, query):
    with pytest.raises(UserError, match=r"took longer than 0.3 s and was stopped"):
        store.sql(query, timeout_s=0.3)
    assert store.sql("SELECT 1 AS one")["one"].to_pylist() == [1]


def test_columns_of_one_name_are_told_apart(store):
    table = store.sql("SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a")
    assert table.to_pylist() == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]
    joined = store.sql("SELECT * FROM runs r JOIN games g USING (game_id)")
    assert len(set(joined.column_names)) == len(joined.column_names)
    assert {"n", "n_1"} <= set(joined.column_names)
