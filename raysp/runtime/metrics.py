"""What the Ray dashboard and Prometheus show of the runs: `ray_raysp_*`."""

from ray.util.metrics import Counter, Gauge

from raysp.runs.progress import Progress

#: Phases that evaluate masks.
MEASURING = {"explore", "validate"}


class RunMetrics:
    """Counters over all runs of a scheduler, and gauges of each run under way, tagged by run and phase."""

    def __init__(self) -> None:
        tags = ("run", "phase")
        self._evaluations = Counter("raysp_evaluations", "Evaluations finished, from the store or measured.", tags)
        self._rate = Gauge("raysp_evaluations_per_second", "Evaluations measured per second in this phase; 0 once the phase is over.", tags)
        self._left = Gauge("raysp_seconds_left", "Estimated seconds to the end of this phase; 0 once it is over.", tags)
        self._r2 = Gauge("raysp_r2", "Quick held-out R2 of the surrogate so far; NaN once the phase is over.", tags)

    def observe(self, before: Progress, now: Progress) -> None:
        """Record one step of a run's progress. Gauges of the phase before it are reset: they would keep their last value for ever."""
        if before.phase != now.phase:
            self._reset(before)
        if not now.total or now.phase not in MEASURING:
            return
        tags = {"run": now.run_id, "phase": now.phase}
        fresh = now.done - (before.done if before.phase == now.phase and before.total == now.total else 0)
        if fresh > 0:
            self._evaluations.inc(fresh, tags)
        self._rate.set(now.rate, tags)
        if now.left is not None:
            self._left.set(now.left, tags)
        if now.r2 is not None:
            self._r2.set(now.r2, tags)

    def _reset(self, over: Progress) -> None:
        if over.phase in MEASURING:
            tags = {"run": over.run_id, "phase": over.phase}
            self._rate.set(0.0, tags)
            self._left.set(0.0, tags)
            self._r2.set(float("nan"), tags)
