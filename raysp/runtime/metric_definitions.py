"""The metrics of the service as data: `raysp_*`, which Prometheus and the Ray dashboard show with the prefix `ray_`.

`metrics.py` publishes them, `dashboard_panels.py` shows them, and the README of this folder lists them. Nothing here needs Ray or Grafana.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name without Ray's prefix, its kind, what it counts, and the labels that its values have."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The name in Prometheus."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


METRICS = (
    Metric("raysp_evaluations", "counter", "evaluations measured and stored"),
    Metric("raysp_tokens", "counter", "model tokens of the evaluations measured"),
    Metric("raysp_model_seconds", "counter", "seconds of model time of the evaluations measured"),
    Metric("raysp_cache_hits", "counter", "evaluations found in the store in place of being measured"),
    Metric("raysp_duplicates_saved", "counter", "evaluations that several runs asked for at the same time and that were measured once"),
    Metric("raysp_retries", "counter", "batches that were given to another evaluator after a loss"),
    Metric("raysp_quarantined_masks", "counter", "masks that were given up because evaluators died of them"),
    Metric("raysp_evaluators_lost", "counter", "evaluators that died"),
    Metric("raysp_queue_depth", "gauge", "masks that a run has ordered and that have no answer yet", ("run",)),
    Metric("raysp_run_done", "gauge", "evaluations that a run has, measured or found", ("run", "phase")),
    Metric("raysp_evaluations_per_second", "gauge", "evaluations measured per second", ("run", "phase")),
    Metric("raysp_seconds_left", "gauge", "estimated seconds of measuring to the end of the run", ("run", "phase")),
    Metric("raysp_r2", "gauge", "quick held-out R2 of the surrogate so far", ("run",)),
    Metric("raysp_seconds_since_progress", "gauge", "seconds since a run got its last answer or began another step", ("run",)),
    Metric("raysp_runs", "gauge", "runs known to the scheduler", ("state",)),
    Metric("raysp_evaluators", "gauge", "evaluators that are starting, idle, busy or lost", ("state",)),
    Metric("raysp_resident_models", "gauge", "evaluators that hold a model in memory", ("model",)),
    Metric("raysp_store_lag", "gauge", "answers that wait to be stored"),
    Metric("raysp_store_lag_seconds", "gauge", "seconds that the oldest of them has waited"),
    Metric("raysp_store_free_bytes", "gauge", "free bytes of the disk that holds a store which is open", ("store",)),
    Metric("raysp_store_disk_bytes", "gauge", "size in bytes of that disk", ("store",)),
)
