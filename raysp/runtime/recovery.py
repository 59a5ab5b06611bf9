"""What an earlier scheduler left: stores with unfinished runs, and runners that execute some of them.

A store that cannot be opened (another process has it, its file system is not there, it is damaged) keeps none of the others waiting: each has a thread of its
own, which tries again until it succeeds. Until then a runner whose run is in that store is told to wait.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from raysp.runs import state as run_states
from raysp.runtime.logs import reason_of
from raysp.runtime.messages import Job, RecoveringError
from raysp.runtime.stores import Stores
from raysp.store import missing

#: How long to wait before a store is tried again: the first time, and at most, as the wait doubles.
AGAIN_SECONDS, MOST_AGAIN_SECONDS = 0.25, 4.0
#: How long the first attempts may take before the scheduler serves those whose stores are open.
FIRST_SECONDS = 10.0

log = logging.getLogger(__name__)

Adopt = Callable[[str, Job], None]
Resume = Callable[[Path, run_states.UnfinishedRun], None]


class Recovery:
    """Stores that are to be opened again. `adopt` is given each run that a runner (by name) still executes, and `resume` each other one that is unfinished."""

    def __init__(self, stores: Stores, adopt: Adopt, resume: Resume) -> None:
        self._stores, self._adopt, self._resume = stores, adopt, resume
        self._lock = threading.Lock()
        self._executed: dict[Path, dict[str, tuple[str, Job]]] = {}
        self._waiting: dict[Path, str] = {}
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self, executed: Mapping[str, Job]) -> None:
        """Open the stores of the jobs that runners execute, and those that were left open. Returns after the first attempts, or `FIRST_SECONDS`."""
        for runner, job in executed.items():
            self._executed.setdefault(job.store, {})[job.request.run_id] = runner, job
        tried: list[threading.Event] = []
        for path in dict.fromkeys([*self._executed, *self._stores.left_open()]):
            self._waiting[path] = "it is being opened"
            tried.append(threading.Event())
            self._threads.append(threading.Thread(target=self._recover, args=(path, tried[-1]), name=f"recover {path.name}", daemon=True))
            self._threads[-1].start()
        until = time.monotonic() + FIRST_SECONDS
        for each in tried:
            each.wait(max(0.0, until - time.monotonic()))

    def stop(self) -> None:
        """Try no more."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def waiting(self) -> dict[Path, str]:
        """The stores that are not open yet, and why."""
        with self._lock:
            return dict(self._waiting)

    def check(self, run_id: str) -> None:
        """RecoveringError if a runner executes this run, and the run's store is not open yet."""
        with self._lock:
            if any(run_id in jobs for jobs in self._executed.values()):
                raise RecoveringError(run_id)

    def check_store(self, path: Path) -> None:
        """RecoveringError if a runner executes a run of this store, and it is not open yet."""
        with self._lock:
            if path in self._executed:
                raise RecoveringError(str(path))

    def _recover(self, path: Path, tried: threading.Event) -> None:
        """Go on with the runs of a store, as soon as it can be opened."""
        pause = AGAIN_SECONDS
        while not self._attempt(path):
            tried.set()
            if self._ended.wait(pause):
                return
            pause = min(2 * pause, MOST_AGAIN_SECONDS)
        tried.set()

    def _attempt(self, path: Path) -> bool:
        try:
            if not path.exists():  # to open it would make an empty one, perhaps where a file system is missing
                raise missing(path)  # noqa: TRY301  told as any other reason
            with self._stores.using(path) as store:
                self._go_on(path, run_states.unfinished(store))
        except Exception as error:  # noqa: BLE001  whatever is wrong with one store, others are not
            with self._lock:
                told, self._waiting[path] = self._waiting[path] == _line(error), _line(error)
            if not told:
                log.warning("store cannot be opened", extra={"store": path, "reason": reason_of(error)})
            return False
        self._stores.recovered(path)
        with self._lock:
            del self._waiting[path]
        return True

    def _go_on(self, path: Path, unfinished: Sequence[run_states.UnfinishedRun]) -> None:
        """Go on with as many runs of an open store as possible. Raises the first error."""
        with self._lock:
            executed = self._executed.get(path, {})
        errors: list[Exception] = []
        for call in (
            *(partial(self._adopt, runner, job) for runner, job in executed.values()),
            *(partial(self._resume, path, each) for each in unfinished if each.state.run_id not in executed),
        ):
            try:
                call()
            except Exception as error:  # noqa: BLE001  raised below, after the other runs
                errors.append(error)
        if errors:
            raise errors[0]
        with self._lock:
            self._executed.pop(path, None)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
