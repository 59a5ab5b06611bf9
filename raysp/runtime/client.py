"""The side of a run that the user's process holds: submit it to the scheduler, watch it, fetch the answer."""

import contextlib
import inspect
import sysconfig
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from raysp.errors import InterruptedRunError
from raysp.interrupts import interrupted_by_termination
from raysp.runs.local import Watch
from raysp.runs.progress import Progress
from raysp.runs.result import Result
from raysp.runtime.cluster import ANSWER_SECONDS, connected
from raysp.runtime.portable import EXPECTED
from raysp.runtime.scheduler import CLOSING_SECONDS, scheduler, silent
from raysp.specs.run import AnyLens, RunSpec

WATCH_SECONDS = 0.25
#: To read a result from a large store and send it here.
RESULT_SECONDS = 600.0
#: A scheduler that died is started again, and the run continues from the store. If it dies this often, the run is the reason.
SCHEDULER_ATTEMPTS = 3


class RayEngine(AbstractContextManager["RayEngine"]):
    """A cluster's scheduler, or that of a local Ray started for this block and stopped after it."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._own = self._stack.enter_context(connected())
        self._stack.enter_context(interrupted_by_termination())  # after Ray, which installs a handler of its own
        try:
            self._scheduler = _unwrapped(scheduler)
        except BaseException:
            self._stack.close()
            raise
        return self

    def run(self, spec: RunSpec, run_id: str, set_name: str | None = None, watch: Watch | None = None) -> Result:
        """Run a spec on the cluster, as `Engine.run`. An interrupt (Ctrl-C, SIGTERM) cancels the run there."""
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
            ray.get(submitted, timeout=ANSWER_SECONDS)
            while not self._ask("finished", run_id, WATCH_SECONDS):
                if watch is not None:
                    progress: Progress = self._ask("progress", run_id)
                    watch(progress)
        except KeyboardInterrupt:
            ray.get(submitted, timeout=ANSWER_SECONDS)  # a run cannot be cancelled before it is submitted
            self._ask("cancel", run_id)
            self._ask("finished", run_id, CLOSING_SECONDS)
            raise InterruptedRunError.of(run_id) from None
        return ray.get(self._scheduler.result.remote(run_id), timeout=RESULT_SECONDS)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._scheduler, method).remote(*arguments), timeout=ANSWER_SECONDS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._own:
            with contextlib.suppress(RayActorError, GetTimeoutError):
                self._ask("close")
        self._stack.close()


def _ship_whole(lens: AnyLens) -> None:
    """Send a function with its code if workers could not import it because it is from the user's own script or module."""
    module = inspect.getmodule(lens.own_code) if lens.own_code is not None else None
    file = getattr(module, "__file__", None)
    if module is None or file is None or module.__name__ == "__main__":
        return
    installed = {sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    if not any(Path(file).is_relative_to(folder) for folder in installed):
        cloudpickle.register_pickle_by_value(module)


def _unwrapped(call: Any) -> Any:
    """A call's result, or the error that a person or a game caused, as it was raised, without Ray's wrapping."""
    try:
        return call()
    except GetTimeoutError:
        raise silent() from None
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, EXPECTED):
            raise cause from None
        raise
