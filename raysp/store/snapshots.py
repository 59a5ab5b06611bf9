"""Copies of the live store for other processes to read: built aside, put in place in one step."""

import logging
import threading
import time
from pathlib import Path

from raysp.store.connection import SNAPSHOT_FILES, Connection, drafts, snapshot_path
from raysp.store.failures import explaining

SHARE = 0.05
"""At most this share of the time goes into snapshots."""
LEAST_SECONDS = 1.0
"""And never more than one in this time."""

log = logging.getLogger(__name__)


class Publisher:
    """Publishes snapshots of one live store, on demand or when due."""

    def __init__(self, con: Connection, path: Path) -> None:
        self._con, self._path = con, path
        self._busy = threading.Lock()
        self._thread: threading.Thread | None = None
        self._due = 0.0
        self.dirty = True

    def publish(self) -> Path:
        """Build a snapshot of what is committed now and put it in place; its path. UserError when the disk is full."""
        with self._busy, explaining(snapshot_path(self._path)):
            return self._build()

    def publish_if_due(self) -> bool:
        """Begin a snapshot beside the caller's work unless nothing was written, or one was taken too recently; whether it began."""
        if not self.dirty or time.monotonic() < self._due or not self._busy.acquire(blocking=False):
            return False
        self._thread = threading.Thread(target=self._build_and_release, name="raysp-snapshot", daemon=True)
        self._thread.start()
        return True

    def join(self) -> None:
        """Wait for a snapshot under way."""
        if self._thread is not None:
            self._thread.join()

    def _build_and_release(self) -> None:
        try:
            with explaining(snapshot_path(self._path)):
                self._build()
        except Exception as error:  # noqa: BLE001  a run goes on without snapshots
            log.warning("no snapshot: %s", error)
            self._due = time.monotonic() + 60
        finally:
            self._busy.release()

    def _build(self) -> Path:
        began = time.monotonic()
        self.dirty = False
        draft, final = drafts(self._path), snapshot_path(self._path)
        _remove(draft)
        try:
            _copy(self._con, draft)
            draft.replace(final)
        except BaseException:
            self.dirty = True
            raise
        finally:
            _remove(draft)
        took = time.monotonic() - began
        self._due = time.monotonic() + max(LEAST_SECONDS, took / SHARE)
        return final


def _copy(con: Connection, draft: Path) -> None:
    cur = con.cursor()
    source = str(cur.execute("SELECT current_database()").fetchall()[0][0]).replace('"', '""')
    target = str(draft).replace("'", "''")
    cur.execute(f"ATTACH '{target}' AS snapshot_draft")
    try:
        cur.execute(f'COPY FROM DATABASE "{source}" TO snapshot_draft')
    finally:
        cur.execute("DETACH snapshot_draft")
        cur.close()


def _remove(draft: Path) -> None:
    for end in SNAPSHOT_FILES:
        Path(f"{draft}{end}").unlink(missing_ok=True)
