"""Write and read evaluations as Arrow batches, in one statement unless some are stored already."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.store.packing import Table, from_binary, to_binary, to_lists

Cursor = duckdb.DuckDBPyConnection

INSERT = """
INSERT INTO evaluations BY NAME
SELECT evaluation_id, $game AS game_id, mask, value, $run AS run_id, $phase AS phase, $round AS round, position,
       $tokens AS tokens, $seconds AS seconds, $now AS created FROM batch
"""
INSERT_NEW = (
    INSERT
    + """
WHERE NOT EXISTS (FROM evaluations e WHERE e.game_id = $game AND e.mask = batch.mask)
QUALIFY row_number() OVER (PARTITION BY mask ORDER BY position) = 1
"""
)
# A mask that a run requests again in the same phase (after a resume, or because a batch was delivered twice) adds no row.
INSERT_REUSES = """
INSERT INTO reuses
SELECT $run, $phase, $round, min(b.position), e.evaluation_id
FROM batch b JOIN evaluations e ON e.mask = b.mask
WHERE e.game_id = $game AND NOT EXISTS (FROM requests r WHERE r.run_id = $run AND r.phase = $phase AND r.evaluation_id = e.evaluation_id)
GROUP BY e.evaluation_id
"""
KNOWN = "SELECT b.position, e.value FROM batch b JOIN evaluations e ON e.mask = b.mask WHERE e.game_id = $game"
OF_RUN = """
SELECT e.mask, e.value, q.phase, q.round, q.position, q.reused, f.position IS NOT NULL AS fitted, e.evaluation_id
FROM (
    SELECT phase, round, position, evaluation_id, false AS reused FROM evaluations WHERE run_id = $run
    UNION ALL
    SELECT phase, round, position, evaluation_id, true FROM reuses WHERE run_id = $run
) q JOIN evaluations e USING (evaluation_id)
LEFT JOIN (FROM fitted_evaluations WHERE run_id = $run) f USING (evaluation_id)
WHERE e.game_id = $game AND ($phase IS NULL OR q.phase = $phase)
ORDER BY CASE q.phase WHEN 'calibrate' THEN 0 WHEN 'explore' THEN 1 WHEN 'validate' THEN 2 ELSE 3 END, q.phase, q.round, q.position
"""


@dataclass(frozen=True)
class Batch:
    """Masks (bool, `(m, n)`) that a run requested, with their positions (int32, `(m,)`) in the round."""

    run_id: str
    game_id: int
    phase: str
    round: int
    masks: Masks
    positions: NDArray[np.int32]

    def keys(self) -> dict[str, Any]:
        """The parameters that identify the batch in SQL."""
        return {"run": self.run_id, "phase": self.phase, "round": self.round, "game": self.game_id}


@dataclass(frozen=True)
class Cost:
    """The cost of a whole batch, in model tokens and seconds of model time, and when it was paid (UTC)."""

    tokens: float
    seconds: float
    at: datetime


def insert(cur: Cursor, batch: Batch, values: Values, first_id: int, cost: Cost) -> None:
    """Insert new evaluations with ids from `first_id` in one statement. Raises duckdb.ConstraintException if one is stored already."""
    _register(cur, batch, values, first_id)
    cur.execute(INSERT, _shares(batch, cost))


def insert_new(cur: Cursor, batch: Batch, values: Values, first_id: int, cost: Cost) -> int:
    """Insert the new evaluations, record the others as reused and their cost as extra, within the caller's transaction. Returns the number of new ones."""
    _register(cur, batch, values, first_id)
    new = int(cur.execute(INSERT_NEW, _shares(batch, cost)).fetchall()[0][0])
    cur.execute(INSERT_REUSES, batch.keys())
    wasted = len(batch.masks) - new
    share = wasted / len(batch.masks)
    cur.execute("INSERT INTO extra_costs VALUES (?, ?, ?, ?, ?, 0)", [batch.run_id, batch.phase, wasted, cost.tokens * share, cost.seconds * share])
    return new


def insert_reused(cur: Cursor, batch: Batch) -> None:
    """Record that a run requested evaluations that the store already has."""
    _register(cur, batch, np.zeros(len(batch.masks)), 0)
    cur.execute(INSERT_REUSES, batch.keys())


def known(cur: Cursor, game_id: int, masks: Masks) -> Values:
    """Return the stored values (float64, `(m,)`) of masks (bool, `(m, n)`), NaN if a mask has none."""
    found = np.full(len(masks), np.nan)
    if not len(masks):
        return found
    cur.register("batch", pa.table({"mask": to_binary(masks), "position": np.arange(len(masks), dtype=np.int32)}))
    rows = cur.sql(KNOWN, params={"game": game_id}).to_arrow_table()
    found[rows["position"].to_numpy()] = rows["value"].to_numpy()
    return found


def pace(cur: Cursor, game_id: int) -> tuple[int, float]:
    """The number of evaluations of a game and the median of their seconds (NaN if there are none)."""
    count, seconds = cur.execute("SELECT count(*), median(seconds) FROM evaluations WHERE game_id = ?", [game_id]).fetchall()[0]
    return int(count), float("nan") if seconds is None else float(seconds)


def of_run(cur: Cursor, run_id: str, game_id: int, n: int, phase: str | None) -> Table:
    """A run's evaluations in the order requested: mask fixed-size list<bool>, value, phase, round, position, reused, fitted, evaluation_id."""
    rows = cur.sql(OF_RUN, params={"run": run_id, "game": game_id, "phase": phase}).to_arrow_table()
    return rows.set_column(0, "mask", to_lists(from_binary(rows["mask"], n)))


def _register(cur: Cursor, batch: Batch, values: Values, first_id: int) -> None:
    ids = np.arange(first_id, first_id + len(batch.masks), dtype=np.int64)
    columns = {"evaluation_id": ids, "mask": to_binary(batch.masks), "value": values, "position": batch.positions}
    cur.register("batch", pa.table(columns))


def _shares(batch: Batch, cost: Cost) -> dict[str, Any]:
    m = len(batch.masks)
    return batch.keys() | {"tokens": cost.tokens / m, "seconds": cost.seconds / m, "now": cost.at}
