"""The web end of a service as an actor: uvicorn in a thread, on the head node, where the store is.

The application (`raysp.web`) knows nothing of Ray; here is the `Desk` through which it reaches the scheduler. Ray starts the actor again when it dies.
"""

import asyncio
import contextlib
import errno
import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from raysp.actions.flip import flips
from raysp.datasets.content import Content
from raysp.errors import UserError
from raysp.masks import Masks
from raysp.runs.exact import measure
from raysp.runs.plan import plan_run
from raysp.runs.state import Desired, RunRequest, RunState, ServiceStatus
from raysp.runs.stored_game import PLAN
from raysp.runtime.cluster import ANSWER_SECONDS, NAMESPACE
from raysp.runtime.link import Link, passed_on
from raysp.runtime.logs import log_to_stderr
from raysp.runtime.runner_pool import PLACE
from raysp.runtime.scheduler import ENVIRONMENT
from raysp.runtime.scheduler import NAME as SCHEDULER
from raysp.runtime.store_proxy import StoreProxy
from raysp.runtime.workplace import ServiceWorkplace
from raysp.specs.lenses import FeatureLens
from raysp.specs.policy import Consent
from raysp.specs.run import RunSpec
from raysp.spectral.fourier import FourierSurrogate
from raysp.web.desk import Settings

NAME = "raysp:web"
#: How long a scheduler that has died is looked for before a request is answered that the service is not there.
ABSENT_SECONDS = 5.0
#: How long a call may take that does not wait for evaluators.
CALL_SECONDS = 30.0
#: Connections that wait to be accepted.
BACKLOG = 512
#: Where the web end listens unless it is told otherwise.
WEB_HOST, WEB_PORT = "127.0.0.1", 8270
#: How often a port that is taken when the actor is started again is tried.
AGAIN_SECONDS = 1.0
#: How long requests under way are waited for when the web end is closed.
CLOSING_SECONDS = 5

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


def _there(method: Callable[P, T]) -> Callable[P, T]:
    """A method whose failure to reach the scheduler is a UserError."""

    @functools.wraps(method)
    def called(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(*arguments, **named)
        except RayTaskError as error:
            raise passed_on(error) from None
        except (RayActorError, GetTimeoutError, RayError) as error:
            raise UserError("cluster", None, f"its scheduler does not answer ({type(error).__name__})", "try again in a few seconds") from None

    return called


class ServiceDesk:
    """The scheduler of this cluster, as `raysp.web.desk.Desk`, for the store at `store`."""

    def __init__(self, settings: Settings) -> None:
        self._store = settings.store
        self._consent = Consent(settings.policy.pickled_weights, settings.policy.remote_code)
        self._link = Link(_scheduler, absent=ABSENT_SECONDS)

    @_there
    def submit(self, requests: Sequence[RunRequest]) -> None:
        """As `Desk.submit`."""
        self._link.call("submit", list(requests), seconds=CALL_SECONDS)

    @_there
    def steer(self, run_id: str, desired: Desired) -> RunState:
        """As `Desk.steer`."""
        return self._link.call("steer", run_id, desired, seconds=CALL_SECONDS)

    @_there
    def changes(self, since: int, timeout: float) -> list[RunState]:
        """As `Desk.changes`."""
        return self._link.call("changes", since, timeout, seconds=timeout + CALL_SECONDS)

    @_there
    def status(self) -> ServiceStatus:
        """As `Desk.status`."""
        return self._link.call("status", seconds=CALL_SECONDS)

    @_there
    def keep_open(self, path: Path) -> None:
        """As `Desk.keep_open`."""
        self._link.call("keep_open", path, seconds=CALL_SECONDS)

    @_there
    def measure(self, run_id: str, masks: Masks) -> None:
        """As `Desk.measure`."""
        with ServiceWorkplace(self._link, self._store, run_id) as place:
            measure(place.store, run_id, masks, place.backend_of, lambda _: None, self._consent)

    @_there
    def plan(self, spec: RunSpec, content: Content) -> dict[str, Any]:
        """As `Desk.plan`."""
        self._keep(content)
        with ServiceWorkplace(self._link, self._store, PLAN) as place:
            ready = place.prepared(spec)
            return plan_run(ready, place.store, place.backend_of(ready.lens))

    @_there
    def preview(self, lens: FeatureLens, content: Content) -> dict[str, Any]:
        """As `Desk.preview`."""
        self._keep(content)
        return self._link.call("preview", lens, self._store, seconds=ANSWER_SECONDS)

    @_there
    def flips(self, surrogate: FourierSurrogate, threshold: float, most: int) -> list[tuple[int, ...]]:
        """As `Desk.flips`: in a process of its own, as a search may keep the interpreter."""
        return ray.get(_search.options(name="search for the smallest set").remote(surrogate, threshold, most), timeout=ANSWER_SECONDS)

    def _keep(self, content: Content) -> None:
        """Put what a question refers to into the store, where evaluators have it from."""
        if content:
            StoreProxy(self._link, self._store).add_blobs(content.values())


def _scheduler() -> Any:
    """The scheduler that runs; one that is missing is not started here, where nobody knows its policy."""
    return ray.get_actor(SCHEDULER, NAMESPACE)


class WebEnd:
    """The web server. Its socket is bound when it is made; an address that is taken by then is an error of `address`, and is tried again for as long as the actor lives."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        import uvicorn

        from raysp.web.app import create_app

        log_to_stderr()
        self._place, self._socket, self._problem = (host, port), None, None
        self._bind()
        config = uvicorn.Config(
            create_app(settings, ServiceDesk(settings)),
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=CLOSING_SECONDS,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        threading.Thread(target=self._serve, name="web", daemon=True).start()

    def __repr__(self) -> str:
        """What the Ray dashboard shows of it."""
        return f"{NAME} (REST and pages)"

    def address(self) -> tuple[str, int]:
        """The host and port at which it listens. UserError if it cannot listen there."""
        if self._problem is not None:
            raise self._problem
        return self._place

    def _bind(self) -> None:
        try:
            self._socket, self._problem = bound(*self._place), None
        except UserError as error:
            self._problem = error

    def _serve(self) -> None:
        while self._socket is None:
            time.sleep(AGAIN_SECONDS)
            self._bind()
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except BaseException:
            log.exception("the web server failed")
        os._exit(1)  # Ray starts the actor again


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. UserError if the address is taken or is not one of this machine."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
        found.listen(BACKLOG)
    except OSError as error:
        field, value = ("port", port) if error.errno in (errno.EADDRINUSE, errno.EACCES) else ("host", host)
        raise UserError(field, value, f"cannot be listened at ({error.strerror or error})", "give another with --port or --host") from None
    return found


def usable_port(host: str, port: int | None) -> int:
    """The port at which a web end can listen on this machine: the given one, one that is free for 0, and for None `WEB_PORT` or one that is free."""
    try:
        with bound(host, WEB_PORT if port is None else port) as listening:
            return listening.getsockname()[1]
    except UserError as error:
        if port is not None or error.field != "port":
            raise
    return usable_port(host, 0)


_remote: Any = ray.remote
web_actor: Any = _remote(max_restarts=-1, max_task_retries=0, num_cpus=0)(WebEnd)
_search: Any = _remote(num_cpus=0, resources=PLACE, max_retries=1)(flips)
_usable_port: Any = _remote(num_cpus=0, resources=PLACE)(usable_port)


def start_web_end(settings: Settings, host: str, port: int | None) -> tuple[str, int]:
    """Start the web end of the cluster that this process is connected to, unless it runs, and return where it listens.

    The port is settled before the actor is made, as `usable_port`, so that it comes back there. UserError if it cannot listen there.
    """
    found = web_end()
    try:
        if found is None:
            settled = ray.get(_usable_port.options(name="find a port").remote(host, port), timeout=ANSWER_SECONDS)
            options = {"name": NAME, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached", "resources": PLACE, "runtime_env": ENVIRONMENT}
            found = web_actor.options(**options).remote(settings, host, settled)
        return ray.get(found.address.remote(), timeout=ANSWER_SECONDS)
    except RayTaskError as error:
        _end(found)
        raise passed_on(error) from None
    except (RayActorError, GetTimeoutError) as error:
        _end(found)
        first = str(error).splitlines()[0]
        raise UserError("service", None, f"has no web end ({first})", "look into the log of raysp:web in Ray's folder") from None


def web_end() -> Any:
    """The web end of the cluster that this process is connected to, None if there is none."""
    try:
        return ray.get_actor(NAME, NAMESPACE)
    except ValueError:
        return None


def end_web_end() -> None:
    """End the web end of the cluster that this process is connected to, if there is one."""
    _end(web_end())


def _end(actor: Any) -> None:
    if actor is not None:
        with contextlib.suppress(RayError, ValueError):
            ray.kill(actor, no_restart=True)
