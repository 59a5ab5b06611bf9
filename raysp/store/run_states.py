"""The states of runs as rows: written when they are submitted, and read by the service that continues them."""

from collections.abc import Collection
from typing import Any

import duckdb

Cursor = duckdb.DuckDBPyConnection

ACTIVE = ("queued", "running", "paused")
"""States of runs that a service has yet to end."""
SUBMISSION = ("submitted", "desired", "priority", "progress")
"""Columns that only the runs of a service have."""
STATE = "run_id, name, status, desired, priority, position, progress, error, verdict"
POSITION = "CASE WHEN status = 'queued' THEN row_number() OVER (PARTITION BY status ORDER BY priority DESC, submitted, run_id) END AS position"


def run_states(cur: Cursor, run_ids: Collection[str] | None) -> list[dict[str, Any]]:
    """The states of these runs, or of all, as `StoreReader.run_states`."""
    return _select(cur, STATE, "$wanted IS NULL OR list_contains($wanted, run_id)", {"wanted": None if run_ids is None else list(run_ids)})


def unfinished_runs(cur: Cursor) -> list[dict[str, Any]]:
    """The runs submitted to a service that have not ended, as `StoreReader.unfinished_runs`."""
    return _select(cur, f"{STATE}, set_name, spec", "submitted IS NOT NULL AND list_contains($active, status)", {"active": list(ACTIVE)})


def submission(cur: Cursor, run_id: str) -> dict[str, Any]:
    """The columns `SUBMISSION` of a run that a service is starting, within the caller's transaction; all None for a run in the calling process."""
    query = f"SELECT {', '.join(SUBMISSION)} FROM runs WHERE run_id = ? AND submitted IS NOT NULL AND list_contains(?, status)"  # noqa: S608  our own names
    found = cur.execute(query, [run_id, list(ACTIVE)]).fetchall()
    return dict(zip(SUBMISSION, found[0] if found else [None] * len(SUBMISSION), strict=True))


def _select(cur: Cursor, columns: str, where: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    query = f"SELECT {columns} FROM (SELECT *, {POSITION} FROM runs) WHERE {where} ORDER BY coalesce(submitted, started), run_id"  # noqa: S608  our own names
    found = cur.execute(query, parameters)
    names = [column[0] for column in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
