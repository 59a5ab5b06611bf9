"""The prompts that a mechanistic value is about: one prompt, a data set of them, or those of a task. Errors name the row."""

import re

from raysp.blobs import read_bytes
from raysp.datasets.files import file_format
from raysp.datasets.sources import open_prompts
from raysp.datasets.tasks import CountTokens, Question, make
from raysp.errors import UserError
from raysp.specs.lenses import MechanisticLens

_LINE_END = re.compile("\r\n|\r|\n")
COLUMNS = ("prompt", "target", "foil", "counterfactual")


def questions(lens: MechanisticLens, count_tokens: CountTokens) -> list[Question]:
    """The questions of a lens. UserError unless it names exactly one source of them."""
    given = [name for name in ("prompt", "prompts", "task") if getattr(lens, name)]
    if len(given) != 1:
        problem = f"only one of {' and '.join(given)} can be explained" if given else "nothing is given to be explained"
        raise UserError("prompt", None, problem, "give one of prompt, prompts (a data set) and task")
    if lens.task is not None:
        _alone(lens, "task", "target", "foil", "counterfactual")
        return make(lens.task, lens.task_size, lens.task_seed, count_tokens)
    if lens.prompts is not None:
        _alone(lens, "prompts", "counterfactual")
        return read_questions("prompts", lens.prompts, lens.target, lens.foil)
    if not lens.prompt.strip():
        raise UserError("prompt", lens.prompt, "is empty", "give the text whose answer is to be explained")
    return [Question(lens.prompt, lens.target, lens.foil, lens.counterfactual)]


def _alone(lens: MechanisticLens, source: str, *others: str) -> None:
    for name in others:
        if getattr(lens, name) is not None:
            raise UserError(name, getattr(lens, name), f"is given, and {source} has its own", f"leave out {name}")


def read_questions(field: str, source: str, target: str | None = None, foil: str | None = None) -> list[Question]:
    """The questions of a data set; `target` and `foil` stand in where a row has none. UserError as `open_prompts`, or for an empty prompt."""
    found: list[Question] = []
    for number, texts in enumerate(open_prompts(field, source).texts(field, COLUMNS), 1):
        if not texts.get("prompt", "").strip():
            raise UserError(f"{field} row {number}, prompt", texts.get("prompt"), "is empty", "give a text, or remove the row")
        found.append(Question(texts["prompt"], texts.get("target", target), texts.get("foil", foil), texts.get("counterfactual")))
    return found


def references(lens: MechanisticLens, prompts: list[Question]) -> list[str]:
    """The prompts whose activations replace ablated ones, empty for ablations that need none. UserError if there are none to use."""
    if lens.ablation not in ("mean", "resample"):
        if lens.references is not None:
            raise UserError(
                "references",
                lens.references,
                f"are given, and ablation {lens.ablation} does not use them",
                "use ablation mean or resample, or leave out references",
            )
        return []
    if lens.references is None:
        if len(prompts) < 2:
            raise UserError("references", None, f"are needed by ablation {lens.ablation} of one prompt", "give a text file with one prompt a line")
        return [question.prompt for question in prompts]
    if file_format(lens.references) is not None:
        return [question.prompt for question in read_questions("references", lens.references)]
    try:
        lines = [line for line in _LINE_END.split(read_bytes(lens.references).decode("utf-8-sig")) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "references", lens.references, f"cannot be read ({error})", "give a text file with one prompt a line, or a data set with a column prompt"
        ) from None
    if not lines:
        raise UserError("references", lens.references, "has no prompts", "write one a line")
    return lines
