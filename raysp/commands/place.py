"""What commands ask of the place where they work, this machine and its cluster or a service elsewhere: each command is written once, against `Place`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from raysp.commands.follow import Followed

if TYPE_CHECKING:
    from raysp.runs.prediction import Prediction
    from raysp.runs.progress import Watch, WatchAll
    from raysp.runs.result import Result
    from raysp.runs.state import Desired, RunState, ServiceStatus, SubmittedRun
    from raysp.specs.policy import Consent
    from raysp.specs.run import RunSpec
    from raysp.store import Answer, Limits


class Service(Followed, Protocol):
    """A service that executes runs by itself, while it is connected."""

    def submit(self, spec: "RunSpec", priority: int, /) -> "list[SubmittedRun]":
        """Queue everything that a spec asks for."""
        ...

    def find(self, wanted: str, /) -> list[str]:
        """The ids of the runs that a word stands for: of one run, or of all that were submitted together. UserError if there is none."""
        ...

    def steer(self, run_id: str, desired: "Desired", /) -> "RunState":
        """Pause, cancel or continue a run."""
        ...


@dataclass(frozen=True)
class Resumed:
    """A run that is to go on: by the `service` that has been told so, otherwise by this command, from its spec."""

    run_id: str
    service: Service | None = None
    spec: "RunSpec | None" = None


@dataclass(frozen=True)
class ServiceReport:
    """What is known of a service: its address, None if there never was one; what it does, None if it does not run; its runs that have not ended; who started it; the URL of its page."""

    address: str | None
    status: "ServiceStatus | None" = None
    unfinished: "Sequence[RunState]" = ()
    started: str = ""
    url: str | None = None


@dataclass(frozen=True)
class Asked:
    """Subsets about which a run is asked: texts that name the components removed, or those kept; a query; and whether the model measures them, and with what allowed."""

    removed: Sequence[str]
    kept: Sequence[str]
    query: int | None = None
    exact: "Consent | None" = None


@dataclass(frozen=True)
class Predicted:
    """What a run's surrogate says about subsets, the removed ones first."""

    run_id: str
    value_intact: float
    predictions: "list[Prediction]"


class Place(Protocol):
    """Where a command finds runs and has questions answered. Every method raises UserError for what it cannot find or do."""

    def answers(self, spec: "RunSpec", watch: "Callable[[list[str]], WatchAll]", run_id: str | None = None) -> "Iterator[tuple[str, Result]]":
        """Run everything that a spec asks for, and yield each answer with its label; `watch` is made of the labels. `run_id` continues a run."""
        ...

    def plan(self, spec: "RunSpec") -> dict[str, Any]:
        """Sizes and costs of the first run of a spec, with the number of `runs`."""
        ...

    def service(self) -> AbstractContextManager[Service]:
        """The service that executes runs by itself."""
        ...

    def resumed(self, run: str, consent: "Consent") -> AbstractContextManager[Resumed]:
        """Have a run go on, or prepare that this command goes on with it."""
        ...

    def status(self) -> ServiceReport:
        """What the service does."""
        ...

    def runs(self) -> "list[tuple[dict[str, Any], RunState]]":
        """The rows of all runs, the newest first, with where each stands."""
        ...

    def stored(self, run: str) -> "Result":
        """What is stored of a run, whether it is done or not."""
        ...

    def write_report(self, run: str, path: str) -> str:
        """Write the report of a run to a file of this machine; the run's id."""
        ...

    def write_set_report(self, run_ids: Sequence[str], path: str) -> None:
        """Write one report on the runs of a set of examples to a file of this machine."""
        ...

    def predict(self, run: str, asked: Asked, watch: "Watch") -> Predicted:
        """What a run's surrogate says about subsets."""
        ...

    def sql(self, query: str, limits: "Limits") -> "Answer":
        """The answer to one statement that only reads."""
        ...
