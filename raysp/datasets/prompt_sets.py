"""The prompts that a mechanistic value is about: one, a file of them, or a task's; what is wrong with a row is said with its number."""

from pathlib import Path
from typing import Any

from raysp.datasets.examples import READERS, read_rows
from raysp.datasets.tasks import CountTokens, Question, make
from raysp.errors import UserError
from raysp.specs.lenses import MechanisticLens

COLUMNS = ("prompt", "target", "foil", "counterfactual")


def questions(lens: MechanisticLens, count_tokens: CountTokens) -> list[Question]:
    """The lens's questions; UserError unless it names one source of them."""
    given = [name for name in ("prompt", "prompts", "task") if getattr(lens, name)]
    if len(given) != 1:
        said = f"{' and '.join(given)} are given" if given else "nothing is given"
        raise UserError("prompt", None, f"{said} to be explained", "give one of prompt, prompts (a file) and task")
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
            raise UserError(name, getattr(lens, name), f"is given, and {source} has its own", f"leave {name} out")


def read_questions(field: str, source: str, target: str | None = None, foil: str | None = None) -> list[Question]:
    """The questions of a JSONL, CSV or Parquet file or a hub data set; `target` and `foil` stand where a row has none. UserError as `read_rows`, or for an empty prompt."""
    found: list[Question] = []
    for number, row in enumerate(read_rows(field, source), 1):
        texts = {name: _text(field, number, name, row[name]) for name in COLUMNS if row.get(name) is not None}
        if not texts.get("prompt", "").strip():
            raise UserError(f"{field} row {number}, prompt", row.get("prompt"), "is empty", "give a text, or take the row out")
        found.append(Question(texts["prompt"], texts.get("target", target), texts.get("foil", foil), texts.get("counterfactual")))
    return found


def _text(field: str, number: int, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{field} row {number}, {name}", value, "is no text", "write it as a string")
    return value


def references(lens: MechanisticLens, asked: list[Question]) -> list[str]:
    """The prompts whose activations take the place of what is left out, for ablations that need some; UserError where there are none."""
    if lens.ablation not in ("mean", "resample"):
        if lens.references is not None:
            raise UserError("references", lens.references, f"are given, and ablation {lens.ablation} uses none", "use ablation mean or resample")
        return []
    if lens.references is None:
        if len(asked) < 2:
            raise UserError("references", None, f"are needed by ablation {lens.ablation} of one prompt", "give a file of prompts, one a line")
        return [question.prompt for question in asked]
    if Path(lens.references).suffix.lower() in READERS:
        return [question.prompt for question in read_questions("references", lens.references)]
    try:
        lines = [line for line in Path(lens.references).expanduser().read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "references", lens.references, f"cannot be read ({error})", "give a text file with a prompt a line, or JSONL with a column prompt"
        ) from None
    if not lines:
        raise UserError("references", lens.references, "holds no prompt", "write one a line")
    return lines
