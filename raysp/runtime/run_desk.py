"""What clients want of runs: they are submitted, steered, looked up and removed. Stores are opened before the scheduler's lock is taken: one that is locked keeps nobody else waiting."""

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from raysp.errors import UserError
from raysp.home import store_path
from raysp.runs import state as run_states
from raysp.runs.result import Result, read_result
from raysp.runs.state import Desired, RunRequest, RunState
from raysp.runtime.executions import Executions
from raysp.runtime.order_desk import OrderDesk
from raysp.runtime.recovery import Recovery
from raysp.runtime.run_table import RunHandle, RunTable
from raysp.runtime.stores import Stores, unknown
from raysp.specs.run import run_spec
from raysp.store import Cleaning, Store

log = logging.getLogger(__name__)


class RunDesk:
    """Runs by id, in the table or in a store. `lock` is the scheduler's, and is not held by callers; `wake` is set when its loop has something to do."""

    def __init__(
        self, table: RunTable, stores: Stores, orders: OrderDesk, executions: Executions, recovery: Recovery, *, lock: "threading.RLock", wake: threading.Event
    ) -> None:
        self._table, self._stores, self._orders, self._executions, self._recovery = table, stores, orders, executions, recovery
        self._lock, self._wake = lock, wake

    # ---- looking up

    def states(self, run_ids: Sequence[str] | None) -> list[RunState]:
        """Where these runs stand, or all that are known here, as `Scheduler.states`."""
        if run_ids is None:
            with self._lock:
                return [handle.state for handle in self._table.handles.values()]
        return [self.state(run_id) for run_id in run_ids]

    def state(self, run_id: str) -> RunState:
        """Where a run stands. UserError for an unknown one."""
        handle = self._table.handles.get(run_id)
        if handle is not None:
            return handle.state
        with self._stores.reading(self.place(run_id)) as store:
            return run_states.state(store, run_id)

    def place(self, run_id: str) -> Path:
        """The path of the store that has a run. UserError if none of those remembered has it."""
        handle = self._table.handles.get(run_id)
        if handle is not None:
            return handle.store
        self._recovery.check(run_id)
        for path in self._stores.latest():
            with contextlib.suppress(UserError), self._stores.reading(path) as store:
                if run_states.states(store, [run_id]):
                    return path
        raise unknown(run_id, self._recovery.waiting())

    def find(self, path: Path, wanted: Sequence[str]) -> list[str]:
        """The ids of the runs of a store that these words refer to, as `StoreReader.find_run`. UserError for a word that no run answers to."""
        with self._stores.reading(path) as store:
            return list(dict.fromkeys(store.find_run(word) for word in wanted))

    def follow(self, run_ids: Sequence[str], seen: Mapping[str, int], timeout: float) -> list[RunState]:
        """The states of these runs that are newer than the versions seen, as `Scheduler.follow`."""
        elsewhere = [run_id for run_id in run_ids if run_id not in self._table.handles]
        found = [state for run_id in elsewhere if (state := self.state(run_id)).version > seen.get(run_id, -1)]
        here = {run_id: seen.get(run_id, -1) for run_id in run_ids if run_id not in elsewhere}
        return found + self._table.follow(here, 0.0 if found or not here else timeout)

    def result(self, run_id: str) -> Result:
        """The answer of a run that is done, as `Scheduler.result`."""
        state = self.state(run_id)
        handle = self._table.handles.get(run_id)
        if handle is not None and handle.error is not None:
            raise handle.error
        run_states.check_answered(state)
        with self._stores.reading(self.place(run_id)) as store:
            return read_result(store, run_id)

    def stores_in_use(self) -> set[Path]:
        """The stores of runs that have not ended and of sessions. To be called with the lock."""
        return {handle.store for handle in self._table.handles.values() if not handle.state.ended} | self._orders.stores()

    # ---- changing

    def submit(self, requests: Sequence[RunRequest]) -> None:
        """Queue runs, and have their rows written, but for those that are under way. UserError, with nothing written, if one of the stores cannot be opened."""
        with self._lock:
            fresh = [request for request in requests if not self._under_way(request.run_id)]
        by_store: dict[Path, list[RunRequest]] = {}
        for request in fresh:
            by_store.setdefault(store_path(request.spec.store), []).append(request)
        with ExitStack() as held:
            stores = {path: held.enter_context(self._stores.using(path)) for path in by_store}
            for path, some in by_store.items():
                run_states.submit(stores[path], some)
                with self._lock:
                    self._accept(stores[path], path, some)
        self._wake.set()

    def _accept(self, store: Store, path: Path, requests: Sequence[RunRequest]) -> None:
        """Know runs whose rows were written, as they are now: somebody may have steered one of them in the meantime."""
        stored = {state.run_id: state for state in run_states.states(store, [request.run_id for request in requests])}
        for request in requests:
            log.info("run submitted", extra={"run": request.run_id, "store": path})
            state = stored.get(request.run_id)
            if state is not None and not state.ended and not self._under_way(request.run_id):
                self._table.add(RunHandle(request.without_content(), path, state))
        self._table.number_queue()

    def _under_way(self, run_id: str) -> bool:
        handle = self._table.handles.get(run_id)
        return handle is not None and not handle.state.ended

    def steer(self, run_id: str, desired: Desired) -> RunState:
        """Pause, cancel or go on with a run. UserError for an unknown run, and for one that has ended and is not to go on."""
        path = self.place(run_id)
        with self._stores.using(path) as store, self._lock:
            if not run_states.states(store, [run_id]):  # it was removed a moment ago
                raise unknown(run_id, {})
            handle = self._table.handles.get(run_id) or self._revive(store, path, run_id)
            self._table.changed(handle, run_states.steer(store, run_id, desired))
            if handle.active:
                self._orders.steer(run_id, desired)
            elif desired != "running":
                self._executions.advance(handle, desired)
            elif handle.state.status != "queued":
                self._executions.advance(handle, "queued")
            self._table.number_queue()
        self._wake.set()
        return handle.state

    def _revive(self, store: Store, path: Path, run_id: str) -> RunHandle:
        """A handle of a run that is not remembered."""
        row, state = store.run_row(run_id), run_states.state(store, run_id)
        handle = RunHandle(RunRequest(run_spec(row["spec"]), run_id, row["set_name"], state.priority), path, state)
        self._table.add(handle)
        return handle

    def remove(self, path: Path, run_ids: Sequence[str], *, unused: bool, dry_run: bool) -> Cleaning:
        """Remove runs that have ended from a store, as `Store.remove_runs`, and write it anew without free space unless it is in use.

        What others measure at the moment stays. UserError, with nothing removed, for a run that is unknown, has not ended, or that a command acts on.
        """
        with self._stores.using(path) as store:
            for run_id in run_ids:
                if not run_states.states(store, [run_id]):
                    raise UserError("run", run_id, f"is not in the store {path}", "`raysp runs` lists those that are")
            with self._orders.removing(path, run_ids) as spared:
                removal = store.remove_runs(run_ids, unused=unused, spared=spared, dry_run=dry_run)
            if dry_run:
                return Cleaning(str(path), removal)
            with self._lock:
                self._table.forget(run_ids)
        for run_id in run_ids:
            log.info("run removed", extra={"run": run_id, "store": path})
        with self._lock:
            leaving = {} if path in self.stores_in_use() else self._stores.take([path])
        return Cleaning(str(path), removal, self._stores.compact(leaving).get(path))
