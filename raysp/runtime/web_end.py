"""The web end of a service as an actor: uvicorn in a thread, on the head node, where the store is.

The application (`raysp.web`) knows nothing of Ray; here is the `Desk` through which it reaches the scheduler. Ray starts the actor again when it dies.
"""

import contextlib
import functools
import logging
import os
import socket
import threading
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
from raysp.runtime.workplace import ServiceWorkplace
from raysp.specs.lenses import FeatureLens
from raysp.specs.policy import Consent
from raysp.specs.run import RunSpec
from raysp.web.desk import Settings

NAME = "raysp:web"
#: How long a scheduler that has died is looked for before a request is answered that the service is not there.
ABSENT_SECONDS = 5.0
#: How long a call may take that does not wait for evaluators.
CALL_SECONDS = 30.0
#: Connections that wait to be accepted.
BACKLOG = 512
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
        with ServiceWorkplace(self._link, self._store, PLAN) as place:
            if content:
                place.store.add_blobs(content.values())
            ready = place.prepared(spec)
            return plan_run(ready, place.store, place.backend_of(ready.lens))

    @_there
    def preview(self, lens: FeatureLens) -> dict[str, Any]:
        """As `Desk.preview`."""
        return self._link.call("preview", lens, self._store, seconds=ANSWER_SECONDS)

    @_there
    def flips(self, run_id: str, threshold: float, most: int) -> list[tuple[int, ...]]:
        """As `Desk.flips`: in a process of its own, as a search may keep the interpreter."""
        with ServiceWorkplace(self._link, self._store, run_id) as place:
            surrogate = place.store.surrogate(run_id)
        return ray.get(_search.options(name=f"smallest set of {run_id}").remote(surrogate, threshold, most), timeout=ANSWER_SECONDS)


def _scheduler() -> Any:
    """The scheduler that runs; one that is missing is not started here, where nobody knows its policy."""
    return ray.get_actor(SCHEDULER, NAMESPACE)


class WebEnd:
    """The web server. Its socket is bound when it is made, so that an address that is taken is an error of whoever starts it."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        import uvicorn

        from raysp.web.app import create_app

        log_to_stderr()
        self._socket = _bound(host, port)
        app = create_app(settings, ServiceDesk(settings))
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, backlog=BACKLOG, timeout_graceful_shutdown=CLOSING_SECONDS, ws="none"
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[method-assign]  # Ray's process has its own
        threading.Thread(target=self._serve, name="web", daemon=True).start()

    def __repr__(self) -> str:
        """What the Ray dashboard shows of it."""
        return f"{NAME} (REST and pages)"

    def address(self) -> tuple[str, int]:
        """The host and port at which it listens."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException:
            log.exception("the web server has ended")
        os._exit(1)  # Ray starts the actor again


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket. UserError if the address is taken or is not one of this machine."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
        found.listen(BACKLOG)
    except OSError as error:
        field, value = ("port", port) if error.errno in (13, 98) else ("host", host)
        raise UserError(field, value, f"cannot be listened at ({error.strerror or error})", "give another with --port, or --host") from None
    return found


_remote: Any = ray.remote
web_actor: Any = _remote(max_restarts=-1, max_task_retries=0, num_cpus=0)(WebEnd)
_search: Any = _remote(num_cpus=0, resources=PLACE, max_retries=1)(flips)


def start_web_end(settings: Settings, host: str, port: int) -> tuple[str, int]:
    """Start the web end of the cluster that this process is connected to, unless it runs, and return where it listens. UserError if it cannot listen there."""
    options: dict[str, Any] = {
        "name": NAME,
        "namespace": NAMESPACE,
        "get_if_exists": True,
        "lifetime": "detached",
        "resources": PLACE,
        "runtime_env": ENVIRONMENT,
    }
    actor = web_actor.options(**options).remote(settings, host, port)
    try:
        return ray.get(actor.address.remote(), timeout=ANSWER_SECONDS)
    except (RayActorError, GetTimeoutError) as error:
        with contextlib.suppress(RayError, ValueError):
            ray.kill(actor, no_restart=True)
        raise _cause(error) from None


def _cause(error: BaseException) -> BaseException:
    """What kept the actor from being made."""
    found = getattr(error, "cause", None) or error.__cause__
    return (
        found if isinstance(found, UserError) else UserError("service", None, f"has no web end ({error})".splitlines()[0], "look into its log in Ray's folder")
    )
