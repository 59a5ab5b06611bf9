"""Runs and the runners that execute them: a run is given to one runner at a time, and taken back however that ends."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from secrets import token_hex

from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.runs import state as run_states
from raysp.runs.state import Desired, Status
from raysp.runtime.logs import reason_of
from raysp.runtime.messages import Job
from raysp.runtime.order_desk import OrderDesk
from raysp.runtime.run_table import RunHandle, RunTable
from raysp.runtime.runner_pool import RunnerPool
from raysp.runtime.shape import choose_shape
from raysp.runtime.stores import Stores
from raysp.specs.run import RunSpec

#: How often runners are asked for a sign of life.
CHECK_SECONDS = 5.0
#: Checks in a row in which a runner may say that it has no job (its job may be on the way), and in which it may say nothing: where machines are slow or loaded
#: it takes minutes to start, and Ray tells when it has died.
ASTRAY, SILENT = 2, 20
#: Runners that one run may lose before it is given up.
DEATHS = 4
#: How long a run that was told to stop may take, longer than it waits for batches under way. Then its process is ended: one that fits something notices nothing.
STOPPING_SECONDS = 30.0

log = logging.getLogger(__name__)


class Executions:
    """What a scheduler does for the runs of its table. Its caller holds `lock` unless stated otherwise; `wake` is set when the loop has something to do.

    `admit` raises UserError for a question that must not be run, which then fails with that. `closing` is set while the scheduler interrupts its runs.
    """

    def __init__(
        self,
        table: RunTable,
        stores: Stores,
        desk: OrderDesk,
        runners: RunnerPool,
        admit: Callable[[RunSpec], None],
        *,
        lock: "threading.RLock",
        wake: threading.Event,
    ) -> None:
        self._table, self._stores, self._desk, self._runners, self._admit = table, stores, desk, runners, admit
        self._lock, self._wake = lock, wake
        self._came_back = SimpleQueue[tuple[RunHandle, str, str]]()
        self._checked = time.monotonic()
        self.closing = threading.Event()

    def any(self) -> bool:
        """Whether a runner executes a run."""
        return any(handle.active for handle in self._table.handles.values())

    def wanted(self, handle: RunHandle) -> Desired:
        """What is wanted of a run."""
        return "cancelled" if self.closing.is_set() else handle.state.desired

    def advance(self, handle: RunHandle, status: Status, error: str | None = None) -> None:
        """Change a run's status, in its store and for those who follow it."""
        store, progress = self._stores.open(handle.store), handle.state.progress
        self._table.changed(handle, run_states.advance(store, handle.run_id, status, error=error, progress=progress))
        event = {"queued": "run queued", "running": "run started"}.get(status, "run ended")
        about = {"run": handle.run_id, "incarnation": handle.incarnation or None, "status": status}
        log.info(event, extra=about | {"reason": None if handle.error is None else reason_of(handle.error)})

    # ---- beginning

    def adopt(self, runner: str, job: Job) -> None:
        """Know a run that a runner of an earlier scheduler executes. To be called without the lock, while its store is open."""
        store = self._stores.open(job.store)
        with self._lock:
            if (found := run_states.states(store, [job.request.run_id])) and job.request.run_id not in self._table.handles:
                self._table.add(RunHandle(job.request, job.store, found[0], job.incarnation, runner))
                log.info("run adopted", extra={"run": job.request.run_id, "incarnation": job.incarnation, "runner": runner})
            elif not found:  # it was removed in the meantime
                self._runners.drop(runner)

    def resume(self, path: Path, found: run_states.UnfinishedRun) -> None:
        """Queue a run that nobody executes again, unless it is known. To be called without the lock."""
        store, state = self._stores.open(path), found.state
        with self._lock:
            if state.run_id in self._table.handles:
                return
            if found.request is None:
                run_states.advance(store, state.run_id, "interrupted", error="its question cannot be read back from the store; submit it again")
                log.warning("run ended", extra={"run": state.run_id, "status": "interrupted", "reason": "its question cannot be read back"})
                return
            handle = RunHandle(found.request, path, state)
            self._table.add(handle)
            log.info("run resumed", extra={"run": state.run_id, "status": state.status, "store": path})
            if state.status == "running":
                self.advance(handle, "queued" if state.desired == "running" else state.desired)
        self._wake.set()

    def begin_queued(self) -> None:
        """Give queued runs to runners, as far as there are any."""
        if self.closing.is_set():
            return
        for handle in self._table.number_queue():
            if self._runners.full or not self._begin(handle):
                break
        self._table.number_queue()

    def _begin(self, handle: RunHandle) -> bool:
        """Give a queued run to a runner. False if it must wait for evaluators of another shape, and so must those behind it."""
        try:
            self._admit(handle.request.spec)
            if not self.shape_for(handle.request.spec):
                return False
            self._stores.open(handle.store)
            handle.incarnation, handle.error = token_hex(8), None
            handle.astray = handle.silent = 0
            self.advance(handle, "running")
            job = Job(handle.request, handle.incarnation, handle.store)
            handle.runner = self._runners.give(job, partial(self._returned, handle, handle.incarnation))
        except UserError as error:
            self._fail(handle, error)
        return True

    def shape_for(self, spec: RunSpec) -> bool:
        """Have evaluators that suit a spec. False if those that there are do not, and are in use. UserError for what the cluster cannot hold."""
        wanted, shape = choose_shape(spec), self._desk.dispatcher.shape
        if shape is not None and shape.suits(spec):
            return True
        if shape is not None and (self._desk.in_use() or self.any()):
            return False
        self._desk.dispatcher.reshape(wanted)
        return True

    # ---- ending

    def _returned(self, handle: RunHandle, incarnation: str, error: BaseException | None) -> None:
        """A runner has returned from a job, or died of it. Called in a thread of Ray's, on which others wait: it must not wait itself."""
        self._came_back.put((handle, incarnation, f"{type(error).__name__}: {error}" if error else "it ended without a word"))
        self._wake.set()

    def take_back(self) -> None:
        """Take back the runs whose runner returned without having told how they ended."""
        while not self._came_back.empty():
            handle, incarnation, reason = self._came_back.get()
            if handle.incarnation == incarnation and handle.active:
                self._lose(handle, reason)

    def check_runners(self) -> None:
        """Find runs whose runner died without a word: those of an earlier scheduler had nobody to tell. To be called without the lock."""
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        self._checked = time.monotonic()
        with self._lock:
            active = [(handle, handle.runner, handle.incarnation) for handle in self._table.handles.values() if handle.runner is not None]
        for handle, runner, incarnation in active:
            alive, working = self._runners.check(runner)
            with self._lock:
                if handle.incarnation != incarnation or not handle.active:
                    continue
                handle.silent = handle.silent + 1 if working is None else 0
                handle.astray = handle.astray + 1 if working is False else 0
                if not alive or handle.astray > ASTRAY or handle.silent > SILENT:
                    self._lose(handle, "its process is gone")
        self._checked = time.monotonic()  # a check may have waited: a job that is on its way needs time between two

    def end_overdue(self) -> None:
        """End the processes of runs that were told to stop long ago. What was measured is stored."""
        now = time.monotonic()
        for handle in self._table.handles.values():
            if not handle.active or self.wanted(handle) == "running":
                handle.stopping = None
            elif handle.stopping is None:
                handle.stopping = now
            elif now - handle.stopping > STOPPING_SECONDS:
                self._drop(handle, f"told to stop, and has not in {now - handle.stopping:.0f} s")
                self._conclude_stopped(handle)

    def _drop(self, handle: RunHandle, reason: str) -> None:
        """Take a run from its process, which is dead, or ends now."""
        assert handle.runner is not None
        log.warning("run lost", extra={"run": handle.run_id, "incarnation": handle.incarnation, "runner": handle.runner, "reason": reason})
        self._runners.drop(handle.runner)
        handle.runner, handle.incarnation = None, ""
        self._desk.close(handle.run_id)

    def _lose(self, handle: RunHandle, reason: str) -> None:
        """Have a run that lost its process executed by another one."""
        first = (reason.strip().splitlines() or [""])[0]
        self._drop(handle, first)
        handle.deaths += 1
        if handle.deaths >= DEATHS:
            self._fail(handle, EvaluationError(f"the process of the run died {DEATHS} times, last with {first}; what was measured is stored"))
        elif self.wanted(handle) == "running":
            self._stores.open(handle.store).add_event(handle.run_id, "retried", f"the process of the run died ({first}) and another one took over")
            self.advance(handle, "queued")
        else:
            self._conclude_stopped(handle)

    def conclude(self, handle: RunHandle, error: BaseException | None) -> None:
        """Record how a run's execution ended."""
        assert handle.runner is not None
        self._runners.free(handle.runner)
        handle.runner, handle.incarnation = None, ""
        retried = self._desk.close(handle.run_id)
        if retried:
            self._stores.open(handle.store).add_event(handle.run_id, "retried", f"{retried} batches were lost with their evaluator and measured again")
        if error is None:
            self.advance(handle, "done")
        elif isinstance(error, InterruptedRunError):
            self._conclude_stopped(handle)
        else:
            self._fail(handle, error)

    def _conclude_stopped(self, handle: RunHandle) -> None:
        """Record that a run stopped because it was told to. One that is wanted again by now is queued."""
        if self.closing.is_set():
            self.advance(handle, "interrupted")
        else:
            self.advance(handle, "queued" if handle.state.desired == "running" else handle.state.desired)

    def _fail(self, handle: RunHandle, error: BaseException) -> None:
        handle.error = error
        self.advance(handle, "failed", str(error))
