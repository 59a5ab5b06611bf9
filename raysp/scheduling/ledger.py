"""The broker's books: games, runs, orders with the state of each row, pieces of orders that wait, and leases that are out."""

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from raysp.game import Measurement
from raysp.scheduling.costs import Cost
from raysp.scheduling.duplicates import Duplicates
from raysp.scheduling.order import Lease, Order, Rows
from raysp.scheduling.quarantine import Failure, keys

#: States of a row: it waits for a worker, a worker has it, another order has it measured, or it was answered or given up.
QUEUED, LEASED, SHARED, DONE = range(4)
#: Weight of a worker's newest batch in its slowness, and how slow or fast a worker can be.
SLOWNESS_RECENT, MOST_SLOWNESS = 0.2, 100.0


@dataclass(slots=True, eq=False)
class GameOrders:
    """What the broker knows of one game, measured with slopes or without: its cost, its unfinished orders, and the index of masks while more than one run asks for some."""

    fingerprint: str
    cost: Cost = field(default_factory=Cost)
    orders: dict["Placed", None] = field(default_factory=dict)
    by_run: Counter[str] = field(default_factory=Counter)
    duplicates: Duplicates["Placed"] | None = None

    def add(self, placed: "Placed") -> None:
        """Add an order with all rows queued. Masks that another order has measured become shared."""
        self.orders[placed] = None
        self.by_run[placed.run.run_id] += 1
        if self.duplicates is None:
            if len(self.by_run) == 1:
                return  # nobody to share with
            self.duplicates = Duplicates()
            for other in self.orders:
                if other is not placed:
                    other.keys = keys(other.order.packed)
                    self.duplicates.claim(other, other.keys, np.flatnonzero(other.state != DONE).tolist())
        placed.keys = keys(placed.order.packed)
        undone = np.flatnonzero(placed.state != DONE)
        shared = self.duplicates.add(placed, placed.keys, undone.tolist())
        placed.move(np.array(shared, dtype=np.intp), QUEUED, SHARED)

    def remove(self, placed: "Placed") -> None:
        """Remove an order of which nothing is left."""
        del self.orders[placed]
        self.by_run[placed.run.run_id] -= 1
        if not self.by_run[placed.run.run_id]:
            del self.by_run[placed.run.run_id]
        if self.duplicates is not None and len(self.by_run) < 2 and not self.duplicates.shared:
            self.duplicates = None
            for other in self.orders:
                other.keys = None


@dataclass(slots=True, eq=False)
class RunShare:
    """A run, what it has waiting, and what it was given; `entry` is not 0 while it competes for workers. `holding` counts its leases by worker."""

    run_id: str
    priority: int
    limit: int | None
    masks: int | None
    cost: Cost | None = None
    virtual: float = 0.0
    served: float = 0.0
    entry: int = 0
    closed: bool = False
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    queue: deque["Piece"] = field(default_factory=deque)
    suspects: list["Piece"] = field(default_factory=list)
    orders: dict[int, "Placed"] = field(default_factory=dict)
    holding: Counter[str] = field(default_factory=Counter)

    @property
    def ready(self) -> bool:
        """Whether something waits that a further worker may take."""
        return bool(self.counts[QUEUED]) and not self.closed and (self.limit is None or len(self.holding) < self.limit)

    @property
    def remaining(self) -> float:
        """Seconds of work that the run has left: of the masks it announced, otherwise of those it waits for, or as much again as it was given."""
        if self.cost is None:
            return 0.0
        waiting = self.cost.each * (self.counts[QUEUED] + self.counts[LEASED])
        return max(waiting, self.served) if self.masks is None else max(waiting, self.cost.each * (self.masks - self.counts[DONE]))


@dataclass(slots=True, eq=False)
class Placed:
    """An order with the state of each of its rows. `keys` are its masks as bytes, while the game is shared; `flights` are the leases that have some.

    It is `disturbed` once a late answer came: only then may rows of a piece or a lease have been answered otherwise.
    """

    order: Order
    run: RunShare
    game: GameOrders
    state: NDArray[np.uint8]
    left: int
    keys: list[bytes] | None = None
    disturbed: bool = False
    flights: dict["Flight", None] = field(default_factory=dict)

    @classmethod
    def of(cls, order: Order, run: RunShare, game: GameOrders) -> "Placed":
        """An order, all of whose rows are queued."""
        count = len(order.packed)
        run.counts[QUEUED] += count
        return cls(order, run, game, np.zeros(count, dtype=np.uint8), count)

    def among(self, rows: Rows, state: int) -> Rows:
        """Those of these rows that are in a state."""
        fits = self.state[rows] == state
        return rows if fits.all() else rows[fits]

    def move(self, rows: Rows, before: int, after: int) -> None:
        """Change the state of rows that are all in the same one."""
        counts, moved = self.run.counts, len(rows)
        self.state[rows] = after
        counts[before] -= moved
        counts[after] += moved
        if after == DONE:
            self.left -= moved

    def finish(self, rows: Rows, *, late: bool) -> None:
        """Note that rows were answered: those of a lease, or, if `late`, rows that may have been queued or leased again since."""
        if not late:
            self.move(rows, LEASED, DONE)
            return
        self.disturbed = True
        for state in (QUEUED, LEASED):
            self.move(self.among(rows, state), state, DONE)


@dataclass(slots=True, eq=False)
class Piece:
    """Rows of an order that wait together, how often they were leased, the workers that failed with them, and their failures while alone in a lease."""

    placed: Placed
    rows: Rows
    attempts: int = 0
    killed: frozenset[str] = frozenset()
    failures: tuple[Failure, ...] = ()

    def is_loaded(self, resident: Collection[str]) -> bool:
        """Whether a worker that has these models loaded need load nothing for it."""
        model = self.placed.order.model
        return model is None or model in resident

    def refresh(self) -> bool:
        """Forget rows that were answered meanwhile; whether any are left."""
        if self.placed.disturbed:
            self.rows = self.placed.among(self.rows, QUEUED)
        return len(self.rows) > 0

    def split(self, count: int) -> "Piece":
        """Cut off the first rows, as a piece of its own."""
        first, self.rows = self.again(self.placed, self.rows[:count]), self.rows[count:]
        return first

    def again(self, placed: Placed, rows: Rows) -> "Piece":
        """A piece of the same history with other rows, perhaps of another order that asks for the same masks."""
        return Piece(placed, rows, self.attempts, self.killed, self.failures)


#: An order, some of its rows, and the places of their answers among those of a lease.
Part = tuple[Placed, Rows, Rows]


@dataclass(slots=True, eq=False)
class Flight:
    """A lease that is out, or that has expired and may still be answered (then it is not `live`).

    `parts` says who receives which of its rows: an order, rows of that order, and their places in the lease. There is one part unless a run was closed.
    """

    lease: Lease
    run: RunShare
    piece: Piece
    weight: float
    leased: float
    expires: float
    parts: list[Part]
    live: bool = True


@dataclass(slots=True, eq=False)
class Worker:
    """The leases that a worker has, the oldest first, when it last asked for one, and the expired lease that it has yet to answer.

    `slowness` is the time that it takes for what takes all workers a second, learned from its answers; `last` are the masks and the seconds of its last batch,
    and the cost of its game.
    """

    name: str
    seen: float
    slowness: float = 1.0
    last: tuple[Cost, int, float] | None = None
    answers: int = 0
    flights: dict[int, Flight] = field(default_factory=dict)
    stalled: int | None = None

    @property
    def seconds(self) -> float:
        """The estimated seconds of its leases; infinite if nothing is known of one of their games."""
        return sum(flight.lease.seconds if flight.piece.placed.game.cost.known else float("inf") for flight in self.flights.values())

    def learn(self, ratio: float) -> None:
        """Take how much longer a batch took than expected."""
        self.answers += 1
        weight = max(1 / (self.answers + 1), SLOWNESS_RECENT)
        self.slowness = min(max(self.slowness ** (1 - weight) * ratio**weight, 1 / MOST_SLOWNESS), MOST_SLOWNESS)


def places_of(count: int) -> Rows:
    """The places of all rows of a lease."""
    return _PLACES[:count] if count <= len(_PLACES) else np.arange(count, dtype=np.intp)


_PLACES = np.arange(4096, dtype=np.intp)
_PLACES.setflags(write=False)


def part_of(measurement: Measurement | None, places: Rows, share: float) -> Measurement | None:
    """Some rows of a measurement, with a share of its cost."""
    if measurement is None or (share == 1.0 and len(places) == len(measurement.values)):
        return measurement
    tokens, seconds = round(measurement.tokens * share), measurement.seconds * share
    return replace(measurement.rows(places), tokens=tokens, seconds=seconds)
