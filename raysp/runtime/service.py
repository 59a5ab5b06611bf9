"""The service of a home: a scheduler that goes on when the commands that talk to it have ended.

`up` starts it on the cluster that it is given, or on a Ray head of its own, and leaves its address in `service.json`; `down` ends what `up` started.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from raysp.errors import UserError
from raysp.home import home, service, service_file, store_path
from raysp.runtime.address import answers, checked_address
from raysp.runtime.token import require_token, web_token
from raysp.specs.policy import EVERYTHING, Policy, load_policy
from raysp.version import __version__

START_SECONDS = 90.0
#: Ray ends the processes of a head one after the other.
STOP_SECONDS = 40.0
POLL_SECONDS = 0.1
LOG = "service.log"


@dataclass(frozen=True)
class Service:
    """What `up` started: the address, the store of questions that name none, the process and temporary folder of a Ray head of its own, and the URL of its web end.

    `scheduler` and `serves` say whether it started the scheduler and the web end, or found them on the cluster.
    """

    address: str
    store: str
    version: str
    pid: int | None = None
    folder: str | None = None
    scheduler: bool = True
    web: str | None = None
    serves: bool = True

    @property
    def running(self) -> bool:
        """Whether the head answers; one of its own must also be the process that was started, as another may have its port by now."""
        return (self.pid is None or self.process_lives) and answers(self.address)

    @property
    def process_lives(self) -> bool:
        """Whether the head's process exists. Its number may have gone to another process, which does not name its folder."""
        return self.pid is not None and self.folder is not None and self.folder in _arguments(self.pid)


def read_service() -> Service | None:
    """The service of this home, dead or alive, None if there is none. One that another version started is read as far as it is known here."""
    found = service()
    if found is None:
        return None
    known: dict[str, Any] = {"store": str(store_path()), "version": "0"}
    known |= {name: found[name] for name in Service.__dataclass_fields__ if name in found}
    return Service(**known)


def up(
    address: str | None = None, store: str | None = None, policy: str | None = None, host: str | None = None, port: int | None = None
) -> tuple[Service, bool]:
    """The running service, and whether this call started it. `address` is that of a cluster to join, by default `RAY_ADDRESS`, otherwise a head is started.

    Its web end listens at `host` (of the head node) and `port`, as `raysp.runtime.web_end` has them by default. `policy` is the file of what questions may do, by default everything that whoever has Ray's token may do anyway. UserError if the service of this home runs
    elsewhere or with another store, if a policy, host or port comes too late, if nothing answers at the address, and if Ray or the web end does not start.
    """
    allowed = None if policy is None else load_policy(policy)
    wanted = address or os.environ.get("RAY_ADDRESS") or None
    place = str(store_path(store).expanduser().absolute())
    current = read_service()
    if current is not None and current.running:
        _check_same(current, wanted, place if store else current.store)
        _check_first("policy", policy, running=True)
        _check_first("host", host, running=True)
        _check_first("port", port, running=True)
        return current, False
    require_token()
    if current is not None:
        _clear(current)
    if wanted is None:
        _check_listening(host, port)
        started = _start_head(place)
    else:
        field = "address" if address else "RAY_ADDRESS"
        started = Service(checked_address(wanted, field, "start the cluster, or leave the address out to start one here"), place, __version__)
    try:
        started = _with_scheduler(started, policy, allowed)
        started = _with_web_end(started, allowed, host, port)
    except BaseException:
        _end_head(started)
        raise
    _write(started)
    return started, True


def down() -> tuple[Service | None, list[str]]:
    """End what `up` started; the service that there was, None if none, and the ids of the runs that this interrupted."""
    current = read_service()
    if current is None:
        return None, []
    interrupted: list[str] = []
    if current.running and (current.scheduler or current.serves):
        with contextlib.suppress(UserError), connecting(current.address):
            from raysp.runtime.client import end_service
            from raysp.runtime.web_end import end_web_end

            if current.serves:
                end_web_end()
            if current.scheduler:
                interrupted = end_service(current.address)
    _clear(current)
    return current, interrupted


@contextlib.contextmanager
def connecting(address: str) -> Generator[bool]:
    """Connect to the Ray at an address; yields whether a scheduler is there already."""
    from raysp.runtime.client import scheduler_exists
    from raysp.runtime.cluster import connected

    with connected(address):
        yield scheduler_exists()


def _with_scheduler(started: Service, file: str | None, policy: Policy | None) -> Service:
    """The service with its scheduler started. One that somebody else started on a cluster stays theirs."""
    from raysp.runtime.scheduler import scheduler

    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with connecting(started.address) as exists:
                _check_first("policy", file, running=exists)
                scheduler(policy or EVERYTHING, Path(started.store))
                return replace(started, scheduler=not exists)
        except UserError:  # a head of its own answers before its node can be joined
            if started.pid is None or time.monotonic() > until:
                raise
        time.sleep(POLL_SECONDS)


def _with_web_end(started: Service, policy: Policy | None, host: str | None, port: int | None) -> Service:
    """The service with its web end started, which allows what the policy says, by default models and data sets of the hub and nothing else."""
    import ray

    from raysp.runtime.web_end import WEB_HOST, start_web_end, web_end
    from raysp.web.desk import Settings

    with connecting(started.address):
        context: Any = ray.get_runtime_context()
        dashboard = getattr(context, "dashboard_url", None) or ray.worker.global_worker.node.address_info.get("webui_url") or None
        settings = Settings(
            web_token(), Path(started.store), policy or Policy(), f"http://{dashboard}" if dashboard else None, os.environ.get("RAY_GRAFANA_HOST")
        )
        serves = web_end() is None
        place, found = start_web_end(settings, host or WEB_HOST, port)
    shown = f"[{place}]" if ":" in place else place
    return replace(started, web=f"http://{shown}:{found}", serves=serves)


def _check_first(field: str, value: object, *, running: bool) -> None:
    if value is not None and running:
        raise UserError(field, value, "is read when a service starts, and it runs already", "end it first with `raysp down`")


def _check_listening(host: str | None, port: int | None) -> None:
    """Refuse a place at which the web end could not listen before a head is started for it."""
    from raysp.runtime.web_end import WEB_HOST, usable_port

    usable_port(host or WEB_HOST, port)


def _check_same(current: Service, address: str | None, store: str) -> None:
    if address is not None and address != current.address:
        raise UserError("address", address, f"is not that of the service of this home ({current.address})", "end that one first with `raysp down`")
    if store != current.store:
        raise UserError("store", store, f"is not that of the service of this home ({current.store})", "end that one first with `raysp down`")


def _start_head(store: str) -> Service:
    """A Ray head in a session of its own, which outlives this process."""
    folder = tempfile.mkdtemp(prefix="raysp-", dir=os.environ.get("RAY_TMPDIR") or "/tmp")  # noqa: S108  the paths of Ray's sockets must be short
    port, client, dashboard, agent = _free_ports(4)
    command = [
        sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block",
        f"--port={port}", f"--temp-dir={folder}", f"--ray-client-server-port={client}", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats",
    ]  # fmt: skip
    log = home() / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment)  # noqa: S603  our own words
    started = Service(f"127.0.0.1:{port}", store, __version__, process.pid, folder)
    until = time.monotonic() + START_SECONDS
    try:
        while not answers(started.address):
            _check_starting(process.poll() is not None or time.monotonic() > until, log)
            time.sleep(POLL_SECONDS)
    except BaseException:
        _end_head(started)
        raise
    return started


def _check_starting(failed: bool, log: Path) -> None:
    if failed:
        raise UserError("service", None, f"did not start: Ray {_last_line(log)}", f"the whole message is in {log}")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"ended with {lines[-1].strip()!r}" if lines else "did not answer in time"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _write(started: Service) -> None:
    file = service_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        json.dump(asdict(started), stream)
    draft.replace(file)


def _clear(current: Service) -> None:
    """End the head that `up` started, if it is there, and forget the service."""
    _end_head(current)
    service_file().unlink(missing_ok=True)


def _end_head(current: Service) -> None:
    pid = current.pid
    if pid is not None and current.process_lives:
        _signal(pid, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        while _is_process(pid) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        _signal(pid, signal.SIGKILL)
    if current.folder is not None:
        shutil.rmtree(current.folder, ignore_errors=True)


def _signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a session that `up` began: to its leader, or with SIGKILL to all of it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if number is signal.SIGKILL:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _is_process(pid: int) -> bool:
    """Whether a process exists; a child of this process that has ended is taken note of."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return bool(_arguments(pid))


def _arguments(pid: int) -> str:
    """The command line of a process, empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    if Path("/proc/self").exists():
        return ""
    told: Any = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return str(told.stdout).strip()
