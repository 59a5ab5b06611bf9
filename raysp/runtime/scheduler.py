"""The central actor: it owns the store and the evaluators, drives every run, and answers those who watch.

One a cluster, named `raysp:scheduler`, detached: runs of many jobs share its resident models and its store. A run lives in a thread of its own;
losing the scheduler loses no evaluation, and a run submitted again under its own id goes on from what is stored.

Runs that train have the cluster to themselves: idle evaluators are ended before one, and made anew by the next run that needs them.
"""

import contextlib
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysp.errors import InterruptedRunError, UserError
from raysp.home import store_path
from raysp.runs.calibration import continued_lens
from raysp.runs.progress import Progress
from raysp.runs.result import Result, read_result
from raysp.runs.run import Run
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.metrics import RunMetrics
from raysp.runtime.pool import Pool, PoolBackend, Shape, choose_shape, dismiss
from raysp.specs.run import RunSpec
from raysp.store import Store
from raysp.version import __version__

if TYPE_CHECKING:
    from raysp.runtime.retraining import TuneBackend

NAME = "raysp:scheduler"
MAX_CONCURRENCY = 64
# A batch under way is waited for so long when the scheduler is closed.
CLOSING_SECONDS = 60.0


@dataclass
class RunHandle:
    """One run in the scheduler's hands, and what it uses of the cluster."""

    spec: RunSpec
    progress: Progress
    thread: threading.Thread | None = None
    error: BaseException | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    uses: Literal["evaluators", "trainings"] | None = None
    ended: bool = False


class Scheduler:
    """Runs, their evaluators and their stores. Turned into an actor by `scheduler_actor`."""

    def __init__(self) -> None:
        self._stores: dict[Path, Store] = {}
        self._tickets: dict[str, RunHandle] = {}
        self._pool: Pool | None = None
        self._lock = threading.RLock()
        self._metrics = RunMetrics()

    def __repr__(self) -> str:
        """How the Ray dashboard lists it."""
        return NAME

    def version(self) -> str:
        """The version of raysp that it runs."""
        return __version__

    def submit(self, spec: RunSpec, run_id: str, set_name: str | None = None) -> None:
        """Start a run. A run that is under way is left alone; one that ended is run again, at no cost for what is stored.

        Errors of the store come at once, those of the run from `result`.
        """
        with self._lock:
            current = self._tickets.get(run_id)
            if current is not None and current.thread is not None and current.thread.is_alive():
                return
            store = self._store(spec)
            ticket = self._tickets[run_id] = RunHandle(spec, Progress(run_id))
            ticket.thread = threading.Thread(target=self._drive, args=(ticket, store, run_id, set_name), name=run_id, daemon=True)
            ticket.thread.start()

    def progress(self, run_id: str) -> Progress:
        """Where a run stands."""
        return self._tickets[run_id].progress

    def finished(self, run_id: str, timeout: float) -> bool:
        """Whether a run has ended, waiting at most `timeout` seconds for it."""
        thread = self._tickets[run_id].thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def result(self, run_id: str) -> Result:
        """A finished run's answer, or the error that ended it."""
        ticket = self._tickets[run_id]
        if ticket.error is not None:
            raise ticket.error
        path = store_path(ticket.spec.store)
        with self._lock:
            if path in self._stores:
                return read_result(self._stores[path], run_id)
            with Store.read(path) as reading:
                return read_result(reading, run_id)

    def cancel(self, run_id: str) -> None:
        """Stop a run after the batches under way, trainings at once; it can be run again."""
        self._tickets[run_id].cancelled.set()

    def close(self) -> None:
        """Cancel what runs and close the stores cleanly. A run that is loading a model is waited for no longer than `CLOSING_SECONDS`: it has nothing to store."""
        with self._lock:
            tickets = list(self._tickets.values())
        deadline = time.monotonic() + CLOSING_SECONDS
        for ticket in tickets:
            ticket.cancelled.set()
        for ticket in tickets:
            if ticket.thread is not None:
                ticket.thread.join(max(0.0, deadline - time.monotonic()))  # without the lock, which a run that begins takes
        with self._lock:
            for store in self._stores.values():
                store.close()
            self._stores.clear()

    def _drive(self, ticket: RunHandle, store: Store, run_id: str, set_name: str | None) -> None:
        def report(progress: Progress) -> None:
            self._metrics.observe(ticket.progress, progress)
            ticket.progress = progress

        try:
            with self._backend(ticket, store, run_id) as backend:
                Run(ticket.spec, backend, store, run_id, set_name, report, ticket.cancelled.is_set).execute()
                if backend.retried:
                    store.add_event(run_id, "retried", f"{backend.retried} batches were lost with their evaluator and measured again")
        except (Exception, InterruptedRunError) as error:  # noqa: BLE001  whatever ended the run belongs to whoever asks for its result
            ticket.error = error
        ticket.progress = replace(ticket.progress, phase="failed" if ticket.error else "done")
        self._let_go(ticket)

    def _store(self, spec: RunSpec) -> Store:
        path = store_path(spec.store)
        with self._lock:
            if path not in self._stores:
                self._stores[path] = Store.open(path)
            return self._stores[path]

    def _let_go(self, ticket: RunHandle) -> None:
        """Close the store of a run that has ended, if no other run writes it: other processes may want to."""
        with self._lock:
            ticket.ended = True
            path = store_path(ticket.spec.store)
            if all(other.ended or store_path(other.spec.store) != path for other in self._tickets.values()) and path in self._stores:
                self._stores.pop(path).close()

    @contextlib.contextmanager
    def _backend(self, ticket: RunHandle, store: Store, run_id: str) -> "Generator[PoolBackend | TuneBackend]":
        """What measures a run, for as long as it runs. UserError when another run is in its way."""
        lens = continued_lens(ticket.spec.lens, store, run_id)
        if ticket.cancelled.is_set():
            raise InterruptedRunError("the run was cancelled before it began")
        try:
            if lens.cost_class == "training":
                shape = self._room(ticket)  # first: what follows takes seconds
                from raysp.runtime.retraining import TuneBackend

                with contextlib.closing(TuneBackend(shape, lens, ticket.cancelled.is_set)) as backend:
                    yield backend
            else:
                yield PoolBackend(self._evaluators(ticket), lens)
        finally:
            ticket.uses = None

    def _room(self, ticket: RunHandle) -> Shape:
        """The whole cluster for a run that trains, once no other is using it."""
        with self._lock:
            self._take(ticket, "trainings", self._others(ticket))
            dismiss()
            self._pool = None
            return choose_shape(ticket.spec)

    def _evaluators(self, ticket: RunHandle) -> Pool:
        """The cluster's evaluators; made anew in another shape when a spec asks for one and nobody else is using them."""
        spec = ticket.spec
        with self._lock:
            others = self._others(ticket)
            self._take(ticket, "evaluators", [other for other in others if other.uses == "trainings"])
            if self._pool is not None and not self._suits(spec, self._pool.shape):
                if others:
                    raise UserError(
                        "evaluators",
                        spec.evaluators,
                        "cannot change while another run uses them",
                        "wait for it, or ask for what they are: see the Ray dashboard",
                    )
                dismiss()
                self._pool = None
            if self._pool is None:
                self._pool = Pool(choose_shape(spec))
            return self._pool

    @staticmethod
    def _suits(spec: RunSpec, shape: Shape) -> bool:
        """Whether evaluators of a shape do for a run: those that it asks for, with a GPU each if it would be given one."""
        wanted = choose_shape(spec)
        return wanted == shape if spec.evaluators or spec.threads or spec.gpus else shape.has_gpu or not wanted.has_gpu

    def _others(self, ticket: RunHandle) -> list[RunHandle]:
        return [other for other in self._tickets.values() if other is not ticket and other.uses]

    def _take(self, ticket: RunHandle, uses: Literal["evaluators", "trainings"], in_the_way: list[RunHandle]) -> None:
        if in_the_way:
            other = in_the_way[0]
            what = "trains on the cluster" if other.uses == "trainings" else "uses the cluster's evaluators"
            raise UserError("lens", ticket.spec.lens.kind, f"cannot run while run {other.progress.run_id} {what}", "wait for it to end, or cancel it")
        ticket.uses = uses


scheduler_actor: Any = ray.remote(Scheduler)


def scheduler() -> Any:
    """The cluster's scheduler, started on this node if there is none (the store's path is a path of its node).

    UserError when it runs another version of raysp.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = scheduler_actor.options(
        name=NAME, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", num_cpus=0, max_concurrency=MAX_CONCURRENCY, scheduling_strategy=here
    )
    actor = options.remote()
    running: str = ray.get(actor.version.remote())
    if running != __version__:
        raise UserError("raysp", running, f"runs on this cluster, and {__version__} here", "install the same version, or end the actor raysp:scheduler")
    return actor
