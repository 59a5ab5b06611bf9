"""Queries and examples of a training set, and the outputs of each evaluation, one per query. Tables are Arrow, as there can be 10^5 examples."""

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.game import Example, GameInfo, Query
from raysp.store.packing import Table

Cursor = duckdb.DuckDBPyConnection
Outputs = NDArray[np.float64]

OUTPUTS = """
SELECT w.row, o.outputs FROM wanted w JOIN outputs o ON o.evaluation_id = w.evaluation_id WHERE o.evaluation_id BETWEEN $first AND $last
"""


def insert_texts(cur: Cursor, game_id: int, info: GameInfo) -> None:
    """Insert a game's components, queries and examples, within the caller's transaction."""
    parts, queries, examples = info.components, info.queries, info.examples
    components = pa.table(
        {
            "game_id": _game_ids(game_id, len(parts)),
            "component": pa.array([c.index for c in parts], pa.int32()),
            "label": pa.array([c.label for c in parts], pa.string()),
            "kind": pa.array([c.kind for c in parts], pa.string()),
            **{name: pa.array([getattr(c, name) for c in parts], pa.int32()) for name in ("start", "stop", "size", "layer", "unit")},
        }
    )
    asked = pa.table(
        {
            "game_id": _game_ids(game_id, len(queries)),
            "query": pa.array([q.index for q in queries], pa.int32()),
            **{name: pa.array([getattr(q, name) for q in queries], pa.string()) for name in ("label", "prompt", "target", "foil")},
        }
    )
    trained = pa.table(
        {
            "game_id": _game_ids(game_id, len(examples)),
            "example": pa.array([e.index for e in examples], pa.int32()),
            "component": pa.array([e.component for e in examples], pa.int32()),
            "prompt": pa.array([e.prompt for e in examples], pa.string()),
            "completion": pa.array([e.completion for e in examples], pa.string()),
        }
    )
    for name, rows in (("components", components), ("queries", asked), ("examples", trained)):
        if rows.num_rows:
            cur.register("rows", rows)
            cur.execute(f"INSERT INTO {name} BY NAME SELECT * FROM rows")  # noqa: S608  our own names
            cur.unregister("rows")


def _game_ids(game_id: int, count: int) -> Table:
    return pa.array(np.full(count, game_id, dtype=np.int32))


def queries(cur: Cursor, game_id: int) -> tuple[Query, ...]:
    """Return a game's queries, in the order of an output's columns."""
    rows = cur.execute("SELECT query, label, prompt, target, foil FROM queries WHERE game_id = ? ORDER BY query", [game_id])
    return tuple(Query(*row) for row in rows.fetchall())


def examples(cur: Cursor, game_id: int) -> tuple[Example, ...]:
    """Return a game's examples, in the order of the training set."""
    rows = cur.execute("SELECT example, component, prompt, completion FROM examples WHERE game_id = ? ORDER BY example", [game_id])
    return tuple(Example(*row) for row in rows.fetchall())


def outputs_of(cur: Cursor, game_id: int, evaluation_ids: NDArray[np.int64]) -> Outputs:
    """Return the stored outputs (float64 `(m, q)`) of evaluations of a game, in their order, NaN if one has none."""
    count = int(cur.execute("SELECT count(*) FROM queries WHERE game_id = ?", [game_id]).fetchall()[0][0])
    found = np.full((len(evaluation_ids), count), np.nan)
    if not found.size:
        return found
    cur.register("wanted", pa.table({"evaluation_id": evaluation_ids, "row": np.arange(len(evaluation_ids))}))
    rows = cur.sql(OUTPUTS, params={"first": int(evaluation_ids.min()), "last": int(evaluation_ids.max())}).to_arrow_table()
    cur.unregister("wanted")
    if rows.num_rows:
        found[rows["row"].to_numpy()] = rows["outputs"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, count)
    return found
