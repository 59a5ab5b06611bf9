"""Write and read the numeric noise of games, which is measured once per game."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import duckdb

Cursor = duckdb.DuckDBPyConnection
#: Columns besides the key and the time.
FIGURES = ("dtype", "noise", "spread", "share", "query_share", "scale", "masks", "repeats", "reference")


def find(cur: Cursor, fingerprint: str, keep_probability: float) -> dict[str, Any] | None:
    """The figures of a game at this P(keep), None if they were never measured."""
    query = f"SELECT {', '.join(FIGURES)} FROM numeric_noise WHERE fingerprint = ? AND keep_probability = ?"  # noqa: S608  our own names
    rows = cur.execute(query, [fingerprint, keep_probability]).fetchall()
    return dict(zip(FIGURES, rows[0], strict=True)) if rows else None


def insert(cur: Cursor, fingerprint: str, keep_probability: float, figures: Mapping[str, Any], now: datetime) -> None:
    """Store the figures of a game, unless it already has some."""
    row = {"fingerprint": fingerprint, "keep_probability": keep_probability, **{name: figures[name] for name in FIGURES}, "measured": now}
    names = ", ".join(row)
    cur.execute(f"INSERT INTO numeric_noise ({names}) VALUES ({', '.join('$' + name for name in row)}) ON CONFLICT DO NOTHING", row)  # noqa: S608  our own names
