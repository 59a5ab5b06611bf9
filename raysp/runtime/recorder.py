"""Answers are stored before they are told. One thread writes those that arrive within a short time together, so that many small batches share a commit."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from raysp.game import Measurement
from raysp.masks import unpack
from raysp.runtime.metrics import Totals
from raysp.runtime.portable import portable
from raysp.runtime.sessions import Session
from raysp.scheduling import Delivery, QuarantinedMaskError
from raysp.store import Addition, Store

#: Answers that are recorded together at most, and entries of masks that are stored in one go, which are a byte each on their way into the store.
TOGETHER, CELLS_TOGETHER = 256, 32 << 20
#: How long an answer waits for others to be stored with, as long as its session has more to wait for than has arrived.
GATHER_SECONDS = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Rows of an order of a session that the store has already, with their values and outputs."""

    session: Session
    order: int
    rows: NDArray[np.intp]
    measurement: Measurement


@dataclass(slots=True, eq=False)
class Entry:
    """Rows of an order of a session with what they ended with, on their way into the store and to the session."""

    session: Session
    number: int
    rows: NDArray[np.intp]
    measurement: Measurement | None
    error: BaseException | None
    paid: bool

    @property
    def storable(self) -> bool:
        """Whether all values are finite. Others are told, and end the run."""
        return self.measurement is not None and _is_finite(self.measurement)

    @property
    def addition(self) -> Addition | None:
        """What the store is given: values that the session's payer paid for, or masks that its run reused; nothing for a reuse by anybody else."""
        session, measurement = self.session, self.measurement
        assert session.info is not None
        assert measurement is not None
        order = session.orders[self.number].order
        masks, positions = unpack(order.packed[self.rows], session.info.n), order.positions[self.rows]
        if not self.paid:
            return Addition(session.payer, order.phase, masks, None, order.round, positions) if session.is_run else None
        cost, outputs = (measurement.tokens, measurement.seconds), measurement.outputs
        return Addition(session.payer, order.phase, masks, measurement.values, order.round, positions, *cost, outputs, session.game_id, measurement.slopes)

    def tell(self, *, stored: bool) -> None:
        """Tell the session. Slopes that are stored are read from the store."""
        measurement = replace(self.measurement, slopes=None) if self.measurement is not None and stored else self.measurement
        self.session.tell(self.number, self.rows, measurement, self.error, stored=stored, reused=not self.paid)


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """Deliveries, or rows that are known, since when they wait to be recorded, and the game's fingerprint if they are an answer that was counted.

    No deliveries at all have what waits recorded at once.
    """

    what: list[Delivery] | Found
    finished: str | None = None
    since: float = field(default_factory=monotonic)


class Recorder:
    """Stores deliveries and tells them to their sessions. `session_of` and `store_of` look them up; a session that has closed is told nothing."""

    def __init__(self, session_of: Callable[[str], Session | None], store_of: Callable[[Session], Store]) -> None:
        self._session_of, self._store_of = session_of, store_of
        self._waiting = SimpleQueue[Waiting | None]()
        self._recorded = Counter[str]()
        self._changed = threading.Condition()
        self.totals = Totals()
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Record what has arrived, and end."""
        self._waiting.put(None)
        self._thread.join()

    def put(self, what: list[Delivery] | Found, finished: str | None = None) -> None:
        """Take deliveries, or rows that are known, to be recorded. `finished` is the game's fingerprint if they are an answer that was counted."""
        self._waiting.put(Waiting(what, finished))

    def wait(self, fingerprint: str, count: int, timeout: float) -> None:
        """Wait until so many answers of a game are recorded."""
        if self._recorded[fingerprint] < count:
            self._waiting.put(Waiting([]))
        with self._changed:
            self._changed.wait_for(lambda: self._recorded[fingerprint] >= count, timeout)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = self._gather(first)
            self.totals.lag = len(batch) + self._waiting.qsize()
            self.totals.waiting_since = first.since
            self._record([each.what for each in batch])
            with self._changed:
                self._recorded.update(each.finished for each in batch if each.finished is not None)
                self._changed.notify_all()
            self.totals.lag = self._waiting.qsize()
            self.totals.waiting_since = None

    def _gather(self, first: Waiting) -> list[Waiting]:
        """What is to be recorded together: no session waits for its last answers, or for half of them, because others might still arrive."""
        batch, arrived, until = [first], Counter[str](), monotonic() + GATHER_SECONDS
        hurried = self._hurried(first, arrived)
        while len(batch) < TOGETHER:
            try:
                more = self._waiting.get(timeout=0.0 if hurried else max(0.0, until - monotonic()))
            except Empty:
                break
            if more is None:
                self._waiting.put(None)
                break
            batch.append(more)
            hurried = self._hurried(more, arrived) or hurried
        return batch

    def _hurried(self, waiting: Waiting, arrived: Counter[str]) -> bool:
        """Whether a session waits for little more than has `arrived` (rows by session, which this adds to), or somebody waits for what is recorded."""
        what = waiting.what
        if isinstance(what, Found):
            parts = [(what.session.name, len(what.rows))]
        else:
            parts = [(delivery.run_id, len(delivery.rows)) for delivery in what]
            if not parts or any(delivery.error is not None for delivery in what):
                return True
        for name, rows in parts:
            arrived[name] += rows
        sessions = [(session, arrived[name]) for name, _ in parts if (session := self._session_of(name)) is not None]
        return any(session.left < 2 * rows for session, rows in sessions)

    def _record(self, batch: list[list[Delivery] | Found]) -> None:
        """Store all that can be stored, each store's part in one go, and then tell everybody."""
        by_store: dict[Path, list[Entry]] = {}
        for what in batch:
            for entry in self._entries(what):
                if entry.storable:
                    by_store.setdefault(entry.session.store, []).append(entry)
                else:
                    entry.tell(stored=False)
        for entries in (group for every in by_store.values() for group in _groups(every)):
            try:
                self._store(entries)
            except Exception:  # noqa: BLE001  one of them may be the reason
                for entry in entries:
                    self._store_alone(entry)
            else:
                for entry in entries:
                    entry.tell(stored=True)

    def _entries(self, what: list[Delivery] | Found) -> Iterator[Entry]:
        if isinstance(what, Found):
            yield Entry(what.session, what.order, what.rows, what.measurement, None, paid=False)
            return
        for delivery in what:
            session = self._session_of(delivery.run_id)
            opened = session.orders.get(delivery.order) if session is not None else None
            if session is not None and opened is not None:
                session.retried += delivery.attempts > 1
                error = None if delivery.error is None else _named(delivery.error, session)
                yield Entry(session, delivery.order, opened.rows[delivery.rows], delivery.measurement, error, paid=delivery.paid)

    def _store_alone(self, entry: Entry) -> None:
        try:
            self._store([entry])
        except Exception as error:  # noqa: BLE001  whatever keeps the store from growing ends the run
            entry.error = portable(error, "In the scheduler")
            entry.measurement = None
            entry.tell(stored=False)
        else:
            entry.tell(stored=True)

    def _store(self, entries: list[Entry]) -> None:
        additions = [addition for entry in entries if (addition := entry.addition) is not None]
        self._store_of(entries[0].session).add_many(additions)
        for entry in entries:
            assert entry.measurement is not None
            if entry.paid:
                self.totals.evaluations += len(entry.rows)
                self.totals.tokens += entry.measurement.tokens
                self.totals.seconds += entry.measurement.seconds
            else:
                self.totals.found += len(entry.rows)


def _groups(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Entries of one store, in their order, in groups whose masks fit into memory together."""
    group: list[Entry] = []
    cells = 0
    for entry in entries:
        assert entry.session.info is not None
        slopes = entry.measurement.slopes if entry.measurement is not None else None
        size = len(entry.rows) * entry.session.info.n + (0 if slopes is None else slopes.nbytes)
        if group and cells + size > CELLS_TOGETHER:
            yield group
            group, cells = [], 0
        group.append(entry)
        cells += size
    if group:
        yield group


def _is_finite(measurement: Measurement) -> bool:
    return all(array is None or bool(np.isfinite(array).all()) for array in (measurement.values, measurement.outputs, measurement.slopes))


def _named(error: Exception, session: Session) -> Exception:
    """An error about a mask with the labels of its components."""
    return error.labelled(session.info.components) if isinstance(error, QuarantinedMaskError) and session.info is not None else error
