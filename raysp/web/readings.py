"""Read the store for many requests at once, without keeping the process that writes it waiting.

While the scheduler has the store open, requests share a snapshot that a thread renews; otherwise they share the live file, which is closed as soon as nobody reads it.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from raysp.errors import UserError
from raysp.store import Store, missing

#: A snapshot younger than this is used as it is; an older one is used while the next one is made, but not after this.
FRESH_SECONDS, STALE_SECONDS = 1.0, 5.0
#: How long the live file is read without a pause, and how long that is: its writer looks every 50 ms.
LIVE_SECONDS, PAUSE_SECONDS = 0.5, 0.2
#: The store is kept open for readers for as long after the last of them; how often that is asked for.
USED_SECONDS, KEEP_SECONDS = 10.0, 5.0


class _Shared:
    """An open store with the number of its users."""

    def __init__(self, store: Store) -> None:
        self.store, self.opened, self.users, self.retired = store, time.time(), 0, False

    @property
    def as_of(self) -> float:
        """Until when it shows what was stored: a live file that is open is not written."""
        return time.time() if self.store.as_of is None else self.store.as_of


class Readings:
    """The store at `path` for readers in many threads. `keep_open` asks its writer to leave it open."""

    def __init__(self, path: Path, keep_open: Callable[[], None]) -> None:
        self.path = path
        self._keep_open = keep_open
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._current: _Shared | None = None
        self._used = self._kept = -USED_SECONDS
        self._renew, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._renewing, name="readings", daemon=True).start()

    @contextmanager
    def reading(self, since: float = 0.0) -> Generator[Store]:
        """A reader that shows what was stored until `since` (seconds since the epoch), and is at most `STALE_SECONDS` old. UserError if there is none yet."""
        self._used = time.monotonic()
        shared = self._take(since)
        try:
            yield shared.store
        finally:
            self._leave(shared)

    def held(self) -> None:
        """Return once the store's writer has it open, as far as it can be reached, so that whoever takes long over reading reads a snapshot."""
        self._used = time.monotonic()
        with suppress(UserError):
            self.keep()

    def keep(self) -> None:
        """Have the store left open if it was read a moment ago. To be called every second or so."""
        now = time.monotonic()
        if now - self._used < USED_SECONDS and now - self._kept > KEEP_SECONDS:
            self._keep_open()
            self._kept = now

    def close(self) -> None:
        """Close the store."""
        self._ended.set()
        self._renew.set()
        with self._lock:
            current, self._current = self._current, None
        if current is not None:
            self._retire(current)

    # ---- sharing

    def _take(self, since: float) -> _Shared:
        shared = self._usable(since)
        if shared is not None:
            return shared
        with self._opening:  # whoever comes second finds what the first has opened
            shared = self._usable(since)
            return shared or self._open(max(since, time.time() - STALE_SECONDS))

    def _usable(self, since: float) -> _Shared | None:
        """The current store with one more user, if it is young enough."""
        with self._lock:
            current = self._current
            if current is None:
                return None
            now = time.time()
            if current.store.as_of is None:
                if now - current.opened > LIVE_SECONDS:
                    return None
            elif current.as_of < since or now - current.as_of > STALE_SECONDS:
                return None
            elif now - current.as_of > FRESH_SECONDS:
                self._renew.set()
            current.users += 1
            return current

    def _open(self, since: float) -> _Shared:
        """Open the store as it was at `since` or later, with one user."""
        if not self.path.exists():
            raise missing(self.path)
        self._wait_for_pause()
        fresh = _Shared(Store.read(self.path, age=max(0.0, time.time() - since)))
        fresh.users = 1
        with self._lock:
            before, self._current = self._current, fresh
        if before is not None:
            self._retire(before)
        return fresh

    def _wait_for_pause(self) -> None:
        """Let the live file be closed for a moment if it has been read for long."""
        with self._lock:
            current = self._current
        if current is not None and current.store.as_of is None:
            self._retire(current)
            until = time.monotonic() + STALE_SECONDS
            while current.users and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(PAUSE_SECONDS)

    def _retire(self, shared: _Shared) -> None:
        """Close a store once its last user has left."""
        with self._lock:
            if self._current is shared:
                self._current = None
            shared.retired = True
            unused = shared.users == 0
        if unused:
            shared.store.close()

    def _leave(self, shared: _Shared) -> None:
        with self._lock:
            shared.users -= 1
            if shared.users == 0 and shared.store.as_of is None and self._current is shared:
                self._current, shared.retired = None, True  # the live file
            over = shared.users == 0 and shared.retired
        if over:
            shared.store.close()

    def _renewing(self) -> None:
        """Renew the snapshot in the background when somebody has read one that is no longer fresh; close one that nobody reads."""
        while not self._ended.is_set():
            asked = self._renew.wait(STALE_SECONDS)
            self._renew.clear()
            if self._ended.is_set():
                return
            if not asked:
                with self._lock:
                    idle = self._current if self._current is not None and time.monotonic() - self._used > STALE_SECONDS else None
                if idle is not None:
                    self._retire(idle)
                continue
            with suppress(UserError), self._opening:
                self._leave(self._open(time.time() - FRESH_SECONDS))
