"""Write and read the gradient reports of games."""

from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa

from raysp.gradients import GradientReport, PairTerms

Cursor = duckdb.DuckDBPyConnection


def report_of(cur: Cursor, fingerprint: str) -> GradientReport | None:
    """The gradient report stored for the game with this fingerprint, None if there is none."""
    found = cur.execute(
        "SELECT r.game_id, r.leading_method, r.intact, r.priors, r.max_order, r.pair_singles, r.notes, r.seconds"
        " FROM gradient_reports r JOIN games g USING (game_id) WHERE g.fingerprint = ?",
        [fingerprint],
    ).fetchall()
    if not found:
        return None
    game_id, leading, intact, priors, max_order, pair_singles, notes, seconds = found[0]
    rows = cur.execute("SELECT method, signed, effects FROM gradient_effects WHERE game_id = ? ORDER BY rowid", [game_id]).fetchall()
    effects: dict[str, list[list[float]]] = {}
    for method, _, values in rows:
        effects.setdefault(method, []).append(values)
    return GradientReport(
        effects={method: np.array(values, dtype=np.float64) for method, values in effects.items()},
        unsigned=frozenset(method for method, signed, _ in rows if not signed),
        leading=leading,
        intact=intact,
        priors=tuple(priors),
        pairs=None if pair_singles is None else _pairs(cur, game_id, pair_singles),
        max_order=max_order,
        notes=tuple(notes),
        seconds=seconds,
    )


def replace_report(cur: Cursor, game_id: int, report: GradientReport, now: datetime) -> None:
    """Store a game's gradient report, replacing an earlier one, within the caller's transaction."""
    for table in ("gradient_reports", "gradient_effects", "gradient_pairs"):
        cur.execute(f"DELETE FROM {table} WHERE game_id = ?", [game_id])  # noqa: S608  our own names
    pairs = report.pairs
    row = [game_id, report.leading, report.intact, list(report.priors), report.max_order, None if pairs is None else pairs.singles.tolist()]
    cur.execute("INSERT INTO gradient_reports VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [*row, list(report.notes), report.seconds, now])
    effects = [(method, query, values.tolist()) for method, rows in report.effects.items() for query, values in enumerate(rows)]
    columns = {
        "game_id": pa.array([game_id] * len(effects), pa.int32()),
        "method": pa.array([method for method, _, _ in effects], pa.string()),
        "signed": pa.array([method not in report.unsigned for method, _, _ in effects], pa.bool_()),
        "query": pa.array([query for _, query, _ in effects], pa.int32()),
        "effects": pa.array([values for _, _, values in effects], pa.list_(pa.float64())),
    }
    _insert(cur, "gradient_effects", columns)
    if pairs is not None:
        columns = {
            "game_id": pa.array([game_id] * len(pairs.deviations), pa.int32()),
            "components": pa.array(pairs.components.tolist(), pa.list_(pa.int32())),
            "deviation": pa.array(pairs.deviations, pa.float64()),
        }
        _insert(cur, "gradient_pairs", columns)


def _pairs(cur: Cursor, game_id: int, singles: list[float]) -> PairTerms:
    rows = cur.execute("SELECT components, deviation FROM gradient_pairs WHERE game_id = ? ORDER BY rowid", [game_id]).fetchall()
    components = np.array([members for members, _ in rows], dtype=np.int64).reshape(len(rows), 2)
    return PairTerms(components, np.array([deviation for _, deviation in rows], dtype=np.float64), np.array(singles, dtype=np.float64))


def _insert(cur: Cursor, name: str, columns: dict[str, pa.Array]) -> None:
    table = pa.table(columns)
    if table.num_rows:
        cur.register("gradient_rows", table)
        cur.execute(f"INSERT INTO {name} BY NAME SELECT * FROM gradient_rows")  # noqa: S608  our own names
        cur.unregister("gradient_rows")
