"""A simulation of the broker in simulated time: workers of different speeds that die and dawdle, runs that come and go. The broker itself is the real one.

`python -m raysp.scheduling.simulation --workers 1000` prints how many leases the broker handles in a second of processor time, how runs are served, and
how busy the workers are. It exits with 1 if a mask was lost or told twice.
"""

import argparse
import heapq
import json
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from raysp.game import Measurement
from raysp.scheduling.broker import Broker
from raysp.scheduling.order import Delivery, Lease, Order, Packed

T = TypeVar("T")
#: Bits of a simulated mask, whose bytes are its number.
N = 64
#: How often expired leases are looked for, and busy workers counted, in seconds.
EXPIRY_SECONDS = 1.0
#: Idle workers that ask when something has happened, and how many may be refused before the others do not ask.
MOST_WAKENED, REFUSALS = 256, 4


@dataclass(frozen=True)
class Job:
    """A run: when it arrives, how many masks it asks for, and how many seconds each takes on a worker of speed 1 (and each batch, whatever its size).

    Orders have `order_masks` masks, of which `window` are open at a time. Jobs that agree in `game` and `first` ask for the same masks. A worker dies of the
    mask number `poison`.
    """

    name: str
    masks: int
    seconds: float
    arrival: float = 0.0
    fixed: float = 0.0
    order_masks: int = 64
    window: int = 64
    priority: int = 5
    workers: int | None = None
    game: str | None = None
    model: str = "model"
    first: int = 0
    poison: int | None = None


@dataclass(frozen=True)
class Pool:
    """Workers: their number, how unequal their speeds are (the standard deviation of the logarithm), and what goes wrong with them.

    A share of `stragglers` is 20 times slower. Each worker dies after `lifetime` seconds on average, and is back after `restart` seconds. A lease takes
    `latency` seconds to arrive, and a model `loading` seconds to load; a worker keeps `models` of them.
    """

    workers: int
    unequal: float = 0.1
    stragglers: float = 0.0
    lifetime: float = float("inf")
    restart: float = 30.0
    latency: float = 0.002
    loading: float = 0.0
    models: int = 2
    seed: int = 0


@dataclass
class Outcome:
    """What came of it: the time at which each job ended, its errors, and figures of the pool and the broker."""

    ended: dict[str, float] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    busy: int = 0
    alive: int = 0
    seconds: float = 0.0
    deaths: int = 0
    leases: int = 0
    measured: int = 0
    told: int = 0
    broker_seconds: float = 0.0
    duplicates_saved: int = 0
    retries: int = 0

    @property
    def utilisation(self) -> float:
        """The share of living workers that were busy while masks waited, counted once a second."""
        return self.busy / max(self.alive, 1)


@dataclass(eq=False)
class SimulatedWorker:
    """A worker: its speed, the leases that it holds, the models that it has loaded, and how many times it has died."""

    name: str
    speed: float
    leases: deque[Lease] = field(default_factory=deque)
    models: OrderedDict[str, None] = field(default_factory=OrderedDict)
    lives: int = 0
    alive: bool = True


class Simulation:
    """Jobs on a pool, from the first arrival until nothing is left to do."""

    def __init__(self, jobs: Sequence[Job], pool: Pool) -> None:
        self.now = 0.0
        self.broker = Broker(lambda: self.now)
        self.outcome = Outcome()
        self._pool = pool
        self._rng = np.random.default_rng(pool.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        speeds = np.exp(self._rng.normal(0, pool.unequal, pool.workers))
        speeds[: round(pool.stragglers * pool.workers)] /= 20
        self._workers = {f"w{i}": SimulatedWorker(f"w{i}", float(speed)) for i, speed in enumerate(speeds)}
        self._idle = dict.fromkeys(self._workers.values())
        self._jobs = {job.name: job for job in jobs}
        self._asked = dict.fromkeys(self._jobs, 0)
        self._open = {name: np.zeros(0, dtype=np.bool_) for name in self._jobs}
        self._left = {job.name: job.masks for job in jobs}
        for job in jobs:
            self._at(job.arrival, lambda job=job: self._arrive(job))
        for worker in self._workers.values():
            self._schedule_death(worker)
        self._at(EXPIRY_SECONDS, self._expire)

    def run(self, until: Collection[str] | None = None) -> Outcome:
        """Let time pass until these jobs have ended, by default all."""
        awaited = set(self._jobs if until is None else until)
        while not awaited <= self.outcome.ended.keys():
            self.now, _, event = heapq.heappop(self._events)
            event()
        state = self.broker.snapshot()
        self.outcome.seconds, self.outcome.duplicates_saved, self.outcome.retries = self.now, state.duplicates_saved, state.retries
        return self.outcome

    def _at(self, when: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, event))

    def _timed(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call the broker, and count the time it takes."""
        began = time.process_time()
        try:
            return call(*arguments, **options)
        finally:
            self.outcome.broker_seconds += time.process_time() - began

    # ---- runs

    def _arrive(self, job: Job) -> None:
        self._timed(self.broker.open, job.name, priority=job.priority, workers=job.workers)
        self._open[job.name] = np.ones(job.masks, dtype=np.bool_)
        for _ in range(job.window):
            self._place(job)
        self._wake()

    def _place(self, job: Job) -> None:
        first = self._asked[job.name]
        last = self._asked[job.name] = min(first + job.order_masks, job.masks)
        if last > first:
            order = Order(job.name, first, job.game or job.name, _masks(job.first + first, job.first + last), N, job.model)
            self._tell(self._timed(self.broker.place, order))

    def _tell(self, deliveries: Sequence[Delivery]) -> None:
        """Take what the broker tells, and let the runs place their next orders. AssertionError if a mask is told twice."""
        ended: set[str] = set()
        for each in deliveries:
            if each.run_id in ended:
                continue
            if each.run_id not in self._left:
                raise AssertionError(f"{each.run_id} was told something after its end")
            job, rows = self._jobs[each.run_id], each.order + each.rows
            if each.error is not None:
                self.outcome.errors[job.name] = each.error
                self._end(job)
                ended.add(job.name)
                continue
            assert each.measurement is not None
            if not self._open[job.name][rows].all() or not np.array_equal(each.measurement.values, job.first + rows):
                raise AssertionError(f"{job.name} was told something twice, or something else than it asked for")
            self._open[job.name][rows] = False
            self.outcome.told += len(rows)
            self._left[job.name] -= len(rows)
            stop = min(each.order + job.order_masks, job.masks)
            if not self._left[job.name]:
                self._end(job)
            elif not self._open[job.name][each.order : stop].any():
                self._place(job)

    def _end(self, job: Job) -> None:
        self.outcome.ended[job.name] = self.now
        del self._left[job.name]
        self._timed(self.broker.close, job.name)

    # ---- workers

    def _wake(self) -> None:
        """Let idle workers ask, until some are told that there is nothing for them."""
        refused = 0
        for worker in list(islice(self._idle, MOST_WAKENED)):
            refused += not self._ask(worker)
            if refused >= REFUSALS:
                return

    def _ask(self, worker: SimulatedWorker) -> bool:
        """Let a worker take what it is given; whether it has anything."""
        while lease := self._timed(self.broker.lease, worker.name, worker.models):
            self.outcome.leases += 1
            worker.leases.append(lease)
            if len(worker.leases) == 1:
                self._idle.pop(worker, None)
                self._begin(worker)
        if not worker.leases:
            self._idle[worker] = None
        return bool(worker.leases)

    def _begin(self, worker: SimulatedWorker) -> None:
        lease, life = worker.leases[0], worker.lives
        job = self._jobs[lease.run_id]
        numbers = _numbers(lease.packed)
        loading = 0.0 if job.model in worker.models else self._pool.loading
        worker.models[job.model] = None
        worker.models.move_to_end(job.model)
        while len(worker.models) > self._pool.models:
            worker.models.popitem(last=False)
        seconds = (job.fixed + job.seconds * len(numbers)) / worker.speed
        takes = self._pool.latency + loading + seconds
        if job.poison is not None and job.poison in numbers:
            self._at(self.now + takes / 2, lambda: self._die(worker, life))
        else:
            self._at(self.now + takes, lambda: self._finish(worker, life, Measurement(numbers, len(numbers), seconds)))

    def _finish(self, worker: SimulatedWorker, life: int, measurement: Measurement) -> None:
        if worker.lives != life:
            return  # it has died meanwhile
        lease = worker.leases.popleft()
        self.outcome.measured += len(lease.rows)
        self._tell(self._timed(self.broker.finish, lease.number, measurement))
        if worker.leases:
            self._begin(worker)
        self._ask(worker)
        self._wake()

    def _schedule_death(self, worker: SimulatedWorker) -> None:
        if np.isfinite(self._pool.lifetime):
            life = worker.lives
            self._at(self.now + self._rng.exponential(self._pool.lifetime), lambda: self._die(worker, life))

    def _die(self, worker: SimulatedWorker, life: int) -> None:
        if worker.lives != life:
            return
        self.outcome.deaths += 1
        worker.lives += 1
        worker.alive = False
        worker.models.clear()
        self._idle.pop(worker, None)
        begun = worker.leases[0].number if worker.leases else None
        worker.leases.clear()
        self._tell(self._timed(self.broker.lose, worker.name, begun=begun, reason="a simulated death"))
        self._at(self.now + self._pool.restart, lambda: self._return(worker))
        self._wake()

    def _return(self, worker: SimulatedWorker) -> None:
        worker.alive = True
        self._schedule_death(worker)
        self._ask(worker)

    def _expire(self) -> None:
        """Take back expired leases, and measure how many workers could be busy."""
        expired = self._timed(self.broker.expire)
        self._tell(expired.deliveries)
        self._wake()
        if sum(self.broker.snapshot().queued.values()):
            self.outcome.busy += sum(bool(worker.leases) for worker in self._workers.values())
            self.outcome.alive += sum(worker.alive for worker in self._workers.values())
        self._at(self.now + EXPIRY_SECONDS, self._expire)


def slowdowns(jobs: Sequence[Job], outcome: Outcome, pool: Pool) -> list[float]:
    """How many times longer each job took than it takes alone on workers that do not die and do not dawdle."""
    healthy, alone = replace(pool, stragglers=0.0, lifetime=float("inf")), dict[Job, float]()
    found: list[float] = []
    for job in jobs:
        same = replace(job, name="", arrival=0.0, game=None, first=0)
        if same not in alone:
            alone[same] = Simulation([same], healthy).run().ended[""]
        found.append((outcome.ended[job.name] - job.arrival) / alone[same])
    return found


def busy_cluster(workers: int, seconds: float, seed: int) -> tuple[list[Job], list[Job]]:
    """Short and long runs that together keep workers busy for about `seconds`.

    Questions of 60 masks, every third asked by two people at once, beside ten runs of a twentieth of a second a mask and two of trainings of 20 seconds.
    """
    rng = np.random.default_rng(seed)
    load = workers * seconds
    long = [Job(f"long-{i}", round(0.06 * load / 0.05), 0.05, order_masks=20, window=max(64, 4 * workers)) for i in range(10)]
    long += [Job(f"trainings-{i}", max(1, round(0.1 * load / 20)), 20.0, order_masks=1, window=max(64, 4 * workers)) for i in range(2)]
    short: list[Job] = []
    for i, arrival in enumerate(np.sort(rng.uniform(0, 0.9 * seconds, max(2, round(0.1 * load / 3))))):
        again = short[-1] if i % 3 == 1 else None
        game, when = (again.game, again.arrival) if again is not None else (f"question-{i}", float(arrival))
        short.append(Job(f"short-{i}", 60, 0.05, when, order_masks=16, game=game))
    return short, long


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate a busy cluster, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m raysp.scheduling.simulation", description="Simulate the broker on a busy cluster.")
    parser.add_argument("--workers", type=int, default=1000, help="number of workers (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated time for which there is work (default: %(default)s)")
    parser.add_argument("--stragglers", type=float, default=0.01, help="share of workers that are 20 times slower (default: %(default)s)")
    parser.add_argument("--lifetime", type=float, default=3600.0, help="mean seconds until a worker dies (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of arrivals, speeds and deaths (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    pool = Pool(given.workers, stragglers=given.stragglers, lifetime=given.lifetime, seed=given.seed)
    short, long = busy_cluster(given.workers, given.seconds, given.seed)
    outcome = Simulation([*short, *long], pool).run()
    slow = np.array(slowdowns(short, outcome, pool))
    work = sum(job.masks * (job.seconds + job.fixed / job.order_masks) for job in (*short, *long))
    figures = {
        "workers": given.workers,
        "runs": len(short) + len(long),
        "simulated_s": round(outcome.seconds, 1),
        "ideal_s": round(work / given.workers, 1),
        "leases": outcome.leases,
        "steps_per_s": round(outcome.leases / outcome.broker_seconds),
        "broker_share": round(outcome.broker_seconds / outcome.seconds, 4),
        "utilisation": round(outcome.utilisation, 4),
        "short_slowdown_median": round(float(np.median(slow)), 2),
        "short_slowdown_p95": round(float(np.quantile(slow, 0.95)), 2),
        "short_slowdown_worst": round(float(slow.max()), 2),
        "duplicates_saved": outcome.duplicates_saved,
        "deaths": outcome.deaths,
        "retries": outcome.retries,
        "failed_runs": len(outcome.errors),
        "lost": sum(job.masks for job in (*short, *long) if job.name not in outcome.errors) - outcome.told,
    }
    sys.stdout.write(json.dumps(figures) + "\n" if given.json else "".join(f"{name:22} {value}\n" for name, value in figures.items()))
    return int(figures["lost"] != 0)


def _masks(first: int, last: int) -> Packed:
    """The masks with these numbers, packed."""
    return np.arange(first, last, dtype=">u8").view(np.uint8).reshape(-1, N // 8)


def _numbers(packed: Packed) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The numbers of packed masks."""
    return np.ascontiguousarray(packed).view(">u8").reshape(-1).astype(np.float64)


if __name__ == "__main__":
    sys.exit(main())
