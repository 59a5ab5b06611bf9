"""Commands on a service elsewhere, over its REST interface."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from raysp.commands.place import Asked, Predicted, Resumed, Service, ServiceReport
from raysp.errors import UserError
from raysp.remote.following import state_of
from raysp.remote.service import RemoteService, connect

if TYPE_CHECKING:
    from raysp.runs.progress import Watch, WatchAll
    from raysp.runs.result import Result
    from raysp.runs.state import RunState, ServiceStatus
    from raysp.specs.policy import Consent
    from raysp.specs.run import RunSpec
    from raysp.store import Answer, Limits, Store

#: What the row of a run has beside those of the view `run_summary`.
ADDED = ("desired", "priority", "position", "progress", "version")


class There:
    """The service at a URL. See `raysp.commands.place.Place`."""

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def remote(self) -> RemoteService:
        """The service, once it has answered."""
        return connect(self._url)

    def answers(self, spec: "RunSpec", watch: "Callable[[list[str]], WatchAll]", run_id: str | None = None) -> "Iterator[tuple[str, Result]]":
        """As `Place.answers`. An interrupt ends the following; the runs go on."""
        assert run_id is None  # a service continues its runs itself
        yield from self.remote.awaited(submitted := self.remote.submit(spec), watch([each.label for each in submitted]))

    def plan(self, spec: "RunSpec") -> dict[str, Any]:
        """As `Place.plan`."""
        return {name: value for name, value in self.remote.plan(spec).items() if name != "text"}

    @contextmanager
    def service(self) -> Generator[Service]:
        """As `Place.service`."""
        yield self.remote

    @contextmanager
    def resumed(self, run: str, consent: "Consent") -> Generator[Resumed]:
        """As `Place.resumed`."""
        _check_consent(consent)
        yield Resumed(self.remote.resume(run).run_id, self.remote)

    def status(self) -> ServiceReport:
        """As `Place.status`."""
        from raysp.runs.state import UNFINISHED

        found = self.remote.status()
        if not found.get("answers"):
            raise UserError("server", self.remote.url, "is there, but its scheduler does not answer", "try again in a few seconds")
        unfinished = [state_of(row) for row in reversed(self.remote.runs(status=",".join(sorted(UNFINISHED))))]
        return ServiceReport(self.remote.url, _status(found), unfinished, url=self.remote.url)

    def runs(self) -> "list[tuple[dict[str, Any], RunState]]":
        """As `Place.runs`."""
        return [({name: value for name, value in row.items() if name not in ADDED}, state_of(row)) for row in self.remote.runs()]

    def stored(self, run: str) -> "Result":
        """As `Place.stored`."""
        return self.remote.read(run)

    def write_report(self, run: str, path: str) -> str:
        """As `Place.write_report`: drawn here, from tables that are read there."""
        from raysp.report.page import write_report

        found = self.remote.reader.find_run(run)
        write_report(self._reading, found, path)
        return found

    def write_set_report(self, run_ids: Sequence[str], path: str) -> None:
        """As `Place.write_set_report`."""
        from raysp.report.page import write_set_report

        write_set_report(self._reading, run_ids, path)

    def predict(self, run: str, asked: Asked, watch: "Watch") -> Predicted:  # noqa: ARG002  the protocol's
        """As `Place.predict`. What the service measures, it does not report on meanwhile."""
        from raysp.runs.prediction import read_subset

        if asked.exact is not None:
            _check_consent(asked.exact)
        result = self.remote.read(run)
        labels: list[str] = result.components["label"].to_pylist()
        removed, kept = ([read_subset(text, labels) for text in texts] for texts in (asked.removed, asked.kept))
        found = self.remote.predictions(result.run_id, removed, query=asked.query, exact=asked.exact is not None) if removed else []
        found += self.remote.predictions(result.run_id, kept=kept, query=asked.query, exact=asked.exact is not None) if kept else []
        return Predicted(result.run_id, result.summary["value_intact"], found)

    def sql(self, query: str, limits: "Limits") -> "Answer":
        """As `Place.sql`."""
        return self.remote.ask(query, limits)

    @property
    def _reading(self) -> "Store":
        """What reports are made from: it has the methods of a store that they call."""
        return cast("Store", self.remote.reader)


def _check_consent(consent: "Consent") -> None:
    """UserError for what a service's policy decides, and nobody who asks it."""
    for field in ("allow_pickle", "allow_remote_code"):
        if getattr(consent, field):
            raise UserError(field, None, "is not for who asks a service to allow", "leave it out; the policy of the service decides")


def _status(found: dict[str, Any]) -> "ServiceStatus":
    from raysp.runs.state import EvaluatorState, ServiceStatus

    evaluators = tuple(
        EvaluatorState(each["name"], each["state"], each.get("node", ""), tuple(each.get("resident") or ())) for each in found.get("evaluators", ())
    )
    stores, queue = (tuple[str, ...](found.get(name) or ()) for name in ("stores", "queue"))
    return ServiceStatus(found["version"], stores, evaluators, found.get("runs") or {}, queue)
