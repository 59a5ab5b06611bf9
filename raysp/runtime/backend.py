"""The backend of a run whose evaluations are orders of the cluster's scheduler, for a runner or any other process that is connected to Ray.

Orders are placed ahead of what the run has taken, in a window: enough of them for every evaluator, and no more, so that no other process holds the masks of a
whole run. A thread of its own places them and collects the answers, so that evaluators are never idle while the run fits something. A scheduler that was
restarted is told again what was asked of it; what it had stored costs nothing.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.game import GameInfo, Measurement
from raysp.gradients import GradientReport
from raysp.masks import Masks, pack
from raysp.runs.backend import Answer, Batch
from raysp.runs.slopes import SlopeSample
from raysp.runtime.link import Link, never
from raysp.runtime.messages import Attached, Exchanged, PlacedOrder, Told, UnknownSessionError
from raysp.scheduling import QuarantinedMaskError, WithdrawnError
from raysp.scheduling.costs import RECENT
from raysp.specs.lenses import with_dtype
from raysp.specs.run import AnyLens
from raysp.validation.numeric_noise import NoiseSample

#: Orders in flight for each evaluator, and at least.
WINDOW_EACH, LEAST_WINDOW = 4, 64
#: How long the scheduler holds an exchange open for answers that are not there yet.
EXCHANGE_SECONDS = 1.0
#: Evaluators that measure for a run end about this many orders a second together: few enough for the scheduler, and enough for others to be served soon.
ORDERS_PER_SECOND = 20.0
#: An order is at most this much work, so that an evaluator may have two of them within a second. It is at most so many batches of the game, with at most so many
#: entries of masks, which Ray sends along with the call.
ORDER_SECONDS, MOST_TOGETHER, MOST_CELLS = 0.4, 16, 768 << 10
POLL_SECONDS = 0.25
#: How long a run that was told to stop waits for the batches under way, so that they are not paid for in vain.
LAST_SECONDS = 20.0


@dataclass(slots=True, eq=False)
class Outstanding:
    """A batch whose order is in flight; `open` are the rows without an answer."""

    batch: Batch
    order: PlacedOrder
    open: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.open = np.ones(len(self.order.packed), dtype=np.bool_)

    def give_up(self, rows: NDArray[np.intp]) -> None:
        """Expect no answer to these rows."""
        self.open[rows] = False

    def take(self, told: Told) -> Answer | None:
        """The answer to the rows that had none; None if all had one."""
        fresh = self.open[told.rows]
        if told.measurement is None or not fresh.any():
            return None
        rows = told.rows[fresh]
        self.open[rows] = False
        found = told.measurement if fresh.all() else told.measurement.rows(fresh)
        return Answer(self.batch, rows, found, stored=told.stored, reused=told.reused)


class Pace:
    """How long a mask takes an evaluator, by the answers: the mean of the newest, in seconds."""

    def __init__(self) -> None:
        self._each = 0.0

    def together(self, told: Sequence[Told], info: GameInfo, workers: int) -> int:
        """The number of batches of the game that make an order of the right size for so many evaluators, after these answers."""
        for measured in (each.measurement for each in told if each.measurement is not None and not each.reused):
            each = measured.seconds / len(measured.values)
            self._each += (each - self._each) * (RECENT if self._each else 1.0)
        wanted = min(ORDER_SECONDS, workers / ORDERS_PER_SECOND)
        most = wanted / (self._each * info.batch_masks) if self._each > 0 else 1.0
        return max(1, min(int(most), MOST_TOGETHER, MOST_CELLS // (info.batch_masks * max(info.n, 1))))


class ServiceBackend(AbstractContextManager["ServiceBackend"]):
    """One game on the cluster's evaluators, as the backend of a run.

    `session` names what is asked for here, and `payer` (by default the same) the run whose evaluations they become, in the store at `store`. `incarnation`
    distinguishes processes that use the same session one after the other. At most `workers` evaluators measure for it at once; a run has those of its spec.
    As a context manager, it ends its session.
    """

    remembers = True
    together = 1

    def __init__(
        self,
        link: Link,
        lens: AnyLens,
        *,
        session: str,
        store: Path,
        incarnation: str = "",
        payer: str | None = None,
        priority: int = 5,
        workers: int | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> None:
        self._link, self._session, self._incarnation, self._cancelled = link, session, incarnation, cancelled
        self._opening = (session, incarnation, store, payer or session, priority)
        self._limit = workers
        self._numbers = itertools.count()
        self._taken = 0
        self._pace = Pace()
        self._stopped_at: float | None = None
        self.desired = "running"
        try:
            self.rebuild(lens)
        except (UserError, EvaluationError):  # the scheduler has opened the session
            self._leave()
            raise

    def rebuild(self, lens: AnyLens, info: GameInfo | None = None) -> None:
        """As `Backend.rebuild`. One evaluator resolves dtype `auto`, and all are given the result; none is asked if the game is known as `info`."""
        self._take(self._attach(lens, info))
        self._lens = with_dtype(lens, str(self.info.description.get("dtype")))

    def _attach(self, lens: AnyLens, info: GameInfo | None) -> Attached:
        return self._link.call("attach", *self._opening, lens, info, self._limit, cancelled=self._cancelled)

    def _take(self, attached: Attached) -> None:
        self.info: GameInfo = attached.info
        self.workers = max(1, attached.workers)
        self._taken = 0

    def noise_sample(self, lens: AnyLens, masks: Masks, first: Measurement | None = None) -> NoiseSample:  # noqa: ARG002  the lens is its own
        """As `sample_noise`, in one of the evaluators."""
        return self._ask("noise_sample", pack(masks), first)

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """What gradients say about the game, as `Game.gradient_report`."""
        return self._ask("gradient_report", max_order)

    def slope_sample(self, masks: Masks) -> SlopeSample:
        """As `sample_slopes`, in one of the evaluators."""
        return self._ask("slope_sample", pack(masks))

    def _ask(self, method: str, *arguments: Any) -> Any:
        while True:
            try:
                return self._link.call("ask", self._session, method, self._lens, self.info.fingerprint, *arguments, cancelled=self._cancelled)
            except UnknownSessionError:  # of a scheduler that was restarted, or one that has not heard of this process for long
                self._take(self._attach(self._lens, self.info))

    def measure(self, batches: Iterable[Batch]) -> Iterator[Answer]:
        """As `Backend.measure`.

        Raises what the game raised, InterruptedRunError once cancelled and the batches under way are answered, and, when all else is measured, EvaluationError
        that names a mask which evaluators die of.
        """
        answers, left = SimpleQueue[Answer | BaseException | None](), threading.Event()
        threading.Thread(target=self._feed, args=(batches, answers, left), name="orders", daemon=True).start()
        try:
            while True:
                try:
                    answer = answers.get(timeout=POLL_SECONDS)
                except Empty:
                    self._check_last()
                    continue
                if answer is None:
                    return
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            left.set()

    def _feed(self, batches: Iterable[Batch], answers: "SimpleQueue[Answer | BaseException | None]", left: threading.Event) -> None:
        """Place orders and collect answers until there are no more, or nobody waits for them."""
        try:
            for answer in self._answers(iter(batches), left):
                answers.put(answer)
            answers.put(None)
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits for the answers
            answers.put(error)

    def _answers(self, batches: Iterator[Batch], left: threading.Event) -> Iterator[Answer]:
        outstanding: dict[int, Outstanding] = {}
        quarantined: list[QuarantinedMaskError] = []
        while not left.is_set():
            stopped = self._stopped()
            fresh = [] if stopped else self._fill(batches, outstanding)
            if not outstanding:
                if stopped:
                    raise InterruptedRunError("the run was cancelled")
                if quarantined:
                    raise quarantined[0]
                return
            self._check_last()
            for told in self._exchange(fresh, outstanding):
                answer = _answer(told, outstanding, quarantined)
                if answer is not None:
                    yield answer

    def _fill(self, batches: Iterator[Batch], outstanding: dict[int, Outstanding]) -> list[PlacedOrder]:
        """Fill the window with orders for the next batches."""
        fresh: list[PlacedOrder] = []
        for batch in itertools.islice(batches, max(0, self._window - len(outstanding))):
            order = PlacedOrder(next(self._numbers), batch.packed, batch.phase, batch.round, batch.positions, batch.slopes)
            outstanding[order.number] = Outstanding(batch, order)
            fresh.append(order)
        return fresh

    def _stopped(self) -> bool:
        return self._cancelled() or self.desired != "running"

    def _too_late(self) -> bool:
        """Whether the run was told to stop so long ago that it waits for nothing more."""
        if not self._stopped():
            return False
        self._stopped_at = self._stopped_at or time.monotonic()
        return time.monotonic() - self._stopped_at > LAST_SECONDS

    def _check_last(self) -> None:
        if self._too_late():
            raise InterruptedRunError("the run was cancelled")

    @property
    def _window(self) -> int:
        return max(LEAST_WINDOW, WINDOW_EACH * self.workers)

    def _exchange(self, fresh: list[PlacedOrder], outstanding: dict[int, Outstanding]) -> tuple[Told, ...]:
        orders, timeout = fresh, EXCHANGE_SECONDS
        while True:
            try:
                found: Exchanged = self._link.call("exchange", self._session, self._incarnation, orders, self._taken, timeout, cancelled=self._too_late)
                break
            except UnknownSessionError:  # a scheduler may die between the two calls as well
                self._take(self._attach(self._lens, self.info))
                orders, timeout = [each.order for each in outstanding.values()], 0.0
        if found.told:
            self._taken = found.told[-1].serial
            self.together = self._pace.together(found.told, self.info, self.workers)
        self.desired, self.workers = found.desired, max(1, found.workers)
        return found.told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()

    def _leave(self) -> None:
        self._link.call("leave", self._session, self._incarnation)


def _answer(told: Told, outstanding: dict[int, Outstanding], quarantined: list[QuarantinedMaskError]) -> Answer | None:
    """The answer that a session was told, None if it is no news. Raises what the game raised; masks that were given up are noted, so that all others are measured first."""
    asked = outstanding.get(told.order)
    if asked is None:
        return None  # of a round that was left
    if isinstance(told.error, WithdrawnError):
        asked.give_up(told.rows)
    elif isinstance(told.error, QuarantinedMaskError):
        quarantined.append(told.error)
        asked.give_up(told.rows)
    elif told.error is not None:
        raise told.error
    answer = asked.take(told)
    if not asked.open.any():
        del outstanding[told.order]
    return answer
