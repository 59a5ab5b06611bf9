"""Queries and examples of a training set, and the outputs of each evaluation, one per query. Tables are Arrow, as there can be 10^5 examples."""

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.game import Example, GameInfo, Query
from raysp.masks import Masks
from raysp.store.packing import Table, to_binary

Cursor = duckdb.DuckDBPyConnection
Outputs = NDArray[np.float64]

# Only for evaluations of this batch: if another run stored one first, its outputs are kept.
INSERT_OUTPUTS = "INSERT INTO outputs SELECT b.evaluation_id, b.outputs FROM answered b SEMI JOIN evaluations e ON e.evaluation_id = b.evaluation_id"
OUTPUTS = """
SELECT b.position, o.outputs
FROM batch b JOIN evaluations e ON e.mask = b.mask JOIN outputs o ON o.evaluation_id = e.evaluation_id
WHERE e.game_id = $game
"""
OUTPUTS_BY_ID = "SELECT b.position, o.outputs FROM batch b JOIN outputs o ON o.evaluation_id = b.evaluation_id"


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


def insert_outputs(cur: Cursor, first_id: int, outputs: Outputs) -> None:
    """Insert outputs (float64, `(m, q)`) of those evaluations with ids from `first_id` that are stored, within the caller's transaction."""
    m, q = outputs.shape
    ids = np.arange(first_id, first_id + m, dtype=np.int64)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(outputs).reshape(-1)), q)
    cur.register("answered", pa.table({"evaluation_id": ids, "outputs": lists.cast(pa.list_(pa.float64()))}))
    cur.execute(INSERT_OUTPUTS)
    cur.unregister("answered")


def outputs_of(cur: Cursor, game_id: int, masks: Masks) -> Outputs:
    """Return the stored outputs (float64 `(m, q)`) of masks (bool `(m, n)`), NaN if a mask has none."""
    positions = np.arange(len(masks), dtype=np.int32)
    batch = pa.table({"mask": to_binary(masks), "position": positions})
    return _placed(cur, game_id, batch, OUTPUTS)


def outputs_by_id(cur: Cursor, game_id: int, evaluation_ids: NDArray[np.int64]) -> Outputs:
    """Return the stored outputs (float64 `(m, q)`) of evaluations, in their order, NaN if one has none."""
    positions = np.arange(len(evaluation_ids), dtype=np.int32)
    return _placed(cur, game_id, pa.table({"evaluation_id": evaluation_ids, "position": positions}), OUTPUTS_BY_ID)


def _placed(cur: Cursor, game_id: int, batch: Table, query: str) -> Outputs:
    count = int(cur.execute("SELECT count(*) FROM queries WHERE game_id = ?", [game_id]).fetchall()[0][0])
    found = np.full((batch.num_rows, count), np.nan)
    if not found.size:
        return found
    cur.register("batch", batch)
    rows = cur.sql(query, params={"game": game_id} if "$game" in query else None).to_arrow_table()
    if rows.num_rows:
        found[rows["position"].to_numpy()] = rows["outputs"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, count)
    return found
