"""What routes answer, for the OpenAPI document. The answers themselves are plain data; tests check them against these."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class ProgressOf(_Answer):
    """The progress of a run: evaluations done of all that it will ask for, per second, and the seconds that are left."""

    phase: str
    done: int
    total: int
    reused: int
    rate: float
    r2: float | None
    left: float | None
    detail: str
    warnings: list[str]


class State(_Answer):
    """Where a run stands; `version` grows with every change."""

    run_id: str
    name: str | None
    status: str
    desired: str
    priority: int
    position: int | None
    progress: ProgressOf | None
    error: str | None
    verdict: str | None
    version: int


class Labelled(State):
    """A run of a set, with what tells it apart."""

    label: str


class Submitted(_Answer):
    """The runs of a question, one for each of its examples."""

    runs: list[Labelled]


class Row(_Answer):
    """A row of the view `run_summary`, with where the run stands."""

    run_id: str
    name: str | None
    status: str
    lens: str
    explorer: str
    model: str | None
    n: int | None
    r2: float | None
    r2_singles: float | None
    verdict: str | None
    evaluations: int | None
    started: str | None = Field(description="UTC, ISO 8601.")
    finished: str | None
    desired: str | None
    priority: int | None
    position: int | None
    progress: ProgressOf | None


class Listed(_Answer):
    """A page of the runs."""

    runs: list[Row]
    total: int
    next: int | None


class Run(_Answer):
    """A run's row with its question, the reasons of its verdict, its game, what each phase cost, and where it stands."""

    run_id: str
    status: str
    lens: str
    spec: dict[str, Any]
    game: dict[str, Any] | None = None
    reasons: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    costs: list[dict[str, Any]]
    state: State | None


class Predicted(_Answer):
    """The surrogate's value without the components `removed`, its interval, and the measured value if there is one."""

    run_id: str
    value_intact: float | None
    value_empty: float | None
    removed: list[int] = Field(default_factory=list[int])
    labels: list[str] = Field(default_factory=list[str])
    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    coverage: float | None = Field(
        default=None, description="The probability that the interval contains the value of a set like those that it was computed from."
    )
    compared: int = Field(default=0, description="The number of measured sets from which the interval was computed.")
    extrapolated: bool = Field(default=False, description="Whether those are all larger, or all smaller.")
    measured: float | None = None
    predictions: list[dict[str, Any]] | None = Field(default=None, description="The same for each set, where several were asked about.")


class Flipped(_Answer):
    """The smallest set that changes the answer, and the candidates that were tried before it."""

    run_id: str
    status: Literal["flipped", "predicted", "not found", "measuring"]
    threshold: float
    value_intact: float
    most: int
    best: dict[str, Any] | None
    tried: list[dict[str, Any]]


class Column(_Answer):
    """A column and its type."""

    name: str
    type: str


class SqlAnswer(_Answer):
    """The answer to a query. `note` says which snapshot was read."""

    columns: list[Column]
    rows: list[list[Any]]
    truncated: bool
    note: str | None


class Table(_Answer):
    """A table or view."""

    name: str
    columns: list[Column]


class Schema(_Answer):
    """The tables and views of the store."""

    tables: list[Table]


class Checked(_Answer):
    """A question with every default filled in, also as YAML, and the number of its runs."""

    spec: dict[str, Any]
    runs: int
    yaml: str


class Planned(_Answer):
    """Sizes and costs of the first run of a question, and the same in sentences."""

    components: int
    seconds_per_evaluation: float
    this_run: dict[str, Any]
    exhaustive: dict[str, Any]
    notes: list[str]
    warnings: list[str]
    runs: int
    text: str


class Piece(_Answer):
    """A component of a prompt, and where in it it stands."""

    index: int
    label: str
    start: int | None
    stop: int | None


class Choice(_Answer):
    """What the model may say next, and how probable it finds that."""

    text: str
    probability: float


class Previewed(_Answer):
    """A prompt in pieces, and what the model would say next."""

    source: str
    input: str
    components: list[Piece]
    answers: list[Choice]
    model: str
    notes: list[str]


class Health(_Answer):
    """Whether the service is there."""

    status: str


class Evaluator(_Answer):
    """An evaluator: what it is doing, on which node, and the models that it holds."""

    name: str
    state: str
    node: str
    resident: list[str]


class ServiceOf(_Answer):
    """What the service does, and with what. Everything from `evaluators` on is missing until the scheduler has answered once."""

    version: str
    store: str
    answers: bool
    evaluations_per_second: float
    links: dict[str, str | None]
    evaluators: list[Evaluator] | None = None
    runs: dict[str, int] | None = None
    queue: list[str] | None = None


class Difference(_Answer):
    """A field in which specs differ, with its value in each."""

    field: str
    values: list[Any]


class Aligned(_Answer):
    """Components by label, and their single effect in each run, null where it has none."""

    labels: list[str]
    reading: Literal["average", "intact"] | None = Field(
        description="Whether the effects are on average over contexts or at the intact input; null if the runs do not share a reading, and each has its own."
    )
    effects: list[list[float | None]]


class AlignedSet(_Answer):
    """An interaction by the labels of its members, and what each run found of it; `possible` says whether the run has these components."""

    labels: list[str]
    values: list[float | None]
    ranks: list[int | None]
    kinds: list[str | None]
    possible: list[bool]


class SideBySide(_Answer):
    """Runs side by side. Lists with an entry for each run are in the order of `runs`; effects on a cost are negated, as `negated` says."""

    runs: list[dict[str, Any]] = Field(description="Verdict, R² and R² of single effects alone, among others.")
    differences: list[Difference]
    negated: list[bool]
    pairs: list[dict[str, Any]] = Field(
        description="For each pair: `singles_rank_correlation` (Spearman), its `reading`, `shared_components`, `top_interactions_shared`."
    )
    same_components: bool
    components: Aligned
    interactions: list[AlignedSet]
