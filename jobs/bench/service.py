"""The service under synthetic load: how busy its workers are, how fast answers come through, and what short runs, duplicates and the store cost.

    python -m jobs.bench service [--quick] [--parts store,busy,rate,short,duplicates,many,large,cancelled]

Workers are real evaluators on several raylets of this machine that wait instead of computing, 50 ms for a batch. One JSON line for each part, and a summary last:

- `utilisation`: the share of their time that workers measure, while there is work; `long_run_utilisation`, of a run of ten million masks beside short ones,
- `evaluations_per_s`: asked for, measured, stored and told, by a game that takes no time,
- `short_run_slowdown`: the time of a question of 60 masks beside that long run, as a multiple of its time alone (medians; `_p95`: 95th percentiles), and its worst time in seconds,
- `duplicates_saved`: the share of masks that two runs asking the same at the same time did not pay for twice; at best one half,
- `answered`: how many of the short questions that were asked at once,
- `client_mib` and `scheduler_mib`: the most memory that this process and the scheduler held, `large` being a run of two million masks of 1,000 components;
  `kept_after_cancelling_mib`: what the scheduler holds more than before after five runs of ten million masks were cancelled,
- `bytes_per_evaluation` and `query_p95_ms`: of a store with ten million evaluations of 256 components in a thousand runs; `short_run_in_full_store`: the time of a
  run of 64 masks in it, as a multiple of that in an empty one; `next_snapshot_s`: the seconds that a snapshot for readers takes after ten thousand more evaluations.
"""

import argparse
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from jobs.bench.rows import rounded, say, write
from jobs.bench.service_games import waiting_lens
from raysp.runs.state import RunRequest
from raysp.specs.explorers import SinglesOptions
from raysp.specs.lenses import FunctionLens
from raysp.specs.run import RunSpec
from raysp.specs.validation import Validation
from raysp.store import Store

NODES = 4
BATCH_SECONDS = 0.05
#: Masks of a batch of a game that waits; a run divides its masks into batches at least as large.
BATCH = 16
#: Masks of a run that takes longer than anybody waits for it.
LONG = 10_000_000
COMMITS = "SELECT run_id, created, sum(evaluations) AS evaluations, sum(seconds) AS seconds FROM batches GROUP BY ALL ORDER BY run_id, created"
COSTS = "SELECT run_id, sum(evaluations) AS paid, sum(reused) AS reused FROM run_costs GROUP BY run_id"
PARTS = ("store", "busy", "rate", "short", "duplicates", "many", "large", "cancelled")
SUMMARY = (
    "utilisation",
    "evaluations_per_s",
    "bytes_per_evaluation",
    "query_p95_ms",
    "short_run_in_full_store",
    "next_snapshot_s",
    "short_run_slowdown",
    "short_run_slowdown_p95",
    "beside_worst_s",
    "long_run_utilisation",
    "kept_after_cancelling_mib",
    "duplicates_saved",
    "asked_at_once",
    "answered",
    "client_mib",
    "scheduler_mib",
)


class Load:
    """A service, its store, and questions to it."""

    def __init__(self, client: Any, store: Path, workers: int, nodes: Any) -> None:
        self._client, self.store, self.workers, self.nodes = client, store, workers, nodes

    def add_node(self) -> None:
        """Add a node with its share of the workers."""
        self.nodes.add_node(num_cpus=self.workers // NODES)

    def spec(self, name: str, masks: int, *, n: int = 64, seconds: float = BATCH_SECONDS, batch: int = BATCH, lens: FunctionLens | None = None) -> RunSpec:
        """A question of so many masks, at a batch of which each worker waits."""
        return RunSpec(
            lens=lens or waiting_lens(name, n, batch, seconds),
            explorer=SinglesOptions(budget=masks),
            validation=Validation(heldout=0, top=0, random=0, low_pairs=0),
            name=name,
            store=str(self.store),
            evaluators=self.workers,
            threads=1,
        )

    def start(self, *specs: RunSpec) -> list[str]:
        """Submit questions together; the ids of their runs."""
        requests = [RunRequest(spec, f"{spec.name}-{secrets.token_hex(4)}") for spec in specs]
        self._client.submit(requests)
        return [request.run_id for request in requests]

    def wait(self, run_ids: Sequence[str]) -> float:
        """Wait for runs; the seconds that it took. RuntimeError if one failed."""
        began = time.perf_counter()
        for state in self._client.follow(run_ids):
            if state.ended and state.status != "done":
                raise RuntimeError(f"{state.run_id} is {state.status}: {state.error}")
        return time.perf_counter() - began

    def measured(self, run_id: str, masks: int) -> int:
        """Wait until so many masks of a run are measured; how many are. RuntimeError if it ends before."""
        for state in self._client.follow([run_id]):
            if state.progress is not None and state.progress.done >= masks:
                return state.progress.done
        raise RuntimeError(f"{run_id} has ended")

    def ended(self, run_ids: Sequence[str]) -> None:
        """Wait until runs have ended, in whatever way."""
        for _ in self._client.follow(run_ids):
            pass

    def cancel(self, run_ids: Sequence[str]) -> None:
        """Cancel runs."""
        self._client.cancel(run_ids)

    def warm(self) -> None:
        """Have all evaluators started: questions that nobody asked before are asked until they have."""
        while sum(each.state in {"idle", "busy"} for each in self._client.status().evaluators) < self.workers:
            self.wait(self.start(self.spec(f"warm-{secrets.token_hex(4)}", 20 * BATCH * self.workers)))

    def batches(self, run_id: str, beyond: int = 0) -> tuple[int, float, float]:
        """Evaluations and seconds of a run's batches after the commit with the first `beyond` evaluations, and the time from then to the last."""
        with Store.read(self.store) as store:
            commits = [row for row in store.sql(COMMITS).to_pylist() if row["run_id"] == run_id]
        done = 0
        while (done := done + commits[0]["evaluations"]) < beyond:
            commits.pop(0)
        first, last = (_time(commits[place]["created"]) for place in (0, -1))
        return int(sum(row["evaluations"] for row in commits[1:])), sum(row["seconds"] for row in commits[1:]), (last - first).total_seconds()


def busy(load: Load, *, quick: bool) -> dict[str, Any]:
    """A run that keeps all workers waiting for some time."""
    (run_id,) = runs = load.start(load.spec("busy", round(load.workers * BATCH * (10 if quick else 60) / BATCH_SECONDS)))
    load.wait(runs)
    evaluations, seconds, took = load.batches(run_id)
    return {"workers": load.workers, "evaluations": evaluations, "seconds": took, "utilisation": seconds / (took * load.workers)}


def rate(load: Load, *, quick: bool) -> dict[str, Any]:
    """A run of a game that takes no time."""
    (run_id,) = runs = load.start(load.spec("rate", 60_000 if quick else 600_000, seconds=0.0, batch=256))
    load.wait(runs)
    evaluations, _, took = load.batches(run_id)
    return {"evaluations": evaluations, "seconds": took, "evaluations_per_s": evaluations / took}


def short(load: Load, *, quick: bool) -> dict[str, Any]:
    """Questions of 60 masks, alone and beside a run of ten million."""

    def tries(prefix: str) -> list[float]:
        return [load.wait(load.start(load.spec(f"{prefix}-{i}", 60, n=32))) for i in range(5 if quick else 20)]

    tries("before")
    alone = tries("alone")
    long = load.start(load.spec("long", 1_000_000 if quick else LONG, n=256))
    load.measured(long[0], 1000)  # its masks take longer to draw than its first batches
    time.sleep(5)
    beside = tries("beside")
    load.cancel(long)
    load.ended(long)
    _, seconds, took = load.batches(long[0], beyond=1000)
    return {
        "alone_s": median(alone),
        "alone_p95_s": p95(alone),
        "beside_s": median(beside),
        "beside_p95_s": p95(beside),
        "beside_worst_s": max(beside),
        "short_run_slowdown": median(beside) / median(alone),
        "short_run_slowdown_p95": p95(beside) / p95(alone),
        "long_run_utilisation": seconds / (took * load.workers),
    }


def cancelled(load: Load, *, quick: bool) -> dict[str, Any]:
    """The scheduler's memory before and after runs of ten million masks that are cancelled one after the other."""

    def cancel_one(name: str) -> None:
        long = load.start(load.spec(name, 1_000_000 if quick else LONG, n=256))
        load.measured(long[0], 1000)  # its masks take longer to draw than its first batches
        load.cancel(long)
        load.ended(long)

    cancel_one("cancelled-before")
    before = resident_mib(scheduler_pid())
    for i in range(5):
        cancel_one(f"cancelled-{i}")
    return {"before_mib": before, "kept_after_cancelling_mib": resident_mib(scheduler_pid()) - before}


def duplicates(load: Load, *, quick: bool) -> dict[str, Any]:
    """Two runs that ask for the same masks at the same time."""
    masks = round(load.workers * BATCH * (5 if quick else 20) / BATCH_SECONDS)
    lens = waiting_lens("same", 64, BATCH, BATCH_SECONDS)
    runs = load.start(*(load.spec(name, masks, lens=lens) for name in ("ann", "bob")))
    load.wait(runs)
    with Store.read(load.store) as store:
        costs = [row for row in store.sql(COSTS).to_pylist() if row["run_id"] in runs]
    paid, reused = (sum(float(cost[key] or 0) for cost in costs) for key in ("paid", "reused"))
    return {"paid": paid, "reused": reused, "duplicates_saved": reused / (paid + reused)}


def many(load: Load, *, quick: bool) -> dict[str, Any]:
    """Short questions that are asked at once, each of another game."""
    runs = load.start(*(load.spec(f"many-{i}", 60, n=32) for i in range(20 if quick else 100)))
    took = load.wait(runs)
    with Store.read(load.store) as store:
        done = [row["run_id"] for row in store.sql("SELECT run_id FROM runs WHERE status = 'done'").to_pylist()]
    return {"asked_at_once": len(runs), "answered": len(set(done) & set(runs)), "seconds": took}


def large(load: Load, *, quick: bool) -> dict[str, Any]:
    """A run of many large masks, which is cancelled once so many are measured: what fits them is no part of the service."""
    masks, began = 100_000 if quick else 2_000_000, time.perf_counter()
    runs = load.start(load.spec("large", masks + masks // 10, n=1000, seconds=0.0, batch=256))
    done = load.measured(runs[0], masks)
    took = time.perf_counter() - began
    load.cancel(runs)
    return {"evaluations": done, "seconds": took, "client_mib": peak_mib(os.getpid())}


LOADS: dict[str, Callable[..., dict[str, Any]]] = {
    "busy": busy,
    "rate": rate,
    "short": short,
    "duplicates": duplicates,
    "many": many,
    "large": large,
    "cancelled": cancelled,
}


@contextmanager
def service(workers: int) -> Generator[Load]:
    """A Ray of several raylets on this machine with so many workers in all, and a store of its own."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import ray
    from ray.cluster_utils import Cluster

    from raysp.runtime.client import Client
    from raysp.runtime.cluster import NAMESPACE, forget_actor_classes

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(NODES):
            nodes.add_node(num_cpus=workers // NODES)
        ray.init(address=nodes.address, namespace=NAMESPACE, log_to_driver=False)
        nodes.wait_for_nodes()
        with tempfile.TemporaryDirectory() as folder:
            client = Client(str(nodes.address))
            load = Load(client, Path(folder) / "bench.duckdb", workers, nodes)
            load.warm()
            yield load
            client.close_scheduler()
            client.close()
    finally:
        ray.shutdown()
        forget_actor_classes()
        nodes.shutdown()


def scheduler_pid() -> int:
    """The process of the scheduler of this process's cluster."""
    import ray

    from raysp.runtime.cluster import NAMESPACE
    from raysp.runtime.scheduler import NAME

    pid: Any = ray.get(ray.get_actor(NAME, NAMESPACE).__ray_call__.remote(_pid))
    return pid


def peak_mib(pid: int) -> float:
    """The most memory that a process of this machine has held, in MiB."""
    return _status(pid, "VmHWM") / 1024


def resident_mib(pid: int) -> float:
    """The memory that a process of this machine holds now, in MiB."""
    return _status(pid, "VmRSS") / 1024


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def p95(seconds: Sequence[float]) -> float:
    """The 95th percentile."""
    return quantiles(seconds, n=20, method="inclusive")[-1]


def rows(parts: Sequence[str], *, workers: int, quick: bool) -> Iterator[dict[str, Any]]:
    """The rows of these parts."""
    if "store" in parts:
        from jobs.bench import service_store

        yield from service_store.rows(*((1_000_000, 100) if quick else (10_000_000, 1_000)))
    if any(part in LOADS for part in parts):
        with service(workers) as load:
            for name, part in LOADS.items():
                if name in parts:
                    say(f"service: {name}")
                    yield {"part": name, **part(load, quick=quick)}
            yield {"part": "scheduler", "scheduler_mib": peak_mib(scheduler_pid())}


def main() -> int:
    """Measure, print a row for each part and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 workers and a store of a million evaluations: under five minutes")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts, separated by commas (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="number of workers, a multiple of 4 (default: 32; 8 with --quick)")
    given = parser.parse_args()
    parts = given.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))} is not known; choose from {', '.join(PARTS)}")
    summary: dict[str, Any] = {"benchmark": "service", "quick": given.quick}
    for row in rows(parts, workers=given.workers or (8 if given.quick else 32), quick=given.quick):
        write(rounded(row))
        summary |= {key: row[key] for key in SUMMARY if key in row}
    write(rounded(summary))
    return 0


def _pid(_: Any) -> int:
    return os.getpid()


def _time(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


if __name__ == "__main__":
    sys.exit(main())
