"""The broker: gives the masks that runs order to workers, and the answers to whoever asked.

It is a data structure with a clock: it calls nobody, starts no thread, and is not thread-safe. Its rules:

- a mask of a game is in the hands of one worker at a time; whoever else asks for it meanwhile is told the same answer,
- a row of an order is answered exactly once, however late or often workers answer,
- whoever is served next is decided by `fairness`, how much is leased at once by `costs`, and which masks are given up by `quarantine`.
"""

import time
from collections import deque
from collections.abc import Callable, Collection

import numpy as np

from raysp.errors import EvaluationError
from raysp.game import Measurement
from raysp.scheduling.fairness import Shares
from raysp.scheduling.inheritance import Heirs, heirs_of, inherited
from raysp.scheduling.ledger import DONE, LEASED, QUEUED, SHARED, Flight, GameOrders, Part, Piece, Placed, Worker, part_of, places_of
from raysp.scheduling.order import BrokerState, Delivery, Expired, Lease, Order, Rows, WithdrawnError
from raysp.scheduling.quarantine import Quarantine
from raysp.scheduling.waiting import Waiting

#: A lease is about this much work: nobody waits longer for a worker to become free.
LEASE_SECONDS = 1.0
#: Leases that a worker may have: one that it measures and one that waits, so that it is never idle between them. Together they are at most `LEASE_SECONDS`.
DEPTH = 2
#: A lease expires after this many times its estimated seconds, and not before `LEAST_TERM`.
TERM_FACTOR = 10.0
LEAST_TERM = 60.0
#: The least term where the worker has yet to load the model, or where no batch of the game was measured yet.
LOADING_TERM = 600.0
#: Games without orders whose cost is remembered.
GAMES_REMEMBERED = 4096


class Broker:
    """Orders and leases of many runs. All methods take time in O(log runs), and in the masks of the order or lease concerned."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shares = Shares(clock)
        self._games: dict[tuple[str, bool], GameOrders] = {}
        self._workers: dict[str, Worker] = {}
        self._flights: dict[int, Flight] = {}
        self._waiting = Waiting(self._shares, self._workers, clock)
        self._quarantine = Quarantine(clock)
        self._number = time.time_ns()  # numbers of an earlier broker must not recur: its workers may still answer
        self._saved = self._retries = self._unwanted = 0

    # ---- what runs do

    def open(self, run_id: str, *, priority: int = 5, workers: int | None = None, masks: int | None = None) -> None:
        """Let a run place orders, or change what an open run may have.

        `priority` is 0 to 9, 9 first; each step doubles the run's share. The run has at most `workers` workers at once. `masks` announces how many masks it
        will order in all, by which the broker tells short runs from long ones. Raises ValueError for other priorities and limits.
        """
        self._shares.open(run_id, priority, workers, masks)

    def place(self, order: Order) -> list[Delivery]:
        """Queue an order. The number of an unfinished order of the run is ignored.

        Rows that another order has queued or in flight are not queued again: its answer is delivered to both. Returns the errors of rows that are
        quarantined. Raises LookupError for a run that is not open.
        """
        run = self._shares.runs.get(order.run_id)
        if run is None:
            raise LookupError(f"run {order.run_id} is not open")
        if order.number in run.orders:
            return []
        game = self._game(order)
        game.cost.expect(order.seconds)
        run.cost = game.cost
        placed = run.orders[order.number] = Placed.of(order, run, game)
        told: list[Delivery] = []
        for row, error in self._quarantine.find(order).items():
            rows = np.array([row], dtype=np.intp)
            placed.move(rows, QUEUED, DONE)
            told.append(Delivery(order.run_id, order.number, rows, None, error, paid=False, attempts=0))
        game.add(placed)
        if not placed.left:
            self._drop(placed)
        elif told or placed.keys is not None:
            self._waiting.add(placed, np.flatnonzero(placed.state == QUEUED))
        else:
            self._waiting.add(placed, np.arange(len(order.packed), dtype=np.intp))
        return told

    def close(self, run_id: str) -> None:
        """Forget a run and its orders. What others wait for is measured for the next of them, and answers that are on their way go to it."""
        run = self._shares.runs.get(run_id)
        if run is None:
            return
        self._shares.close(run)
        heirs = heirs_of(run, QUEUED, LEASED, SHARED)
        for placed in run.orders.values():
            self._bequeath(placed, heirs[placed])
        self._waiting.pass_on(run, heirs)
        for placed in list(run.orders.values()):
            self._drop(placed)

    def withdraw(self, run_id: str) -> list[Delivery]:
        """Give up the masks of a run that no worker has begun with, and return that as errors. The run stays open, and is told the answers that are on their way.

        What others wait for is measured for the next of them.
        """
        run = self._shares.runs.get(run_id)
        if run is None:
            return []
        self._waiting.pass_on(run, heirs_of(run, QUEUED, SHARED))
        run.suspects, run.queue = [], deque()
        told: list[Delivery] = []
        for placed in list(run.orders.values()):
            rows = np.flatnonzero((placed.state == QUEUED) | (placed.state == SHARED))
            for state in (QUEUED, SHARED):
                placed.move(placed.among(rows, state), state, DONE)
            if len(rows):
                error = WithdrawnError.of(run_id, "told to stop")
                told.append(Delivery(run_id, placed.order.number, rows, None, error, paid=False, attempts=0))
            if not placed.left:
                self._drop(placed)
        return told

    # ---- what workers do

    def lease(self, worker: str, resident: Collection[str] = ()) -> Lease | None:
        """What a worker is to measure next, if there is anything for it. `resident` are the models that it has loaded (as `Order.model` names them).

        A worker that has a lease is given a second one only if both together are short, and none while it has an expired one to answer.
        """
        now = self._clock()
        asking = self._workers.get(worker)
        if asking is None:
            asking = self._workers[worker] = Worker(worker, now)
        asking.seen = now
        room = LEASE_SECONDS - asking.seconds
        if asking.stalled is not None or len(asking.flights) >= DEPTH or room <= 0:
            return None
        piece = self._waiting.choose(asking, resident)
        if piece is None:
            return None
        cost = piece.placed.game.cost
        count = cost.share(len(piece.rows), LEASE_SECONDS / asking.slowness)
        if asking.flights and (not cost.known or cost.seconds(count) * asking.slowness > room):
            self._shares.resume(piece.placed.run)
            return None
        return self._send(asking, piece, count, resident)

    def extend(self, number: int, seconds: float) -> None:
        """Let a lease last for at least `seconds` from now, as its worker is known to be alive. An expired lease stays expired."""
        flight = self._flights.get(number)
        if flight is not None:
            flight.expires = max(flight.expires, self._clock() + seconds)

    def finish(self, number: int, measurement: Measurement) -> list[Delivery]:
        """Take the answer of a lease, also after it expired: what is to be told to whom. Rows that were answered already are told nobody."""
        flight = self._flights.get(number)
        if flight is None:
            return self._forgotten(number)
        count = len(flight.lease.rows)
        if len(measurement.values) != count:
            return self.fail(number, EvaluationError(f"the game returned {len(measurement.values)} values for {count} masks"))
        if 0 < measurement.seconds < np.inf:
            self._learn(flight, count, measurement.seconds)
        return self._answer(flight, measurement, None)

    def fail(self, number: int, error: Exception) -> list[Delivery]:
        """Take the error that a game raised for the masks of a lease. It is told to everybody who waits for one of them."""
        flight = self._flights.get(number)
        if flight is None:
            return self._forgotten(number)
        return self._answer(flight, None, error)

    def lose(self, worker: str, *, begun: int | None, reason: str = "") -> list[Delivery]:
        """Take back the leases of a worker that died. `begun` is the number of the lease that it was measuring (None: of none), and `reason` what its death looked like.

        Only that lease is held responsible: it is halved, so that a mask that kills workers is found, and a single mask that has killed three workers is
        quarantined and its error returned. All other leases go to other workers as they are.
        """
        lost = self._workers.pop(worker, None)
        told: list[Delivery] = []
        if lost is not None:
            for number, flight in reversed(lost.flights.copy().items()):
                self._fence(lost, flight)
                told += self._blame(flight, reason) if number == begun else self._requeue(flight)
        return told

    def expire(self) -> Expired:
        """Take back leases whose time has passed, with all other leases of their workers, and give them to others.

        The oldest lease of such a worker is held responsible as if the worker had died. The worker is given nothing before it answers or is lost; a late answer
        is used for masks that are still wanted.
        """
        now = self._clock()
        leases: list[Lease] = []
        told: list[Delivery] = []
        for worker in self._workers.values():
            if not any(flight.expires <= now for flight in worker.flights.values()):
                continue
            worker.stalled = oldest = next(iter(worker.flights))
            for number, flight in reversed(worker.flights.copy().items()):
                self._fence(worker, flight)
                leases.append(flight.lease)
                told += self._blame(flight, f"no answer in {now - flight.leased:.0f} s") if number == oldest else self._requeue(flight)
        return Expired(tuple(leases), tuple(told))

    def snapshot(self) -> BrokerState:
        """What waits, what is in flight and what was served, by run."""
        runs = self._shares.runs
        return BrokerState(
            queued={name: run.counts[QUEUED] for name, run in runs.items()},
            in_flight={name: run.counts[LEASED] for name, run in runs.items()},
            shared={name: run.counts[SHARED] for name, run in runs.items()},
            served={name: run.served for name, run in runs.items()},
            leases=sum(len(worker.flights) for worker in self._workers.values()),
            duplicates_saved=self._saved,
            retries=self._retries,
            quarantined=self._quarantine.count,
            unwanted=self._unwanted,
        )

    # ---- leasing

    def _send(self, worker: Worker, piece: Piece, count: int, resident: Collection[str]) -> Lease:
        """Lease the first rows of a piece to a worker."""
        placed, run, now = piece.placed, piece.placed.run, self._clock()
        sent = piece if count == len(piece.rows) else piece.split(count)
        if sent is piece:
            run.suspects.remove(piece) if piece.killed else run.queue.popleft()
        order, cost = placed.order, placed.game.cost
        placed.move(sent.rows, QUEUED, LEASED)
        seconds = cost.seconds(count)
        term = max(LEAST_TERM, TERM_FACTOR * seconds)  # of any worker: what a slow one holds for long goes to others
        seconds *= worker.slowness
        if not cost.measured or not piece.is_loaded(resident):
            term = max(term, LOADING_TERM)
        begins = max([now, *(flight.expires for flight in worker.flights.values())])
        self._number += 1
        packed = order.packed if count == len(order.packed) else order.packed[sent.rows]
        lease = Lease(self._number, worker.name, order.run_id, order.number, sent.rows, order.fingerprint, packed, begins + term, seconds, order.slopes)
        weight = self._shares.charge(run, seconds)
        places = places_of(count)
        flight = Flight(lease, run, sent, weight, now, lease.expires, [(placed, sent.rows, places)])
        self._flights[lease.number] = worker.flights[lease.number] = flight
        placed.flights[flight] = None
        run.holding[worker.name] += 1
        self._retries += sent.attempts > 0
        sent.attempts += 1
        self._shares.resume(run)
        return lease

    # ---- answering

    def _learn(self, flight: Flight, count: int, seconds: float) -> None:
        """Correct what the run was charged, and the estimates of the game and the worker, by the time that a lease took."""
        self._shares.correct(flight.run, seconds - flight.lease.seconds, flight.weight)
        worker, cost = self._workers.get(flight.lease.worker), flight.piece.placed.game.cost
        slowness = 1.0
        if worker is not None:
            slowness, last = worker.slowness, worker.last
            worker.last = cost, count, seconds
            if last is not None and last[0] is cost and last[1] != count:
                cost.compare(count - last[1], (seconds - last[2]) / slowness)
            if cost.settled:
                worker.learn(seconds / cost.seconds(count))
        cost.observe(count, seconds / slowness)

    def _forgotten(self, number: int) -> list[Delivery]:
        """Note the answer of a lease that nobody waits for any more."""
        self._unwanted += 1
        for worker in self._workers.values():
            if worker.stalled == number:
                worker.stalled = None
        return []

    def _answer(self, flight: Flight, measurement: Measurement | None, error: Exception | None) -> list[Delivery]:
        """Tell the answer of a lease to everybody who still waits for one of its rows."""
        del self._flights[flight.lease.number]
        worker = self._workers.get(flight.lease.worker)
        if worker is not None:
            self._release(worker, flight)
            if worker.stalled == flight.lease.number:
                worker.stalled = None
        wanted: list[Part] = []
        for placed, rows, places in flight.parts:
            placed.flights.pop(flight, None)
            if placed.disturbed or not flight.live:
                undone = placed.state[rows] != DONE
                wanted.append((placed, rows[undone], places[undone]))
            else:
                wanted.append((placed, rows, places))
        answered = sum(len(rows) for _, rows, _ in wanted)
        self._unwanted += not answered
        told: list[Delivery] = []
        for part in wanted:
            if len(part[1]):
                told += self._tell(part, flight, measurement, error, share=len(part[1]) / answered)
        return told

    def _tell(self, part: Part, flight: Flight, measurement: Measurement | None, error: Exception | None, *, share: float) -> list[Delivery]:
        """Deliver an answer to an order, which pays this share of it, and to those who wait for the same masks."""
        placed, rows, places = part
        order, attempts = placed.order, flight.piece.attempts
        told = [Delivery(order.run_id, order.number, rows, part_of(measurement, places, share), error, paid=measurement is not None, attempts=attempts)]
        placed.finish(rows, late=not flight.live)
        if placed.keys is not None and placed.game.duplicates is not None:
            waiting: dict[Placed, tuple[list[int], list[int]]] = {}
            for place, other, its_row in placed.game.duplicates.take(placed, placed.keys, rows.tolist()):
                mine = waiting.setdefault(other, ([], []))
                mine[0].append(its_row)
                mine[1].append(int(places[place]))
            for other, (its_rows, its_places) in waiting.items():
                told.append(self._tell_too(other, np.array(its_rows, dtype=np.intp), part_of(measurement, np.array(its_places), 0.0), error, attempts))
        if not placed.left:
            self._drop(placed)
        return told

    def _tell_too(self, other: Placed, rows: Rows, measurement: Measurement | None, error: Exception | None, attempts: int) -> Delivery:
        """Deliver the answer to another order's masks, free of charge."""
        other.move(rows, SHARED, DONE)
        self._saved += len(rows) if measurement is not None else 0
        if not other.left:
            self._drop(other)
        return Delivery(other.order.run_id, other.order.number, rows, measurement, error, paid=False, attempts=attempts)

    # ---- taking back

    def _bequeath(self, placed: Placed, heirs: Heirs) -> None:
        """Pass the leases of an order on to those who wait for the same masks."""
        for flight in list(placed.flights):
            flight.parts = [part for old in flight.parts for part in (inherited(old, heirs) if old[0] is placed else [old])]
            for other, rows, _ in flight.parts:
                other.flights[flight] = None
                if flight.live:
                    other.move(other.among(rows, SHARED), SHARED, LEASED)

    def _release(self, worker: Worker, flight: Flight) -> None:
        """Note that a worker does not hold a lease any more."""
        if worker.flights.pop(flight.lease.number, None) is None:
            return
        holding = flight.run.holding
        holding[worker.name] -= 1
        if not holding[worker.name]:
            del holding[worker.name]
        self._shares.wake(flight.run)

    def _fence(self, worker: Worker, flight: Flight) -> None:
        """Take a lease from its worker. It may still be answered, as long as somebody waits."""
        flight.live = False
        self._release(worker, flight)
        if not flight.parts:
            del self._flights[flight.lease.number]

    def _requeue(self, flight: Flight) -> list[Delivery]:
        """Give the rows of a lease to other workers."""
        for placed, rows, _ in flight.parts:
            self._waiting.put_back(flight.piece.again(placed, placed.among(rows, LEASED)))
        return []

    def _blame(self, flight: Flight, reason: str) -> list[Delivery]:
        """Hold the masks of a lease responsible for a worker: halve them, or quarantine a single one that has failed too often."""
        failure = self._quarantine.record(flight.lease.worker)
        killed = flight.piece.killed | {failure.worker}
        told: list[Delivery] = []
        for placed, leased, _ in flight.parts.copy():
            rows = placed.among(leased, LEASED)
            if len(flight.lease.rows) > 1:
                for half in (rows[len(rows) // 2 :], rows[: len(rows) // 2]):
                    self._waiting.put_back(Piece(placed, half, flight.piece.attempts, killed))
            elif len(rows):
                failures = (*flight.piece.failures, failure)
                if self._quarantine.guilty(failures, self._waiting.present() | killed):
                    error = self._quarantine.add(placed.order, int(rows[0]), failures, reason)
                    told += self._tell((placed, rows, places_of(1)), flight, None, error, share=0.0)
                else:
                    self._waiting.put_back(Piece(placed, rows, flight.piece.attempts, killed, failures))
        return told

    def _drop(self, placed: Placed) -> None:
        """Forget an order, and the expired leases that nobody else waits for."""
        placed.run.orders.pop(placed.order.number, None)
        placed.game.remove(placed)
        for flight in placed.flights:
            flight.parts = [part for part in flight.parts if part[0] is not placed]
            if not flight.parts and not flight.live:
                self._flights.pop(flight.lease.number, None)
        placed.flights.clear()

    def _game(self, order: Order) -> GameOrders:
        """The books of a game, with slopes or without: the answers differ, and so do their costs. Those that nobody uses are forgotten when there are too many."""
        game = self._games.pop((order.fingerprint, order.slopes), None) or GameOrders(order.fingerprint)
        self._games[order.fingerprint, order.slopes] = game  # the newest is the last
        if len(self._games) > 2 * GAMES_REMEMBERED:
            idle = [name for name, other in self._games.items() if not other.orders and other is not game]
            for name in idle[: len(self._games) - GAMES_REMEMBERED]:
                del self._games[name]
        return game
