"""Answer a user's query in a process of its own, which is stopped when it takes too long or too much memory.

DuckDB checks for interrupts between vectors of rows, and does not count the memory of every function; a single call such as `lpad('x', 1000000000)` would hold up,
or end, the process that asks. The other process reads the store as any reader does: the live file, or a snapshot.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
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


def ask_confined(path: Path, query: str, limits: Limits, age: float | None = None) -> Answer:
    """Return the answer to one SELECT-like statement about the store at `path`; errors as `questions.ask`, and beyond the limits in any case within a second more.

    While another process writes the store, the snapshot that is read is at most `age` seconds old, if that is given.
    """
    asked = json.dumps({"path": str(path), "age": age, "query": query, **asdict(limits)})
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", "from raysp.store.confined import answer_one; answer_one()"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:  # noqa: S603  our own module
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        stopped = threading.Event()
        try:
            starting = _stop_after(START_SECONDS, child, stopped)
            child.stdin.write(asked.encode())
            child.stdin.close()
            ready = child.stdout.readline() == b"ready\n"
            starting.cancel()
            running = _stop_after(limits.seconds + GRACE_SECONDS, child, stopped)
            table = _read(child.stdout) if ready else None
            told = child.stderr.read()
            child.wait()
            running.cancel()
        finally:
            child.kill()
            _remove_spilled(child.pid)
    return _answer(table, told, child.returncode, limits, stopped=stopped.is_set())


def _answer(table: Any, told: bytes, code: int, limits: Limits, *, stopped: bool) -> Answer:
    if stopped:
        raise too_slow(limits)
    if code < 0:
        raise too_much_memory(limits)
    end: dict[str, Any] = json.loads(told.splitlines()[-1]) if code == 0 and told.strip() else {"error": ["sql", None, _last(told), "see raysp docs store"]}
    if "error" in end:
        raise UserError(*end["error"])
    return Answer(table, end["truncated"], end["note"])


def _last(told: bytes) -> str:
    lines = told.decode(errors="replace").strip().splitlines()
    return f"could not be answered ({lines[-1] if lines else 'the process ended'})"


def answer_one() -> None:
    """Answer the query that stdin describes: "ready" and the rows on stdout, what else there is to say as one line of JSON on stderr."""
    asked = json.loads(sys.stdin.read())
    limits = Limits(asked["seconds"], asked["rows"], asked["bytes"], asked["memory"])
    try:
        with Store.read(asked["path"], memory=limits.memory, age=asked["age"]) as store:
            _limit_memory(limits.memory + SLACK_BYTES + limits.bytes)
            sys.stdout.buffer.write(b"ready\n")
            sys.stdout.buffer.flush()
            answer = store.ask(asked["query"], limits)
            with pa.ipc.new_stream(sys.stdout.buffer, answer.table.schema) as stream:
                stream.write_table(answer.table)
            end: dict[str, Any] = {"truncated": answer.truncated, "note": store.note}
    except MemoryError:
        end = _error(too_much_memory(limits))
    except UserError as error:
        end = _error(error)
    sys.stdout.flush()
    sys.stderr.write(json.dumps(end, default=str) + "\n")
    sys.stderr.flush()
    os._exit(0)  # with nothing more to say on stderr


def _error(error: UserError) -> dict[str, Any]:
    return {"error": [error.field, error.value, error.problem, error.remedy]}


def _read(stream: Any) -> Any:
    try:
        with pa.ipc.open_stream(stream) as reader:
            return reader.read_all()
    except (pa.ArrowException, OSError, EOFError):
        return None  # the other process has ended, and says why on stderr


def _stop_after(seconds: float, child: "subprocess.Popen[bytes]", stopped: threading.Event) -> threading.Timer:
    def stop() -> None:
        stopped.set()
        child.kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    return timer


def _limit_memory(more: int) -> None:
    """Let this process use `more` bytes beyond what it uses now, where the system can tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return
    used = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, used + more))


def _remove_spilled(process: int) -> None:
    for left in cache_folder("spill").glob(f"{process}-*"):
        shutil.rmtree(left, ignore_errors=True)
