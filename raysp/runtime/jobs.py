"""Jobs: questions sent to a cluster from outside it, through the address of its dashboard, and followed by the log of the job.

A job starts on the head, gives the cluster's scheduler the question, and stays with it. Whoever sent it needs the address and the token, and no port of Ray.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from raysp.errors import UserError

#: What the head's shell is told to execute, in the folder of the question.
ENTRYPOINT = "python -m raysp job ."
#: Lines of a job's log that tell its parts apart: what comes before the first is Ray's, and what follows the second is the answer.
SUBMITTED, ANSWER = "job: the question is submitted", "job: the answer follows"
#: How a line of the log begins that says why there is no answer.
COMPLAINT = "raysp: "
#: How long connecting and the answer to a request may take, and to one that carries a package.
REQUEST_SECONDS, UPLOAD_SECONDS = (10.0, 15.0), (10.0, 300.0)
#: How long a head that has just started may take until it accepts jobs.
READY_SECONDS = 60.0
#: How often a job that is followed is looked at, and for how long its head may be away: Ray's own processes wait for it as long, if they are told to.
LOOK_SECONDS, AWAY_SECONDS = 1.0, 300.0
#: How long `ray job stop` waits for the job to steer its runs before it kills it.
STOP_SECONDS = 30
#: Where Ray keeps what the processes of a job inherit.
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_TOO_LARGE, _UNKNOWN, _NOT_READY = "status code 413", "status code 404", "No available agent"
#: What Ray says of jobs that ended with their node and not by themselves.
_LOST = {"JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", "JOB_SUPERVISOR_ACTOR_START_FAILURE"}
#: Ray's modules that tell what they upload.
_CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
#: Variables with which Ray overrides the address that it is given.
_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


@dataclass(frozen=True)
class JobState:
    """A job at one moment: whether it has ended, was stopped or lost with its head, its exit status if it has one, and what Ray says of it."""

    ended: bool
    stopped: bool = False
    lost: bool = False
    code: int | None = None
    message: str = ""


class LostJobError(RuntimeError):
    """A job ended with its head, or its cluster no longer knows it."""


class _Client(JobSubmissionClient):
    """Ray's client, which would wait without end for an answer."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        options.setdefault("timeout", UPLOAD_SECONDS if method == "PUT" else REQUEST_SECONDS)
        return super()._do_request(method, endpoint, **options)


class Cluster:
    """A cluster by the address of its dashboard. Methods raise UserError if nobody answers there, or if the token is refused."""

    def __init__(self, address: str) -> None:
        self.address = _checked(address)
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with self._explained(), _own_address():
            self._client = _Client(self.address)

    def send(self, folder: Path, job_id: str, metadata: Mapping[str, str]) -> None:
        """Start a job with the question in a folder."""
        environment: dict[str, Any] = {"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}}
        until = time.monotonic() + READY_SECONDS
        with self._explained():
            while True:
                try:
                    self._client.submit_job(entrypoint=ENTRYPOINT, submission_id=job_id, runtime_env=environment, metadata=dict(metadata))
                except RuntimeError as error:
                    if _TOO_LARGE in str(error):
                        raise self._too_large() from None
                    if _NOT_READY not in str(error) or time.monotonic() > until:
                        raise
                    time.sleep(LOOK_SECONDS)
                except ValueError:  # of a package that Ray does not even read
                    raise self._too_large() from None
                else:
                    return

    def lines(self, job_id: str) -> Iterator[str]:
        """The lines of a job's log as they are written, to its end. A head that is away for less than `AWAY_SECONDS` is waited for.

        Raises LostJobError if the job ended with its head.
        """
        told, answered = 0, time.monotonic()
        while True:
            try:
                state = self.state(job_id)
                if state.lost:  # its log is lost too
                    raise LostJobError(state.message)
                text = self._log(job_id)
            except OSError:
                if time.monotonic() - answered > AWAY_SECONDS:
                    raise self._silent() from None
                time.sleep(LOOK_SECONDS)
                continue
            answered = time.monotonic()
            complete = text if state.ended else text[: text.rfind("\n") + 1]
            yield from complete[told:].removesuffix("\n").split("\n") if len(complete) > told else ()  # an answer may hold other ends of lines
            told = max(told, len(complete))
            if state.ended:
                return
            time.sleep(max(LOOK_SECONDS, len(text) / 1e6))  # a log is read whole each time

    def state(self, job_id: str) -> JobState:
        """The state of a job. LostJobError if the cluster does not know it, OSError if nobody answers."""
        try:
            found = self._client.get_job_info(job_id)
        except AuthenticationError:
            raise self._refused() from None
        except RuntimeError as error:
            raise _unanswered(error) from None
        status, lost = str(found.status.value), found.error_type in _LOST
        return JobState(status in {"STOPPED", "SUCCEEDED", "FAILED"}, status == "STOPPED", lost, found.driver_exit_code, str(found.message or ""))

    def _log(self, job_id: str) -> str:
        try:
            return str(self._client.get_job_logs(job_id))
        except RuntimeError as error:
            raise _unanswered(error) from None

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except AuthenticationError:
            raise self._refused() from None
        except (OSError, KeyError):  # requests' errors are OSErrors; a server of something else has no version
            raise self._silent() from None
        except RuntimeError as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise UserError("address", self.address, f"refuses the job ({first})", "look at the dashboard there") from None

    def _silent(self) -> UserError:
        return UserError("address", self.address, "does not answer as the dashboard of a Ray head does", "check the address, the port and the network")

    @staticmethod
    def _too_large() -> UserError:
        return UserError("spec", None, "names files of more than 100 MiB together, which do not travel", "put data sets on the hub")

    def _refused(self) -> UserError:
        remedy = f"give that of {self.address} in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        return UserError("token", None, "is missing, or is not that of the cluster", remedy)


def leave_package() -> None:
    """Keep the package of the question, in whose folder this job runs, from what its actors inherit: they serve others too, and outlive it."""
    config = os.environ.get(JOB_CONFIG)
    if config is not None:
        os.environ[JOB_CONFIG] = json.dumps({**json.loads(config), "runtime_env": {}})


def _unanswered(error: RuntimeError) -> Exception:
    """What a refused request means: that the job is unknown, or that the head is not ready."""
    text = str(error)
    return LostJobError(text) if _UNKNOWN in text else ConnectionError(text)


def _checked(address: str) -> str:
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in {"http", "https"} or not rest.strip("/"):
        raise UserError("address", address, "is not the address of a dashboard", "write http://HOST:8265; to start the service on a node, `raysp up --address`")
    return address.rstrip("/")


@contextlib.contextmanager
def _own_address() -> Generator[None]:
    """Keep Ray from replacing the address that it is given by that of the environment."""
    kept = {name: os.environ.pop(name) for name in _ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
