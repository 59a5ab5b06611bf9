"""The page on which a question is asked: a form for each lens, generated from the spec models, or a spec as YAML."""

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from raysp.runs.state import DEFAULT_PRIORITY, LEAST_PRIORITY, MOST_PRIORITY
from raysp.specs.forms import EVERYDAY, SOURCES, FormField, form
from raysp.web.asking import CHOSEN_HERE
from raysp.web.pages.rendering import render

router = APIRouter(include_in_schema=False)

#: What each lens asks about, in the words of a choice.
LENS_NAMES = {"feature": "Parts of a prompt", "mechanistic": "Parts of a model", "data": "Training examples"}
#: Data sets that may be asked about instead of a prompt, by the everyday field that they follow.
SHOWN_AFTER = {"feature": {"template": "examples"}, "mechanistic": {"prompt": "prompts"}}
#: Groups of the other fields, in order, with their titles.
GROUPS = {"lens": "Lens", "explorer": "Explorer", "validation": "Validation", "run": "Run"}


@dataclass(frozen=True)
class LensForm:
    """The form of one lens: its everyday fields, the others by group, and the paths of those of which one has to be given."""

    kind: str
    sources: tuple[str, ...]
    first: tuple[FormField, ...]
    others: tuple[tuple[str, tuple[FormField, ...]], ...]


def lens_form(kind: str) -> LensForm:
    """The form of a lens. A service chooses its own store, so that field is left out."""
    fields = [field for field in form(kind) if field.path not in CHOSEN_HERE]
    after = SHOWN_AFTER.get(kind, {})
    wanted = [name for each in EVERYDAY[kind] for name in (each, after.get(each)) if name is not None]
    by_name = {field.name: field for field in reversed(fields)}  # of two fields with one name, that of the lens
    first = tuple(by_name[name] for name in wanted)
    others = {title: tuple(field for field in fields if field.group == group and field not in first) for group, title in GROUPS.items()}
    return LensForm(kind, SOURCES[kind], first, tuple(others.items()))


@router.get("/ask")
def ask(request: Request) -> Response:
    """The form. `?from=RUN` fills it in with the question of a run."""
    forms = [lens_form(kind) for kind in LENS_NAMES]
    priorities = range(LEAST_PRIORITY, MOST_PRIORITY + 1)
    return render(request, "ask.html.j2", lenses=LENS_NAMES, forms=forms, priorities=priorities, usual_priority=DEFAULT_PRIORITY)
