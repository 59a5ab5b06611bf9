"""The side of a run that the user's process holds: submit it to the scheduler, follow it, steer it, fetch the answer.

A client that dies changes nothing for the runs that it submitted. A scheduler that dies is found again, and followed from where it stands. A head node that
dies takes Ray's own processes with it: whoever follows is told so in one line.
"""

import contextlib
import inspect
import os
import sysconfig
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from raysp.errors import InterruptedRunError, UserError
from raysp.home import service
from raysp.interrupts import interrupted_by_termination
from raysp.runs.progress import Watch, WatchAll
from raysp.runs.result import Result
from raysp.runs.state import Desired, RunRequest, RunState, ServiceStatus
from raysp.runtime.address import answers, joins_elsewhere
from raysp.runtime.cluster import NAMESPACE, connected
from raysp.runtime.link import CALL_SECONDS, Link
from raysp.runtime.pool import named
from raysp.runtime.scheduler import CLOSING_SECONDS, NAME, scheduler
from raysp.runtime.workplace import ServiceWorkplace
from raysp.specs.run import AnyLens, RunSpec
from raysp.store import Answer, Cleaning, Limits

#: How long one question about the runs that are followed waits for news.
FOLLOW_SECONDS = 1.0
#: A head that has not answered for this long is lost. One that is started again in the meantime is not noticed; Ray ends the process after 60 s.
HEAD_SECONDS, LOOK_SECONDS = 45.0, 3.0
#: How long a query may wait beside its own time: for those before it, for a snapshot, and for its answer to arrive.
QUERY_SECONDS = 600.0
#: How long removing runs from a large store, and writing it anew, may take.
REMOVAL_SECONDS = 7200.0


class Client:
    """The scheduler of the cluster that this process is connected to. Methods raise UserError if the head node is lost."""

    def __init__(self, address: str) -> None:
        self._head = HeadWatch(address)
        self.link = Link(scheduler)

    @property
    def address(self) -> str:
        """HOST:PORT of the head node."""
        return self._head.address

    def submit(self, requests: Sequence[RunRequest]) -> None:
        """Queue runs. When this returns, their rows are written, and they are executed whatever becomes of this process."""
        for request in requests:
            _ship_whole(request.spec.lens)
        self._ask("submit", [_in_store(request.with_content(), self._served_store) for request in requests])

    @property
    def _served_store(self) -> str | None:
        """The store of the service of this home, if this is its scheduler."""
        served = service() or {}
        return served.get("store") if served.get("address") == self.address else None

    def follow(self, run_ids: Sequence[str]) -> Iterator[RunState]:
        """The states of these runs now, and again whenever they change, until all have ended or are paused."""
        seen, open_runs = dict.fromkeys(run_ids, -1), set(run_ids)
        while open_runs:
            for state in self._ask("follow", sorted(open_runs), seen, FOLLOW_SECONDS):
                seen[state.run_id] = state.version
                if state.ended or state.status == "paused":
                    open_runs.discard(state.run_id)
                yield state

    def states(self, run_ids: Sequence[str] | None = None) -> list[RunState]:
        """Where these runs stand, or all that the scheduler remembers. UserError for an unknown run."""
        return self._ask("states", run_ids)

    def steer(self, run_id: str, desired: Desired) -> RunState:
        """Pause or cancel a run, or go on with it. UserError for an unknown run, and for one that has ended and is to be paused or cancelled."""
        return self._ask("steer", run_id, desired)

    def result(self, run_id: str) -> Result:
        """The answer of a run that is done. Raises what ended it otherwise."""
        return self._ask("result", run_id)

    def status(self) -> ServiceStatus:
        """What the scheduler has to do, and with what."""
        return self._ask("status")

    def sql(self, query: str, limits: Limits, store: str | None = None) -> Answer:
        """The answer to one statement about a store on the head node, by default the service's. Raises UserError as `raysp.store.ask_confined`."""
        return self._ask("sql", self._named(store), query, limits, seconds=limits.seconds + QUERY_SECONDS)

    def remove(self, wanted: Sequence[str], *, unused: bool = False, dry_run: bool = False, store: str | None = None) -> Cleaning:
        """Remove runs, by id or the beginning of it, by name, or last, from a store on the head node, by default the service's. UserError as `RunDesk.remove`."""
        named = self._named(store)
        # A call that is made again must not find another run.
        return self._ask("remove", named, self._ask("find", named, wanted), unused, dry_run, seconds=REMOVAL_SECONDS)

    def _named(self, store: str | None) -> str | None:
        return store or os.environ.get("RAYSP_STORE") or self._served_store

    def cancel(self, run_ids: Sequence[str]) -> None:
        """Cancel those of these runs that have not ended, and wait until they are stored, at most `CLOSING_SECONDS`."""
        left: list[str] = []
        for run_id in run_ids:
            with contextlib.suppress(UserError):
                if not self.steer(run_id, "cancelled").ended:
                    left.append(run_id)
        until = time.monotonic() + CLOSING_SECONDS
        while left and time.monotonic() < until:
            left = [state.run_id for state in self.states(left) if not state.ended]
            time.sleep(0.1)

    def end_sessions(self, prefix: str) -> None:
        """Drop what the sessions whose names begin with `prefix` have ordered, and let their processes order no more."""
        self._ask("end_sessions", prefix)

    def close_scheduler(self) -> None:
        """Interrupt the runs, and have the stores closed."""
        self._ask("close")

    def close(self) -> None:
        """Stop looking at the head node."""
        self._head.close()

    def _ask(self, method: str, *arguments: Any, seconds: float = CALL_SECONDS) -> Any:
        try:
            return self.link.call(method, *arguments, cancelled=lambda: self._head.lost, seconds=seconds)
        except (InterruptedRunError, RayError):
            if self._head.lost:
                raise self._head.error() from None
            raise


class HeadWatch:
    """Notices that the head node of a cluster has not answered for `HEAD_SECONDS`: Ray's calls wait for it, and end the process without a word."""

    def __init__(self, address: str) -> None:
        self.address, self.lost = address, False
        self._over = threading.Event()
        threading.Thread(target=self._look, name="head", daemon=True).start()

    def close(self) -> None:
        """Stop looking."""
        self._over.set()

    def error(self) -> UserError:
        """What to tell somebody who waits for a run."""
        return UserError(
            "cluster", self.address, "has lost its head node", "what was measured is stored: once the cluster is back, `raysp resume RUN` continues a run"
        )

    def _look(self) -> None:
        answered = time.monotonic()
        while not self._over.wait(LOOK_SECONDS):
            if answers(self.address):
                answered = time.monotonic()
            elif time.monotonic() - answered > HEAD_SECONDS:
                self.lost = True
                return


class RayEngine(AbstractContextManager["RayEngine"]):
    """A cluster's scheduler, or that of a local Ray started for this block and stopped after it."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        try:
            connection = self._stack.enter_context(connected())
            self._own = connection.own
            self._stack.enter_context(interrupted_by_termination())  # after Ray, which installs a handler of its own
            self.client = Client(connection.address)
        except BaseException:
            self._stack.close()
            raise
        return self

    @property
    def own(self) -> bool:
        """Whether the runs end with this block, as its Ray does."""
        return self._own

    def run(self, spec: RunSpec, run_id: str, set_name: str | None = None, watch: Watch | None = None) -> Result:
        """Run a spec on the cluster, as `Engine.run`."""
        return next(self.run_all([RunRequest(spec, run_id, set_name)], None if watch is None else lambda _, progress: watch(progress)))

    def run_all(self, requests: Sequence[RunRequest], watch: WatchAll | None = None) -> Generator[Result]:
        """Submit all runs at once and yield their answers in this order, as `Engine.run_all`.

        An interrupt (Ctrl-C, SIGTERM) and the failure of a run cancel those that this call submitted and that have not ended. Runs that were under way
        before, because somebody else submitted them, go on.
        """
        before = {state.run_id: state.status for state in self.client.states() if not state.ended}
        mine = [request.run_id for request in requests if request.run_id not in before]
        self._submit(requests, mine)
        for request in requests:
            if before.get(request.run_id) == "paused":
                self.client.steer(request.run_id, "running")
        numbers = {request.run_id: number for number, request in enumerate(requests)}
        waiting, ended = [request.run_id for request in requests], set[str]()
        try:
            for state in self.client.follow(waiting):
                if watch is not None:
                    watch(numbers[state.run_id], state.shown)
                if state.ended or state.status == "paused":
                    ended.add(state.run_id)
                while waiting and waiting[0] in ended:
                    yield self.client.result(waiting[0])
                    waiting.pop(0)
        except BaseException as error:
            left = [run_id for run_id in mine if run_id not in ended]
            with contextlib.suppress(UserError):
                self.client.cancel(left)
            if not isinstance(error, KeyboardInterrupt):
                raise
            if not left:
                raise InterruptedRunError(f"run {waiting[0]} goes on; `raysp watch {waiting[0]}` follows it") from None
            raise InterruptedRunError.of(left[0]) from None

    def _submit(self, requests: Sequence[RunRequest], mine: Sequence[str]) -> None:
        try:
            self.client.submit(requests)
        except KeyboardInterrupt:
            self.client.cancel(mine)
            raise InterruptedRunError.of(requests[0].run_id) from None

    def workplace(self, path: Path, payer: str) -> ServiceWorkplace:
        """The cluster as a workplace, as `raysp.runs.workplace.Workplace`."""
        return ServiceWorkplace(self.client.link, path, payer)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._own:
            with contextlib.suppress(RayActorError, GetTimeoutError, UserError):
                self.client.close_scheduler()
        self.client.close()
        self._stack.close()


@contextlib.contextmanager
def attached() -> Generator[Client]:
    """A client of a scheduler that goes on when this process ends. UserError if this home has no service, and `RAY_ADDRESS` names no cluster."""
    with contextlib.ExitStack() as stack:
        if not joins():
            raise UserError("service", None, "is not running", "start it with `raysp up`, or run here with `raysp run`")
        connection = stack.enter_context(connected())
        stack.enter_context(interrupted_by_termination())
        client = Client(connection.address)
        stack.callback(client.close)
        yield client


def remove_where_open(place: Path, wanted: Sequence[str], *, unused: bool, dry_run: bool) -> Cleaning | None:
    """As `Client.remove`, by a scheduler that has the store of this machine at `place` open. None if none has."""
    if joins_elsewhere() or not joins():
        return None
    with attached() as client:
        store = next((path for path in client.status().stores if os.path.realpath(path) == os.path.realpath(place)), None)
        return None if store is None else client.remove(wanted, unused=unused, dry_run=dry_run, store=store)


def wanted_service() -> bool:
    """Whether a command would find a cluster to join."""
    from raysp.runtime.address import wanted_address

    return wanted_address() is not None


def joins() -> bool:
    """Whether this process is connected to a cluster, or a command would find one to join."""
    return ray.is_initialized() or wanted_service()


def scheduler_exists() -> bool:
    """Whether the cluster that this process is connected to has a scheduler."""
    try:
        ray.get_actor(NAME, NAMESPACE)
    except ValueError:
        return False
    return True


def end_service(address: str) -> list[str]:
    """Interrupt the runs of the scheduler of this cluster, close its stores, and end it with its evaluators and runners. Returns the ids of the runs."""
    if not scheduler_exists():
        return []
    client = Client(address)
    try:
        under_way = [state.run_id for state in client.states() if not state.ended]
        client.close_scheduler()
    finally:
        client.close()
    # The scheduler first: it would start again what it misses.
    for name in sorted(named("raysp:"), key=lambda name: name != NAME):
        with contextlib.suppress(ValueError, RayError):
            ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)
    return under_way


def _in_store(request: RunRequest, served: str | None) -> RunRequest:
    """The request with its store: the one that it names, else `$RAYSP_STORE` of this process, else that of the service, else the scheduler's default."""
    named = request.spec.store or os.environ.get("RAYSP_STORE") or served
    if named is None:
        return request
    return replace(request, spec=request.spec.model_copy(update={"store": str(Path(named).expanduser().absolute())}))


def _ship_whole(lens: AnyLens) -> None:
    """Send a function with its code if workers could not import it because it is from the user's own script or module."""
    module = inspect.getmodule(lens.own_code) if lens.own_code is not None else None
    file = getattr(module, "__file__", None)
    if module is None or file is None or module.__name__ == "__main__":
        return
    installed = {sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    if not any(Path(file).is_relative_to(folder) for folder in installed):
        cloudpickle.register_pickle_by_value(module)
