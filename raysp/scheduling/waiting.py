"""What waits for workers: the pieces of each run, and which of them a worker is given next."""

from collections.abc import Callable, Collection, Mapping

import numpy as np

from raysp.scheduling.fairness import Shares
from raysp.scheduling.inheritance import Heirs, inherited
from raysp.scheduling.ledger import LEASED, QUEUED, SHARED, Piece, Placed, RunShare, Worker
from raysp.scheduling.order import Rows

#: A run whose model the worker has loaded is served before another one if it is ahead by at most this virtual time, in seconds.
RESIDENT_SECONDS = 2.0
#: Runs that are looked at for one whose model is loaded.
LOOK_AHEAD = 8
#: A worker that is idle and has not asked for a lease for this long is not counted on to take over what others failed with.
ABSENT_SECONDS = 60.0


class Waiting:
    """The pieces that wait, each in the queue of its run; those that workers died of wait apart, as suspects. `workers` are those of the broker, by name."""

    def __init__(self, shares: Shares, workers: Mapping[str, Worker], clock: Callable[[], float]) -> None:
        self._shares, self._workers, self._clock = shares, workers, clock

    # ---- queueing

    def add(self, placed: Placed, rows: Rows) -> None:
        """Queue rows of a new order after all others of its run."""
        if len(rows):
            placed.run.queue.append(Piece(placed, rows))
            self._shares.wake(placed.run)

    def put_back(self, piece: Piece, before: int = LEASED) -> None:
        """Queue a piece, whose rows are in this state, before all others of its run."""
        if not len(piece.rows):
            return
        run = piece.placed.run
        piece.placed.move(piece.rows, before, QUEUED)
        if piece.killed:
            run.suspects.append(piece)
        else:
            run.queue.appendleft(piece)
        self._shares.wake(run)

    def pass_on(self, run: RunShare, heirs: dict[Placed, Heirs]) -> None:
        """Queue the rows that a run has waiting for those who inherit them."""
        for piece in (*run.suspects, *run.queue):
            for other, rows, _ in inherited((piece.placed, piece.rows, piece.rows), heirs.get(piece.placed, {})):
                self.put_back(piece.again(other, other.among(rows, SHARED)), SHARED)

    # ---- choosing

    def choose(self, asking: Worker, resident: Collection[str]) -> Piece | None:
        """The piece to serve next. Its run has left the competition; all others stay in it."""
        passed: list[RunShare] = []
        best: Piece | None = None
        horizon = np.inf
        for run in self._shares.competing():
            passed.append(run)
            if (len(passed) > LOOK_AHEAD and best is not None) or run.virtual > horizon:
                break
            piece = self._next(run, asking)
            if piece is None:
                continue
            loaded = piece.is_loaded(resident)
            if best is None or loaded:
                best = piece
            if loaded or not resident:
                break
            horizon = min(horizon, run.virtual + RESIDENT_SECONDS)
        best = self._of_own(asking, best)
        for run in passed:
            if best is None or run is not best.placed.run:
                self._shares.resume(run)
        return best

    def _of_own(self, asking: Worker, best: Piece | None) -> Piece | None:
        """The next piece of the run whose lease the worker has, if that run may have no further worker but this one; otherwise the best of others."""
        for flight in asking.flights.values():
            run = flight.run
            if run.counts[QUEUED] and not run.ready and not run.closed and (best is None or run.virtual <= best.placed.run.virtual):
                return self._next(run, asking) or best
        return best

    def _next(self, run: RunShare, asking: Worker) -> Piece | None:
        """The next piece of a run that this worker may have. A worker is not given what it failed with while there are others."""
        run.suspects = [piece for piece in run.suspects if piece.refresh()]
        for piece in run.suspects:
            if self._may_try(asking, piece):
                return piece
        while run.queue:
            if run.queue[0].refresh():
                return run.queue[0]
            run.queue.popleft()
        return None

    def _may_try(self, asking: Worker, piece: Piece) -> bool:
        """Whether there is no better worker for a piece that others failed with: one that has not failed with it, or at least not when it was alone."""
        failed = (piece.killed, {failure.worker for failure in piece.failures})
        return all(asking.name not in names or not self.present(names) for names in failed)

    def present(self, without: Collection[str] = ()) -> set[str]:
        """The workers that can be counted on, without some."""
        since = self._clock() - ABSENT_SECONDS
        return {name for name, worker in self._workers.items() if name not in without and worker.stalled is None and (worker.flights or worker.seen >= since)}
