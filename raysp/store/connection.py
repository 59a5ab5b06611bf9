"""Open the file: one process writes it, its configuration is locked, and no query can reach other files."""

import hashlib
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from raysp.home import cache_folder, home, make_private, private_home
from raysp.store import schema
from raysp.store.failures import explained, explaining, lock_holder, missing

Connection = duckdb.DuckDBPyConnection
WAIT_SECONDS = 2.0
"""How long a writer waits for a reader to close the file: readers of the live file are brief."""
MEMORY_LIMIT = "25%"
"""Of the machine's memory; models in other processes need the rest."""
WRITER_MEMORY = 640 << 20
"""Bytes for a writer, which adds rows and looks few up: it would fill whatever it is given with what it has written."""
SPILL_GIB = 16
"""Disk space for what does not fit into memory."""
WRITER_THREADS, READER_THREADS = 1, 4
"""A writer shares its cores with the models; on busy cores a second thread halves its rate."""


class OlderSchemaError(Exception):
    """A file with an older schema was opened for reading only."""


def snapshot_path(path: Path) -> Path:
    """The path of the snapshot of the store at `path`: raysp.duckdb -> raysp.snapshot.duckdb."""
    return path.with_name(f"{path.stem}.snapshot{path.suffix or '.duckdb'}")


def request_path(path: Path) -> Path:
    """The file that a reader leaves beside the store at `path` to ask its writer for a snapshot."""
    return path.with_name(f"{path.stem}.snapshot.request")


def snapshot_place(path: Path, number: int) -> Path:
    """One of the files among which `snapshot_path` names the current snapshot: raysp.snapshot.1.duckdb."""
    return path.with_name(f"{path.stem}.snapshot.{number}{path.suffix or '.duckdb'}")


def log_path(path: Path) -> Path:
    """DuckDB's write-ahead log of the store at `path`."""
    return path.with_name(f"{path.name}.wal")


def keep_log_private(path: Path) -> None:
    """Make the write-ahead log before DuckDB does, which would let everybody read it; a checkpoint removes it."""
    with suppress(FileExistsError):
        os.close(os.open(log_path(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def drop_empty_log(path: Path) -> None:
    """Remove a write-ahead log that nothing was written to, which no checkpoint would. To be called while the file is still locked: the next writer's log must stay."""
    log = log_path(path)
    with suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()


def open_writer(path: Path) -> Connection:
    """Open the file for writing, migrate it and lock its configuration. Raises UserError if it is locked, damaged, newer than this raysp or not writable."""
    with explaining(path):
        if path.parent == home().resolve():
            private_home()
        path.parent.mkdir(parents=True, exist_ok=True)
    con = connect_patiently(path)
    try:
        with explaining(path):
            make_private(path)
            make_private(log_path(path))
            keep_log_private(path)
            schema.migrate(con, path)
            _lock_down(con)
    except BaseException:
        con.close()
        raise
    return con


def open_reader(path: Path, memory: int | None = None) -> Connection:
    """Open the file for reading only, with at most `memory` bytes for queries. Raises duckdb.Error unchanged, OlderSchemaError, and UserError if the file is missing or newer than this raysp."""
    if not path.exists():
        raise missing(path)
    make_private(path)
    con = duckdb.connect(str(path), read_only=True, config=_config(path, READER_THREADS, memory))
    try:
        _check_schema(con, path)
        _lock_down(con)
    except BaseException:
        con.close()
        raise
    return con


def _check_schema(con: Connection, path: Path) -> None:
    if schema.missing(con, path):
        raise OlderSchemaError


def _config(path: Path, threads: int, memory: int | None = None) -> dict[str, Any]:
    spill = cache_folder("spill")
    make_private(spill, 0o700)
    # All connections of a process to a file need the same. Python variables must not be readable as tables: user queries run in this process.
    # A file of another format must not make DuckDB download an extension for it, and what does not fit into memory is nobody else's to read.
    return {
        "threads": threads,
        "memory_limit": MEMORY_LIMIT if memory is None else f"{memory >> 20}MiB",
        "max_temp_directory_size": f"{SPILL_GIB}GiB",
        "python_enable_replacements": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "temp_directory": str(spill / f"{os.getpid()}-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"),
    }


def connect_patiently(path: Path) -> Connection:
    """Open the file for writing, which readers may hold for a moment. Raises UserError if it cannot be opened."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return duckdb.connect(str(path), config=_config(path, WRITER_THREADS, WRITER_MEMORY))
        except duckdb.Error as error:
            if lock_holder(error) is None or time.monotonic() > until:
                raise explained(path, error) from None
        threading.Event().wait(0.05)


def _lock_down(con: Connection) -> None:
    if con.execute("SELECT current_setting('lock_configuration')").fetchall() == [(True,)]:
        return  # another connection of this process to the same file has done it: they share an instance
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
