"""Masks that kill workers: whether a death is a mask's fault, and the masks that are not given to workers any more."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysp.errors import EvaluationError
from raysp.game import Component, labels
from raysp.masks import unpack
from raysp.scheduling.order import Order

#: Workers that a mask must have killed, all by itself, before it is quarantined.
STRIKES = 3.0
#: A death within this time of another worker's is more likely the cluster's fault (a node, a kill of all workers), and counts less.
TOGETHER_SECONDS = 2.0
STRIKES_TOGETHER = 0.25
#: How long a mask stays quarantined. Then it may be tried again, as memory or the number of workers may have changed.
QUARANTINE_SECONDS = 600.0
#: Deaths remembered, to recognise those that come together.
REMEMBERED = 256
#: Components named in an error; a mask may remove thousands.
NAMED = 12
ADVICE = "what was measured is stored; their logs on the Ray dashboard tell why (most often memory: try a smaller model, bfloat16, or fewer evaluators)"


class QuarantinedMaskError(EvaluationError):
    """A mask of `n` components, without those in `removed`, that killed the workers it was given to; `last` describes the latest death."""

    def __init__(self, n: int, removed: tuple[int, ...], deaths: int, last: str, names: str | None = None) -> None:
        super().__init__(n, removed, deaths, last, names)
        self.n, self.removed, self.deaths, self.last, self.names = n, removed, deaths, last, names

    def labelled(self, components: Sequence[Component]) -> "QuarantinedMaskError":
        """The same error, naming the components by their labels."""
        return QuarantinedMaskError(self.n, self.removed, self.deaths, self.last, labels(components, self.removed[:NAMED]))

    def __str__(self) -> str:
        names = self.names if self.names is not None else "components " + ", ".join(map(str, self.removed[:NAMED])) if self.removed else "∅"
        more = " …" if len(self.removed) > NAMED else ""
        last = f", last with {self.last}" if self.last else ""
        return f"evaluators died {self.deaths} times of the mask without {len(self.removed)} of {self.n} components ({names}{more}){last}; {ADVICE}"


@dataclass(frozen=True, slots=True)
class Failure:
    """A worker that died, or did not answer in time, while it measured something."""

    worker: str
    time: float


class Quarantine:
    """What is known about deaths, and the masks that are quarantined."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deaths: deque[Failure] = deque(maxlen=REMEMBERED)
        self._masks: dict[str, dict[bytes, tuple[float, QuarantinedMaskError]]] = {}
        self.count = 0

    def record(self, worker: str) -> Failure:
        """Note the death of a worker."""
        failure = Failure(worker, self._clock())
        self._deaths.append(failure)
        return failure

    def guilty(self, failures: Sequence[Failure], workers: Collection[str]) -> bool:
        """Whether a mask that was alone in these failures is to be quarantined, with these workers to choose from.

        It must have failed on three different workers, where there are as many, or twice as often on fewer. Failures beside those of workers that measured
        something else count a quarter.
        """
        strikes = sum(STRIKES_TOGETHER if self._together(failure, failures) else 1.0 for failure in failures)
        different = len({failure.worker for failure in failures}) >= min(STRIKES, len(workers))
        return strikes >= (STRIKES if different else 2 * STRIKES)

    def _together(self, failure: Failure, own: Sequence[Failure]) -> bool:
        others = (other for other in self._deaths if other.worker != failure.worker and other not in own)
        return any(abs(other.time - failure.time) <= TOGETHER_SECONDS for other in others)

    def add(self, order: Order, row: int, failures: Sequence[Failure], last: str) -> QuarantinedMaskError:
        """Quarantine a row of an order; the error that names the mask."""
        removed = np.flatnonzero(~unpack(order.packed[row : row + 1], order.n)[0])
        error = QuarantinedMaskError(order.n, tuple(int(i) for i in removed), len(failures), last)
        self._masks.setdefault(order.fingerprint, {})[order.packed[row].tobytes()] = self._clock() + QUARANTINE_SECONDS, error
        self.count += 1
        return error

    def find(self, order: Order) -> dict[int, QuarantinedMaskError]:
        """The rows of an order that are quarantined."""
        masks = self._masks.get(order.fingerprint)
        if masks is None:
            return {}
        now = self._clock()
        for key in [key for key, (until, _) in masks.items() if until <= now]:
            del masks[key]
        if not masks:
            del self._masks[order.fingerprint]
        return {row: masks[key][1] for row, key in enumerate(keys(order.packed)) if key in masks}


def keys(packed: "np.ndarray[Any, np.dtype[np.uint8]]") -> list[bytes]:
    """Each row of packed masks as bytes."""
    width = packed.shape[1]
    flat = np.ascontiguousarray(packed).tobytes()
    return [flat[start : start + width] for start in range(0, len(flat), width)]
