"""The answer of a run as tables: written, replaced and read, with readable labels."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from raysp.game import Component, labels
from raysp.store.packing import Table

Cursor = duckdb.DuckDBPyConnection

ANSWERS = ("singles", "interactions", "validations", "heldout", "cross_checks", "query_scores", "query_singles", "query_interactions", "query_heldout")
SUMMARY = ("value_intact", "value_empty", "index", "r2", "r2_lo", "r2_hi", "r2_singles", "verdict", "metrics", "notes", "diagnostics", "error")
JSON_COLUMNS = ("spec", "metrics", "diagnostics")
#: The tables of a run, each with its rows in reading order. The column set_order is called `order` in Python, as in `FourierSurrogate.interactions`.
RUN_TABLES = {
    "singles": "SELECT * EXCLUDE (run_id) FROM singles WHERE run_id = $run ORDER BY component",
    "interactions": "SELECT * EXCLUDE (run_id) FROM interactions WHERE run_id = $run ORDER BY rank",
    "reasons": "SELECT * EXCLUDE (run_id) FROM reasons WHERE run_id = $run ORDER BY position",
    "validations": "SELECT * EXCLUDE (run_id) FROM validations WHERE run_id = $run ORDER BY role, abs(exact) DESC, labels",
    "heldout": "SELECT * EXCLUDE (run_id) FROM heldout WHERE run_id = $run ORDER BY rowid",
    "cross_checks": "SELECT * EXCLUDE (run_id) FROM cross_checks WHERE run_id = $run ORDER BY method, component",
    "prunings": "SELECT * EXCLUDE (run_id) FROM prunings WHERE run_id = $run ORDER BY keep, method",
    "queries": "SELECT q.* EXCLUDE (game_id) FROM queries q JOIN runs r USING (game_id) WHERE r.run_id = $run ORDER BY query",
    "examples": "SELECT e.* EXCLUDE (game_id) FROM examples e JOIN runs r USING (game_id) WHERE r.run_id = $run ORDER BY example",
    "query_scores": "SELECT * EXCLUDE (run_id) FROM query_scores WHERE run_id = $run ORDER BY query",
    "query_singles": "SELECT * EXCLUDE (run_id) FROM query_singles WHERE run_id = $run ORDER BY query, component",
    "query_interactions": "SELECT * EXCLUDE (run_id) FROM query_interactions WHERE run_id = $run ORDER BY query, rank",
    "query_heldout": "SELECT * EXCLUDE (run_id) FROM query_heldout WHERE run_id = $run ORDER BY query, rowid",
    "data_scores": "SELECT * EXCLUDE (run_id) FROM data_scores WHERE run_id = $run ORDER BY rowid",
    "selections": "SELECT * EXCLUDE (run_id) FROM selections WHERE run_id = $run ORDER BY created, rowid",
    "costs": "SELECT * EXCLUDE (run_id, name) FROM run_costs WHERE run_id = $run",
    "events": "SELECT time, kind, message FROM events WHERE run_id = $run ORDER BY time, rowid",
    "components": "SELECT c.* EXCLUDE (game_id) FROM components c JOIN runs r USING (game_id) WHERE r.run_id = $run ORDER BY component",
}


def run_table(cur: Cursor, name: str, run_id: str) -> Table:
    """Return one of `RUN_TABLES` for a run. Raises ValueError for another name."""
    if name not in RUN_TABLES:
        raise ValueError(f"no table {name!r}; there are {', '.join(RUN_TABLES)}")
    rows = cur.sql(RUN_TABLES[name], params={"run": run_id}).to_arrow_table()
    return rows.rename_columns(["order" if column == "set_order" else column for column in rows.column_names])


def replace_answers(cur: Cursor, run_id: str, tables: Mapping[str, Table | None], components: Sequence[Component]) -> None:
    """Replace a run's answer, within the caller's transaction. Raises ValueError for unknown tables and columns."""
    if unknown := set(tables) - set(ANSWERS):
        raise ValueError(f"no table {sorted(unknown)} of answers; there are {', '.join(ANSWERS)}")
    for name in ANSWERS:
        cur.execute(f"DELETE FROM {name} WHERE run_id = ?", [run_id])  # noqa: S608  names from ANSWERS
        table = tables.get(name)
        if table is not None and table.num_rows:
            _insert(cur, name, run_id, _complete(name, table, components))


def replace_reasons(cur: Cursor, run_id: str, reasons: Sequence[Mapping[str, Any]]) -> None:
    """Store the reasons of a run's verdict (mappings with keys code, figures and sentence) in place of earlier ones; within the caller's transaction."""
    cur.execute("DELETE FROM reasons WHERE run_id = ?", [run_id])
    for position, reason in enumerate(reasons):
        figures = json.dumps(reason["figures"], ensure_ascii=False)
        cur.execute("INSERT INTO reasons VALUES (?, ?, ?, ?, ?)", [run_id, position, reason["code"], figures, reason["sentence"]])


def reasons_of(cur: Cursor, run_id: str) -> list[dict[str, Any]]:
    """The reasons of a run's verdict in their order: keys code, figures (by name) and sentence."""
    rows = cur.execute("SELECT code, figures, sentence FROM reasons WHERE run_id = ? ORDER BY position", [run_id]).fetchall()
    return [{"code": code, "figures": json.loads(figures), "sentence": sentence} for code, figures, sentence in rows]


def replace_rows(cur: Cursor, name: str, run_id: str, rows: Table, now: datetime) -> None:
    """Replace all of a run's rows in a table by rows created at `now`, within the caller's transaction. Raises ValueError for unknown columns."""
    cur.execute(f"DELETE FROM {name} WHERE run_id = ?", [run_id])  # noqa: S608  our own names
    _insert(cur, name, run_id, _dated(rows, now))


def replace_selections(cur: Cursor, run_id: str, rows: Table, now: datetime) -> None:
    """Replace a run's selections made by the same `rule`; otherwise as `replace_rows`."""
    for rule in set(rows["rule"].to_pylist()):
        cur.execute("DELETE FROM selections WHERE run_id = ? AND rule = ?", [run_id, rule])
    _insert(cur, "selections", run_id, _dated(rows, now))


def _dated(rows: Table, now: datetime) -> Table:
    return rows if "created" in rows.column_names else rows.append_column("created", pa.array([now] * rows.num_rows, pa.timestamp("us")))


def update_run(cur: Cursor, run_id: str, status: str, summary: Mapping[str, Any], finished: datetime | None) -> None:
    """Update a run's status and the columns in `summary`. Raises ValueError for a key that is not a column."""
    unknown = set(summary) - set(SUMMARY)
    if unknown:
        raise ValueError(f"no summary column {sorted(unknown)}; there are {', '.join(SUMMARY)}")
    columns: dict[str, Any] = {"status": status, "finished": finished} | {key: _stored(key, value) for key, value in summary.items()}
    assignments = ", ".join(f"{column} = ${column}" for column in columns)
    cur.execute(f"UPDATE runs SET {assignments} WHERE run_id = $run_id", columns | {"run_id": run_id})  # noqa: S608  names from SUMMARY


def _stored(key: str, value: Any) -> Any:
    if key in JSON_COLUMNS and value is not None:
        return json.dumps(value, ensure_ascii=False, default=str)
    if key == "notes" and value is not None:
        return [str(line) for line in value]
    return value


def _complete(name: str, table: Table, components: Sequence[Component]) -> Table:
    table = table.rename_columns(["set_order" if column == "order" else column for column in table.column_names])
    present = set(table.column_names)
    if name in ("singles", "cross_checks", "query_singles") and "label" not in present:
        table = table.append_column("label", pa.array([components[i].label for i in table["component"].to_pylist()], pa.string()))
    if "components" in present:
        members: list[list[int]] = table["components"].to_pylist()
        if "labels" not in present:
            table = table.append_column("labels", pa.array([labels(components, some) for some in members], pa.string()))
        if "set_order" not in present:
            table = table.append_column("set_order", pa.array([len(some) for some in members], pa.int32()))
    if name in ("interactions", "query_interactions"):
        if "rank" not in present:
            table = table.append_column("rank", pa.array(range(1, table.num_rows + 1), pa.int32()))
        if "verified" not in present:
            table = table.append_column("verified", pa.array([False] * table.num_rows))
    return table


def _insert(cur: Cursor, name: str, run_id: str, table: Table) -> None:
    wanted = {row[0] for row in cur.execute("SELECT column_name FROM duckdb_columns() WHERE table_name = ?", [name]).fetchall()}
    unknown = set(table.column_names) - wanted
    if unknown:
        raise ValueError(f"the table {name} has no column {sorted(unknown)}; it has {sorted(wanted - {'run_id'})}")
    cur.register("answers", table)
    cur.execute(f"INSERT INTO {name} BY NAME SELECT ? AS run_id, * FROM answers", [run_id])  # noqa: S608  our own names
    cur.unregister("answers")
