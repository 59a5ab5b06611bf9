"""Which masks of a game are stored, in the memory of the process that writes: 16 bytes a mask, and no index in the file.

An index holds 64-bit hashes of masks beside the ids of their evaluations, as sorted runs that are merged as they grow, as in a log-structured merge tree. Equal
hashes only propose an evaluation; its mask is compared before it counts.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Cursor = duckdb.DuckDBPyConnection
Keys = NDArray[np.uint64]
Ids = NDArray[np.int64]

IDLE_SECONDS = 600.0
"""How long an index that nobody uses is kept."""
MERGE_RATIO = 2
"""A run is merged into the one before it unless that is more than this many times as long, so that there are O(log m) runs."""

HASHES = "SELECT hash(mask) AS hash FROM hashed"
OF_GAME = "SELECT hash(m.mask) AS hash, m.evaluation_id FROM measurements m JOIN batches b USING (batch_id) WHERE b.game_id = $game"
# The range lets DuckDB skip the row groups that hold none of them.
CONFIRMED = """
SELECT p.row, m.evaluation_id, m.value
FROM proposed p JOIN measurements m ON m.evaluation_id = p.evaluation_id AND m.mask = p.mask
WHERE m.evaluation_id BETWEEN $first AND $last
"""
REQUESTED = """
SELECT m.evaluation_id FROM measurements m JOIN batches b USING (batch_id) WHERE b.run_id = $run AND b.phase = $phase
UNION ALL
SELECT evaluation_id FROM reuses WHERE run_id = $run AND phase = $phase
"""


class SortedRuns:
    """A multimap from uint64 keys to int64 ids: sorted arrays, O(log m) of them, each looked up by binary search."""

    def __init__(self, keys: Keys, ids: Ids) -> None:
        self._runs: list[tuple[Keys, Ids]] = []
        self.add(keys, ids)

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def add(self, keys: Keys, ids: Ids) -> None:
        """Add keys with their ids."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        self._runs.append((keys[order], ids[order]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= MERGE_RATIO * len(self._runs[-1][0]):
            self._runs[-2:] = [_merged(self._runs[-2], self._runs[-1])]

    def find(self, keys: Keys) -> tuple[NDArray[np.intp], Ids]:
        """Return all pairs of a row of `keys` and an id under that key."""
        rows: list[NDArray[np.intp]] = [np.zeros(0, dtype=np.intp)]
        ids: list[Ids] = [np.zeros(0, dtype=np.int64)]
        for held, under in self._runs:
            first, last = np.searchsorted(held, keys, "left"), np.searchsorted(held, keys, "right")
            counts = last - first
            row = np.repeat(np.arange(len(keys)), counts)
            within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            rows.append(row)
            ids.append(under[first[row] + within])
        return np.concatenate(rows), np.concatenate(ids)

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        """Return for each key whether it is there."""
        found = np.zeros(len(keys), dtype=np.bool_)
        found[self.find(keys)[0]] = True
        return found


def _merged(one: tuple[Keys, Ids], other: tuple[Keys, Ids]) -> tuple[Keys, Ids]:
    keys, ids = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    order = np.argsort(keys, kind="stable")  # radix or tim sort: linear in two runs that are sorted already
    return keys[order], ids[order]


@dataclass(slots=True)
class _Kept:
    runs: SortedRuns
    used: float


class StoredMasks:
    """The indexes in use: of the masks of games, and of the evaluations that runs have requested in a phase. Each is built at first use and dropped when idle."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, _Kept] = {}
        self._lock = threading.Lock()

    def find(self, cur: Cursor, game_id: int, masks: Any, keys: Keys) -> tuple[Ids, NDArray[np.float64]]:
        """Return the ids (0: not stored) and values (NaN: not stored) of masks, an Arrow binary array, with their hashes."""
        with self._lock:
            rows, ids = self._of(game_id, lambda: _read(cur, OF_GAME, {"game": game_id})).find(keys)
        found, values = np.zeros(len(keys), dtype=np.int64), np.full(len(keys), np.nan)
        if len(rows):
            cur.register("proposed", pa.table({"row": rows, "evaluation_id": ids, "mask": masks.take(pa.array(rows))}))
            stored = cur.sql(CONFIRMED, params={"first": int(ids.min()), "last": int(ids.max())}).to_arrow_table()
            cur.unregister("proposed")
            at = stored["row"].to_numpy()
            found[at], values[at] = stored["evaluation_id"].to_numpy(), stored["value"].to_numpy()
        return found, values

    def requested(self, cur: Cursor, run_id: str, phase: str, ids: Ids) -> NDArray[np.bool_]:
        """Return for each evaluation whether a run has requested it in a phase."""
        with self._lock:
            return self._of((run_id, phase), lambda: _read(cur, REQUESTED, {"run": run_id, "phase": phase})).contains(ids.astype(np.uint64))

    def add(self, game_id: int, keys: Keys, ids: Ids) -> None:
        """Add masks that were stored since, by hash, to the index of their game, if there is one."""
        self._add(game_id, keys, ids)

    def add_requested(self, run_id: str, phase: str, ids: Ids) -> None:
        """Add evaluations that a run has requested since."""
        self._add((run_id, phase), ids.astype(np.uint64), ids)

    def forget(self) -> None:
        """Drop all indexes: evaluations have been removed."""
        with self._lock:
            self._kept.clear()

    def _add(self, key: Hashable, keys: Keys, ids: Ids) -> None:
        with self._lock:
            if key in self._kept:
                self._kept[key].runs.add(keys, ids)

    def _of(self, key: Hashable, build: Callable[[], SortedRuns]) -> SortedRuns:
        now = self._clock()
        for idle in [other for other, kept in self._kept.items() if now - kept.used > IDLE_SECONDS]:
            del self._kept[idle]
        if key not in self._kept:
            self._kept[key] = _Kept(build(), now)
        kept = self._kept[key]
        kept.used = now
        return kept.runs


def hashes(cur: Cursor, masks: Any) -> Keys:
    """Return the hashes of masks, an Arrow binary array: DuckDB's own, so that those of stored masks need not leave it."""
    cur.register("hashed", pa.table({"mask": masks}))
    found = cur.sql(HASHES).to_arrow_table()["hash"].to_numpy()
    cur.unregister("hashed")
    return found


def _read(cur: Cursor, query: str, params: dict[str, Any]) -> SortedRuns:
    rows = cur.sql(query, params=params).to_arrow_table()
    ids = rows["evaluation_id"].to_numpy()
    return SortedRuns(rows["hash"].to_numpy() if "hash" in rows.column_names else ids.astype(np.uint64), ids)
