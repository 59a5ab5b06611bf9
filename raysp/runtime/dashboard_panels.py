"""How Grafana shows the metrics of the service and of its nodes, as data: `cluster/grafana/generate.py` makes dashboards of it.

Nothing here needs Grafana. Units are Grafana's names of them.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Query:
    """An expression for Prometheus, and how its series are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel over time, of values up to `most` if they have a bound. Some have data only where nodes have GPUs."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    style: Literal["lines", "stacked"] = "lines"
    most: float | None = None
    only_with_gpus: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard; one with `by_run` lets the reader choose among runs, as `$run`."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    by_run: bool = False


def _rate(metric: str) -> str:
    return f"sum(rate({metric}[$__rate_interval]))"


def _of_run(metric: str) -> str:
    """The newest value of each chosen run: after a restart of the scheduler there are two for a moment."""
    return f'max by (run) ({metric}{{run=~"$run"}})'


SERVICE = Dashboard(
    "raysp-service",
    "raysp: service",
    "What the service measures for all runs together, and the nodes that it runs on.",
    (
        Row(
            "Work",
            (
                Panel(
                    "Evaluations per second",
                    "Evaluations measured, of all runs; those found in the store are not among them.",
                    (Query(_rate("ray_raysp_evaluations_total"), "all runs"),),
                    "ops",
                ),
                Panel(
                    "Masks that wait, by run",
                    "Masks that a run has ordered and that have no answer yet. A run keeps a window of them in flight: level is healthy.",
                    (Query("sum by (run) (ray_raysp_queue_depth)", "{{run}}"),),
                    style="stacked",
                ),
                Panel("Runs by state", "Runs that the scheduler remembers.", (Query("sum by (state) (ray_raysp_runs)", "{{state}}"),), style="stacked"),
                Panel(
                    "Evaluators by state",
                    "Lost ones do not answer; starting ones wait for a node if there are none free.",
                    (Query("sum by (state) (ray_raysp_evaluators)", "{{state}}"),),
                    style="stacked",
                ),
                Panel(
                    "Resident models",
                    "How many evaluators hold each model in memory; a Python function is named by its fingerprint.",
                    (Query("max by (model) (ray_raysp_resident_models)", "{{model}}"),),
                ),
                Panel(
                    "Tokens per second",
                    "Tokens that models have read for the evaluations measured.",
                    (Query(_rate("ray_raysp_tokens_total"), "all runs"),),
                    "ops",
                ),
                Panel(
                    "Evaluators busy with models",
                    "Seconds of model time per second: the number of evaluators that were measuring all the time.",
                    (Query(_rate("ray_raysp_model_seconds_total"), "measuring"), Query('sum(ray_raysp_evaluators{state="busy"})', "given work")),
                ),
            ),
        ),
        Row(
            "Savings and losses",
            (
                Panel(
                    "Evaluations that cost nothing",
                    "Found in the store, or measured once for several runs.",
                    (
                        Query("sum(ray_raysp_cache_hits_total)", "found in the store"),
                        Query("sum(ray_raysp_duplicates_saved_total)", "measured once for several runs"),
                    ),
                ),
                Panel(
                    "Losses",
                    "Evaluators that died, batches that were measured again after that, and masks that were given up, since the scheduler started.",
                    (
                        Query("sum(ray_raysp_evaluators_lost_total)", "evaluators lost"),
                        Query("sum(ray_raysp_retries_total)", "batches measured again"),
                        Query("sum(ray_raysp_quarantined_masks_total)", "masks given up"),
                    ),
                ),
            ),
        ),
        Row(
            "Store",
            (
                Panel(
                    "Age of the oldest answer that is not stored",
                    "Nothing is told to a run before it is stored, so a slow disk slows all runs.",
                    (Query("max(ray_raysp_store_lag_seconds)", "oldest"),),
                    "s",
                ),
                Panel("Answers that wait to be stored", "Batches on their way into the store.", (Query("sum(ray_raysp_store_lag)", "answers"),)),
                Panel(
                    "Disk of the store that is full",
                    "The disk that holds each store that is open.",
                    (Query("max by (store) (1 - ray_raysp_store_free_bytes / ray_raysp_store_disk_bytes)", "{{store}}"),),
                    "percentunit",
                    most=1,
                ),
            ),
        ),
        Row(
            "Nodes",
            (
                Panel("CPU", "Use of the cores of each node.", (Query("max by (ip) (ray_node_cpu_utilization)", "{{ip}}"),), "percent", most=100),
                Panel(
                    "Memory",
                    "Memory of each node that is used; Ray kills tasks above 95%.",
                    (Query("max by (ip) (ray_node_mem_used / ray_node_mem_total)", "{{ip}}"),),
                    "percentunit",
                    most=1,
                ),
                Panel(
                    "GPU",
                    "Use of each GPU.",
                    (Query("max by (ip, GpuIndex) (ray_node_gpus_utilization)", "{{ip}} GPU {{GpuIndex}}"),),
                    "percent",
                    most=100,
                    only_with_gpus=True,
                ),
                Panel(
                    "GPU memory",
                    "Memory of each GPU that is used.",
                    (Query("max by (ip, GpuIndex) (ray_node_gram_used / (ray_node_gram_used + ray_node_gram_available))", "{{ip}} GPU {{GpuIndex}}"),),
                    "percentunit",
                    most=1,
                    only_with_gpus=True,
                ),
                Panel(
                    "Disk", "The disk of each node that is used.", (Query("max by (ip) (ray_node_disk_utilization_percentage)", "{{ip}}"),), "percent", most=100
                ),
            ),
        ),
    ),
)

RUNS = Dashboard(
    "raysp-runs",
    "raysp: runs",
    "Each run that is under way: how far it is, how good its surrogate is so far, and how long it will take.",
    (
        Row(
            "Runs under way",
            (
                Panel("Evaluations", "Evaluations that each run has, measured or found.", (Query(_of_run("ray_raysp_run_done"), "{{run}}"),)),
                Panel("Evaluations per second", "Evaluations measured.", (Query(_of_run("ray_raysp_evaluations_per_second"), "{{run}}"),), "ops"),
                Panel("R² so far", "A quick held-out estimate of the surrogate's R².", (Query(_of_run("ray_raysp_r2"), "{{run}}"),), "percentunit", most=1),
                Panel(
                    "Time left", "Measuring that is left at the present speed; fits come on top.", (Query(_of_run("ray_raysp_seconds_left"), "{{run}}"),), "s"
                ),
                Panel(
                    "Time since the last progress",
                    "Since the run got an answer or began another step.",
                    (Query(_of_run("ray_raysp_seconds_since_progress"), "{{run}}"),),
                    "s",
                ),
                Panel("Masks that wait", "Masks ordered that have no answer yet.", (Query(_of_run("ray_raysp_queue_depth"), "{{run}}"),)),
            ),
        ),
    ),
    by_run=True,
)

DASHBOARDS = (SERVICE, RUNS)
