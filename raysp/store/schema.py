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


def applied(con: duckdb.DuckDBPyConnection, path: Path) -> set[int]:
    """The numbers of the migrations applied to this file, none for an empty file. Raises UserError if its tables are not raysp's, or if raysp lacks one of them."""
    tables = {str(name) for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        return set()
    if not {"migrations", "games", "runs"} <= tables:
        raise foreign(path)
    found, known = {int(number) for (number,) in con.execute("SELECT number FROM migrations").fetchall()}, {number for number, _, _ in migrations()}
    if not found <= known:
        raise newer(path, max(found - known), max(known))
    return found


def missing(con: duckdb.DuckDBPyConnection, path: Path) -> list[tuple[int, str, str]]:
    """The migrations that this file lacks, in order, whatever was applied after them. Raises UserError as `applied`."""
    before = applied(con, path)
    return [migration for migration in migrations() if migration[0] not in before]


def migrate(con: duckdb.DuckDBPyConnection, path: Path, upto: int | None = None) -> list[str]:
    """Apply the missing migrations, up to number `upto` if given, and return their names. Raises UserError as `applied`."""
    wanted = [migration for migration in missing(con, path) if upto is None or migration[0] <= upto]
    for number, name, sql in wanted:
        _apply(con, number, name, sql)
    return [name for _, name, _ in wanted]


def _apply(con: duckdb.DuckDBPyConnection, number: int, name: str, sql: str) -> None:
    con.execute("BEGIN")
    try:
        con.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER NOT NULL, name TEXT NOT NULL, applied TIMESTAMP NOT NULL)")
        con.execute(sql)
        con.execute("INSERT INTO migrations VALUES (?, ?, ?)", [number, name, datetime.now(UTC).replace(tzinfo=None)])
        con.execute("COMMIT")
    except BaseException:
        con.execute("ROLLBACK")
        raise
