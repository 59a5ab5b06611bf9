"""Games and runs as rows: inserted, updated, and found by id or name."""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from raysp.errors import UserError
from raysp.game import Component, GameInfo
from raysp.store.answers import JSON_COLUMNS, reasons_of
from raysp.store.training_sets import insert_texts

Cursor = duckdb.DuckDBPyConnection


def find(cur: Cursor, fingerprint: str) -> int | None:
    """Return the id of the game with this fingerprint, or None."""
    found = cur.execute("SELECT game_id FROM games WHERE fingerprint = ?", [fingerprint]).fetchall()
    return int(found[0][0]) if found else None


def size(cur: Cursor, game_id: int) -> int:
    """The number of a game's components; ValueError if there is no such game."""
    found = cur.execute("SELECT n FROM games WHERE game_id = ?", [game_id]).fetchall()
    if not found:
        raise ValueError(f"no game {game_id}: register_game comes first")
    return int(found[0][0])


def components(cur: Cursor, game_id: int) -> tuple[Component, ...]:
    """Return a game's components in the order of the masks' columns."""
    rows = cur.execute("SELECT component, label, kind, start, stop, size, layer, unit FROM components WHERE game_id = ? ORDER BY component", [game_id])
    return tuple(Component(*row) for row in rows.fetchall())


def run_row(cur: Cursor, run_id: str) -> dict[str, Any]:
    """A run's row, JSON columns decoded, with `reasons_of` under `reasons` and its game's row (None before it has begun) under `game`. ValueError if there is no such run."""
    run = _one(cur, "SELECT * FROM runs WHERE run_id = ?", run_id)
    if run is None:
        raise ValueError(f"no run {run_id}")
    game = _one(cur, "SELECT * FROM games WHERE game_id = ?", run["game_id"])
    described = game and game | {"description": json.loads(game["description"])}
    decoded = {key: json.loads(value) if key in JSON_COLUMNS and value else value for key, value in run.items()}
    return decoded | {"reasons": reasons_of(cur, run_id), "game": described}


def find_run(cur: Cursor, wanted: str) -> str:
    """Return the id of the run that `wanted` refers to. Raises UserError if there is none or more than one."""
    rows = cur.execute("SELECT run_id, name FROM runs ORDER BY started DESC, run_id").fetchall()
    if not rows:
        raise UserError("run", wanted, "is unknown: the store has no runs", "make one first, or name another file with --store")
    return str(rows[0][0]) if wanted == "last" else match_run(wanted, rows)


def match_run(wanted: str, rows: Sequence[tuple[str, str | None]]) -> str:
    """Return the id among these ids and names, the newest first, that `wanted` refers to. Raises UserError if there is none or more than one."""
    exact = [run_id for run_id, name in rows if wanted in (run_id, name)]
    if exact:
        return exact[0]
    begun = [run_id for run_id, _ in rows if wanted and run_id.startswith(wanted)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise UserError("run", wanted, f"matches {len(begun)} runs", f"name one of them: {', '.join(begun[:5])}")
    all_names = [text for row in rows for text in row if text]
    near = difflib.get_close_matches(wanted, all_names, n=3, cutoff=0.4) or [rows[0][0]]
    raise UserError("run", wanted, "is unknown", f"nearest: {', '.join(near)}; `raysp runs` lists all")


def insert_run(cur: Cursor, row: Mapping[str, Any]) -> None:
    """Insert a run's row, replacing one with that id and its costs and events, within the caller's transaction."""
    for name in ("runs", "extra_costs", "events"):
        cur.execute(f"DELETE FROM {name} WHERE run_id = ?", [row["run_id"]])  # noqa: S608  our own names
    cur.execute(f"INSERT INTO runs ({', '.join(row)}) VALUES ({', '.join('$' + key for key in row)})", dict(row))  # noqa: S608  our own names


def continue_run(cur: Cursor, row: Mapping[str, Any]) -> None:
    """Update a run's row for another attempt: the columns that describe the question are replaced, its start is kept, and so are its names unless new ones are given."""
    kept = {"name": "coalesce($name, name)", "set_name": "coalesce($set_name, set_name)"}
    changes = [f"{key} = {kept.get(key, '$' + key)}" for key in row if key not in ("run_id", "started")]
    values = {key: value for key, value in row.items() if key != "started"}
    cur.execute(f"UPDATE runs SET {', '.join(changes)}, finished = NULL, error = NULL WHERE run_id = $run_id", values)  # noqa: S608  our own names


def insert(cur: Cursor, info: GameInfo) -> int:
    """Insert a game with its components, queries and examples, within the caller's transaction. Returns its id."""
    game_id = int(cur.execute("SELECT coalesce(max(game_id), 0) + 1 FROM games").fetchall()[0][0])
    described = json.dumps(info.description, sort_keys=True, ensure_ascii=False, default=str)
    cur.execute("INSERT INTO games VALUES (?, ?, ?, ?, ?, ?, NULL)", [game_id, info.fingerprint, info.n, described, info.source, list(info.notes)])
    insert_texts(cur, game_id, info)
    return game_id


def _one(cur: Cursor, query: str, key: Any) -> dict[str, Any] | None:
    found = cur.execute(query, [key])
    names = [column[0] for column in found.description or []]
    rows = found.fetchall()
    return dict(zip(names, rows[0], strict=True)) if rows else None
