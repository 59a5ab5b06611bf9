"""Store the evaluations of many batches in one transaction, each mask of a game once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.masks import Masks, Values, pack
from raysp.store.mask_index import Ids, Keys, StoredMasks, hashes
from raysp.store.packing import packed_to_binary, to_binary
from raysp.store.slopes import have_slopes, rows_of

Cursor = duckdb.DuckDBPyConnection


@dataclass(frozen=True, slots=True, eq=False)
class Addition:
    """A batch that a run requested: masks (bool, `(m, n)`) with values (float64, `(m,)`) that it paid for, or without values, masks that the store already has.

    `positions` (int32, `(m,)`) are those in the round, 0 to m - 1 by default; tokens and seconds are of the whole batch; `outputs` (float64, `(m, queries)`) are
    the values of each query, and `slopes` (float32, `(m, queries, n)`) their derivatives. With `game_id` they are values of another game than the run's, such as the same training set under another training seed; `run_id`
    may then name anything that pays, such as a plan.
    """

    run_id: str
    phase: str
    masks: Masks
    values: Values | None = None
    in_round: int = 0
    positions: NDArray[np.int32] | None = None
    tokens: float = 0
    seconds: float = 0.0
    outputs: NDArray[np.float64] | None = None
    game_id: int | None = None
    slopes: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """An addition with everything checked and filled in."""

    run_id: str
    game_id: int
    phase: str
    round: int
    masks: Masks
    positions: NDArray[np.int32]
    values: Values | None
    tokens: float
    seconds: float
    outputs: NDArray[np.float64] | None
    slopes: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """The rows of batches of one game, one batch after another."""

    game_id: int
    hashes: Keys
    ids: Ids
    """Of each row's evaluation; 0 if its mask is not stored, and no batch brings it."""
    new: NDArray[np.bool_]
    """Whether the row is the one that brings its mask."""


def resolve(cur: Cursor, stored: StoredMasks, batches: Sequence[Batch], next_id: int) -> Resolved:
    """Find out which masks of batches of one game are new, giving them ids from `next_id`. Batches that bring values come before those that do not."""
    game_id = batches[0].game_id
    packed = pack(np.concatenate([batch.masks for batch in batches]))
    masks = packed_to_binary(packed)
    keys = hashes(cur, masks)
    first, inverse = _first_of_each(packed, keys)
    known, _ = stored.find(cur, game_id, masks.take(pa.array(first)), keys[first])
    brought = sum(len(batch.masks) for batch in batches if batch.values is not None)
    fresh = (known == 0) & (first < brought)
    known[fresh] = next_id + np.arange(np.count_nonzero(fresh))
    new = np.zeros(len(keys), dtype=np.bool_)
    new[first[fresh]] = True
    return Resolved(game_id, keys, known[inverse], new)


def _first_of_each(packed: NDArray[np.uint8], keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows, in their order, at which a mask occurs first, and for each row the number of its mask among those."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if not (packed[first[inverse]] == packed).all():  # masks with equal hashes: compare the masks
        _, first, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse.reshape(-1)]


class Rows:
    """The rows that batches add to the tables, collected so that each table gets one statement."""

    def __init__(self, next_batch: int, now: datetime) -> None:
        self.next_batch = next_batch
        self._now = now
        self._batches: list[dict[str, Any]] = []
        self._extra_costs: list[dict[str, Any]] = []
        self._measurements: list[Any] = []
        self._outputs: list[Any] = []
        self._slopes: list[Any] = []
        self._sloped: list[Ids] = [np.zeros(0, dtype=np.int64)]
        self._reuses: list[Any] = []
        self.requested: dict[tuple[str, str], list[Ids]] = {}
        """What each run has requested now and not before, by run and phase."""

    def add(self, cur: Cursor, stored: StoredMasks, batch: Batch, ids: Ids, new: NDArray[np.bool_]) -> int:
        """Add a batch whose rows have these evaluation ids (0: unknown). Returns the number of new evaluations."""
        count = int(np.count_nonzero(new))
        if count:
            self._add_measurements(batch, ids, new, count)
        if batch.values is not None and count < len(ids):
            wasted = (len(ids) - count) / len(ids)
            costs = {"evaluations": len(ids) - count, "tokens": batch.tokens * wasted, "seconds": batch.seconds * wasted, "wall_seconds": 0.0}
            self._extra_costs.append({"run_id": batch.run_id, "phase": batch.phase, **costs, "with_slopes": batch.slopes is not None})
        if batch.slopes is not None:
            self._add_slopes(cur, batch.slopes, ids, new)
        self._add_reuses(cur, stored, batch, ids, new)
        return count

    def _add_measurements(self, batch: Batch, ids: Ids, new: NDArray[np.bool_], count: int) -> None:
        assert batch.values is not None
        share = count / len(ids)
        keys = {"batch_id": self.next_batch, "game_id": batch.game_id, "run_id": batch.run_id, "phase": batch.phase, "round": batch.round}
        cost = {"tokens": batch.tokens * share, "seconds": batch.seconds * share, "with_slopes": batch.slopes is not None}
        self._batches.append({**keys, "evaluations": count, **cost, "created": self._now})
        columns = {"evaluation_id": ids[new], "batch_id": np.full(count, self.next_batch, dtype=np.int32), "mask": to_binary(batch.masks[new])}
        self._measurements.append(pa.table({**columns, "value": batch.values[new], "position": batch.positions[new]}).cast(MEASUREMENTS))
        if batch.outputs is not None:
            lists = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(batch.outputs[new]).reshape(-1)), batch.outputs.shape[1])
            self._outputs.append(pa.table({"evaluation_id": ids[new], "outputs": lists.cast(pa.list_(pa.float64()))}))
        self.next_batch += 1
        self.requested.setdefault((batch.run_id, batch.phase), []).append(ids[new])

    def _add_slopes(self, cur: Cursor, slopes: NDArray[np.float32], ids: Ids, new: NDArray[np.bool_]) -> None:
        """Add the slopes of new evaluations, and of stored ones that have none."""
        asked, first = np.unique(ids, return_index=True)
        lacking = ~np.isin(asked, np.concatenate(self._sloped))
        old = lacking & ~new[first]
        lacking[old] = ~have_slopes(cur, asked[old])
        if lacking.any():
            self._slopes.append(rows_of(asked[lacking], slopes[first[lacking]]))
            self._sloped.append(asked[lacking])

    def _add_reuses(self, cur: Cursor, stored: StoredMasks, batch: Batch, ids: Ids, new: NDArray[np.bool_]) -> None:
        """Note the masks that were stored before. One that a run requests again in the same phase (after a resume, or delivered twice) adds no row."""
        if new.all():
            return
        positions = batch.positions[~new]
        asked, first = np.unique(ids[~new], return_index=True)
        now = self.requested.get((batch.run_id, batch.phase), [])
        known = ~np.isin(asked, np.concatenate([np.zeros(1, dtype=np.int64), *now]))
        known[known] = ~stored.requested(cur, batch.run_id, batch.phase, asked[known])
        reused, at = asked[known], positions[first[known]]
        if not len(reused):
            return
        keys = {"run_id": batch.run_id, "phase": batch.phase, "round": batch.round}
        same = {name: pa.array([value] * len(reused)) for name, value in keys.items()}
        self._reuses.append(pa.table({**same, "position": at, "evaluation_id": reused}))
        self.requested.setdefault((batch.run_id, batch.phase), []).append(reused)

    def index(self, stored: StoredMasks, resolved: Sequence[Resolved]) -> None:
        """Add what has been committed to the indexes."""
        for game in resolved:
            stored.add(game.game_id, game.hashes[game.new], game.ids[game.new])
        for (run_id, phase), ids in self.requested.items():
            stored.add_requested(run_id, phase, np.concatenate(ids))

    def insert(self, cur: Cursor) -> None:
        """Insert all rows, within the caller's transaction."""
        _insert(cur, "batches", [pa.Table.from_pylist(self._batches)] if self._batches else [])
        _insert(cur, "measurements", self._measurements)
        _insert(cur, "outputs", self._outputs)
        _insert(cur, "slopes", self._slopes)
        _insert(cur, "reuses", self._reuses)
        _insert(cur, "extra_costs", [pa.Table.from_pylist(self._extra_costs)] if self._extra_costs else [])


MEASUREMENTS: Any = pa.schema(
    [("evaluation_id", pa.int64()), ("batch_id", pa.int32()), ("mask", pa.binary()), ("value", pa.float64()), ("position", pa.int32())]
)
"""Masks as binary of any length: one statement may insert those of games of different sizes."""


def _insert(cur: Cursor, table: str, rows: Sequence[Any]) -> None:
    if rows:
        cur.register("added", pa.concat_tables(rows))
        cur.execute(f"INSERT INTO {table} BY NAME SELECT * FROM added")  # noqa: S608  our own names
        cur.unregister("added")
