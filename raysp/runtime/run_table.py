"""The runs in a scheduler's hands: where each stands, for those who follow it, and what is done for it."""

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from raysp.runs.progress import Progress
from raysp.runs.state import RunRequest, RunState

#: Runs that ended and are still known here with the error that they raised; the store knows all of them.
REMEMBERED = 100


@dataclass(eq=False)
class RunHandle:
    """One run: what was asked, where it stands, and the runner that executes it.

    `deaths` counts the runners that died of it, `astray` and `silent` the checks in a row in which its runner had no job or no answer; `stopping` is when the runner was first seen to be told to stop.
    """

    request: RunRequest
    store: Path
    state: RunState
    incarnation: str = ""
    runner: str | None = None
    error: BaseException | None = None
    deaths: int = 0
    astray: int = 0
    silent: int = 0
    stopping: float | None = None
    submitted: float = field(default_factory=time.monotonic)

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.request.run_id

    @property
    def active(self) -> bool:
        """Whether a runner executes it."""
        return self.runner is not None


class RunTable:
    """Handles by run id, in the order in which they were submitted. Changes wake up those who follow."""

    def __init__(self) -> None:
        self.handles: dict[str, RunHandle] = {}
        self._changed = threading.Condition()
        self._version = 0

    def add(self, handle: RunHandle) -> None:
        """Know a run."""
        self.handles.pop(handle.run_id, None)  # the newest is the last
        self.handles[handle.run_id] = handle
        self.changed(handle, handle.state)

    def changed(self, handle: RunHandle, state: RunState) -> None:
        """Note where a run stands now."""
        with self._changed:
            # Followers know versions of an earlier scheduler: those of this one are larger.
            self._version = max(self._version + 1, time.time_ns() // 1000)
            handle.state = replace(state, version=self._version, progress=state.progress or handle.state.progress, position=handle.state.position)
            self._changed.notify_all()

    def progressed(self, handle: RunHandle, progress: Progress) -> None:
        """Note the progress of a run."""
        if progress != handle.state.progress:
            self.changed(handle, replace(handle.state, progress=progress))

    def number_queue(self) -> list[RunHandle]:
        """The queued runs in the order in which they start; each is told its position."""
        queued = [handle for handle in self.handles.values() if handle.state.status == "queued" and handle.state.desired == "running" and not handle.active]
        queued.sort(key=lambda handle: -handle.state.priority)
        positions = {handle.run_id: place for place, handle in enumerate(queued, 1)}
        for handle in self.handles.values():
            if handle.state.position != positions.get(handle.run_id):
                handle.state = replace(handle.state, position=positions.get(handle.run_id))
                self.changed(handle, handle.state)
        return queued

    def follow(self, seen: Mapping[str, int], timeout: float) -> list[RunState]:
        """The states of these runs that are newer than what was seen, waiting for the first. Unknown runs are left out."""

        def newer() -> list[RunState]:
            known = [self.handles[run_id] for run_id in seen if run_id in self.handles]
            return [handle.state for handle in known if handle.state.version > seen[handle.run_id]]

        with self._changed:
            self._changed.wait_for(lambda: bool(newer()), timeout)
            return newer()

    def changes(self, since: int, timeout: float) -> list[RunState]:
        """The states of all runs that are newer than a version, waiting for the first."""

        def newer() -> list[RunState]:
            return [handle.state for handle in list(self.handles.values()) if handle.state.version > since]

        with self._changed:
            self._changed.wait_for(lambda: self._version > since, timeout)
            return newer()

    def wait_ended(self, run_ids: Collection[str], timeout: float) -> None:
        """Wait until none of these runs is executed any more."""
        with self._changed:
            self._changed.wait_for(lambda: not any(run_id in self.handles and self.handles[run_id].active for run_id in run_ids), timeout)

    def forget(self, run_ids: Collection[str]) -> None:
        """Forget runs, which have ended."""
        with self._changed:
            for run_id in run_ids:
                self.handles.pop(run_id, None)

    def forget_old(self) -> None:
        """Forget the oldest runs that have ended, with what they held."""
        with self._changed:
            ended = [run_id for run_id, handle in self.handles.items() if handle.state.ended and not handle.active]
            for run_id in ended[: max(0, len(ended) - REMEMBERED)]:
                del self.handles[run_id]
