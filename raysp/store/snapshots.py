"""Copies of a live store for other processes to read, made when one of them asks.

A reader that finds the store locked leaves a file beside it; the writer looks for that file, builds a snapshot and moves it into place atomically. A run
that nobody watches is never copied, however large its store is.
"""

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from raysp.store.connection import SNAPSHOT_FILES, Connection, drafts, request_path, snapshot_path
from raysp.store.failures import explaining

SHARE = 0.05
"""The largest share of the writer's time spent on snapshots."""
LEAST_SECONDS = 1.0
"""The shortest time between two snapshots."""
LOOK_SECONDS = 0.2
"""How often the writer looks for a request."""
WAIT_SECONDS = 10.0
"""How long a reader waits for its request to be answered before it falls back to an older snapshot, if there is one."""
FAILED_SECONDS = 60.0
"""The waiting time after a failed snapshot."""

log = logging.getLogger(__name__)


class Publisher:
    """Publishes snapshots of a live store: from a background thread when a reader asks, or immediately by `publish`."""

    def __init__(self, con: Connection, path: Path) -> None:
        self._con, self._path = con, path
        self._building = threading.Lock()
        self._ended = threading.Event()
        self._due = 0.0
        self.dirty = True
        self._thread = threading.Thread(target=self._serve, name="raysp-snapshots", daemon=True)

    def start(self) -> None:
        """Start serving readers. A request left by an earlier process is dropped."""
        request_path(self._path).unlink(missing_ok=True)
        self._thread.start()

    def publish(self) -> Path:
        """Build a snapshot of what is committed now, move it into place and return its path. Raises UserError if the disk is full."""
        with self._building, explaining(snapshot_path(self._path)):
            return self._build()

    def stop(self) -> None:
        """Stop serving, without waiting for a snapshot in progress."""
        self._ended.set()

    def close(self) -> None:
        """Stop serving, after a snapshot in progress."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError):
            request_path(self._path).unlink(missing_ok=True)

    def _serve(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self._answer_request()
            except Exception as error:  # noqa: BLE001  a run continues without snapshots
                log.warning("no snapshot: %s", error)
                self._due = time.monotonic() + FAILED_SECONDS

    def _answer_request(self) -> None:
        request, final = request_path(self._path), snapshot_path(self._path)
        asked = _changed(request)
        if not asked:
            return
        if final.exists() and not self.dirty:
            os.utime(final)
        elif time.monotonic() >= self._due:
            self.publish()
        if _changed(request) == asked:  # a later request is answered next
            request.unlink(missing_ok=True)

    def _build(self) -> Path:
        began, as_of = time.monotonic(), time.time_ns()
        self.dirty = False
        draft, final = drafts(self._path), snapshot_path(self._path)
        _remove(draft)
        try:
            _copy(self._con, draft)
            os.utime(draft, ns=(as_of, as_of))
            draft.replace(final)
        except BaseException:
            self.dirty = True
            raise
        finally:
            _remove(draft)
        took = time.monotonic() - began
        self._due = time.monotonic() + max(LEAST_SECONDS, took / SHARE)
        return final


def ask_for_snapshot(path: Path) -> None:
    """Ask the process that writes the store at `path` for a snapshot, and wait until it has answered, at most `WAIT_SECONDS`.

    A writer that has made one very recently does not make another. If the request cannot be written or is not answered, nothing but the wait happens.
    """
    request, until = request_path(path), time.monotonic() + WAIT_SECONDS
    with suppress(OSError):
        request.touch()
        asked = _changed(request)
        while _changed(request) and _changed(snapshot_path(path)) < asked and time.monotonic() < until:
            time.sleep(LOOK_SECONDS / 4)


def _changed(file: Path) -> int:
    """When a file was last changed, in nanoseconds; 0 if it does not exist."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


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
