"""Copies of a live store for other processes to read, made when one of them asks.

A reader that finds the store locked leaves a file beside it; the writer looks for that file and brings a snapshot up to date. Only blocks that have changed since
the last snapshot are copied, so that its cost follows what was stored since, not the size of the store. A run that nobody watches copies nothing.

A snapshot is a file of its own, in one of a few places, and a symbolic link names the current one. A place that somebody reads is left as it is (DuckDB locks the
files it reads), and another is used.
"""

import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb

from raysp.errors import UserError
from raysp.store.block_copy import block_count, copy_blocks
from raysp.store.connection import Connection, OlderSchemaError, open_reader, request_path, snapshot_path, snapshot_place
from raysp.store.failures import explained, explaining, lock_holder

SHARE = 0.05
"""The largest share of the writer's time spent on snapshots, unless they would get too old."""
LEAST_SECONDS, MOST_SECONDS = 1.0, 8.0
"""The shortest and longest time that a reader's request waits for the one before."""
URGENT = "urgent"
"""What a request holds whose reader needs a young snapshot: only `LEAST_SECONDS` lie between two of these."""
LOOK_SECONDS = 0.2
"""How often the writer looks for a request."""
WAIT_SECONDS = 10.0
"""How long a reader waits for its request to be answered before it falls back to an older snapshot, if there is one."""
FAILED_SECONDS = 60.0
"""The waiting time after a failed snapshot."""
CHANGING_SECONDS = 5.0
"""How long a reader waits for a snapshot that its writer is changing."""
PLACES = 8
"""How many snapshots may be read at the same time."""
CHUNK = 64
"""Blocks copied before commits get their turn: some 16 MiB."""
SPARE_BYTES = 64 << 20
"""What a snapshot leaves free on the disk: a checkpoint that finds it full ends the writer."""

log = logging.getLogger(__name__)


class Publisher:
    """Publishes snapshots of a live store: from a background thread when a reader asks, or immediately by `publish`.

    `writing` is held by whoever changes the file.
    """

    def __init__(self, con: Connection, path: Path, writing: "threading.RLock") -> None:
        self._con, self._path, self._writing = con, path, writing
        self._building = threading.Lock()
        self._ended = threading.Event()
        self._due = self._soonest = 0.0
        self._source: int | None = None
        self.dirty = True
        self._thread = threading.Thread(target=self._serve, name="raysp-snapshots", daemon=True)

    def start(self) -> None:
        """Start serving readers. A request left by an earlier process is dropped."""
        request_path(self._path).unlink(missing_ok=True)
        self._thread.start()

    def publish(self) -> Path:
        """Bring a snapshot up to date with what is committed now and return its path. Raises UserError if the disk is full."""
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

    def release(self) -> None:
        """Close the store's file, after DuckDB has closed it."""
        if self._source is not None:
            os.close(self._source)
            self._source = None

    def _serve(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self._answer_request()
            except Exception as error:  # noqa: BLE001  a run continues without snapshots
                log.warning("no snapshot: %s", error)
                self._due = self._soonest = time.monotonic() + FAILED_SECONDS

    def _answer_request(self) -> None:
        request, final = request_path(self._path), snapshot_path(self._path)
        asked = _changed(request)
        if not asked:
            return
        if final.exists() and not self.dirty:
            _stamp(final)
        elif time.monotonic() >= (self._soonest if _is_urgent(request) else self._due):
            self.publish()
        if _changed(request) == asked:  # a later request is answered next
            request.unlink(missing_ok=True)

    def _build(self) -> Path:
        began, final = time.monotonic(), snapshot_path(self._path)
        source = self._source_file()
        cur = self._con.cursor()
        try:
            block_size = int(cur.execute("SELECT block_size FROM pragma_database_size()").fetchall()[0][0])
            with _unread_place(self._path) as (place, target):
                _check_space(source, target)
                if final.is_symlink() and final.resolve() == place.resolve():
                    final.unlink()  # while it is changed, it is no snapshot
                for first in range(0, block_count(source, block_size), CHUNK):
                    with self._writing:
                        copy_blocks(source, target, block_size, first, CHUNK)
                with self._writing:
                    cur.execute("CHECKPOINT")
                    copy_blocks(source, target, block_size)
                    as_of, self.dirty = time.time_ns(), False
                try:
                    os.fdatasync(target)
                    _stamp(place, as_of)
                    _point(final, place)
                except BaseException:
                    self.dirty = True
                    raise
        finally:
            cur.close()
        took = time.monotonic() - began
        self._soonest = time.monotonic() + LEAST_SECONDS
        self._due = time.monotonic() + min(MOST_SECONDS, max(LEAST_SECONDS, took / SHARE))
        return final

    def _source_file(self) -> int:
        """The store's file, which stays open: to close it would drop the lock that DuckDB holds on it in this process (POSIX)."""
        if self._source is None:
            self._source = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._source


def ask_for_snapshot(path: Path, needless: Callable[[], bool] = lambda: False, since: float | None = None) -> None:
    """Ask the process that writes the store at `path` for a snapshot, and wait until it has answered or none is needed, at most `WAIT_SECONDS`.

    With `since` (seconds since the epoch) none is asked for if there is one made later, and the writer makes one whatever share of its time that takes.

    A writer that has made one very recently does not make another. If the request cannot be written or is not answered, nothing but the wait happens.
    """
    request, until = request_path(path), time.monotonic() + WAIT_SECONDS
    if since is not None and _changed(snapshot_path(path)) >= since * 1e9:
        return
    with suppress(OSError):
        request.touch(mode=0o600)
        if since is not None:
            request.write_text(URGENT, encoding="ascii")
        asked = _stamp(request)
        while _changed(request) and _changed(snapshot_path(path)) < asked and time.monotonic() < until and not needless():
            time.sleep(LOOK_SECONDS / 4)


@dataclass(frozen=True)
class Snapshot:
    """An open snapshot: the connection, when it was made (seconds since the epoch), and a note on its age."""

    con: Connection
    as_of: float
    note: str


def open_snapshot(path: Path, holder: int, memory: int | None = None, age: float | None = None) -> Snapshot | None:
    """Open a snapshot of the store at `path`, which process `holder` (0: unknown) writes, after asking for it.

    With an `age`, it was made at most so many seconds before this call. None if the writer has closed the store meanwhile. Raises UserError if there is no snapshot.
    """
    until, since = time.monotonic() + WAIT_SECONDS, None if age is None else time.time() - age
    while True:
        found = _open_snapshot(path, holder, memory, since)
        if found is None:
            return None
        con, as_of = found
        if since is None or as_of >= since:
            seconds = max(0.0, time.time() - as_of)
            writer = f"process {holder}" if holder else "another process"
            return Snapshot(con, as_of, f"reading a snapshot made {seconds:.0f} s ago, because the store is being written by {writer}")
        con.close()
        if time.monotonic() > until:
            raise UserError("store", str(path), f"is being written, and has no snapshot of the last {age:g} s", "try again in a few seconds")


def _open_snapshot(path: Path, holder: int, memory: int | None, since: float | None) -> tuple[Connection, float] | None:
    """A snapshot, and when it was made in seconds since the epoch."""
    snapshot = snapshot_path(path)
    writer = f"process {holder}" if holder else "another process"
    later = UserError("store", str(path), f"is being written by {writer}, and there is no snapshot yet", "try again in a few seconds")
    ask_for_snapshot(path, partial(_released, path), since)
    until = time.monotonic() + CHANGING_SECONDS
    while True:
        try:
            place = snapshot.resolve()  # the link may point elsewhere by the next open; DuckDB would share a connection between two files of one name
            con = open_reader(place, memory)
            as_of = place.stat().st_mtime_ns / 1e9
        except OlderSchemaError:
            raise later from None
        except (duckdb.Error, OSError, UserError) as error:
            # The writer may be changing it, and lets nobody read it meanwhile; or it has yet to write the first.
            if snapshot.exists() and lock_holder(error) is None:
                raise explained(snapshot, error) from None
            if _released(path):
                return None
            if time.monotonic() > until:
                raise later from None
            time.sleep(LOOK_SECONDS / 4)
            if not snapshot.exists():  # a writer that was just opening the store has dropped the request
                ask_for_snapshot(path, partial(_released, path), since)
        else:
            return con, as_of


def _released(path: Path) -> bool:
    """Whether nobody writes the store at `path` any more."""
    try:
        open_reader(path).close()
    except (duckdb.Error, OSError) as error:
        return lock_holder(error) is None
    except (OlderSchemaError, UserError):  # for whoever opens it next
        return True
    return True


def remove_snapshots(path: Path) -> None:
    """Remove the snapshots of a store that nobody writes."""
    snapshot_path(path).unlink(missing_ok=True)
    for number in range(1, PLACES + 1):
        snapshot_place(path, number).unlink(missing_ok=True)


@contextmanager
def _unread_place(path: Path) -> Generator[tuple[Path, int]]:
    """The first of the places for snapshots that nobody reads, and its file, locked against readers. Places after it that nobody reads are removed."""
    found: tuple[Path, int] | None = None
    try:
        for number in range(1, PLACES + 1):
            place = snapshot_place(path, number)
            if found and not place.exists():
                continue
            opened = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(opened)
                continue
            if found:
                os.close(opened)
                if snapshot_path(path).resolve() != place:
                    place.unlink()
                continue
            os.fchmod(opened, 0o600)
            found = place, opened
        if not found:
            raise UserError("store", str(path), f"has {PLACES} snapshots that others read", "close some of these readers")
        yield found
    finally:
        if found:
            os.close(found[1])


def _point(link: Path, place: Path) -> None:
    """Let the link name the place, in one step."""
    draft = link.with_name(f"{link.name}.link")
    draft.unlink(missing_ok=True)
    draft.symlink_to(place.name)
    draft.replace(link)


def _check_space(source: int, target: int) -> None:
    needed = max(0, os.fstat(source).st_size - os.fstat(target).st_size)
    if shutil.disk_usage(target).free < needed + SPARE_BYTES:
        raise OSError("No space left on device: there would be no room for a snapshot")


def _is_urgent(request: Path) -> bool:
    """Whether the reader that left a request needs a young snapshot."""
    with suppress(OSError, UnicodeDecodeError):
        return request.read_text(encoding="ascii") == URGENT
    return False


def _stamp(file: Path, time_ns: int | None = None) -> int:
    """Set when a file was last changed, by default now: the system's own stamps are some milliseconds late, and a request would look older than what was before it."""
    stamp = time.time_ns() if time_ns is None else time_ns
    os.utime(file, ns=(stamp, stamp))
    return stamp


def _changed(file: Path) -> int:
    """When a file was last changed, in nanoseconds; 0 if it does not exist."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
