"""Where every run stands, kept up to date by one thread that follows the scheduler, for all who watch."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager

from raysp.errors import InterruptedRunError, UserError
from raysp.runs.state import RunState, ServiceStatus
from raysp.web.desk import Desk

#: How long one question for changes waits, and how often the whole service is asked about.
FOLLOW_SECONDS, STATUS_SECONDS = 1.0, 2.0
#: Runs whose states are kept in memory, besides those that have not ended.
REMEMBERED = 5_000
#: How long to wait after a scheduler that did not answer.
AGAIN_SECONDS = 1.0

log = logging.getLogger(__name__)


class Tail:
    """The newest state of every run that the scheduler knows, and of the service. `busy` is called every second or so by the thread that follows."""

    def __init__(self, desk: Desk, busy: Callable[[], None] = lambda: None) -> None:
        self._desk, self._busy = desk, busy
        self._states: dict[str, RunState] = {}
        self._version = 0
        self._listeners: set[Listener] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._asked = 0.0
        self.status: ServiceStatus | None = None
        self._changed: dict[str, float] = {}
        #: When the status of any run last changed, in seconds since the epoch: a snapshot of the store that is older does not show it.
        self.changed_at = 0.0
        #: Whether the scheduler answered when it was last asked.
        self.answers = False

    def start(self) -> None:
        """Begin to follow."""
        threading.Thread(target=self._follow, name="tail", daemon=True).start()

    def close(self) -> None:
        """Stop following."""
        self._ended.set()

    def state(self, run_id: str) -> RunState | None:
        """Where a run stands; None for one that ended long ago."""
        return self._states.get(run_id)

    def changed(self, run_id: str) -> float:
        """When the status of a run last changed, as `changed_at`; 0 for one that was not heard of."""
        return self._changed.get(run_id, 0.0)

    def touch(self, run_id: str) -> None:
        """Note that something of a run has been stored now."""
        self._changed[run_id] = time.time()

    def states(self) -> list[RunState]:
        """All states, in the order in which runs became known."""
        with self._lock:
            return list(self._states.values())

    def newer(self, since: int, run_id: str | None = None) -> list[RunState]:
        """The states that are newer than a version, the oldest change first: of one run, or of all."""
        found = self.states() if run_id is None else [state for state in [self.state(run_id)] if state is not None]
        return sorted((state for state in found if state.version > since), key=lambda state: state.version)

    def note(self, states: Iterable[RunState]) -> None:
        """Take note of states that were learnt otherwise, such as those of runs that were just submitted."""
        with self._lock:
            for state in states:
                known = self._states.get(state.run_id)
                if known is not None and known.version >= state.version:
                    continue
                if known is None or known.status != state.status:
                    self.changed_at = self._changed[state.run_id] = time.time()
                self._states.pop(state.run_id, None)  # the newest change is the last
                self._states[state.run_id] = state
                self._version = max(self._version, state.version)
            self._forget()
            listeners = list(self._listeners)
        for listener in listeners:
            listener.wake()

    def _forget(self) -> None:
        """Forget runs that ended long ago: the store knows them."""
        if len(self._states) > REMEMBERED:
            ended = [run_id for run_id, state in self._states.items() if state.ended]
            for run_id in ended[: len(self._states) - REMEMBERED]:
                del self._states[run_id]
                self._changed.pop(run_id, None)

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator["Listener"]:
        """Be woken up by changes within the block."""
        listener = Listener(asyncio.get_running_loop())
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def _follow(self) -> None:
        while not self._ended.is_set():
            try:
                self._busy()
                found = self._desk.changes(self._version, FOLLOW_SECONDS if self.answers else 0.0)
                if time.monotonic() - self._asked > STATUS_SECONDS:
                    self.status, self._asked = self._desk.status(), time.monotonic()
                self.answers = True
                if found:
                    self.note(found)
            except (UserError, InterruptedRunError):
                self.answers = False
                self._ended.wait(AGAIN_SECONDS)
            except Exception:
                self.answers = False
                log.exception("the tail goes on")
                self._ended.wait(AGAIN_SECONDS)


class Listener:
    """Somebody who waits for changes in an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._event = loop, asyncio.Event()

    def wake(self) -> None:
        """Wake up whoever waits. To be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Wait for a change, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()
