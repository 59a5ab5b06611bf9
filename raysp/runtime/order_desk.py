"""Where orders come in and answers go out: the sessions, the dispatcher and the recorder of a scheduler, put together."""

import logging
import threading
from collections import deque
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.blobs import parse_blob
from raysp.errors import InterruptedRunError, UserError
from raysp.game import GameInfo, Measurement
from raysp.masks import Values, unpack
from raysp.runs.state import DEFAULT_PRIORITY, Desired
from raysp.runtime.dispatch import Dispatcher
from raysp.runtime.evaluator import ShippedLens
from raysp.runtime.messages import Attached, Exchanged, PlacedOrder, SupersededError, UnknownSessionError
from raysp.runtime.metrics import Totals
from raysp.runtime.recorder import Found, Recorder
from raysp.runtime.sessions import Session
from raysp.runtime.stores import Stores
from raysp.specs.lenses import FeatureLens, with_dtype
from raysp.specs.run import AnyLens
from raysp.store import Spared, Store

#: A session that is not a run's, and whose process has not been heard of for this long, is closed.
SESSION_SECONDS = 120.0
#: Searches that have ended, whose processes are let in no more, as far as they are remembered.
ENDED = 256
#: How long orders wait for answers that are about to be stored, before they are placed all the same; how often.
SETTLE_SECONDS, SETTLES = 1.0, 8

log = logging.getLogger(__name__)


class OrderDesk:
    """Sessions by name. What is stored is answered at once; the rest is given to evaluators, stored, and then told."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._lock = threading.RLock()
        self._attaching = threading.Lock()  # taken before `_lock`; held for as long as something is removed from a store
        self._sessions: dict[str, Session] = {}
        self._ended = deque[str](maxlen=ENDED)
        self._recorder = Recorder(self._sessions.get, self._store)
        self.dispatcher = Dispatcher(self._recorder.put)

    def start(self) -> None:
        """Adopt evaluators, and begin."""
        self._recorder.start()
        self.dispatcher.start()

    @property
    def totals(self) -> Totals:
        """What was measured, found and stored so far."""
        return self._recorder.totals

    def in_use(self) -> bool:
        """Whether anybody has a session."""
        return bool(self._sessions)

    def stores(self) -> set[Path]:
        """The stores of the sessions."""
        with self._lock:
            return {session.store for session in self._sessions.values()}

    def open(self, name: str, incarnation: str, store: Path, payer: str, *, priority: int, limit: int | None, is_run: bool, masks: int | None = None) -> None:
        """Have a session. One of the same name and another incarnation is replaced. InterruptedRunError if what it belongs to has ended."""
        with self._lock:
            if name.startswith(tuple(self._ended)):
                raise InterruptedRunError(f"{name} was stopped")
            found = self._sessions.get(name)
            if found is not None and found.incarnation == incarnation:
                return
            self.close(name)
            self._sessions[name] = Session(name, incarnation, store, payer, priority, is_run)
            self.dispatcher.open(name, priority=priority, workers=limit, masks=masks)
            log.info("session opened", extra={"session": name, "run": payer, "incarnation": incarnation, "store": store})

    def attach(self, name: str, incarnation: str, lens: AnyLens, info: GameInfo | None) -> Attached:
        """Let a session place orders for a lens's game. What it had ordered before of another game is dropped."""
        session = self._session(name, incarnation)
        with self._attaching:
            session.files = frozenset(_digests(lens))
        if info is None:
            info = self._answer(session, "describe", lens)
            assert info is not None
        shipped = self._shipped(session, with_dtype(lens, str(info.description.get("dtype"))))
        with self._attaching, self._lock:
            if self._session(name, incarnation) is not session:
                raise UnknownSessionError(name)
            session.reset(info)
            self.dispatcher.serve(name, shipped, info)
        return Attached(info, self.dispatcher.workers(name))

    @contextmanager
    def removing(self, path: Path, run_ids: Collection[str]) -> Generator[Spared]:
        """What sessions use of a store from which runs are to be removed; no further session attaches within the block. UserError if one acts on these runs."""
        with self._attaching:
            with self._lock:
                sessions = [session for session in self._sessions.values() if session.store == path]
            for session in sessions:
                if session.payer in run_ids and not session.is_run:
                    raise UserError("run", session.payer, "is in use by a command that measures for it", "wait until that command has ended")
            games = frozenset(session.info.fingerprint for session in sessions if session.info is not None)
            yield Spared(games, frozenset[str]().union(*(session.files for session in sessions)))

    def ask(self, name: str, method: str, lens: AnyLens, fingerprint: str, *arguments: Any) -> Any:
        """The answer of an evaluator to a question of a session. UnknownSessionError if there is no such session."""
        session = self._sessions.get(name)
        if session is None:
            raise UnknownSessionError(name)
        return self._answer(session, method, lens, fingerprint, *arguments)

    def preview(self, lens: FeatureLens, store: Path) -> dict[str, Any]:
        """A prompt in pieces and what the model would say next, from some evaluator; the store is where what the lens refers to is kept."""
        name = f"preview:{token_hex(4)}"
        self.open(name, "", store, name, priority=DEFAULT_PRIORITY, limit=None, is_run=False)
        try:
            return self._answer(self._sessions[name], "preview", lens)
        finally:
            self.close(name)

    def _answer(self, session: Session, method: str, lens: AnyLens, *arguments: Any) -> Any:
        found = self.dispatcher.ask(
            session.name, method, self._shipped(session, lens), *arguments, cancelled=lambda: session.closed or session.desired != "running"
        )
        session.heard = monotonic()
        if found is None:
            raise InterruptedRunError("the run was cancelled while an evaluator was asked")
        return found

    def _shipped(self, session: Session, lens: AnyLens) -> ShippedLens:
        """A lens with the content that it refers to, which came with the question into the store."""
        digests = _digests(lens)
        store = self._store(session) if digests else None
        found = {digest: content for digest in digests if store is not None and (content := store.blob(digest)) is not None}
        return ShippedLens(lens, found)

    def exchange(self, name: str, incarnation: str, orders: Sequence[PlacedOrder], taken: int, timeout: float) -> Exchanged:
        """Place orders and take answers."""
        session = self._session(name, incarnation)
        if session.info is None:
            raise UnknownSessionError(name)
        fresh = session.fresh(orders)
        try:
            if fresh:
                self._place(session, fresh)
        except LookupError:  # it was closed a moment ago
            raise UnknownSessionError(name) from None
        if fresh and session.desired != "running":  # it was told to stop while these were on their way
            self.dispatcher.withdraw(name)
        told = session.take(taken, timeout)
        return Exchanged(told, session.desired, self.dispatcher.workers(name))

    def _place(self, session: Session, orders: Sequence[PlacedOrder]) -> None:
        """Answer what is stored, and order the rest. While another session measures the same game, what has been measured is stored first."""
        assert session.info is not None
        store, fingerprint = self._store(session), session.info.fingerprint
        if session.game_id is None:
            session.game_id = store.register_game(session.info)
        packed = np.concatenate([order.packed for order in orders])
        for attempt in range(SETTLES):
            seen = self.dispatcher.finished(fingerprint)
            careful = self.dispatcher.shares(session.name) and attempt < SETTLES - 1
            if careful:
                self._recorder.wait(fingerprint, seen, SETTLE_SECONDS)
            sloped = np.repeat([order.slopes for order in orders], [len(order.packed) for order in orders])
            values, outputs = _known(store, session.game_id, packed, session.info, sloped)
            if self._order(session, orders, values, outputs, seen if careful else None):
                return

    def _order(self, session: Session, orders: Sequence[PlacedOrder], values: Values, outputs: NDArray[np.float64] | None, unless: int | None) -> bool:
        wanted: list[Any] = []
        found: list[Found] = []
        start = 0
        for order in orders:
            part = slice(start, start := start + len(order.packed))
            known = ~np.isnan(values[part])
            rows = np.flatnonzero(~known)
            session.orders[order.number].rows = rows
            if len(rows):
                packed = order.packed if len(rows) == len(order.packed) else order.packed[rows]
                wanted.append(self.dispatcher.order(session.name, order.number, packed, slopes=order.slopes))
            if known.any():
                some = np.flatnonzero(known)
                of_queries = None if outputs is None else outputs[part][some]
                found.append(Found(session, order.number, some, Measurement(values[part][some], 0, 0.0, of_queries)))
        if wanted and not self.dispatcher.place(wanted, unless=unless):
            return False
        for each in found:
            self._recorder.put(each)
        return True

    def steer(self, name: str, desired: Desired) -> None:
        """Let a session know what is wanted of it. One that is to stop is answered the batches under way, and that the rest is given up."""
        session = self._sessions.get(name)
        if session is not None:
            session.steer(desired)
            if desired != "running":
                self.dispatcher.withdraw(name)

    def close(self, name: str, incarnation: str | None = None) -> int:
        """Close a session, unless it is of another incarnation. Returns how many of its batches were measured again after a loss."""
        with self._lock:
            session = self._sessions.get(name)
            if session is None or incarnation not in (None, session.incarnation):
                return 0
            del self._sessions[name]
            self.dispatcher.close(name)
            session.close()
            log.info("session closed", extra={"session": name, "run": session.payer, "incarnation": session.incarnation})
            return session.retried

    def end(self, prefix: str) -> None:
        """Close the sessions whose names begin with `prefix`, let their processes know, and open no more of them."""
        with self._lock:
            if prefix not in self._ended:
                self._ended.append(prefix)
            for name in [name for name in self._sessions if name.startswith(prefix)]:
                self.steer(name, "cancelled")
                self.close(name)

    def close_all(self) -> None:
        """Close all sessions."""
        with self._lock:
            for name in list(self._sessions):
                self.close(name)

    def expire(self) -> None:
        """Close the sessions of processes that have gone."""
        now = monotonic()
        with self._lock:
            for session in [each for each in self._sessions.values() if not each.is_run and now - each.heard > SESSION_SECONDS]:
                self.close(session.name)

    def _session(self, name: str, incarnation: str) -> Session:
        session = self._sessions.get(name)
        if session is None:
            raise UnknownSessionError(name)
        if session.incarnation != incarnation:
            raise SupersededError.of(name, "superseded: another process executes it")
        return session

    def _store(self, session: Session) -> Store:
        return self._stores.open(session.store)


def _digests(lens: AnyLens) -> set[str]:
    """The hashes of the files that a lens names, once their content is in the store."""
    return {blob.digest for source in (*lens.files.values(), *lens.data_sets.values()) if (blob := parse_blob(source)) is not None}


def _known(store: Store, game_id: int, packed: NDArray[np.uint8], info: GameInfo, sloped: NDArray[np.bool_]) -> tuple[Values, NDArray[np.float64] | None]:
    """The stored values of packed masks, NaN if there is none, or no slopes where they are wanted (`sloped`), and the outputs of a game with queries."""
    masks = unpack(packed, info.n)
    values = store.known(game_id, masks)
    if sloped.any():
        values[sloped] = np.where(np.isnan(store.slopes(game_id, masks[sloped])).any(axis=(1, 2)), np.nan, values[sloped])
    if not info.queries:
        return values, None
    outputs = store.outputs(game_id, masks)
    values[np.isnan(outputs).any(axis=1)] = np.nan
    return values, outputs
