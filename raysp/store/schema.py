"""The schema: append-only migrations, each applied once in a transaction, and recorded."""

import re
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import duckdb

from raysp.store.failures import foreign, newer


def migrations() -> list[tuple[int, str, str]]:
    """Return all migrations known to this raysp, in order: number, name, SQL."""
    found: list[tuple[int, str, str]] = []
    for entry in resources.files("raysp.store").joinpath("migrations").iterdir():
        matched = re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name)
        if matched:
            found.append((int(matched[1]), matched[2], entry.read_text(encoding="utf-8")))
    return sorted(found)


def version(con: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Return the number of the last migration applied to this file, 0 for an empty file. Raises UserError if its tables are not raysp's."""
    tables = {str(name) for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        return 0
    if not {"migrations", "evaluations"} <= tables:
        raise foreign(path)
    return int(con.execute("SELECT max(number) FROM migrations").fetchall()[0][0] or 0)


def migrate(con: duckdb.DuckDBPyConnection, path: Path, upto: int | None = None) -> list[str]:
    """Apply the missing migrations, up to number `upto` if given, and return their names. Raises UserError if the file is newer than this raysp."""
    known = migrations()
    at = version(con, path)
    if at > known[-1][0]:
        raise newer(path, at, known[-1][0])
    applied: list[str] = []
    for number, name, sql in known:
        if at < number <= (upto or known[-1][0]):
            _apply(con, number, name, sql)
            applied.append(name)
    return applied


def _apply(con: duckdb.DuckDBPyConnection, number: int, name: str, sql: str) -> None:
    con.execute("BEGIN")
    try:
        con.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER NOT NULL, name TEXT NOT NULL, applied TIMESTAMP NOT NULL)")
        con.execute(sql)
        con.execute("INSERT INTO migrations VALUES (?, ?, ?)", [number, name, datetime.now(UTC).replace(tzinfo=None)])
        con.execute("COMMIT")
    except Exception:
        con.execute("ROLLBACK")
        raise
