"""Answer users' queries in processes of their own, which are stopped when one takes too long or too much memory.

DuckDB checks for interrupts between vectors of rows, and does not count the memory of every function; a single call such as `lpad('x', 1000000000)` would hold up,
or end, the process that asks. The other process reads the store as any reader does: the live file, or a snapshot.
"""

import json
import os
import queue
import resource
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysp.errors import UserError
from raysp.home import cache_folder
from raysp.store.questions import Answer, Limits, too_much_memory, too_slow
from raysp.store.store import Store

START_SECONDS = 60.0
"""How long the other process may take to open the store, which may include waiting for a snapshot."""
GRACE_SECONDS = 1.0
"""How long after its time a query may take to notice."""
SLACK_BYTES = 256 << 20
"""Memory beside DuckDB's own limit: for the answer's rows, and for what DuckDB does not count."""
KEPT_SECONDS = 5.0
"""How long a process keeps a snapshot open that nobody asks about."""
MOST_ANSWERS = 1000
"""A process is replaced after this many answers, with whatever memory it has collected."""
END = b"end "
"""What begins the line on stderr that ends an answer; libraries may write other lines there."""


class ConfinedProcess:
    """A process that answers one query after another. To be used by one thread at a time; `usable` is False once it was stopped."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", "from raysp.store.confined import answer_all; answer_all()"]
        self._child: Any = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603  our own module
        self._answered = 0
        self.usable = True

    def ask(self, path: Path, query: str, limits: Limits, age: float | None = None) -> Answer:
        """As `ask_confined`."""
        asked = json.dumps({"path": str(path), "age": age, "query": query, **asdict(limits)})
        stopped = threading.Event()
        table, end = None, None
        try:
            with _stopped_after(START_SECONDS, self._child, stopped):
                with suppress(BrokenPipeError):  # it has ended, and says why
                    self._child.stdin.write(asked.encode() + b"\n")
                    self._child.stdin.flush()
                ready = self._child.stdout.readline() == b"ready\n"
            with _stopped_after(limits.seconds + GRACE_SECONDS, self._child, stopped):
                if ready and self._child.stdout.readline() == b"answer\n":
                    table = _read(self._child.stdout)
                told, end = self._end()
        finally:
            self._answered += 1
            if end is None or self._answered >= MOST_ANSWERS or ("error" not in end and table is None):
                self.close()
        if end is None:
            raise self._failure(told, limits, stopped=stopped.is_set())
        if "error" in end:
            raise UserError(*end["error"])
        return Answer(table, end["truncated"], end["note"])

    def _end(self) -> tuple[list[bytes], dict[str, Any] | None]:
        """The lines on stderr before the one that ends the answer, and what that one says; None if the process ended without it."""
        told: list[bytes] = []
        for line in self._child.stderr:
            if line.startswith(END):
                return told, json.loads(line.removeprefix(END))
            told.append(line)
        return told, None

    def _failure(self, told: list[bytes], limits: Limits, *, stopped: bool) -> UserError:
        if stopped:
            return too_slow(limits)
        if self._child.wait() < 0:
            return too_much_memory(limits)
        lines = b"".join(told).decode(errors="replace").strip().splitlines()
        return UserError("sql", None, f"could not be answered ({lines[-1] if lines else 'the process ended'})", "see raysp docs store")

    def close(self) -> None:
        """End the process, and remove what it has spilled to the disk."""
        self.usable = False
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            with suppress(OSError):  # of a question that it did not take
                stream.close()
        for left in cache_folder("spill").glob(f"{self._child.pid}-*"):
            shutil.rmtree(left, ignore_errors=True)


class ConfinedPool:
    """Up to `size` processes that answer queries, started when they are needed and kept for the next query. For any number of threads."""

    def __init__(self, size: int) -> None:
        self._free: queue.LifoQueue[ConfinedProcess | None] = queue.LifoQueue()
        for _ in range(size):
            self._free.put(None)
        self._size = size

    def ask(self, path: Path, query: str, limits: Limits, age: float | None = None) -> Answer:
        """As `ask_confined`, once one of the processes is free."""
        process = self._free.get()
        try:
            process = process or ConfinedProcess()
            return process.ask(path, query, limits, age)
        finally:
            self._free.put(process if process is not None and process.usable else None)

    def close(self) -> None:
        """End the processes, each after the query that it is answering."""
        for process in [self._free.get() for _ in range(self._size)]:
            if process is not None:
                process.close()
            self._free.put(None)


def ask_confined(path: Path, query: str, limits: Limits, age: float | None = None) -> Answer:
    """Return the answer to one SELECT-like statement about the store at `path`; errors as `questions.ask`, and beyond the limits in any case within a second more.

    While another process writes the store, the snapshot that is read is at most `age` seconds old, if that is given.
    """
    process = ConfinedProcess()
    try:
        return process.ask(path, query, limits, age)
    finally:
        process.close()


# ---- in the other process


def answer_all() -> None:
    """Answer the queries that lines of stdin describe, until it ends.

    Of each: "ready" once the store is open, then "answer" and the rows on stdout, or "error"; what else there is to say as one line of JSON on stderr.
    """
    kept = _KeptStore()
    while line := kept.next_line():
        _answer_one(json.loads(line), kept)
    sys.stdout.flush()
    os._exit(0)  # with nothing more to say on stderr


def _answer_one(asked: dict[str, Any], kept: "_KeptStore") -> None:
    limits = Limits(asked["seconds"], asked["rows"], asked["bytes"], asked["memory"])
    try:
        store = kept.open(asked["path"], limits.memory, asked["age"])
        _limit_memory(limits.memory + SLACK_BYTES + limits.bytes)
        _write(b"ready\n")
        answer = store.ask(asked["query"], limits)
        _write(b"answer\n")
        with pa.ipc.new_stream(sys.stdout.buffer, answer.table.schema) as stream:
            stream.write_table(answer.table)
        sys.stdout.buffer.flush()
        end: dict[str, Any] = {"truncated": answer.truncated, "note": store.note}
    except MemoryError:
        end = _error(too_much_memory(limits))
    except UserError as error:
        end = _error(error)
    if "error" in end:
        _write(b"error\n")
    kept.answered()
    sys.stderr.buffer.write(END + json.dumps(end, default=str).encode() + b"\n")
    sys.stderr.buffer.flush()


class _KeptStore:
    """The store that was asked about last: a snapshot is kept for the next query, the live file is left to its writer."""

    def __init__(self) -> None:
        self._store: Store | None = None
        self._key: tuple[str, int] | None = None

    def open(self, path: str, memory: int, age: float | None) -> Store:
        kept = self._store
        if kept is not None and self._key == (path, memory) and kept.as_of is not None and age is not None and time.time() - kept.as_of <= age:
            return kept
        self.close()
        self._store, self._key = Store.read(path, memory=memory, age=age), (path, memory)
        return self._store

    def answered(self) -> None:
        if self._store is not None and self._store.as_of is None:
            self.close()

    def next_line(self) -> str:
        """The next line of stdin, empty at its end. A snapshot that nobody asks about for a while is closed."""
        if not select.select([sys.stdin], [], [], KEPT_SECONDS)[0]:
            self.close()
        return sys.stdin.readline()

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _error(error: UserError) -> dict[str, Any]:
    return {"error": [error.field, error.value, error.problem, error.remedy]}


def _read(stream: Any) -> Any:
    try:
        with pa.ipc.open_stream(stream) as reader:
            return reader.read_all()
    except (pa.ArrowException, OSError, EOFError):
        return None  # the other process has ended, and says why on stderr


@contextmanager
def _stopped_after(seconds: float, child: Any, stopped: threading.Event) -> Generator[None]:
    """Kill the process if the block takes longer than `seconds`, and say so in `stopped`."""

    def stop() -> None:
        stopped.set()
        child.kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _limit_memory(more: int) -> None:
    """Let this process use `more` bytes beyond what it uses now, where the system can tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return
    used = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, resource.getrlimit(resource.RLIMIT_DATA)[1]))
