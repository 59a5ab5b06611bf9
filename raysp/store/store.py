"""The store: one DuckDB file, written by one process and read by any number of threads."""

from __future__ import annotations

import itertools
import json
import os
import threading
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

import duckdb
import numpy as np

from raysp.errors import UserError, masked
from raysp.game import GameInfo
from raysp.interrupts import uninterrupted
from raysp.masks import Masks, Values, check_masks
from raysp.store import blobs, games, gradients, noise
from raysp.store.additions import Addition, Batch, Resolved, Rows, resolve
from raysp.store.answer_writer import AnswerWriter
from raysp.store.connection import Connection, OlderSchemaError, drop_empty_log, keep_log_private, open_reader, open_writer, snapshot_path
from raysp.store.failures import explained, explaining, lock_holder
from raysp.store.mask_index import StoredMasks, hashes
from raysp.store.packing import to_binary
from raysp.store.removal import NOTHING, Removal, Spared, remove_runs
from raysp.store.run_states import ACTIVE, submission
from raysp.store.slopes import set_price
from raysp.store.snapshots import Publisher, open_snapshot
from raysp.store.stamps import now, version

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from raysp.gradients import GradientReport

_writers: WeakValueDictionary[Path, Store] = WeakValueDictionary()


class Store(AnswerWriter):
    """Runs, games, evaluations and answers.

    Every writing method is one transaction: after a crash it has happened completely or not at all. Methods may be called from any thread. Errors that a
    user can fix are UserError("store", ...); mistakes of the caller (an unknown run, wrong shapes) are ValueError.

    The order of an interaction is the column `set_order` in SQL, where ORDER is a reserved word; tables passed to and returned by
    this class call it `order`.
    """

    def __init__(self, con: Connection, path: Path, *, read_only: bool, note: str | None = None, as_of: float | None = None) -> None:
        super().__init__(con, path)
        self.read_only = read_only
        self.note, self.as_of = note, as_of
        self._writing = threading.RLock()
        self._publisher = Publisher(con, path, self._writing)
        self._masks = StoredMasks()
        self._sizes: dict[int, int] = {}
        self._next_id, self._next_batch = 0, 0
        if not read_only:
            self._next_id, self._next_batch = self._largest("evaluation_id", "measurements") + 1, self._largest("batch_id", "batches") + 1

    # ---- opening

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = False) -> Self:
        """Open the store at `path`, creating it if needed. This process owns the file until `close`. With `read_only` this is `Store.read`."""
        if read_only:
            return cls.read(path)
        place = Path(os.path.realpath(Path(path).expanduser()))
        if place in _writers:
            raise UserError("store", str(path), "is already open in this process", "share that Store, or close it first")
        con = open_writer(place)
        try:
            with explaining(place):
                store = cls(con, place, read_only=False)
                store._interrupt_orphans()
                store._publisher.start()
        except BaseException:
            con.close()
            raise
        _writers[place] = store
        weakref.finalize(store, store._publisher.stop)  # its thread must not keep an unused store alive
        return store

    @classmethod
    def read(cls, path: str | Path, *, memory: int | None = None, age: float | None = None) -> Self:
        """Open the store at `path` for reading: the live file or, while another process writes it, a snapshot requested from that process; `note` then says so.

        `as_of` is when that snapshot was made, in seconds since the epoch, and None for the live file.

        `memory` limits the bytes that queries may use, by default to a quarter of the machine's memory, and `age` the seconds since the snapshot was made.
        """
        place = Path(os.path.realpath(Path(path).expanduser()))
        live = _writers.get(place)
        if live is not None:
            return cls(live._con.cursor(), place, read_only=True)  # noqa: SLF001  our own class
        try:
            return cls(open_reader(place, memory), place, read_only=True)
        except OlderSchemaError:
            open_writer(place).close()
            return cls.read(path, memory=memory, age=age)
        except (duckdb.Error, OSError) as error:
            holder = lock_holder(error)
            if holder is None:
                raise explained(place, error) from None
            found = open_snapshot(place, holder, memory, age)
            if found is None:
                return cls.read(path, memory=memory, age=age)
            return cls(found.con, snapshot_path(place), read_only=True, note=found.note, as_of=found.as_of)

    def close(self) -> None:
        """Close the file. Committed data is kept in any case."""
        if not self.read_only:
            self._publisher.close()
            _writers.pop(self.path, None)
            drop_empty_log(self.path)
        self._con.close()
        self._publisher.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- games and runs

    def register_game(self, info: GameInfo) -> int:
        """Return the id of the game with this fingerprint; a new game is stored with its components."""
        with self._undisturbed():
            found = games.find(self._cursor(), info.fingerprint)
            if found is not None:
                return found
            with self._transaction() as cur:
                return games.insert(cur, info)

    def start_run(
        self, run_id: str, spec_json: str, info: GameInfo, *, lens: str, explorer: str, seed: int, name: str | None = None, set_name: str | None = None
    ) -> int:
        """Start a run, or continue the run with that id, whose row then describes the current question. Returns the id of its game.

        A run without requested evaluations may be replaced by another question; one that was submitted to a service and has not ended stays the service's.
        ValueError if it has requested evaluations of another game.
        """
        game_id = self.register_game(info)
        before = self._cursor().execute("SELECT game_id FROM runs WHERE run_id = ?", [run_id]).fetchall()
        continued = bool(before) and self.has_requests(run_id)
        if continued and before[0][0] != game_id:
            raise ValueError(f"run {run_id} exists and has evaluations of another game")
        row = {
            "run_id": run_id, "name": name, "set_name": set_name, "status": "running", "lens": lens, "explorer": explorer,
            "model": _model(spec_json, info), "dtype": _text(info.description.get("dtype")),
            "game_id": game_id, "n": info.n, "seed": seed, "spec": spec_json, "version": version(), "started": now(),
        }  # fmt: skip
        with self._transaction() as cur:
            row |= submission(cur, run_id)
            if continued:
                games.continue_run(cur, row)
            else:
                games.insert_run(cur, row)
        self._games[run_id] = (game_id, info.n)
        return game_id

    def add_gradient_report(self, info: GameInfo, report: GradientReport) -> None:
        """Store a game's gradient report, replacing an earlier one."""
        game_id = self.register_game(info)
        with self._transaction() as cur:
            gradients.replace_report(cur, game_id, report, now())

    def add_slope_price(self, info: GameInfo, price: float) -> None:
        """Store the price of an evaluation with slopes in evaluations without. A stored price is never replaced, so that runs repeat."""
        game_id = self.register_game(info)
        with self._transaction() as cur:
            set_price(cur, game_id, price)

    # ---- evaluations and costs

    def add_evaluations(
        self,
        run_id: str,
        phase: str,
        masks: Masks,
        values: Values,
        *,
        in_round: int = 0,
        positions: NDArray[np.int32] | None = None,
        tokens: float = 0,
        seconds: float = 0.0,
        outputs: NDArray[np.float64] | None = None,
        slopes: NDArray[np.float32] | None = None,
        game_id: int | None = None,
    ) -> int:
        """Store new evaluations of a run: masks (bool, `(m, n)`), values (`(m,)`), `positions` in the round, the cost of the batch, and `outputs` (`(m, queries)`).

        `slopes` (`(m, queries, n)`) are stored as well, also those of masks whose values are stored already.

        With `game_id` they are values of another game, such as the same training set under another training seed; `run_id` may then name anything that pays, such
        as a plan.
        Returns how many were new; those that another run has stored in the meantime are recorded as reused, and their cost as extra.
        """
        told = np.asarray(values, dtype=np.float64)
        return self.add_many([Addition(run_id, phase, masks, told, in_round, positions, tokens, seconds, outputs, game_id, slopes)])[0]

    def add_many(self, additions: Sequence[Addition]) -> list[int]:
        """Store many batches, of any runs, in one transaction. Returns how many evaluations of each were new.

        A mask that is stored already, or that an earlier batch brings, is recorded as reused by the run that requested it; what it cost again is an extra cost.
        """
        batches = [self._batch(addition) for addition in additions]
        new = [0] * len(batches)
        # Batches that bring values come first: another may request the same masks.
        order = [i for i, batch in sorted(enumerate(batches), key=lambda each: (each[1].game_id, each[1].values is None)) if len(batch.masks)]
        if not order:
            return new
        with self._undisturbed():
            next_id, rows = self._next_id, Rows(self._next_batch, now())
            with self._transaction() as cur:
                games_of = [(game_id, list(group)) for game_id, group in itertools.groupby(order, key=lambda i: batches[i].game_id)]
                resolved: list[Resolved] = []
                for _, group in games_of:
                    found = resolve(cur, self._masks, [batches[i] for i in group], next_id)
                    next_id = max(next_id, int(found.ids.max()) + 1)
                    resolved.append(found)
                    ends = np.cumsum([len(batches[i].masks) for i in group])[:-1]
                    for i, ids, fresh in zip(group, np.split(found.ids, ends), np.split(found.new, ends), strict=True):
                        new[i] = rows.add(cur, self._masks, batches[i], ids, fresh)
                rows.insert(cur)
            self._next_id, self._next_batch = next_id, rows.next_batch
            rows.index(self._masks, resolved)
        return new

    def add_reused(self, run_id: str, phase: str, masks: Masks, *, in_round: int = 0, positions: NDArray[np.int32] | None = None) -> None:
        """Record that a run requested masks (bool, `(m, n)`) that the store already has; masks requested before in this phase add nothing."""
        self.add_many([Addition(run_id, phase, masks, None, in_round, positions)])

    def add_cost(self, run_id: str, phase: str, *, evaluations: int = 0, tokens: float = 0, seconds: float = 0.0, wall_seconds: float = 0.0) -> None:
        """Add costs to a phase beyond those of its stored evaluations: wall time, discarded evaluations, fixed costs."""
        with self._transaction() as cur:
            cur.execute("INSERT INTO extra_costs VALUES (?, ?, ?, ?, ?, ?, false)", [run_id, phase, evaluations, tokens, seconds, wall_seconds])

    def add_blobs(self, contents: Iterable[bytes]) -> None:
        """Store the content of files that questions name, each once, by its SHA-256."""
        with self._transaction() as cur:
            blobs.insert(cur, contents)

    def add_event(self, run_id: str | None, kind: str, message: str) -> None:
        """Record an event at the current time. Secrets in the message are masked."""
        with self._transaction() as cur:
            cur.execute("INSERT INTO events VALUES (?, ?, ?, ?)", [now(), run_id, kind, masked(message)])

    def add_numeric_noise(self, fingerprint: str, keep_probability: float, figures: Mapping[str, Any]) -> None:
        """Store the numeric noise of a game, by `noise.FIGURES`. Stored figures are never replaced."""
        with self._transaction() as cur:
            noise.insert(cur, fingerprint, keep_probability, figures, now())

    # ---- removal

    def remove_runs(self, run_ids: Sequence[str], *, unused: bool = False, spared: Spared = NOTHING, dry_run: bool = False) -> Removal:
        """Remove runs with what only they used: answers, evaluations that no other run requested, games without runs, and files that only they named.

        With `unused`, everything goes that no run uses, such as evaluations of plans. What is `spared` stays. With `dry_run` nothing changes. Raises UserError for a
        run that has not ended, ValueError for an unknown one.
        """
        with self._transaction(commit=not dry_run) as cur:
            for run_id in run_ids:
                if self.run_row(run_id)["status"] in ACTIVE:
                    raise UserError("run", run_id, "has not ended", "cancel it, or let it finish, before you remove it")
            removed = remove_runs(cur, run_ids, unused=unused, spared=spared)
        self._masks.forget()
        self._games.clear()
        self._sizes.clear()
        return removed

    # ---- snapshots

    def publish(self) -> Path:
        """Write a snapshot of what is committed beside the file and return its path. Readers in other processes request their own."""
        self._must_write()
        return self._publisher.publish()

    # ---- internal

    @contextmanager
    def _undisturbed(self) -> Generator[None]:
        """Neither another thread's writing nor an interrupt comes between: what is remembered of the file stays what is in it."""
        with uninterrupted(), self._writing:
            yield

    @contextmanager
    def _transaction(self, *, commit: bool = True) -> Generator[Connection]:
        with self._undisturbed(), explaining(self.path):
            self._must_write()
            cur = self._cursor()
            keep_log_private(self.path)
            cur.execute("BEGIN")
            try:
                yield cur
                cur.execute("COMMIT" if commit else "ROLLBACK")
            except BaseException:
                _roll_back(cur)
                raise
            self._publisher.dirty = True

    def _must_write(self) -> None:
        if self.read_only:
            raise ValueError(f"the store {self.path} is open for reading only")

    def _find(self, game_id: int, masks: Masks) -> tuple[NDArray[np.int64], Values]:
        if self.read_only or not len(masks):
            return super()._find(game_id, masks)
        packed = to_binary(masks)
        return self._masks.find(self._cursor(), game_id, packed, hashes(self._cursor(), packed))

    def _batch(self, added: Addition) -> Batch:
        game_id, n = self._game_of(added.run_id) if added.game_id is None else (added.game_id, self._size(added.game_id))
        masks = check_masks(added.masks, n)
        m = len(masks)
        positions = np.arange(m, dtype=np.int32) if added.positions is None else np.asarray(added.positions, dtype=np.int32)
        _check_shape("positions", positions, (m,))
        values = None if added.values is None else np.ascontiguousarray(added.values, dtype=np.float64)
        outputs = None if added.outputs is None else np.asarray(added.outputs, dtype=np.float64)
        slopes = None if added.slopes is None else np.asarray(added.slopes, dtype=np.float32)
        if values is not None:
            _check_shape("values", values, (m,))
        if outputs is not None:
            _check_shape("outputs", outputs, (m, len(self.queries(game_id))))
        if slopes is not None:
            _check_shape("slopes", slopes, (m, max(len(self.queries(game_id)), 1), n))
        cost = float(added.tokens), float(added.seconds)
        return Batch(added.run_id, game_id, added.phase, added.in_round, masks, positions, values, *cost, outputs, slopes)

    def _size(self, game_id: int) -> int:
        """The number of a game's components; ValueError if there is no such game."""
        if game_id not in self._sizes:
            self._sizes[game_id] = games.size(self._cursor(), game_id)
        return self._sizes[game_id]

    def _largest(self, column: str, table: str) -> int:
        return int(self._cursor().execute(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchall()[0][0])  # noqa: S608  our own names

    def _interrupt_orphans(self) -> None:
        """Mark runs that are still `running` as interrupted: this process owns the file, so the processes that drove them have ended.

        Those submitted to a service stay as they are, because the service continues them.
        """
        with self._transaction() as cur:
            cur.execute("UPDATE runs SET status = 'interrupted' WHERE status = 'running' AND submitted IS NULL")


def _check_shape(name: str, array: NDArray[Any], expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ValueError(f"{name} have shape {array.shape}; expected {expected}")


def _roll_back(cur: Connection) -> None:
    # A failed commit has already rolled back, and the first error is the one to report.
    with suppress(duckdb.Error):
        cur.execute("ROLLBACK")


def _model(spec_json: str, info: GameInfo) -> str | None:
    """The model's name as given in the question, because a game identifies weights, not names."""
    lens = json.loads(spec_json).get("lens")
    named = lens.get("model") if isinstance(lens, dict) else None
    return _text(named or info.description.get("model"))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
