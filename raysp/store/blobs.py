"""The content of files that questions name, stored once by hash."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from raysp.blobs import digest


def insert(cur: duckdb.DuckDBPyConnection, contents: Iterable[bytes]) -> None:
    """Insert what is not stored yet, within the caller's transaction. The hashes are computed here: nobody can store something else in a file's place."""
    for content in contents:
        cur.execute("INSERT INTO blobs VALUES (?, ?) ON CONFLICT DO NOTHING", [digest(content), content])


def find(cur: duckdb.DuckDBPyConnection, hash_: str) -> bytes | None:
    """The content with this hash, None if it is not stored."""
    found = cur.execute("SELECT content FROM blobs WHERE hash = ?", [hash_]).fetchall()
    return bytes(found[0][0]) if found else None
