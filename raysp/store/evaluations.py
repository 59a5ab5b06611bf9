"""Read evaluations as Arrow batches."""

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.store.packing import Table, from_binary, to_binary, to_lists

Cursor = duckdb.DuckDBPyConnection
Ids = NDArray[np.int64]

FIND = "SELECT w.row, e.evaluation_id, e.value FROM wanted w JOIN evaluations e ON e.mask = w.mask WHERE e.game_id = $game"
OF_RUN = """
SELECT e.mask, e.value, q.phase, q.round, q.position, q.reused, f.position IS NOT NULL AS fitted, e.evaluation_id
FROM (
    SELECT b.phase, b.round, m.position, m.evaluation_id, false AS reused FROM measurements m JOIN batches b USING (batch_id) WHERE b.run_id = $run
    UNION ALL
    SELECT phase, round, position, evaluation_id, true FROM reuses WHERE run_id = $run
) q JOIN evaluations e USING (evaluation_id)
LEFT JOIN (FROM fitted_evaluations WHERE run_id = $run) f USING (evaluation_id)
WHERE e.game_id = $game AND ($phase IS NULL OR q.phase = $phase)
ORDER BY CASE q.phase WHEN 'calibrate' THEN 0 WHEN 'explore' THEN 1 WHEN 'validate' THEN 2 ELSE 3 END, q.phase, q.round, q.position
"""


def find(cur: Cursor, game_id: int, masks: Masks) -> tuple[Ids, Values]:
    """Return the evaluation ids (0: not stored) and values (NaN: not stored) of masks (bool, `(m, n)`), by a scan of the game's evaluations."""
    ids, values = np.zeros(len(masks), dtype=np.int64), np.full(len(masks), np.nan)
    if len(masks):
        cur.register("wanted", pa.table({"mask": to_binary(masks), "row": np.arange(len(masks))}))
        rows = cur.sql(FIND, params={"game": game_id}).to_arrow_table()
        cur.unregister("wanted")
        at = rows["row"].to_numpy()
        ids[at], values[at] = rows["evaluation_id"].to_numpy(), rows["value"].to_numpy()
    return ids, values


def pace(cur: Cursor, game_id: int) -> tuple[int, float]:
    """The number of evaluations of a game without slopes and the median of their seconds (NaN if there are none)."""
    query = "SELECT evaluations, seconds / evaluations AS each FROM batches WHERE game_id = $game AND NOT with_slopes ORDER BY each"
    batches = cur.sql(query, params={"game": game_id}).to_arrow_table()
    if not batches.num_rows:
        return 0, float("nan")
    upto = np.cumsum(batches["evaluations"].to_numpy())
    return int(upto[-1]), float(batches["each"][int(np.searchsorted(upto, upto[-1] / 2))].as_py())


def page(cur: Cursor, run_id: str, game_id: int, n: int, phase: str | None, *, offset: int, limit: int) -> tuple[Table, int]:
    """Some of a run's evaluations, as `of_run`, and how many there are."""
    given = {"run": run_id, "game": game_id, "phase": phase}
    total = cur.sql(f"SELECT count(*) FROM ({OF_RUN})", params=given).fetchall()[0][0]  # noqa: S608  our own query
    rows = cur.sql(f"{OF_RUN} LIMIT $limit OFFSET $offset", params={**given, "limit": limit, "offset": offset}).to_arrow_table()
    return rows.set_column(0, "mask", to_lists(from_binary(rows["mask"], n))), int(total)


def of_run(cur: Cursor, run_id: str, game_id: int, n: int, phase: str | None) -> Table:
    """A run's evaluations in the order requested: mask fixed-size list<bool>, value, phase, round, position, reused, fitted, evaluation_id."""
    rows = cur.sql(OF_RUN, params={"run": run_id, "game": game_id, "phase": phase}).to_arrow_table()
    return rows.set_column(0, "mask", to_lists(from_binary(rows["mask"], n)))
