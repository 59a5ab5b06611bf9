"""The central actor: it owns the stores, the queue of runs and the evaluators, and answers those who ask.

There is one per cluster, detached and named `raysp:scheduler`. It fits nothing and holds no masks but those in flight: runs are executed by runners, whose
orders it gives to evaluators, and whose answers it stores before it tells them. Ray starts it again when it dies; it then finds its evaluators and runners by
name, and its runs in the stores. One loop makes what is agree with what is wanted: it starts queued runs as there is room, and takes back those of runners that died.
"""

import contextlib
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError

from raysp.errors import UserError
from raysp.game import GameInfo
from raysp.home import store_path
from raysp.runs.progress import Progress, progress_json
from raysp.runs.result import Result
from raysp.runs.state import Desired, RunRequest, RunState, ServiceStatus
from raysp.runtime.admission import Admission
from raysp.runtime.cluster import ANSWER_SECONDS, NAMESPACE
from raysp.runtime.dispatch import Dispatcher
from raysp.runtime.executions import Executions
from raysp.runtime.link import AGAIN_SECONDS
from raysp.runtime.logs import log_to_stderr
from raysp.runtime.messages import Attached, Exchanged, PlacedOrder, SupersededError
from raysp.runtime.metrics import PUBLISH_SECONDS, ServiceMetrics
from raysp.runtime.order_desk import OrderDesk
from raysp.runtime.recovery import Recovery
from raysp.runtime.run_desk import RunDesk
from raysp.runtime.run_table import RunHandle, RunTable
from raysp.runtime.runner_pool import PLACE, RunnerPool
from raysp.runtime.store_proxy import carry_out
from raysp.runtime.stores import Stores
from raysp.specs.lenses import FeatureLens
from raysp.specs.policy import EVERYTHING, Policy
from raysp.specs.run import AnyLens, RunSpec
from raysp.store import Answer, Cleaning, Limits, Store
from raysp.version import __version__

NAME = "raysp:scheduler"
#: How many calls of each kind are answered at the same time: most of them wait for something.
CONCURRENCY = {"runners": 64, "questions": 64, "stores": 16, "clients": 64, "beats": 8, "queries": 4}
#: With so many threads, the C library would divide memory into as many heaps, of which what one thread has freed is of no use to another.
ENVIRONMENT = {"env_vars": {"MALLOC_ARENA_MAX": "2"}}
#: How long a thread that computes keeps others, which have only to pass something on, from Python's interpreter lock: less than the usual 5 ms.
SWITCH_SECONDS = 0.001
#: How long closing the scheduler waits for the batches under way.
CLOSING_SECONDS = 60.0
#: How often the loop looks around if nothing happens.
LOOK_SECONDS = 0.5
#: How long a store stays open for those who have read it.
KEPT_SECONDS = 15.0
#: A spare runner is started when the first run has gone on for this long: a single short run should not pay for it.
SPARE_AFTER_SECONDS = 10.0

log = logging.getLogger(__name__)


class Scheduler:
    """Runs, their stores and their evaluators. `scheduler_actor` makes an actor of it."""

    def __init__(self, policy: Policy = EVERYTHING, own: Path | None = None) -> None:
        log_to_stderr()
        sys.setswitchinterval(SWITCH_SECONDS)
        self._admission = Admission(policy, own)
        self._stores = Stores()
        self._table = RunTable()
        self._lock = threading.RLock()  # of the table, the runners and what is done for each run
        self._desk = OrderDesk(self._stores)
        self._dispatcher: Dispatcher = self._desk.dispatcher
        self._runners = RunnerPool(scheduler)
        self._metrics = ServiceMetrics()
        self._wake, self._ready = threading.Event(), threading.Event()
        self._executions = Executions(self._table, self._stores, self._desk, self._runners, self._admission.check, lock=self._lock, wake=self._wake)
        self._recovery = Recovery(self._stores, self._executions.adopt, self._executions.resume)
        self._runs = RunDesk(self._table, self._stores, self._desk, self._executions, self._recovery, lock=self._lock, wake=self._wake)
        self._published, self._began = 0.0, time.monotonic()
        self._metrics.watch_disks(self._stores.paths)
        threading.Thread(target=self._run, name="runs", daemon=True).start()

    def __repr__(self) -> str:
        """What the Ray dashboard shows of it."""
        return f"{NAME} (queue of runs, stores, orders to evaluators)"

    # ---- for clients

    @ray.method(concurrency_group="clients")
    def version(self) -> str:
        """The version of raysp that the scheduler runs."""
        return __version__

    @ray.method(concurrency_group="clients")
    def submit(self, requests: Sequence[RunRequest]) -> None:
        """Queue runs, and have their rows written. A run that is under way is left alone; one that ended is run again, and what is stored costs nothing.

        UserError if the policy does not allow a question, if a store cannot be opened or if a run with evaluations asks another question.
        """
        for request in requests:
            self._admission.check(request.spec)
        self._ready.wait()
        self._runs.submit(requests)

    @ray.method(concurrency_group="clients", enable_task_events=False)
    def states(self, run_ids: Sequence[str] | None = None) -> list[RunState]:
        """Where these runs stand, or all that are known here; those that ended long ago as their store has them. UserError for an unknown run."""
        self._ready.wait()
        return self._runs.states(run_ids)

    @ray.method(concurrency_group="clients", enable_task_events=False)
    def follow(self, run_ids: Sequence[str], seen: Mapping[str, int], timeout: float) -> list[RunState]:
        """The states of these runs that are newer than the versions seen, after waiting at most `timeout` seconds for the first. UserError for an unknown run."""
        self._ready.wait()
        return self._runs.follow(run_ids, seen, timeout)

    @ray.method(concurrency_group="clients", enable_task_events=False)
    def changes(self, since: int, timeout: float) -> list[RunState]:
        """The states of all runs that are newer than a version, after waiting at most `timeout` seconds for the first: how a web end follows everything at once."""
        self._ready.wait()
        return self._table.changes(since, timeout)

    @ray.method(concurrency_group="clients", enable_task_events=False)
    def keep_open(self, path: Path) -> None:
        """Leave a store open for `KEPT_SECONDS`, so that whoever reads it reads snapshots and is in no writer's way. UserError for one that the policy does not allow."""
        self._admission.check_store(path)
        self._ready.wait()
        self._stores.keep(path, KEPT_SECONDS)

    @ray.method(concurrency_group="clients")
    def steer(self, run_id: str, desired: Desired) -> RunState:
        """Pause, cancel or go on with a run. One that is paused or cancelled ends after the batches under way. UserError for an unknown run, and for one that has ended."""
        self._ready.wait()
        return self._runs.steer(run_id, desired)

    @ray.method(concurrency_group="clients")
    def result(self, run_id: str) -> Result:
        """The answer of a run that is done. Raises the error that ended it if there was one; UserError for a run that has not ended."""
        self._ready.wait()
        return self._runs.result(run_id)

    @ray.method(concurrency_group="clients")
    def status(self) -> ServiceStatus:
        """The version, the open stores, the evaluators, and the runs."""
        self._ready.wait()
        with self._lock:
            handles = list(self._table.handles.values())
            counts = dict(Counter[str](handle.state.status for handle in handles))
            queue = tuple(handle.run_id for handle in self._table.number_queue())
        return ServiceStatus(__version__, tuple(map(str, self._stores.paths())), self._dispatcher.evaluators(), counts, queue)

    @ray.method(concurrency_group="queries")
    def sql(self, store: str | None, query: str, limits: Limits) -> Answer:
        """The answer to one statement about a store, by default the service's own. UserError as `ask_confined`, and for a store that the policy does not allow."""
        return self._stores.ask(self._named(store), query, limits)

    @ray.method(concurrency_group="clients")
    def find(self, store: str | None, wanted: Sequence[str]) -> list[str]:
        """The ids of the runs of a store, by default the service's own, that these words refer to. UserError as `RunDesk.find`, and for a store that the policy does not allow."""
        return self._runs.find(self._named(store), wanted)

    @ray.method(concurrency_group="queries")
    def remove(self, store: str | None, run_ids: Sequence[str], unused: bool, dry_run: bool) -> Cleaning:
        """Remove runs from a store, by default the service's own. UserError as `RunDesk.remove`, and for a store that the policy does not allow."""
        path = self._named(store)
        self._recovery.check_store(path)
        return self._runs.remove(path, run_ids, unused=unused, dry_run=dry_run)

    def _named(self, store: str | None) -> Path:
        """The path of a store that a client names, once everything is ready. UserError if the policy does not allow it."""
        path = self._admission.store if store is None else store_path(store)
        self._admission.check_store(path)
        self._ready.wait()
        return path

    @ray.method(concurrency_group="clients")
    def close(self) -> None:
        """Interrupt the runs and close the stores. A run that is loading a model has nothing to store and is not waited for after `CLOSING_SECONDS`."""
        self._ready.wait()
        self._executions.closing.set()
        with self._lock:
            under_way = [handle for handle in self._table.handles.values() if not handle.state.ended]
            for handle in under_way:
                if handle.active:
                    self._desk.steer(handle.run_id, "cancelled")
                else:
                    with contextlib.suppress(ValueError, UserError):
                        self._executions.advance(handle, "interrupted")
        self._table.wait_ended([handle.run_id for handle in under_way], CLOSING_SECONDS)
        with self._lock:
            self._desk.close_all()
        self._stores.close_unused(())
        self._executions.closing.clear()

    # ---- for runners and others who want evaluations

    @ray.method(concurrency_group="questions")
    def attach(  # noqa: PLR0917  as the session was opened
        self, session: str, incarnation: str, store: Path, payer: str, priority: int, lens: AnyLens, info: GameInfo | None, workers: int | None = None
    ) -> Attached:
        """Let a process place orders for a lens's game, which an evaluator describes unless `info` is known, from an earlier scheduler for instance.

        At most `workers` evaluators measure for it at once; a run has those of its spec. InterruptedRunError if the session was stopped; SupersededError if
        another process executes the run now; UserError for what the policy does not allow or the lens cannot do, and if no evaluator can be placed.
        """
        self._admission.check_lens(lens)
        self._admission.check_store(store)
        self._ready.wait()
        self._recovery.check(session)
        with self._lock:
            handle = self._table.handles.get(session)
            if handle is not None and session == payer:
                self._check(handle, incarnation)
                limit, masks = handle.request.spec.evaluators, handle.request.spec.explorer.budget
            else:
                limit, masks = workers, None
                self._executions.shape_for(RunSpec(lens=lens))
            self._desk.open(session, incarnation, store, payer, priority=priority, limit=limit, is_run=handle is not None, masks=masks)
            if handle is not None:
                self._desk.steer(session, self._executions.wanted(handle))
        return self._desk.attach(session, incarnation, lens, info)

    @ray.method(concurrency_group="questions")
    def ask(self, session: str, method: str, lens: AnyLens, fingerprint: str, *arguments: Any) -> Any:
        """The answer of an evaluator to a question about a lens's game, as `Evaluator` has them. UserError for what the policy does not allow."""
        self._admission.check_lens(lens)
        self._ready.wait()
        return self._desk.ask(session, method, lens, fingerprint, *arguments)

    @ray.method(concurrency_group="questions")
    def preview(self, lens: FeatureLens, store: Path) -> dict[str, Any]:
        """A prompt in pieces and what the model would say next, as `Evaluator.preview`. UserError for what the policy does not allow or the lens cannot do."""
        self._admission.check_lens(lens)
        self._admission.check_store(store)
        self._ready.wait()
        with self._lock:
            self._executions.shape_for(RunSpec(lens=lens))
        return self._desk.preview(lens, store)

    @ray.method(concurrency_group="runners", enable_task_events=False)
    def exchange(self, session: str, incarnation: str, orders: Sequence[PlacedOrder], taken: int, timeout: float) -> Exchanged:
        """Place orders and take the answers after number `taken`, waiting at most `timeout` seconds for the first. Orders that were placed before are ignored.

        UnknownSessionError if the session must attach (again); SupersededError if another process executes the run now.
        """
        self._ready.wait()
        return self._desk.exchange(session, incarnation, orders, taken, timeout)

    @ray.method(concurrency_group="runners")
    def leave(self, session: str, incarnation: str) -> None:
        """Close a session. What was asked and not answered is dropped."""
        self._ready.wait()
        self._desk.close(session, incarnation)
        self._wake.set()

    @ray.method(concurrency_group="runners")
    def end_sessions(self, prefix: str) -> None:
        """Close the sessions whose names begin with `prefix`, and open no more of them: what they belong to has ended, and its processes may live on for a moment."""
        self._ready.wait()
        self._desk.end(prefix)
        self._wake.set()

    @ray.method(concurrency_group="stores", enable_task_events=False)
    def store_call(self, path: Path, method: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """Call a method of a store, as `StoreProxy` has them. UserError for a store that the policy does not allow."""
        self._admission.check_store(path)
        self._ready.wait()
        self._recovery.check_store(path)
        with self._stores.using(path) as store:
            return carry_out(store, method, arguments, named)

    @ray.method(concurrency_group="beats", enable_task_events=False)
    def beat(self, run_id: str, incarnation: str, progress: Progress) -> Desired:
        """Note the progress of a run; what is wanted of it. SupersededError if another process executes it now."""
        self._ready.wait()
        self._recovery.check(run_id)
        with self._lock:
            handle = self._table.handles.get(run_id)
            if handle is None:
                raise SupersededError.of(run_id, "superseded")
            self._check(handle, incarnation)
            self._table.progressed(handle, progress)
            wanted = self._executions.wanted(handle)
        store = self._stores.find(handle.store)
        if store is not None:
            store.set_progress(run_id, progress_json(progress))
        return wanted

    @ray.method(concurrency_group="beats")
    def ended(self, run_id: str, incarnation: str, error: BaseException | None) -> None:
        """Note that a run's execution is over, and what it raised."""
        self._ready.wait()
        self._recovery.check(run_id)
        with self._lock:
            handle = self._table.handles.get(run_id)
            if handle is not None and handle.incarnation == incarnation and handle.active:
                self._executions.conclude(handle, error)
            leaving = self._tidy()
        self._stores.close(leaving)
        self._wake.set()

    # ---- the loop

    def _run(self) -> None:
        try:
            self._recover()
        except Exception:  # a scheduler that remembers nothing is better than none
            log.exception("recovery failed")
        self._ready.set()
        while True:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            try:
                self._reconcile()
            except Exception:
                log.exception("the loop goes on")

    def _recover(self) -> None:
        """Go on with the runs of an earlier scheduler: those that runners still execute, and those that the stores say are unfinished."""
        self._desk.start()
        self._recovery.begin(self._runners.adopt())

    def _reconcile(self) -> None:
        with self._lock:
            self._executions.take_back()
            self._executions.end_overdue()
            self._executions.begin_queued()
            if time.monotonic() - self._began > SPARE_AFTER_SECONDS and self._executions.any():
                self._runners.keep_spare()
            self._runners.rest()
            leaving = self._tidy()
        self._stores.close(leaving)
        self._executions.check_runners()
        self._publish()

    def _publish(self) -> None:
        """Publish metrics, so often that those of what has ended vanish."""
        if time.monotonic() - self._published < PUBLISH_SECONDS:
            return
        self._published = time.monotonic()
        with self._lock:
            states = [handle.state for handle in self._table.handles.values()]
        under_way = [state.progress for state in states if state.status == "running" and state.progress is not None]
        counts = Counter(state.status for state in states)
        evaluators, lost = self._dispatcher.evaluators(), self._dispatcher.lost
        self._metrics.publish(self._desk.totals, self._dispatcher.queue(), runs=counts, progress=under_way, evaluators=evaluators, lost=lost)

    def _tidy(self) -> dict[Path, Store]:
        """Forget old runs, and take the stores that nobody uses, which are to be closed once the lock is released."""
        self._table.forget_old()
        self._desk.expire()
        return self._stores.take(self._stores.unused(self._runs.stores_in_use() | self._stores.kept()))

    # ---- looking things up

    @staticmethod
    def _check(handle: RunHandle, incarnation: str) -> None:
        if handle.incarnation != incarnation:
            raise SupersededError.of(handle.run_id, "superseded: another process executes it")


_remote: Any = ray.remote
scheduler_actor: Any = _remote(concurrency_groups=CONCURRENCY, max_restarts=-1, max_task_retries=0, num_cpus=0)(Scheduler)


def scheduler(policy: Policy = EVERYTHING, own: Path | None = None) -> Any:
    """The cluster's scheduler, started on the head node if there is none; the path of a store is a path on that node.

    One that is started here allows what `policy` says, and questions may name the store `own` whatever it says of files.

    UserError if it runs another version of raysp, or does not answer.
    """
    options: dict[str, Any] = {
        "name": NAME,
        "namespace": NAMESPACE,
        "get_if_exists": True,
        "lifetime": "detached",
        "resources": PLACE,
        "runtime_env": ENVIRONMENT,
    }
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        actor = scheduler_actor.options(**options).remote(policy, own)
        try:
            running: str = ray.get(actor.version.remote(), timeout=max(0.0, deadline - time.monotonic()))
            break
        except GetTimeoutError:
            remedy = "look at `ray status` and the Ray dashboard, then try again"
            raise UserError("cluster", None, f"its scheduler has not answered for {ANSWER_SECONDS:.0f} s", remedy) from None
        except ActorUnavailableError:  # it is being started again, or a message was lost
            time.sleep(AGAIN_SECONDS)
    if running != __version__:
        raise UserError("raysp", running, f"runs on this cluster, but {__version__} here", "install the same version, or end the actor raysp:scheduler")
    return actor
