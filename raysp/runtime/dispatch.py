"""The loop between the broker and the evaluators: it gives leases to evaluators, and their answers to the broker.

One thread owns the evaluators; everything that happens (an answer, a death, a new order) reaches it through one queue, so nothing is polled. The broker decides
who is measured next. A call whose evaluator does not answer is lost at once, but it is blamed for the death only when the evaluator is known to be dead.
"""

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import PendingCallsLimitExceeded, RayError, RayTaskError

from raysp.errors import EvaluationError
from raysp.game import GameInfo
from raysp.runs.state import EvaluatorState
from raysp.runtime.calls import Ask, Call, about, cause_of, settle
from raysp.runtime.evaluator import Pulse, ShippedLens, model_of
from raysp.runtime.pool import Member, Pool
from raysp.runtime.shape import PLACEMENT_SECONDS, Shape, unplaceable
from raysp.runtime.vitals import Vitals
from raysp.scheduling import Broker, BrokerState, Delivery, Lease, Order
from raysp.scheduling.quarantine import ADVICE, NAMED, QuarantinedMaskError

#: How often evaluators are looked after when nothing happens.
TICK_SECONDS = 0.25
#: An evaluator is given its next lease when the one that it has ends about now: early enough to lose no time, and late enough for whoever asks meanwhile.
AHEAD_SECONDS = 0.05
#: How often the pool is resized.
TEND_SECONDS = 1.0
#: How much longer a lease lasts while its evaluator says that it is measuring it; and how long at most.
EXTENSION_SECONDS, STUCK_SECONDS = 60.0, 3600.0
#: Deaths of evaluators that one question to them may survive.
ATTEMPTS = 4
#: Evaluators that are started before it is known how much there is to do.
EARLY = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ServedGame:
    """A game that sessions ask for: its lens, the kind of that lens, where evaluators fetch it, and what is known of it."""

    info: GameInfo
    key: str
    lens: Any
    kind: str
    model: str | None


@dataclass(slots=True)
class Asking:
    """A session: at most how many evaluators work for it, and the game that it asks about."""

    limit: int | None
    game: str | None = None


class Dispatcher:
    """Evaluators at work for all sessions.

    `tell` is given the deliveries of the broker, with the fingerprint of the game if they are an answer; it must not wait.
    """

    def __init__(self, tell: Callable[[list[Delivery], str | None], None]) -> None:
        self._tell = tell
        self._lock = threading.RLock()  # of the broker and the tables of sessions and games
        self._broker = Broker()
        self._sessions: dict[str, Asking] = {}
        self._games: dict[str, ServedGame] = {}
        self._pool = Pool()
        self._asks: list[Ask] = []
        self._events = SimpleQueue[Callable[[], None]]()
        self._hungry: set[Member] = set()
        self._later: list[tuple[float, str]] = []  # when to feed which evaluator: a heap
        self._vitals = Vitals(self._pool, self._events, self._alive, self._lose)
        self._finished = Counter[str]()
        self._tended = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)

    def start(self) -> None:
        """Adopt the evaluators that there are, and begin."""
        self._pool.adopt()
        self._thread.start()

    def stop(self) -> None:
        """Give no more work."""
        self._ended.set()
        self._events.put(lambda: None)
        self._thread.join()

    # ---- for any thread

    def open(self, session: str, *, priority: int, workers: int | None, masks: int | None = None) -> None:
        """Let a session place orders, of about so many masks in all."""
        with self._lock:
            self._broker.open(session, priority=priority, workers=workers, masks=masks)
            self._sessions[session] = Asking(workers)
        self._tended = 0.0  # evaluators start at once
        self._events.put(lambda: None)

    def close(self, session: str) -> None:
        """Forget a session, its orders, and its game unless others ask about it."""
        with self._lock:
            self._broker.close(session)
            self._sessions.pop(session, None)
            self._drop_games()

    def withdraw(self, session: str) -> None:
        """Give up what a session waits for, but for the batches under way."""
        with self._lock:
            found = self._broker.withdraw(session)
        self._deliver(found)

    def serve(self, session: str, shipped: ShippedLens, info: GameInfo) -> None:
        """Take orders of a session for a lens's game."""
        lens = shipped.lens
        with self._lock:
            known = self._games.get(info.fingerprint)
        # A lens may come with much content, which takes a while to put where evaluators fetch it.
        game = known if known is not None and known.key == lens.key else ServedGame(info, lens.key, ray.put(shipped), lens.kind, model_of(lens))
        with self._lock:
            self._sessions[session].game = info.fingerprint
            self._games[info.fingerprint] = game
            self._drop_games()

    def _drop_games(self) -> None:
        used = {session.game for session in self._sessions.values()}
        self._games = {fingerprint: game for fingerprint, game in self._games.items() if fingerprint in used}

    def place(self, orders: list[Order], *, unless: int | None = None) -> bool:
        """Queue orders of one game and one open session.

        Returns False, and does nothing, if more answers than `unless` have arrived for the game, so that the orders may ask for what is about to be stored.
        """
        with self._lock:
            if unless is not None and orders and self._finished[orders[0].fingerprint] > unless:
                return False
            found = [delivery for order in orders for delivery in self._broker.place(order)]
        self._deliver(found)
        self._events.put(self._feed_all)
        return True

    def finished(self, fingerprint: str) -> int:
        """The number of answers that have arrived for a game."""
        with self._lock:
            return self._finished[fingerprint]

    def shares(self, session: str) -> bool:
        """Whether another session asks about the same game."""
        with self._lock:
            game = self._sessions[session].game
            return sum(each.game == game for each in self._sessions.values()) > 1

    def order(self, session: str, number: int, packed: Any, *, slopes: bool = False) -> Order:
        """An order of a session for its game."""
        with self._lock:
            game = self._games[self._sessions[session].game or ""]
        return Order(session, number, game.info.fingerprint, packed, game.info.n, game.model, slopes=slopes)

    def ask(self, session: str, method: str, shipped: ShippedLens, *arguments: Any, cancelled: Callable[[], bool]) -> Any:
        """The answer to a session's question of one of the evaluators, or of another if that one dies; None once cancelled.

        Errors are raised as the evaluator raised them; UserError if the cluster has no room for any evaluator.
        """
        name = f"{method.replace('_', ' ')} of a {shipped.lens.kind} game for {session}"
        asked = Ask(name, method, (shipped.lens.key, shipped, *arguments), model_of(shipped.lens))
        self._events.put(partial(self._asks.append, asked))
        while not cancelled():
            try:
                return asked.answer.result(timeout=TICK_SECONDS)
            except NotYetError:
                continue
        asked.answer.cancel()
        return None

    def workers(self, session: str) -> int:
        """The number of evaluators that may work for a session."""
        with self._lock:
            limit = self._sessions[session].limit if session in self._sessions else None
        count = len(self._pool.members)
        return count if limit is None else min(limit, count)

    @property
    def shape(self) -> Shape | None:
        """The shape of the evaluators, if there are any."""
        return self._pool.shape

    def reshape(self, shape: Shape) -> None:
        """Replace the evaluators by others. Nobody may be using them."""
        done = threading.Event()

        def take() -> None:
            try:
                self._pool.take(shape)
            finally:
                done.set()

        self._events.put(take)
        done.wait()

    def evaluators(self) -> tuple[EvaluatorState, ...]:
        """The evaluators, and what they are doing."""
        return tuple(EvaluatorState(each.name, each.shown, each.node, tuple(sorted(each.resident))) for each in list(self._pool.members.values()))

    @property
    def lost(self) -> int:
        """How many evaluators have died."""
        return self._pool.lost

    def queue(self) -> BrokerState:
        """The state of the broker."""
        with self._lock:
            return self._broker.snapshot()

    # ---- the loop

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._step()
            except Exception:
                log.exception("the dispatcher goes on")

    def _step(self) -> None:
        """Wait for something to happen, and give evaluators what there is for them."""
        with contextlib.suppress(Empty):
            self._events.get(timeout=self._until_next())()
            for _ in range(self._events.qsize()):
                self._events.get_nowait()()
        if time.monotonic() - self._tended > TEND_SECONDS:
            self._tended = time.monotonic()
            self._tend()
        self._send_asks()
        self._wake_later()
        hungry, self._hungry = self._hungry, set[Member]()
        for member in sorted(hungry, key=lambda each: len(each.calls)):
            self._feed(member)

    def _until_next(self) -> float:
        """Seconds to the next evaluator that is to be fed, at most `TICK_SECONDS`."""
        return min(TICK_SECONDS, max(0.0, self._later[0][0] - time.monotonic())) if self._later else TICK_SECONDS

    def _wake_later(self) -> None:
        """Feed the evaluators whose time has come."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, name = heappop(self._later)
            member = self._pool.members.get(name)
            if member is not None:
                member.fed_later = False
                self._hungry.add(member)

    def _too_early(self, member: Member) -> bool:
        """Whether an evaluator has enough to do for now; it is fed in time."""
        now = time.monotonic()
        left = sum(call.left(now) for call in member.calls) - AHEAD_SECONDS
        if left > 0 and not member.fed_later:
            member.fed_later = True
            heappush(self._later, (now + left, member.name))
        return left > 0

    def _feed_all(self) -> None:
        self._hungry.update(self._pool.members.values())

    def _feed(self, member: Member) -> None:
        """Give an evaluator what the broker has for it: one lease, and a short one that waits."""
        while member.state == "ready" and not any(isinstance(call.work, Ask) for call in member.calls) and not self._too_early(member):
            with self._lock:
                lease = self._broker.lease(member.name, member.resident)
                game = self._games.get(lease.fingerprint) if lease is not None else None
            if lease is None:
                return
            if game is None:  # its session closed a moment ago
                continue
            member.resident |= {game.model} if game.model else set()
            name = f"measure {game.kind} masks of {lease.run_id}"
            self._send(member, lease, name, "measure", game.key, game.lens, lease.fingerprint, lease.packed, lease.number, lease.slopes)

    def _send_asks(self) -> None:
        """Give questions to the evaluators that have least to do, and the model if possible."""
        now = time.monotonic()
        self._asks[:] = [ask for ask in self._asks if not ask.answer.cancelled()]
        ready = [member for member in self._pool.members.values() if member.state == "ready"]
        while self._asks and ready:
            ask = self._asks.pop(0)
            member = min(ready, key=lambda each: (len(each.calls), ask.model not in each.resident, sum(call.left(now) for call in each.calls)))
            self._send(member, ask, ask.name, ask.method, *ask.arguments)
        for ask in [ask for ask in self._asks if time.monotonic() - ask.since > PLACEMENT_SECONDS]:
            self._asks.remove(ask)
            settle(ask, unplaceable(len(self._pool.members)))

    def _send(self, member: Member, work: Lease | Ask, name: str, method: str, *arguments: Any) -> None:
        """Call a method of an evaluator, under the name that the Ray dashboard shows."""
        call = Call(work, began=None if member.calls else time.monotonic())
        member.calls.append(call)
        try:
            answer: Future[Any] = getattr(member.actor, method).options(name=name).remote(*arguments).future()
        except (RayError, PendingCallsLimitExceeded):
            self._vitals.doubt(member)
            return
        answer.add_done_callback(lambda done: self._events.put(partial(self._returned, member, call, done)))

    def _returned(self, member: Member, call: Call, answer: "Future[Any]") -> None:
        error = answer.exception()
        if isinstance(error, RayError) and not isinstance(error, RayTaskError):
            if call in member.calls:  # otherwise its loss is settled
                self._vitals.doubt(member)
            return
        if call in member.calls:
            member.calls.remove(call)
        if member.calls:
            member.calls[0].began = member.calls[0].began or time.monotonic()
        self._pool.worked(member)
        self._hungry.add(member)
        if isinstance(call.work, Ask):
            settle(call.work, error if error is None else cause_of(error), answer)
            return
        with self._lock:
            number = call.work.number
            found = self._broker.finish(number, answer.result()) if error is None else self._broker.fail(number, cause_of(error))
            self._finished[call.work.fingerprint] += bool(found)
        self._deliver(found, call.work.fingerprint)

    def _deliver(self, deliveries: list[Delivery], finished: str | None = None) -> None:
        for each in deliveries:
            if isinstance(each.error, QuarantinedMaskError):
                removed = list(each.error.removed[:NAMED])
                log.error("mask quarantined", extra={"run": each.run_id, "order": each.order, "components": removed, "reason": each.error.last})
        if deliveries:
            self._tell(deliveries, finished)

    # ---- lives and deaths

    def _tend(self) -> None:
        """Look after evaluators and leases, and have as many evaluators as there is work for."""
        self._vitals.check()
        with self._lock:
            expired = self._broker.expire()
        for lease in expired.leases:
            log.warning("lease expired", extra=about(lease))
        self._deliver([*expired.deliveries])
        if expired.leases:
            self._feed_all()
        wanted = self._wanted() if self._sessions or self._asks else 0
        if wanted:
            self._pool.resize(wanted)
        self._pool.rest(wanted)

    def _wanted(self) -> int:
        """The number of evaluators that there is work for, as far as runs allow."""
        with self._lock:
            state, sessions = self._broker.snapshot(), dict(self._sessions)
            sizes = {name: self._games[each.game].info.batch_masks for name, each in sessions.items() if each.game in self._games}
        wanted = 0
        for name, each in sessions.items():
            batches = (state.queued.get(name, 0) + state.in_flight.get(name, 0)) / sizes.get(name, 1)
            wanted += min(max(EARLY, round(batches / 2)), each.limit or 1_000_000)
        return max(1, wanted)

    def _alive(self, member: Member, pulse: Pulse) -> None:
        """An evaluator has given a sign of life: the lease that it is measuring lasts longer."""
        self._pool.answered(member, pulse)
        leases = [call for call in member.calls if isinstance(call.work, Lease)]
        if leases and pulse.begun is not None and time.monotonic() - leases[0].sent < STUCK_SECONDS:
            with self._lock:
                for call in leases:
                    self._broker.extend(call.work.number, EXTENSION_SECONDS)
        self._hungry.add(member)

    def _lose(self, member: Member, death: str | None) -> None:
        """Take back what an evaluator was given. If it died, it was of the oldest call that had not returned, as it executes one after the other."""
        calls, member.calls = member.calls, []
        oldest, reason = calls[0].work if calls and death is not None else None, death or ""
        for lease in (call.work for call in calls if isinstance(call.work, Lease)):
            log.warning("lease blamed" if lease is oldest else "lease lost", extra=about(lease) | {"reason": reason})
        with self._lock:
            found = self._broker.lose(member.name, begun=oldest.number if isinstance(oldest, Lease) else None, reason=reason)
        for ask in (call.work for call in calls if isinstance(call.work, Ask)):
            ask.deaths += ask is oldest
            if ask.deaths < ATTEMPTS:
                self._asks.append(ask)
            else:
                settle(ask, EvaluationError(f"evaluators died {ATTEMPTS} times when asked for `{ask.method}`, last with {reason}; {ADVICE}"))
        if death is not None:
            self._pool.died(member, reason)
        self._deliver(found)
        self._feed_all()
