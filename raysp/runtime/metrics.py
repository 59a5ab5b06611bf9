"""What the Ray dashboard and Prometheus show of the service: `ray_raysp_*`, as `metric_definitions.py` describes them."""

import shutil
import threading
import time
from collections import Counter as Count
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ray.util.metrics import Counter, Gauge

from raysp.runs.progress import Progress
from raysp.runs.state import EvaluatorState
from raysp.runtime.metric_definitions import METRICS
from raysp.scheduling import BrokerState

#: Phases that evaluate masks.
MEASURING = {"explore", "validate"}
#: How often gauges are published. Ray forgets those that are not published for two of its own intervals, and so those of runs that have ended.
PUBLISH_SECONDS = 1.0


@dataclass(slots=True)
class Totals:
    """What was measured since the scheduler started: evaluations, their tokens and seconds of model time; those found in the store.

    `lag` answers wait to be stored, the oldest since `waiting_since` on the monotonic clock (None: none waits).
    """

    evaluations: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    found: int = 0
    lag: int = 0
    waiting_since: float | None = None


class Silence:
    """For how long each run has neither got an answer nor begun another step."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[Progress, float]] = {}

    def observe(self, progress: Iterable[Progress]) -> dict[str, float]:
        """The seconds of silence of the runs under way, which are these. Runs that are not among them are forgotten."""
        now, seen = self._clock(), {}
        for each in progress:
            step = replace(each, rate=0.0, left=None, r2=None)
            before = self._seen.get(each.run_id)
            seen[each.run_id] = before if before is not None and before[0] == step else (step, now)
        self._seen = seen
        return {run_id: now - since for run_id, (_, since) in seen.items()}


class ServiceMetrics:
    """Counters over all runs of a scheduler, and gauges of what is there now: a run that has ended has none.

    Ray sends what was added to a counter since it last did so, and what the agent of a busy node does not take is lost. The store has the exact numbers of evaluations, tokens and
    seconds.
    """

    def __init__(self) -> None:
        self._counters = {each.name: Counter(each.name, each.help, each.labels) for each in METRICS if each.kind == "counter"}
        self._gauges = {each.name: Gauge(each.name, each.help, each.labels) for each in METRICS if each.kind == "gauge"}
        self._before = dict.fromkeys(self._counters, 0.0)
        self._silence = Silence()
        self._shown: dict[str, set[str]] = {}

    def publish(
        self,
        totals: Totals,
        broker: BrokerState,
        *,
        runs: Mapping[str, int],
        progress: Iterable[Progress],
        evaluators: Iterable[EvaluatorState],
        lost: int,
    ) -> None:
        """Publish what is there: totals, the broker's queue, runs by state, the progress of those under way, the evaluators, and how many were lost."""
        self._count(
            raysp_evaluations=totals.evaluations,
            raysp_tokens=totals.tokens,
            raysp_model_seconds=totals.seconds,
            raysp_cache_hits=totals.found,
            raysp_duplicates_saved=broker.duplicates_saved,
            raysp_retries=broker.retries,
            raysp_quarantined_masks=broker.quarantined,
            raysp_evaluators_lost=lost,
        )
        waiting = {run_id: queued + broker.in_flight.get(run_id, 0) + broker.shared.get(run_id, 0) for run_id, queued in broker.queued.items()}
        self._set_all("raysp_queue_depth", "run", waiting)
        under_way = list(progress)
        for each in under_way:
            self._show(each)
        for run_id, seconds in self._silence.observe(under_way).items():
            self._set("raysp_seconds_since_progress", seconds, run=run_id)
        self._set_all("raysp_runs", "state", runs)
        evaluators = list(evaluators)
        self._set_all("raysp_evaluators", "state", Count(each.state for each in evaluators))
        self._set_all("raysp_resident_models", "model", Count(model for each in evaluators for model in each.resident))
        self._set("raysp_store_lag", totals.lag)
        since = totals.waiting_since
        self._set("raysp_store_lag_seconds", 0.0 if since is None else time.monotonic() - since)

    def watch_disks(self, stores: Callable[[], Iterable[Path]]) -> None:
        """Publish the disks of the stores that are open, from a thread of its own: a disk that does not answer keeps nobody else waiting."""

        def watch() -> None:
            while True:
                for store in stores():
                    with suppress(OSError):  # it was removed, or its disk is gone
                        disk = shutil.disk_usage(store.parent)
                        self._set("raysp_store_free_bytes", disk.free, store=str(store))
                        self._set("raysp_store_disk_bytes", disk.total, store=str(store))
                time.sleep(PUBLISH_SECONDS)

        threading.Thread(target=watch, name="disks", daemon=True).start()

    def _set(self, name: str, value: float, **labels: str) -> None:
        self._gauges[name].set(value, labels)

    def _set_all(self, name: str, label: str, now: Mapping[str, int]) -> None:
        """Set a gauge for each label. What was there before and is gone is 0 once: until Ray forgets it, it would be what it was last."""
        for each, value in (dict.fromkeys(self._shown.get(name, ()), 0) | dict(now)).items():
            self._set(name, value, **{label: each})
        self._shown[name] = set(now)

    def _count(self, **now: float) -> None:
        for name, value in now.items():
            if value > self._before[name]:
                self._counters[name].inc(value - self._before[name])
                self._before[name] = value

    def _show(self, progress: Progress) -> None:
        run = progress.run_id
        if progress.r2 is not None:
            self._set("raysp_r2", progress.r2, run=run)
        if progress.phase in MEASURING and progress.total:
            self._set("raysp_run_done", progress.done, run=run, phase=progress.phase)
            self._set("raysp_evaluations_per_second", progress.rate, run=run, phase=progress.phase)
            if progress.left is not None:
                self._set("raysp_seconds_left", progress.left, run=run, phase=progress.phase)
