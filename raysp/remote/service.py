"""A service of raysp from any machine that reaches it: ask, follow, steer, look, predict, measure and query, as here. Imports neither Ray nor models."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from raysp.errors import UserError
from raysp.notebooks.progress import watching, watching_all
from raysp.remote.address import Address
from raysp.remote.following import Follower, state_of
from raysp.remote.problems import stranger
from raysp.remote.questions import body
from raysp.remote.reading import RemoteReader, path_of
from raysp.remote.result import RemoteResult
from raysp.remote.transport import Transport
from raysp.runs.prediction import Prediction
from raysp.runs.progress import Watch, WatchAll
from raysp.runs.state import DEFAULT_PRIORITY, Desired, RunState, SubmittedRun, check_answered, find_runs, goes_on
from raysp.specs.lenses import FeatureLens
from raysp.specs.run import RunSpec
from raysp.store import Answer, Limits
from raysp.store.packing import Table
from raysp.version import __version__

#: How long a plan, a preview or the search for a flip may take: a model may have to be loaded, and candidates are measured.
MEASURED_SECONDS = 900.0
#: How long the first answer of a service is waited for where nothing answers.
FIRST_SECONDS = 3.0
#: Rows of an answer in SQL unless `limit` says otherwise, and how long it may take.
MOST_ROWS, SQL_SECONDS = 1_000_000, 60.0
ACCEPTED = 202
_STEPS: Mapping[Desired, str] = {"cancelled": "cancel", "paused": "pause", "running": "resume"}

Names = Sequence[int | str]
#: Fields of `Prediction` that JSON has as lists.
_TUPLES = ("removed", "labels")


def connect(url: str | None = None, token: str | None = None) -> "RemoteService":
    """The service at `url` (default `RAYSP_SERVER`), with `token` (default `RAYSP_TOKEN`, otherwise the one in the home).

    UserError if one of them is missing or wrong, if nothing or something other than raysp answers there, and if the service is of another version.
    """
    address = Address.of(url, token)
    transport = Transport(address)
    about = transport.json("GET", "/service", patience=FIRST_SECONDS)
    found = about.get("version") if isinstance(about, dict) else None
    if found is None:
        raise stranger(address, transport.ask("GET", "/service"))
    if found != __version__:
        raise UserError(
            "raysp", found, f"is the version of the service at {address.url}, but {__version__} is installed here", "install the same version in both places"
        )
    return RemoteService(transport)


class RemoteService:
    """A service at a URL. A run is named as on the command line: by its id, the beginning of it, its name, or as last."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.reader = RemoteReader(transport)

    @property
    def url(self) -> str:
        """The URL of the service."""
        return self._transport.address.url

    def __repr__(self) -> str:
        return f"RemoteService({self.url})"

    # ---- questions

    def run(self, spec: RunSpec, watch: Watch | None = None) -> RemoteResult:
        """Ask one question and wait for its answer, as `raysp.run`. An interrupt ends the waiting; the run goes on. Without a `watch`, a notebook shows the progress."""
        if spec.examples is not None or spec.repeat_on:
            raise UserError("examples" if spec.examples else "repeat_on", spec.examples or list(spec.repeat_on), "asks for several runs", "use run_all(spec)")
        with watching(watch) as told:
            return next(self.answers(spec, None if told is None else lambda _, progress: told(progress)))[1]

    def run_all(self, spec: RunSpec) -> list[RemoteResult]:
        """Ask all that a spec asks for, at the same time, and wait for the answers, as `raysp.run_all`."""
        submitted = self.submit(spec)
        with watching_all([each.label for each in submitted]) as told:
            return [result for _, result in self.awaited(submitted, told)]

    def answers(self, spec: RunSpec, watch: WatchAll | None = None) -> Iterator[tuple[str, RemoteResult]]:
        """Ask all that a spec asks for, and yield each answer with its label in its turn. Raises what ended a run without an answer."""
        return self.awaited(self.submit(spec), watch)

    def awaited(self, submitted: Sequence[SubmittedRun], watch: WatchAll | None = None) -> Iterator[tuple[str, RemoteResult]]:
        """Follow runs that were submitted, and yield each answer with its label in its turn. Raises what ended a run without an answer."""
        waiting = [each.run_id for each in submitted]
        numbers, labels = {run_id: number for number, run_id in enumerate(waiting)}, {each.run_id: each.label for each in submitted}
        ended: dict[str, RunState] = {}
        try:
            for state in self.follow(waiting):
                if watch is not None:
                    watch(numbers[state.run_id], state.shown)
                if state.ended or state.status == "paused":
                    ended[state.run_id] = state
                while waiting and waiting[0] in ended:
                    run_id = waiting.pop(0)
                    yield labels[run_id], self._answer(ended[run_id])
        except KeyboardInterrupt:
            raise goes_on([each.run_id for each in submitted]) from None

    def submit(self, spec: RunSpec, priority: int = DEFAULT_PRIORITY) -> list[SubmittedRun]:
        """Queue everything that a spec asks for, with the files that it names read here, and return. A submission whose answer was lost is not made twice."""
        headers = {"idempotency-key": uuid.uuid4().hex}
        found = self._transport.json("POST", "/runs", body=body(spec), query={"priority": priority}, headers=headers)
        return [SubmittedRun(row["run_id"], row["label"], state_of(row)) for row in found["runs"]]

    def plan(self, spec: RunSpec) -> dict[str, Any]:
        """Sizes and costs, as `raysp plan`, with the number of `runs` and the whole as `text`."""
        return self._transport.json("POST", "/plan", body=body(spec), seconds=MEASURED_SECONDS)

    def preview(self, lens: FeatureLens) -> dict[str, Any]:
        """The components of a lens's prompt, and the tokens that its model finds most probable after it."""
        return self._transport.json("POST", "/preview", body=body(RunSpec(lens=lens)), seconds=MEASURED_SECONDS)

    # ---- runs

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """The rows of all runs, newest first, with where each stands; `status`, `lens`, `model`, `verdict`, `set` and `q` (a part of id or name) leave some out."""
        return self.reader.runs(**filters)

    def find(self, wanted: str) -> list[str]:
        """The ids of the runs that a word stands for: one run, or all that were submitted together, by what their ids begin with. UserError if there is none."""
        rows = self.reader.runs(q=None if wanted == "last" else wanted)
        return find_runs([state_of(row) for row in reversed(rows)], wanted) or [self.reader.find_run(wanted)]

    def states(self, run_ids: Sequence[str] | None = None) -> list[RunState]:
        """Where these runs stand, or all."""
        if run_ids is not None and len(run_ids) == 1:
            row = self.reader.row(run_ids[0])
            return [state_of(row["state"] or row)]
        found = {row["run_id"]: state_of(row) for row in self.reader.runs()}
        return [found[run_id] for run_id in (found if run_ids is None else run_ids) if run_id in found]

    def follow(self, run_ids: Sequence[str]) -> Iterator[RunState]:
        """The states of these runs now, and again whenever they change, until all have ended or are paused."""
        return Follower(self._transport, self.states, run_ids).states()

    def result(self, run: str) -> RemoteResult:
        """The answer of a run that is done. Raises what ended it otherwise, and UserError for one that has not ended."""
        row = self.reader.row(run)
        return self._answer(state_of(row["state"] or row))

    def read(self, run: str) -> RemoteResult:
        """What is stored of a run, whether it is done or not."""
        return RemoteResult(self.reader, self.reader.find_run(run), self._predicted)

    def cancel(self, run: str) -> RunState:
        """Cancel a run after the batches under way; `resume` continues it."""
        return self.steer(run, "cancelled")

    def pause(self, run: str) -> RunState:
        """Pause a run after the batches under way."""
        return self.steer(run, "paused")

    def resume(self, run: str) -> RunState:
        """Continue a run that was paused, cancelled or interrupted, or that failed."""
        return self.steer(run, "running")

    def steer(self, run: str, desired: Desired) -> RunState:
        """As `cancel`, `pause` or `resume`, by the state that is wanted."""
        return state_of(self._transport.json("POST", path_of(run, _STEPS[desired])))

    # ---- what if

    def predict(self, run: str, removed: Names | None = None, *, kept: Names | None = None, query: int | None = None) -> Prediction:
        """The surrogate's value without the components `removed`, or with only those `kept`, with an interval; as `Result.predict`."""
        return self.predictions(run, [removed] if removed is not None else None, kept=[kept] if kept is not None else None, query=query)[0]

    def predictions(
        self, run: str, removed: Sequence[Names] | None = None, *, kept: Sequence[Names] | None = None, query: int | None = None, exact: bool = False
    ) -> list[Prediction]:
        """As `predict` for several sets, or as `measure` if `exact`."""
        asked: dict[str, Any] = {name: [list(each) for each in sets] for name, sets in (("removed", removed), ("kept", kept)) if sets is not None}
        if query is not None:
            asked["query"] = query
        path = path_of(run, "measure" if exact else "predict")
        return [_prediction(each) for each in self._until_done(path, asked)["predictions"]]

    def measure(self, run: str, removed: Names | None = None, *, kept: Names | None = None, query: int | None = None) -> Prediction:
        """As `predict`, with the value `measured` by the run's model, which the service stores."""
        return self.predictions(run, [removed] if removed is not None else None, kept=[kept] if kept is not None else None, query=query, exact=True)[0]

    def flip(self, run: str, threshold: float | None = None, most: int | None = None, *, verify: bool = True) -> dict[str, Any]:
        """The smallest set of at most `most` components whose removal carries the value across `threshold`, as `POST /runs/{run}/flip` tells it."""
        asked = {name: value for name, value in (("threshold", threshold), ("most", most)) if value is not None}
        return self._until_done(path_of(run, "flip"), {**asked, "verify": verify})

    # ---- the store and the service

    def sql(self, query: str, *, limit: int | None = None, timeout: float = SQL_SECONDS) -> Table:
        """The answer to one SELECT-like statement about the service's store. UserError if there are more than `MOST_ROWS` rows, unless a `limit` says how many are wanted."""
        found = self.ask(query, Limits(timeout, limit))
        if found.truncated and limit is None:
            raise UserError("sql", None, f"has more than {MOST_ROWS:,} rows", "give a limit, or select less")
        return found.table

    def ask(self, query: str, limits: Limits) -> Answer:
        """The answer to one statement within limits, of which the service has its own as well."""
        asked = {"query": query, "format": "arrow", "limit": limits.rows or MOST_ROWS, "timeout": limits.seconds}
        response = self._transport.ask("POST", "/sql", body=asked, seconds=limits.seconds + MEASURED_SECONDS)
        return Answer(self._transport.arrow(response), response.headers.get("x-truncated") == "true")

    def status(self) -> dict[str, Any]:
        """What the service does, and with what: its version, stores, evaluators, runs by status, queue, evaluations per second and links."""
        return self._transport.json("GET", "/service")

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ---- internal

    def _answer(self, state: RunState) -> RemoteResult:
        check_answered(state)
        return RemoteResult(self.reader, state.run_id, self._predicted)

    def _predicted(self, run_id: str, removed: Names | None, kept: Names | None) -> Prediction:
        if (removed is None) == (kept is None):
            raise ValueError("give either removed or kept")
        return self.predict(run_id, removed, kept=kept)

    def _until_done(self, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request that may have to be made again while the service measures."""
        while True:
            response = self._transport.ask("POST", path, body=asked, seconds=MEASURED_SECONDS)
            if response.status_code != ACCEPTED:
                return response.json()
            time.sleep(float(response.headers.get("retry-after", 1)))


def _prediction(row: Mapping[str, Any]) -> Prediction:
    known: dict[str, Any] = {name: tuple(row[name]) if name in _TUPLES else row[name] for name in Prediction.__dataclass_fields__}
    return Prediction(**known)
