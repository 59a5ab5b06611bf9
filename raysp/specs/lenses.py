"""What a lens is told: validated options, written in a spec file, as flags or in Python.

No model is touched here; `build()` imports what it needs when it is called.
"""

import itertools
import json
import os
import uuid
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raysp.errors import UserError
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
#: Values of which less is better.
COSTS = ("loss", "kl")
#: Largest training seed: what all generators take, with room for the seeds that follow it.
MOST_SEED = 2**31 - 1


def forced_dtype() -> ComputedDtype | None:
    """What RAYSP_AUTO_DTYPE makes of dtype `auto`; None where it is not set. UserError for a value that is not a dtype."""
    named = os.environ.get(AUTO_DTYPE)
    if not named:
        return None
    known = get_args(ComputedDtype)
    if named not in known:
        raise UserError(AUTO_DTYPE, named, "is not a dtype", f"set it to one of {', '.join(known)}, or unset it")
    return cast("ComputedDtype", named)


class LensSpec(BaseModel):
    """What every lens states about itself, so that nothing else needs to know which lens it is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: What one evaluation costs: forward passes of a model, or its training.
    cost_class: ClassVar[CostClass] = "forward"
    #: P(keep) of the masks of explorers that choose theirs, unless the spec gives one; None leaves it to the explorer.
    default_keep: ClassVar[Literal["auto"] | None] = None
    #: How much is spent on checking, unless the spec says otherwise.
    default_validation: ClassVar[Validation] = Validation()
    #: Whether PyTorch does the work, on a number of threads that can be set.
    uses_torch: ClassVar[bool] = True
    #: Fields that `repeat_on` may vary.
    varies: ClassVar[frozenset[str]] = frozenset()
    #: Whether the rows of a data set of `examples` make one run each.
    takes_examples: ClassVar[bool] = False
    #: What can be done with a finished run.
    actions: ClassVar[frozenset[Action]] = frozenset()

    @property
    def key(self) -> str:
        """A text that two lenses share if and only if they ask the same."""
        return self.model_dump_json()

    @property
    def own_code(self) -> Callable[..., Any] | None:
        """A function of the user's that evaluations call."""
        return None


class ModelOptions(LensSpec):
    """Which model, and how it is held in memory."""

    model: str = Field(default="smollm2-135m-instruct", description="The embedded model's name, a hub id, or a local folder.")
    dtype: Dtype = Field(
        default="auto",
        description=f"auto: bfloat16 where the device computes in it and its rounding is small beside the effects, float32 otherwise; {AUTO_DTYPE} sets it.",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps.")
    allow_pickle: bool = Field(default=False, description="Load pickled weights (they can run code).")
    allow_remote_code: bool = Field(default=False, description="Run the model repository's own code.")


class FeatureLens(ModelOptions):
    """Parts of a prompt: which of them, alone and together, made the model prefer its answer."""

    varies = frozenset({"model", "prompt"})
    takes_examples = True

    kind: Literal["feature"] = "feature"
    prompt: str = Field(default="", description="The text whose parts are ablated.")
    template: str = Field(default="{prompt}", description="Fixed text around it; {prompt} and {question} are filled in. Never ablated.")
    question: str | None = Field(
        default=None, description="A question asked after the prompt; without {question} in the template it follows on a line of its own."
    )
    chat: bool = Field(default=False, description="Put the whole into the model's chat template as a user's message.")
    target: str | None = Field(default=None, description="The answer the value is about; without one, the model's own greedy answer.")
    foil: str | None = Field(default=None, description="The answer it is compared with.")
    max_new_tokens: int = Field(default=8, ge=1, le=256, description="Length of the greedy answer when no target is given.")
    unit: Unit = Field(default="word", description="What a component is.")
    whole_characters: bool = Field(default=False, description="Make tokens that share a character, such as the bytes of an emoji, one component (unit token).")
    delimiter: str | None = Field(default=None, description="Separator of the components (unit delimiter).")
    spans: str | None = Field(default=None, description="JSON list of [start, stop] character spans, or a file of one (unit spans).")
    ablation: FeatureAblation = Field(default="remove", description="How a component is left out.")
    replacement: str | None = Field(default=None, description="Text put in place of a component (ablation replace).")
    value: FeatureValue | None = Field(default=None, description="The scalar; without one, what fits the target and the foil.")


class MechanisticLens(ModelOptions):
    """Parts of a model: which heads, MLPs and neurons, alone and together, made it say so, for one prompt or for a task."""

    # Few models survive the loss of half of their parts; such masks would say nothing about the intact model.
    default_keep = "auto"
    varies = frozenset({"model", "prompt"})
    actions = frozenset({"prune"})

    kind: Literal["mechanistic"] = "mechanistic"
    prompt: str = Field(default="", description="One prompt whose answer is explained.")
    prompts: str | None = Field(
        default=None,
        description="A prompt set instead: JSONL, CSV, Parquet or a hub name, columns prompt, target, foil, counterfactual. The value is its mean.",
    )
    task: Task | None = Field(default=None, description="A prompt set made here: indirect objects, facts, greater-than, induction.")
    task_size: int = Field(default=64, ge=2, description="Prompts of the task.")
    task_seed: int = Field(default=0, ge=0, description="Seed of the task's prompts.")
    template: str = Field(default="{prompt}", description="Fixed text around each prompt; {prompt} is filled in.")
    chat: bool = Field(default=False, description="Put each prompt into the model's chat template as a user's message.")
    target: str | None = Field(default=None, description="The answer the value is about; without one, the model's own greedy answer.")
    foil: str | None = Field(default=None, description="The answer it is compared with.")
    max_new_tokens: int = Field(default=1, ge=1, le=256, description="Length of the greedy answer when no target is given.")
    components: str = Field(
        default="heads", description="What is ablated: heads, mlp, blocks, neurons, each with layers and units, such as heads:10-17,mlp:all."
    )
    layers: str | None = Field(default=None, description="Only components of these layers, such as 14-16 or 0,5,10-12.")
    group: int = Field(default=1, ge=1, description="Neurons in one component.")
    ablation: MechanisticAblation = Field(default="zero", description="What takes the place of a component's output.")
    clamp: float | None = Field(default=None, description="The constant of ablation clamp.")
    references: str | None = Field(
        default=None, description="Prompts whose activations ablations mean and resample use: a file, or a text a line; else the prompt set's own."
    )
    counterfactual: str | None = Field(default=None, description="The prompt whose activations ablation patch puts in place; as many tokens as the prompt.")
    positions: str = Field(default="all", description="Token positions ablated: all, last (of the prompt), or numbers such as 0,3,-1.")
    value: MechanisticValue | None = Field(default=None, description="The scalar; without one, what fits target and foil.")


class DataLens(ModelOptions):
    """Parts of a training set: which examples, alone and together, made a model that was trained on them answer queries so.

    A mask is answered by a LoRA adapter trained on the examples that it keeps; one training answers every query, and the value is their mean.
    """

    cost_class = "training"
    default_validation = Validation(heldout=60, top=5, random=5, low_pairs=5)
    actions = frozenset({"lds", "select"})

    kind: Literal["data"] = "data"
    train: str = Field(
        default="",
        description="Training set: JSONL, CSV, Parquet, a saved folder, a hub name (hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT), corpus:chatterbot or corpus:reviews.",
    )
    queries: str | None = Field(default=None, description="Queries, as train; without them, examples drawn from the training set are taken out and asked.")
    query_count: int | None = Field(default=None, ge=1, description="Queries at most; without a number, all that are given, or 8 drawn ones.")
    columns: str | None = Field(
        default=None, description="Which columns hold what, such as prompt=question,completion=answer; names: prompt, completion, messages, text, label, foil."
    )
    limit: int | None = Field(default=None, ge=2, description="At most this many training examples, drawn at random.")
    template: str = Field(
        default="{prompt}", description="Text around each prompt; {prompt} is filled in. A space goes before the completion where neither has one."
    )
    chat: bool = Field(default=False, description="Put prompts into the model's chat template as a user's message.")
    max_tokens: int = Field(default=256, ge=2, description="Longer examples are cut at their beginning, which is said aloud.")
    components: int | None = Field(default=None, ge=2, description="Number of components; more examples than that are grouped.")
    group_by: str | None = Field(default=None, description="What makes a component: a column's name, cluster, or duplicates (near-duplicate texts).")
    rank: int = Field(default=8, ge=1, description="Rank of the adapters.")
    alpha: float = Field(default=16.0, gt=0, description="Scale of the adapters, as in PEFT: alpha / rank.")
    target_modules: str = Field(default="q_proj,v_proj", description="Names of the linear layers that are adapted.")
    adapted_layers: str = Field(default="last:4", description="Layers that are adapted: last:K, all, or numbers such as 24-27,29.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Of AdamW.")
    weight_decay: float = Field(default=0.0, ge=0, description="Of AdamW.")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="constant", description="How the learning rate goes on after the warm-up.")
    warmup: float = Field(default=0.0, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    epochs: int = Field(default=3, ge=1, description="Passes over a subset.")
    batch_size: int = Field(default=8, ge=1, description="Examples in a step.")
    training_seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the adapters' start and of the batch order.")
    seeds: int = Field(default=1, ge=1, description="Trainings of each subset, from seeds that follow training_seed; their mean is the value.")
    seeding: Literal["shared", "own"] = Field(
        default="shared",
        description="shared: all subsets are trained from the same seeds, so that differences are of what was trained on; own: each from seeds of its own, "
        "so that what is learnt holds for trainings at large.",
    )
    value: DataValue | None = Field(default=None, description="What a query is worth; without one, what fits its foil and labels.")


class FunctionLens(LensSpec):
    """Any Python callable from masks (bool, `(m, n)`) to values (`(m,)`).

    With a `name`, evaluations are stored under it and reused by later runs: change the name when the function changes.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    uses_torch = False

    kind: Literal["function"] = "function"
    function: Annotated[Callable[..., Any], Field(exclude=True)]
    n: int = Field(ge=1, description="Number of components.")
    labels: tuple[str, ...] | None = Field(default=None, description="A label for each component.")
    name: str | None = Field(default=None, description="Name under which evaluations are shared between runs.")
    batch_masks: int = Field(default=4096, ge=1, description="Masks in one call of the function.")
    anonymous: str = Field(default_factory=lambda: uuid.uuid4().hex, repr=False, exclude=True)

    def __init__(self, function: Callable[..., Any] | None = None, **options: Any) -> None:
        """The function may be given first, without its name."""
        super().__init__(**{"function": function, **options})

    @property
    def key(self) -> str:
        """A text that only this object and its copies have: another function may have the same options."""
        return self.anonymous

    @property
    def own_code(self) -> Callable[..., Any]:
        """The function."""
        return self.function

    @model_validator(mode="after")
    def _check(self) -> "FunctionLens":
        if self.labels is not None and len(self.labels) != self.n:
            raise UserError("labels", len(self.labels), f"labels for {self.n} components", "give one label a component")
        return self


Lens = TypeVar("Lens", bound=BaseModel)


def with_dtype(lens: Lens, dtype: str) -> Lens:
    """The lens with its model in this dtype; a lens without a model as it is."""
    return lens.model_copy(update={"dtype": dtype}) if isinstance(lens, ModelOptions) else lens


def parse_spans(text: str) -> list[tuple[int, int]]:
    """Character spans from a JSON list, in order and not overlapping; UserError otherwise."""
    try:
        spans = [(int(start), int(stop)) for start, stop in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise UserError("spans", text, f"is no JSON list of [start, stop] pairs ({error})", "write for example [[0, 5], [6, 12]]") from None
    for before, after in itertools.pairwise(spans):
        if after[0] < before[1]:
            raise UserError("spans", [before, after], "overlap or are out of order", "give ascending spans that do not overlap")
    return spans
