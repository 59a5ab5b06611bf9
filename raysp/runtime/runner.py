"""The actor that executes runs, one at a time: their fits run in its process, and its evaluations are orders of the scheduler.

A runner outlives the scheduler: it waits for the next one, attaches to it again, and places again what was not answered.
"""

import logging
import threading
import time
from importlib import import_module
from typing import Any

import ray

from raysp.blobs import blobs_from
from raysp.errors import InterruptedRunError
from raysp.runs.calibration import continued_lens
from raysp.runs.progress import Progress
from raysp.runs.run import Run
from raysp.runtime.backend import ServiceBackend
from raysp.runtime.link import Find, Link
from raysp.runtime.logs import log_to_stderr, reason_of
from raysp.runtime.messages import Job, SupersededError
from raysp.runtime.portable import portable
from raysp.runtime.store_proxy import StoreProxy

RUNNER = "raysp:runner:"
#: How often the scheduler is told where a run stands, and asked what is wanted of it.
BEAT_SECONDS = 0.25
#: How often a run that is under way says in the log where it stands, if that has changed.
LOG_SECONDS = 10.0

log = logging.getLogger(__name__)


class Runner:
    """One process for one run after the other. `runner_actor` makes an actor of it."""

    def __init__(self, name: str) -> None:
        log_to_stderr()
        self.name = name
        self._job: Job | None = None
        threading.Thread(target=_prepare, name="prepare", daemon=True).start()

    def __repr__(self) -> str:
        """What the Ray dashboard shows of it, which Ray asks for once: the tasks are named for what they execute."""
        return f"{self.name} (executes one run after the other)"

    @ray.method(concurrency_group="control", enable_task_events=False)
    def holding(self) -> Job | None:
        """The job that the runner executes; None if it has none."""
        return self._job

    def execute(self, job: Job, find: Find) -> None:
        """Execute a run to its end, and tell the scheduler (which `find` returns) how it ended."""
        self._job = job
        about = {"run": job.request.run_id, "incarnation": job.incarnation, "runner": self.name}
        log.info("execution began", extra=about)
        link = Link(find)
        try:
            error = Execution(job, link).run()
            log.info("execution ended", extra=about | {"reason": None if error is None else reason_of(error)})
            link.call("ended", job.request.run_id, job.incarnation, error)
        finally:
            self._job = None


def _prepare() -> None:
    """Load the libraries of fits while the process waits for its first run, or for its first evaluations: that takes longer than a short run."""
    for library in ("sklearn.linear_model", "lightgbm"):
        import_module(library)


class Execution:
    """One execution of a run. A thread of its own reports its progress and learns what is wanted of it, also while the run fits something."""

    def __init__(self, job: Job, link: Link) -> None:
        self._job, self._link = job, link
        self._progress = self._logged = Progress(job.request.run_id)
        self._logged_at = time.monotonic()
        self._stopped, self._over = threading.Event(), threading.Event()

    def run(self) -> BaseException | None:
        """Execute the run; the error that ended it, None if it is done."""
        request = self._job.request
        store = StoreProxy(self._link, self._job.store)
        beats = threading.Thread(target=self._beat, name="beat", daemon=True)
        beats.start()
        try:
            backend = ServiceBackend(
                self._link,
                continued_lens(request.spec.lens, store, request.run_id),
                session=request.run_id,
                store=self._job.store,
                incarnation=self._job.incarnation,
                priority=request.priority,
                cancelled=self._stopped.is_set,
            )
            with blobs_from(store.blob):
                Run(request.spec, backend, store, request.run_id, request.set_name, self._report, self._stopped.is_set).execute()
        except (Exception, InterruptedRunError) as error:  # noqa: BLE001  whatever ended the run is raised in whoever asks for its result
            return portable(error, "In the run's process")
        finally:
            self._over.set()
            beats.join()
        return None

    def _report(self, progress: Progress) -> None:
        self._progress = progress

    def _log_progress(self) -> None:
        """Log where the run stands, every few seconds and at every new phase."""
        now, progress = time.monotonic(), self._progress
        phase, since = self._logged.phase, now - self._logged_at
        if progress != self._logged and (progress.phase != phase or since > LOG_SECONDS):
            self._logged, self._logged_at = progress, now
            counts = {"done": progress.done, "total": progress.total} if progress.total else {}
            log.info("run progressed", extra={"run": progress.run_id, "phase": progress.phase} | counts)

    def _beat(self) -> None:
        while True:
            over = self._over.wait(BEAT_SECONDS)
            self._log_progress()
            try:
                desired: str = self._link.call("beat", self._job.request.run_id, self._job.incarnation, self._progress, cancelled=self._over.is_set)
            except SupersededError:
                desired = "cancelled"
            except InterruptedRunError:  # it is over, and the scheduler is not there
                return
            if desired != "running":
                self._stopped.set()
            if over:
                return


_remote: Any = ray.remote
runner_actor: Any = _remote(concurrency_groups={"control": 2}, max_restarts=0, max_task_retries=0, num_cpus=0)(Runner)
