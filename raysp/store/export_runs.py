"""Export runs as Parquet files, partitioned by run."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
from pyarrow import parquet

from raysp.errors import UserError

Cursor = duckdb.DuckDBPyConnection
BATCH_ROWS = 50_000

# What a run requested, in its order, in place of the tables that this is stored in.
EVALUATIONS = """
SELECT q.phase, q.round, q.position, q.reused, q.evaluation_id, e.mask, e.value, o.outputs, s.slopes, f.position IS NOT NULL AS fitted,
       e.tokens, e.seconds, e.created
FROM (FROM requests WHERE run_id = $run) q JOIN evaluations e USING (evaluation_id)
LEFT JOIN outputs o USING (evaluation_id) LEFT JOIN slopes s USING (evaluation_id) LEFT JOIN (FROM fitted_evaluations WHERE run_id = $run) f USING (evaluation_id)
ORDER BY q.phase, q.round, q.position
"""
INSTEAD = ("batches", "measurements", "reuses", "fitted_evaluations", "outputs", "slopes")
TABLES = """
SELECT c.table_name, bool_or(c.column_name = 'run_id') AS by_run FROM duckdb_columns() c JOIN duckdb_tables() t USING (table_oid, database_name)
WHERE c.column_name IN ('run_id', 'game_id') AND NOT t.temporary GROUP BY ALL ORDER BY ALL
"""


def export_runs(cur: Cursor, run_ids: Sequence[str], folder: Path) -> dict[str, int]:
    """Write FOLDER/TABLE/run_id=RUN/data.parquet for every table that says something of a run, and return the number of rows by table.

    A run's game, with its components, queries and examples, is written with each of its runs. The folder appears when it is complete. Raises UserError if there is
    something at that path, or if it cannot be written.
    """
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise UserError("output", str(folder), "exists already", "name a folder that does not exist, or an empty one")
        draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
        try:
            rows = _write_all(cur, run_ids, draft)
            with suppress(FileNotFoundError):
                folder.rmdir()
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise UserError("output", str(folder), f"cannot be written ({error.strerror or error})", "choose a folder that you can write to") from None
    return rows


def _write_all(cur: Cursor, run_ids: Sequence[str], folder: Path) -> dict[str, int]:
    folder.mkdir(parents=True)
    queries = {"evaluations": EVALUATIONS} | {
        name: f"SELECT * EXCLUDE (run_id) FROM {name} WHERE run_id = $run"  # noqa: S608  names from the catalogue
        if by_run
        else f"SELECT * FROM {name} WHERE game_id = (SELECT game_id FROM runs WHERE run_id = $run)"  # noqa: S608
        for name, by_run in cur.execute(TABLES).fetchall()
        if name not in INSTEAD
    }
    rows: dict[str, int] = {}
    for name, query in queries.items():
        count = sum(_write(cur, query, run_id, folder / name / f"run_id={quote(run_id, safe='')}") for run_id in run_ids)
        if count:
            rows[name] = count
    return rows


def _write(cur: Cursor, query: str, run_id: str, place: Path) -> int:
    """Write the rows of one run, if there are any, and return their number."""
    relation: Any = cur.sql(query, params={"run": run_id})
    reader = relation.to_arrow_reader(BATCH_ROWS)
    count, writer = 0, None
    try:
        for batch in reader:
            if not batch.num_rows:
                continue
            if writer is None:
                place.mkdir(parents=True)
                writer = parquet.ParquetWriter(place / "data.parquet", reader.schema, compression="zstd")
            writer.write_batch(batch)
            count += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    return count
