"""Write and read surrogates: a row each, a row per term, and the evaluations they were fitted to. Terms are Arrow tables, as there can be 10^5."""

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.masks import Masks, Values, pack, unpack
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.points import Points
from raysp.spectral.sets import Floats, Sets
from raysp.spectral.tail import Tail
from raysp.spectral.tail_sum import TailSum
from raysp.store.packing import Table, from_binary

Cursor = duckdb.DuckDBPyConnection

TABLES = ("surrogates", "surrogate_terms", "surrogate_points", "surrogate_tails", "fitted_evaluations")
INSERT_FITTED = "INSERT INTO fitted_evaluations SELECT $run, position, evaluation_id FROM fitted WHERE evaluation_id > 0"
TERMS = """
SELECT components, set_order, coefficient, standard_error, factor
FROM surrogate_terms WHERE run_id = $run AND query IS NOT DISTINCT FROM $query ORDER BY term
"""
POINTS = "SELECT mask, residual, held_out, inclusion FROM surrogate_points WHERE run_id = $run AND query IS NOT DISTINCT FROM $query ORDER BY point"
TAILS = """
SELECT variance, reach, relevances, keep_probability, centres, weights
FROM surrogate_tails WHERE run_id = $run AND query IS NOT DISTINCT FROM $query ORDER BY tail
"""
FITTED = "SELECT e.mask, e.value FROM fitted_evaluations f JOIN measurements e USING (evaluation_id) WHERE f.run_id = $run ORDER BY f.position"


TAIL_SCHEMA = pa.schema(
    [
        ("tail", pa.int32()),
        ("variance", pa.float64()),
        ("reach", pa.float64()),
        ("relevances", pa.list_(pa.float64())),
        ("keep_probability", pa.float64()),
        ("centres", pa.binary()),
        ("weights", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True)
class RunSurrogates:
    """The surrogates of a run: that of its value, one per query, and P(keep) of the masks on which they are scored.

    `fitted` holds the masks (bool, `(m, n)`) that they were fitted to, all evaluated in the run's game.
    """

    value: FourierSurrogate
    keep_probability: float
    fitted: Masks
    queries: tuple[FourierSurrogate, ...] = ()


def replace(cur: Cursor, run_id: str, found: RunSurrogates | None, fitted: NDArray[np.int64]) -> None:
    """Replace a run's surrogates, within the caller's transaction. `fitted` are the evaluation ids (0: not stored) of the masks that they were fitted to."""
    for name in TABLES:
        cur.execute(f"DELETE FROM {name} WHERE run_id = ?", [run_id])  # noqa: S608  our own names
    if found is None:
        return
    for query, surrogate in [(None, found.value), *enumerate(found.queries)]:
        row = [run_id, query, len(surrogate), surrogate.sets.max_order, surrogate.keep_probability, found.keep_probability]
        cur.execute("INSERT INTO surrogates VALUES (?, ?, ?, ?, ?, ?)", row)
        cur.register("terms", terms(surrogate))
        cur.execute("INSERT INTO surrogate_terms BY NAME SELECT $run AS run_id, $query AS query, * FROM terms", {"run": run_id, "query": query})
        cur.unregister("terms")
        for name, rows in (("surrogate_points", points(surrogate)), ("surrogate_tails", tails(surrogate))):
            cur.register("parts", rows)
            cur.execute(f"INSERT INTO {name} BY NAME SELECT $run AS run_id, $query AS query, * FROM parts", {"run": run_id, "query": query})  # noqa: S608  our own names
            cur.unregister("parts")
    cur.register("fitted", pa.table({"evaluation_id": fitted, "position": np.arange(len(fitted), dtype=np.int32)}))
    cur.execute(INSERT_FITTED, {"run": run_id})
    cur.unregister("fitted")


def read(cur: Cursor, run_id: str, n: int, query: int | None) -> FourierSurrogate | None:
    """Return the surrogate of a run over `n` components, or of one of its queries; None if there is none."""
    key = {"run": run_id, "query": query}
    found = cur.execute("SELECT basis FROM surrogates WHERE run_id = $run AND query IS NOT DISTINCT FROM $query", key).fetchall()
    if not found:
        return None
    rows, written, sums = (cur.sql(query, params=key).to_arrow_table() for query in (TERMS, POINTS, TAILS))
    return of_parts(rows, written, sums, n, float(found[0][0]))


def of_parts(rows: Table, written: Table, sums: Table, n: int, basis: float) -> FourierSurrogate:
    """Return the surrogate over `n` components with these terms, in the basis of P(keep) `basis`, points and tails: rows as of `terms`, `points` and `tails`."""
    every = [
        TailSum(
            Tail(row["variance"], row["reach"], np.array(row["relevances"], dtype=np.float64), row["keep_probability"]),
            unpack(np.frombuffer(row["centres"], dtype=np.uint8).reshape(-1, -(-n // 8)), n),
            np.array(row["weights"], dtype=np.float64),
        )
        for row in sums.to_pylist()
    ]
    residual, held_out, inclusion = (written[name].to_numpy().astype(np.float64) for name in ("residual", "held_out", "inclusion"))
    values = Points(from_binary(written["mask"], n), residual, held_out, inclusion) if written.num_rows else None
    return FourierSurrogate(_sets(rows, n), rows["coefficient"].to_numpy(), _error(rows), basis, values, every)


def tails(surrogate: FourierSurrogate) -> Table:
    """Return the tails of a surrogate: tail, variance, reach, relevances, keep_probability, centres (the packed bits of all masks) and weights."""
    found = [
        {
            "tail": number,
            "variance": each.tail.variance,
            "reach": each.tail.reach,
            "relevances": each.tail.relevances.tolist(),
            "keep_probability": each.tail.keep_probability,
            "centres": pack(each.centres).tobytes(),
            "weights": each.weights.tolist(),
        }
        for number, each in enumerate(surrogate.tails)
    ]
    return pa.Table.from_pylist(found, schema=TAIL_SCHEMA)


def points(surrogate: FourierSurrogate) -> Table:
    """Return the points of a surrogate: point, mask (packed bits), residual, held_out (null where there is none) and inclusion."""
    nowhere = np.zeros((0, surrogate.n), dtype=np.bool_)
    written = surrogate.points or Points(nowhere, np.zeros(0), np.zeros(0), np.zeros(0))
    return pa.table(
        {
            "point": pa.array(np.arange(len(written), dtype=np.int32)),
            "mask": pa.array([row.tobytes() for row in pack(written.masks)], pa.binary()),
            "residual": pa.array(written.residuals),
            "held_out": pa.array(written.held_out, from_pandas=True),
            "inclusion": pa.array(written.inclusion),
        }
    )


def keep_probability(cur: Cursor, run_id: str) -> float | None:
    """Return P(keep) of the masks on which a run's surrogates are scored; None if it has no surrogate."""
    found = cur.execute("SELECT keep_probability FROM surrogates WHERE run_id = ? AND query IS NULL", [run_id]).fetchall()
    return float(found[0][0]) if found else None


def fitted_evaluations(cur: Cursor, run_id: str, n: int) -> tuple[Masks, Values]:
    """Return masks (bool, `(m, n)`) and values (float64, `(m,)`) that a run's surrogates were fitted to, in the order in which the explorer received them."""
    rows = cur.sql(FITTED, params={"run": run_id}).to_arrow_table()
    return from_binary(rows["mask"], n), rows["value"].to_numpy()


def terms(surrogate: FourierSurrogate) -> Table:
    """Return the terms of a surrogate: term, components, set_order, coefficient, standard_error and factor (null where there is none)."""
    error, count = surrogate.error, len(surrogate)
    factor = None if error is None or error.ndim == 1 else error
    errors = np.sqrt(np.einsum("ij,ij->i", factor, factor)) if factor is not None else error
    return pa.table(
        {
            "term": pa.array(np.arange(count, dtype=np.int32)),
            "components": surrogate.sets.to_arrow(np.arange(count)),
            "set_order": pa.array(surrogate.sets.orders),
            "coefficient": pa.array(surrogate.coefficients),
            "standard_error": pa.nulls(count, pa.float64()) if errors is None else pa.array(errors),
            "factor": pa.nulls(count, pa.list_(pa.float64())) if factor is None else _rows_of(factor),
        }
    )


def _rows_of(factor: Floats) -> Any:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(factor).reshape(-1)), factor.shape[1])
    return lists.cast(pa.list_(pa.float64()))


def _sets(rows: Table, n: int) -> Sets:
    """The sets of rows in the order of terms, which is that of `Sets`."""
    orders: NDArray[np.int32] = rows["set_order"].to_numpy()
    flat: NDArray[np.int32] = rows["components"].combine_chunks().flatten().to_numpy()
    counts = np.bincount(orders)
    ends = np.cumsum(counts * np.arange(len(counts)))
    return Sets(n, tuple(flat[end - count * k : end].reshape(count, k) for k, (count, end) in enumerate(zip(counts.tolist(), ends.tolist(), strict=True))))


def _error(rows: Table) -> Floats | None:
    if not rows.num_rows or rows["standard_error"].null_count:
        return None
    if rows["factor"].null_count:
        return rows["standard_error"].to_numpy()
    flat: Floats = rows["factor"].combine_chunks().flatten().to_numpy()
    return flat.reshape(rows.num_rows, -1)
