"""The side of a run that a person's process holds: submit to the scheduler, watch, fetch the answer."""

import contextlib
import inspect
import sysconfig
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError

from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.interrupts import interrupted_by_termination
from raysp.runs.local import Watch
from raysp.runs.progress import Progress
from raysp.runs.result import Result
from raysp.runtime.cluster import connected
from raysp.runtime.scheduler import scheduler
from raysp.specs.run import AnyLens, RunSpec

WATCH_SECONDS = 0.25
# A scheduler that died is started again and the run goes on from the store; one that keeps dying has another reason.
SCHEDULER_ATTEMPTS = 3


class RayEngine(AbstractContextManager["RayEngine"]):
    """A cluster's scheduler, or that of a local Ray started for this block and stopped after it."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._own = self._stack.enter_context(connected())
        self._stack.enter_context(interrupted_by_termination())  # after Ray, which has an answer of its own to it
        try:
            self._scheduler = _unwrapped(scheduler)
        except BaseException:
            self._stack.close()
            raise
        return self

    def run(self, spec: RunSpec, run_id: str, set_name: str | None = None, watch: Watch | None = None) -> Result:
        """Run a spec on the cluster; as `Engine.run`. An interrupt (Ctrl-C, SIGTERM) cancels the run there."""
        for attempt in range(SCHEDULER_ATTEMPTS):
            try:
                return _unwrapped(lambda: self._attend(spec, run_id, set_name, watch))
            except RayActorError:
                if attempt == SCHEDULER_ATTEMPTS - 1:
                    raise
                self._scheduler = _unwrapped(scheduler)
        raise AssertionError("unreachable")

    def _attend(self, spec: RunSpec, run_id: str, set_name: str | None, watch: Watch | None) -> Result:
        _ship_whole(spec.lens)
        submitted = self._scheduler.submit.remote(spec, run_id, set_name)
        try:
            ray.get(submitted)
            while not ray.get(self._scheduler.finished.remote(run_id, WATCH_SECONDS)):
                if watch is not None:
                    progress: Progress = ray.get(self._scheduler.progress.remote(run_id))
                    watch(progress)
        except KeyboardInterrupt:
            ray.get(submitted)  # what has not begun cannot be cancelled
            ray.get(self._scheduler.cancel.remote(run_id))
            ray.get(self._scheduler.finished.remote(run_id, 60.0))
            raise InterruptedRunError.of(run_id) from None
        return ray.get(self._scheduler.result.remote(run_id))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._own:
            with contextlib.suppress(RayActorError):
                ray.get(self._scheduler.close.remote())
        self._stack.close()


def _ship_whole(lens: AnyLens) -> None:
    """Send a function with its code when workers could not import it: one from a script or module of the person's own."""
    module = inspect.getmodule(lens.own_code) if lens.own_code is not None else None
    file = getattr(module, "__file__", None)
    if module is None or file is None or module.__name__ == "__main__":
        return
    installed = {sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    if not any(Path(file).is_relative_to(folder) for folder in installed):
        cloudpickle.register_pickle_by_value(module)


def _unwrapped(call: Any) -> Any:
    """A call's result, or the error a person or a game caused as it was raised, free of Ray's wrapping."""
    try:
        return call()
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError | EvaluationError | InterruptedRunError):
            raise cause from None
        raise
