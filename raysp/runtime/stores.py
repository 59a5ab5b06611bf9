"""The stores that a scheduler has open, and those that it must open again when it comes back."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from raysp.errors import UserError
from raysp.home import home
from raysp.store import Answer, Limits, Store, ask_confined, compact, missing

#: Paths of stores that are remembered, the newest last: runs that ended are looked for in them.
REMEMBERED = 32
FILE = "scheduler.json"
#: How old the snapshot may be that answers a query while the store is written.
SNAPSHOT_SECONDS = 2.0

log = logging.getLogger(__name__)


class Stores:
    """Open stores by path. `scheduler.json` in the home, which only its owner can read, keeps the paths: of those that are open, and of the latest."""

    def __init__(self) -> None:
        self._open: dict[Path, Store] = {}
        self._moving: dict[Path, threading.Lock] = {}  # held while a store is being opened or closed
        self._used = Counter[Path]()
        self._kept: dict[Path, float] = {}
        self._lock = threading.RLock()
        kept = _read()
        self._latest, self._left_open = kept["latest"], kept["open"]

    def open(self, path: Path) -> Store:
        """The store at a path. UserError if it cannot be opened. One that keeps its caller waiting keeps no other store's callers waiting."""
        with self._lock:
            if path in self._open:
                return self._open[path]
            moving = self._moving.setdefault(path, threading.Lock())
        with moving:
            with self._lock:
                if path in self._open:
                    return self._open[path]
            store = Store.open(path)
            log.info("store opened", extra={"store": path})
            with self._lock:
                self._open[path] = store
                self._latest = [*(each for each in self._latest if each != path), path][-REMEMBERED:]
                self._write()
            return store

    @contextmanager
    def using(self, path: Path) -> Generator[Store]:
        """The store at a path, which stays open within the block. UserError if it cannot be opened."""
        with self._lock:
            self._used[path] += 1
        try:
            yield self.open(path)
        finally:
            with self._lock:
                self._used[path] -= 1

    @contextmanager
    def reading(self, path: Path) -> Generator[Store]:
        """The store at a path for reading; opened for that if it is not open."""
        with self._lock:
            is_open, moving = path in self._open, self._moving.setdefault(path, threading.Lock())
        if is_open:
            with self.using(path) as store:
                yield store
        else:
            with moving:  # one that is being closed cannot be read
                pass
            with Store.read(path) as store:
                yield store

    def ask(self, path: Path, query: str, limits: Limits) -> Answer:
        """The answer to a person's query, from a process of its own; of a store that is written, as it was at most `SNAPSHOT_SECONDS` ago. UserError as `ask_confined`.

        The store stays open here meanwhile: a query that read the file itself would keep a run from being stored in it.
        """
        with ExitStack() as held:
            if not path.exists():
                raise missing(path)
            with suppress(UserError):  # another process has it, and serves readers
                held.enter_context(self.using(path))
            return ask_confined(path, query, limits, SNAPSHOT_SECONDS)

    def keep(self, path: Path, seconds: float) -> None:
        """Open a store that exists, if nobody else writes it, and leave it open for some time."""
        self._kept[path] = time.monotonic() + seconds
        if path.exists():
            with suppress(UserError):
                self.open(path)

    def kept(self) -> set[Path]:
        """The stores that are to be left open for now."""
        return {path for path, until in list(self._kept.items()) if until > time.monotonic()}

    def find(self, path: Path) -> Store | None:
        """The store at a path if it is open."""
        return self._open.get(path)

    def close_unused(self, used: Collection[Path]) -> None:
        """Close all stores but these, as other processes may want them."""
        self.close(self.take(self.unused(used)))

    def unused(self, used: Collection[Path]) -> list[Path]:
        """The paths of the open stores but these."""
        return [path for path in self.paths() if path not in used]

    def take(self, paths: Collection[Path]) -> dict[Path, Store]:
        """Take those of these stores that nobody is using out of the open ones. They must be closed next, by `close` or `compact`, for which others wait."""
        with self._lock:
            leaving = {path: self._open[path] for path in paths if path in self._open and not self._used[path] and self._moving[path].acquire(blocking=False)}
            for path in leaving:
                del self._open[path]
            if leaving:
                self._write()
            return leaving

    def close(self, leaving: Mapping[Path, Store]) -> None:
        """Close stores that were taken. This may take long: to be called without a lock that others want."""
        for path, store in leaving.items():
            try:
                with self._closing(path, store):
                    pass
            except Exception:  # what is committed is kept in any case
                log.exception("store closed", extra={"store": path})

    def compact(self, leaving: Mapping[Path, Store]) -> dict[Path, tuple[int, int]]:
        """Close stores that were taken, and write their files anew without free space: their sizes in bytes before and after, but for those that others read."""
        sizes: dict[Path, tuple[int, int]] = {}
        for path, store in leaving.items():
            with self._closing(path, store), suppress(UserError):
                sizes[path] = compact(path)
        return sizes

    @contextmanager
    def _closing(self, path: Path, store: Store) -> Generator[None]:
        """Close a store, and let nobody open it before the block ends."""
        try:
            store.close()
            log.info("store closed", extra={"store": path})
            yield
        finally:
            self._moving[path].release()

    def paths(self) -> list[Path]:
        """The open stores."""
        return list(self._open)

    def left_open(self) -> list[Path]:
        """The stores that an earlier scheduler had open when it died, and whose runs nobody has gone on with yet."""
        return list(self._left_open)

    def recovered(self, path: Path) -> None:
        """Note that the runs of a store that was left open are known again."""
        with self._lock:
            self._left_open = [each for each in self._left_open if each != path]
            self._write()

    def latest(self) -> list[Path]:
        """The stores that were opened last and still exist, the newest first."""
        return [path for path in reversed(self._latest) if _exists(path)]

    def _write(self) -> None:
        file = home() / FILE
        draft = file.with_suffix(".draft")
        is_open = [*(path for path in self._left_open if path not in self._open), *self._open]
        with suppress(OSError):  # a home that cannot be written to: then nothing is remembered
            file.parent.mkdir(parents=True, exist_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(json.dumps({"open": [str(path) for path in is_open], "latest": [str(path) for path in self._latest]}), encoding="utf-8")
            draft.replace(file)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a file system that has gone
        return False


def _read() -> dict[str, list[Path]]:
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept: Any = json.loads((home() / FILE).read_text(encoding="utf-8"))
        return {name: [Path(path) for path in kept[name]] for name in ("open", "latest")}
    return {"open": [], "latest": []}


def unknown(run_id: str, waiting: Mapping[Path, str]) -> UserError:
    """The error for a run that no remembered store has. `waiting` are those that cannot be opened, and why."""
    if waiting:
        problem = f"may be in a store with unfinished runs that cannot be opened yet ({'; '.join(waiting.values())})"
        return UserError("run", run_id, problem, "it goes on by itself once that is put right")
    return UserError("run", run_id, "is not known to this scheduler", f"read it with `raysp show {run_id}`, or name its store with --store")
