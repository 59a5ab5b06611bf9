"""The fields of a question as people fill them in, generated from the spec models, so that each field is described in one place.

`raysp.commands.options` makes command-line options of them and the web end a form. Values arrive as text and are validated by the models.
"""

import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from raysp.specs.explorers import EXPLORER_OPTIONS
from raysp.specs.flags import OWN_PROMPTS
from raysp.specs.run import LENSES, RunSpec
from raysp.specs.validation import Validation

RUN_FIELDS = tuple(name for name in RunSpec.model_fields if name not in {"lens", "explorer", "validation"})
#: The fields that matter most for each lens, in the order in which people think of them.
EVERYDAY = {
    "feature": ("prompt", "template", "question", "target", "foil", "unit", "model", "budget"),
    "mechanistic": ("prompt", "task", "target", "foil", "components", "layers", "ablation", "model", "budget"),
    "data": ("train", "queries", "template", "components", "group_by", "model", "budget", "keep"),
}
#: Where each lens finds what it is about: at least one of these has to be given.
SOURCES = {"feature": ("lens.prompt", "examples"), "mechanistic": ("lens.prompt", "lens.prompts", "lens.task"), "data": ("lens.train",)}
#: Fields that name a file or data set.
FILES = frozenset({"examples", "prompts", "train", "queries", "references", "spans", "scores"})
#: Texts that may have several lines.
PROSE = frozenset({"prompt", "template", "counterfactual"})

#: Names of fields whose own names say less.
LABELS = {"explorer.kind": "Explorer", "explorer.b": "Block size b", "explorer.until_r2": "Until R²", "gpus": "GPUs"}

Kind = Literal["text", "prose", "whole", "number", "choice", "switch", "list", "file"]


@dataclass(frozen=True)
class FormField:
    """One field: its place in a spec (`lens.prompt`), what it takes, and what it stands at if it is left empty. `explorers` are those that have it."""

    path: str
    help: str
    kind: Kind
    choices: tuple[str, ...] = ()
    default: str = ""
    explorers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The field's name in its model."""
        return self.path.rpartition(".")[2]

    @property
    def group(self) -> str:
        """The part of the spec that it belongs to: lens, explorer, validation or run."""
        return self.path.partition(".")[0] if "." in self.path else "run"

    @property
    def label(self) -> str:
        """Its name in words."""
        return LABELS.get(self.path) or self.name.replace("_", " ").capitalize()


def form(lens_kind: str) -> list[FormField]:
    """Every field of a question with this kind of lens: of the lens, of all explorers, of the validation and of the run."""
    usual = LENSES[lens_kind].default_validation
    found = [_field(f"lens.{name}", field) for name, field in LENSES[lens_kind].model_fields.items() if name != "kind"]
    found.append(FormField("explorer.kind", "How masks are chosen.", "choice", tuple(EXPLORER_OPTIONS), RunSpec.model_fields["explorer"].default.kind))
    for name, field in explorer_fields().items():
        users = tuple(kind for kind, model in EXPLORER_OPTIONS.items() if name in model.model_fields)
        found.append(_field(f"explorer.{name}", field, explorers=users))
    found += [_field(f"validation.{name}", field, usual=getattr(usual, name)) for name, field in Validation.model_fields.items()]
    return found + [_field(name, RunSpec.model_fields[name]) for name in run_fields(lens_kind)]


def run_fields(lens_kind: str) -> tuple[str, ...]:
    """The run options that this kind of lens takes."""
    return tuple(name for name in RUN_FIELDS if name not in OWN_PROMPTS.get(lens_kind, ()))


def explorer_fields() -> dict[str, FieldInfo]:
    """The options of all explorers by name."""
    fields = {name: field for model in EXPLORER_OPTIONS.values() for name, field in model.model_fields.items()}
    return {name: field for name, field in fields.items() if name != "kind" and not field.exclude}


def choices(annotation: Any) -> tuple[str, ...]:
    """The values of a field that only takes certain values; empty otherwise."""
    if get_origin(annotation) is Literal:
        return tuple(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in {Union, types.UnionType}:
        members = [choices(member) for member in get_args(annotation) if member is not type(None)]
        return tuple(choice for member in members for choice in member) if all(members) else ()
    return ()


def _field(path: str, field: FieldInfo, *, usual: Any = None, explorers: tuple[str, ...] = ()) -> FormField:
    default = field.get_default(call_default_factory=False) if usual is None else usual
    shown = "" if default is None or default is False or default in ("", ()) or field.is_required() else str(default)
    return FormField(path, field.description or "", _kind(path.rpartition(".")[2], field.annotation), choices(field.annotation), shown, explorers)


def _kind(name: str, annotation: Any) -> Kind:
    members = [member for member in (get_args(annotation) or (annotation,)) if member is not type(None)]
    if choices(annotation):
        return "choice"
    if annotation is bool:
        return "switch"
    if get_origin(annotation) is tuple:
        return "list"
    if name in FILES:
        return "file"
    if len(members) == 1 and members[0] in (int, float):
        return "whole" if members[0] is int else "number"
    return "prose" if name in PROSE else "text"
