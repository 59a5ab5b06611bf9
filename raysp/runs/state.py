"""Runs as persisted state machines: what was submitted, the states of a run, and the moves between them that are allowed.

The row of a run exists from its submission on. Its column `desired` is what people ask for, `status` is what is; a service works until they agree, and a
service that starts again finds in the rows everything that it has to continue. A run in the calling process (`--local`) has no desired state.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, cast, get_args

from raysp.datasets.content import Content, portable
from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.runs.continuation import check_same_question
from raysp.runs.progress import Progress, progress_from, progress_json
from raysp.specs.run import RunSpec, run_spec
from raysp.store import Store
from raysp.store.games import match_run
from raysp.store.reading import StoreReader

Status = Literal["queued", "running", "paused", "cancelled", "interrupted", "failed", "done"]
Desired = Literal["running", "paused", "cancelled"]

#: The states that each state may change to. A run that has ended can be asked for again: what is stored is not measured again.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    "queued": frozenset({"running", "paused", "cancelled", "interrupted", "failed"}),
    "running": frozenset({"queued", "paused", "cancelled", "interrupted", "failed", "done"}),  # queued: it lost its process
    "paused": frozenset({"queued", "cancelled", "interrupted"}),
    "cancelled": frozenset({"queued"}),
    "interrupted": frozenset({"queued"}),
    "failed": frozenset({"queued"}),
    "done": frozenset({"queued"}),
}
#: States that a service has still something to do about.
UNFINISHED: frozenset[Status] = frozenset({"queued", "running", "paused"})
ENDED: frozenset[Status] = frozenset(get_args(Status)) - UNFINISHED
#: 9 is served first; a run's share of the cluster doubles with each step.
LEAST_PRIORITY, DEFAULT_PRIORITY, MOST_PRIORITY = 0, 5, 9


@dataclass(frozen=True)
class RunRequest:
    """A run that somebody asks for, and the content of the files that its spec refers to. Raises UserError for a priority that is not 0 to 9."""

    spec: RunSpec
    run_id: str
    set_name: str | None = None
    priority: int = DEFAULT_PRIORITY
    content: Content = field(default_factory=dict[str, bytes], repr=False)

    def with_content(self) -> Self:
        """The same request, with the files that its spec names read here and now. UserError as `portable`."""
        spec, content = portable(self.spec)
        return replace(self, spec=spec, content={**self.content, **content})

    def without_content(self) -> Self:
        """The same request, once its content is stored."""
        return replace(self, content={})

    def __post_init__(self) -> None:
        if not LEAST_PRIORITY <= self.priority <= MOST_PRIORITY:
            raise UserError("priority", self.priority, "is out of range", f"give {LEAST_PRIORITY} to {MOST_PRIORITY}; {MOST_PRIORITY} is served first")


@dataclass(frozen=True)
class RunState:
    """Where a run stands. `position` is its place in the queue, from 1; `version` grows with every change that followers should see."""

    run_id: str
    name: str | None
    status: Status
    desired: Desired
    priority: int = DEFAULT_PRIORITY
    position: int | None = None
    progress: Progress | None = None
    error: str | None = None
    verdict: str | None = None
    version: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to the run unless somebody asks for it again."""
        return self.status in ENDED

    @property
    def shown(self) -> Progress:
        """The progress, with the status as its phase and the place in the queue unless the run is executed."""
        progress = self.progress or Progress(self.run_id)
        if self.status == "running":
            return progress
        place = "" if self.position is None else f", {self.position} in line"
        return replace(progress, phase=f"{self.status}{place}", rate=0.0, left=None)


@dataclass(frozen=True)
class SubmittedRun:
    """A run that was submitted: its id, what tells it apart from those submitted with it, and where it stood then."""

    run_id: str
    label: str
    state: RunState


@dataclass(frozen=True)
class EvaluatorState:
    """One evaluator of a service: what it is doing (starting, idle, busy, lost), on which node, and the models that it holds in memory."""

    name: str
    state: str
    node: str = ""
    resident: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServiceStatus:
    """A service at one moment: its version, the stores it writes, its evaluators, the number of runs in each state, and the ids of queued runs in order."""

    version: str
    stores: tuple[str, ...] = ()
    evaluators: tuple[EvaluatorState, ...] = ()
    runs: Mapping[str, int] = field(default_factory=dict[str, int])
    queue: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that a service has to continue. `request` is None if its question cannot be read back from the store, as a Python function cannot."""

    state: RunState
    request: RunRequest | None


def submit(store: Store, requests: Sequence[RunRequest]) -> None:
    """Write the rows of these runs as queued, all or none, after the content that they refer to. A run that is under way is left as it is; one that has ended is queued again.

    Raises UserError, and changes nothing, if a run with evaluations was started with another question.
    """
    for request in requests:
        if store.has_requests(request.run_id):
            check_same_question(store.run_row(request.run_id), request.spec)
    store.add_blobs({digest: data for request in requests for digest, data in request.content.items()}.values())
    store.submit_runs([_row(request) for request in requests])


def advance(store: Store, run_id: str, status: Status, *, error: str | None = None, progress: Progress | None = None) -> RunState:
    """Change a run's status and return its new state. ValueError if `TRANSITIONS` has no such move; the same status again changes nothing but the error."""
    allowed = {before for before, after in TRANSITIONS.items() if status in after} | {status}
    before = store.set_state(run_id, status, allowed, error=error, progress=None if progress is None else progress_json(progress))
    if before not in allowed:
        raise ValueError(f"run {run_id} is {before} and cannot become {status}")
    return state(store, run_id)


def steer(store: Store, run_id: str, desired: Desired) -> RunState:
    """Record what is wanted of a run, and return its state. UserError if the run has ended and is to be paused or cancelled."""
    found = state(store, run_id)
    if found.ended and desired != "running":
        raise UserError("run", run_id, f"is {found.status} and cannot be {desired}", f"`raysp resume {run_id}` starts it again")
    store.set_desired(run_id, desired)
    return state(store, run_id)


def state(store: StoreReader, run_id: str) -> RunState:
    """The state of one run. ValueError if there is no such run."""
    found = states(store, [run_id])
    if not found:
        raise ValueError(f"no run {run_id}")
    return found[0]


def states(store: StoreReader, run_ids: Collection[str] | None = None) -> list[RunState]:
    """The states of these runs, or of all, in the order in which they were submitted. Queued runs have their position."""
    return [_state(row) for row in store.run_states(run_ids)]


def find_runs(known: Sequence[RunState], wanted: str) -> list[str]:
    """The ids of the runs, in the order of submission, that `wanted` refers to: one by its id, the beginning of it, its name, or last; or all that were submitted together.

    Runs that were submitted together have ids that differ in the number at their end; what comes before it stands for all of them. Raises UserError otherwise.
    """
    together = [state.run_id for state in known if re.fullmatch(re.escape(wanted) + r"-\d+", state.run_id)]
    if together or not known:
        return together
    newest = [(state.run_id, state.name) for state in reversed(known)]
    return [newest[0][0] if wanted == "last" else match_run(wanted, newest)]


def common_word(run_ids: Sequence[str]) -> str:
    """The word that stands for runs that were submitted together."""
    return run_ids[0] if len(run_ids) == 1 else run_ids[0].rpartition("-")[0]


def check_answered(state: RunState) -> None:
    """Raise what ended a run without an answer; UserError for one that has not ended."""
    if state.status in ("cancelled", "paused", "interrupted"):
        raise InterruptedRunError.of(state.run_id, state.status)
    if state.status == "failed":
        raise EvaluationError(state.error or "the run failed")
    if state.status != "done":
        raise UserError("run", state.run_id, f"is {state.status}, and has no answer yet", f"wait for it with `raysp watch {state.run_id}`")


def goes_on(run_ids: Sequence[str]) -> InterruptedRunError:
    """What to tell somebody who stops following runs that a service executes."""
    return InterruptedRunError(f"{'the run goes' if len(run_ids) == 1 else 'the runs go'} on; `raysp watch {common_word(run_ids)}` follows again")


def unfinished(store: StoreReader) -> list[UnfinishedRun]:
    """The runs submitted to a service that have not ended, in the order in which they were submitted."""
    return [UnfinishedRun(_state(row), _request(row)) for row in store.unfinished_runs()]


def _row(request: RunRequest) -> dict[str, Any]:
    """The columns of a submitted run that are known before its game is."""
    spec = request.spec
    model = getattr(spec.lens, "model", None)
    return {
        "run_id": request.run_id, "name": spec.name, "set_name": request.set_name, "lens": spec.lens.kind, "explorer": spec.explorer.kind,
        "model": None if model is None else str(model), "seed": spec.seed, "spec": spec_json(spec), "priority": request.priority,
    }  # fmt: skip


def spec_json(spec: RunSpec) -> str:
    """A spec as the store keeps it. A Python function is not part of it."""
    return json.dumps(spec.model_dump(mode="json", exclude_none=True))


def _state(row: Mapping[str, Any]) -> RunState:
    return RunState(
        run_id=row["run_id"],
        name=row["name"],
        status=row["status"],
        desired=cast("Desired", row["desired"] or "running"),
        priority=DEFAULT_PRIORITY if row["priority"] is None else row["priority"],
        position=row["position"],
        progress=progress_from(row["progress"]) if row["progress"] else None,
        error=row["error"],
        verdict=row["verdict"],
    )


def _request(row: Mapping[str, Any]) -> RunRequest | None:
    try:
        return RunRequest(run_spec(json.loads(row["spec"])), row["run_id"], row["set_name"], _state(row).priority)
    except UserError:  # a function, or an option that this version no longer has
        return None
