"""Slopes of evaluations, and their price in a game: the derivative of each output in the gate of each component, float32, for evaluations measured with them."""

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.store.mask_index import Ids

Cursor = duckdb.DuckDBPyConnection
Slopes = NDArray[np.float32]

# The range lets DuckDB skip the row groups that hold none of them.
STORED = "SELECT w.row, s.slopes FROM wanted w JOIN slopes s ON s.evaluation_id = w.evaluation_id WHERE s.evaluation_id BETWEEN $first AND $last"
WITH_SLOPES = "SELECT w.row FROM wanted w SEMI JOIN (FROM slopes WHERE evaluation_id BETWEEN $first AND $last) s ON s.evaluation_id = w.evaluation_id"


def rows_of(ids: Ids, slopes: Slopes) -> Any:
    """Rows of the table: the ids of evaluations and their slopes, float32 `(m, queries, n)`."""
    m, queries, n = slopes.shape
    inner = pa.ListArray.from_arrays(np.arange(0, slopes.size + 1, n, dtype=np.int32), pa.array(np.ascontiguousarray(slopes).reshape(-1)))
    outer = pa.ListArray.from_arrays(np.arange(0, m * queries + 1, queries, dtype=np.int32), inner)
    return pa.table({"evaluation_id": ids, "slopes": outer})


def slopes_of(cur: Cursor, ids: Ids, queries: int, n: int) -> Slopes:
    """The slopes (float32 `(m, queries, n)`) of evaluations, in their order, NaN where there are none."""
    found = np.full((len(ids), queries, n), np.nan, dtype=np.float32)
    rows = _among(cur, STORED, ids)
    if rows is not None and rows.num_rows:
        found[rows["row"].to_numpy()] = rows["slopes"].combine_chunks().flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, queries, n)
    return found


def have_slopes(cur: Cursor, ids: Ids) -> NDArray[np.bool_]:
    """Whether each evaluation has slopes, bool `(m,)`."""
    found = np.zeros(len(ids), dtype=np.bool_)
    rows = _among(cur, WITH_SLOPES, ids)
    if rows is not None:
        found[rows["row"].to_numpy()] = True
    return found


def price_of(cur: Cursor, fingerprint: str) -> float | None:
    """The price of an evaluation with slopes in evaluations without, None if it was never measured."""
    found = cur.execute("SELECT slope_price FROM games WHERE fingerprint = ?", [fingerprint]).fetchall()
    return None if not found or found[0][0] is None else float(found[0][0])


def set_price(cur: Cursor, game_id: int, price: float) -> None:
    """Store the price in a game, unless it has one."""
    cur.execute("UPDATE games SET slope_price = ? WHERE game_id = ? AND slope_price IS NULL", [price, game_id])


def _among(cur: Cursor, query: str, ids: Ids) -> Any:
    if not len(ids):
        return None
    cur.register("wanted", pa.table({"evaluation_id": ids, "row": np.arange(len(ids))}))
    rows = cur.sql(query, params={"first": int(ids.min()), "last": int(ids.max())}).to_arrow_table()
    cur.unregister("wanted")
    return rows
