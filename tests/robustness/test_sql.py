"""Whatever is asked of a store in SQL, it is a table or an error in one line: no traceback, no crash, and nothing is changed."""

import io
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raysp
from raysp.commands import display
from raysp.store import Store, write_table
from raysp.store.export import WRITERS

EXAMPLES = int(os.environ.get("RAYSP_FUZZ_EXAMPLES", "200"))
SECONDS = 2.0
NAMES = ("runs", "evaluations", "top_interactions", "components", "run_id", "value", "labels", "mask", "nothing", '"[/b]"', "*", "1", "NULL", "''")
TYPES = (
    "date",
    "timestamp",
    "timestamptz",
    "timestamp_ns",
    "time",
    "interval",
    "double",
    "hugeint",
    "decimal(38, 10)",
    "blob",
    "bit",
    "uuid",
    "json",
    "varchar[]",
    "bignum",
)
TEXTS = (
    "20000-01-01",
    "-4000-01-01",
    "infinity",
    "nan",
    "1e400",
    "[/b]",
    "24:00:00",
    "1 month",
    "\\x00",
    "101",
    "{}",
    "290000-01-01 00:00:00",
    "9" * 50,
    "🙂",
    "\x1b[31m",
)
VALUES = st.recursive(
    st.one_of(
        st.sampled_from(NAMES),
        st.tuples(st.sampled_from(TEXTS), st.sampled_from(TYPES)).map(lambda pair: f"'{pair[0]}'::{pair[1]}"),
        st.tuples(st.sampled_from(TEXTS), st.sampled_from(TYPES)).map(lambda pair: f"try_cast('{pair[0]}' AS {pair[1]})"),
        st.integers().map(str),
        st.floats().map(lambda number: f"'{number}'::double"),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        inner.map(lambda value: f"{{'a': {value}}}"),
        st.tuples(inner, st.sampled_from(("+", "-", "*", "/", "%", "||", "=", "<", "AND", "IN", "LIKE", "::", ".")), inner).map(" ".join),
        inner.map(lambda value: f"map([1], [{value}])"),
        st.tuples(st.sampled_from(("sum", "count", "max", "list", "chr", "hex", "to_json", "unnest", "typeof", "md5", "nothing")), inner).map(
            lambda pair: f"{pair[0]}({pair[1]})"
        ),
        inner.map(lambda value: f"({value})"),
    ),
    max_leaves=5,
)
QUERIES = st.one_of(
    st.lists(VALUES, min_size=1, max_size=3).map(lambda values: f"SELECT {', '.join(values)}"),
    st.tuples(VALUES, st.sampled_from(NAMES), VALUES).map(lambda parts: f"SELECT {parts[0]} FROM {parts[1]} WHERE {parts[2]} LIMIT 5"),
    st.tuples(VALUES, st.sampled_from(NAMES), VALUES).map(lambda parts: f"FROM {parts[1]} SELECT {parts[0]} GROUP BY {parts[2]}"),
    VALUES.map(lambda value: f"WITH t(a) AS (SELECT {value}) SELECT *, a AS a FROM t ORDER BY 1"),
    VALUES.map(lambda value: f'SELECT {value} AS "[/b] {value[:3]}"'.replace('""', "")),
    st.sampled_from(("", ";", "SELECT", "--", "/*", "SELECT 1; SELECT 2", "SELECT ?", "SELECT $1", "SELECT '", 'SELECT "', "VALUES (1)", "SHOW TABLES", "DESCRIBE runs", "EXPLAIN SELECT 1")),
    st.sampled_from(("DROP TABLE runs", "DELETE FROM runs", "UPDATE runs SET name = 'x'", "SET threads = 1", "PRAGMA enable_profiling", "INSTALL httpfs", "LOAD x", "CALL pragma_version()",
                     "ATTACH 'x.duckdb'", "COPY runs TO 'x.csv'", "EXPORT DATABASE 'x'", "FROM read_text('/etc/passwd')", "FROM '/etc/passwd'", "FROM glob('*')", "CHECKPOINT", "VACUUM", "BEGIN", "EXECUTE x")),
    st.text(max_size=40),
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("sql") / "raysp.duckdb"
    lens = raysp.FunctionLens(lambda masks: masks[:, 0] + 2.0 * masks[:, 1] * masks[:, 2], n=4, labels=("a", "b\x1b[31m", "[/c]", "d"), name="fn")
    raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), local=True, store=str(path)))
    with Store.read(path) as reading:
        yield reading


def attempt(call):
    """What a call returns, or the line of its error."""
    try:
        return call()
    except raysp.UserError as error:
        line = str(error)
    assert "\n" not in line
    return line


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(QUERIES)
def test_a_query_is_a_table_in_every_format_or_one_line(store, query):
    before = store.runs().to_pylist()
    table = attempt(lambda: store.sql(query, timeout_s=SECONDS))
    if not isinstance(table, str):
        for form in WRITERS:
            problem = attempt(lambda form=form: write_table(table, form, io.BytesIO()))
            assert problem is None or form == "parquet"  # which lacks types of DuckDB
        with display.out.capture() as captured:
            display.print_table(table.slice(0, 20))
        assert "\x1b[31m" not in captured.get()
    assert store.runs().to_pylist() == before


CELLS = {
    "a date after the year 9999": ("SELECT date '20000-01-01' AS x", "20000-01-01"),
    "such a date in a list": ("SELECT [date '20000-01-01', NULL] AS x", ["20000-01-01", None]),
    "such a date in a struct": ("SELECT {'a': date '20000-01-01'} AS x", {"a": "20000-01-01"}),
    "such a date in a map": ("SELECT map([1], [timestamp '20000-01-01']) AS x", [[1, "20000-01-01 00:00:00.000000"]]),
    "markup": ("SELECT '[/b]' AS x", "[/b]"),
    "a number that is not finite": ("SELECT 'inf'::double AS x", None),
    "bytes": ("SELECT 'ab'::blob AS x", "6162"),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_that_python_or_rich_cannot_show_as_they_are(store, name):
    query, cell = CELLS[name]
    table, stream = store.sql(query), io.BytesIO()
    write_table(table, "json", stream)
    assert json.loads(stream.getvalue()) == [{"x": cell}]
    with display.out.capture() as captured:
        display.print_table(table)
    if isinstance(cell, str) and name != "bytes":
        assert cell in captured.get()


def test_markup_in_the_name_of_a_column_is_shown_as_it_is(store):
    with display.out.capture() as captured:
        display.print_table(store.sql("SELECT '[/b]'"))
    assert "'[/b]'" in captured.get()


SLOW = {
    "WITH in WITH": ("WITH a AS (" * 8, "nests more than"),
    "brackets": ("SELECT " + "(" * 3000, "nests more than"),
    "an open bracket": ("SELECT ('(' || 1", "has 1 more opening than closing brackets"),
    "a long query": ("SELECT 1" + " + 1" * 30_000, "characters"),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_query_that_takes_long_to_parse_is_refused(store, name):
    query, message = SLOW[name]
    with pytest.raises(raysp.UserError, match=rf"^sql: .*{message}"):
        store.sql(query)


def test_brackets_in_texts_and_comments_do_not_count(store):
    query = f"WITH a AS (SELECT '{'(' * 200}🙂' AS x /* {'(' * 200} */), b AS (FROM a) SELECT length(x) AS n FROM b -- {'(' * 200}"
    assert store.sql(query).to_pylist() == [{"n": 201}]
