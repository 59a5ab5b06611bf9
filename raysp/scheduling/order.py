"""What goes into the broker and what comes out of it: orders, leases, deliveries, and a snapshot of its state."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysp.errors import InterruptedRunError
from raysp.game import Measurement

Rows = NDArray[np.intp]
Packed = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Masks of one game that a run wants measured, about as many as fit into one batch.

    `packed` is uint8 `(m, ceil(n / 8))` as `raysp.masks.pack` makes it, with distinct rows. `number` is unique within the run. `fingerprint` is that of the
    game; two orders ask for the same answer if they agree in the fingerprint, a row, and in whether they want `slopes`. `model` names what a worker must have
    loaded for the game (None: nothing). `seconds` estimates the cost of one mask; the broker uses it until it has measured the game itself.
    """

    run_id: str
    number: int
    fingerprint: str
    packed: Packed
    n: int
    model: str | None = None
    seconds: float | None = None
    slopes: bool = False

    def __post_init__(self) -> None:
        if self.packed.dtype != np.uint8 or self.packed.ndim != 2 or not len(self.packed) or self.packed.shape[1] != -(-self.n // 8):
            shape = self.packed.shape
            raise ValueError(f"packed masks have shape {shape} and type {self.packed.dtype}; expected uint8 (m, {-(-self.n // 8)}) with m > 0")


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """Rows of one order that a worker is to measure before the clock shows `expires`. `packed` are the masks of `rows`; `seconds` is the estimated cost.

    `slopes`: with slopes.
    """

    number: int
    worker: str
    run_id: str
    order: int
    rows: Rows
    fingerprint: str
    packed: Packed
    expires: float
    seconds: float
    slopes: bool = False


class WithdrawnError(InterruptedRunError):
    """Masks that were not measured because the run that asked for them was told to stop."""


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """The answer to some `rows` of an order: a measurement of them, or the error that ends the run (`WithdrawnError` if it was told to end).

    `paid` tells whether this run is charged; the measurement of a run that is not charged costs no tokens and no seconds. `attempts` counts the leases that
    it took.
    """

    run_id: str
    order: int
    rows: Rows
    measurement: Measurement | None
    error: Exception | None
    paid: bool
    attempts: int


@dataclass(frozen=True, slots=True, eq=False)
class Expired:
    """Leases whose time has passed, and the deliveries of masks that were quarantined because of it."""

    leases: tuple[Lease, ...] = ()
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True)
class BrokerState:
    """A snapshot of the broker.

    By run: masks that wait to be leased (`queued`), masks that workers hold (`in_flight`), masks that wait for the answer to another order (`shared`), and
    seconds of work received (`served`). In all: leases held by workers (`leases`), and since the broker started: masks that were delivered without being
    measured again (`duplicates_saved`), leases that were given again (`retries`), masks quarantined, and answers for masks that nobody wanted any more (`unwanted`).
    """

    queued: Mapping[str, int]
    in_flight: Mapping[str, int]
    shared: Mapping[str, int]
    served: Mapping[str, float]
    leases: int
    duplicates_saved: int
    retries: int
    quarantined: int
    unwanted: int
