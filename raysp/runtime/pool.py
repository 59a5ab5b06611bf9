"""Many evaluators as one: a pull scheduler that keeps each two batches deep and gives lost batches to another.

Batches are idempotent under (game, masks), so a batch whose fate is unknown is simply measured again, and the first answer counts.
"""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import ray
from ray.exceptions import PendingCallsLimitExceeded, RayActorError, RayError, RayTaskError

from raysp.errors import EvaluationError, UserError
from raysp.game import GameInfo, Measurement
from raysp.gradients import GradientReport
from raysp.masks import Masks, pack
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.evaluator import OPTIONS, evaluator_actor
from raysp.specs.lenses import with_dtype
from raysp.specs.run import AnyLens, RunSpec
from raysp.validation.numeric_noise import NoiseSample

EVALUATOR = "raysp:evaluator:"
DEPTH = 2
ATTEMPTS = 4
MAX_THREADS = 16
# An evaluator that cannot be placed for this long will not be: the cluster lacks what it asks for.
PLACEMENT_SECONDS = 300.0
# A batch that takes this many times the median, and at least this long, is given to an idle evaluator as well.
STRAGGLER_FACTOR = 10.0
STRAGGLER_SECONDS = 60.0
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Shape:
    """How many evaluators, with how many threads each (None: what the process begins with), and what each takes of the cluster."""

    count: int
    threads: int | None
    resources: tuple[tuple[str, float], ...]

    @property
    def has_gpu(self) -> bool:
        """Whether each has a GPU, or a share of one. Without, Ray hides none from it, and all would take the first."""
        return "num_gpus" in dict(self.resources)


@dataclass
class Member:
    """One evaluator and what it has been given."""

    name: str
    actor: Any
    ping: Any
    ready: bool = False


@dataclass
class Flight:
    """A batch under way."""

    index: int
    member: Member
    sent: float = field(default_factory=time.monotonic)


class Pool:
    """The evaluators of a cluster. Any of them serves any lens; models stay resident in them from run to run."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.members = [self._start(f"{EVALUATOR}{i}") for i in range(shape.count)]

    def _start(self, name: str) -> Member:
        options = evaluator_actor.options(
            name=name, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", scheduling_strategy="SPREAD", **OPTIONS, **dict(self.shape.resources)
        )
        actor = options.remote(name, self.shape.threads)
        return Member(name, actor, actor.ping.remote())

    @property
    def ready(self) -> list[Member]:
        """Evaluators that have answered. An actor that died for good never does again."""
        for member in self.members:
            if not member.ready:
                done, _ = ray.wait([member.ping], timeout=0)
                member.ready = bool(done)
        return [member for member in self.members if member.ready]

    def await_one(self) -> list[Member]:
        """The ready evaluators, waiting for the first; UserError when the cluster cannot place any."""
        deadline = time.monotonic() + PLACEMENT_SECONDS
        while not (members := self.ready):
            if time.monotonic() > deadline:
                raise unplaceable(len(self.members))
            ray.wait([member.ping for member in self.members], timeout=POLL_SECONDS)
        return members

    def ask(self, method: str, key: str, lens_ref: Any, *arguments: Any) -> Any:
        """What one of the evaluators answers about the game of a lens, asked of another if that one dies. Errors are handed on as they were raised."""
        for attempt in range(ATTEMPTS):
            members = self.await_one()
            try:
                return ray.get(getattr(members[attempt % len(members)].actor, method).remote(key, lens_ref, *arguments))
            except RayTaskError as error:
                raise _cause(error) from None
            except RayActorError:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(POLL_SECONDS)
        raise AssertionError("unreachable")


def dismiss() -> None:
    """End the cluster's evaluators, those of an earlier scheduler too, and give back what they took; models are loaded again by whoever comes next."""
    named: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    for actor in named:
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(EVALUATOR):
            with contextlib.suppress(ValueError):  # one that has ended in the meantime
                ray.kill(ray.get_actor(actor["name"], NAMESPACE), no_restart=True)


class PoolBackend:
    """One game on a pool, as a campaign's backend."""

    def __init__(self, pool: Pool, lens: AnyLens) -> None:
        self._pool = pool
        self.retried = 0
        self.rebuild(lens)

    def rebuild(self, lens: AnyLens) -> None:
        """As `Backend.rebuild`. One evaluator resolves dtype `auto`, and all are told what it is."""
        self.info: GameInfo = self._pool.ask("describe", lens.key, ray.put(lens))
        told = with_dtype(lens, str(self.info.description.get("dtype")))
        self._key, self._lens = told.key, ray.put(told)

    def noise_sample(self, lens: AnyLens, masks: Masks, first: Measurement | None = None) -> NoiseSample:  # noqa: ARG002  the lens is its own
        """As `sample_noise`, in one of the evaluators."""
        return self._ask("noise_sample", pack(masks), first)

    @property
    def workers(self) -> int:
        """Evaluators of the pool, ready or still starting."""
        return len(self._pool.members)

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """What gradients say about the game, as `Game.gradient_report`."""
        return self._ask("gradient_report", max_order)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._pool.ask(method, self._key, self._lens, self.info.fingerprint, *arguments)

    def measure(self, batches: Sequence[Masks]) -> Iterator[tuple[int, Measurement]]:
        """Each batch once, as they finish; lost ones are sent again, at most `ATTEMPTS` times."""
        waiting, flights = deque(range(len(batches))), dict[Any, Flight]()
        attempts: Counter[int] = Counter()
        durations: list[float] = []
        finished: set[int] = set()
        while len(finished) < len(batches):
            self._fill(batches, waiting, flights, finished, durations)
            ready, _ = ray.wait(list(flights), timeout=POLL_SECONDS) if flights else ([], [])
            for reference in ready:
                flight = flights.pop(reference)
                try:
                    measurement: Measurement = ray.get(reference)
                except RayTaskError as error:
                    raise _cause(error) from None
                except RayError as error:
                    self._lost(flight, attempts, waiting, error)
                    continue
                durations.append(time.monotonic() - flight.sent)
                if flight.index not in finished:
                    finished.add(flight.index)
                    yield flight.index, measurement

    def _fill(self, batches: Sequence[Masks], waiting: deque[int], flights: dict[Any, Flight], finished: set[int], durations: list[float]) -> None:
        """Give every ready evaluator its two batches; the idle ones take over stragglers when nothing waits."""
        load = Counter(flight.member.name for flight in flights.values())
        for member in sorted(self._pool.await_one(), key=lambda member: load[member.name]):
            while load[member.name] < DEPTH:
                index = waiting.popleft() if waiting else _straggler(flights, finished, durations, member) if load[member.name] == 0 else None
                if index is None:
                    break
                if index in finished:
                    continue
                try:
                    reference = member.actor.measure.remote(self._key, self._lens, self.info.fingerprint, pack(batches[index]))
                except PendingCallsLimitExceeded:
                    waiting.appendleft(index)
                    break
                flights[reference] = Flight(index, member)
                load[member.name] += 1

    def _lost(self, flight: Flight, attempts: Counter[int], waiting: deque[int], error: RayError) -> None:
        attempts[flight.index] += 1
        self.retried += 1
        if attempts[flight.index] >= ATTEMPTS:
            raise EvaluationError(f"a batch was lost {ATTEMPTS} times, last by {type(error).__name__}: {error}") from error
        flight.member.ready, flight.member.ping = False, flight.member.actor.ping.remote()
        waiting.appendleft(flight.index)


def _straggler(flights: dict[Any, Flight], finished: set[int], durations: list[float], idle: Member) -> int | None:
    """A batch that another evaluator holds for suspiciously long, and that nobody else was given."""
    limit = max(STRAGGLER_SECONDS, STRAGGLER_FACTOR * median(durations)) if durations else STRAGGLER_SECONDS * STRAGGLER_FACTOR
    copies = Counter(flight.index for flight in flights.values())
    now = time.monotonic()
    late = [flight for flight in flights.values() if now - flight.sent > limit and copies[flight.index] == 1 and flight.member is not idle]
    return next((flight.index for flight in late if flight.index not in finished), None)


def _cause(error: RayTaskError) -> BaseException:
    """What the evaluator raised, as it raised it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, UserError | EvaluationError | ValueError) else error


def unplaceable(count: int) -> UserError:
    """What is wrong when the cluster does not place any of so many evaluators."""
    have = {key: value for key, value in ray.cluster_resources().items() if key in {"CPU", "GPU"}}
    return UserError("evaluators", count, f"could not be placed; the cluster has {have}", "ask for fewer evaluators or threads")


def choose_shape(spec: RunSpec) -> Shape:
    """The evaluators a spec asks for, or one a GPU, or as many as the CPU nodes hold with all the cores of the smallest node each.

    More evaluators than GPUs share them: as many on each, and no more than that on any. UserError for what the cluster cannot hold.
    """
    device = getattr(spec.lens, "device", "cpu")  # a function has none
    if device != "cpu":
        if device.startswith("cuda:") and device != "cuda:0":
            raise UserError("device", device, "is for Ray to choose: an evaluator sees its own GPUs alone", "write cuda, or pass --local")
        if nodes := [(count, node) for node in ray.nodes() if node["Alive"] and (count := int(node["Resources"].get("GPU", 0))) > 0]:
            return _on_gpus(spec, [count for count, _ in nodes], [int(node["Resources"].get("CPU", 1)) for _, node in nodes])
    if spec.gpus:
        raise UserError("gpus", spec.gpus, "are asked for each evaluator, and none are to be had", "leave them out, or add nodes with GPUs")
    cores = [count for node in ray.nodes() if node["Alive"] and (count := int(node["Resources"].get("CPU", 0))) > 0] or [1]
    threads = spec.threads or min(MAX_THREADS, *cores, max(1, sum(cores) // (spec.evaluators or 1)))
    if threads > max(cores):
        raise UserError("threads", threads, f"are more than any node has ({max(cores)})", f"give at most {max(cores)}")
    most = sum(count // threads for count in cores)
    if spec.evaluators and spec.evaluators > most:
        raise UserError("evaluators", spec.evaluators, f"with {threads} threads each do not fit on {sum(cores)} cores", f"give at most {most}")
    return Shape(spec.evaluators or most, threads, (("num_cpus", threads),))


def _on_gpus(spec: RunSpec, gpus: Sequence[int], cores: Sequence[int]) -> Shape:
    """Evaluators on nodes with so many GPUs and cores each. They take one core of each as Ray counts, and use their part of the node's for what a GPU does not do."""

    def shape(count: int, each: float) -> Shape:
        abreast = [-(-count * some // sum(gpus)) for some in gpus]
        threads = min(max(have // max(beside, 1), 1) for have, beside in zip(cores, abreast, strict=True))
        return Shape(count, spec.threads or min(threads, MAX_THREADS), (("num_gpus", each), ("num_cpus", 1)))

    if spec.gpus is None:
        count = spec.evaluators or sum(gpus)
        # Ray counts in ten-thousandths: rounded up, the last of six sixths would find too little.
        return shape(count, (10_000 // -(-count // sum(gpus))) / 10_000)
    if spec.gpus > max(gpus):
        raise UserError("gpus", spec.gpus, f"are more than any node has ({max(gpus)})", f"give at most {max(gpus)}")
    most = sum(count // spec.gpus for count in gpus)
    if spec.evaluators and spec.evaluators > most:
        raise UserError("evaluators", spec.evaluators, f"with {spec.gpus} GPUs each do not fit on {sum(gpus)} GPUs", f"give at most {most}")
    return shape(spec.evaluators or most, spec.gpus)
