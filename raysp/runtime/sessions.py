"""What a process that wants evaluations has with the scheduler: the orders that it placed, and the answers that it has not taken yet."""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from raysp.game import GameInfo, Measurement
from raysp.runs.state import Desired
from raysp.runtime.messages import PlacedOrder, Told


@dataclass(slots=True, eq=False)
class OpenOrder:
    """An order of a session. `rows` are those that the broker was given (its rows are places in `rows`); `left` counts the rows without an answer."""

    order: PlacedOrder
    rows: NDArray[np.intp]
    left: int


@dataclass(eq=False)
class Session:
    """One process's orders of one game at a time. `payer` is the run (or other payer) whose evaluations they become, in the store at `store`.

    `files` are the hashes of the files that the game's lens names.
    """

    name: str
    incarnation: str
    store: Path
    payer: str
    priority: int
    is_run: bool
    info: GameInfo | None = None
    game_id: int | None = None
    files: frozenset[str] = frozenset()
    desired: Desired = "running"
    closed: bool = False
    retried: int = 0
    heard: float = field(default_factory=monotonic)
    orders: dict[int, OpenOrder] = field(default_factory=dict[int, OpenOrder])
    _outbox: deque[Told] = field(default_factory=deque[Told])
    _serial: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def reset(self, info: GameInfo) -> None:
        """Ask about this game from now on."""
        self.info, self.game_id = info, None

    @property
    def left(self) -> int:
        """The number of masks that the process waits for."""
        return sum(order.left for order in list(self.orders.values()))

    def fresh(self, orders: Iterable[PlacedOrder]) -> list[PlacedOrder]:
        """Those orders that the session has not placed before, which it now has."""
        found = [order for order in orders if order.number not in self.orders]
        for order in found:
            self.orders[order.number] = OpenOrder(order, np.arange(len(order.packed)), len(order.packed))
        return found

    def tell(
        self,
        number: int,
        rows: NDArray[np.intp],
        measurement: Measurement | None,
        error: BaseException | None = None,
        *,
        stored: bool = False,
        reused: bool = False,
    ) -> None:
        """Put an answer to some rows of an order where the process takes it."""
        opened = self.orders.get(number)
        if opened is None:
            return
        opened.left -= len(rows)
        if opened.left <= 0:
            del self.orders[number]
        with self._changed:
            self._serial += 1
            self._outbox.append(Told(self._serial, number, rows, measurement, error, stored, reused))
            self._changed.notify_all()

    def take(self, taken: int, timeout: float) -> tuple[Told, ...]:
        """The answers after number `taken`, waiting for the first of them; those before it have arrived and are forgotten."""
        self.heard = monotonic()
        with self._changed:
            while self._outbox and self._outbox[0].serial <= taken:
                self._outbox.popleft()
            self._changed.wait_for(lambda: self._outbox or self.closed or self.desired != "running", timeout)
            self.heard = monotonic()
            return tuple(self._outbox)

    def steer(self, desired: Desired) -> None:
        """Let the process know what is wanted of it."""
        with self._changed:
            self.desired = desired
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
