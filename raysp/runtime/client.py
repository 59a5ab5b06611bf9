"""The side of a run that the user's process holds: submit it to the scheduler, watch it, fetch the answer."""

import contextlib
import inspect
import sysconfig
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError

from raysp.errors import InterruptedRunError
from raysp.interrupts import interrupted_by_termination
from raysp.runs.local import Watch
from raysp.runs.result import Result
from raysp.runs.state import RunRequest
from raysp.runtime.cluster import connected
from raysp.runtime.link import Link
from raysp.runtime.scheduler import CLOSING_SECONDS, scheduler
from raysp.specs.run import AnyLens, RunSpec

WATCH_SECONDS = 0.25


class RayEngine(AbstractContextManager["RayEngine"]):
    """A cluster's scheduler, or that of a local Ray started for this block and stopped after it."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._own = self._stack.enter_context(connected())
        self._stack.enter_context(interrupted_by_termination())  # after Ray, which installs a handler of its own
        try:
            self._link = Link(scheduler)
        except BaseException:
            self._stack.close()
            raise
        return self

    def run(self, spec: RunSpec, run_id: str, set_name: str | None = None, watch: Watch | None = None) -> Result:
        """Run a spec on the cluster, as `Engine.run`. An interrupt (Ctrl-C, SIGTERM) cancels the run there."""
        _ship_whole(spec.lens)
        submitted = False
        try:
            self._ask("submit", [RunRequest(spec, run_id, set_name)])
            submitted = True
            self._attend(run_id, watch)
        except KeyboardInterrupt:
            if submitted:
                self._ask("steer", run_id, "cancelled")
                self._wait(run_id, CLOSING_SECONDS)
            raise InterruptedRunError.of(run_id) from None
        return self._ask("result", run_id)

    def _attend(self, run_id: str, watch: Watch | None) -> None:
        seen = -1
        while True:
            for state in self._ask("follow", [run_id], {run_id: seen}, WATCH_SECONDS):
                seen = state.version
                if watch is not None and state.progress is not None:
                    watch(state.progress)
                if state.ended:
                    return

    def _wait(self, run_id: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._ask("states", [run_id])[0].ended and time.monotonic() < deadline:
            time.sleep(WATCH_SECONDS)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._link.call(method, *arguments)

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
