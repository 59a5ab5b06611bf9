"""Options of the lenses, validated: written in a spec file, as flags or in Python. No model is loaded here; `raysp.lenses.build_game` does that."""

import datetime as dt
import itertools
import json
import math
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast, get_args

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from raysp.errors import UserError
from raysp.specs.base import Spec
from raysp.specs.limits import MOST_COUNT, MOST_FLOAT, MOST_SEED
from raysp.specs.validation import Validation

Unit = Literal["token", "word", "sentence", "paragraph", "line", "delimiter", "spans"]
FeatureAblation = Literal["remove", "mask", "replace", "attention", "zero", "mean"]
FeatureValue = Literal["logit", "logit_diff", "logprob", "logprob_mean", "logprob_diff", "loss", "class_logit"]
MechanisticAblation = Literal["zero", "zero-rescale", "mean", "resample", "patch", "clamp"]
MechanisticValue = Literal["logit", "logit_diff", "logprob", "logprob_mean", "logprob_diff", "loss", "kl", "accuracy", "class_logit"]
DataValue = Literal["logprob", "logprob_mean", "prob", "loss", "margin", "class_margin"]
Task = Literal["ioi", "facts", "greater-than", "induction"]
ComputedDtype = Literal["float32", "bfloat16", "float16"]
Dtype = Literal["auto", ComputedDtype]
CostClass = Literal["forward", "training"]
Action = Literal["lds", "prune", "select"]
#: The environment variable that sets what dtype `auto` chooses.
AUTO_DTYPE = "RAYSP_AUTO_DTYPE"
#: Values for which lower is better.
COSTS = ("loss", "kl")


def forced_dtype() -> ComputedDtype | None:
    """The dtype that RAYSP_AUTO_DTYPE puts in place of `auto`; None if it is not set. UserError for a value that is not a dtype."""
    named = os.environ.get(AUTO_DTYPE)
    if not named:
        return None
    known = get_args(ComputedDtype)
    if named not in known:
        raise UserError(AUTO_DTYPE, named, "is not a dtype", f"set it to one of {', '.join(known)}, or unset it")
    return cast("ComputedDtype", named)


class LensSpec(Spec):
    """What every lens states about itself, so that nothing else needs to know which lens it is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: What one evaluation costs: forward passes of a model, or its training.
    cost_class: ClassVar[CostClass] = "forward"
    #: Evaluations for each component up to which a fit gains more from the priors of a gradient report than these cost.
    priors_up_to: ClassVar[float] = 0.0
    #: P(keep) of the masks of explorers that choose theirs, unless the spec gives one; None leaves it to the explorer.
    default_keep: ClassVar[Literal["auto"] | None] = None
    #: The focus of an explorer that can choose one: values of trainings are noisy, and no single one says much.
    default_focus: ClassVar[Literal["average"] | None] = None
    #: Evaluations spent on checking the answer, unless the spec gives them.
    default_validation: ClassVar[Validation] = Validation()
    #: Whether evaluations run in PyTorch, on a number of threads that can be set.
    uses_torch: ClassVar[bool] = True
    #: Fields that `repeat_on` may vary.
    varies: ClassVar[frozenset[str]] = frozenset()
    #: Whether the rows of a data set of `examples` make one run each.
    takes_examples: ClassVar[bool] = False
    #: Actions that a finished run can be used for.
    actions: ClassVar[frozenset[Action]] = frozenset()

    @property
    def key(self) -> str:
        """A text that two lenses share if and only if they ask the same question."""
        return self.model_dump_json()

    @property
    def own_code(self) -> Callable[..., Any] | None:
        """A function of the user's that evaluations call."""
        return None

    @property
    def loads(self) -> "ModelOptions | None":
        """The model that evaluations load; None if they need none."""
        return None

    @property
    def takes_date(self) -> bool:
        """Whether a chat template may be used, and no date is given for it to state."""
        return False

    @property
    def files(self) -> Mapping[str, str]:
        """The fields that name a file (by its path, or by a reference to its content) and what they name."""
        return {}

    @property
    def data_sets(self) -> Mapping[str, str]:
        """The fields that name a data set (a file, a saved folder, or a name on the hub or of a corpus) and what they name."""
        return {}


class ModelOptions(LensSpec):
    """Which model, and how it is loaded."""

    model: str = Field(
        default="smollm2-135m-instruct",
        description="Name of the embedded model, id of a model on the hub, or a local folder (of a model or of a PEFT adapter).",
    )
    model_hash: str | None = Field(
        default=None, description="SHA-256 of the local model folder that is meant, so that no other is used in its place; filled in for runs on a cluster."
    )
    dtype: Dtype = Field(
        default="auto",
        description=f"auto: bfloat16 where the device computes in it and its rounding is small beside the effects, float32 otherwise; {AUTO_DTYPE} sets it.",
    )
    device: str = Field(default="auto", description="Where the model runs: auto, cpu, cuda, cuda:N or mps.")
    allow_pickle: bool = Field(default=False, description="Load pickled weights, which can run code.")
    allow_remote_code: bool = Field(default=False, description="Run code from the model's repository.")

    @property
    def loads(self) -> "ModelOptions":
        """As `LensSpec.loads`."""
        return self


def _day(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return dt.date.fromisoformat(given.strip())
    except ValueError:
        raise UserError("date", given, "is not a date", "write year, month and day, such as 2026-11-28") from None


class ChatOptions(ModelOptions):
    """Whether prompts go through the model's chat template, and which date it states."""

    chat: bool = Field(default=False, description="Send each prompt as a user message through the model's chat template.")
    date: Annotated[dt.date | None, BeforeValidator(_day)] = Field(
        default=None, description="Date for chat templates that state one (Llama 3, Granite), such as 2026-11-28; by default the day on which the run is asked."
    )

    @property
    def takes_date(self) -> bool:
        """As `LensSpec.takes_date`."""
        return self.chat and self.date is None


class FeatureLens(ChatOptions):
    """The parts of a prompt: which of them, alone and together, made the model prefer its answer."""

    varies = frozenset({"model", "prompt"})
    takes_examples = True
    priors_up_to = 3.0

    kind: Literal["feature"] = "feature"
    prompt: str = Field(default="", description="Text whose parts are ablated.")
    template: str = Field(default="{prompt}", description="Fixed text around the prompt, with places for {prompt} and {question}. Never ablated.")
    question: str | None = Field(
        default=None, description="Question about the prompt; without {question} in the template it follows the prompt on a line of its own."
    )
    chat: bool = Field(default=False, description="Send the filled template as a user message through the model's chat template.")
    target: str | None = Field(default=None, description="Answer that the value scores; by default the model's own greedy answer.")
    foil: str | None = Field(default=None, description="Answer that the target is compared with.")
    max_new_tokens: int = Field(default=8, ge=1, le=256, description="Maximum length in tokens of the greedy answer if no target is given.")
    unit: Unit = Field(default="word", description="What makes one component of the prompt.")
    whole_characters: bool = Field(
        default=False, description="With unit token: merge tokens that share a character, such as the bytes of an emoji, into one component."
    )
    delimiter: str | None = Field(default=None, description="With unit delimiter: text that separates components.")
    spans: str | None = Field(default=None, description="With unit spans: a JSON list of [start, stop] character ranges, or a file that contains one.")
    ablation: FeatureAblation = Field(default="remove", description="How a component is removed from the prompt.")
    replacement: str | None = Field(default=None, description="With ablation replace: text put in place of a component.")
    value: FeatureValue | None = Field(default=None, description="Scalar computed from the answers; by default what suits the target and the foil.")

    @property
    def files(self) -> Mapping[str, str]:
        """As `LensSpec.files`."""
        return {} if self.spans is None or is_list(self.spans) else {"spans": self.spans}


class MechanisticLens(ChatOptions):
    """The parts of a model: which heads, MLPs and neurons, alone and together, produce its answer to one prompt or its performance on a task."""

    # Few models work without half of their parts; such masks would tell nothing about the intact model.
    default_keep = "auto"
    varies = frozenset({"model", "prompt"})
    actions = frozenset({"prune"})

    kind: Literal["mechanistic"] = "mechanistic"
    prompt: str = Field(default="", description="Prompt whose answer is explained.")
    prompts: str | None = Field(
        default=None,
        description="Data set of prompts to explain instead (JSONL, JSON, CSV, Parquet or a hub name, with columns prompt, target, foil, counterfactual). "
        "The value is the mean over prompts.",
    )
    task: Task | None = Field(default=None, description="Generated prompts to explain instead: indirect objects, facts, greater-than or induction.")
    task_size: int = Field(default=64, ge=2, le=MOST_COUNT, description="Number of prompts of the task.")
    task_seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the task's prompts.")
    template: str = Field(default="{prompt}", description="Fixed text around each prompt, with a place for {prompt}.")
    target: str | None = Field(default=None, description="Answer that the value scores; by default the model's own greedy answer.")
    foil: str | None = Field(default=None, description="Answer that the target is compared with.")
    max_new_tokens: int = Field(default=1, ge=1, le=256, description="Maximum length in tokens of the greedy answer if no target is given.")
    components: str = Field(
        default="heads", description="Parts to ablate: heads, mlp, blocks or neurons, each with layers and units if wanted, such as heads:10-17,mlp:all."
    )
    layers: str | None = Field(default=None, description="Restrict components to these layers, such as 14-16 or 0,5,10-12.")
    group: int = Field(default=1, ge=1, le=MOST_COUNT, description="Number of neurons in one component.")
    ablation: MechanisticAblation = Field(default="zero", description="What replaces the output of a component.")
    clamp: float | None = Field(default=None, ge=-MOST_FLOAT, le=MOST_FLOAT, description="With ablation clamp: the constant that activations are set to.")
    references: str | None = Field(
        default=None,
        description="With ablations mean and resample: data set of prompts, or text file with one prompt a line, whose activations are used; "
        "by default the prompts themselves.",
    )
    counterfactual: str | None = Field(default=None, description="With ablation patch: prompt of equally many tokens whose activations are patched in.")
    positions: str = Field(default="all", description="Token positions at which components are ablated: all, last (of the prompt), or numbers such as 0,3,-1.")
    value: MechanisticValue | None = Field(default=None, description="Scalar computed from the answers; by default what suits the target and the foil.")

    @property
    def files(self) -> Mapping[str, str]:
        """As `LensSpec.files`."""
        return {} if self.references is None else {"references": self.references}

    @property
    def data_sets(self) -> Mapping[str, str]:
        """As `LensSpec.data_sets`."""
        return {} if self.prompts is None else {"prompts": self.prompts}


class DataLens(ChatOptions):
    """The examples of a training set: which of them, alone and together, made a model trained on them answer queries as it does.

    The evaluation of a mask trains a LoRA adapter on the examples that the mask keeps; each training scores every query, and the value is the mean score.
    """

    cost_class = "training"
    priors_up_to = math.inf
    default_focus = "average"
    default_validation = Validation(heldout=60, near=0, top=5, random=5, low_pairs=5)
    actions = frozenset({"lds", "select"})

    kind: Literal["data"] = "data"
    train: str = Field(
        default="",
        description="Training set: a JSONL, JSON, CSV or Parquet file (also .gz, .bz2, .xz), a saved folder, a hub name (hf:NAME, hf:NAME:SPLIT or "
        "hf:NAME:CONFIG:SPLIT), corpus:chatterbot or corpus:reviews.",
    )
    queries: str | None = Field(
        default=None, description="Data set of queries, as for train; by default examples are drawn from the training set and held out."
    )
    query_count: int | None = Field(
        default=None, ge=1, le=MOST_COUNT, description="Maximum number of queries; by default all that are given, or 8 if they are drawn."
    )
    columns: str | None = Field(
        default=None,
        description="Columns by role, such as prompt=question,completion=answer. Roles: prompt, context, system, completion, messages, tools, text, label, foil.",
    )
    limit: int | None = Field(default=None, ge=2, le=MOST_COUNT, description="Maximum number of training examples, drawn at random.")
    template: str = Field(
        default="{prompt}",
        description="Text around each prompt, with a place for {prompt}. A space separates prompt and completion if neither has white space there.",
    )
    max_tokens: int = Field(
        default=256, ge=2, le=MOST_COUNT, description="Maximum length of an example in tokens; longer prompts lose their beginning, which a note reports."
    )
    components: int | None = Field(default=None, ge=2, le=MOST_COUNT, description="Number of components; if there are more examples, they are clustered.")
    group_by: str | None = Field(default=None, description="What defines a component: the name of a column, cluster, or duplicates (near-duplicate texts).")
    rank: int = Field(default=8, ge=1, le=MOST_COUNT, description="Rank of the adapters.")
    alpha: float = Field(default=16.0, gt=0, le=MOST_FLOAT, description="Scale of the adapters, alpha / rank as in PEFT.")
    target_modules: str = Field(default="q_proj,v_proj", description="Names of the linear layers that get an adapter.")
    adapted_layers: str = Field(default="last:4", description="Layers that get an adapter: last:K, all, or numbers such as 24-27,29.")
    learning_rate: float = Field(default=1e-3, gt=0, le=MOST_FLOAT, description="Learning rate of AdamW.")
    weight_decay: float = Field(default=0.0, ge=0, le=MOST_FLOAT, description="Weight decay of AdamW.")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="constant", description="Schedule of the learning rate after the warm-up.")
    warmup: float = Field(default=0.0, ge=0, lt=1, description="Fraction of the steps during which the learning rate rises linearly.")
    epochs: int = Field(default=3, ge=1, le=MOST_COUNT, description="Passes over the training subset.")
    batch_size: int = Field(default=8, ge=1, le=MOST_COUNT, description="Examples in one optimiser step.")
    training_seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the adapter initialisation and of the batch order.")
    seeds: int = Field(
        default=1, ge=1, le=MOST_COUNT, description="Number of trainings of each subset, with consecutive seeds from training_seed; the value is their mean."
    )
    seeding: Literal["shared", "own"] = Field(
        default="shared",
        description="shared: all subsets use the same seeds, so that values differ only by what was trained on; own: each subset has seeds of its own, "
        "so that the answer holds for training runs in general.",
    )
    value: DataValue | None = Field(default=None, description="Score of a query; by default what suits its foil and labels.")

    @property
    def takes_date(self) -> bool:
        """As `LensSpec.takes_date`; examples may be conversations."""
        return self.date is None

    @property
    def data_sets(self) -> Mapping[str, str]:
        """As `LensSpec.data_sets`."""
        return {name: source for name, source in (("train", self.train), ("queries", self.queries)) if source}


class FunctionLens(LensSpec):
    """Any Python callable from masks (bool, `(m, n)`) to values (`(m,)`).

    With a `name`, evaluations are stored under it and reused by later runs; change the name whenever the function changes.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    uses_torch = False

    kind: Literal["function"] = "function"
    function: Annotated[Callable[..., Any], Field(exclude=True)]
    n: int = Field(ge=1, le=MOST_COUNT, description="Number of components.")
    labels: tuple[str, ...] | None = Field(default=None, description="One label for each component.")
    name: str | None = Field(default=None, description="Name under which evaluations are shared between runs.")
    batch_masks: int = Field(default=4096, ge=1, le=MOST_COUNT, description="Maximum number of masks in one call of the function.")
    anonymous: str = Field(default_factory=lambda: uuid.uuid4().hex, repr=False, exclude=True)

    def __init__(self, function: Callable[..., Any] | None = None, /, **options: Any) -> None:
        """Take the function as the first argument or by keyword."""
        super().__init__(**{"function": function, **options})

    @property
    def key(self) -> str:
        """A text that only this object and its copies have, because another function may have the same options."""
        return self.anonymous

    @property
    def own_code(self) -> Callable[..., Any]:
        """The function."""
        return self.function

    @model_validator(mode="after")
    def _check(self) -> "FunctionLens":
        if self.labels is not None and len(self.labels) != self.n:
            raise UserError("labels", len(self.labels), f"labels are given for {self.n} components", "give one label for each component")
        return self


Lens = TypeVar("Lens", bound=LensSpec)


def with_dtype(lens: Lens, dtype: str) -> Lens:
    """The lens with its model in this dtype; a lens without a model is returned unchanged."""
    return lens.model_copy(update={"dtype": dtype}) if lens.loads is not None else lens


def with_model(lens: Lens, name: str) -> Lens:
    """The lens with another model, whatever the hash of the one before was."""
    return lens.model_copy(update={"model": name, "model_hash": None})


def is_list(spans: str) -> bool:
    """Whether spans are written as a JSON list, not named by a file."""
    return spans.lstrip().startswith("[")


def parse_spans(text: str) -> list[tuple[int, int]]:
    """Character spans from a JSON list. UserError unless they are in order and do not overlap."""
    try:
        spans = [(int(start), int(stop)) for start, stop in json.loads(text)]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError("spans", text, f"is not a JSON list of [start, stop] pairs ({error})", "write for example [[0, 5], [6, 12]]") from None
    for before, after in itertools.pairwise(spans):
        if after[0] < before[1]:
            raise UserError("spans", [before, after], "overlap or are out of order", "give ascending spans that do not overlap")
    return spans
