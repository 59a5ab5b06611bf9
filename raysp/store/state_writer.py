"""The half of a store that changes the states of runs."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from raysp.errors import masked
from raysp.store import games
from raysp.store.reading import StoreReader
from raysp.store.run_states import ACTIVE
from raysp.store.stamps import now, version

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from raysp.store.connection import Connection

PROGRESS_SECONDS = 1.0
"""The shortest time between two writes of a run's progress."""


class RunStateWriter(StoreReader):
    """The methods of `Store` that change the states of runs."""

    def __init__(self, con: Connection, path: Path) -> None:
        super().__init__(con, path)
        self._told: dict[str, float] = {}

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Connection]: ...

    def submit_runs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Queue runs, all in one transaction.

        Rows have the columns run_id, name, set_name, lens, explorer, model, seed, spec (JSON) and priority. A submitted run that has not ended is left as it is;
        one with evaluations keeps its row, which is queued again; any other row of the same id is replaced.
        """
        with self._transaction() as cur:
            for row in rows:
                self._submit(cur, row)

    def _submit(self, cur: Connection, row: Mapping[str, Any]) -> None:
        run_id = row["run_id"]
        found = cur.execute("SELECT status, submitted IS NOT NULL FROM runs WHERE run_id = ?", [run_id]).fetchall()
        if found and found[0][0] in ACTIVE and found[0][1]:
            return
        moment = now()
        state = {"status": "queued", "desired": "running", "priority": row["priority"], "submitted": moment}
        if found and cur.execute("SELECT 1 FROM requests WHERE run_id = ? LIMIT 1", [run_id]).fetchall():
            cur.execute(
                "UPDATE runs SET status = $status, desired = $desired, priority = $priority, submitted = $submitted, finished = NULL, error = NULL"
                " WHERE run_id = $run_id",
                state | {"run_id": run_id},
            )
            return
        self._games.pop(run_id, None)
        games.insert_run(cur, {**row, **state, "version": version(), "started": moment})

    def set_state(self, run_id: str, status: str, allowed: Collection[str], *, error: str | None = None, progress: str | None = None) -> str:
        """Set a run's status, error and, if given, its progress (JSON) if its status is one of `allowed`. Returns the status before. ValueError for an unknown run."""
        with self._transaction() as cur:
            before = cur.execute("SELECT status FROM runs WHERE run_id = ?", [run_id]).fetchall()
            if not before:
                raise ValueError(f"no run {run_id}: submit_runs comes first")
            if before[0][0] in allowed:
                cur.execute(
                    "UPDATE runs SET status = $status, error = $error, progress = coalesce($progress, progress), finished = $finished WHERE run_id = $run_id",
                    {
                        "status": status,
                        "error": error and masked(error),
                        "progress": progress,
                        "finished": None if status in ACTIVE else now(),
                        "run_id": run_id,
                    },
                )
                self._told.pop(run_id, None)
            return str(before[0][0])

    def set_desired(self, run_id: str, desired: str) -> None:
        """Record what is wanted of a run: running, paused or cancelled. ValueError for an unknown run."""
        with self._transaction() as cur:
            if not cur.execute("UPDATE runs SET desired = ? WHERE run_id = ? RETURNING run_id", [desired, run_id]).fetchall():
                raise ValueError(f"no run {run_id}: submit_runs comes first")

    def set_progress(self, run_id: str, progress: str) -> bool:
        """Store a run's progress (JSON), at most once in `PROGRESS_SECONDS`. Returns whether it was stored."""
        moment = time.monotonic()
        if moment - self._told.get(run_id, -PROGRESS_SECONDS) < PROGRESS_SECONDS:
            return False
        self._told[run_id] = moment
        with self._transaction() as cur:
            cur.execute("UPDATE runs SET progress = ? WHERE run_id = ?", [progress, run_id])
        return True
