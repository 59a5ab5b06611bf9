"""Batches of one game on many evaluators: each evaluator holds two at a time, lost ones go to others, late ones are measured twice."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import ray
from ray.exceptions import PendingCallsLimitExceeded, RayError, RayTaskError

from raysp.errors import InterruptedRunError
from raysp.game import GameInfo, Measurement
from raysp.gradients import GradientReport
from raysp.masks import Masks, pack
from raysp.runtime.pieces import Piece, Pieces
from raysp.runtime.pool import POLL_SECONDS, Call, Cancelled, Member, Pool, never, reason
from raysp.specs.lenses import with_dtype
from raysp.specs.run import AnyLens
from raysp.validation.numeric_noise import NoiseSample

#: Batches that an evaluator holds: one that it measures and one that waits, so that it is never idle between them.
DEPTH = 2
#: A batch that takes this many times the median, and at least this long, is given to an idle evaluator as well.
STRAGGLER_FACTOR = 10.0
STRAGGLER_SECONDS = 60.0


class PoolBackend:
    """One game on a pool, as the backend of a run."""

    def __init__(self, pool: Pool, lens: AnyLens, cancelled: Cancelled = never) -> None:
        self._pool, self._cancelled = pool, cancelled
        self.retried = 0
        self._last = ""
        self.rebuild(lens)

    def rebuild(self, lens: AnyLens) -> None:
        """As `Backend.rebuild`. One evaluator resolves dtype `auto`, and all are given the result."""
        self.info: GameInfo = self._pool.ask("describe", lens.key, ray.put(lens), cancelled=self._cancelled)
        resolved = with_dtype(lens, str(self.info.description.get("dtype")))
        self._key, self._lens = resolved.key, ray.put(resolved)

    def noise_sample(self, lens: AnyLens, masks: Masks, first: Measurement | None = None) -> NoiseSample:  # noqa: ARG002  the lens is its own
        """As `sample_noise`, in one of the evaluators."""
        return self._ask("noise_sample", pack(masks), first)

    @property
    def workers(self) -> int:
        """The number of evaluators, ready or still starting."""
        return len(self._pool.members)

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """What gradients say about the game, as `Game.gradient_report`."""
        return self._ask("gradient_report", max_order)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._pool.ask(method, self._key, self._lens, self.info.fingerprint, *arguments, cancelled=self._cancelled)

    def measure(self, batches: Sequence[Masks]) -> Iterator[tuple[int, slice, Measurement]]:
        """As `Backend.measure`. Batches of an evaluator that dies are measured again.

        EvaluationError, once all else is measured, that names a mask which every evaluator died of; InterruptedRunError once cancelled.
        """
        pieces, flights = Pieces([len(masks) for masks in batches]), dict[Any, tuple[Piece, Call]]()
        durations: list[float] = []
        try:
            while pieces.unfinished:
                self._fill(batches, pieces, flights, durations)
                returned, _ = ray.wait(list(flights), timeout=POLL_SECONDS) if flights else ([], [])
                if not returned and self._cancelled():
                    raise InterruptedRunError("the run was cancelled")
                for reference in returned:
                    piece, call = flights.pop(reference)
                    measurement = self._arrived(pieces, piece, call)
                    if measurement is not None and pieces.finish(piece):
                        durations.append(time.monotonic() - call.sent)
                        yield piece.batch, piece.rows, measurement
        finally:
            self._pool.abandon([call for _, call in flights.values()])
        pieces.check(batches, self.info, self._last)

    def _arrived(self, pieces: Pieces, piece: Piece, call: Call) -> Measurement | None:
        """The measurement of a piece; None if it was lost with its evaluator, which `pieces` is told."""
        try:
            return self._pool.fetch(call)
        except RayTaskError:
            raise  # the evaluator raised it, and is alive
        except RayError as error:
            self.retried, self._last = self.retried + 1, reason(error)
            if call.to_blame:
                pieces.lose(piece)
            else:
                pieces.send_again(piece)
            return None

    def _fill(self, batches: Sequence[Masks], pieces: Pieces, flights: dict[Any, tuple[Piece, Call]], durations: list[float]) -> None:
        """Give every ready evaluator its two pieces; an idle one takes over a straggler if nothing waits."""
        load = Counter(call.member.name for _, call in flights.values())
        for member in sorted(self._pool.await_ready(self._cancelled), key=lambda member: load[member.name]):
            while load[member.name] < DEPTH:
                piece = pieces.next()
                if piece is None and load[member.name] == 0:
                    piece = _straggler(list(flights.values()), durations, member)
                if piece is None:
                    break
                try:
                    call = self._pool.send(member, "measure", self._key, self._lens, self.info.fingerprint, pack(batches[piece.batch][piece.rows]))
                except PendingCallsLimitExceeded:
                    pieces.send_again(piece)
                    break
                flights[call.reference] = piece, call
                load[member.name] += 1


def _straggler(flights: Sequence[tuple[Piece, Call]], durations: list[float], idle: Member) -> Piece | None:
    """A piece that another evaluator has held for suspiciously long, and that nobody else was given."""
    limit = max(STRAGGLER_SECONDS, STRAGGLER_FACTOR * median(durations)) if durations else STRAGGLER_SECONDS * STRAGGLER_FACTOR
    copies = Counter(piece for piece, _ in flights)
    now = time.monotonic()
    return next((piece for piece, call in flights if now - call.sent > limit and copies[piece] == 1 and call.member is not idle), None)
