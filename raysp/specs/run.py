"""The specification of a run: one validated model, written as YAML, as flags or in Python.

Invalid input is reported here in one line. Nothing here loads a model or opens a store.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from raysp.blobs import parse_blob
from raysp.errors import UserError, masked
from raysp.home import local_path
from raysp.specs.base import Spec
from raysp.specs.documents import read_document
from raysp.specs.explorers import EXPLORER_OPTIONS, AnyExplorerOptions, ProxySPEXOptions, StandsForOptions
from raysp.specs.lenses import DataLens, FeatureLens, FunctionLens, LensSpec, MechanisticLens, forced_dtype, with_dtype
from raysp.specs.limits import MOST_COUNT, MOST_EVALUATORS, MOST_GPUS, MOST_RUN_SEED, MOST_THREADS
from raysp.specs.validation import Validation

AnyLens = FeatureLens | MechanisticLens | DataLens | FunctionLens
LENSES: Mapping[str, type[LensSpec]] = {"feature": FeatureLens, "mechanistic": MechanisticLens, "data": DataLens, "function": FunctionLens}


class RunSpec(Spec):
    """One question: what is asked (lens), how it is explored and validated, and where it runs.

    The answer depends on `lens`, `explorer`, `validation` and `seed` only, not on where the run is executed.
    """

    # Errors of pydantic would show the whole input, with what it holds of secrets.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    lens: Annotated[AnyLens, Field(discriminator="kind")]
    explorer: Annotated[AnyExplorerOptions, Field(discriminator="kind")] = ProxySPEXOptions()
    validation: Validation = Validation()
    seed: int = Field(default=0, ge=0, le=MOST_RUN_SEED, description="Seed of everything random.")
    cross_check: bool = Field(default=False, description="Compare single effects with estimates from gradients and attention.")
    name: str | None = Field(default=None, description="Name of the run, to refer to it later.")
    examples: str | None = Field(default=None, description="Data set of prompts (JSONL, JSON, CSV, Parquet or a hub name), with one run for each row.")
    limit: int | None = Field(default=None, ge=1, le=MOST_COUNT, description="Maximum number of examples, from the first row on.")
    repeat_on: tuple[str, ...] = Field(
        default=(), description="Repeat the run with model:NAME or prompt:TEXT and compare the answers. May be given several times."
    )
    store: str | None = Field(default=None, description="DuckDB file of results; by default raysp.duckdb in RAYSP_HOME (~/.raysp).")
    local: bool = Field(default=False, description="Run in this process, without Ray.")
    evaluators: int | None = Field(
        default=None, ge=1, le=MOST_EVALUATORS, description="Number of evaluator actors; by default one for each GPU, or one for each CPU node."
    )
    gpus: int | None = Field(
        default=None, ge=1, le=MOST_GPUS, description="GPUs of each evaluator, for a model that does not fit on one; by default one or a fraction of one."
    )
    threads: int | None = Field(
        default=None, ge=1, le=MOST_THREADS, description="CPU threads of each evaluator, or of this process with --local; by default the cores of the node."
    )

    @field_validator("explorer", mode="before")
    @classmethod
    def _options_of_explorer(cls, value: Any) -> Any:
        """Accept an explorer in place of its options; a seed or number of components of its own is refused."""
        return value.spec_options() if isinstance(value, StandsForOptions) else value

    @model_validator(mode="before")
    @classmethod
    def _validate_as_the_lens_does(cls, fields: Any) -> Any:
        """Fill in the parts of the validation that are not given with the defaults of the lens."""
        lens = _lens_class(fields.get("lens")) if isinstance(fields, dict) else None
        given = fields.get("validation", {}) if isinstance(fields, dict) else None
        if isinstance(given, Validation):
            given = given.model_dump(exclude_unset=True)
        if lens is None or not isinstance(given, Mapping):
            return fields
        return {**fields, "validation": {**lens.default_validation.model_dump(exclude_unset=True), **given}}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """Check the names of models, data sets and files: each can be a path, and none holds a password or token, as specs are stored, shown and sent."""
        lens = self.lens
        named = {**lens.files, **lens.data_sets, **({} if lens.loads is None else {"model": lens.loads.model}), **self.explorer.files}
        named |= {"examples": self.examples, "store": self.store} | {
            f"repeat_on.{i}": text for i, text in enumerate(self.repeat_on) if text.startswith("model:")
        }
        for field, value in named.items():
            if value is None:
                continue
            if parse_blob(value) is None:
                local_path(field, value)
            if masked(value) != value:
                raise UserError(field, value, "holds a password or a token, which the store would keep", "leave it out; tokens of the hub belong into HF_TOKEN")
        return self


def _lens_class(lens: Any) -> type[LensSpec] | None:
    if isinstance(lens, LensSpec):
        return type(lens)
    return LENSES.get(str(lens.get("kind"))) if isinstance(lens, Mapping) else None


def run_spec(fields: object, *, where: str = "", lines: Mapping[tuple[str, ...], int] | None = None) -> RunSpec:
    """A spec from plain data. UserError naming the first invalid field, its value and what to do.

    `where` (a file) and `lines` (line numbers by field path) become part of the message.
    """
    if not isinstance(fields, Mapping):
        raise UserError(where or "spec", fields, "is not a mapping of fields", "write at least lens: {kind: feature, prompt: ...}")
    try:
        return RunSpec.model_validate(fields)
    except ValidationError as error:
        raise _first_error(error, where, lines or {}) from None


def load_spec(path: str | Path) -> RunSpec:
    """The spec in a YAML file. UserError with the line number of whatever is invalid."""
    fields, lines = read_document(path)
    return run_spec(fields, where=f"{path}", lines=lines)


def resolve(spec: RunSpec) -> RunSpec:
    """The spec as it is asked here and now: with absolute local paths, dtype `auto` as RAYSP_AUTO_DTYPE sets it, and today's date where a chat template may state it.

    Evaluators and the scheduler have environments of their own, and may continue the run on another day.
    """
    lens, explorer = spec.lens, spec.explorer
    if lens.takes_date:
        lens = lens.model_copy(update={"date": dt.datetime.now().astimezone().date()})
    if lens.loads is not None and lens.loads.dtype == "auto" and (dtype := forced_dtype()):
        lens = with_dtype(lens, dtype)
    named = {**lens.files, **lens.data_sets, **({} if lens.loads is None else {"model": lens.loads.model})}
    lens = lens.model_copy(update={name: _absolute(source) for name, source in named.items() if _exists(source)})
    explorer = explorer.model_copy(update={name: _absolute(source) for name, source in explorer.files.items() if parse_blob(source) is None})
    return spec.model_copy(update={"lens": lens, "explorer": explorer, "store": _absolute(spec.store) if spec.store else None})


def resolved_model(name: str) -> str:
    """The absolute path of a local folder, or the name of any other model as it is: readers take a relative name for one on the hub."""
    return _absolute(name) if _exists(name) else name


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, ValueError):  # a JSON text can be too long for a file name
        return False


def _first_error(error: ValidationError, where: str, lines: Mapping[tuple[str, ...], int]) -> UserError:
    """The first error of pydantic as one line about one field."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return cause
    # A discriminated union puts the chosen kind into the path, where the user did not write it.
    loc = [str(part) for part in first["loc"]]
    path = tuple(part for i, part in enumerate(loc) if not (i == 1 and loc[0] in {"lens", "explorer"} and part in {*LENSES, *EXPLORER_OPTIONS}))
    # The path goes on with the alternatives that the field was validated as; only the field is shown.
    path = path[: 2 if path[0] in {"lens", "explorer", "validation"} else 1]
    line = next((lines[path[:k]] for k in range(len(path), -1, -1) if path[:k] in lines), None)
    place = f"{where}, line {line}: " if where and line else ""
    value = first["input"]
    problem, advice = _explain(first, path, loc)
    return UserError(place + ".".join(path), None if isinstance(value, Mapping) else value, problem, advice)


def _explain(first: Mapping[str, Any], path: Sequence[str], loc: Sequence[str]) -> tuple[str, str]:
    """The problem and the advice for the most frequent errors of pydantic."""
    context = first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            return "is not a field here", f"known fields: {', '.join(_siblings(loc))}"
        case "literal_error":
            return "is not known", f"choose one of {context['expected']}"
        case "union_tag_invalid":
            return f"has the unknown kind {context['tag']!r}", f"choose one of {context['expected_tags']}"
        case "union_tag_not_found":
            return "has no kind", f"write kind: {' or kind: '.join(LENSES if path[-1] == 'lens' else EXPLORER_OPTIONS)}"
        case "missing":
            return "is missing", "give it"
        case "string_type" if not isinstance(first["input"], list | dict):
            return f"is not text ({type(first['input']).__name__})", "write it in quotation marks"
        case _:
            return "is not valid", first["msg"][0].lower() + first["msg"][1:]


def _siblings(loc: Sequence[str]) -> list[str]:
    """The fields that exist beside an unknown one."""
    model: type[BaseModel] = RunSpec
    for part in loc[:-1]:
        known = {**LENSES, **EXPLORER_OPTIONS}
        if part in known:
            model = known[part]
        elif part in model.model_fields:
            inner = [a for a in (model.model_fields[part].annotation, *get_args(model.model_fields[part].annotation)) if isinstance(a, type)]
            model = next((a for a in inner if issubclass(a, BaseModel)), model)
    return [name for name, field in model.model_fields.items() if not field.exclude]
