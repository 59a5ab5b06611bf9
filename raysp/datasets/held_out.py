"""Prompts and queries that a finished run did not see, on which what is made of its answer is judged."""

from collections.abc import Sequence
from dataclasses import replace

from raysp.datasets.prompt_sets import read_questions
from raysp.datasets.tasks import CountTokens, Question, make
from raysp.datasets.training_sets import TrainingSet, read_training_set
from raysp.errors import UserError
from raysp.game import GameInfo, fingerprint
from raysp.specs.lenses import DataLens, MechanisticLens

#: The distance between the seeds of a task's prompts and of its held-out prompts.
APART = 1_000_003
#: The fewest held-out prompts or queries.
LEAST_HELDOUT = 2


def held_out_prompts(lens: MechanisticLens, source: str | None, seen: Sequence[Question], count_tokens: CountTokens) -> list[Question]:
    """Prompts of a data set (None: new ones of the lens's task) that are not among those `seen`. UserError if fewer than two are available."""
    prompts = {question.prompt for question in seen}
    if source is not None:
        # Default answers for the run's prompt file apply to the held-out file too; the answers to a single prompt do not.
        found = read_questions("heldout", source, *((lens.target, lens.foil) if lens.prompts is not None else ()))
    elif lens.task is not None:
        try:
            found = make(lens.task, lens.task_size, lens.task_seed + APART, count_tokens, excluding=prompts)
        except UserError:
            problem = f"cannot be generated: task {lens.task} does not have {lens.task_size} prompts besides those of the run"
            raise UserError("heldout", None, problem, "give a file of prompts") from None
    else:
        raise UserError(
            "heldout", None, "is required, because pruning is judged on prompts that the run did not see", "give a file of prompts like those of the run"
        )
    fresh = [question for question in found if question.prompt not in prompts]
    if len(fresh) < LEAST_HELDOUT:
        raise UserError("heldout", source, f"has {len(fresh)} prompts that the run did not see", "give at least two")
    return fresh


def held_out_queries(lens: DataLens, source: str) -> TrainingSet:
    """Queries of a data set that a run neither asked nor trained on; notes say which were left out or have unknown labels. UserError if there are too few."""
    try:
        training, queries = read_training_set(lens.model_copy(update={"queries": source, "query_count": None}))
    except UserError as error:
        raise held_out_error(error) from None
    own = read_training_set(lens)
    seen = {(sample.prompt.strip(), sample.completion.strip()) for sample in (*own[0].samples, *own[1].samples)}
    fresh = tuple(sample for sample in queries.samples if (sample.prompt.strip(), sample.completion.strip()) not in seen)
    if len(fresh) < LEAST_HELDOUT:
        raise UserError("heldout", source, f"has {len(fresh)} queries that the run did not see", f"give at least {LEAST_HELDOUT}")
    known = len(queries.samples) - len(fresh)
    said = [f"{known} of {len(queries.samples)} held-out queries are left out because the run saw them."] if known else []
    unknown = sorted({sample.label for sample in fresh if sample.label is not None} - set(training.labels))
    if unknown and training.labels:
        said.append(f"Held-out queries have labels that no training example has: {', '.join(unknown)}.")
    return replace(queries, samples=fresh, notes=tuple(said))


def with_seed(info: GameInfo, seed: int) -> GameInfo:
    """A separate game with the same training set and queries, trained once with this seed."""
    described = dict(info.description) | {"training_seed": seed, "seeds": 1, "seeding": "shared"}
    return replace(info, description=described, fingerprint=fingerprint(described))


def held_out_error(error: UserError) -> UserError:
    """The error about held-out queries, which were read as queries."""
    return error.about(error.field.replace("queries", "heldout", 1))
