"""Command-line options generated from the fields of spec models, so that each field is described in one place.

Every option arrives as text and is validated by the model that it belongs to, so flags and files give the same one-line errors. `--help` shows the options of
`EVERYDAY`; `--help-all` shows all of them.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from raysp.blobs import read_bytes
from raysp.errors import UserError
from raysp.specs import forms
from raysp.specs.explorers import EXPLORER_OPTIONS
from raysp.specs.flags import RENAMED, flag, unescaped
from raysp.specs.forms import choices, explorer_fields, run_fields
from raysp.specs.run import LENSES, RunSpec, run_spec
from raysp.specs.validation import Validation

#: Names of options in a lens's own terms: an evaluation of a data lens trains on a subset, which keeps a fraction of the components.
ALIASES = {"data": {"budget": ("--subsets",), "keep": ("--fraction",)}}
#: The options that `--help` shows for each lens.
EVERYDAY = {kind: (*names, "report", "json") for kind, names in forms.EVERYDAY.items()}


def spec_options(kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn a command that takes a spec into one with an option for every field of a run with this kind of lens, and `--help-all`."""

    def made(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**given: Any) -> Any:
            given.pop(HELP_ALL.name)
            own = {name: given.pop(name) for name in list(given) if name in inspect.signature(function).parameters}
            return function(spec=spec_from(kind, given), **own)

        kept = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, parameter in inspect.signature(function).parameters.items() if name != "spec"]
        setattr(command, "__signature__", inspect.Signature([*_everyday(kind, [*_parameters(kind), *kept]), HELP_ALL]))  # noqa: B010  typer reads it
        return command

    return made


def spec_from(lens_kind: str, given: Mapping[str, Any]) -> RunSpec:
    """The spec that command-line options describe; options that are not given keep the models' defaults."""
    told = {name: value for name, value in given.items() if value not in (None, False, [], ())}
    lens: dict[str, Any] = {"kind": lens_kind} | {name: unescaped(name, told[name]) for name in LENSES[lens_kind].model_fields if name in told}
    if "prompt_file" in told:
        lens["prompt"] = _read(told["prompt_file"])
    kind = told.get("explorer", "proxyspex")
    if kind not in EXPLORER_OPTIONS:
        raise UserError("explorer", kind, "is not known", f"choose one of {', '.join(EXPLORER_OPTIONS)}")
    explorer = {"kind": kind} | {name: told[name] for name in explorer_fields() if name in told}
    for name in explorer:
        if name not in EXPLORER_OPTIONS[kind].model_fields:
            having = [other for other, model in EXPLORER_OPTIONS.items() if name in model.model_fields]
            raise UserError(flag(name), told[name], f"is not an option of {kind}", f"use it with --explorer {' or '.join(having)}")
    validation = {name: told[name] for name in Validation.model_fields if name in told}
    run = {name: told[RENAMED.get(name, name)] for name in run_fields(lens_kind) if RENAMED.get(name, name) in told}
    return run_spec({"lens": lens, "explorer": explorer, "validation": validation, **run})


def _show_everything(context: typer.Context, shown: bool) -> None:
    """Print the help of a command with the options that `--help` leaves out, and exit."""
    if shown:
        for parameter in context.command.params:
            setattr(parameter, "hidden", False)  # noqa: B010  arguments have no such attribute, options do
        typer.echo(context.get_help())
        raise typer.Exit


HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--help-all", is_eager=True, callback=_show_everything, help="Show every option and exit.")],
)


def _everyday(lens_kind: str, parameters: Sequence[inspect.Parameter]) -> Sequence[inspect.Parameter]:
    """The parameters, with those hidden from `--help` that are not among the lens's everyday ones."""
    for parameter in parameters:
        option = get_args(parameter.annotation)[1]
        assert isinstance(option, typer.models.OptionInfo)
        option.hidden = parameter.name not in EVERYDAY[lens_kind]
    return parameters


def _parameters(lens_kind: str) -> list[inspect.Parameter]:
    """The options of the lens, of all explorers, of the validation and of the run."""
    aliases = ALIASES.get(lens_kind, {})
    parameters = [_option(name, field, "Lens") for name, field in LENSES[lens_kind].model_fields.items() if name != "kind"]
    if "prompt" in LENSES[lens_kind].model_fields:
        parameters.insert(1, _parameter("prompt_file", str | None, "Read the prompt from a file.", "Lens"))
    parameters.append(_parameter("explorer", str | None, f"How masks are chosen: {', '.join(EXPLORER_OPTIONS)}. Default proxyspex.", "Explorer"))
    for name, field in explorer_fields().items():
        users = [kind for kind, model in EXPLORER_OPTIONS.items() if name in model.model_fields]
        prefix = "" if len(users) == len(EXPLORER_OPTIONS) else f"({', '.join(users)}) "
        parameters.append(_option(name, field, "Explorer", prefix, aliases=aliases.get(name, ())))
    usual = LENSES[lens_kind].default_validation
    parameters += [_option(name, field, "Validation", usual=getattr(usual, name)) for name, field in Validation.model_fields.items()]
    parameters += [_option(name, RunSpec.model_fields[name], "Run") for name in run_fields(lens_kind)]
    return parameters


def _option(name: str, field: FieldInfo, panel: str, prefix: str = "", *, usual: Any = None, aliases: Sequence[str] = ()) -> inspect.Parameter:
    """The option of a field. `usual` replaces the field's default in the help; `aliases` are further flags for it."""
    kind: Any = str | None
    if field.annotation is bool:
        kind = bool
    elif get_origin(field.annotation) is tuple:
        kind = list[str] | None
    default = field.get_default(call_default_factory=False) if usual is None else usual
    shown = "" if default in (None, "", (), False) or field.is_required() else f" Default {default}."
    known = choices(field.annotation)
    listed = f" One of {', '.join(known)}." if known else ""
    return _parameter(RENAMED.get(name, name), kind, f"{prefix}{field.description or ''}{listed}{shown}", panel, _metavar(field.annotation), aliases=aliases)


def _parameter(name: str, kind: Any, text: str, panel: str, metavar: str = "TEXT", *, aliases: Sequence[str] = ()) -> inspect.Parameter:
    default: Any = False if kind is bool else None
    shown = "" if kind is bool else metavar
    option = typer.Option(*aliases, flag(name), help=text.replace("[", r"\["), rich_help_panel=panel, show_default=False, metavar=shown)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _metavar(annotation: Any) -> str:
    """The placeholder of a field's value in the help."""
    members = [member for member in (get_args(annotation) or (annotation,)) if member is not type(None)]
    names = {int: "INTEGER", float: "NUMBER", bool: ""}
    return names.get(members[0], "TEXT") if len(members) == 1 and not choices(annotation) else "NAME" if choices(annotation) else "TEXT"


def _read(path: str) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError("prompt_file", path, f"cannot be read ({error})", "give the path of a UTF-8 text file") from None
