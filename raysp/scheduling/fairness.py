"""Which run is served next: start-time fair queueing over the runs that have something waiting.

Each run has a virtual time, which advances by the seconds of work it is given over its weight; the run whose virtual time is least is served next. A run that
comes, or comes back, starts at the virtual time of the run that was served last, so idling earns nothing (Goyal, Vin and Cheng, SIGCOMM 1996).

The weight is `2 ** (priority - 5)`, times up to `SHORT_RUN_FACTOR` for a run that has less left to do than the longest one. A short run is thus served almost at
once, and the longest loses nothing by it: it would have ended last anyway.
"""

import heapq
from collections.abc import Callable, Iterator

from raysp.scheduling.ledger import RunShare

#: How much more a run weighs than the longest run, at most, if it has that many times less to do.
SHORT_RUN_FACTOR = 8.0
#: A run with less than this to do, in seconds of work, counts as having this much.
LEAST_SECONDS = 1.0
#: How often the longest run is looked for, in seconds.
LONGEST_AGE = 0.5
#: Outdated entries of the heap, for each run, before it is built anew.
OUTDATED = 4
PRIORITIES = range(10)


class Shares:
    """The open runs, and the order in which those with something waiting are served."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.runs: dict[str, RunShare] = {}
        self._clock = clock
        self._heap: list[tuple[float, int, RunShare]] = []
        self._entries = 0
        self._virtual = 0.0
        self._longest = LEAST_SECONDS
        self._looked = -float("inf")

    def open(self, run_id: str, priority: int, limit: int | None, masks: int | None) -> None:
        """Add a run, or change what an open one may have."""
        if priority not in PRIORITIES:
            raise ValueError(f"priority is {priority}; expected 0 to 9")
        if limit is not None and limit < 1:
            raise ValueError(f"workers is {limit}; expected at least 1")
        run = self.runs.get(run_id)
        if run is None:
            run = self.runs[run_id] = RunShare(run_id, priority, limit, masks)
        run.priority, run.limit, run.masks = priority, limit, masks
        self._looked = -float("inf")
        self.wake(run)

    def close(self, run: RunShare) -> None:
        """Remove a run."""
        del self.runs[run.run_id]
        run.closed, run.entry = True, 0
        self._looked = -float("inf")

    def wake(self, run: RunShare) -> None:
        """Let a run compete if it has something waiting and does not compete yet."""
        if not run.entry and run.ready:
            run.virtual = max(run.virtual, self._virtual)
            self._enter(run)

    def competing(self) -> Iterator[RunShare]:
        """The runs by virtual time, the least first. Each leaves the competition; `wake` lets it compete again."""
        while self._heap:
            _, entry, run = heapq.heappop(self._heap)
            if entry == run.entry:
                run.entry = 0
                if run.ready:
                    yield run

    def resume(self, run: RunShare) -> None:
        """Let a run compete again from the virtual time that it has."""
        if not run.entry and run.ready:
            self._enter(run)

    def charge(self, run: RunShare, seconds: float) -> float:
        """Charge a run that was chosen for the work it is given; the weight at which it was charged."""
        weight = self._weight(run)
        self._virtual = max(self._virtual, run.virtual)
        run.virtual += seconds / weight
        run.served += seconds
        return weight

    def correct(self, run: RunShare, seconds: float, weight: float) -> None:
        """Charge a run for work that took longer (or shorter, if negative) than it was charged for."""
        if run.closed:
            return
        run.virtual += seconds / weight
        run.served = max(run.served + seconds, 0.0)
        if run.entry:
            run.entry = 0
            self._enter(run)

    def _enter(self, run: RunShare) -> None:
        self._entries += 1
        run.entry = self._entries
        heapq.heappush(self._heap, (run.virtual, run.entry, run))
        if len(self._heap) > OUTDATED * (len(self.runs) + 16):
            self._heap = [item for item in self._heap if item[1] == item[2].entry]
            heapq.heapify(self._heap)

    def _weight(self, run: RunShare) -> float:
        now = self._clock()
        if now - self._looked > LONGEST_AGE:
            self._looked = now
            self._longest = max((other.remaining for other in self.runs.values()), default=0.0)
        shortness = self._longest / max(run.remaining, LEAST_SECONDS)
        return 2.0 ** (run.priority - 5) * min(max(shortness, 1.0), SHORT_RUN_FACTOR)
