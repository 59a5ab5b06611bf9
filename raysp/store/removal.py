"""Remove runs and what only they used, and give the space back to the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from raysp.home import make_private
from raysp.store.connection import connect_patiently
from raysp.store.failures import explaining
from raysp.store.snapshots import remove_snapshots

Cursor = duckdb.DuckDBPyConnection

Parameters = dict[str, Any]

# Tables of evaluations, which other runs may use too, and of what is kept once for a game.
SHARED = ("batches",)
# Tables with a row for each evaluation, or for some.
EVALUATED = ("slopes", "outputs", "measurements")
# A row of what somebody else than a run paid for, such as a plan. What happened to no run in particular has no id.
NO_RUN = "run_id NOT IN (SELECT run_id FROM runs)"
# A batch whose payer is no run, or one that was removed.
NOBODY = "(b.run_id IS NULL OR b.run_id NOT IN (SELECT run_id FROM runs))"
SPARED = """
CREATE OR REPLACE TEMP TABLE spared_games AS SELECT game_id FROM games WHERE list_contains($games, fingerprint)
"""
# A game without a run of its own, such as the same training set under another training seed, goes with the last evaluations of it.
PREPARE = """
CREATE OR REPLACE TEMP TABLE left_games AS
SELECT DISTINCT game_id FROM runs WHERE run_id IN (SELECT unnest($runs)) AND game_id IS NOT NULL
  AND game_id NOT IN (SELECT game_id FROM runs WHERE run_id NOT IN (SELECT unnest($runs)) AND game_id IS NOT NULL);
"""
DOOMED = f"""
CREATE OR REPLACE TEMP TABLE doomed AS
SELECT m.evaluation_id, m.batch_id FROM measurements m JOIN batches b USING (batch_id)
WHERE (b.run_id IN (SELECT unnest($runs)) OR b.run_id IS NULL OR b.game_id IN (FROM left_games) OR ($unused AND {NOBODY}))
  AND b.game_id NOT IN (FROM spared_games)
  AND m.evaluation_id NOT IN (SELECT evaluation_id FROM reuses WHERE run_id NOT IN (SELECT unnest($runs)))
  AND m.evaluation_id NOT IN (SELECT evaluation_id FROM fitted_evaluations WHERE run_id NOT IN (SELECT unnest($runs)))
"""  # noqa: S608  our own words
LEFT = """
CREATE OR REPLACE TEMP TABLE left_batches AS
SELECT b.batch_id, b.game_id, b.evaluations AS before, b.evaluations - count(*) AS after
FROM doomed d JOIN batches b USING (batch_id) GROUP BY b.batch_id, b.game_id, b.evaluations
"""
SHRINK = """
UPDATE batches SET evaluations = l.after, tokens = tokens * l.after / l.before, seconds = seconds * l.after / l.before
FROM left_batches l WHERE batches.batch_id = l.batch_id AND l.after > 0
"""
BLOBS = """
DELETE FROM blobs
WHERE ($unused OR hash IN (SELECT hash FROM blobs b JOIN runs r ON contains(r.spec, b.hash) WHERE r.run_id IN (SELECT unnest($runs))))
  AND hash NOT IN (SELECT hash FROM blobs b JOIN runs r ON contains(r.spec, b.hash) WHERE r.run_id NOT IN (SELECT unnest($runs)))
  AND NOT list_contains($files, hash)
"""
GAMES = """
CREATE OR REPLACE TEMP TABLE gone_games AS
SELECT game_id, fingerprint FROM games
WHERE ($unused OR game_id IN (SELECT game_id FROM left_games UNION SELECT game_id FROM left_batches)) AND game_id NOT IN (FROM spared_games)
  AND game_id NOT IN (SELECT game_id FROM batches) AND game_id NOT IN (SELECT game_id FROM runs WHERE game_id IS NOT NULL)
"""
UNUSED = f"""
SELECT count(*) FROM measurements m JOIN batches b USING (batch_id)
WHERE {NOBODY} AND m.evaluation_id NOT IN (SELECT evaluation_id FROM reuses) AND m.evaluation_id NOT IN (SELECT evaluation_id FROM fitted_evaluations)
"""  # noqa: S608  our own words


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal takes from the store, or would take."""

    runs: tuple[str, ...]
    evaluations: int
    kept: int
    """Evaluations that these runs paid for, and that others use."""
    games: int
    rows: int
    """Rows of all tables."""
    unused: int
    """Evaluations that stay though no run in the store paid for them or requested them: those of plans and of searches for a recipe."""


@dataclass(frozen=True, slots=True)
class Spared:
    """What a removal leaves because somebody is using it now: games with their evaluations, by fingerprint, and files, by hash."""

    games: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()


NOTHING = Spared()


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What was removed from a store, and its size in bytes before and after it was written anew; None if it was not."""

    store: str
    removal: Removal
    sizes: tuple[int, int] | None = None


def remove_runs(cur: Cursor, run_ids: Sequence[str], *, unused: bool, spared: Spared) -> Removal:
    """Remove runs with what only they used, and with `unused` what no run uses, within the caller's transaction."""
    runs: Parameters = {"runs": list(run_ids)}
    either: Parameters = {"unused": unused}
    cur.execute(SPARED, {"games": list(spared.games)})
    cur.execute(PREPARE, runs)
    cur.execute(DOOMED, runs | either)
    cur.execute(LEFT)
    evaluations = _count(cur, "SELECT count(*) FROM doomed")
    rows = sum(_deleted(cur, f"DELETE FROM {table} WHERE evaluation_id IN (SELECT evaluation_id FROM doomed)") for table in EVALUATED)  # noqa: S608  our own names
    rows += _deleted(cur, "DELETE FROM batches WHERE batch_id IN (SELECT batch_id FROM left_batches WHERE after = 0)")
    cur.execute(SHRINK)
    kept = _count(cur, "SELECT coalesce(sum(evaluations), 0) FROM batches WHERE run_id IN (SELECT unnest($runs))", runs)
    rows += _deleted(cur, BLOBS, runs | either | {"files": list(spared.files)})
    cur.execute("UPDATE batches SET run_id = NULL WHERE run_id IN (SELECT unnest($runs))", runs)
    gone = "run_id IN (SELECT unnest($runs))"
    rows += sum(_deleted(cur, f"DELETE FROM {table} WHERE {gone}", runs) for table in _tables_with(cur, "run_id", SHARED))  # noqa: S608  names from the catalogue
    if unused:
        rows += sum(_deleted(cur, f"DELETE FROM {table} WHERE {NO_RUN}") for table in _tables_with(cur, "run_id", SHARED))  # noqa: S608
    cur.execute(GAMES, either)
    games = _count(cur, "SELECT count(*) FROM gone_games")
    for key in ("game_id", "fingerprint"):
        for table in _tables_with(cur, key, ("batches", "runs", "games")):
            rows += _deleted(cur, f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM gone_games)")  # noqa: S608
    rows += _deleted(cur, "DELETE FROM games WHERE game_id IN (SELECT game_id FROM gone_games)")
    left = _count(cur, UNUSED)
    for name in ("spared_games", "left_games", "doomed", "left_batches", "gone_games"):
        cur.execute(f"DROP TABLE {name}")
    return Removal(tuple(run_ids), evaluations, kept, games, rows, left)


def compact(path: Path) -> tuple[int, int]:
    """Write the store anew without the space of what was removed, and put it in place in one step. Returns its size in bytes before and after.

    The store must not be open. Raises UserError if another process has it open, or if the disk is full.
    """
    draft = path.with_name(f"{path.stem}.compact.duckdb")
    with explaining(path):
        before = path.stat().st_size
        con = connect_patiently(path)
        try:
            draft.unlink(missing_ok=True)
            source = str(con.execute("SELECT current_database()").fetchall()[0][0]).replace('"', '""')
            con.execute("CHECKPOINT")
            con.execute(f"ATTACH '{str(draft).replace(chr(39), chr(39) * 2)}' AS compacted")
            make_private(draft)
            con.execute(f'COPY FROM DATABASE "{source}" TO compacted')
            con.execute("DETACH compacted")
            draft.replace(path)
            remove_snapshots(path)
        finally:
            con.close()
            for end in ("", ".wal"):
                draft.with_name(f"{draft.name}{end}").unlink(missing_ok=True)
        return before, path.stat().st_size


def _tables_with(cur: Cursor, column: str, without: Sequence[str]) -> list[str]:
    """The tables that have a column, but for some."""
    query = "SELECT c.table_name FROM duckdb_columns() c JOIN duckdb_tables() t USING (table_oid, database_name) WHERE c.column_name = ? AND NOT t.temporary"
    return [str(name) for (name,) in cur.execute(query, [column]).fetchall() if name not in without]


def _count(cur: Cursor, query: str, params: Parameters | None = None) -> int:
    return int(cur.execute(query, params).fetchall()[0][0])


def _deleted(cur: Cursor, statement: str, params: Parameters | None = None) -> int:
    return int(cur.execute(statement, params).fetchall()[0][0])
