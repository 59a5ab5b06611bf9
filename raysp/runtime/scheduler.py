"""The central actor: it owns the stores and the evaluators, drives every run, and answers those who watch.

There is one per cluster, detached and named `raysp:scheduler`: runs of many jobs share its resident models and its stores. Each run has a thread of its
own. Losing the scheduler loses no evaluation: a run that is submitted again under its own id continues from what is stored.

A run that trains has the cluster to itself: idle evaluators are ended before it starts, and started again by the next run that needs them.
"""

import contextlib
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import GetTimeoutError

from raysp.errors import InterruptedRunError, UserError
from raysp.home import store_path
from raysp.runs.calibration import continued_lens
from raysp.runs.progress import Progress
from raysp.runs.result import Result, read_result
from raysp.runs.run import Run
from raysp.runtime.cluster import ANSWER_SECONDS, NAMESPACE
from raysp.runtime.dispatch import PoolBackend
from raysp.runtime.metrics import RunMetrics
from raysp.runtime.pool import Pool, dismiss
from raysp.runtime.portable import portable
from raysp.runtime.shape import Shape, choose_shape
from raysp.specs.run import RunSpec
from raysp.store import Store
from raysp.version import __version__

if TYPE_CHECKING:
    from raysp.runtime.retraining import TuneBackend

NAME = "raysp:scheduler"
#: Keeps the scheduler, and so the stores, on the head node; a soft node affinity is ignored for an actor that asks for no resources.
PLACE = {"node:__internal_head__": 0.001}
MAX_CONCURRENCY = 64
#: How long closing the scheduler waits for a batch under way.
CLOSING_SECONDS = 60.0
#: Runs that ended and can still be asked about here; the store knows all of them.
REMEMBERED = 100


@dataclass
class RunHandle:
    """One run in the scheduler's hands, and what it uses of the cluster."""

    run_id: str
    store: Path
    progress: Progress
    error: BaseException | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    uses: Literal["evaluators", "trainings"] | None = None


class Scheduler:
    """Runs, their evaluators and their stores. `scheduler_actor` makes an actor of it."""

    def __init__(self) -> None:
        self._stores: dict[Path, Store] = {}
        self._handles: dict[str, RunHandle] = {}
        self._pool: Pool | None = None
        self._lock = threading.RLock()
        self._metrics = RunMetrics()

    def __repr__(self) -> str:
        """The name that the Ray dashboard shows."""
        return NAME

    def version(self) -> str:
        """The version of raysp that the scheduler runs."""
        return __version__

    def submit(self, spec: RunSpec, run_id: str, set_name: str | None = None) -> None:
        """Start a run. A run that is under way is left alone; one that ended is run again, and what is stored costs nothing.

        Raises errors of the store at once; `result` raises those of the run.
        """
        with self._lock:
            current = self._handles.get(run_id)
            if current is not None and not current.ended.is_set():
                return
            path = store_path(spec.store)
            store = self._open(path)
            self._handles.pop(run_id, None)  # the newest is the last
            handle = self._handles[run_id] = RunHandle(run_id, path, Progress(run_id))
            threading.Thread(target=self._drive, args=(handle, spec, store, set_name), name=run_id, daemon=True).start()

    def progress(self, run_id: str) -> Progress:
        """Where a run stands. UserError, as for everything that is asked about a run, if it is unknown here."""
        return self._handle(run_id).progress

    def finished(self, run_id: str, timeout: float) -> bool:
        """Whether a run has ended, after waiting at most `timeout` seconds for it."""
        return self._handle(run_id).ended.wait(timeout)

    def result(self, run_id: str) -> Result:
        """The answer of a finished run. Raises the error that ended it if there was one."""
        handle = self._handle(run_id)
        if handle.error is not None:
            raise handle.error
        with self._lock:
            if handle.store in self._stores:
                return read_result(self._stores[handle.store], run_id)
            with Store.read(handle.store) as reading:
                return read_result(reading, run_id)

    def cancel(self, run_id: str) -> None:
        """Stop a run after the batches under way, trainings at once; it can be run again."""
        self._handle(run_id).cancelled.set()

    def remembered(self) -> list[str]:
        """Ids of the runs that can be asked about here: those under way, and the last `REMEMBERED` that ended."""
        with self._lock:
            return list(self._handles)

    def close(self) -> None:
        """Cancel the runs under way and close the stores. A run that is loading a model has nothing to store and is not waited for after `CLOSING_SECONDS`."""
        with self._lock:
            handles = list(self._handles.values())
        deadline = time.monotonic() + CLOSING_SECONDS
        for handle in handles:
            handle.cancelled.set()
        for handle in handles:
            handle.ended.wait(max(0.0, deadline - time.monotonic()))  # without the lock, which a run that starts takes
        with self._lock:
            for store in self._stores.values():
                store.close()
            self._stores.clear()

    def _handle(self, run_id: str) -> RunHandle:
        with self._lock:
            if run_id not in self._handles:
                raise UserError(
                    "run", run_id, "is not known to this scheduler (it ended long ago, or another scheduler ran it)", f"read it with `raysp show {run_id}`"
                )
            return self._handles[run_id]

    def _drive(self, handle: RunHandle, spec: RunSpec, store: Store, set_name: str | None) -> None:
        def report(progress: Progress) -> None:
            self._metrics.observe(handle.progress, progress)
            handle.progress = progress

        try:
            with self._backend(handle, spec, store) as backend:
                Run(spec, backend, store, handle.run_id, set_name, report, handle.cancelled.is_set).execute()
                if backend.retried:
                    store.add_event(handle.run_id, "retried", f"{backend.retried} batches were lost with their evaluator and measured again")
        except (Exception, InterruptedRunError) as error:  # noqa: BLE001  whatever ended the run is raised in whoever asks for its result
            handle.error = portable(error, "In the scheduler")
        finally:
            report(replace(handle.progress, phase="failed" if handle.error else "done"))
            self._release(handle)

    def _open(self, path: Path) -> Store:
        with self._lock:
            if path not in self._stores:
                self._stores[path] = Store.open(path)
            return self._stores[path]

    def _release(self, handle: RunHandle) -> None:
        """Close the store of a run that has ended if no other run writes to it, as other processes may want it; forget the oldest runs."""
        with self._lock:
            handle.ended.set()
            ended = [run_id for run_id, other in self._handles.items() if other.ended.is_set()]
            for run_id in ended[:-REMEMBERED]:
                del self._handles[run_id]
            if all(other.ended.is_set() or other.store != handle.store for other in self._handles.values()) and handle.store in self._stores:
                self._stores.pop(handle.store).close()

    @contextlib.contextmanager
    def _backend(self, handle: RunHandle, spec: RunSpec, store: Store) -> "Generator[PoolBackend | TuneBackend]":
        """What measures a run, while it runs. UserError if another run is in its way."""
        lens, cancelled = continued_lens(spec.lens, store, handle.run_id), handle.cancelled.is_set
        if cancelled():
            raise InterruptedRunError("the run was cancelled before it began")
        try:
            if lens.cost_class == "training":
                shape = self._whole_cluster(handle, spec)  # first, as what follows takes seconds
                from raysp.runtime.retraining import TuneBackend

                with contextlib.closing(TuneBackend(shape, lens, cancelled)) as backend:
                    yield backend
            else:
                yield PoolBackend(self._evaluators(handle, spec), lens, cancelled)
        finally:
            handle.uses = None

    def _whole_cluster(self, handle: RunHandle, spec: RunSpec) -> Shape:
        """Reserve the cluster for a run that trains, if no other run uses it."""
        with self._lock:
            self._take(handle, spec, "trainings", self._others(handle))
            dismiss()
            self._pool = None
            return choose_shape(spec)

    def _evaluators(self, handle: RunHandle, spec: RunSpec) -> Pool:
        """The cluster's evaluators. They are replaced if a spec asks for another shape and no other run uses them."""
        with self._lock:
            others = self._others(handle)
            self._take(handle, spec, "evaluators", [other for other in others if other.uses == "trainings"])
            if self._pool is not None and not self._suits(spec, self._pool.shape):
                if others:
                    raise UserError(
                        "evaluators",
                        spec.evaluators,
                        "cannot change while another run uses them",
                        "wait for that run, or ask for the evaluators that exist: see the Ray dashboard",
                    )
                dismiss()
                self._pool = None
            if self._pool is None:
                self._pool = Pool(choose_shape(spec))
            return self._pool

    @staticmethod
    def _suits(spec: RunSpec, shape: Shape) -> bool:
        """Whether evaluators of a shape serve a run: those that it asks for, with a GPU each if it would be given one."""
        wanted = choose_shape(spec)
        return wanted == shape if spec.evaluators or spec.threads or spec.gpus else shape.has_gpu or not wanted.has_gpu

    def _others(self, handle: RunHandle) -> list[RunHandle]:
        return [other for other in self._handles.values() if other is not handle and other.uses]

    def _take(self, handle: RunHandle, spec: RunSpec, uses: Literal["evaluators", "trainings"], in_the_way: list[RunHandle]) -> None:
        if in_the_way:
            other = in_the_way[0]
            what = "trains on the cluster" if other.uses == "trainings" else "uses the cluster's evaluators"
            raise UserError("lens", spec.lens.kind, f"cannot run while run {other.run_id} {what}", "wait for it to end, or cancel it")
        handle.uses = uses


scheduler_actor: Any = ray.remote(Scheduler)


def scheduler() -> Any:
    """The cluster's scheduler, started on the head node if there is none; the path of a store is a path on that node.

    UserError if it runs another version of raysp, or does not answer.
    """
    options = scheduler_actor.options(
        name=NAME, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", num_cpus=0, resources=PLACE, max_concurrency=MAX_CONCURRENCY
    )
    actor = options.remote()
    try:
        running: str = ray.get(actor.version.remote(), timeout=ANSWER_SECONDS)
    except GetTimeoutError:
        raise silent() from None
    if running != __version__:
        raise UserError("raysp", running, f"runs on this cluster, but {__version__} here", "install the same version, or end the actor raysp:scheduler")
    return actor


def silent() -> UserError:
    """The error for a scheduler that does not answer."""
    return UserError(
        "cluster", None, f"its scheduler has not answered for {ANSWER_SECONDS:.0f} s", "look at `ray status` and the Ray dashboard, then try again"
    )
