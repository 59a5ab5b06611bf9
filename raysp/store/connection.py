"""Opening the file: one process writes, its configuration is locked, and no query can reach other files."""

import threading
import time
from pathlib import Path
from typing import Any

import duckdb

from raysp.store import schema
from raysp.store.failures import explained, explaining, lock_holder, missing, newer

Connection = duckdb.DuckDBPyConnection
WAIT_SECONDS = 2.0
"""How long a writer waits for a reader to let go of the file: readers of the live file are short."""
MEMORY_LIMIT = "25%"
"""Of the machine's memory: the models beside us need the rest."""
WRITER_THREADS, READER_THREADS = 1, 4
"""A writer shares its cores with the models: a second thread halves its rate when the cores are busy (the work waits for its turn)."""
SNAPSHOT_FILES = ("", ".wal", ".wal.checkpoint", ".wal.recovery", ".tmp")


class OlderSchemaError(Exception):
    """A file of an older schema was opened for reading only."""


def snapshot_path(path: Path) -> Path:
    """Where the snapshot of the store at `path` lies: raysp.duckdb -> raysp.snapshot.duckdb."""
    return path.with_name(f"{path.stem}.snapshot{path.suffix or '.duckdb'}")


def drafts(path: Path) -> Path:
    """Where a snapshot is built before it takes its place."""
    return path.with_name(f"{path.stem}.snapshot.draft")


def open_writer(path: Path) -> Connection:
    """The file open for writing, migrated and locked down; UserError when it is locked, damaged, newer, or cannot be written."""
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    con = _connect_patiently(path)
    try:
        with explaining(path):
            schema.migrate(con, path)
            _lock_down(con, [f"{drafts(path)}{end}" for end in SNAPSHOT_FILES])
    except BaseException:
        con.close()
        raise
    return con


def open_reader(path: Path) -> Connection:
    """The file open for reading only. Raises duckdb.Error as it comes, OlderSchemaError, UserError when it is missing or newer."""
    if not path.exists():
        raise missing(path)
    con = duckdb.connect(str(path), read_only=True, config=_config(READER_THREADS))
    try:
        _check_schema(con, path)
        _lock_down(con, [])
    except BaseException:
        con.close()
        raise
    return con


def _check_schema(con: Connection, path: Path) -> None:
    at, known = schema.version(con, path), schema.migrations()[-1][0]
    if at > known:
        raise newer(path, at, known)
    if at < known:
        raise OlderSchemaError


def _config(threads: int) -> dict[str, Any]:
    # Python variables must not be readable as tables: a user's query runs among ours.
    return {"threads": threads, "memory_limit": MEMORY_LIMIT, "python_enable_replacements": "false"}


def _connect_patiently(path: Path) -> Connection:
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return duckdb.connect(str(path), config=_config(WRITER_THREADS))
        except duckdb.Error as error:
            if lock_holder(error) is None or time.monotonic() > until:
                raise explained(path, error) from None
        threading.Event().wait(0.05)


def _lock_down(con: Connection, allowed: list[str]) -> None:
    con.execute(f"SET allowed_paths = [{', '.join(_quoted(name) for name in allowed)}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
