"""What the Ray dashboard and Prometheus show of the service: `ray_raysp_*`. The README of this folder lists all of them."""

from collections import Counter as Count
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ray.util.metrics import Counter, Gauge

from raysp.runs.progress import Progress
from raysp.runs.state import EvaluatorState
from raysp.scheduling import BrokerState

#: Phases that evaluate masks.
MEASURING = {"explore", "validate"}
#: How often gauges are published. Ray forgets those that are not published for two of its own intervals, and so those of runs that have ended.
PUBLISH_SECONDS = 1.0


@dataclass(slots=True)
class Totals:
    """What was measured since the scheduler started: evaluations, their tokens and seconds of model time; those found in the store; answers that wait to be stored."""

    evaluations: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    found: int = 0
    lag: int = 0


class ServiceMetrics:
    """Counters over all runs of a scheduler, and gauges of what is there now: a run that has ended has none."""

    def __init__(self) -> None:
        run = ("run",)
        self._counters = {
            "evaluations": Counter("raysp_evaluations", "Evaluations measured and stored."),
            "tokens": Counter("raysp_tokens", "Model tokens of the evaluations measured."),
            "seconds": Counter("raysp_model_seconds", "Seconds of model time of the evaluations measured."),
            "found": Counter("raysp_cache_hits", "Evaluations found in the store in place of being measured."),
            "duplicates": Counter("raysp_duplicates_saved", "Evaluations that several runs asked for at the same time and that were measured once."),
            "retries": Counter("raysp_retries", "Batches that were given to another evaluator after a loss."),
            "quarantined": Counter("raysp_quarantined_masks", "Masks that were given up because evaluators died of them."),
        }
        self._before = dict.fromkeys(self._counters, 0.0)
        self._queue = Gauge("raysp_queue_depth", "Masks that a run has ordered and that have no answer yet.", run)
        self._done = Gauge("raysp_run_done", "Evaluations that a run has, measured or found.", ("run", "phase"))
        self._rate = Gauge("raysp_evaluations_per_second", "Evaluations measured per second of a run.", ("run", "phase"))
        self._left = Gauge("raysp_seconds_left", "Estimated seconds of measuring to the end of a run.", ("run", "phase"))
        self._r2 = Gauge("raysp_r2", "Quick held-out R2 of a run's surrogate so far.", run)
        self._runs = Gauge("raysp_runs", "Runs known to the scheduler by state.", ("state",))
        self._evaluators = Gauge("raysp_evaluators", "Evaluators by state: starting, idle, busy, lost.", ("state",))
        self._resident = Gauge("raysp_resident_models", "Evaluators that hold a model in memory.", ("model",))
        self._lag = Gauge("raysp_store_lag", "Answers that wait to be stored.")

    def publish(
        self,
        totals: Totals,
        broker: BrokerState,
        *,
        runs: Mapping[str, int],
        progress: Iterable[Progress],
        evaluators: Iterable[EvaluatorState],
    ) -> None:
        """Publish what is there: totals, the broker's queue, runs by state, the progress of those under way, and the evaluators."""
        self._count(
            evaluations=totals.evaluations,
            tokens=totals.tokens,
            seconds=totals.seconds,
            found=totals.found,
            duplicates=broker.duplicates_saved,
            retries=broker.retries,
            quarantined=broker.quarantined,
        )
        for run_id, queued in broker.queued.items():
            self._queue.set(queued + broker.in_flight.get(run_id, 0) + broker.shared.get(run_id, 0), {"run": run_id})
        for each in progress:
            self._show(each)
        for state, count in runs.items():
            self._runs.set(count, {"state": state})
        evaluators = list(evaluators)
        for state, count in Count(each.state for each in evaluators).items():
            self._evaluators.set(count, {"state": state})
        for model, count in Count(model for each in evaluators for model in each.resident).items():
            self._resident.set(count, {"model": model})
        self._lag.set(totals.lag)

    def _count(self, **now: float) -> None:
        for name, value in now.items():
            if value > self._before[name]:
                self._counters[name].inc(value - self._before[name])
                self._before[name] = value

    def _show(self, progress: Progress) -> None:
        if progress.r2 is not None:
            self._r2.set(progress.r2, {"run": progress.run_id})
        if progress.phase in MEASURING and progress.total:
            tags = {"run": progress.run_id, "phase": progress.phase}
            self._done.set(progress.done, tags)
            self._rate.set(progress.rate, tags)
            if progress.left is not None:
                self._left.set(progress.left, tags)
